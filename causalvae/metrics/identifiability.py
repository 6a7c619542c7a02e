"""Identifiability: whether latents are the factors, up to order, scale and, where asked, a linear map.

Both scores take continuous factors as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from causalvae.metrics import inputs
from causalvae.metrics.ties import TIE


class MCC(NamedTuple):
    """Mean correlation coefficients, [0, 1]: of the latents, and of the factors that a linear map reads from them."""

    pearson: float
    spearman: float
    pearson_linear: float
    spearman_linear: float
    assignment: np.ndarray  # [K] the latent that Pearson's assigns to each kept factor; -1: none is left for it
    correlations: np.ndarray  # [d, K] |Pearson|
    num_train: int
    num_test: int
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


class R2(NamedTuple):
    """The variance of the factors that a linear regression explains, at most 1."""

    score: float
    per_factor: np.ndarray  # [K], of each kept factor
    num_train: int
    num_test: int
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def mcc(
    representations: ArrayLike,
    factors: ArrayLike,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> MCC:
    """Computes the mean correlation coefficient of latents and factors.

    Every factor is assigned a latent of its own, so that the sum of |correlation| is largest (linear assignment); the
    score is the mean over factors. `_linear` scores the same of the factors that a linear regression predicts, fitted
    on the training rows: latents that are the factors up to an invertible linear map have 1 there.
    Source: Hyvarinen & Morioka 2016 (arXiv:1605.06336), and for the linear map the weak MCC of Khemakhem et
    al. 2020 (arXiv:2002.11537), with regression in place of canonical correlation.
    Range [0, 1], ceiling 1. Known weaknesses: noise is not 0, for the assignment takes the largest of its correlations;
    class ids without an order (shape) are read as numbers; a factor that is told by two latents, such as an angle by
    its sine and cosine, has no latent that correlates with it.

    A dead latent correlates with nothing. Where there are fewer latents than factors, those without one count as 0.

    Args:
      representations: latents [N, d] of any framework.
      factors: [N, K], class ids or real numbers.
      num_train: rows to fit the linear map on; None for half.
      num_test: rows that all four are scored on; None for the other half.
      seed: of the shuffle.
      shuffle: False takes the first rows to fit and the last to score.

    Returns:
      Scores by Pearson's and Spearman's correlation, without and with a linear map, and who is assigned to whom.

    Raises:
      ValueError: for malformed input, and where no factor varies.
    """
    fit, test, dropped = _halves(representations, factors, num_train, num_test, seed if shuffle else None)
    predicted = _predict(fit, test.representations)
    pearson, assignment, correlations = _assign(test.representations, test.factors)
    ranked = _ranks(test.factors)
    return MCC(
        pearson=pearson,
        spearman=_assign(_ranks(test.representations), ranked)[0],
        pearson_linear=_assign(predicted, test.factors)[0],
        spearman_linear=_assign(_ranks(predicted), ranked)[0],
        assignment=assignment,
        correlations=correlations,
        num_train=len(fit.factors),
        num_test=len(test.factors),
        dropped=dropped,
    )


def r2(
    representations: ArrayLike,
    factors: ArrayLike,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> R2:
    """Computes how much of the factors' variance a linear regression from all latents explains.

    It is the mean over factors of 1 - squared error / variance on the test rows, by least squares with an intercept.
    It asks whether factors can be read linearly, and not of disentanglement: any invertible linear map has 1.
    Range up to 1, the ceiling; noise has about 0, or less, since it is scored out of sample. Known weakness: class ids
    without an order (shape) are read as numbers.

    Args:
      representations: latents [N, d] of any framework.
      factors: [N, K], class ids or real numbers.
      num_train: rows to fit on; None for half.
      num_test: rows to score on; None for the other half.
      seed: of the shuffle.
      shuffle: False takes the first rows to fit and the last to score.

    Returns:
      The score and each factor's.

    Raises:
      ValueError: for malformed input, and where no factor varies.
    """
    fit, test, dropped = _halves(representations, factors, num_train, num_test, seed if shuffle else None)
    error = np.square(_predict(fit, test.representations) - test.factors).sum(axis=0)
    per_factor = 1 - error / np.square(test.factors - test.factors.mean(axis=0, keepdims=True)).sum(axis=0)
    return R2(float(per_factor.mean()), per_factor, len(fit.factors), len(test.factors), dropped)


class _Rows(NamedTuple):
    """Some of the rows, float64."""

    representations: np.ndarray  # [N, d]
    factors: np.ndarray  # [N, K]


def _halves(
    representations: ArrayLike, factors: ArrayLike, num_train: int | None, num_test: int | None, seed: int | None
) -> tuple[_Rows, _Rows, tuple[int, ...]]:
    """Rows to fit on, rows to score on, and the factors that are constant among the latter, and dropped."""
    z = inputs.check_representations(representations).astype(np.float64)
    f = inputs.check_representations(factors, "factors").astype(np.float64)
    if len(z) != len(f):
        raise ValueError(f"representations have {len(z)} rows but factors have {len(f)}: each point needs one of both")
    num_train = len(f) // 2 if num_train is None else num_train
    num_test = len(f) - num_train if num_test is None else num_test
    train, test = inputs.split_rows(len(f), num_train, num_test, seed)
    varies = np.ptp(f[test], axis=0) > 0
    if not varies.any():
        raise ValueError(
            f"every one of the {f.shape[1]} factors is constant among the {len(test)} rows that are scored"
        )
    z = np.where(inputs.dead_latents(z), 0.0, z)
    fit, scored = (_Rows(z[rows], f[rows][:, varies]) for rows in (train, test))
    return fit, scored, tuple(np.flatnonzero(~varies).tolist())


def _predict(fit: _Rows, representations: np.ndarray) -> np.ndarray:
    """Factors [N, K] of representations [N, d], by least squares on other rows."""
    center, scale = fit.representations.mean(axis=0, keepdims=True), fit.representations.std(axis=0, keepdims=True)
    scale = np.where(scale > 0, scale, np.inf)  # what is dead among the rows to fit predicts nothing
    mean = fit.factors.mean(axis=0, keepdims=True)
    # Directions that differ by rounding are one: their difference would fit the rounding.
    weights = np.linalg.lstsq((fit.representations - center) / scale, fit.factors - mean, rcond=TIE)[0]
    return mean + (representations - center) / scale @ weights


def _assign(latents: np.ndarray, factors: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The mean correlation of factors with the latents assigned to them, the assignment, and |correlations| [d, K]."""
    from scipy.optimize import linear_sum_assignment

    correlations = np.abs(_unit(latents).T @ _unit(factors))
    chosen, of = linear_sum_assignment(-correlations)
    assignment = np.full(factors.shape[1], -1)
    assignment[of] = chosen
    return float(min(correlations[chosen, of].sum() / factors.shape[1], 1.0)), assignment, correlations


def _unit(columns: np.ndarray) -> np.ndarray:
    """Columns [N, d] centered, of length 1; 0 where a column is constant but for rounding."""
    dead = inputs.dead_latents(columns)
    centered = columns - columns.mean(axis=0, keepdims=True)
    length = np.sqrt(np.square(centered).sum(axis=0, keepdims=True))
    return np.where(dead, 0.0, centered / np.where(dead, 1.0, length))


def _ranks(columns: np.ndarray) -> np.ndarray:
    """Ranks [N, d] within each column; values that differ by less than rounding tie, and take their mean rank."""
    from scipy.stats import rankdata

    runs = np.empty(columns.shape)
    for k, column in enumerate(columns.T):
        order = np.argsort(column, kind="stable")
        gaps = np.diff(column[order], prepend=column[order[:1]])
        runs[order, k] = np.cumsum(gaps > TIE * np.ptp(column))
    return rankdata(runs, axis=0)
