"""Arrays in, figures out. Every figure says in its subtitle what data it shows; nothing is computed here.

Figures are plain `matplotlib.figure.Figure` objects (no pyplot state), so they work in threads, notebooks and
without a display. `save` writes one as a PNG, whole or not at all.

They are made for a column of print and for a phone, where all of a figure's width is 360 px: as wide as `WIDTH` or
little more, with text of 8 points at least, which are 8 px there. What is more is darker, so that gray says the same
as color.
"""

from __future__ import annotations

import math
import pathlib
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from causalvae._circuit_graph import circuit_graph as circuit_graph
from causalvae.progress import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#667380", "#d9dee3"
ACCENTS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#c53030", "#2c7a7b")
SEQUENTIAL = "Blues"  # of heat maps: from white, which print leaves out, to dark
WIDTH = 5.0  # inches
TEXT = 8.0  # points, the smallest


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
    """Returns an empty figure with a left-aligned title and smaller text under it, both in as many lines as it takes.

    Args:
      width: in inches.
      height: in inches, with one line of each; more lines are added to it.
      title: of the figure.
      subtitle: what it shows of what data.
    """
    from matplotlib.figure import Figure  # takes a second

    heading, lines = _wrapped(title, width, 14), _wrapped(subtitle, width, 8.5)
    height += 0.2 * (len(heading) - 1) + 0.14 * (len(lines) - 1)
    figure = Figure(figsize=(width, height), layout="constrained")
    room = "\n" * math.ceil(0.71 * len(lines) + 0.6)  # the layout leaves it to the title; in it stands the subtitle
    figure.suptitle("\n".join(heading) + room, x=0.01, ha="left", fontsize=12, color=INK, fontweight="bold")
    top = 1 - (0.13 + 0.2 * len(heading)) / height
    figure.text(0.01, top, "\n".join(lines), ha="left", va="top", fontsize=8.5, color=MUTED)
    return figure


def _wrapped(text: str, width: float, size: float) -> list[str]:
    """Lines of a text of `size` points, as long as `width` inches: letters are half as wide as high, or little more."""
    return textwrap.wrap(text, max(16, int(72 * width / (0.53 * size)))) or [""]


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
    subtitle = f"{subtitle}; odd rows: input, even rows: reconstruction"
    figure = titled(WIDTH, 0.7 + 0.62 * 2 * rows, title, subtitle)
    show_picture(figure.subplots(), tile(pairs))
    return figure


def traversals(grid: np.ndarray, labels: Sequence[str], values: np.ndarray, title: str, subtitle: str) -> Figure:
    """Returns a row per latent: images [d, V, H, W, C] as it is set to `values` [V], with a label beside each row."""
    rows, columns = grid.shape[:2]
    figure = titled(max(WIDTH, 0.52 * columns + 1.3), 0.75 + 0.56 * rows, title, subtitle)
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    beside = {"ha": "right", "va": "center", "fontsize": TEXT, "color": INK}
    for i in range(rows):
        show_picture(axes[i], tile(grid[i : i + 1]))
        axes[i].text(-0.015, 0.5, labels[i], transform=axes[i].transAxes, **beside)
    height, step = grid.shape[2], grid.shape[3] + 2
    for j, value in enumerate(values):
        center = j * step + grid.shape[3] / 2
        axes[-1].text(
            center, height + 3, f"{value:+.0f}".replace("-", "−"), ha="center", va="top", fontsize=TEXT, color=MUTED
        )
    return figure


class Cells(NamedTuple):
    """What stands in the cells of a heat map, all [rows, columns]."""

    texts: np.ndarray  # in place of the number with two digits
    notes: np.ndarray  # smaller, below it; empty where there is none
    beyond: np.ndarray  # bool, whether a value is beyond chance; one that is not has no color, and gray text


def matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    subtitle: str,
    unit: str,
    limits: tuple[float, float] | None = None,
    cells: Cells | None = None,
) -> Figure:
    """Returns a heat map [rows, columns] with its numbers in the cells.

    Args:
      values: numbers [rows, columns]; NaN where there is none.
      rows: their names.
      columns: their names, which may have two lines, and get them where "_" is.
      title: of the figure.
      subtitle: what it shows of what data.
      unit: of the numbers, which ends the subtitle ("": the title says it); beside a bar of colors where columns are
        too many for numbers.
      limits: the values of the lightest and the darkest color; None for 0 (or the least) and the largest.
      cells: what stands in the cells where it is more than the number.
    """
    values = np.asarray(values, np.float64)
    roomy = len(columns) <= 20  # beyond that numbers and names of every column would run together
    wide, high = (0.62, 0.42 if cells else 0.34) if roomy else (0.16, 0.34)
    left = 0.2 + 0.07 * max(map(len, rows), default=0)
    subtitle = f"{subtitle}; {unit}" if roomy and unit else subtitle
    figure = titled(max(0.8 * WIDTH, left + wide * len(columns)), 1.1 + high * len(rows), title, subtitle)
    axes = figure.subplots()
    seen = values[np.isfinite(values)]
    low, most = limits or (min(0.0, seen.min(initial=0.0)), seen.max(initial=1e-9))
    low -= 0.15 * (most - low) if cells else 0.0  # what is beyond chance has some color, if little
    shown = values if cells is None else np.where(cells.beyond, values, np.nan)
    image = axes.imshow(shown, cmap=SEQUENTIAL, vmin=low, vmax=most, aspect="auto")
    _name_cells(axes, rows, columns, roomy)
    if roomy:
        _write_cells(axes, image, values, cells)
        return figure
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label(unit, fontsize=TEXT, color=MUTED)
    bar.ax.tick_params(labelsize=TEXT, colors=MUTED)
    bar.outline.set_visible(False)
    return figure


def _name_cells(axes: Any, rows: Sequence[str], columns: Sequence[str], roomy: bool) -> None:
    names = [name.replace("_", "\n") for name in columns] if roomy else list(columns)
    shown = range(0, len(columns), 1 if roomy else 8)
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    turned = {} if roomy and longest <= 11 else {"rotation": 35, "rotation_mode": "anchor"}
    aside = ("left" if roomy else "right") if turned else "center"
    axes.xaxis.set_tick_params(labeltop=roomy, labelbottom=not roomy)
    axes.set_xticks(shown, [names[j] for j in shown], ha=aside, fontsize=8.5, **turned)
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows], fontsize=8.5)
    axes.tick_params(length=0, which="both", colors=INK)
    if roomy:  # lines between the cells, that white ones be seen
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=GRID, linewidth=0.7)
    for side in axes.spines.values():
        side.set_visible(False)


def _write_cells(axes: Any, image: Any, values: np.ndarray, cells: Cells | None) -> None:
    for i, j in np.ndindex(*values.shape):
        known = np.isfinite(values[i, j])
        text = "n/a" if not known else f"{values[i, j]:.2f}" if cells is None else str(cells.texts[i, j])
        note = str(cells.notes[i, j]) if cells and known else ""
        beyond = known and (cells is None or bool(cells.beyond[i, j]))
        color = _on(image.cmap(image.norm(values[i, j]))) if beyond else MUTED
        weight = "bold" if beyond and cells else "normal"
        place = {"ha": "center", "color": color}
        axes.text(j, i - 0.17 * bool(note), text, va="center", fontsize=9, fontweight=weight, **place)
        axes.text(j, i + 0.24, note, va="center", fontsize=7.5, **place)


def _on(color: tuple[float, float, float, float]) -> str:
    """The color of text that is read on this one."""
    red, green, blue, _ = color
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def mediation_bars(found: Any, factors: Sequence[str], mediators: Sequence[str], title: str, subtitle: str) -> Figure:
    """Returns a panel per factor with a group of bars per mediator: the first effect is dark, the second recedes.

    Args:
      found: `effects` (their names) and `estimate`, `low` and `high` [factors, mediators, effects], in units of the
        total effect, as of `evaluation.Mediated`; bars of mediators whose `well_defined` [factors, mediators] is False
        are hatched (None: it is not known).
      factors: their names.
      mediators: their names.
      title: of the figure.
      subtitle: the line under it.
    """
    from matplotlib.patches import Patch

    effects, looks = found.effects, ((ACCENTS[0], "white"), (GRID, MUTED), ("#f0a04b", "white"))
    panels = len(factors)
    columns = min(2, panels)
    rows = -(-panels // columns)
    figure = titled(WIDTH, 1.2 + 1.3 * rows, title, subtitle)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    width = 0.84 / len(effects)
    for k, axes in enumerate(grid.flat):
        axes.set_visible(k < panels)
        if k >= panels:
            continue
        style(axes)
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.set_title(factors[k].replace("_", " "), fontsize=9, loc="left", color=INK)
        sound = np.ones(len(mediators), bool) if found.well_defined is None else found.well_defined[k]
        for e, (color, line) in enumerate(looks[: len(effects)]):
            place = np.arange(len(mediators)) + (e - (len(effects) - 1) / 2) * width
            estimate = found.estimate[k, :, e]
            error = np.stack([estimate - found.low[k, :, e], found.high[k, :, e] - estimate])
            for bar, whole in zip(axes.bar(place, estimate, width, color=color, edgecolor=line, linewidth=0), sound):
                bar.set_hatch("" if whole else "//////")
            axes.errorbar(place, estimate, np.maximum(error, 0), fmt="none", ecolor=INK, elinewidth=0.7)
        axes.set_xticks(range(len(mediators)), mediators, fontsize=TEXT)
        axes.tick_params(axis="x", length=0)
    for axes in grid[:, 0]:
        axes.set_ylabel("share of effect", fontsize=TEXT, color=MUTED)
    handles = [Patch(color=looks[e][0], label=effect) for e, effect in enumerate(effects)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(effects), fontsize=8.5, frameon=False)
    return figure
