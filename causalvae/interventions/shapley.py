"""Shapley shares: the total effect dealt out to mediators, interactions included, so that the shares add up to it.

The mediators are players, and so is the rest of the network: whatever of x' reaches the outcome past them. A
coalition takes its values from the run of x' and everybody else keeps those of x; a player's share is what it adds,
averaged over all orders in which the players can join. With one mediator its share is the indirect effect and half
of the interaction, and the rest's is the direct effect and the other half.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from causalvae._display import as_html
from causalvae.interventions._bootstrap import Estimate, bootstrap_weights, check_bootstrap, interval, means_of
from causalvae.interventions._checks import check_finite
from causalvae.interventions._groups import Groups
from causalvae.interventions._plan import Plan, make_plan
from causalvae.interventions._runs import Outcome, both_runs, exchanged
from causalvae.interventions._sweep import in_blocks, merge_pairs
from causalvae.interventions.factors import Pairs
from causalvae.interventions.outcomes import outcome_of_ends, outcome_of_patched, projected_change

PyTree = Any
EXACT = 10  # mediators: up to so many every coalition is run


class Shapley(NamedTuple):
    """Shares of the total effect, per pair: total = sum of shares + rest."""

    total: jax.Array  # [N] Y(x') - Y(x)
    shares: jax.Array  # [G, N] of each mediator
    rest: jax.Array  # [N] of whatever of x' reaches the outcome past the mediators
    error: jax.Array  # [G + 1] standard error of a mean share over pairs, the rest's last: 0 where nothing is sampled
    exact: bool  # whether every coalition was run


def shapley_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    site: str | tuple[str, Any],
    *,
    outcome: Outcome = projected_change,
    samples: int | None = None,
    key: jax.Array | None = None,
    chunk: int | None = None,
) -> Shapley:
    """Returns the Shapley share of each of a few mediators in the effect of x -> x', and that of the rest.

    Source: Shapley 1953; Heskes et al. 2020 for causal effects; the rest as a player is this library's. Up to 10
    mediators all coalitions are run, 2^(G + 1) for each pair. Beyond, or with `samples`, orders of the players are
    drawn, each with its reverse, the same for all pairs: G runs for each order and pair. Shares add up to the total
    effect in any case, for they do so in every order. `error` is what the draw of orders leaves uncertain, not that of
    pairs: see `summarize_shapley`.

    Args:
      model: anything with a `forward`, see `causalvae.model`; or such a function.
      params: any pytree.
      pairs: as in `mediate`.
      site: a site, for all its units; or (site, groups), with groups as in `mediate`: `("latent/z", [0, 3])`. The
        mediators lie side by side: at one site, and no value belongs to two of them.
      outcome: as in `mediate`.
      samples: how many orders are drawn, an even number; None: exact up to 10 mediators, 64 beyond.
      key: draws the orders; None for `jax.random.key(0)`.
      chunk: runs at once; bounds memory, not results.

    Raises:
      ValueError: for mediators that overlap or of several sites, an odd number of samples or fewer than 4, and as
        `mediate` does.
    """
    site, groups = (site, "unit") if isinstance(site, str) else site
    plan = make_plan(model, params, pairs, site, groups, outcome, chunk)
    num = plan.groups.size
    if samples is None:
        samples = 0 if num <= EXACT else 64
    elif samples < 4 or samples % 2:
        raise ValueError(f"orders are drawn with their reverses: samples must be even and at least 4, not {samples}")
    if samples:
        orders = _orders(num + 1, samples, jax.random.key(0) if key is None else key)
        coalitions, before, after = _joining(orders)
        size = min(2**num, samples * (num + 1))
        total, values = _values(plan, params, coalitions, size)
        shares, error = _mean_of_orders(values, before, after)
    else:
        coalitions = np.array(list(itertools.product((False, True), repeat=num + 1)))
        total, values = _values(plan, params, coalitions, 2**num)
        weights = jnp.asarray(_weights(coalitions), jnp.float32)
        shares, error = jnp.matmul(weights, values, precision=jax.lax.Precision.HIGHEST), jnp.zeros(num + 1)
    return Shapley(total, shares[:-1], shares[-1], error, not samples)


class ShapleySummary(NamedTuple):
    """Mean shares with bootstrap intervals over pairs."""

    total: Estimate  # []
    shares: Estimate  # [G]
    rest: Estimate  # []
    error: jax.Array  # [G + 1] of the draw of orders, in the units of the shares; the intervals do not hold it
    pairs: jax.Array  # [] how many pairs counted
    left_out: jax.Array  # [] how many did not: their total effect is NaN

    _repr_html_ = as_html


def summarize_shapley(
    shapley: Shapley, key: jax.Array, num: int = 1000, level: float = 0.95, relative: bool = False
) -> ShapleySummary:
    """Returns means over pairs with percentile bootstrap intervals, as `summarize` does for mediation.

    Args:
      shapley: what `shapley_effects` returns.
      key: draws the pairs of the bootstrap.
      num: how often they are drawn.
      level: of the intervals.
      relative: give shares of the mean total effect, ratios of sums over pairs: they add up to 1.

    Raises:
      ValueError: for num < 2 or a level outside (0, 1).
    """
    check_bootstrap(num, level)
    return _summarize((num, relative), shapley, key, level)


@functools.partial(jax.jit, static_argnums=0)
def _summarize(sizes: tuple[int, bool], shapley: Shapley, key: jax.Array, level: float) -> ShapleySummary:
    num, relative = sizes
    valid = ~jnp.isnan(shapley.total)
    weights = bootstrap_weights(key, valid, num)
    effects = (jnp.where(valid[(None,) * (e.ndim - 1)], e, 0.0) for e in shapley[:3])
    total, shares, rest = (means_of(weights, effect) for effect in effects)
    whole = total if relative else jnp.ones_like(total)
    total, shares, rest = (interval(m, level) for m in (total / whole, shares / whole[:, None], rest / whole))
    error = shapley.error / jnp.abs(whole[0])
    return ShapleySummary(total, shares, rest, error, jnp.sum(valid), jnp.sum(~valid))


# --- orders and coalitions ------------------------------------------------------------------------------


def _weights(coalitions: np.ndarray) -> np.ndarray:
    """Weight [players, C] of the outcome of each coalition [C, players], of all of them, in each player's share."""
    players, size = coalitions.shape[1], coalitions.sum(axis=1)
    joined = np.array([1 / (players * math.comb(players - 1, n)) for n in range(players)])  # of n others
    with_it = np.where(coalitions, joined[size - 1][:, None], 0.0)
    without = np.where(coalitions, 0.0, joined[np.minimum(size, players - 1)][:, None])
    return (with_it - without).T


def _orders(players: int, samples: int, key: jax.Array) -> np.ndarray:
    """Orders of the players [samples / 2, 2, players], the second of two being the reverse of the first."""
    keys = jax.random.split(key, samples // 2)
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, players))(keys))
    return np.stack([orders, orders[:, ::-1]], axis=1)


def _joining(orders: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The coalitions [C, players] that orders [..., players] pass, and their numbers before and after each player."""
    players = orders.shape[-1]
    rank = np.argsort(orders, axis=-1)
    passed = rank[..., None, :] < np.arange(players + 1)[:, None]  # [..., players + 1, players]
    coalitions, number = np.unique(passed.reshape(-1, players), axis=0, return_inverse=True)
    number = number.reshape(passed.shape[:-1])  # of the coalition of the first 0, 1, ... players
    before, after = (np.take_along_axis(number, rank + late, axis=-1) for late in (0, 1))
    return coalitions, before, after


@jax.jit
def _mean_of_orders(values: jax.Array, before: jax.Array, after: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Shares [players, N] from the coalitions' outcomes [C, N], and the standard errors [players] of their means."""
    draws = before.shape[0]

    def one(numbers):  # an order and its reverse
        return jnp.mean(values[numbers[1]] - values[numbers[0]], axis=0)

    shares = jax.lax.map(one, (before, after))  # [draws, players, N]
    means = jnp.nanmean(shares, axis=2)
    return jnp.mean(shares, axis=0), jnp.std(means, axis=0, ddof=1) / math.sqrt(draws)


@struct.dataclass
class Coalitions(Groups):
    """Unions of disjoint groups of units. `selectors`: site -> the group that owns each value [...], G for none."""

    members: Any = None  # [C, G + 1] bool: the groups of each union; the last column is False

    @property
    def size(self) -> int:
        return self.members.shape[0]

    def select(self, site: str, groups: jax.Array, base: jax.Array) -> jax.Array:
        del base
        return self.members[groups][:, self.selectors[site]]

    def total(self, site: str, base: jax.Array, values: jax.Array) -> jax.Array:
        del base
        flat, owner = values.reshape(values.shape[0], -1).T, self.selectors[site].reshape(-1)
        owned = jnp.zeros((self.members.shape[1], flat.shape[1]), flat.dtype).at[owner].add(flat)
        return jnp.matmul(self.members.astype(flat.dtype), owned, precision=jax.lax.Precision.HIGHEST)


def _owners(plan: Plan) -> dict[str, jax.Array]:
    """site -> the group [...] that owns each value, G where none does; ValueError where two could."""
    if len(plan.groups.selectors) > 1:
        raise ValueError(
            f"mediators of {len(plan.groups.selectors)} sites: one may act through another, and the total effect is "
            "dealt out to mediators that lie side by side; give groups of one site"
        )
    ((site, _),) = plan.groups.selectors.items()
    shape = (plan.groups.size, *plan.shapes[site].shape[1:])
    chosen = plan.groups.select(site, jnp.arange(shape[0]), jnp.zeros(shape, plan.shapes[site].dtype))
    chosen = np.broadcast_to(np.asarray(chosen), shape)
    if (chosen.sum(axis=0) > 1).any():
        raise ValueError(f"two mediators hold the same value of site {site!r}: whose share would its effect be?")
    return {site: jnp.asarray(np.where(chosen.any(axis=0), chosen.argmax(axis=0), shape[0]), jnp.int32)}


def _values(plan: Plan, params: PyTree, coalitions: np.ndarray, size: int) -> tuple[jax.Array, jax.Array]:
    """The total effect [N], and outcomes [2 size, N], those of the coalitions [C, G + 1] first. The rest plays last.

    size: how many coalitions there can be with the rest, and as many without it; whoever draws others, as many, does
    not compile again.
    """
    owners, rest = _owners(plan), coalitions[:, -1]

    def unions(members: np.ndarray) -> Coalitions:  # what fills them up changes nothing, and is not run
        return Coalitions(owners, members=jnp.asarray(np.pad(members, ((0, size - len(members)), (0, 1)))))

    # Without the rest: the run of x, in which the coalition is replaced. With it: that of x', in which the others are.
    alone, joined = unions(coalitions[~rest, :-1]), unions(~coalitions[rest, :-1])

    def block(rows, valid):
        x, x_source, keys = rows
        base, source, finite = both_runs(plan.forward, params, rows)
        runs = exchanged(rows, base, source, owners), exchanged((x_source, x, keys), source, base, owners)
        ends = base, source
        outcomes = [
            outcome_of_patched(plan.forward, plan.chunk, params, patched, groups, plan.outcome, ends)
            for patched, groups in zip(runs, (alone, joined), strict=True)
        ]
        return (*outcome_of_ends(plan.outcome, ends), *outcomes), finite

    (total, values), finite = in_blocks(block, plan.rows, plan.chunk, _merged)
    check_finite(finite)
    number = np.where(rest, size + np.cumsum(rest), np.cumsum(~rest)) - 1
    return total, values[jnp.asarray(np.pad(number, (0, 2 * size - len(number))))]


def _merged(blocks: Any, num: int) -> Any:
    (at_base, at_source, alone, joined), finite = blocks
    at_base, at_source, alone, joined = merge_pairs((at_base[:, None], at_source[:, None], alone, joined), num)
    return ((at_source - at_base)[0], jnp.concatenate([alone, joined])), finite
