"""Kernels of DCI, UDR and the scores by votes: under jit, vmap and scan, against scikit-learn, and after rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.feature_selection
from sklearn.linear_model import Lasso, LogisticRegression

from causalvae import metrics
from causalvae.metrics import boosting, regression, ties
from causalvae.metrics.udr import CORRELATIONS, udr_kernel

SIZES = (3, 2, 4)
ROWS, TRAIN = 300, 200
KEY = jax.random.key(0)
FACTORS = np.stack([np.random.default_rng(k).integers(0, n, ROWS) for k, n in enumerate(SIZES)], axis=1)
UNIT = ((FACTORS - FACTORS.mean(axis=0)) / FACTORS.std(axis=0)).astype(np.float32)


def members(num=8):
    """Codes [num, 300, 4] from a perfect code to noise, the last latent dead."""
    generator = np.random.default_rng(5)
    mixed = UNIT[None] @ (np.eye(3) + 0.5 * generator.normal(size=(num, 3, 3)))
    codes = mixed + np.linspace(0, 3, num)[:, None, None] * generator.normal(size=mixed.shape)
    return np.concatenate([codes, np.zeros((num, ROWS, 1))], axis=2).astype(np.float32)


def rounded(x, seed):
    """x with each value moved to a neighboring float, up or down, or not."""
    way = np.random.default_rng(seed).integers(-1, 2, x.shape)
    return np.where(way == 0, x, np.nextafter(x, np.where(way > 0, np.float32(np.inf), np.float32(-np.inf))))


# --- one implementation, traced or not -------------------------------------------------------------------

DRAWS = dict(num_train=400, num_test=200, batch=16)
PARTS = FACTORS[:TRAIN], FACTORS[TRAIN:]


def votes(kernel):
    return functools.partial(kernel, factors=FACTORS, sizes=SIZES, key=KEY, **DRAWS)


def parts(kernel, **options):
    return lambda codes: kernel(codes[:TRAIN], PARTS[0], codes[TRAIN:], PARTS[1], SIZES, **options)


def dci(estimator):
    return lambda codes: metrics.dci(codes, FACTORS, estimator, num_train=TRAIN, shuffle=False)


KERNELS = {  # kernel, host function; their results agree field by field
    "factorvae": (votes(metrics.factorvae_kernel), lambda z: metrics.factorvae_score(z, FACTORS, **DRAWS)),
    "betavae": (votes(metrics.betavae_kernel), lambda z: metrics.betavae_score(z, FACTORS, **DRAWS)),
    "dci by lasso": (parts(metrics.dci_lasso_kernel), dci("lasso")),
    "dci by trees": (parts(metrics.dci_boosting_kernel, key=KEY), dci("xla")),
}


@pytest.mark.parametrize("name", KERNELS)
def test_members_at_once_score_as_members_one_by_one(name):
    kernel, host = KERNELS[name]
    together = jax.jit(jax.vmap(kernel))(members())
    alone = [host(codes) for codes in members()]
    fields = getattr(together, "_fields", None) or alone[0]._fields[: len(together)]
    for field, values in zip(fields, together, strict=True):
        np.testing.assert_allclose(values, [getattr(a, field) for a in alone], atol=2e-6, err_msg=field)
    assert np.ptp(together[0]) > 0.1  # the members differ


def test_ensembles_at_once_agree_as_ensembles_one_by_one():
    ensembles = np.stack([members(3) + 0.3 * k * np.random.default_rng(k).normal(size=(3, ROWS, 4)) for k in range(8)])
    ensembles = ensembles.astype(np.float32)
    active = np.ones((3, 4), bool)
    for correlation in CORRELATIONS:
        kernel = functools.partial(udr_kernel, active=active, correlation=correlation)
        together = jax.jit(jax.vmap(kernel))(ensembles)
        alone = [metrics.udr(e, correlation=correlation) for e in ensembles]
        for values, field in zip(together, ("scores", "pairwise"), strict=True):
            np.testing.assert_allclose(values, [getattr(a, field) for a in alone], atol=5e-6)


def test_kernels_run_inside_a_training_loop():
    def step(mix, _):
        codes = jnp.asarray(UNIT) @ mix
        scores = votes(metrics.factorvae_kernel)(codes)[0], parts(metrics.dci_lasso_kernel)(codes).disentanglement
        return mix + 0.5 * jnp.roll(jnp.eye(3), 1, axis=1), jnp.stack(scores)

    _, scores = jax.jit(lambda mix: jax.lax.scan(step, mix, length=4))(jnp.eye(3))
    assert scores.shape == (4, 2) and scores[0, 0] == 1 and scores[0, 1] > 0.99
    assert scores[1, 0] > 0.9 and scores[1, 1] < 0.2  # half turned into its neighbor, a latent still varies least


def test_boosted_trees_trace():
    shapes = jax.eval_shape(lambda codes: parts(metrics.dci_boosting_kernel, key=KEY)(codes), members()[0])
    assert shapes.importance.shape == (4, 3)
    layout = jax.eval_shape(boosting.lay_out, members()[0, :TRAIN], members()[0, TRAIN:])
    fit = functools.partial(boosting.boost, sizes=SIZES)
    assert jax.eval_shape(jax.jit(fit), KEY, layout, PARTS[0]).logits.shape[1] == 3 + 1 + 4


@pytest.mark.parametrize("name", KERNELS)
def test_a_constant_factor_does_not_count(name):
    kernel, _ = KERNELS[name]
    codes = members()[2]
    with_constant = np.insert(FACTORS, 1, 0, axis=1)
    if name in ("factorvae", "betavae"):
        found = kernel(codes, factors=with_constant, sizes=(3, 2, 2, 4))
    else:
        function = metrics.dci_lasso_kernel if "lasso" in name else metrics.dci_boosting_kernel
        options = {} if "lasso" in name else {"key": KEY}
        rows = codes[:TRAIN], with_constant[:TRAIN], codes[TRAIN:], with_constant[TRAIN:]
        found = function(*rows, (3, 2, 2, 4), **options)
    tolerance = 0.02 if "trees" in name else 1e-5  # of trees: another shape draws other ties
    for value, expected in zip(found[:3], kernel(codes)[:3], strict=True):
        np.testing.assert_allclose(value, expected, atol=tolerance)


def test_a_class_that_training_rows_lack_is_never_predicted():
    lacking = np.where(FACTORS[:TRAIN, [2]] == 3, 0, FACTORS[:TRAIN, [2]])
    rows = members()[0, :TRAIN], lacking, members()[0, TRAIN:], FACTORS[TRAIN:, [2]]
    for kernel, options in ((metrics.dci_lasso_kernel, {}), (metrics.dci_boosting_kernel, {"key": KEY})):
        found = kernel(*rows, (4,), **options)
        assert np.isnan(found.disentanglement) and np.isfinite(found.importance).all()
        assert found.informativeness <= np.mean(FACTORS[TRAIN:, 2] < 3)


# --- against scikit-learn --------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.02, 0.1])
def test_lasso_is_scikit_learns(alpha):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(500, 6)) @ (np.eye(6) + 0.4 * generator.normal(size=(6, 6)))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = x[:, :3] * [1.0, 0.3, -0.5] + 0.1 * generator.normal(size=(500, 3))
    y = y - y.mean(axis=0)
    ours = regression.lasso(jnp.asarray(x.T @ x / 500), jnp.asarray(x.T @ y / 500), alpha)
    np.testing.assert_allclose(ours, Lasso(alpha=alpha, tol=1e-12).fit(x, y).coef_.T, atol=1e-4)
    assert (np.asarray(ours) == 0).any()


@pytest.mark.parametrize("classes", [2, 5])
def test_logistic_regression_is_scikit_learns(classes):
    """Overlapping classes, and classes that a line separates."""
    generator = np.random.default_rng(2)
    labels = generator.integers(0, classes, 600)
    for spread in (1.0, 0.05):
        x = (np.eye(classes)[labels] + spread * generator.normal(size=(600, classes))).astype(np.float32)
        x[:, 0] *= 10
        theirs = LogisticRegression(solver="newton-cg", tol=1e-9).fit(x.astype(np.float64), labels)
        design = np.concatenate([x, np.ones((600, 1), np.float32)], axis=1)
        weights = regression.logistic(design, np.eye(classes, dtype=np.float32)[labels])
        logits = regression.logits(design, weights, np.ones(classes, bool))
        np.testing.assert_allclose(jax.nn.softmax(logits), theirs.predict_proba(x), atol=1e-4)


def test_dci_by_lasso_is_that_of_scikit_learns_estimator():
    for codes in members()[:4]:
        found = metrics.dci(codes, FACTORS, "lasso", num_train=TRAIN, shuffle=False)
        x = codes[:, :3].astype(np.float64)
        x = (x - x[:TRAIN].mean(axis=0)) / x[:TRAIN].std(axis=0)
        for k, labels in enumerate(FACTORS.T):
            mean, scale = labels[:TRAIN].mean(), labels[:TRAIN].std()
            model = Lasso(alpha=0.02, tol=1e-10).fit(x[:TRAIN], (labels[:TRAIN] - mean) / scale)
            weights = np.abs(model.coef_)
            np.testing.assert_allclose(found.importance[:3, k], weights / weights.sum(), atol=1e-4)
            values = model.predict(x[TRAIN:]) * scale + mean
            right = np.abs(values[:, None] - np.arange(SIZES[k])).argmin(axis=1) == labels[TRAIN:]
            assert abs(found.accuracy[k] - right.mean()) < 1e-6


# --- rounding decides nothing ----------------------------------------------------------------------------


def test_ties_go_to_the_first():
    x = jnp.array([0.3, 1.0, 1.0 + 2**-23, 0.9])
    assert ties.first_largest(x) == 1 and ties.first_least(-x) == 1
    values = np.array([0.5, 0.7, 0.5 + 1e-8, 0.7 + 1e-8, 0.9])
    assert ties.descending(values).tolist() == [4, 1, 3, 0, 2]
    assert ties.descending(values[:0]).tolist() == []


@pytest.mark.parametrize("seed", [1, 2])
def test_dci_of_codes_with_few_values_is_unmoved_by_rounding(seed):
    """A lattice whose equal values differ in the last bit offers trees cuts that are none: D was .72 to .65."""
    generator = np.random.default_rng(7)
    signal = np.round(2 * (UNIT + 0.5 * generator.normal(size=UNIT.shape))) / 2
    noise = np.round(2 * generator.normal(size=(ROWS, 2))) / 2
    codes = (37.3 * np.concatenate([signal, noise], axis=1)).astype(np.float32)
    for estimator in ("xla", "lasso"):
        one, other = (metrics.dci(c, FACTORS, estimator, num_train=TRAIN) for c in (codes, rounded(codes, seed)))
        assert one.disentanglement == pytest.approx(other.disentanglement, abs=1e-5)
        assert one.informativeness == other.informativeness
        np.testing.assert_allclose(one.importance, other.importance, atol=1e-5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_votes_for_copies_and_latents_on_the_threshold_are_unmoved_by_rounding(seed):
    scale = 0.05 * (1 - 3e-7) / UNIT.std(axis=0, ddof=1, dtype=np.float64)
    codes = np.concatenate([UNIT, UNIT, UNIT * scale], axis=1).astype(np.float32)
    one, other = (metrics.factorvae_score(c, FACTORS, **DRAWS) for c in (codes, rounded(codes, seed)))
    assert one.active.all() and other.active.all() and one.score == other.score == 1
    np.testing.assert_array_equal(one.votes, other.votes)
    assert not one.votes[3:].any()  # of copies the first votes


@pytest.mark.parametrize("seed", [1, 2])
def test_ranks_of_equal_values_are_unmoved_by_rounding(seed):
    """Ranks of rounding noise in place of ties take UDR of two copies from .92 to .78."""
    codes = np.stack([UNIT, UNIT * np.float32(1.7)])
    moved = np.stack([rounded(c, seed + k) for k, c in enumerate(codes)])
    one, other = (metrics.udr(c, correlation="spearman") for c in (codes, moved))
    np.testing.assert_allclose(one.pairwise, other.pairwise, rtol=1e-6)


# --- estimators of scikit-learn --------------------------------------------------------------------------


def test_scikit_learn_runs_in_the_callers_thread(monkeypatch):
    """Its parallel functions exchange the process's warning filters, and its configuration is a thread's own: in
    threads of ours it lost the filters for good, warned 91 times in one run, and ignored the caller's settings."""
    seen, estimate = [], sklearn.feature_selection.mutual_info_classif

    def spy(*args, **kwargs):
        seen.append(sklearn.get_config()["assume_finite"])
        return estimate(*args, **kwargs)

    monkeypatch.setattr(sklearn.feature_selection, "mutual_info_classif", spy)
    with sklearn.config_context(assume_finite=True):
        metrics.infomec(UNIT, FACTORS, explicit=False)
    assert seen == [True] * 3
