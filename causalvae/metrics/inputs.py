"""Checks on codes and factors, and what every metric does to them first: class ids, splits, precision.

Checks and splits are host code (numpy): they raise, drop and reorder, which compiled code cannot. The kernels
behind them take what they return, by way of `for_kernel`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

STANDARD_TRAIN, STANDARD_TEST = 10_000, 5_000  # Locatello et al. 2019
LARGEST = 1e15  # of a code's values: sums of squares over a hundred million rows stay within float32


class Inputs(NamedTuple):
    """Checked codes and factors. Classes are numbered 0 to sizes[k] - 1; constant factors are gone."""

    codes: np.ndarray  # [N, d] float32 or float64, as given
    factors: np.ndarray  # [N, K] int32
    sizes: tuple[int, ...]  # number of classes of each kept factor
    dropped: tuple[int, ...]  # positions of the constant factors, in the factors as given


def check(codes: ArrayLike, factors: ArrayLike) -> Inputs:
    """Codes [N, d] and factors [N, K] ready for a metric.

    Class ids may have gaps (they are renumbered); factors with one value are dropped and named in `dropped`.
    Raises ValueError for codes that `check_codes` refuses, different N, factors that are not integers or are
    negative, and where no factor varies.
    """
    codes = check_codes(codes)
    factors = _check_factors(np.asarray(factors), codes.shape[0])
    columns = [np.unique(column, return_inverse=True) for column in factors.T]
    kept = [k for k, (values, _) in enumerate(columns) if len(values) > 1]
    if not kept:
        raise ValueError(f"every one of the {factors.shape[1]} factors is constant: nothing can be disentangled")
    return Inputs(
        codes=codes,
        factors=np.stack([columns[k][1].reshape(-1) for k in kept], axis=1).astype(np.int32),
        sizes=tuple(len(columns[k][0]) for k in kept),
        dropped=tuple(k for k in range(len(columns)) if k not in kept),
    )


def check_codes(codes: ArrayLike, name: str = "codes") -> np.ndarray:
    """Codes [N, d] as float32 (given as float32, bfloat16 or float16) or float64.

    Raises ValueError for another shape, fewer than 2 rows, NaN and infinity, and values beyond `LARGEST`.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(f"{name} must be [N, d] (points by latents, d at least 1), not {list(codes.shape)}")
    if codes.shape[0] < 2:
        raise ValueError(f"{name} must have at least 2 rows, not {codes.shape[0]}")
    small_float = jnp.issubdtype(codes.dtype, jnp.floating) and codes.dtype.itemsize <= 4  # bfloat16 is no numpy kind
    if not small_float and codes.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be real numbers, not {codes.dtype}")
    codes = codes.astype(np.float32 if small_float else np.float64, copy=False)
    bad = ~np.isfinite(codes)
    if bad.any():
        latents = np.flatnonzero(bad.any(axis=0)).tolist()
        raise ValueError(
            f"{name} holds {int(bad.sum())} values that are NaN or infinite, in latents {latents}: "
            "drop those rows, or find out why the encoder diverged"
        )
    largest = np.abs(codes).max(axis=0)
    if (largest > LARGEST).any():
        latents = np.flatnonzero(largest > LARGEST).tolist()
        raise ValueError(
            f"{name} holds values as large as {largest.max():.0e}, in latents {latents}: "
            f"beyond {LARGEST:.0e} sums of squares overflow; divide the codes by a constant"
        )
    return codes


def _check_factors(factors: np.ndarray, num_rows: int) -> np.ndarray:
    if factors.ndim != 2 or factors.shape[1] == 0:
        raise ValueError(f"factors must be [N, K] (points by factors), not {list(factors.shape)}")
    if factors.shape[0] != num_rows:
        raise ValueError(
            f"codes have {num_rows} rows but factors have {factors.shape[0]}: each point needs one of both"
        )
    if factors.dtype.kind not in "iub":
        raise ValueError(
            f"factors must be integer class ids, not {factors.dtype}: cast ids that are stored as floats "
            "with .astype(int), and bin continuous factors first"
        )
    if factors.dtype.kind == "i" and factors.min() < 0:
        columns = np.flatnonzero((factors < 0).any(axis=0)).tolist()
        raise ValueError(f"factors {columns} have negative class ids; ids start at 0")
    return factors


class Split(NamedTuple):
    """Rows to fit on and rows to score on; they share none."""

    train: np.ndarray  # row indices
    test: np.ndarray


def split_rows(num_rows: int, num_train: int | None = None, num_test: int | None = None, seed: int | None = 0) -> Split:
    """Disjoint rows for fitting and for testing.

    num_train: None for two thirds, at most 10,000. num_test: None for the rest, at most 5,000.
    seed: rows are shuffled with it first; None keeps their order (first rows train, last rows test).
    Raises ValueError where there are not enough rows.
    """
    if num_train is None:
        num_train = min(STANDARD_TRAIN, max(1, round(2 * num_rows / 3)))
    if num_test is None:
        num_test = min(STANDARD_TEST, max(1, num_rows - num_train))
    if num_train < 1 or num_test < 1 or num_train + num_test > num_rows:
        raise ValueError(
            f"{num_train} training and {num_test} test rows were asked for, at least 1 each, "
            f"and there are {num_rows}: give more codes, or a smaller num_train"
        )
    order = np.arange(num_rows) if seed is None else np.random.default_rng(seed).permutation(num_rows)
    return Split(order[:num_train], order[num_rows - num_test :])


def dead_latents(codes: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """Which latents [d] bool are dead: constant, or varying by less than the rounding of their own values.

    Takes numpy arrays on the host and JAX arrays inside a kernel.
    """
    xp = jnp if isinstance(codes, jax.Array) else np
    return xp.ptp(codes, axis=0) <= 4 * xp.finfo(codes.dtype).eps * xp.abs(codes).max(axis=0)


def centerd(codes: jax.Array, num: int | None = None) -> jax.Array:
    """Codes [N, d] less the mean of the first `num` rows (None: all), inside a kernel: float32 keeps its digits
    under any offset."""
    codes = codes - codes[:1]
    for _ in range(2):  # the second mean takes away what rounding left of the first
        codes = codes - codes[:num].mean(axis=0, keepdims=True)
    return codes


def for_kernel(codes: np.ndarray) -> np.ndarray:
    """Checked codes [N, d] as float32, for a compiled kernel to give what float64 would.

    float32 is passed on. float64 is moved to begin at 0 and divided by the largest range, so that neither an
    offset nor a scale costs digits; what is dead in float64 becomes 0.
    """
    if codes.dtype == np.float32:
        return codes
    dead = dead_latents(codes)
    moved = np.where(dead, 0.0, codes - codes.min(axis=0))
    return (moved / max(moved.max(), np.finfo(np.float64).tiny)).astype(np.float32)
