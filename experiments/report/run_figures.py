"""Figures of single runs of a study: traversals, patching, mediation, modularity by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from causalvae import plots
from causalvae.plots import GRID, INK, MUTED
from experiments.report.figures import display, legend, look

Record = Mapping[str, Any]


def panels(
    records: Sequence[Record], matrices: Sequence[np.ndarray], rows: Sequence[str] | None, columns: Sequence[str],
    title: str, subtitle: str, unit: str,
) -> Figure:  # fmt: skip
    """One heat map per run on a common scale: shares [rows, columns], NaN without color; rows None are latents."""
    across = min(2, len(records))
    down = -(-len(records) // across)
    high = 0.35 + 0.18 * (10 if rows is None else len(rows))
    figure = plots.titled(plots.WIDTH, 1.1 + 0.045 * max(map(len, columns)) + down * high, title, subtitle)
    grid = figure.subplots(down, across, squeeze=False)
    largest = max(5.0, max(100 * float(np.nanmax(m)) if np.isfinite(m).any() else 0.0 for m in matrices))
    for axes in list(grid.flat)[len(records) :]:
        axes.set_visible(False)
    scale = {"cmap": plots.SEQUENTIAL, "vmin": -0.15 * largest, "vmax": largest}  # a little has some color
    image: Any = None
    for place, (axes, record, values) in enumerate(zip(grid.flat, records, matrices, strict=False)):
        image = axes.imshow(100 * values, aspect="auto", **scale)
        axes.set_title(display(record["label"]), fontsize=9, loc="left", color=INK, pad=3)
        if rows is None:
            shown = range(0, len(values), -(-len(values) // 10))
            axes.set_yticks(shown, [f"z{i}" for i in shown])
        else:
            axes.set_yticks(range(len(rows)), rows if place % across == 0 else [""] * len(rows))
        names = [name.replace("_", " ") for name in columns] if place + across >= len(records) else []
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(names)), names, **turned)  # below the last of each column of panels
        axes.tick_params(length=0, labelsize=plots.TEXT, colors=INK)
        for side in axes.spines.values():
            side.set_color(GRID)
    bar = figure.colorbar(image, ax=list(grid.flat), location="bottom", shrink=0.6, aspect=40, pad=0.02)
    bar.ax.set_xlim(0, largest)
    bar.set_label(unit, fontsize=plots.TEXT, color=MUTED)
    bar.ax.tick_params(labelsize=plots.TEXT, colors=MUTED)
    bar.outline.set_visible(False)
    return figure


def traversals(records: Sequence[Record], images: Sequence[Mapping[str, np.ndarray]], dataset: str) -> Figure | None:
    """The most and the least specific latent of one run of each architecture, a strip of images each."""
    shown = [(r, arrays) for r, arrays in zip(records, images, strict=True) if len(arrays["latents"])]
    if not shown:
        return None
    subtitle = f"{about(records, dataset)}; do(z_i := −3 … 3), active latents"
    height = 0.6 + 1.74 * len(shown)
    figure = plots.titled(plots.WIDTH, height, "The most and the least specific latents", subtitle)
    strips = figure.subplots(2 * len(shown), 1, squeeze=False)[:, 0].reshape(-1, 2)
    for axes, (record, arrays) in zip(strips, shown, strict=True):
        for side, (place, which) in enumerate(((0, "most"), (-1, "least"))):
            plots.show_picture(axes[side], plots.tile(arrays["traversals"][place][None] / 255.0))
            latent = f"z{arrays['latents'][place]}, the {which} specific ({arrays['specificity'][place]:.2f})"
            axes[side].set_title(f"{display(record['label'])}: {latent}", fontsize=8, color=INK, loc="left", pad=2)
    return figure


def patching(records: Sequence[Record], dataset: str) -> Figure | None:
    """Sites × factors of one run of each architecture: the recovery of the strongest single unit."""
    records = [r for r in records if r.get("patching") and r["patching"]["sites"]]
    if not records:
        return None
    sites = list(dict.fromkeys(site for r in records for site in r["patching"]["sites"]))
    matrices, tested = [], True
    for record in records:
        found = record["patching"]
        tested = found.get("restores") is not None and tested
        largest = np.array(found["largest"], float)
        if found.get("restores") is not None:
            largest = np.where(np.array(found["restores"], bool), largest, np.nan)
        values = dict(zip(found["sites"], largest))
        matrices.append(np.array([values.get(site, np.full(largest.shape[1], np.nan)) for site in sites]))
    subtitle = f"{about(records, dataset)}; one unit taken from the counterfactual run, strongest unit of each site"
    subtitle += "" if tested else "; not tested against chance in some of these runs"
    factors = list(records[0]["data"]["factors"])
    return panels(records, matrices, sites, factors, "Which sites hold each factor", subtitle, "% of the way")


def mediation(records: Sequence[Record], dataset: str) -> Figure | None:
    """Latents × factors of one run of each architecture: which latents mediate which factor."""
    records = [r for r in records if r.get("mediation")]
    if not records:
        return None
    place = list(records[0]["mediation"]["effects"]).index("indirect")
    matrices = []
    for record in records:
        found = record["mediation"]
        share = np.array(found["estimate"], float)[:, :, place]
        if found.get("carries") is not None:
            beyond = np.array(found["carries"], bool)
        else:  # of a version that did not test it
            beyond = np.array(found.get("low", found["estimate"]), float)[:, :, place] > 0
        matrices.append(np.where(beyond & (share > 0), share, np.nan).T)
    subtitle = f"{about(records, dataset)}; share of a factor's total effect on the image"
    factors = list(records[0]["data"]["factors"])
    return panels(records, matrices, None, factors, "Which latents carry each factor", subtitle, "% of the effect")


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
    sites.sort(key=lambda site: not site.startswith("latent/"))  # as the image is made
    subtitle = f"{about(records, dataset)}; dashed: the same network untrained, mean over sites"
    figure = plots.titled(plots.WIDTH, 1.5 + 0.28 * len(sites), "Circuit modularity by decoder site", subtitle)
    axes = figure.subplots()
    plots.style(axes)
    for label, settings in found.items():
        color, marker = look(label)
        values = np.array([settings["sites"].get(site) for site in sites], float)
        axes.plot(values, range(len(sites)), color=color, marker=marker, linewidth=1.1, markersize=5, alpha=0.85)
        if settings.get("null_untrained") is not None:
            axes.axvline(settings["null_untrained"], color=color, linewidth=0.8, linestyle="--", alpha=0.7)
    axes.set_yticks(range(len(sites)), sites)
    axes.invert_yaxis()
    axes.set_xlabel("modularity", fontsize=8)
    axes.set_xlim(0, 1.02)
    legend(figure, list(found))
    return figure
