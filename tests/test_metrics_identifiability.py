"""MCC and R² against closed forms, and against plain loops over permutations and normal equations."""

import itertools

import numpy as np
import pytest
from scipy import stats

from causalvae import metrics

NAMES = ("pearson", "spearman", "pearson_linear", "spearman_linear")


def factors_of(num=400, k=3, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=(num, k))


def scores(found):
    return np.array([getattr(found, name) for name in NAMES])


def test_the_factors_up_to_order_sign_and_scale_have_one():
    factors = factors_of()
    found = metrics.mcc(factors[:, [2, 0, 1]] * [-3.0, 0.1, 1.0] + 7, factors)
    np.testing.assert_allclose(scores(found), 1)
    assert found.assignment.tolist() == [1, 2, 0] and (found.num_train, found.num_test) == (200, 200)
    assert metrics.r2(factors[:, [2, 0, 1]], factors).score == pytest.approx(1)


def test_a_monotone_map_keeps_spearman_and_a_linear_map_what_is_fitted():
    factors = factors_of()
    bent = metrics.mcc(np.exp(3 * factors), factors)
    assert bent.spearman == 1 and 0.8 < bent.pearson < 0.9
    mixed = factors @ np.random.default_rng(1).normal(size=(3, 3))
    found = metrics.mcc(mixed, factors)
    np.testing.assert_allclose([found.pearson_linear, found.spearman_linear, metrics.r2(mixed, factors).score], 1)
    assert found.pearson < 0.9 and found.spearman < 0.9


def test_a_rotation_and_noise_have_their_closed_forms():
    """Two latents turned into each other by t correlate by cos t; noise of deviation s leaves 1 / sqrt(1 + s^2)."""
    factors = np.random.default_rng(0).normal(size=(100_000, 2))
    c, s = np.cos(0.4), np.sin(0.4)
    assert metrics.mcc(factors @ np.array([[c, -s], [s, c]]), factors).pearson == pytest.approx(c, abs=0.005)
    noisy = factors + 0.5 * np.random.default_rng(1).normal(size=factors.shape)
    assert metrics.mcc(noisy, factors).pearson == pytest.approx(1 / np.sqrt(1.25), abs=0.005)
    assert metrics.r2(noisy, factors).score == pytest.approx(1 / 1.25, abs=0.005)


@pytest.mark.parametrize("latents", [2, 3, 5])
def test_plain_loops_say_the_same(latents):
    generator = np.random.default_rng(latents)
    factors = generator.integers(0, [3, 5, 9], size=(300, 3))
    z = factors @ generator.normal(size=(3, latents)) + generator.normal(size=(300, latents))
    train, test = slice(0, 180), slice(180, 300)
    design = np.column_stack([np.ones(300), z])
    weights = np.linalg.solve(design[train].T @ design[train], design[train].T @ factors[train])
    predicted = design[test] @ weights

    def best(a, correlate):
        table = np.array([[abs(correlate(x, f)[0]) for f in factors[test].T] for x in a.T])
        wide = np.vstack([table, np.zeros((max(0, 3 - len(a.T)), 3))])
        return max(sum(wide[i, k] for k, i in enumerate(p)) / 3 for p in itertools.permutations(range(len(wide)), 3))

    expected = [best(a, c) for a in (z[test], predicted) for c in (stats.pearsonr, stats.spearmanr)]
    options = dict(num_train=180, num_test=120, shuffle=False)
    found = metrics.mcc(z, factors, **options)
    np.testing.assert_allclose(scores(found), expected, rtol=1e-9)
    assert (found.assignment >= 0).sum() == min(latents, 3)
    residual = np.square(predicted - factors[test]).mean(axis=0) / factors[test].var(axis=0)
    np.testing.assert_allclose(metrics.r2(z, factors, **options).per_factor, 1 - residual, rtol=1e-9)


def test_dead_and_copied_latents_and_constant_factors():
    factors = factors_of()
    noisy = (factors + 0.1 * factors_of(seed=1)).astype(np.float32)
    more = np.column_stack([noisy, np.full(400, 0.3, np.float32), noisy[:, 0] * np.float32(1.1)])
    np.testing.assert_allclose(scores(metrics.mcc(more, factors)), scores(metrics.mcc(noisy, factors)), atol=1e-5)
    assert metrics.r2(more, factors).score == pytest.approx(metrics.r2(noisy, factors).score, abs=1e-5)
    dead = np.full((400, 2), 0.3)
    assert not scores(metrics.mcc(dead, factors)).any() and abs(metrics.r2(dead, factors).score) < 0.05
    constant = metrics.mcc(noisy, np.column_stack([np.ones(400), factors]))
    assert constant.dropped == (0,) and len(constant.assignment) == 3
    with pytest.raises(ValueError, match="every one of the 1 factors is constant among the 200 rows"):
        metrics.r2(noisy, np.ones((400, 1)))
    with pytest.raises(ValueError, match="400 rows but factors have 399"):
        metrics.mcc(noisy, factors[1:])
    with pytest.raises(ValueError, match="factors holds 1 values that are NaN"):
        metrics.mcc(noisy, np.where(np.arange(400)[:, None] == 3, [[np.nan, 0, 0]], factors))


def test_the_suite_has_both_with_nulls_and_ceilings():
    factors = np.random.default_rng(0).integers(0, [4, 6], size=(1000, 2))
    found = metrics.evaluate_representations(-2.0 * factors[:, ::-1], factors, "mcc,r2")
    assert [record.name for record in found] == [*(f"mcc_{name}" for name in NAMES), "r2"]
    for record in found:
        assert record.value == pytest.approx(1) and record.ceiling == 1 and record.null < 0.1


# --- the other metrics that take continuous factors ------------------------------------------------------


def continuous(rows=400):
    """Three real factors, one with an offset and one small, and four latents that mix them; a constant factor."""
    rng = np.random.default_rng(3)
    factors = rng.normal(size=(rows, 3)) * (1.0, 20.0, 1e-3) + (0.0, 1e4, 0.0)
    unit = (factors - factors.mean(0)) / factors.std(0)
    latents = np.stack([unit[:, 0], unit[:, 1] + 0.5 * unit[:, 0], -unit[:, 2], rng.normal(size=rows)], axis=1)
    return latents + 0.1 * rng.normal(size=latents.shape), np.insert(factors, 1, 2.5, axis=1)


@pytest.mark.numeric
def test_dci_by_regression_is_scikit_learns_lasso():
    from sklearn.linear_model import Lasso

    latents, factors = continuous()
    found = metrics.dci(latents, factors, "lasso", num_train=300, num_test=100, shuffle=False)
    kept, train, test = np.delete(factors, 1, axis=1), slice(None, 300), slice(300, None)
    x = (latents - latents[train].mean(0)) / latents[train].std(0)
    weights, explained = [], []
    for column in kept.T:
        y = (column - column[train].mean()) / column[train].std()
        model = Lasso(alpha=0.02, tol=1e-10, max_iter=100_000).fit(x[train], y[train])
        weights.append(np.abs(model.coef_))
        explained.append(model.score(x[test], y[test]))
    importance = np.stack(weights, axis=1)
    importance /= importance.sum(0)
    np.testing.assert_allclose(found.importance, importance, atol=1e-4)
    np.testing.assert_allclose(found.accuracy, explained, atol=1e-4)
    share = importance / np.maximum(importance.sum(1, keepdims=True), 1e-12)  # the latent of noise has none
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1)), axis=1) / np.log(3)
    expected = np.sum((1 - entropy) * importance.sum(1)) / importance.sum()
    assert found.disentanglement == pytest.approx(expected, abs=1e-4) and found.dropped == (1,)
    assert found.informativeness == pytest.approx(np.mean(explained), abs=1e-4) and found.informativeness > 0.9
    with pytest.raises(ValueError, match="factors are continuous: estimator 'lasso' takes them, and 'xla' takes class"):
        metrics.dci(latents, factors, "xla")


@pytest.mark.numeric
def test_sap_of_continuous_factors_is_a_gap_of_squared_correlations():
    latents, factors = continuous()
    found = metrics.sap(latents, factors, continuous=True, num_train=300, shuffle=False)
    kept = np.delete(factors, 1, axis=1)[:300]
    squared = np.square(np.corrcoef(latents[:300].T, kept.T)[:4, 4:])
    ordered = np.sort(squared, axis=0)
    np.testing.assert_allclose(found.score, np.mean(ordered[-1] - ordered[-2]), atol=1e-5)
    with pytest.raises(ValueError, match="bin continuous factors first, or score them by mcc, r2, dci with estimator="):
        metrics.sap(latents, factors)


def test_the_suite_scores_continuous_factors_where_it_can_and_says_where_not():
    latents, factors = continuous()
    options = metrics.Options(num_train=300, num_test=100)
    scores = {
        s.name: s
        for s in metrics.evaluate_representations(latents, factors, "mig,dci_lasso,sap_continuous,mcc,r2", options)
    }
    assert scores["mig"].value is None and "factors are continuous, and it takes classes" in scores["mig"].note
    expected = metrics.dci(latents, factors, "lasso", num_train=300, num_test=100)
    assert scores["dci_lasso_informativeness"].value == expected.informativeness
    assert scores["dci_lasso_informativeness"].null < 0.1 < 0.9 < scores["r2"].value
    assert scores["sap_continuous"].ceiling > 0.9 and scores["mcc_pearson"].note == "constant factors [1] dropped"
    with pytest.raises(ValueError, match="representations have 10 rows but factors have 400"):
        metrics.evaluate_representations(latents[:10], factors)
