"""Effects of all edges of a chain of sites, for one factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae.circuits import mean_fractions
from causalvae.edges.joint import Chain, Link, make_chain
from causalvae.interventions._runs import Outcome
from causalvae.interventions.edges import EdgeAgreement, edge_options, link_effects
from causalvae.interventions.factors import Pairs
from causalvae.interventions.mediation import indirect_effects
from causalvae.interventions.outcomes import unscaled_projection

PyTree = Any


class EdgeMap(NamedTuple):
    """Effects of the edges and units of a chain of sites, as fractions of one factor's total effect."""

    factor: str
    sites: tuple[str, ...]  # in forward order
    edges: dict[Link, np.ndarray]  # (site, next site) -> [U, W]
    errors: dict[Link, np.ndarray]  # [U, W] standard errors of these over pairs
    units: dict[str, np.ndarray]  # site -> [units] of each unit alone, by all ways: its natural indirect effect
    agreement: dict[Link, EdgeAgreement | None]  # of the estimates with exact effects; None: they are exact
    method: str
    unit_errors: dict[str, np.ndarray] = {}  # site -> [units] standard errors of `units` over pairs


class PairEffects(NamedTuple):
    """The same per pair, in units of the outcome."""

    total: np.ndarray  # [N]
    edges: dict[Link, np.ndarray]  # [U, W, N]
    units: dict[str, np.ndarray]  # [units, N]
    agreement: dict[Link, EdgeAgreement | None]


def trace_edges(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    sites: Sequence[str],
    *,
    factor: str = "",
    method: str = "attribution",
    outcome: Outcome = unscaled_projection,
    **options: Any,
) -> EdgeMap:
    """Returns a factor's whole graph: the effect of every edge from each site to the next, and of every unit.

    An edge's effect is its mean over pairs over the mean total effect; `method` says how it is found.

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: of one factor, as `counterfactuals` gives them.
      sites: two or more, in any order; they are taken in the order of the forward pass.
      factor: its name, for the graph.
      method: as in `interventions.edge_effects`. Beyond "exact", the agreement with exact effects on a sample of
        edges of every two sites comes with it.
      outcome: as in `interventions.mediate`.
      **options: of `interventions.EdgeOptions`.

    Raises:
      ValueError: where the pairs have no effect on the outcome, and as `edge_effects` does.
    """
    chosen = edge_options(options)
    chain = make_chain(model, params, pairs, sites, outcome, chosen.chunk)
    found = effects_of_pairs(model, params, chain, method, options)
    return map_of(chain, found, np.flatnonzero(np.isfinite(found.total)), factor, method)


def effects_of_pairs(model: Any, params: PyTree, chain: Chain, method: str, options: dict[str, Any]) -> PairEffects:
    """Returns effects of all edges and units of a chain, per pair."""
    plan = chain.plan
    shared = {"outcome": plan.outcome, "chunk": plan.chunk}
    units, total = {}, None
    for site in chain.sites:
        total, indirect = indirect_effects(model, params, plan.pairs, site, **shared)
        units[site] = np.asarray(indirect)
    found = link_effects(model, params, plan.pairs, chain.links, method=method, **(options | shared))
    edges = dict(zip(chain.links, found, strict=True))
    effects = {link: np.asarray(found.effects) for link, found in edges.items()}
    return PairEffects(np.asarray(total), effects, units, {link: found.agreement for link, found in edges.items()})


def map_of(chain: Chain, found: PairEffects, rows: np.ndarray, factor: str, method: str) -> EdgeMap:
    """Returns means over the pairs `rows`, over their mean total effect."""

    def fractions(effects):
        return mean_fractions(found.total, effects.reshape(-1, effects.shape[-1]), rows).reshape(effects.shape[:-1])

    edges = {link: fractions(effects) for link, effects in found.edges.items()}
    units = {site: fractions(effects) for site, effects in found.units.items()}
    total = found.total[rows]
    errors = {link: fraction_errors(total, found.edges[link][..., rows], edges[link]) for link in edges}
    unit_errors = {site: fraction_errors(total, found.units[site][..., rows], units[site]) for site in units}
    return EdgeMap(factor, chain.sites, edges, errors, units, found.agreement, method, unit_errors)


def fraction_errors(total: np.ndarray, effects: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Returns standard errors [...] of mean effects [..., N] over the mean total effect [N], whose ratios `fractions`
    are, by linearization: of what is left of an effect beside its share of the total."""
    left = effects - fractions[..., None] * total.astype(np.float64)
    return np.sqrt(np.square(left).mean(axis=-1) / len(total)) / abs(total.mean())
