"""The joint path patch: what a set of edges between the sites of a chain does together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae._programs import jit
from causalvae.interventions._checks import check_finite
from causalvae.interventions._edges import Between, Ends, maps_of
from causalvae.interventions._groups import Groups, make_groups
from causalvae.interventions._plan import Plan, make_plan
from causalvae.interventions._runs import Outcome, both_runs
from causalvae.interventions._sweep import in_blocks, merge_pairs
from causalvae.interventions.factors import Pairs
from causalvae.interventions.outcomes import outcome_of_ends, unscaled_projection
from causalvae.sites import check_site

PyTree = Any
Link = tuple[str, str]
"""A site and the next one of a chain."""


class Chain(NamedTuple):
    """Sites whose units are joined, each to the next."""

    plan: Plan
    sites: tuple[str, ...]  # in forward order
    groups: tuple[Groups, ...]  # all units of each

    @property
    def links(self) -> tuple[Link, ...]:
        return tuple(zip(self.sites, self.sites[1:], strict=False))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(groups.size for groups in self.groups)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(senders, receivers) of each link."""
        return tuple(zip(self.sizes, self.sizes[1:], strict=False))

    def of_rows(self, rows: np.ndarray) -> Chain:
        """The chain with some of the pairs."""
        pairs = jax.tree.map(lambda a: a[rows], self.plan.pairs)
        return self._replace(plan=self.plan._replace(pairs=pairs))


def make_chain(model: Any, params: PyTree, pairs: Any, sites: Sequence[str], outcome: Outcome, chunk: Any) -> Chain:
    """Returns the chain of `sites` in forward order; ValueError for fewer than two, or one that does not exist."""
    wanted = (sites,) if isinstance(sites, str) else tuple(dict.fromkeys(sites))
    if len(wanted) < 2:
        raise ValueError(f"edges run from site to site: give at least two, not {', '.join(wanted) or 'none'}")
    plan = make_plan(model, params, pairs, wanted[0], "unit", outcome, chunk)
    for site in wanted:
        check_site(site, plan.shapes)
    ordered = tuple(site for site in plan.shapes if site in wanted)
    return Chain(plan, ordered, tuple(make_groups(plan.shapes, site) for site in ordered))


def patch_edges(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    sites: Sequence[str],
    masks: Mapping[Link, Any],
    *,
    outcome: Outcome = unscaled_projection,
    chunk: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns (total [N], joint [G, N]): the effect of x -> x' and that of each of G sets of edges patched together.

    Source: this library, after Wang et al. 2022 and Conmy et al. 2023, for chains of sites. All edges together do
    what the first site does by way of all others: where every site is a cut set, joint equals total.

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: as there.
      sites: two or more, in any order; they are taken in the order of the forward pass. Units are those of
        `groups="unit"`: channels of maps, single codes of code maps.
      masks: (site, next site) -> bool [G, senders, receivers], for every two neighbors.
      outcome: as in `interventions.mediate`.
      chunk: runs at once; bounds memory, not results.

    Raises:
      ValueError: for fewer than two sites, and masks of other links or shapes.
    """
    chain = make_chain(model, params, pairs, sites, outcome, chunk)
    return joint_effects(chain, params, _sets(chain, masks))


def _sets(chain: Chain, masks: Mapping[Link, Any]) -> list[tuple[np.ndarray, ...]]:
    """The sets of edges, each with a mask [U, W] for every link."""
    if set(masks) != set(chain.links):
        raise ValueError(f"masks must be of {', '.join(map(str, chain.links))}, not of {', '.join(map(str, masks))}")
    arrays = [np.asarray(masks[link], bool) for link in chain.links]
    for link, shape, array in zip(chain.links, chain.shapes, arrays, strict=True):
        if array.ndim != 3 or array.shape != (len(arrays[0]), *shape):
            expected = ", ".join(map(str, (len(arrays[0]), *shape)))
            raise ValueError(f"the masks of {link} must be [{expected}] (sets, senders, receivers), not {array.shape}")
    if not len(arrays[0]):
        raise ValueError("masks must hold at least one set of edges: [G, senders, receivers] with G > 0")
    return list(zip(*arrays, strict=True))


def joint_effects(chain: Chain, params: PyTree, sets: Sequence[tuple[np.ndarray, ...]]) -> tuple[jax.Array, jax.Array]:
    """Returns (total [N], joint [G, N]) of sets of edges, a mask [U, W] of each for every link."""
    plan = chain.plan

    def block(rows, valid):
        base, source, finite = both_runs(plan.forward, params, rows)
        runs = Ends(rows[0], rows[2], base, source)
        ends = outcome_of_ends(plan.outcome, (base, source))
        joint = [_joint(plan.forward, params, runs, chain.groups, masks, plan.outcome) for masks in sets]
        return (*ends, jnp.stack(joint)), finite

    effects, finite = in_blocks(block, plan.rows, plan.chunk, _effects)
    check_finite(finite)
    return effects


def _effects(blocks, num: int):
    (at_base, at_source, joint), finite = blocks
    at_base, at_source, joint = merge_pairs((at_base[:, None], at_source[:, None], joint), num)
    return ((at_source - at_base)[0], joint - at_base), finite


@jit(static=1)
def _joint(forward, params, runs: Ends, groups: tuple[Groups, ...], masks: tuple[jax.Array, ...], outcome) -> jax.Array:
    """The outcome [P] with one set of edges patched, `masks` [U, W] for every link. Site by site, every receiver that
    any edge reaches is computed in a run of its own; the others keep their values of the base run."""
    (first,) = groups[0].selectors
    value, measure = runs.source.activations[first], None
    for senders, receivers, mask in zip(groups, groups[1:], masks, strict=False):
        maps = maps_of(forward, params, runs, Between(senders, receivers), outcome)
        value, measure = _received(maps, receivers, mask, value), maps.measure
    assert measure is not None
    return measure(value)


def _received(maps, receivers: Groups, mask: jax.Array, sent: jax.Array) -> jax.Array:
    """The activation [P, ...] of the receivers' site when senders that hold `sent` reach them along the mask alone."""
    base, (site, held) = maps.sender[1], maps.receiver
    reached_at_all = jnp.any(mask, axis=0)
    order = jnp.nonzero(reached_at_all, size=receivers.size, fill_value=0)[0]

    def step(i, value):
        senders = mask[:, order[i]]  # of one value each, or of one channel each
        senders = senders.reshape(1, *base.shape[1:]) if senders.size != base.shape[-1] else senders
        senders = senders.reshape(*(1,) * (base.ndim - senders.ndim), *senders.shape)
        reached = maps.reach(jnp.where(senders, sent, base))
        return jnp.where(receivers.select(site, order[i][None], held), reached, value)

    return jax.lax.fori_loop(0, jnp.sum(reached_at_all), step, held)
