"""Arrays in, figures out. Every figure says in its subtitle what data it shows; nothing is computed here.

Figures are plain `matplotlib.figure.Figure` objects (no pyplot state), so they work in threads, notebooks and
without a display. `save` writes one as a PNG, whole or not at all.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causalvae.progress import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#667380", "#d9dee3"
ACCENTS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#c53030", "#2c7a7b")
SEQUENTIAL = "viridis"


def save(figure: Figure, path: str | pathlib.Path, dpi: int = 130) -> pathlib.Path:
    """Writes a figure as the file type of `path`'s suffix, through a temporary file beside it; returns the path."""
    path = pathlib.Path(path)
    texts: Any = figure.findobj(lambda artist: hasattr(artist, "set_parse_math"))
    for text in texts:
        text.set_parse_math(False)  # a name may hold dollars, which are no formula
    with whole_file(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, dpi=dpi, bbox_inches="tight", facecolor="white")
    return path


def titled(width: float, height: float, title: str, subtitle: str) -> Figure:
    """Returns an empty figure with a left-aligned title and a smaller line under it."""
    from matplotlib.figure import Figure  # takes a second

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=12, color=INK, fontweight="bold")
    figure.text(0.01, 1 - 0.33 / height, subtitle, ha="left", va="top", fontsize=8.5, color=MUTED)
    return figure


def style(axes) -> None:
    """Makes axes quiet: no box, light ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=8)


def as_rgb(images: np.ndarray) -> np.ndarray:
    """Returns images [..., H, W, 1 or 3] in [0, 1] as [..., H, W, 3]."""
    images = np.clip(np.asarray(images, np.float32), 0, 1)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def tile(images: np.ndarray, gap: int = 2, fill: float = 1.0) -> np.ndarray:
    """Returns images [rows, columns, H, W, C] as one picture [., ., 3] with `gap` pixels of `fill` between them."""
    images = as_rgb(images)
    rows, columns, height, width, _ = images.shape
    padded = np.full((rows, columns, height + gap, width + gap, 3), fill, np.float32)
    padded[:, :, :height, :width] = images
    picture = padded.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), 3)
    return picture[: -gap or None, : -gap or None]


def show_picture(axes, picture: np.ndarray) -> None:
    """Shows a picture [H, W, 3] in [0, 1] (of `tile`, say) on axes without ticks or frame, pixels left sharp."""
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()


def reconstructions(images: np.ndarray, reconstructed: np.ndarray, title: str, subtitle: str) -> Figure:
    """Returns pairs of rows: images [N, H, W, C] above their reconstructions [N, H, W, C], eight to a row."""
    per_row = min(8, len(images))
    rows = len(images) // per_row
    shape = (rows, per_row, *images.shape[1:])
    used = rows * per_row
    pairs = np.stack([images[:used].reshape(shape), reconstructed[:used].reshape(shape)], axis=1)
    pairs = pairs.reshape(2 * rows, per_row, *images.shape[1:])
    figure = titled(7.2, 0.8 + 0.9 * 2 * rows, title, subtitle + "; odd rows: input, even rows: reconstruction")
    show_picture(figure.subplots(), tile(pairs))
    return figure


def traversals(grid: np.ndarray, labels: Sequence[str], values: np.ndarray, title: str, subtitle: str) -> Figure:
    """Returns a row per latent: images [d, V, H, W, C] as it is set to `values` [V], with a label beside each row."""
    rows, columns = grid.shape[:2]
    width = 0.8 * columns + 3.1
    figure = titled(width, 0.9 + 0.82 * rows, title, subtitle)
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for i in range(rows):
        show_picture(axes[i], tile(grid[i : i + 1]))
        axes[i].text(
            -0.015,
            0.5,
            labels[i],
            transform=axes[i].transAxes,
            ha="right",
            va="center",
            fontsize=8,
            color=INK,
        )
    height, step = grid.shape[2], grid.shape[3] + 2
    for j, value in enumerate(values):
        center = j * step + grid.shape[3] / 2
        axes[-1].text(center, height + 3, f"{value:+.1f}", ha="center", va="top", fontsize=8, color=MUTED)
    return figure


def matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    subtitle: str,
    unit: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Returns a heat map [rows, columns] with its numbers in the cells and a color bar labeled with the unit."""
    values = np.asarray(values, np.float64)
    roomy = len(columns) <= 20  # beyond that numbers and names of every column would run together
    figure = titled(max(6.5, 2.6 + (0.62 if roomy else 0.16) * len(columns)), 1.7 + 0.36 * len(rows), title, subtitle)
    axes = figure.subplots()
    seen = values[np.isfinite(values)]
    low, high = limits or (min(0.0, seen.min(initial=0.0)), seen.max(initial=1e-9))
    image = axes.imshow(values, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto")
    shown = range(0, len(columns), 1 if roomy else 8)
    axes.set_xticks(shown, [columns[j] for j in shown], rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelsize=8, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)
    for i, j in np.ndindex(*values.shape) if roomy else ():
        dark = np.isfinite(values[i, j]) and (values[i, j] - low) < 0.6 * (high - low)
        text = f"{values[i, j]:.2f}" if np.isfinite(values[i, j]) else "n/a"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label(unit, fontsize=8, color=MUTED)
    bar.ax.tick_params(labelsize=7, colors=MUTED)
    bar.outline.set_visible(False)
    return figure


def mediation_bars(found: Any, factors: Sequence[str], mediators: Sequence[str], title: str, subtitle: str) -> Figure:
    """Returns a panel per factor with a group of bars per mediator.

    Args:
      found: `effects` (their names) and `estimate`, `low` and `high` [factors, mediators, effects], in units of the
        total effect, as of `evaluation.Mediated`; bars of mediators whose `well_defined` [factors, mediators] is False
        are pale (None: it is not known).
      factors: their names.
      mediators: their names.
      title: of the figure.
      subtitle: the line under it.
    """
    from matplotlib.patches import Patch

    effects = found.effects
    panels = len(factors)
    columns = min(2, panels)
    rows = -(-panels // columns)
    figure = titled(5.2 * columns, 0.9 + 2.0 * rows, title, subtitle)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
    offsets = (np.arange(len(effects)) - (len(effects) - 1) / 2) * 0.8 / len(effects)
    for k, axes in enumerate(grid.flat):
        axes.set_visible(k < panels)
        if k >= panels:
            continue
        style(axes)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.set_title(factors[k], fontsize=9, loc="left", color=INK)
        for e in range(len(effects)):
            place = np.arange(len(mediators)) + offsets[e]
            estimate = found.estimate[k, :, e]
            error = np.stack([estimate - found.low[k, :, e], found.high[k, :, e] - estimate])
            bars = axes.bar(place, estimate, 0.8 / len(effects), color=ACCENTS[e])
            for bar, sound in zip(bars, np.ones(len(place)) if found.well_defined is None else found.well_defined[k]):
                bar.set_alpha(1.0 if sound else 0.35)
            axes.errorbar(place, estimate, np.maximum(error, 0), fmt="none", ecolor=INK, elinewidth=0.7)
        axes.set_xticks(range(len(mediators)), mediators, fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("effect / total effect", fontsize=8, color=MUTED)
    handles = [Patch(color=ACCENTS[e], label=effect) for e, effect in enumerate(effects)]
    figure.legend(handles=handles, loc="upper right", ncols=len(effects), fontsize=8, frameon=False)
    return figure


def circuit_graph(graph: Mapping[str, Any], subtitle: str = "") -> Figure:
    """Returns a picture of a graph of `circuits.as_graph`, in layers, one column per site.

    Circles are as large as a unit's own effect, lines as wide as a path's. Blue is towards the source image, red away
    from it.
    """
    from matplotlib.figure import Figure

    layers: dict[str, list[Mapping[str, Any]]] = {}
    for node in graph["nodes"]:
        layers.setdefault(node["site"], []).append(node)
    figure = Figure(figsize=(2.2 * max(len(layers), 2), 4.2), layout="constrained")
    axes = figure.add_subplot()
    place = {}
    for column, nodes in enumerate(layers.values()):
        for row, node in enumerate(nodes):
            place[node["id"]] = column, (len(nodes) - 1) / 2 - row
    for edge in graph["edges"]:
        (x0, y0), (x1, y1) = place[edge["source"]], place[edge["target"]]
        axes.plot(
            [x0, x1],
            [y0, y1],
            color=_sign_color(edge["effect"]),
            lw=8 * min(abs(edge["effect"]), 1),
            alpha=0.6,
            zorder=1,
        )
    for node in graph["nodes"]:
        x, y = place[node["id"]]
        size = 60 + 540 * min(abs(node["effect"]), 1)
        axes.scatter([x], [y], s=size, color=_sign_color(node["effect"]), edgecolors="white", zorder=2)
        axes.annotate(str(node["unit"]), (x, y), ha="center", va="center", fontsize=7, color="white", zorder=3)
    axes.set_xticks(range(len(layers)), list(layers), rotation=20, ha="right", fontsize=8)
    axes.set_yticks([])
    axes.margins(0.15)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    title = f"Circuit of {graph['graph']['factor'] or 'the pairs'}: effects as fractions of the total effect"
    axes.set_title(f"{title}\n{subtitle}" if subtitle else title, fontsize=9)
    return figure


def _sign_color(effect: float) -> str:
    return "#2a6fbb" if effect >= 0 else "#c0392b"
