"""Ties: numbers that differ by rounding alone are equal, and the first of them is taken.

The last bits of a float32 result differ between processors and compilers. Where one number is chosen out of
several (a latent that votes, a class that is predicted, a unit that leads a circuit), they must not decide.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

TIE = 1e-6  # relative, and absolute below 1


def first_largest(x: Array, axis: int = -1) -> Array:
    """The index along `axis` of the first entry that is as large as the largest."""
    best = jnp.max(x, axis=axis, keepdims=True)
    return jnp.argmax(x >= best - TIE * jnp.maximum(jnp.abs(best), 1), axis=axis)


def first_least(x: Array, axis: int = -1) -> Array:
    """The index along `axis` of the first entry that is as small as the smallest."""
    return first_largest(-x, axis)


def exceeds(x: Array, threshold: Array | float) -> Array:
    """Whether x is greater than the threshold by more than rounding: what equals it but for a last bit does not."""
    return x > threshold + TIE * jnp.abs(jnp.asarray(threshold))


def descending(values: np.ndarray, tolerance: float = TIE) -> np.ndarray:
    """Indices that put values [n] in falling order; a run of values with gaps up to `tolerance` ties, and keeps
    the order that it had."""
    order = np.argsort(-values, kind="stable")
    run = np.cumsum(np.diff(values[order], prepend=values[order[:1]]) < -tolerance)
    return order[np.lexsort((order, run))]
