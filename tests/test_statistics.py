"""Statistics of clustered runs, against scipy, statsmodels, enumeration and simulation with known truth."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.power import NormalIndPower, TTestIndPower

from experiments.report import comparisons, statistics
from experiments.report.strata import within_strata_correlations

ARCHITECTURES, DATASETS, SEEDS = 6, 5, 3


def design(architectures=ARCHITECTURES, datasets=DATASETS, seeds=SEEDS):
    """(clusters, strata) of a full study, data set by data set."""
    rows = list(itertools.product(range(datasets), range(architectures), range(seeds)))
    return np.array([f"a{a}" for _, a, _ in rows]), np.array([f"d{d}" for d, _, _ in rows])


def clustered(rng, correlation=0.0, spread=0.0, common=True):
    """x, y [n]: seeds correlated by `correlation`; architecture effects of size `spread`, unrelated in x and
    y, the same on all data sets or not."""
    shape = (DATASETS, ARCHITECTURES, SEEDS)
    effects = rng.normal(size=(2, 1 if common else DATASETS, ARCHITECTURES, 1)) * spread
    x = rng.normal(size=shape)
    y = correlation * x + math.sqrt(1 - correlation**2) * rng.normal(size=shape)
    return (x + effects[0]).ravel(), (y + effects[1]).ravel()


# --- cells -----------------------------------------------------------------------------------------------


def test_cells_summarize_the_defined_seeds_and_keep_all():
    values = np.array([3.0, 1.0, np.nan, 5.0])
    found = statistics.cells(values, np.array(["b", "a", "a", "a"]), np.array(["d"] * 4), np.array([0, 2, 1, 0]))
    assert [(c.cluster, c.seeds) for c in found] == [("b", (0,)), ("a", (0, 1, 2))]
    assert found[0].mean == 3 and math.isnan(found[0].deviation)
    assert found[1].mean == 3 and found[1].deviation == pytest.approx(np.std([1, 5], ddof=1))
    np.testing.assert_array_equal(found[1].values, [5, np.nan, 1])


# --- correlation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", statistics.METHODS)
def test_correlation_is_scipys(method):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 20).astype(float), rng.normal(size=20)  # x has ties
    reference = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}[method](x, y).statistic
    assert statistics.correlation(x, y, method=method) == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize("method", statistics.METHODS)
def test_leading_axes_are_a_loop(method):
    rng = np.random.default_rng(1)
    x, y, z = rng.integers(0, 4, (7, 12)).astype(float), rng.normal(size=12), rng.normal(size=12)
    for given in ([], [z]):
        found = statistics.correlation(x, y, given, method)
        expected = [statistics.correlation(row, y, given, method) for row in x]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_partial_correlation_is_that_of_regression_residuals():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(25, 2))
    x, y = z @ [1.0, -2.0] + rng.normal(size=25), z @ [0.5, 1.0] + rng.normal(size=25)
    residuals = [sm.OLS(v, sm.add_constant(z)).fit().resid for v in (x, y)]
    expected = scipy.stats.pearsonr(*residuals).statistic
    assert statistics.correlation(x, y, list(z.T)) == pytest.approx(expected, abs=1e-10)


def test_correlation_of_what_does_not_vary_is_undefined():
    x, constant = np.arange(6.0), np.full(6, 0.1)
    assert np.isnan(statistics.correlation(x, constant))
    assert np.isnan(statistics.correlation(x, x**2, [2 * x + 1]))  # the covariate explains x entirely
    expected = statistics.correlation(x, x**2)
    assert statistics.correlation(x, x**2, [constant]) == pytest.approx(float(expected))


def test_unknown_method_names_those_that_exist():
    with pytest.raises(ValueError, match="no correlation 'kendall'; there are: pearson, spearman"):
        statistics.correlation(np.arange(3.0), np.arange(3.0), method="kendall")


# --- resampling ------------------------------------------------------------------------------------------


def test_jackknife_interval_is_that_of_a_plain_loop():
    rng = np.random.default_rng(3)
    clusters, strata = design(datasets=1)
    x, y = (v[:18] for v in clustered(rng, -0.5, spread=1.0))
    kept = [clusters != f"a{a}" for a in range(ARCHITECTURES)]
    z = np.arctanh([np.corrcoef(x[k], y[k])[0, 1] for k in kept])
    error = np.sqrt(5 / 6 * np.sum((z - z.mean()) ** 2))
    expected = np.tanh(np.arctanh(np.corrcoef(x, y)[0, 1]) + np.array([-1, 1]) * scipy.stats.t.ppf(0.975, 5) * error)
    for found in within_strata_correlations(x, y, clusters, strata, permutations=9):
        np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-10)
    assert np.isnan(statistics.jackknife_interval(0.5, np.array([0.4, 0.6]))).all(), "two clusters say nothing"
    assert np.isnan(statistics.jackknife_interval(0.5, np.array([0.4, 0.6, np.nan]))).all()


def test_t_interval_of_one_mean_is_students_and_of_two_is_welchs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=3), 3 * rng.normal(size=4)
    parts = [np.var(v, ddof=1) / len(v) for v in (x, y)]
    found = statistics.t_interval(x.mean(), parts[:1], [2])
    expected = scipy.stats.t.interval(0.95, 2, x.mean(), scipy.stats.sem(x))
    np.testing.assert_allclose(found, expected)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3)
    half = scipy.stats.t.ppf(0.95, freedom) * np.sqrt(sum(parts))
    np.testing.assert_allclose(statistics.t_interval(1.0, parts, [2, 3], 0.9), [1 - half, 1 + half])
    assert statistics.t_interval(1.0, [0.0, 0.0], [2, 2]) == (1, 1)
    assert np.isnan(statistics.t_interval(1.0, [0.1, np.nan], [2, 2])).all()


def test_intervals_of_few_seeds_cover_where_percentiles_of_a_bootstrap_do_not():
    """3 seeds: Student's t covers 95 %, resampling the three 73 %. The sum of ten cells' means, two seeds each."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(size=(2000, 3))
    drawn = np.percentile(seeds[:, rng.integers(0, 3, (400, 3))].mean(axis=2), [2.5, 97.5], axis=1)
    assert np.mean((drawn[0] < 0) & (0 < drawn[1])) < 0.8
    cells = rng.normal(size=(2000, 10, 2)) * np.linspace(0.2, 2, 10)[:, None]
    for values in (seeds[:, None], cells):
        freedom = [values.shape[2] - 1] * values.shape[1]
        intervals = [
            statistics.t_interval(v.mean(axis=1).sum(), np.var(v, axis=1, ddof=1) / v.shape[1], freedom) for v in values
        ]
        low, high = np.array(intervals).T
        # 2,000 draws know a coverage of 95 % to within 1 %.
        assert 0.94 < np.mean((low < 0) & (0 < high)) < 0.985
        assert max(np.mean(low > 0), np.mean(high < 0)) < 0.035


def test_permutations_reach_every_arrangement_of_the_design_and_no_other():
    clusters = np.array(["a", "a", "b", "b", "c", "a", "b", "c"])
    strata = np.array(["d"] * 5 + ["e"] * 3)
    rng = np.random.default_rng(0)
    permuted, arrangements = statistics.cluster_permutations(rng, clusters, strata, 3000)
    assert arrangements == 2 * 2 * 2  # a and b exchange (c has one run on d), two shuffles of two runs
    distinct = np.unique(permuted, axis=0)
    assert len(distinct) == arrangements
    assert np.all(strata[distinct] == strata)
    for row in distinct:
        sources = {(c, clusters[r]) for c, r in zip(clusters, row)}
        assert len(sources) == 3, "runs of one architecture come from one architecture, on all data sets"
        assert ("c", "c") in sources


def test_permutation_p_value_is_that_of_enumeration():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=6), rng.normal(size=6)
    clusters, strata = design(datasets=1, seeds=1)
    exact = scipy.stats.permutation_test(
        (x,), lambda v: np.corrcoef(v, y)[0, 1], permutation_type="pairings", n_resamples=np.inf
    ).null_distribution
    expected = np.mean(np.abs(exact) >= abs(np.corrcoef(x, y)[0, 1]) - 1e-12)
    found = within_strata_correlations(x, y, clusters, strata, permutations=20000)[0]
    assert found.p_value == pytest.approx(expected, abs=0.015)


def test_permutation_p_value_counts_the_observed_and_ignores_the_undefined():
    assert statistics.permutation_p_value(-2.0, np.array([1.0, -3.0, np.nan])) == pytest.approx(2 / 3)
    assert np.isnan(statistics.permutation_p_value(np.nan, np.ones(3)))


@pytest.mark.parametrize("spread, common", [(0.0, True), (2.0, True), (2.0, False)])
def test_clustered_noise_is_rejected_as_often_as_promised(spread, common):
    """Architecture effects make runs alike. The test that takes runs for independent rejects far too often;
    the one that exchanges architectures does not, and its interval covers the truth."""
    clusters, strata = design()
    rejected, covered, naive, values, worth = [], [], [], [], []
    for i in range(120):
        x, y = clustered(np.random.default_rng([i, 7]), 0.0, spread, common)
        found = within_strata_correlations(x, y, clusters, strata, seed=i, permutations=199)
        rejected += [f.p_value <= 0.05 for f in found]
        covered += [f.low <= 0 <= f.high for f in found]
        naive += [scipy.stats.pearsonr(x[strata == s], y[strata == s]).pvalue <= 0.05 for s in np.unique(strata)]
        values.append(found[-1].value)
        worth.append(found[-1].effective_runs)
    assert np.mean(rejected) < 0.09
    assert np.mean(covered) > 0.93
    assert (np.mean(naive) > 0.2) == (spread > 0)
    assert np.median(worth) * np.var(values) == pytest.approx(1, abs=0.45)


def test_pooled_value_weighs_data_sets_by_their_defined_runs():
    rng = np.random.default_rng(0)
    clusters, strata = design()
    x, y = clustered(rng, -0.6)
    y[strata == "d0"] = np.nan  # e.g. no generative factors
    x[np.flatnonzero(strata == "d1")[:3]] = np.nan  # a failed architecture
    y[strata == "d2"] = 1.0  # nothing varies
    found = within_strata_correlations(x, y, clusters, strata, permutations=99)
    assert [f.stratum for f in found] == ["d0", "d1", "d2", "d3", "d4", "pooled"]
    assert [f.runs for f in found] == [0, 15, 18, 18, 18, 51]
    assert np.isnan([found[0].value, found[2].value]).all()
    expected = (15 * found[1].value + 18 * found[3].value + 18 * found[4].value) / 51
    assert found[-1].value == pytest.approx(expected)
    assert found[-1].low < found[-1].value < found[-1].high


def test_nothing_defined_gives_nan_everywhere():
    clusters, strata = design(2, 1, 1)
    found = within_strata_correlations(np.full(2, np.nan), np.ones(2), clusters, strata)
    assert [f.runs for f in found] == [0, 0] and all(np.isnan(f.p_value) for f in found)


# --- families and power ----------------------------------------------------------------------------------


def test_holm_sidak_is_its_formula_and_skips_the_undefined():
    p_values = [0.04, np.nan, 0.001, 0.03]
    steps = [1 - (1 - p) ** m for p, m in zip([0.001, 0.03, 0.04], [3, 2, 1])]
    expected = np.maximum.accumulate(steps)
    np.testing.assert_allclose(comparisons.holm_sidak(p_values), [expected[2], np.nan, expected[0], expected[1]])
    assert np.isnan(comparisons.holm_sidak([np.nan])).all()


def test_detectable_correlation_is_found_with_the_stated_power():
    true = comparisons.detectable_correlation(18)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 18))
    y = true * x + math.sqrt(1 - true**2) * rng.normal(size=x.shape)
    found = np.mean(scipy.stats.pearsonr(x, y, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.03)
    expected = NormalIndPower().solve_power(nobs1=15, alpha=0.05, power=0.8, ratio=0)
    assert true == pytest.approx(np.tanh(expected), abs=1e-5)
    assert comparisons.detectable_correlation(18, tests=20) > true
    assert np.isnan(comparisons.detectable_correlation(3))


def test_detectable_difference_is_statsmodels_and_found_with_the_stated_power():
    expected = TTestIndPower().solve_power(nobs1=3, alpha=0.05, power=0.8)
    assert comparisons.detectable_difference(3) == pytest.approx(expected, rel=1e-4)
    true = comparisons.detectable_difference(3, architectures=6)
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1500):
        groups = rng.normal(size=(6, 3))
        groups[0] += true
        p_values = comparisons.pairwise_p_values(list(groups))
        hits += min(p_values[0, 1], p_values[1, 0]) < 0.025
    assert hits / 1500 == pytest.approx(0.8, abs=0.04)
    assert np.isnan(comparisons.detectable_difference(1))


def test_intraclass_correlation_recovers_the_planted_one():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(2000), 3)
    values = 2 * np.repeat(rng.normal(size=2000), 3) + rng.normal(size=6000)
    assert statistics.intraclass_correlation(values, clusters) == pytest.approx(0.8, abs=0.02)
    assert statistics.intraclass_correlation(np.arange(4.0), np.arange(4)) == 1  # cannot be told
    assert statistics.intraclass_correlation(np.ones(4), np.array([0, 0, 1, 1])) == 0


# --- winners ---------------------------------------------------------------------------------------------


def test_single_seed_winners_count_every_combination():
    groups = [np.array([3.0, 1.0, 2.0]), np.array([2.0, 2.0]), np.array([0.0, 3.0])]
    chances = np.zeros(3)
    combinations = list(itertools.product(*groups))
    for values in combinations:
        best = np.flatnonzero(np.asarray(values) == max(values))
        chances[best] += 1 / len(best) / len(combinations)
    np.testing.assert_allclose(comparisons.single_seed_winners(groups), chances)
    many = [np.array([1.0, 2.0])] * 24  # a grid's worth of configurations
    np.testing.assert_allclose(comparisons.single_seed_winners(many), 1 / 24)


def test_pairwise_p_values_are_those_of_the_regression_on_architecture():
    rng = np.random.default_rng(0)
    groups = [rng.normal(loc=m, size=n) for m, n in [(0, 3), (1, 2), (2, 3)]]
    values, labels = np.concatenate(groups), np.repeat([0, 1, 2], [3, 2, 3])
    fit = sm.OLS(values, np.eye(3)[labels]).fit()
    two_sided = fit.t_test(np.array([1, -1, 0])).pvalue
    found = comparisons.pairwise_p_values(groups)
    assert 2 * min(found[0, 1], found[1, 0]) == pytest.approx(float(two_sided))
    assert found[0, 1] + found[1, 0] == pytest.approx(1)
    two = comparisons.pairwise_p_values(groups[:2])
    assert two[1, 0] == pytest.approx(scipy.stats.ttest_ind(groups[1], groups[0], alternative="greater").pvalue)


@pytest.mark.parametrize("spread", [(4, 1, 1, 1, 1, 4), (1, 1, 1, 1, 1, 1)])
def test_architectures_that_differ_in_spread_do_not_win_by_it(spread):
    """Six equal architectures on five data sets: how often any of the 25 comparisons calls the first beaten
    at the family's 2.5 %. The deviation pooled over architectures alone says so in 16 % of noisy firsts."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(600):
        values = rng.normal(size=(5, 6, 3)) * np.array(spread)[:, None]
        own = [comparisons.pooled_variance(list(values[:, a])) for a in range(6)]
        found.append([comparisons.pairwise_p_values(list(v), own)[1:, 0] for v in values])
    least = np.min(found, axis=(1, 2))
    assert np.mean(1 - (1 - least) ** 25 <= 0.025) < 0.025


def test_own_spread_is_welchs_test_where_it_is_the_wider():
    groups = [np.array([0.0, 0.1, 0.2]), np.array([1.0, 2.0, 6.0])]
    own = [comparisons.pooled_variance([g]) for g in groups]
    assert own[1] == (pytest.approx(np.var(groups[1], ddof=1)), 2)
    found = comparisons.pairwise_p_values(groups, own)[1, 0]
    parts = [v / 3 for v, _ in own]
    freedom = sum(parts) ** 2 / sum(p**2 / 2 for p in parts)
    welch = scipy.stats.t.sf((3 - 0.1) / np.sqrt(sum(parts)), freedom)
    assert found == pytest.approx(max(welch, comparisons.pairwise_p_values(groups)[1, 0]))
    single = comparisons.pairwise_p_values([*groups, np.ones(1)], [*own, comparisons.pooled_variance([np.ones(1)])])
    assert single[2, 0] == comparisons.pairwise_p_values([*groups, np.ones(1)])[2, 0], "one run has no spread"


def test_winners_of_single_runs_cannot_be_tested():
    assert np.isnan(comparisons.pairwise_p_values([np.ones(1), np.zeros(1)])).all()
    assert np.isnan(comparisons.pairwise_p_values([np.ones(3), np.zeros(3)])).all()
