"""The study's figures: a table, its findings and the runs' records in, matplotlib figures out.

Every figure names its data source in the subtitle. Colors belong to architectures, the same everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from causalvae import plots
from causalvae.plots import ACCENTS, GRID, INK, MUTED
from experiments.report import near_zero, specification, verdicts
from experiments.report.tables import Table, column, of_usual_size, rows_of, score_cells

NAMES = {
    "vae": "VAE",
    "beta": "β-VAE",
    "factor": "FactorVAE",
    "betatc": "β-TCVAE",
    "dip1": "DIP-VAE-I",
    "dip2": "DIP-VAE-II",
    "annealed": "AnnealedVAE",
    "vq": "VQ-VAE",
}
MARKERS = "osD^vP*X"


def display(label: str) -> str:
    """'beta (beta=4)' -> 'β-VAE (beta=4)'."""
    name, space, variant = label.partition(" ")
    return NAMES.get(name, name) + space + variant


def look(label: str) -> tuple[str, str]:
    """(color, marker) of an architecture."""
    index = list(NAMES).index(label.split(" ")[0]) if label.split(" ")[0] in NAMES else len(NAMES)
    return ACCENTS[index % len(ACCENTS)], MARKERS[index % len(MARKERS)]


def legend(figure: Figure, labels: Sequence[str], hollow: str = "") -> None:
    """Architectures with their colors and markers, under the panels; and what hollow markers are, if there are any."""
    handles = [
        Line2D([], [], linestyle="", color=look(label)[0], marker=look(label)[1], markersize=6, label=display(label))
        for label in labels
    ]
    if hollow:
        handles.append(Line2D([], [], linestyle="", color=MUTED, marker="o", fillstyle="none", label=hollow))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=8, frameon=False)


# --- correlations ----------------------------------------------------------------------------------------


def scatter(table: Table, rows: Sequence[Mapping[str, Any]], dataset: str, x: str, y: str) -> Figure | None:
    """CES against DCI of every run on one data set that finding (i) counts; None where no run has both."""
    counted = of_usual_size(table)
    here = rows_of(counted, counted["dataset"] == dataset)
    values = column(here, x), column(here, y)
    if not np.isfinite(values).all(axis=0).any():
        return None
    lines = [_correlation_text(r) for r in rows if r["stratum"] == dataset and not r["given"] and _finite(r)]
    source = here["source"][0]
    title = f"Strength and disentanglement: {dataset} ({source})"
    figure = plots.titled(plots.WIDTH, 4.7, title, "One point per run; 95 % intervals over architectures")
    axes = figure.subplots()
    plots.style(axes)
    axes.set_title("\n".join(lines), fontsize=8, color=INK, loc="left", linespacing=1.5)
    varied = here["variant"] != ""
    for label in dict.fromkeys(here["label"].tolist()):
        chosen = here["label"] == label
        color, marker = look(label)
        face = "none" if varied[chosen].any() else color
        points = axes.scatter(values[0][chosen], values[1][chosen], marker=marker, s=42, alpha=0.85, linewidth=1.2)
        points.set(facecolor=face, edgecolor=color)
    axes.set_xlabel("causal effect strength (l2, mean over active latents)", fontsize=8)
    axes.set_ylabel("DCI disentanglement", fontsize=8)
    names = list(dict.fromkeys(here["architecture"].tolist()))
    legend(figure, names, hollow="other hyper-parameters" if varied.any() else "")
    return figure


def _correlation_text(row: Mapping[str, Any]) -> str:
    numbers = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]".replace("-", "−")
    return f"{row['method']}, {row['subset']}: {numbers}, adjusted p {row['p_adjusted']:.3f}"


def _finite(row: Mapping[str, Any]) -> bool:
    return math.isfinite(row["value"])


def forest(rows: Sequence[Mapping[str, Any]], source: str) -> Figure | None:
    """Every correlation with its interval: a panel per data set and the pooled one."""
    strata = list(dict.fromkeys(r["stratum"] for r in rows if _finite(r)))
    kinds = list(dict.fromkeys((r["method"], r["subset"], bool(r["given"])) for r in rows))
    if not strata:
        return None
    subtitle = f"{source} data; 95 % intervals over architectures; filled: Holm–Šidák p ≤ 0.05"
    columns = min(2, len(strata))
    lines = -(-len(strata) // columns)
    title = "Correlation of CES and DCI disentanglement"
    figure = plots.titled(plots.WIDTH, 0.7 + lines * (0.5 + 0.19 * len(kinds)), title, subtitle)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, stratum in zip(grid.flat, strata, strict=False):
        plots.style(axes)
        axes.axvline(0, color=INK, linewidth=0.7)
        axes.set_title(stratum, fontsize=9, loc="left", color=INK)
        for i, kind in enumerate(kinds):
            here = [r for r in rows if r["stratum"] == stratum]
            row = next(r for r in here if (r["method"], r["subset"], bool(r["given"])) == kind)
            if not _finite(row):
                continue
            color = ACCENTS[1] if kind[2] else ACCENTS[0]
            axes.plot([row["low"], row["high"]], [i, i], color=color, linewidth=1.6, alpha=0.6)
            filled = color if row["p_adjusted"] <= verdicts.ALPHA else "white"
            axes.plot(row["value"], i, "o", color=color, markerfacecolor=filled, markersize=5)
        axes.set_xlim(-1.05, 1.05)
        axes.set_xticks((-1, 0, 1), ("−1", "0", "1"))
    for axes in list(grid.flat)[len(strata) :]:
        axes.set_visible(False)
    names = [f"{method}, {subset}{', partial' if given else ''}" for method, subset, given in kinds]
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(kinds)), names)
    grid[0, 0].invert_yaxis()
    return figure


def specification_curve(found: Mapping[str, Any] | None, source: str) -> Figure | None:
    """Every combination's correlation, sorted, with its interval, and below it the choices that make it."""
    if found is None or len(found["specifications"]) < 2:
        return None
    rows, marks = found["specifications"], specification.choices(found)
    value, low, high = (np.array([row[key] for row in rows], float) for key in ("value", "low", "high"))
    title = "Strength and disentanglement under every defensible choice"
    subtitle = (
        f"{source} data; {', '.join(found['datasets'])}; pooled correlations, 95 % intervals over architectures. "
        f"{specification.sentence(found)}"
    )
    figure = plots.titled(plots.WIDTH, 3.5 + 0.19 * len(marks), title, subtitle)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.3, 0.19 * len(marks)])
    for axes in (top, bottom):
        plots.style(axes)
    place = np.arange(len(rows))
    top.vlines(place, low, high, color=GRID, linewidth=min(3.0, 300 / len(rows)))
    for sign, color in ((value < 0, ACCENTS[0]), (value >= 0, ACCENTS[1])):
        top.plot(place[sign], value[sign], ".", color=color, markersize=3)
    top.axhline(0, color=INK, linewidth=0.7)
    top.axhline(found["median"], color=MUTED, linewidth=0.9, linestyle="--", label="median")
    paper = specification.paper_index(found)
    if paper is not None:
        top.plot(paper, value[paper], "D", color=ACCENTS[3], markersize=7, label="the paper's combination")
        for axes in (top, bottom):
            axes.axvline(paper, color=ACCENTS[3], linewidth=0.7, alpha=0.6)
    top.set_ylim(-1.02, 1.02)
    top.set_ylabel("correlation", fontsize=8)
    top.legend(fontsize=8, frameon=False, loc="upper left")
    for i, (dimension, choice) in enumerate(marks):
        here = np.array([row[dimension] == choice for row in rows])
        # Blocks of 1/300 of the width, so that a curve of thousands shows where choices lie densely.
        counts, edges = np.histogram(place[here], bins=np.linspace(-0.5, len(rows) - 0.5, min(300, len(rows)) + 1))
        density = counts / max(1, counts.max())
        extent = (edges[0], edges[-1], i + 0.36, i - 0.36)
        bottom.imshow(density[None], extent=extent, aspect="auto", cmap="Grays", vmin=0, interpolation="nearest")
    for i in range(1, len(marks)):
        if marks[i][0] != marks[i - 1][0]:
            bottom.axhline(i - 0.5, color=GRID, linewidth=0.8)
    bottom.set_yticks(range(len(marks)), [f"{dimension}: {choice}" for dimension, choice in marks], fontsize=8)
    bottom.set_ylim(len(marks) - 0.5, -0.5)
    bottom.set_xlim(-0.5, len(rows) - 0.5)
    bottom.set_xlabel("combinations, sorted by their correlation", fontsize=8)
    return figure


# --- architecture × data set -----------------------------------------------------------------------------


def heat_map(table: Table, score: str, title: str) -> Figure | None:
    """Mean over seeds of a score, architectures × data sets; None where it is defined nowhere."""
    cells = {(c.cluster, c.stratum): c.mean for c in score_cells(table, score)}
    labels, datasets = (list(dict.fromkeys(table[name].tolist())) for name in ("label", "dataset"))
    values = np.array([[cells.get((label, dataset), math.nan) for dataset in datasets] for label in labels])
    if not np.isfinite(values).any():
        return None
    rows = [display(label) for label in labels]
    subtitle = f"{table['source'][0]} data; mean over seeds"
    return plots.matrix(values, rows, datasets, title, subtitle, "")


def capacity(found: Mapping[str, Any], source: str) -> Figure | None:
    """The beta-VAE's active latents, KL and DCI relative to the VAE's with as many latents, against factors per
    latent: a line for each data set over its numbers of latents."""
    levels = found["levels"]
    trends = {n: t for n, t in found["trends"].items() if np.isfinite([level[n] for level in levels]).any()}
    if not trends:
        return None
    datasets = list(dict.fromkeys(level["dataset"] for level in levels))
    subtitle = f"{source} data; one point per data set and number of latents, mean over seeds; dashed: the VAE's own"
    figure = plots.titled(
        plots.WIDTH, 1.2 + 1.5 * len(trends), "Capacity of the β-VAE against the number of factors", subtitle
    )
    for axes, (name, trend) in zip(figure.subplots(len(trends), 1, squeeze=False, sharex=True)[:, 0], trends.items()):
        plots.style(axes)
        axes.axhline(1, color=MUTED, linewidth=0.8, linestyle="--")
        for dataset, color, marker in zip(datasets, itertools.cycle(ACCENTS), itertools.cycle(MARKERS)):
            here = sorted((r for r in levels if r["dataset"] == dataset), key=lambda r: r["factors_per_latent"])
            x, y = ([level[key] for level in here] for key in ("factors_per_latent", name))
            axes.plot(x, y, color=color, marker=marker, markersize=5, linewidth=1.1, label=dataset)
        heading = name.replace("_", " ")
        if _finite(trend):
            interval = f"{trend['value']:.2f} [{trend['low']:.2f}, {trend['high']:.2f}]".replace("-", "−")
            heading += f", slope {interval}"
        axes.set_title(heading, fontsize=9, loc="left")
        axes.set_ylabel("β-VAE / VAE", fontsize=8)
        axes.margins(x=0.1, y=0.2)
    figure.axes[-1].set_xlabel("factors per latent", fontsize=8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8, frameon=False)
    return figure


def vq_strength(rows: Sequence[Mapping[str, Any]], source: str) -> Figure | None:
    """VQ-VAE's strength relative to the other architectures', by sweep and by code swaps."""
    rows = [row for row in rows if math.isfinite(row["value"])]
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    if not rows:
        return None
    level = round(100 * near_zero.SHARE_LEVEL)
    subtitle = f"{source} data; share of the others' mean on the same data set, {level} % intervals; dotted: near zero"
    figure = plots.titled(plots.WIDTH, 1.3 + 0.36 * len(datasets), "Causal effect strength on the VQ-VAE", subtitle)
    axes = figure.subplots()
    plots.style(axes)
    for k, kind in enumerate(("sweep", "code swap")):
        chosen = [row for row in rows if row["kind"] == kind]
        place = [datasets.index(row["dataset"]) + 0.2 * (k - 0.5) for row in chosen]
        axes.hlines(place, [r["low"] for r in chosen], [r["high"] for r in chosen], color=ACCENTS[k], alpha=0.6)
        axes.plot([r["value"] for r in chosen], place, "o", color=ACCENTS[k], markersize=5, label=kind)
    axes.axvline(near_zero.NEAR_ZERO, color=MUTED, linewidth=0.9, linestyle=":")
    axes.axvline(1, color=GRID, linewidth=0.9)
    axes.set_yticks(range(len(datasets)), datasets)
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.legend(fontsize=8, frameon=False)
    return figure
