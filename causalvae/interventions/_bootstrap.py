"""Means over pairs and their bootstrap intervals."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Estimate(NamedTuple):
    """A mean over pairs with its bootstrap interval; all of one shape."""

    mean: jax.Array
    low: jax.Array
    high: jax.Array


def bootstrap_weights(key: jax.Array, valid: jax.Array, num: int) -> jax.Array:
    """What each pair weighs in the mean of the valid ones [N], and in `num` bootstrap means: [num + 1, N]."""
    counts = _counts(key, valid, num)
    return counts / jnp.sum(counts, axis=1, keepdims=True)


def means_of(weights: jax.Array, effects: jax.Array) -> jax.Array:
    """Weighted means [num + 1, ...] of effects [..., N], none of which is NaN."""
    return jnp.matmul(weights, effects.T, precision=jax.lax.Precision.HIGHEST)


def interval(means: jax.Array, level: float) -> Estimate:
    """The first row's value, with the percentile interval of the other rows."""
    tail = (1 - level) / 2
    low, high = jnp.quantile(means[1:], jnp.stack([tail, 1 - tail]), axis=0)
    return Estimate(means[0], low, high)


def check_bootstrap(num: int, level: float) -> None:
    """ValueError unless there are draws enough for an interval, of a level that exists."""
    if num < 2 or not 0 < level < 1:
        raise ValueError(f"num must be at least 2 and level between 0 and 1, not {num} and {level}")


def _counts(key: jax.Array, valid: jax.Array, num: int) -> jax.Array:
    """How often each valid pair [N] is drawn, in the sample itself and in `num` bootstrap draws: [num + 1, N]."""
    size, count = valid.shape[0], jnp.sum(valid)
    order = jnp.argsort(~valid, stable=True)  # the valid pairs first
    drawn = jax.random.uniform(key, (num, size)) * count
    drawn = order[jnp.minimum(drawn.astype(jnp.int32), jnp.maximum(count - 1, 0))]
    # Draws beyond the number of valid pairs do not count: a resample is as large as the sample.
    counted = (jnp.arange(size) < count).astype(jnp.float32)
    rows = jnp.broadcast_to(jnp.arange(num)[:, None], drawn.shape)
    counts = jnp.zeros((num, size)).at[rows, drawn].add(jnp.broadcast_to(counted, drawn.shape))
    return jnp.concatenate([valid[None].astype(jnp.float32), counts])
