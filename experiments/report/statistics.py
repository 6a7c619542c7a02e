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
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

METHODS = ("pearson", "spearman")
POOLED = "pooled"  # the stratum that stands for all strata together


# --- cells -----------------------------------------------------------------------------------------------


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


# --- correlation, plain and partial ----------------------------------------------------------------------


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


# --- resampling that respects architectures --------------------------------------------------------------


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
    variances, freedoms = np.asarray(variances, float), np.asarray(freedoms, float)
    total = np.sum(variances)
    if not np.isfinite([value, total]).all():
        return math.nan, math.nan
    if total <= 0:
        return value, value
    known = variances > 0
    freedom = total**2 / np.sum(variances[known] ** 2 / freedoms[known])
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
    low, high = t_interval(z, [variance], [clusters - 1], level)
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


# --- correlations within data sets -----------------------------------------------------------------------


class Correlation(NamedTuple):
    """A correlation over runs within one stratum, or the run-weighted mean of all strata's ("pooled")."""

    stratum: str
    method: str
    runs: int
    clusters: int
    value: float
    low: float  # interval from leaving out clusters, see jackknife_interval
    high: float
    p_value: float  # cluster permutation; NaN for partial correlations, which have only the interval
    effective_runs: float  # how many independent runs these are worth


def within_strata_correlations(
    x: np.ndarray,
    y: np.ndarray,
    clusters: np.ndarray,
    strata: np.ndarray,
    given: Sequence[np.ndarray] = (),
    method: str = "pearson",
    seed: int = 0,
    permutations: int = 4999,
    level: float = 0.95,
) -> list[Correlation]:
    """The correlation of x and y [n] in each stratum, in order of appearance, then the pooled one.

    given: covariates [n] of partial correlations. Rows with an undefined value anywhere are left out; a
    stratum that keeps fewer than three runs gives NaN and does not enter the pooled value.
    """
    keep = np.isfinite(np.stack([x, y, *given])).all(axis=0)
    order = list(dict.fromkeys(strata.tolist()))
    x, y, clusters, strata = x[keep], y[keep], clusters[keep], strata[keep]
    given = [covariate[keep] for covariate in given]
    if not keep.any():
        return [Correlation(s, method, 0, 0, *[math.nan] * 5) for s in (*order, POOLED)]
    rng = np.random.default_rng(seed)
    permuted = None if given else cluster_permutations(rng, clusters, strata, permutations)[0]
    names = np.unique(clusters)
    observed, left_out, null = [], [], []
    for stratum in order:
        rows = np.flatnonzero(strata == stratum)
        observed.append(_one_stratum(x, y, given, method, rows))
        kept = [rows[clusters[rows] != name] for name in names]
        left_out.append(np.array([_one_stratum(x, y, given, method, k) for k in kept]))
        null.append(_permuted(x, y, method, rows, permuted))
    runs = np.array([np.sum(strata == s) for s in order])
    members = [strata == s for s in order]
    effective = [effective_runs(x[m], y[m], clusters[m]) for m in members]
    found = []
    for s, member in enumerate(members):
        here = np.isin(names, clusters[member])
        found.append(
            _summary(order[s], method, clusters[member], observed[s], left_out[s][here], null[s], effective[s], level)
        )
    counted = np.isfinite(observed)
    pooled = [pool(np.asarray(values), np.where(counted, runs, 0)) for values in (observed, left_out, null)]
    # Runs agree within a cell, and an architecture's runs may agree across data sets: the stricter count.
    across = effective_runs(_standardize(x, strata), _standardize(y, strata), clusters)
    worth = min(across, sum(e for e, c in zip(effective, counted) if c)) if counted.any() else math.nan
    pooled_runs = clusters[np.isin(strata, np.asarray(order)[counted])]
    return [*found, _summary(POOLED, method, pooled_runs, float(pooled[0]), *pooled[1:], worth, level)]


def _summary(stratum, method, clusters, observed, left_out, null, effective, level) -> Correlation:
    low, high = jackknife_interval(observed, left_out, level)
    p_value = permutation_p_value(observed, null)
    runs, names = len(clusters), len(np.unique(clusters))
    return Correlation(stratum, method, runs, names, observed, low, high, p_value, effective)


def _one_stratum(x, y, given, method, rows) -> float:
    if len(rows) < 3:
        return math.nan
    return float(correlation(x[rows], y[rows], [g[rows] for g in given], method))


def _permuted(x, y, method, rows, permuted) -> np.ndarray:
    if permuted is None or len(rows) < 3:
        return np.full(1 if permuted is None else len(permuted), math.nan)
    rank = scipy.stats.rankdata if method == "spearman" else np.asarray
    place = np.full(len(x), -1)
    place[rows] = np.arange(len(rows))
    unit_x, unit_y = (unit(rank(v[rows])) for v in (x, y))
    return unit_x[place[permuted[:, rows]]] @ unit_y


def unit(values: np.ndarray) -> np.ndarray:
    """Values [..., n] centered and of length one, so that `unit(x) @ unit(y)` is Pearson's; NaN where constant."""
    centered = values - values.mean(axis=-1, keepdims=True)
    length, size = (np.linalg.norm(v, axis=-1, keepdims=True) for v in (centered, values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(length > 1e-9 * size, centered / length, math.nan)


def _standardize(values: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Values with mean 0 and deviation 1 within each stratum (0 where constant)."""
    result = np.zeros(len(values))
    for stratum in np.unique(strata):
        here = strata == stratum
        result[here] = np.nan_to_num(unit(values[here])) * math.sqrt(here.sum())
    return result


def pool(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean [...] over strata [S, ...] weighted by `shares` [S], of what is defined."""
    weights = np.where(np.isfinite(values), shares.reshape(-1, *[1] * (values.ndim - 1)), 0.0)
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sum(weights * np.nan_to_num(values), axis=0) / np.where(total > 0, total, math.nan)


# --- families and power ----------------------------------------------------------------------------------


def holm_sidak(p_values: Sequence[float]) -> np.ndarray:
    """Holm-Šidák adjusted p-values of one family (statsmodels); NaN stays NaN and is no member."""
    p_values = np.asarray(p_values, float)
    adjusted = np.full(p_values.shape, math.nan)
    defined = np.isfinite(p_values)
    if defined.any():
        with np.errstate(divide="ignore"):  # of log(1 - p) at p = 1
            adjusted[defined] = multipletests(p_values[defined], method="holm-sidak")[1]
    return adjusted


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


def detectable_correlation(runs: float, tests: int = 1, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true |correlation| that `runs` independent runs find with probability `power`.

    Fisher's z, two-sided at the level that the first of `tests` Holm-Šidák steps has (the chance of the wrong
    sign, below 1e-5 at a power of 0.8, not counted). NaN where no correlation could be found (runs <= 3).
    """
    if not runs > 3:
        return math.nan
    z = scipy.stats.norm.isf(sidak_level(alpha, tests) / 2) + scipy.stats.norm.ppf(power)
    return float(np.tanh(z / math.sqrt(runs - 3)))


def detectable_difference(
    seeds: int, architectures: int = 2, tests: int = 1, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest true difference of two architectures' means that `seeds` runs each find, in standard
    deviations over seeds (statsmodels' TTestIndPower, two-sided; the deviation is estimated from all
    `architectures`). NaN below two seeds."""
    if seeds < 2:
        return math.nan
    solver = _PooledTTestPower(architectures * (seeds - 1))
    return float(solver.solve_power(nobs1=seeds, alpha=sidak_level(alpha, tests), power=power))


class _PooledTTestPower(TTestIndPower):
    """Two-sample t-test whose deviation comes from more groups than the two compared."""

    def __init__(self, df: int):
        super().__init__()
        self.pooled_df = df

    def power(self, effect_size, nobs1, alpha, ratio=1, df=None, alternative="two-sided"):
        return super().power(effect_size, nobs1, alpha, ratio, self.pooled_df, alternative)


def sidak_level(alpha: float, tests: int) -> float:
    """The level of each of `tests` tests that keeps the family's at `alpha`."""
    return 1 - (1 - alpha) ** (1 / tests)


# --- winners ---------------------------------------------------------------------------------------------


def single_seed_winners(groups: Sequence[np.ndarray]) -> np.ndarray:
    """[groups]: the chance that each group has the highest value when one value of each is drawn.

    Exact: every combination of seeds is counted, ties are shared. Says how stable a ranking from single runs
    would be.
    """
    groups = [np.asarray(group, float) for group in groups]
    values = np.unique(np.concatenate(groups))
    below = np.stack([np.mean(group[:, None] < values, axis=0) for group in groups])
    equal = np.stack([np.mean(group[:, None] == values, axis=0) for group in groups])
    chances = np.zeros(len(groups))
    for g in range(len(groups)):
        # ties[k]: the chance, for each value, that k other groups have it and the rest are below.
        ties = np.zeros((len(groups), len(values)))
        ties[0] = 1
        for h in range(len(groups)):
            if h != g:
                ties[1:] = ties[1:] * below[h] + ties[:-1] * equal[h]
                ties[0] *= below[h]
        chances[g] = np.sum(equal[g] * ties / np.arange(1, len(groups) + 1)[:, None])
    return chances


def pooled_variance(groups: Sequence[np.ndarray]) -> tuple[float, int]:
    """(variance within groups, its degrees of freedom); NaN where no group has two values."""
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum(np.sum((np.asarray(group) - np.mean(group)) ** 2) for group in groups)
    return (float(squares / freedom), freedom) if freedom else (math.nan, 0)


def pairwise_p_values(groups: Sequence[np.ndarray], spread: Sequence[tuple[float, int]] | None = None) -> np.ndarray:
    """[groups, groups]: entry (a, b) is the one-sided p-value of "a's mean exceeds b's".

    t-test with the deviation over seeds pooled over all groups (three seeds alone estimate none). spread: each
    group's own (variance, freedom), e.g. pooled over data sets; the p-value is then the larger of that of
    the pooled deviation and that of Welch's test with these, because groups may differ in spread, and so may
    data sets. NaN on the diagonal, and everywhere where no group has two values or nothing varies.
    """
    sizes = np.array([len(g) for g in groups])
    means = np.array([np.mean(g) for g in groups])
    variance, freedom = pooled_variance(groups)
    if not variance > 0:
        return np.full((len(groups), len(groups)), math.nan)
    lead = means[:, None] - means[None, :]
    p_values = scipy.stats.t.sf(lead / np.sqrt(variance * (1 / sizes[:, None] + 1 / sizes[None, :])), freedom)
    if spread is not None:
        own = np.array([v for v, _ in spread]) / sizes
        parts = own**2 / np.array([f for _, f in spread])
        total = own[:, None] + own[None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            welch = scipy.stats.t.sf(lead / np.sqrt(total), total**2 / (parts[:, None] + parts[None, :]))
        p_values = np.fmax(p_values, welch)
    np.fill_diagonal(p_values, math.nan)
    return p_values
