"""What the BetaVAE and FactorVAE scores share: draws of rows that agree in one factor.

Both scores were defined on a simulator that draws images with one factor fixed. Here they are computed on plain
arrays: rows that share the factor's value are drawn (with replacement) from the rows given, so that neither a
full grid nor a simulator is needed. With many rows per value the two are the same.

The draws come from a JAX key, so that the kernels trace.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

CHUNK = 500  # batches whose representations are gathered at once: bounds memory


def as_float32(representations: np.ndarray) -> np.ndarray:
    """Checked representations as float32, on their own scale, which both scores depend on."""
    if representations.dtype == np.float32:
        return representations
    return (representations - representations.mean(axis=0)).astype(np.float32)


class Groups(NamedTuple):
    """Rows by the value of each factor, to draw rows that share one."""

    varies: Array  # [K] bool, factors that are not constant
    order: Array  # [N, K] rows in the order of each factor's values
    start: Array  # [N, K] the place in `order` of the first row with the same value as this one
    alike: Array  # [N, K] how many rows have this one's value

    @property
    def usable(self) -> Array:
        """[N, K] bool: another row has the same value."""
        return self.alike > 1


def group(factors: Array, sizes: tuple[int, ...]) -> Groups:
    """Returns where the rows of each value of each factor lie, of class ids [N, K]; sizes: classes of each factor."""
    counts = jax.vmap(functools.partial(jnp.bincount, length=max(sizes)), in_axes=1)(factors)  # [K, classes]
    starts = jnp.cumsum(counts, axis=1) - counts
    start, count = (jnp.take_along_axis(x.T, factors, axis=0) for x in (starts, counts))
    return Groups(jnp.ptp(factors, axis=0) > 0, jnp.argsort(factors, axis=0, stable=True), start, count)


def draw_below(key: Array, shape: tuple[int, ...], limit: Array | int) -> Array:
    """Whole numbers from 0 to limit - 1, uniform for limits that are small beside 2^23."""
    drawn = jax.random.uniform(key, shape) * limit
    return jnp.minimum(drawn.astype(int), limit - 1)


def draw_factors(key: Array, groups: Groups, num: int) -> Array:
    """Factors [num] that are not constant, each as likely."""
    kept = jnp.argsort(~groups.varies, stable=True)
    return kept[draw_below(key, (num,), groups.varies.sum())]


def draw_alike(key: Array, groups: Groups, rows: Array, factor: Array) -> Array:
    """For each of `rows` a row with the same value of the factor, itself among them; shapes broadcast."""
    place = groups.start[rows, factor] + draw_below(key, rows.shape, groups.alike[rows, factor])
    return groups.order[place, factor]
