"""Statistics of a study: runs are seeds within architectures, and the architectures cross the data sets.

Two runs of one architecture resemble each other, so runs are not independent draws. Everything here respects
that: intervals of correlations come from leaving out whole architectures, the permutation test exchanges whole
architectures (and seeds within them), and the smallest detectable effect counts how far seeds agree. Where
the seeds of an architecture agree no more than strangers, all three give about what the usual formulas for
independent runs give. Intervals are Student's t with the freedom that so few draws have: percentiles of a
bootstrap over 3 seeds cover 73 % instead of 95 %, over 10 seeds 89 %, and of one that draws 6 architectures
as little as 83 %.

Arrays in, numbers out; nothing of the library is imported. In every signature `clusters` [n] names each run's
architecture and `strata` [n] its data set. Undefined values are NaN and their rows are left out.
Source: this library, except where a function names scipy or statsmodels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

METHODS = ("pearson", "spearman")


class Cell(NamedTuple):
    """One score of one architecture on one data set."""

    cluster: str
    stratum: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]  # one for each seed, NaN where undefined
    mean: float  # over the defined values; NaN where there are none
    deviation: float  # standard deviation with ddof 1; NaN below two values


def cells(values: np.ndarray, clusters: np.ndarray, strata: np.ndarray, seeds: np.ndarray) -> list[Cell]:
    """One Cell for each (stratum, cluster) in order of first appearance, runs ordered by seed."""
    found = []
    for stratum, cluster in dict.fromkeys(zip(strata.tolist(), clusters.tolist(), strict=True)):
        rows = np.flatnonzero((clusters == cluster) & (strata == stratum))
        rows = rows[np.argsort(seeds[rows], kind="stable")]
        defined = values[rows][np.isfinite(values[rows])]
        mean = float(np.mean(defined)) if defined.size else math.nan
        deviation = float(np.std(defined, ddof=1)) if defined.size > 1 else math.nan
        found.append(Cell(cluster, stratum, tuple(seeds[rows].tolist()), tuple(values[rows].tolist()), mean, deviation))
    return found


def correlation(x: np.ndarray, y: np.ndarray, given: Sequence[np.ndarray] = (), method: str = "pearson") -> np.ndarray:
    """Correlation [...] of x and y [..., n], partial where `given` lists covariates [..., n].

    method: "pearson", or "spearman": the same of the mid-ranks (covariates too). NaN where x or y does not vary,
    or where the covariates explain it entirely. A covariate that does not vary explains nothing.
    """
    if method not in METHODS:
        raise ValueError(f"no correlation {method!r}; there are: {', '.join(METHODS)}")
    variables = np.stack(np.broadcast_arrays(*(np.asarray(v, float) for v in (x, y, *given))), axis=-2)
    if method == "spearman":
        variables = scipy.stats.rankdata(variables, axis=-1)
    rows = unit(variables)
    return _partial(rows @ np.swapaxes(rows, -1, -2))


def _partial(matrix: np.ndarray) -> np.ndarray:
    """Partial correlation [...] of the first two variables given the others, from [..., v, v]."""
    if matrix.shape[-1] == 2:
        return np.clip(matrix[..., 0, 1], -1, 1)
    undefined = np.isnan(matrix[..., :2, :2]).any(axis=(-1, -2))
    matrix = np.nan_to_num(matrix)
    cross, inner = matrix[..., :2, 2:], matrix[..., 2:, 2:]
    residual = matrix[..., :2, :2] - cross @ np.linalg.pinv(inner, rcond=1e-9, hermitian=True) @ np.swapaxes(
        cross, -1, -2
    )
    variance = np.stack([residual[..., 0, 0], residual[..., 1, 1]])
    undefined |= (variance < 1e-9).any(axis=0)
    scale = np.sqrt(np.prod(np.where(undefined, np.nan, variance), axis=0))
    return np.clip(residual[..., 0, 1] / scale, -1, 1)


def unit(values: np.ndarray) -> np.ndarray:
    """Values [..., n] centered and of length one, so that `unit(x) @ unit(y)` is Pearson's; NaN where constant."""
    centered = values - values.mean(axis=-1, keepdims=True)
    length, size = (np.linalg.norm(v, axis=-1, keepdims=True) for v in (centered, values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(length > 1e-9 * size, centered / length, math.nan)


def cluster_permutations(
    rng: np.random.Generator, clusters: np.ndarray, strata: np.ndarray, num: int
) -> tuple[np.ndarray, int]:
    """([num, n] row indices, how many different arrangements there are).

    Each permutation exchanges whole clusters, the same way in every stratum, and shuffles the runs within. It
    stays within strata. Clusters are exchanged only with clusters that have as many runs in every stratum
    (where runs have failed, that leaves fewer arrangements, never a biased test).
    """
    names, levels = np.unique(clusters), np.unique(strata)
    rows = {(c, s): np.flatnonzero((clusters == c) & (strata == s)) for c in names for s in levels}
    alike: dict[tuple[int, ...], list] = {}
    for name in names:
        alike.setdefault(tuple(rows[name, level].size for level in levels), []).append(name)
    permuted = np.tile(np.arange(len(clusters)), (num, 1))
    arrangements = 1
    for sizes, members in alike.items():
        arrangements *= math.factorial(len(members))
        order = np.argsort(rng.random((num, len(members))), axis=1)
        for level, size in zip(levels, sizes, strict=True):
            if size == 0:
                continue
            arrangements *= math.factorial(size) ** len(members)
            table = np.stack([rows[name, level] for name in members])  # [members, size]
            shuffled = np.take_along_axis(table[order], np.argsort(rng.random((num, *table.shape)), axis=2), axis=2)
            permuted[:, table.ravel()] = shuffled.reshape(num, -1)
    return permuted, arrangements


def t_interval(
    value: float, variances: Sequence[float], freedoms: Sequence[float], level: float = 0.95
) -> tuple[float, float]:
    """Interval of an estimate whose error is the sum of independent ones, each with an estimated variance.

    Student's t with Satterthwaite's degrees of freedom (1946), (sum v)^2 / sum(v^2 / f): exact for one variance, and
    of the forms for several the one that errs to the wide side. NaN where a variance is undefined.
    """
    parts = np.asarray(variances, float)
    total = np.sum(parts)
    if not np.isfinite([value, total]).all():
        return math.nan, math.nan
    if total <= 0:
        return value, value
    known = parts > 0
    freedom = total**2 / np.sum(parts[known] ** 2 / np.asarray(freedoms, float)[known])
    half = scipy.stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(total)
    return float(value - half), float(value + half)


def jackknife_interval(value: float, left_out: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of a correlation from its values `left_out` [clusters] without each of the clusters.

    The jackknife's standard error of Fisher's z, and Student's t with one degree of freedom fewer than there
    are clusters (Efron & Stein 1981; Bell & McCaffrey 2002 on few clusters). NaN where any is undefined or
    there are fewer than three.
    """
    clusters = len(left_out)
    if clusters < 3 or not np.isfinite([value, *left_out]).all():
        return math.nan, math.nan
    z, z_left_out = (np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9)) for r in (value, left_out))
    variance = (clusters - 1) / clusters * np.sum((z_left_out - np.mean(z_left_out)) ** 2)
    low, high = t_interval(float(z), [float(variance)], [clusters - 1], level)
    return math.tanh(low), math.tanh(high)


def permutation_p_value(observed: float, draws: np.ndarray) -> float:
    """Two-sided p-value of `observed` among `draws` [num] under the null, counting the observed arrangement.

    Never below 1 / (num + 1). NaN where the observed value or every draw is undefined.
    """
    draws = draws[np.isfinite(draws)]
    if not (math.isfinite(observed) and draws.size):
        return math.nan
    extreme = np.sum(np.abs(draws) >= abs(observed) - 1e-12)
    return float((1 + extreme) / (1 + draws.size))


def pool(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean [...] over strata [S, ...] weighted by `shares` [S], of what is defined."""
    weights = np.where(np.isfinite(values), shares.reshape(-1, *[1] * (values.ndim - 1)), 0.0)
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sum(weights * np.nan_to_num(values), axis=0) / np.where(total > 0, total, math.nan)


def intraclass_correlation(values: np.ndarray, clusters: np.ndarray) -> float:
    """How far runs of one cluster agree, in [0, 1]: ICC(1) from one-way analysis of variance.

    1 where no cluster has two runs (they cannot be told from one another). 0 where nothing varies.
    """
    names, sizes = np.unique(clusters, return_counts=True)
    total, groups = sizes.sum(), len(names)
    if total == groups or groups < 2:
        return 1.0
    means = np.array([values[clusters == name].mean() for name in names])
    between = np.sum(sizes * (means - values.mean()) ** 2) / (groups - 1)
    within = sum(np.sum((values[clusters == n] - m) ** 2) for n, m in zip(names, means)) / (total - groups)
    size = (total - np.sum(sizes**2) / total) / (groups - 1)
    denominator = between + (size - 1) * within
    return float(np.clip((between - within) / denominator, 0, 1)) if denominator > 0 else 0.0


def effective_runs(x: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> float:
    """How many independent runs n clustered ones are worth for the correlation of x and y.

    n / (1 + (m - 1) ICC_x ICC_y), m runs for each cluster: the variance of a correlation of unrelated
    clustered variables is 1/n times that denominator. Between the number of clusters and n.
    """
    if len(x) == 0:
        return math.nan
    _, sizes = np.unique(clusters, return_counts=True)
    size = np.sum(sizes**2) / len(x)  # of the cluster that a run finds itself in, on average
    agreement = intraclass_correlation(x, clusters) * intraclass_correlation(y, clusters)
    return float(len(x) / (1 + (size - 1) * agreement))
