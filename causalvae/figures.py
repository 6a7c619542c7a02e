"""The figures of one evaluation: chooses what to show of an `Evaluation` and hands arrays to plots.py."""

from __future__ import annotations

import pathlib

import numpy as np

from causalvae import plots
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.evaluation import SWEEP, Evaluation, Mediated, Patching
from causalvae.metrics.ties import descending

SHOWN_LATENTS = 10  # rows of the traversal figure, strongest first


def draw(
    found: Evaluation, model: Architecture, dataset: Dataset, folder: str | pathlib.Path, suffix: str = ""
) -> list[pathlib.Path]:
    """Write every figure of `found` that its data set admits, as PNG files; returns their paths."""
    about = f"{model.name} on {dataset.name} ({dataset.source} data)"
    figures = {
        "reconstructions": plots.reconstructions(found.images, found.reconstructed, "Reconstructions", about),
        "traversals": traversals(found, about, "activity" if model.codebook else "KL (nats)"),
    }
    if found.factor_effects is not None:
        figures["factor_effects"] = factor_effects(found, dataset, about)
    if found.patching is not None:
        figures["patching"] = patching(found, dataset, about)
    if found.mediation is not None:
        figures["mediation"] = mediation(found, dataset, about)
    folder = pathlib.Path(folder)
    return [plots.save(figure, folder / f"{name}{suffix}.png") for name, figure in figures.items()]


def traversals(found: Evaluation, about: str, carries: str):
    """A row per latent, sorted by causal effect strength, with its numbers beside it."""
    latents = found.latents
    order = descending(np.asarray(latents.ces_l2))[:SHOWN_LATENTS]
    labels = [
        f"z{i}   CES {latents.ces_l2[i]:.2f}\nspecificity {latents.specificity_outputs[i]:.2f}\n"
        f"{carries} {latents.activity[i]:.2f}"
        for i in order
    ]
    values = np.linspace(SWEEP.low, SWEEP.high, SWEEP.num)
    subtitle = f"{about}; do(z_i := value), sorted by CES (l2 norm of the image's change)"
    return plots.traversals(found.traversals[order], labels, values, "Latent traversals", subtitle)


def factor_effects(found: Evaluation, dataset: Dataset, about: str):
    """R [K, d]."""
    names = [f"z{i}" for i in range(found.factor_effects.shape[1])]
    return plots.matrix(
        found.factor_effects,
        dataset.factor_names,
        names,
        "What each factor does to each latent",
        f"{about}; mean |change of the posterior mean| under do(factor := v)",
        "standard deviations of the latent",
    )


def patching(found: Evaluation, dataset: Dataset, about: str):
    """Sites × factors: the share of a counterfactual's effect that the strongest single unit restores."""
    return plots.matrix(
        found.patching.largest,
        found.patching.sites,
        dataset.factor_names,
        "Activation patching",
        f"{about}; one unit taken from the counterfactual run, strongest unit of each site{_left_out(found.patching)}",
        "recovery of the counterfactual image",
        limits=(0.0, max(0.05, float(found.patching.largest.max()))),
    )


def mediation(found: Evaluation, dataset: Dataset, about: str):
    """Natural indirect and direct effects and interaction of the strongest latents, a panel per factor."""
    mediated = found.mediation
    strength = np.nan_to_num(np.abs(mediated.estimate[:, :, 0])).max(axis=0)  # NaN: of a factor without any effect
    shown = np.sort(descending(strength)[:SHOWN_LATENTS])
    return plots.mediation_bars(
        mediated.estimate[:, shown],
        mediated.low[:, shown],
        mediated.high[:, shown],
        dataset.factor_names,
        [f"z{i}" for i in shown],
        "Which latents mediate each factor",
        f"{about}; image change projected on the counterfactual's, 95 % bootstrap intervals over pairs"
        f"{_left_out(mediated)}",
        mediated.effects,
    )


def _left_out(found: Patching | Mediated) -> str:
    """What a subtitle says of pairs that were left out, if any were."""
    count = int(np.sum(found.left_out))
    return f"; {count} pairs that decode alike left out" if count else ""
