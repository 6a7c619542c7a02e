"""Comparisons of architectures: which wins, and what differences and correlations a design could find.

Source: this library, except where a function names scipy or statsmodels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower


def holm_sidak(p_values: Sequence[float]) -> np.ndarray:
    """Holm-Šidák adjusted p-values of one family (statsmodels); NaN stays NaN and is no member."""
    raw = np.asarray(p_values, float)
    adjusted = np.full(raw.shape, math.nan)
    defined = np.isfinite(raw)
    if defined.any():
        with np.errstate(divide="ignore"):  # of log(1 - p) at p = 1
            adjusted[defined] = multipletests(raw[defined], method="holm-sidak")[1]
    return adjusted


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
