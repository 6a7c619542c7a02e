"""Checks on representations and factors, and what every metric does to them first: class ids, splits, precision.

Checks and splits are host code (numpy): they raise, drop and reorder, which compiled code cannot. The kernels
behind them take what they return, by way of `for_kernel`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

STANDARD_TRAIN, STANDARD_TEST = 10_000, 5_000  # Locatello et al. 2019
LARGEST = 1e15  # of a code's values: sums of squares over a hundred million rows stay within float32


class Inputs(NamedTuple):
    """Checked representations and factors. Classes are numbered 0 to sizes[k] - 1; constant factors are gone."""

    representations: np.ndarray  # [N, d] float32 or float64, as given
    factors: np.ndarray  # [N, K] int32; float64 where they are continuous
    sizes: tuple[int, ...]  # number of classes of each kept factor; empty where they are continuous
    dropped: tuple[int, ...]  # positions of the constant factors, in the factors as given


def check(representations: ArrayLike, factors: ArrayLike) -> Inputs:
    """Returns representations [N, d] and factors [N, K] ready for a metric.

    Class ids may have gaps (they are renumbered). Factors with one value are dropped and named in `dropped`.

    Raises:
      ValueError: for representations that `check_representations` refuses, different N, factors that are not integers
        or are negative, and where no factor varies.
    """
    representations = check_representations(representations)
    factors = _check_factors(np.asarray(factors), representations.shape[0])
    columns = [np.unique(column, return_inverse=True) for column in factors.T]
    kept = [k for k, (values, _) in enumerate(columns) if len(values) > 1]
    if not kept:
        raise ValueError(f"every one of the {factors.shape[1]} factors is constant: nothing can be disentangled")
    return Inputs(
        representations=representations,
        factors=np.stack([columns[k][1].reshape(-1) for k in kept], axis=1).astype(np.int32),
        sizes=tuple(len(columns[k][0]) for k in kept),
        dropped=tuple(k for k in range(len(columns)) if k not in kept),
    )


def is_continuous(factors: ArrayLike) -> bool:
    """Returns whether factors are real numbers that are not all whole: no class ids, whatever their type."""
    factors = np.asarray(factors)
    return factors.dtype.kind == "f" and bool((factors % 1 != 0).any())


def check_continuous(representations: ArrayLike, factors: ArrayLike) -> Inputs:
    """Returns representations [N, d] and continuous factors [N, K] ready for a metric that takes them; see `check`.

    Raises:
      ValueError: for what `check_representations` refuses of either, different N, and where no factor varies.
    """
    representations = check_representations(representations)
    factors = check_representations(factors, "factors").astype(np.float64)
    if len(factors) != len(representations):
        raise ValueError(
            f"representations have {len(representations)} rows but factors have {len(factors)}: each point needs one "
            "of both"
        )
    varies = np.ptp(factors, axis=0) > 0
    if not varies.any():
        raise ValueError(f"every one of the {factors.shape[1]} factors is constant: nothing can be disentangled")
    return Inputs(representations, factors[:, varies], (), tuple(np.flatnonzero(~varies).tolist()))


def check_representations(representations: ArrayLike, name: str = "representations") -> np.ndarray:
    """Returns representations [N, d] as float32 (given as float32, bfloat16 or float16) or float64.

    Args:
      representations: what to check.
      name: what messages call it.

    Raises:
      ValueError: for another shape, fewer than 2 rows, NaN and infinity, and values beyond `LARGEST`.
    """
    representations = np.asarray(representations)
    if representations.ndim != 2 or representations.shape[1] == 0:
        raise ValueError(f"{name} must be [N, d] (points by latents, d at least 1), not {list(representations.shape)}")
    if representations.shape[0] < 2:
        raise ValueError(f"{name} must have at least 2 rows, not {representations.shape[0]}")
    small_float = (
        jnp.issubdtype(representations.dtype, jnp.floating) and representations.dtype.itemsize <= 4
    )  # bfloat16 is no numpy kind
    if not small_float and representations.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be real numbers, not {representations.dtype}")
    representations = representations.astype(np.float32 if small_float else np.float64, copy=False)
    bad = ~np.isfinite(representations)
    if bad.any():
        latents = np.flatnonzero(bad.any(axis=0)).tolist()
        raise ValueError(
            f"{name} holds {int(bad.sum())} values that are NaN or infinite, in latents {latents}, first in row "
            f"{int(np.flatnonzero(bad.any(axis=1))[0])}: "
            "drop those rows, or find out why the encoder diverged"
        )
    largest = np.abs(representations).max(axis=0)
    if (largest > LARGEST).any():
        latents = np.flatnonzero(largest > LARGEST).tolist()
        raise ValueError(
            f"{name} holds values as large as {largest.max():.0e}, in latents {latents}: "
            f"beyond {LARGEST:.0e} sums of squares overflow; divide the representations by a constant"
        )
    return representations


def _check_factors(factors: np.ndarray, num_rows: int) -> np.ndarray:
    if factors.ndim != 2 or factors.shape[1] == 0:
        raise ValueError(f"factors must be [N, K] (points by factors), not {list(factors.shape)}")
    if factors.shape[0] != num_rows:
        raise ValueError(
            f"representations have {num_rows} rows but factors have {factors.shape[0]}: each point needs one of both"
        )
    if factors.dtype.kind not in "iub":
        raise ValueError(
            f"factors must be integer class ids, not {factors.dtype}: "
            + (
                "cast ids that are stored as floats with .astype(int), and bin continuous factors first, or score them "
                "by mcc, r2, dci with estimator='lasso' (dci_lasso) and sap with continuous=True (sap_continuous) alone"
                if factors.dtype.kind == "f"
                else "number the classes of each factor, as numpy.unique(column, return_inverse=True)[1] does"
            )
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
    """Returns disjoint rows for fitting and for testing.

    Args:
      num_rows: how many there are.
      num_train: None for two thirds, at most 10,000.
      num_test: None for the rest, at most 5,000.
      seed: rows are shuffled with it first; None keeps their order (first rows train, last rows test).

    Raises:
      ValueError: where there are not enough rows.
    """
    if num_train is None:
        num_train = min(STANDARD_TRAIN, max(1, round(2 * num_rows / 3)))
    if num_test is None:
        num_test = min(STANDARD_TEST, max(1, num_rows - num_train))
    if num_train < 1 or num_test < 1 or num_train + num_test > num_rows:
        raise ValueError(
            f"{num_train} training and {num_test} test rows were asked for, at least 1 each, "
            f"and there are {num_rows}: give more representations, or a smaller num_train (metrics that fit nothing "
            "use the training rows, so that all are of the same ones)"
        )
    order = np.arange(num_rows) if seed is None else np.random.default_rng(seed).permutation(num_rows)
    return Split(order[:num_train], order[num_rows - num_test :])


def dead_latents(representations: Any) -> Any:
    """Returns which latents [d] bool are dead: constant, or varying by less than the rounding of their own values.

    It takes numpy arrays on the host and JAX arrays inside a kernel.
    """
    xp = jnp if isinstance(representations, jax.Array) else np
    return xp.ptp(representations, axis=0) <= 4 * xp.finfo(representations.dtype).eps * xp.abs(representations).max(
        axis=0
    )


def centered(representations: jax.Array, num: int | None = None) -> jax.Array:
    """Returns representations [N, d] less the mean of the first `num` rows (None: all), inside a kernel.

    float32 keeps its digits under any offset.
    """
    representations = representations - representations[:1]
    for _ in range(2):  # the second mean takes away what rounding left of the first
        representations = representations - representations[:num].mean(axis=0, keepdims=True)
    return representations


def for_kernel(representations: np.ndarray) -> np.ndarray:
    """Returns checked representations [N, d] as float32, for a compiled kernel to give what float64 would.

    float32 is passed on. float64 is moved to begin at 0 and divided by the largest range, so that neither an offset nor
    a scale costs digits; what is dead in float64 becomes 0.
    """
    if representations.dtype == np.float32:
        return representations
    dead = dead_latents(representations)
    moved = np.where(dead, 0.0, representations - representations.min(axis=0))
    return (moved / max(moved.max(), np.finfo(np.float64).tiny)).astype(np.float32)
