"""The figures of one evaluation: chooses what to show of an `Evaluation` and hands arrays to plots.py.

`how_to_read(name)` is the sentence that stands under a figure, the same wherever the figure is.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causalvae import plots
from causalvae._words import nearest
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.evaluation import SWEEP, Evaluation, Mediated, Patching
from causalvae.metrics.ties import descending

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_LATENTS = 10  # at most, the strongest
HOW_TO_READ = {  # figure -> how to read it, in a sentence
    "reconstructions": "Each image has below it what the model makes of it: what is lost there, no latent can hold.",
    "traversals": "Each row is the same image, redrawn while one latent is set from −3 to 3 and all others stay, the "
    "latent that moves images farthest first: what changes along a row is what this latent does to this image.",
    "factor_effects": "Read along a row: how far this latent moves, in its own standard deviations, when each factor "
    "alone is changed in the input; a row with one dark cell is a latent that answers to one factor.",
    "patching": "Each cell: how much nearer (%) the image comes to that with this factor changed when one unit of the "
    "site, the one that does most, is taken from that image's run; all that still differs counts against it. Without "
    "color is what may be chance among so many units.",
    "mediation": "Read down a column: how far (%) the image goes in the direction of this factor's change when one "
    "latent alone is set as in the changed image; one dark cell in a column is a factor that one latent carries. "
    "Without color is what may be chance.",
    "mediation_effects": "The mediation in detail: of each factor's effect, what passes through a latent (indirect), "
    "what is left when this latent stays as it was (direct), and what takes both (interaction), with 95 % intervals; "
    "the more the dark bars of a panel are one, the more one latent carries the factor.",
}


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
        figures["mediation_effects"] = mediation_effects(found.mediation, dataset.factor_names, about)
    folder = pathlib.Path(folder)
    return [plots.save(figure, folder / f"{name}{suffix}.png") for name, figure in figures.items()]


def how_to_read(name: str) -> str:
    """Returns a sentence on how to read one of the figures that `draw` writes, to stand under it.

    Args:
      name: of the figure, such as "mediation"; the name of its file without the suffix will do: "mediation_seed1".

    Raises:
      ValueError: for a figure that does not exist.
    """
    for known in (name, name.rpartition("_seed")[0]):
        if known in HOW_TO_READ:
            return HOW_TO_READ[known]
    raise ValueError(f"no figure {name!r}; there are: {', '.join(HOW_TO_READ)}.{nearest(name, HOW_TO_READ)}")


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
        part = _part(Mediated, member["mediation"])
        drawn["mediation"] = mediation(part, factors, about)
        drawn["mediation_effects"] = mediation_effects(part, factors, about)
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
        f"z{i}   CES {latents.ces_l2[i]:.2f}\nspecificity to pixels {latents.specificity_outputs[i]:.2f}\n"
        f"{carries} {latents.activity[i]:.2f}"
        for i in order
    ]
    values = np.linspace(SWEEP.low, SWEEP.high, SWEEP.num)
    subtitle = f"{about}; do(z_i := value), sorted by CES (l2 norm of the image's change)"
    return plots.traversals(found.traversals[order], labels, values, "Latent traversals", subtitle)


def factor_effects(effects: np.ndarray, factors: Sequence[str], about: str) -> Figure:
    """Returns latents × factors: the effects of factors on latents, of R [K, d]."""
    return plots.matrix(
        np.transpose(effects),
        [f"z{i}" for i in range(np.shape(effects)[1])],
        factors,
        "What each factor does to each latent",
        f"{about}; mean |change of the posterior mean| under do(factor := v)",
        "in standard deviations of the latent",
    )


def patching(found: Patching, factors: Sequence[str], about: str) -> Figure:
    """Returns sites × factors: the share of a counterfactual's effect that the strongest single unit restores."""
    cells = None
    unit = "shares of the way to the counterfactual's image"
    if found.restores is not None and found.unit is not None:
        letter = [["z" if site == "latent/z" else "unit "] * len(factors) for site in found.sites]
        notes = np.char.add(letter, np.asarray(found.unit, int).astype(str))
        cells = plots.Cells(_percent(found.largest), notes, np.asarray(found.restores, bool))
        unit = f"% of the way to the counterfactual's image; {_chance('units and factors')}"
    return plots.matrix(
        found.largest,
        found.sites,
        factors,
        "Which sites hold each factor",
        f"{about}; one unit taken from the counterfactual's run, the strongest of each site{_left_out(found)}",
        unit,
        (0.0, max(0.05, float(found.largest.max()))),
        cells,
    )


def mediation(found: Mediated, factors: Sequence[str], about: str) -> Figure:
    """Returns latents × factors: the share of a factor's effect that passes through each of the strongest latents."""
    shown = _strongest(found)
    share, low, high = (part[:, shown, 0].T for part in (found.estimate, found.low, found.high))  # [latents, K]
    if found.carries is None:  # of versions that did not test it
        beyond, sure = low > 0, "color: the interval is above zero"
    else:
        beyond, sure = (np.asarray(found.carries, bool)[:, shown].T) & (share > 0), _chance("latents and factors")
    clear = np.ones_like(beyond) if found.well_defined is None else np.asarray(found.well_defined, bool)[:, shown].T
    texts = np.char.add(_percent(share), np.where(clear, "", "*"))
    notes = np.where(beyond, np.char.add(np.char.add(_percent(low), "–"), _percent(high)), "")
    star = (
        f"; *: mean size of interaction surely above {_percent(found.limit)} %"
        if found.well_defined is not None
        else ""
    )
    return plots.matrix(
        share,
        [f"z{i}" for i in shown],
        factors,
        "Which latents carry each factor",
        f"{about}; effects on the image through one latent{_left_out(found)}",
        f"% of the total effect, 95 % intervals over pairs; {sure}{star}",
        (0.0, 1.0),
        plots.Cells(texts, notes, beyond),
    )


def mediation_effects(found: Mediated, factors: Sequence[str], about: str) -> Figure:
    """Returns indirect and direct effects and interaction of the strongest latents, a panel per factor."""
    shown = _strongest(found)
    ill_defined = ""
    if found.well_defined is not None:
        found = found._replace(well_defined=np.asarray(found.well_defined, bool)[:, shown])
        ill_defined = (
            f"; hatched: no one effect, as the mean size of interaction is surely above {_percent(found.limit)} %"
        )
    return plots.mediation_bars(
        found._replace(estimate=found.estimate[:, shown], low=found.low[:, shown], high=found.high[:, shown]),
        factors,
        [f"z{i}" for i in shown],
        "Effects through each latent, and beside it",
        f"{about}; image change projected on the counterfactual's, 95 % bootstrap intervals over pairs"
        f"{ill_defined}{_left_out(found)}",
    )


def _strongest(found: Mediated) -> np.ndarray:
    """The latents through which most passes, in the order of their numbers."""
    strength = np.nan_to_num(np.abs(found.estimate[:, :, 0])).max(axis=0)  # NaN: of a factor without any effect
    return np.sort(descending(strength)[:SHOWN_LATENTS])


def _percent(shares: Any) -> Any:
    """Shares in words: whole percents."""
    return np.char.replace(
        np.char.mod("%d", np.nan_to_num(100 * np.asarray(shares, np.float64)).round().astype(int)), "-", "−"
    )


def _chance(units: str) -> str:
    return f"color: above zero, with at most 5 % for any false one among all {units}"


def _left_out(found: Patching | Mediated) -> str:
    """What a subtitle says of pairs that were left out, if any were."""
    count = int(np.sum(found.left_out))
    return f"; {count} pairs that decode alike left out" if count else ""
