"""Interaction beside an indirect effect: where "the effect through" a mediator is a quantity, and where it is not.

An indirect effect holds everything else at its value in the run of x, a direct effect at that of x'. They add up to
the total effect where the rest of the network answers to the mediator in the same way in both runs. What they miss is
the interaction; it vanishes where the network after the mediator is affine, and tends to grow with the distance
between the two runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.interventions._bootstrap import Estimate, interval, means_of

INTERACTION_LIMIT = 0.1
"""Share of the total effect: with more interaction than this, "the effect through" is not well defined."""
BINS = 4
ON_THE_EDGE = 1e-6  # of the range of distances: what lies so near to an edge lies on it


class InteractionShare(NamedTuple):
    """|INT| / |TE| of every mediator, ratios of sums over pairs: of all, and of bins by the distance of x and x'."""

    share: Estimate  # [G] of all pairs, with its bootstrap interval
    well_defined: jax.Array  # [G] bool: share <= limit
    binned: jax.Array  # [G, B] of the pairs of each bin, near ones first; NaN: no pair
    distance: jax.Array  # [B] their mean distance
    pairs: jax.Array  # [B] how many they are
    limit: jax.Array  # [] the largest share at which "the effect through" counts as well defined

    def in_words(self, names: Sequence[str] | None = None) -> list[str]:
        """Returns a sentence for every mediator whose share exceeds the limit, over all pairs or in a bin.

        Args:
          names: of the mediators; None numbers them.
        """
        share, binned = np.asarray(self.share.mean), np.asarray(self.binned)
        names = [f"mediator {i}" for i in range(len(share))] if names is None else names
        return [text for row in zip(names, share, binned, strict=True) if (text := self._sentence(*row))]

    def _sentence(self, name: str, share: float, binned: np.ndarray) -> str:
        limit, distance = float(self.limit), np.asarray(self.distance)
        beyond = binned > limit
        if share > limit:
            within = np.flatnonzero(~beyond & np.isfinite(binned))
            near = f"; it is at distances around {_list(distance[within])}" if len(within) else ""
            return (
                f"the effect through {name} is not well defined: its interaction with the rest is {share:.0%} of the "
                f"total effect, and the limit is {limit:.0%}{near}"
            )
        if beyond.any():
            return (
                f"the effect through {name} is not well defined at distances around {_list(distance[beyond])}: its "
                f"interaction with the rest is up to {np.nanmax(binned):.0%} of the total effect there, and the limit "
                f"is {limit:.0%}"
            )
        return ""


def _list(distances: np.ndarray) -> str:
    return ", ".join(f"{distance:.3g}" for distance in distances)


def interaction_share(
    interaction: jax.Array, total: jax.Array, distance: jax.Array | None, weights: jax.Array, options: tuple
) -> InteractionShare:
    """The shares of interactions [G, N], from bootstrap weights [num + 1, N]; options: bins, level, limit.

    Pairs that do not count have zero effects and zero weight in the first row.
    """
    bins, level, limit = options
    sizes, whole = jnp.abs(interaction), jnp.abs(total)
    share = interval(means_of(weights, sizes) / means_of(weights, whole)[:, None], level)
    if distance is None:
        distance, bins = jnp.zeros(total.shape), 0
    member = _bins(distance, weights[0] > 0, bins)  # [B, N]
    pairs = jnp.sum(member, axis=1)
    binned = means_of(member, sizes).T / means_of(member, whole)[None]
    return InteractionShare(
        share, share.mean <= limit, binned, means_of(member, distance) / pairs, pairs.astype(jnp.int32), limit
    )


def _bins(distance: jax.Array, valid: jax.Array, bins: int) -> jax.Array:
    """Which valid pairs [N] lie in each of the bins, which hold equally many where distances differ: [B, N]."""
    known = jnp.where(valid, distance, jnp.nan)
    edges = jnp.nanquantile(known, jnp.linspace(0, 1, bins + 1)[1:-1]) if bins > 1 else jnp.zeros((0,))
    # What rounding puts on either side of an edge lies on it, and belongs to the upper bin.
    slack = ON_THE_EDGE * (jnp.nanmax(known) - jnp.nanmin(known) + jnp.nanmax(jnp.abs(known)))
    place = jnp.sum(distance[None] >= edges[:, None] - slack, axis=0)
    return ((place[None] == jnp.arange(bins)[:, None]) & valid[None]).astype(jnp.float32)
