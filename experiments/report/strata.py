"""Correlations within data sets, and their mean over data sets, with intervals and tests that respect architectures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from experiments.report.statistics import (
    cluster_permutations,
    correlation,
    effective_runs,
    jackknife_interval,
    permutation_p_value,
    pool,
    unit,
)

POOLED = "pooled"  # the stratum that stands for all strata together


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
        own = observed[s], left_out[s][here], null[s], effective[s]
        found.append(_summary(order[s], method, clusters[member], *own))
    counted = np.isfinite(observed)
    shares = np.where(counted, runs, 0)
    value, without, draws = (pool(np.asarray(values), shares) for values in (observed, left_out, null))
    # Runs agree within a cell, and an architecture's runs may agree across data sets: the stricter count.
    across = effective_runs(_standardize(x, strata), _standardize(y, strata), clusters)
    worth = min(across, sum(e for e, c in zip(effective, counted) if c)) if counted.any() else math.nan
    pooled_runs = clusters[np.isin(strata, np.asarray(order)[counted])]
    return [*found, _summary(POOLED, method, pooled_runs, float(value), without, draws, worth)]


def _summary(stratum, method, clusters, observed, left_out, null, effective) -> Correlation:
    low, high = jackknife_interval(observed, left_out)
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


def _standardize(values: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Values with mean 0 and deviation 1 within each stratum (0 where constant)."""
    result = np.zeros(len(values))
    for stratum in np.unique(strata):
        here = strata == stratum
        result[here] = np.nan_to_num(unit(values[here])) * math.sqrt(here.sum())
    return result
