"""Edges between two sites and all factors at once: which serve one factor, which several, and how modular they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from causalvae import metrics
from causalvae.circuits import check_same_dataset
from causalvae.interventions._runs import Outcome
from causalvae.interventions.edges import EdgeAgreement, edge_effects, edge_options
from causalvae.interventions.factors import Pairs
from causalvae.interventions.mediation import indirect_effects
from causalvae.interventions.outcomes import projected_change
from causalvae.metrics import ties

PyTree = Any
SHARE = 0.9  # of the sum of a factor's |effects|: what the edges that serve it hold together


class EdgeModularity(NamedTuple):
    """Circuit modularity over factors, 1 - mean |Pearson| of what two factors do to edges (or units), and its nulls."""

    value: float
    permuted: np.ndarray  # [permutations] with the pairs dealt out to factors at random
    untrained: float | None  # of the network before training, over factors that change its image; NaN below two


class EdgeOutcomes(NamedTuple):
    """What the edges between two sites do for K factors."""

    factors: tuple[str, ...]
    effects: np.ndarray  # [K, U, W] mean |effect| over the pairs of each factor
    serves: np.ndarray  # [K, U, W] bool: the fewest strongest edges that hold 0.9 of the factor's sum of effects
    permuted_shared: np.ndarray  # [permutations] share of serving edges that serve several, pairs dealt out at random
    edges: EdgeModularity
    units: EdgeModularity  # of the senders as units, from their natural indirect effects on the same pairs
    agreement: dict[str, EdgeAgreement | None]  # of the estimates, by factor; None: they are exact

    @property
    def shared(self) -> np.ndarray:
        """[n, 2]: (sender, receiver) of the edges that serve two factors or more."""
        return np.argwhere(self.serves.sum(axis=0) > 1)

    @property
    def dedicated(self) -> dict[str, np.ndarray]:
        """Factor -> [n, 2]: (sender, receiver) of the edges that serve it alone."""
        alone = self.serves.sum(axis=0) == 1
        return {factor: np.argwhere(alone & serves) for factor, serves in zip(self.factors, self.serves, strict=True)}


def edge_outcomes(
    model: Any,
    params: PyTree,
    pairs: Mapping[str, Pairs],
    sender: str,
    receiver: str,
    *,
    outcome: Outcome = projected_change,
    untrained: PyTree | None = None,
    **options: Any,
) -> EdgeOutcomes:
    """Returns what every edge between two sites does for each factor, who is shared, and the modularity of the whole.

    Source: this library. The default outcome gives every factor's whole effect the size 1. Modularity is that of
    `metrics.circuit_modularity` with an edge (a unit) in the place of a unit and factors for causes: read it beside
    its nulls, which score high, too.

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: factor -> pairs of one data set that differ in it.
      sender: a site.
      receiver: a later site.
      outcome: as in `interventions.mediate`.
      untrained: parameters of the same network before training, for the second null.
      **options: of `interventions.EdgeOptions`; and `method` ("attribution"), `permutations` (200), how often pairs
        are dealt out, from `seed` (0).

    Raises:
      ValueError: for fewer than two factors, pairs of different data sets, and as `edge_effects` does.
    """
    check_same_dataset(pairs)
    if len(pairs) < 2:
        raise ValueError("edges are compared between factors: give pairs of two at least")
    method, permutations, seed = (options.pop(name, default) for name, default in DEFAULTS.items())
    asked = {"method": method, "outcome": outcome, **options}
    found = {f: edge_effects(model, params, p, sender, receiver, **asked) for f, p in pairs.items()}
    unit_options = {"outcome": outcome, "chunk": edge_options(options).chunk}
    alone = {f: indirect_effects(model, params, p, sender, **unit_options)[1] for f, p in pairs.items()}
    shape = next(iter(found.values())).effects.shape[:2]
    before: list[Any] = [None, None]
    if untrained is not None:
        early = [edge_effects(model, untrained, p, sender, receiver, **asked).effects for p in pairs.values()]
        early_alone = [indirect_effects(model, untrained, p, sender, **unit_options)[1] for p in pairs.values()]
        before = [_pooled(early, drop=True), _pooled(early_alone, drop=True)]
    edges, units = _pooled([f.effects for f in found.values()]), _pooled(alone.values())
    means = edges.means()
    dealt, units_dealt = (part.dealt(np.random.default_rng(seed), permutations) for part in (edges, units))
    return EdgeOutcomes(
        tuple(pairs),
        means.reshape(-1, *shape),
        _serving(means).reshape(-1, *shape),
        np.array([_shared(_serving(m)) for m in dealt]),
        _modularity(edges, before[0], dealt),
        _modularity(units, before[1], units_dealt),
        {factor: effects.agreement for factor, effects in found.items()},
    )


DEFAULTS = {"method": "attribution", "permutations": 200, "seed": 0}


class Pooled(NamedTuple):
    """|Effects| on E edges or units of the pairs of all factors, side by side; pairs without an outcome left out."""

    effects: np.ndarray  # [E, pairs]
    owner: np.ndarray  # [pairs] the factor's number

    def means(self, owner: np.ndarray | None = None) -> np.ndarray:
        """[K, E]: means over each factor's pairs."""
        owner = self.owner if owner is None else owner
        numbers = np.arange(self.owner.max() + 1)
        weights = (owner[None] == numbers[:, None]) / np.bincount(owner)[:, None]
        return weights @ self.effects.T

    def dealt(self, generator: np.random.Generator, num: int) -> list[np.ndarray]:
        """The means with the pairs dealt out to factors at random, `num` times."""
        return [self.means(generator.permutation(self.owner)) for _ in range(num)]


def _pooled(effects, drop: bool = False) -> Pooled:
    """Of effects [..., N] of every factor. One that has no pair with an outcome is an error, or dropped."""
    flat = [np.abs(np.asarray(e, np.float64)).reshape(-1, np.shape(e)[-1]) for e in effects]
    owner = np.repeat(np.arange(len(flat)), [f.shape[1] for f in flat])
    pooled = np.concatenate(flat, axis=1)
    defined = np.isfinite(pooled).all(axis=0)
    left, number = np.unique(owner[defined], return_inverse=True)
    if len(left) < len(flat) and not drop:
        missing = sorted(set(owner) - set(left))[0]
        raise ValueError(f"no pair of factor number {missing} has a defined outcome: look at the pairs, or give more")
    return Pooled(pooled[:, defined], number)


def _serving(means: np.ndarray) -> np.ndarray:
    """[K, E] bool: of each factor, the fewest strongest edges that hold SHARE of its sum."""
    serves = np.zeros(means.shape, bool)
    for row, chosen in zip(means, serves, strict=True):
        if row.sum() > 0:
            order = ties.descending(row / row.max())
            held = np.cumsum(row[order]) / row.sum()
            chosen[order[: int(np.argmax(held >= SHARE - ties.TIE)) + 1]] = True
    return serves


def _shared(serves: np.ndarray) -> float:
    """The share of the edges that serve any factor that serve several."""
    count = serves.sum(axis=0)
    return float((count > 1).sum() / max((count > 0).sum(), 1))


def _modularity(effects: Pooled, untrained: Pooled | None, dealt: list[np.ndarray]) -> EdgeModularity:
    def of(means):
        return float(metrics.circuit_modularity(jnp.asarray(means)))

    null = np.array([of(means) for means in dealt])
    if untrained is None:
        return EdgeModularity(of(effects.means()), null, None)
    several = len(set(untrained.owner)) > 1
    return EdgeModularity(of(effects.means()), null, of(untrained.means()) if several else np.nan)
