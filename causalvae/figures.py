"""The figures of one evaluation: chooses what to show of an `Evaluation` and hands arrays to plots.py."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causalvae import plots
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.evaluation import SWEEP, Evaluation, Mediated, Patching
from causalvae.metrics.ties import descending

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_LATENTS = 10  # rows of the traversal figure, strongest first


def draw(
    found: Evaluation, model: Architecture, dataset: Dataset, folder: str | pathlib.Path, suffix: str = ""
) -> list[pathlib.Path]:
    """Writes every figure of an evaluation that its data set admits, as PNG files.

    Args:
      found: the evaluation.
      model: what was evaluated.
      dataset: on what.
      folder: where the files go; it is made where there is none.
      suffix: what their names end with.

    Returns:
      The paths.
    """
    about = f"{model.name} on {dataset.name} ({dataset.source} data)"
    figures = {
        "reconstructions": plots.reconstructions(found.images, found.reconstructed, "Reconstructions", about),
        "traversals": traversals(found, about, "activity" if model.codebook else "KL (nats)"),
    }
    if found.factor_effects is not None:
        figures["factor_effects"] = factor_effects(found.factor_effects, dataset.factor_names, about)
    if found.patching is not None:
        figures["patching"] = patching(found.patching, dataset.factor_names, about)
    if found.mediation is not None:
        figures["mediation"] = mediation(found.mediation, dataset.factor_names, about)
    folder = pathlib.Path(folder)
    return [plots.save(figure, folder / f"{name}{suffix}.png") for name, figure in figures.items()]


def redraw(results: Mapping[str, Any], folder: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes the figures of a run's results anew, without its model, as PNG files.

    They are those of what results.json holds: factor effects, patching and mediation. Reconstructions and traversals
    are images, which it does not: `evaluate` what `causalvae.load` returns, and `draw` that.

    Args:
      results: what results.json holds, or `causalvae.load(workdir).results`.
      folder: where the files go; it is made where there is none.

    Returns:
      The paths, named as `experiments.main` names them.

    Raises:
      ValueError: where nothing was found by setting factors.
    """
    about = f"{results['architecture']['name']} on {results['data']['name']} ({results['data']['source']} data)"
    factors, members = tuple(results["data"]["factors"]), results["members"]
    paths = []
    for member in members:
        suffix = "" if len(members) == 1 else f"_seed{member['seed']}"
        for name, figure in _of_record(member, factors, about).items():
            paths.append(plots.save(figure, pathlib.Path(folder) / f"{name}{suffix}.png"))
    if not paths:
        raise ValueError(f"the results of {about} hold nothing that was found by setting factors: there is no figure")
    return paths


def _of_record(member: Mapping[str, Any], factors: Sequence[str], about: str) -> dict[str, Figure]:
    drawn = {}
    if member.get("factor_effects") is not None:
        drawn["factor_effects"] = factor_effects(_array(member["factor_effects"]), factors, about)
    if member.get("patching") is not None:
        drawn["patching"] = patching(_part(Patching, member["patching"]), factors, about)
    if member.get("mediation") is not None:
        drawn["mediation"] = mediation(_part(Mediated, member["mediation"]), factors, about)
    return drawn


def _part(kind: Any, stored: Mapping[str, Any]) -> Any:
    """A part of an evaluation, of what results.json holds of it."""
    names = ("sites", "effects")
    return kind(**{name: tuple(value) if name in names else _array(value) for name, value in stored.items()})


def _array(value: Any) -> np.ndarray:
    return np.array(value, float)  # null, of what is undefined, is NaN


def traversals(found: Evaluation, about: str, carries: str) -> Figure:
    """Returns a row per latent, sorted by causal effect strength, with its numbers beside it."""
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


def factor_effects(effects: np.ndarray, factors: Sequence[str], about: str) -> Figure:
    """Returns the effects of factors on latents, R [K, d]."""
    return plots.matrix(
        effects,
        factors,
        [f"z{i}" for i in range(effects.shape[1])],
        "What each factor does to each latent",
        f"{about}; mean |change of the posterior mean| under do(factor := v)",
        "standard deviations of the latent",
    )


def patching(found: Patching, factors: Sequence[str], about: str) -> Figure:
    """Returns sites × factors: the share of a counterfactual's effect that the strongest single unit restores."""
    return plots.matrix(
        found.largest,
        found.sites,
        factors,
        "Activation patching",
        f"{about}; one unit taken from the counterfactual run, strongest unit of each site{_left_out(found)}",
        "recovery of the counterfactual image",
        limits=(0.0, max(0.05, float(found.largest.max()))),
    )


def mediation(found: Mediated, factors: Sequence[str], about: str) -> Figure:
    """Returns indirect and direct effects and interaction of the strongest latents, a panel per factor."""
    strength = np.nan_to_num(np.abs(found.estimate[:, :, 0])).max(axis=0)  # NaN: of a factor without any effect
    shown = np.sort(descending(strength)[:SHOWN_LATENTS])
    ill_defined = ""
    if found.well_defined is not None:
        found = found._replace(well_defined=found.well_defined[:, shown])
        ill_defined = f"; pale: interaction above {found.limit:.0%}, no one effect through the latent"
    return plots.mediation_bars(
        found._replace(estimate=found.estimate[:, shown], low=found.low[:, shown], high=found.high[:, shown]),
        factors,
        [f"z{i}" for i in shown],
        "Which latents mediate each factor",
        f"{about}; image change projected on the counterfactual's, 95 % bootstrap intervals over pairs"
        f"{ill_defined}{_left_out(found)}",
    )


def _left_out(found: Patching | Mediated) -> str:
    """What a subtitle says of pairs that were left out, if any were."""
    count = int(np.sum(found.left_out))
    return f"; {count} pairs that decode alike left out" if count else ""
