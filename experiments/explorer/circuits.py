"""The circuit of every factor: the strongest edges from the encoder by way of the latents to the decoder.

Which edges are the strongest is decided by gradients (`edges.trace_edges`); what is said and seen of them is measured,
by runs in which that edge alone is patched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from causalvae.edges import edge_graph, trace_edges
from causalvae.edges.graphs import layout
from causalvae.edges.tracing import fraction_errors
from causalvae.interventions import _edges
from causalvae.interventions._checks import as_pytree
from causalvae.interventions._groups import make_groups
from causalvae.interventions._runs import Run, both_runs, change_of_runs
from causalvae.interventions.latents import image_distance
from causalvae.model import image_of
from experiments.explorer.content import Circuit, Circuits, PairsShown
from experiments.explorer.replaced import Runner

STRONGEST = 12  # edges from each site to the next
WIDEST = 256  # units of a site that a chain may lead through
LEFT_OUT = "The circuit was left out when this page was made."
OF_CODES = (
    "No circuit is drawn of this model. Its latents are integer codes, which have no gradient: their edges can only be "
    "measured one by one, with edges.trace_edges(…, method='exact')."
)
NO_CHAIN = (
    "No circuit is drawn of this model. It leads through a layer before {latents}, {latents} itself and a layer behind "
    "it, of at most {widest} units each; the sites of this page are {sites}."
)


def trace_circuits(runner: Runner, shown: PairsShown, drawn: Sequence[Any], names: Sequence[str]) -> Circuits:
    """The circuit of each factor that has a pair.

    Args:
        runner: of the model.
        shown: the pairs whose images are shown, one for each factor.
        drawn: of each, the pairs [N, 2, H, W, C] that effects are means over.
        names: of all factors.
    """
    chain = chain_of(runner)
    if isinstance(chain, str):
        return Circuits(missing=chain)
    found = []
    for p, pairs in enumerate(drawn):
        images = np.concatenate([pairs, shown.images[p : p + 1]])
        found.append(_trace(runner, chain, (images[:, 0], images[:, 1]), names[shown.factor[p]]))
    sizes = [runner.shapes[site].shape[-1] for site in chain]
    return Circuits(chain, [a * b for a, b in zip(sizes, sizes[1:])], len(drawn[0]), tuple(found))


def chain_of(runner: Runner) -> tuple[str, ...] | str:
    """Three sites through which all goes, in forward order; or a sentence that says why there are none.

    Feature maps are preferred, in the middle of the encoder and of the decoder, where units are neither pixels nor
    latents yet.
    """
    if runner.codes:
        return OF_CODES
    latents, sites = runner.code_site, list(runner.shapes)
    room = latents.partition("/")[0]
    narrow = [s for s in sites if runner.shapes[s].shape[-1] <= WIDEST and s.partition("/")[0] != room]
    before = _maps(runner, [site for site in narrow if sites.index(site) < sites.index(latents)])
    after = _maps(runner, [site for site in narrow if sites.index(site) > sites.index(latents)])
    if not (before and after and runner.shapes[latents].shape[-1] <= WIDEST):
        return NO_CHAIN.format(latents=latents, widest=WIDEST, sites=", ".join(sites))
    return before[-2:][0], latents, after[:2][-1]


def _maps(runner: Runner, sites: list[str]) -> list[str]:
    return [site for site in sites if len(runner.shapes[site].shape) > 2] or sites


class Ends(NamedTuple):
    """The two runs of N pairs and of the pair that is shown, which comes last."""

    x: np.ndarray  # [N + 1, H, W, C]
    x_source: np.ndarray
    base: Run
    source: Run

    @property
    def start(self) -> np.ndarray:
        return np.asarray(image_of(self.base.outputs))

    @property
    def change(self) -> np.ndarray:
        return np.asarray(image_of(self.source.outputs)) - self.start


def _trace(runner: Runner, chain: tuple[str, ...], images: tuple[np.ndarray, np.ndarray], factor: str) -> Circuit:
    """The circuit of one factor, of pairs whose last one is shown."""
    model, params = runner.model, runner.params
    measuring = jnp.asarray(images[0][:-1]), jnp.asarray(images[1][:-1])
    try:
        found = trace_edges(model, params, measuring, chain, factor=factor, sample=2)
    except ValueError as error:  # the factor changes nothing that this model decodes
        return Circuit(missing=str(error))
    graph = edge_graph(found, STRONGEST)
    if not all(effects.any() for effects in found.edges.values()):
        return Circuit(missing=f"No edge from {chain[0]} by {chain[1]} to {chain[2]} has an effect on the image.")
    ends = Ends(*images, *both_runs(model.forward, params, (*images, None))[:2])
    nodes = [node for node in graph["nodes"] if "unit" in node]
    edges = [edge for edge in graph["edges"] if "standard_error" in edge]
    drawn = [_of_edges(runner, link, edges, ends) for link in zip(chain, chain[1:])]
    pictures = np.concatenate([_of_nodes(runner, chain, nodes, ends), *drawn])
    moved = np.asarray(image_distance(jnp.asarray(ends.start[-1:]), jnp.asarray(pictures), "l2"))
    return Circuit(nodes, edges, layout(graph), pictures, moved)


def _of_nodes(runner: Runner, chain: tuple[str, ...], nodes: list[dict[str, Any]], ends: Ends) -> np.ndarray:
    """The image [nodes, H, W, C] of the shown pair when one unit has its value of the source run."""
    pictures = []
    for site in chain:
        units = np.array([node["unit"] for node in nodes if node["site"] == site])
        source = np.asarray(ends.source.activations[site][-1])
        x, replacement = (np.broadcast_to(one, (len(units), *one.shape)) for one in (ends.x[-1], source))
        pictures.append(runner(x, site, units, replacement)[0])
    return np.concatenate(pictures)


def _of_edges(runner: Runner, link: tuple[str, str], edges: list[dict[str, Any]], ends: Ends) -> np.ndarray:
    """Measures the edges of a link: writes their effects and errors, and returns the shown pair's image of each."""
    edges = [edge for edge in edges if (_site(edge["source"]), _site(edge["target"])) == link]
    numbers = np.array([[_unit(edge["source"]), _unit(edge["target"])] for edge in edges], np.int32)
    padded = np.resize(numbers, (STRONGEST, 2))  # one program for all factors
    groups = _edges.Between(make_groups(runner.shapes, link[0]), make_groups(runner.shapes, link[1]))
    runs = _edges.Ends(jnp.asarray(ends.x), None, ends.base, ends.source)
    changed = _edges.sampled(runner.model.forward, runner.params, runs, groups, IMAGE, jnp.asarray(padded))
    changed = np.asarray(changed)[: len(edges)]
    rows = np.flatnonzero(np.asarray(change_of_runs(ends.base, ends.source))[:-1] > 0)
    way = ends.change[rows].reshape(len(rows), -1).astype(np.float64)
    effects = (changed[:, rows].reshape(len(edges), len(rows), -1) * way).sum(axis=-1)
    total = np.square(way).sum(axis=-1)
    fractions = effects.mean(axis=-1) / total.mean()
    for edge, effect, error in zip(edges, fractions, fraction_errors(total, effects, fractions)):
        edge |= {"effect": float(effect), "standard_error": float(error)}
    return ends.start[-1] + changed[:, -1]


def _image(run: Run, base: Run, source: Run) -> Any:
    return image_of(run.outputs)


IMAGE = as_pytree(_image)


def _site(node: str) -> str:
    return node.rpartition(":")[0]


def _unit(node: str) -> int:
    return int(node.rpartition(":")[2])
