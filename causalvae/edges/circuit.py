"""The smallest set of edges through which a factor reaches the output.

Edges of all links are ranked together by their effects, the largest first, and the smallest number of them is sought
whose joint patch keeps `threshold` of the total effect. One half of the pairs chooses, the other half measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae.circuits import TIE, halves_of, mean_fractions
from causalvae.edges.joint import Chain, Link, joint_effects, make_chain
from causalvae.edges.tracing import EdgeMap, PairEffects, effects_of_pairs, map_of
from causalvae.interventions._runs import Outcome
from causalvae.interventions.edges import edge_options
from causalvae.interventions.factors import Pairs
from causalvae.interventions.outcomes import unscaled_projection
from causalvae.metrics import ties

PyTree = Any
Masks = tuple[np.ndarray, ...]  # [U, W] for every link
RANDOM_SETS = 20  # of a circuit's form: the null of its faithfulness
DRAWS = 100  # of pairs: the stability of its edges
SIZES = 12  # that are tried before the search narrows


class UnitEdges(NamedTuple):
    """The best set of units: the fewest, in the order of their own effects, whose edges keep the threshold."""

    units: dict[str, np.ndarray]  # site -> units
    size: int  # the edges among them
    faithfulness: float  # of these, on the measuring pairs


class EdgeCircuit(NamedTuple):
    """A set of edges that serves one factor. Effects are fractions of the total effect over the measuring pairs."""

    edges: dict[Link, np.ndarray]  # (site, next site) -> [n, 2] (sender, receiver), the largest effect first
    effects: EdgeMap  # of all edges and units
    faithfulness: float  # of the set patched alone
    completeness: float  # 1 - that of all other edges
    random: np.ndarray  # [draws] of sets of the same form between other units: the null of faithfulness
    random_size: int  # how many edges it takes when they come in random order
    units: UnitEdges
    stability: dict[Link, np.ndarray]  # [U, W] share of draws of pairs that rank the edge as high as the set goes
    found: bool  # whether the choosing pairs reached the threshold; if not, the set is all edges

    @property
    def size(self) -> int:
        """How many edges."""
        return sum(len(edges) for edges in self.edges.values())


def find_edges(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    sites: Sequence[str],
    *,
    threshold: float = 0.9,
    outcome: Outcome = unscaled_projection,
    **options: Any,
) -> EdgeCircuit:
    """Returns the smallest set of edges, chosen by rank, whose joint patch keeps `threshold` of the total effect: that
    share at least, and no further above the whole than that is below it, or a set would do that leaves out what pulls
    back.

    Source: this library, after Syed et al. 2023 and Hanna et al. 2024. Edges are ranked by the size of their effects:
    one that pulls back belongs to a circuit as well. Integrated gradients along the whole site rank them by what they
    do where all act together, and give smaller sets than exact effects of single edges. Edges that no path of the set
    joins to both ends do nothing and are dropped. Random sets are the set itself with the units of every site renamed,
    so that their edges join up as its own do. The best set of units is found in the same way, units ranked by their
    natural indirect effects, and counts the edges among them. Only where every site is a cut set can all edges
    together reach the total (`found`).

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: of one factor, as `counterfactuals` gives them. Every other one chooses, the rest measure.
      sites: two or more, in any order; they are taken in the order of the forward pass.
      threshold: fraction of the total effect, in (0, 1].
      outcome: as in `interventions.mediate`.
      **options: of `interventions.EdgeOptions`; and `method` ("integrated"), `factor`, its name for the graph, and
        `seed`, of random sets and of the draws of pairs.

    Raises:
      ValueError: where either half of the pairs has no effect on the outcome, for a threshold outside (0, 1], and as
        `interventions.edge_effects` does.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a fraction of the total effect, in (0, 1], not {threshold}")
    method, factor, seed = (options.pop(name, default) for name, default in DEFAULTS.items())
    chain = make_chain(model, params, pairs, sites, outcome, edge_options(options).chunk)
    found = effects_of_pairs(model, params, chain, method, options)
    halves = halves_of(found.total)
    choosing, measuring = (map_of(chain, found, rows, factor, method) for rows in halves)

    def kept(sets: Sequence[Masks], rows: np.ndarray) -> np.ndarray:
        return mean_fractions(*joint_effects(chain.of_rows(rows), params, sets), np.arange(len(rows)))

    search = Search(chain, lambda masks: kept([masks], halves[0])[0], threshold)
    order = ties.descending(np.abs(_flat(choosing.edges.values())), TIE)
    chosen, reached = search.edges(order)
    generator = np.random.default_rng(seed)
    random_set, _ = search.edges(generator.permutation(order))
    by_unit, _ = search.units(choosing)
    sets = [chosen, tuple(~mask for mask in chosen), _among(by_unit)]
    alone, rest, of_units, *random = kept([*sets, *_renamed(generator, chosen)], halves[1])
    return EdgeCircuit(
        _listed(chain, chosen, choosing),
        measuring,
        float(alone),
        float(1 - rest),
        np.asarray(random),
        _count(random_set),
        _unit_edges(chain, by_unit, float(of_units)),
        _stability(generator, chain, found, halves[0], _count(chosen)),
        reached,
    )


DEFAULTS = {"method": "integrated", "factor": "", "seed": 0}


# --- the search ------------------------------------------------------------------------------------------


class Search(NamedTuple):
    """For the fewest elements of an order whose joint patch keeps the threshold on the choosing pairs, either way."""

    chain: Chain
    kept: Callable[[Masks], float]
    threshold: float

    def edges(self, order: np.ndarray) -> tuple[Masks, bool]:
        """The set, from an order of all edges, and whether the threshold was reached."""
        shapes = self.chain.shapes

        def first(n):
            flat = np.zeros(len(order), bool)
            flat[order[:n]] = True
            parts = np.split(flat, np.cumsum([u * w for u, w in shapes])[:-1])
            return joined(tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))

        n, reached = self._fewest(first, len(order))
        return first(n), reached

    def units(self, effects: EdgeMap) -> tuple[list[np.ndarray], bool]:
        """Which units of every site [units], in the order of their effects, and whether the threshold was reached."""
        order = ties.descending(np.abs(_flat(effects.units.values())), TIE)
        ends = np.cumsum(self.chain.sizes)[:-1]

        def first(n):
            flat = np.zeros(len(order), bool)
            flat[order[:n]] = True
            return np.split(flat, ends)

        n, reached = self._fewest(lambda n: _among(first(n)), len(order))
        return first(n), reached

    def _fewest(self, first: Callable[[int], Masks], most: int) -> tuple[int, bool]:
        """The smallest number that was seen to suffice: a grid of sizes, then halving. (More may keep less.)"""

        def enough(n):
            masks = first(n)
            off = abs(self.kept(masks) - 1)  # too much is no more faithful than too little
            return _count(masks) > 0 and off <= 1 - self.threshold + TIE

        below = 0
        for n in np.unique(np.geomspace(1, most, SIZES).round().astype(int)).tolist():
            if enough(n):
                break
            below = n
        else:
            return most, False
        while n - below > 1:
            middle = (n + below) // 2
            below, n = (below, middle) if enough(middle) else (middle, n)
        return n, True


def joined(masks: Masks) -> Masks:
    """Returns the edges [U, W] of every link that lie on a path from the first site to the last."""
    masks = tuple(mask.copy() for mask in masks)
    neighbors = list(zip(masks, masks[1:], strict=False))
    for before, after in neighbors:
        after &= np.any(before, axis=0)[:, None]
    for before, after in reversed(neighbors):
        before &= np.any(after, axis=1)[None]
    return masks


def _among(units: Sequence[np.ndarray]) -> Masks:
    """All edges among units of each site."""
    return tuple(u[:, None] & w[None] for u, w in zip(units, units[1:], strict=False))


def _renamed(generator: np.random.Generator, masks: Masks) -> list[Masks]:
    """Sets of the same form between other units."""
    sizes = [masks[0].shape[0], *(mask.shape[1] for mask in masks)]
    sets = []
    for _ in range(RANDOM_SETS):
        names = [generator.permutation(size) for size in sizes]
        sets.append(tuple(m[u][:, w] for m, u, w in zip(masks, names, names[1:], strict=False)))
    return sets


# --- what is reported ------------------------------------------------------------------------------------


def _flat(arrays) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays])


def _count(masks: Masks) -> int:
    return int(sum(mask.sum() for mask in masks))


def _listed(chain: Chain, masks: Masks, effects: EdgeMap) -> dict[Link, np.ndarray]:
    listed = {}
    for link, mask in zip(chain.links, masks, strict=True):
        edges = np.argwhere(mask)
        listed[link] = edges[ties.descending(np.abs(effects.edges[link][mask]), TIE)]
    return listed


def _unit_edges(chain: Chain, units: Sequence[np.ndarray], faithfulness: float) -> UnitEdges:
    named = {site: np.flatnonzero(chosen) for site, chosen in zip(chain.sites, units, strict=True)}
    return UnitEdges(named, _count(_among(units)), faithfulness)


def _stability(
    generator: np.random.Generator, chain: Chain, found: PairEffects, rows: np.ndarray, size: int
) -> dict[Link, np.ndarray]:
    """Share of bootstrap draws of the choosing pairs in which an edge is among the `size` largest."""
    effects = np.concatenate([found.edges[link].reshape(-1, len(found.total))[:, rows] for link in chain.links])
    counts = np.zeros(len(effects))
    for _ in range(DRAWS):
        weights = np.bincount(generator.integers(0, len(rows), len(rows)), minlength=len(rows))
        sizes = np.abs(effects @ weights.astype(effects.dtype))
        counts[ties.descending(sizes, TIE * sizes.max())[:size]] += 1
    parts = np.split(counts / DRAWS, np.cumsum([u * w for u, w in chain.shapes])[:-1])
    return {link: p.reshape(s) for link, p, s in zip(chain.links, parts, chain.shapes, strict=True)}
