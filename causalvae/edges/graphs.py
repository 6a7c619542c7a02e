"""Graphs of edges: node-link data that networkx reads, and layered drawings in which widths are effects."""

from __future__ import annotations

import html
import io
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causalvae import plots
from causalvae.edges.circuit import EdgeCircuit
from causalvae.edges.tracing import EdgeMap
from causalvae.metrics import ties

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRONGEST = 12  # edges from each site to the next, in the graph of a map
WIDEST = 6.0  # points: the line of the largest effect
SVG = "http://www.w3.org/2000/svg"


def edge_graph(found: EdgeCircuit | EdgeMap, strongest: int | None = None) -> dict[str, Any]:
    """Returns a factor's graph as node-link JSON, from the factor through units of every site to the output.

    `networkx.node_link_graph(graph, edges="edges")` reads it and `circuits.save_graph` writes it. A node is a unit,
    "encoder/conv2:5", with its site, layer, effect and standard error; or the factor's, or "output". Edges between
    units have their own effects and standard errors; the factor's edges and the output's have the effects of the units
    at their other end. Effects are fractions of the total effect.

    Args:
      found: a circuit, or a map of all edges.
      strongest: how many edges from each site to the next are kept, the largest |effect| first. None: all of a
        circuit's, 12 of a map's.
    """
    whole = found.effects if isinstance(found, EdgeCircuit) else found
    chosen = _chosen(found, strongest)
    factor = f"factor:{whole.factor}"
    shown = {site: sorted(_units_at(site, chosen)) for site in whole.sites}
    nodes = [{"id": factor, "site": "factor", "layer": 0, "effect": 1.0}]
    for layer, site in enumerate(whole.sites, start=1):
        effects, errors = whole.units[site], whole.unit_errors.get(site)
        for u in shown[site]:
            node = {"id": f"{site}:{u}", "site": site, "unit": u, "layer": layer, "effect": float(effects[u])}
            nodes.append(node if errors is None else node | {"standard_error": float(errors[u])})
    nodes.append({"id": "output", "site": "output", "layer": len(whole.sites) + 1, "effect": 1.0})
    first, last = whole.sites[0], whole.sites[-1]
    edges = [_edge(factor, f"{first}:{u}", whole.units[first][u]) for u in shown[first]]
    for link, pairs in chosen.items():
        for u, w in pairs:
            edge = _edge(f"{link[0]}:{u}", f"{link[1]}:{w}", whole.edges[link][u, w])
            edges.append(edge | {"standard_error": float(whole.errors[link][u, w])})
    edges += [_edge(f"{last}:{w}", "output", whole.units[last][w]) for w in shown[last]]
    about = {"factor": whole.factor, "method": whole.method, "sites": list(whole.sites)}
    return {"directed": True, "multigraph": False, "graph": about, "nodes": nodes, "edges": edges}


def _edge(source: str, target: str, effect: Any) -> dict[str, Any]:
    return {"source": source, "target": target, "effect": float(effect)}


def _chosen(found: EdgeCircuit | EdgeMap, strongest: int | None) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """The edges [(sender, receiver), ...] of every link that are kept."""
    if isinstance(found, EdgeCircuit):
        listed, whole = found.edges, found.effects
    else:
        listed, whole = {link: np.argwhere(effects != 0) for link, effects in found.edges.items()}, found
        strongest = STRONGEST if strongest is None else strongest
    kept = {}
    for link, edges in listed.items():
        order = ties.descending(np.abs(whole.edges[link][tuple(edges.T)]))
        kept[link] = _pairs(edges[order[:strongest]])
    return kept


def _pairs(edges: np.ndarray) -> list[tuple[int, int]]:
    return [(sender, receiver) for sender, receiver in edges.tolist()]


def _units_at(site: str, chosen: Mapping[tuple[str, str], list[tuple[int, int]]]) -> set[int]:
    sends = {u for (source, _), edges in chosen.items() if source == site for u, _ in edges}
    return sends | {w for (_, target), edges in chosen.items() if target == site for _, w in edges}


# --- drawings --------------------------------------------------------------------------------------------


def draw_edges(graph: Mapping[str, Any], title: str = "", subtitle: str = "") -> Figure:
    """Returns a layered drawing of a graph: a column for each site, units from top to bottom by their partners.

    Lines are as wide as effects; blue ones are positive, orange ones negative.

    Args:
      graph: what `edge_graph` (or `circuits.as_graph`) returns.
      title: above it; by default the factor.
      subtitle: under that, in small print: model, data, how many pairs.
    """
    places = layout(graph)
    nodes = {node["id"]: node for node in graph["nodes"]}
    columns = {node["layer"]: node["site"] for node in graph["nodes"]}
    tallest = max(sum(node["layer"] == layer for node in graph["nodes"]) for layer in columns)
    figure = plots.titled(
        max(6.0, 1.7 * len(columns)),
        max(3.2, min(16.0, 1.4 + 0.21 * tallest)),
        title or f"Edges: {graph['graph'].get('factor', '')}",
        subtitle or "widths: fraction of the total effect",
    )
    axes = figure.subplots()
    axes.set_axis_off()
    scale = max((abs(edge["effect"]) for edge in graph["edges"]), default=1.0) or 1.0
    for edge in sorted(graph["edges"], key=lambda e: abs(e["effect"])):
        _draw_edge(axes, places[edge["source"]], places[edge["target"]], edge, scale)
    for name, (x, y) in places.items():
        node = nodes[name]
        told = _told(name, node["effect"], node.get("standard_error"))
        axes.plot(x, y, "o", markersize=5, color=plots.INK, gid=f"node|{told}", zorder=3)
        label = str(node.get("unit", name.removeprefix("factor:")))
        axes.annotate(label, (x, y), (0, 4), textcoords="offset points", ha="center", fontsize=6.5, color=plots.INK)
    for layer, site in columns.items():
        if site not in ("factor", "output"):
            above = {"xytext": (0, 16), "textcoords": "offset points", "ha": "center"}
            axes.annotate(site, (layer, 1.0), **above, fontsize=8, color=plots.MUTED)
    axes.set_ylim(0, 1)
    return figure


def _draw_edge(axes, start, end, edge: Mapping[str, Any], scale: float) -> None:
    """A curve that leaves and arrives level."""
    t = np.linspace(0, 1, 24)
    x = start[0] + (end[0] - start[0]) * t
    y = start[1] + (end[1] - start[1]) * (3 * t**2 - 2 * t**3)
    strength = abs(edge["effect"]) / scale
    axes.plot(
        x,
        y,
        linewidth=0.3 + WIDEST * strength,
        alpha=0.25 + 0.5 * strength,
        color=plots.ACCENTS[0] if edge["effect"] >= 0 else plots.ACCENTS[1],
        solid_capstyle="butt",
        gid=f"edge|{_told(edge['source'] + ' → ' + edge['target'], edge['effect'], edge.get('standard_error'))}",
    )


def _told(name: str, effect: float, error: float | None = None) -> str:
    return f"{name}: {effect:+.3f}{'' if error is None else f' ± {error:.3f}'} of the total effect"


def layout(graph: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Returns node -> (layer, height in [0, 1]). Units of a column are in the order of their partners' mean heights,
    weighted by effects, a few sweeps to and fro (the barycenter method of Sugiyama et al. 1981), so that few lines
    cross."""
    layers: dict[int, list[str]] = {}
    for node in graph["nodes"]:
        layers.setdefault(node["layer"], []).append(node["id"])
    partners: dict[str, list[tuple[str, float]]] = {node["id"]: [] for node in graph["nodes"]}
    for edge in graph["edges"]:
        partners[edge["source"]].append((edge["target"], abs(edge["effect"]) + 1e-9))
        partners[edge["target"]].append((edge["source"], abs(edge["effect"]) + 1e-9))
    heights: dict[str, float] = {}
    for names in layers.values():
        heights |= _spread(names)
    order = sorted(layers)
    for sweep in range(6):
        for layer in order if sweep % 2 == 0 else reversed(order):
            wanted = {name: _mean_height(partners[name], heights, heights[name]) for name in layers[layer]}
            layers[layer].sort(key=lambda name: round(-wanted[name], 6))
            heights |= _spread(layers[layer])
    return {name: (float(layer), heights[name]) for layer, names in layers.items() for name in names}


def _spread(names: list[str]) -> dict[str, float]:
    """Heights from 1 down to 0; one alone stands in the middle."""
    count = len(names)
    return {name: 1 - (i + 0.5) / count for i, name in enumerate(names)}


def _mean_height(partners, heights: Mapping[str, float], otherwise: float) -> float:
    whole = sum(weight for _, weight in partners)
    return sum(heights[name] * weight for name, weight in partners) / whole if whole else otherwise


def edge_page(figure: Figure, path: str | pathlib.Path, title: str = "Edges") -> pathlib.Path:
    """Writes a drawing as one HTML file in which pointing at an edge or a unit tells its effect; returns the path.

    Args:
      figure: what `draw_edges` returned.
      path: of the file, which reads without a network.
      title: of the page.
    """
    buffer = io.StringIO()
    about = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # none of it: the same drawing is the same file
    figure.savefig(buffer, format="svg", bbox_inches="tight", facecolor="white", metadata=about)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    tree = ElementTree.fromstring(buffer.getvalue().encode())
    for group in tree.iter(f"{{{SVG}}}g"):
        kind, bar, text = group.get("id", "").partition("|")
        if bar:
            group.set("class", kind)
            del group.attrib["id"]
            ElementTree.SubElement(group, f"{{{SVG}}}title").text = text
    drawing = ElementTree.tostring(tree, encoding="unicode")
    path = pathlib.Path(path)
    path.write_text(PAGE.format(title=html.escape(title), drawing=drawing), encoding="utf-8")
    return path


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ margin: 1rem; font-family: system-ui, sans-serif; }} svg {{ max-width: 100%; height: auto; }}
.edge:hover path {{ stroke: #c53030 !important; opacity: 1 !important; stroke-opacity: 1 !important; }}
.node:hover use {{ fill: #c53030 !important; stroke: #c53030 !important; }}</style></head>
<body>{drawing}</body></html>
"""
