"""The picture of a circuit's graph, in layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
