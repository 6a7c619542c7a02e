"""Figures of single runs of a study: traversals, patching, mediation, modularity by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from causalvae import plots
from causalvae.plots import INK, MUTED
from experiments.report.figures import display, legend, look

Record = Mapping[str, Any]


def panels(
    records: Sequence[Record], matrices: Sequence[np.ndarray], rows: Sequence[str], columns: Sequence[str] | None,
    title: str, subtitle: str, unit: str,
) -> Figure:  # fmt: skip
    """One heat map per run on a common scale: matrices [rows, columns]; columns None numbers nothing."""
    across = min(3, len(records))
    down = -(-len(records) // across)
    figure = plots.titled(3.4 * across + 1.4, 0.9 + down * (0.9 + 0.22 * len(rows)), title, subtitle)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    largest = max(0.05, max(float(np.nanmax(m)) if np.isfinite(m).any() else 0.0 for m in matrices))
    for axes in list(grid.flat)[len(records) :]:
        axes.set_visible(False)
    image: Any = None
    for axes, record, values in zip(grid.flat, records, matrices, strict=False):
        image = axes.imshow(values, cmap=plots.SEQUENTIAL, vmin=0, vmax=largest, aspect="auto")
        axes.set_title(display(record["label"]), fontsize=9, loc="left", color=INK)
        axes.set_yticks(range(len(rows)), rows)
        if columns is None:
            axes.set_xticks([])
        else:
            axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.tick_params(length=0, labelsize=7, colors=INK)
        for side in axes.spines.values():
            side.set_visible(False)
    bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.8, pad=0.02)
    bar.set_label(unit, fontsize=8, color=MUTED)
    bar.ax.tick_params(labelsize=7, colors=MUTED)
    bar.outline.set_visible(False)
    return figure


def traversals(records: Sequence[Record], images: Sequence[Mapping[str, np.ndarray]], dataset: str) -> Figure | None:
    """The most and the least specific latent of one run of each architecture: two strips of images to a row."""
    shown = [(r, arrays) for r, arrays in zip(records, images, strict=True) if len(arrays["latents"])]
    if not shown:
        return None
    subtitle = f"{about(records, dataset)}; do(z_i := −3 … 3); left the most specific active latent, right the least"
    figure = plots.titled(11.0, 0.9 + 0.86 * len(shown), "The most and the least specific latents", subtitle)
    for axes, (record, arrays) in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
        for side, place in enumerate((0, -1)):
            plots.show_picture(axes[side], plots.tile(arrays["traversals"][place][None] / 255.0))
            name = f"{display(record['label'])}   " if side == 0 else ""
            text = f"{name}z{arrays['latents'][place]}, specificity {arrays['specificity'][place]:.2f}"
            axes[side].set_title(text, fontsize=8, color=INK, loc="left", pad=2)
    return figure


def patching(records: Sequence[Record], dataset: str) -> Figure | None:
    """Sites × factors of one run of each architecture: the recovery of the strongest single unit."""
    records = [r for r in records if r.get("patching") and r["patching"]["sites"]]
    if not records:
        return None
    sites = list(dict.fromkeys(site for r in records for site in r["patching"]["sites"]))
    matrices = []
    for record in records:
        values = dict(zip(record["patching"]["sites"], record["patching"]["largest"]))
        width = len(record["patching"]["largest"][0])
        matrices.append(np.array([values.get(site, [None] * width) for site in sites], float))
    subtitle = f"{about(records, dataset)}; one unit taken from the counterfactual run, strongest unit of each site"
    factors = list(records[0]["data"]["factors"])
    return panels(records, matrices, sites, factors, "Activation patching", subtitle, "recovery")


def mediation(records: Sequence[Record], dataset: str) -> Figure | None:
    """Factors × latents of one run of each architecture: which latents mediate which factor."""
    records = [r for r in records if r.get("mediation")]
    if not records:
        return None
    place = list(records[0]["mediation"]["effects"]).index("indirect")
    matrices = [np.maximum(np.array(r["mediation"]["estimate"], float)[:, :, place], 0) for r in records]
    subtitle = f"{about(records, dataset)}; columns are latents; share of a factor's total effect on the image"
    factors = list(records[0]["data"]["factors"])
    return panels(records, matrices, factors, None, "Circuits: which latents mediate each factor", subtitle, "NIE / TE")


def about(records: Sequence[Record], dataset: str) -> str:
    return f"{dataset} ({records[0]['data']['source']}), seed {records[0]['seed']}"


def modularity_by_site(records: Sequence[Record], dataset: str) -> Figure | None:
    """Circuit modularity of each decoder site, one line per architecture, and the mean of the untrained."""
    found = {}
    for record in records:
        score = next((s for s in record.get("scores", ()) if s["name"] == "circuit_modularity_decoder"), None)
        if score and score["settings"].get("sites"):
            found[record["label"]] = score["settings"]
    if not found:
        return None
    sites = list(dict.fromkeys(site for settings in found.values() for site in settings["sites"]))
    subtitle = f"{about(records, dataset)}; thin lines: the same network untrained, mean over sites"
    figure = plots.titled(6.6, 3.6, "Circuit modularity by decoder site", subtitle)
    axes = figure.subplots()
    plots.style(axes)
    for label, settings in found.items():
        color, marker = look(label)
        values = [settings["sites"].get(site) for site in sites]
        axes.plot(range(len(sites)), np.array(values, float), color=color, marker=marker, linewidth=1.3)
        if settings.get("null_untrained") is not None:
            axes.axhline(settings["null_untrained"], color=color, linewidth=0.6, alpha=0.5)
    axes.set_xticks(range(len(sites)), sites)
    axes.set_ylabel("modularity", fontsize=8)
    axes.set_ylim(0, 1.02)
    legend(figure, list(found))
    return figure
