"""Circuits of edges: by which ways, from unit to unit, a factor reaches the output.

    map = trace_edges(model, params, pairs, ["encoder/conv2", "latent/z", "decoder/conv1"], factor="wall_hue")
    circuit = find_edges(model, params, pairs, ["encoder/conv2", "latent/z", "decoder/conv1"], factor="wall_hue")
    draw_edges(edge_graph(circuit))

Sites form a chain, and edges run from each to the next. In the joint patch of a set of edges every unit of the first
site sends its value of x', and every receiver is computed with the edges of the set alone: senders that it is not
joined to keep their values of x. A set is measured by that one joint patch, and never by adding up its edges.
"""

from causalvae.edges.circuit import EdgeCircuit, UnitEdges, find_edges
from causalvae.edges.graphs import draw_edges, edge_graph, edge_page
from causalvae.edges.joint import patch_edges
from causalvae.edges.outcomes import EdgeModularity, EdgeOutcomes, edge_outcomes
from causalvae.edges.tracing import EdgeMap, trace_edges

__all__ = [
    "EdgeCircuit",
    "EdgeMap",
    "EdgeModularity",
    "EdgeOutcomes",
    "UnitEdges",
    "draw_edges",
    "edge_graph",
    "edge_outcomes",
    "edge_page",
    "find_edges",
    "patch_edges",
    "trace_edges",
]
