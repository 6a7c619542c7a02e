"""Compiled metrics: vmapped over members they are what the host functions give, and last bits change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from causalvae import metrics
from causalvae.metrics.explicitness import _area_under_curve
from causalvae.metrics.histograms import discretize

SIZES = (3, 6, 5, 2)
ROWS, TRAIN = 600, 400
SPLIT = dict(num_train=TRAIN, num_test=ROWS - TRAIN, shuffle=False)


@pytest.fixture(scope="module")
def members():
    """Factors [N, 4] and codes [8, N, 5] that mix them; the last latent is dead, and one member lies far from 0."""
    generator = np.random.default_rng(0)
    factors = np.stack([generator.integers(0, n, ROWS) for n in SIZES], axis=1).astype(np.int32)
    values = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    codes = values @ generator.normal(size=(8, 4, 5)) + 0.2 * generator.normal(size=(8, ROWS, 5))
    codes[3] += 1000
    codes[:, :, 4] = 0.3
    return codes.astype(np.float32), factors


def by_kernels(x, factors):
    """Every score of one member's codes, by kernels alone."""
    train, test = x[:TRAIN], x[TRAIN:]
    infom, infoc, *_ = metrics.infomec_kernel(x, factors, SIZES)
    return {
        "mig": metrics.mig_kernel(x, factors, SIZES)[0],
        "sap": metrics.sap_kernel(train, factors[:TRAIN])[0],
        "irs": metrics.irs_kernel(x, factors)[0],
        "infom": infom,
        "infoc": infoc,
        "modularity": metrics.modularity_kernel(train, factors[:TRAIN], SIZES)[0],
        "explicitness": metrics.explicitness_kernel(train, factors[:TRAIN], test, factors[TRAIN:], SIZES)[0],
    }


def by_host(x, factors):
    information = metrics.infomec(x, factors, bins=20, explicit=False)
    return {
        "mig": metrics.mig(x, factors).score,
        "sap": metrics.sap(x, factors, continuous=True, **SPLIT).score,
        "irs": metrics.irs(x, factors).score,
        "infom": information.modularity,
        "infoc": information.compactness,
        "modularity": metrics.modularity(x, factors, **SPLIT).score,
        "explicitness": metrics.explicitness(x, factors, **SPLIT).score,
    }


def test_kernels_vmapped_over_members_are_the_host_functions(members):
    codes, factors = members
    together = jax.jit(jax.vmap(by_kernels, (0, None)))(codes, factors)
    for dtype in (np.float32, np.float64):
        alone = [by_host(x.astype(dtype), factors) for x in codes]
        for name, scores in together.items():
            np.testing.assert_allclose(scores, [one[name] for one in alone], atol=2e-6, err_msg=name)
            assert np.ptp(scores) > 0.01


def test_a_kernel_runs_inside_a_training_loop(members):
    codes, factors = members

    @jax.jit
    def train(x):
        def step(x, _):
            x = 0.9 * x + 0.1 * x.mean(axis=0, keepdims=True)
            return x, metrics.mig_kernel(x, factors, SIZES)[0]

        return jax.lax.scan(step, x, None, length=3)[1]

    np.testing.assert_allclose(train(codes[0]), metrics.mig(codes[0], factors).score, atol=2e-3)


def test_scale_and_offset_of_float64_cost_no_digits(members):
    codes, factors = members
    mixed = codes[0, :, :4].astype(np.float64)
    expected = by_host(mixed, factors)
    for moved in (1e-9 * mixed, 1e9 * mixed, mixed + 1e6):
        found = by_host(moved, factors)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


def test_float32_far_from_zero_gives_what_float64_does(members):
    codes, factors = (members[0][1, :, :4] + np.float32(3000)), members[1]
    z = codes.astype(np.float64)
    squared = np.corrcoef(z.T, factors.T)[:4, 4:] ** 2
    np.testing.assert_allclose(metrics.sap_kernel(codes, factors)[2], squared, atol=1e-6)
    robustness = np.empty((4, len(SIZES)))
    for k, size in enumerate(SIZES):
        groups = [z[factors[:, k] == v] for v in range(size)]
        robustness[:, k] = np.mean([np.percentile(abs(g - g.mean(axis=0)), 99, axis=0) for g in groups], axis=0)
    robustness = 1 - robustness / abs(z - z.mean(axis=0)).max(axis=0)[:, None]
    score, per_latent, matrix, parents = metrics.irs_kernel(codes, factors)
    np.testing.assert_allclose(matrix, robustness, atol=1e-6)
    np.testing.assert_array_equal(parents, robustness.argmax(axis=1))


def test_constant_factors_and_missing_classes_do_not_count(members):
    codes, factors = members[0][0], members[1].copy()
    factors[:, 1] = 2
    kept = factors[:, [0, 2, 3]]
    sizes = tuple(SIZES[k] for k in (0, 2, 3))
    constant = [
        (metrics.mig_kernel(codes, factors, SIZES), metrics.mig_kernel(codes, kept, sizes)),
        (metrics.modularity_kernel(codes, factors, SIZES), metrics.modularity_kernel(codes, kept, sizes)),
        (metrics.infomec_kernel(codes, factors, SIZES), metrics.infomec_kernel(codes, kept, sizes)),
        (metrics.irs_kernel(codes, factors), metrics.irs_kernel(codes, kept)),
        (metrics.sap_kernel(codes, factors), metrics.sap_kernel(codes, kept)),
    ]
    for with_it, without in constant:
        np.testing.assert_allclose(with_it[0], without[0], atol=1e-6)
    rows = codes[:TRAIN], kept[:TRAIN], codes[TRAIN:], kept[TRAIN:]
    larger = tuple(n + 2 for n in sizes)
    found, expected = (metrics.explicitness_kernel(*rows, n)[1] for n in (larger, sizes))
    np.testing.assert_allclose(found[:2], expected[:2], atol=1e-5)
    _, per_factor = metrics.explicitness_kernel(codes[:TRAIN], factors[:TRAIN], codes[TRAIN:], factors[TRAIN:], SIZES)
    assert np.isnan(per_factor).tolist() == [False, True, False, False]


# --- last bits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_lattice_and_the_same_lattice_with_rounding_noise_score_alike(seed):
    """Values on the edges of bins: two factors turned by 45 degrees, and one of 21 levels."""
    generator = np.random.default_rng(seed)
    factors = generator.permutation(np.tile(np.indices((2, 2, 21)).reshape(3, -1), 6).T)
    a, b, c = (2.0 * factors - factors.max(axis=0)).T
    lattice = np.stack([(a + b) / np.sqrt(2), (a - b) / np.sqrt(2), c], axis=1).astype(np.float32)
    noise = 2e-7 * generator.uniform(-1, 1, lattice.shape) * np.ptp(lattice, axis=0)
    noisy = (lattice + noise).astype(np.float32)
    assert (noisy != lattice).mean() > 0.3
    np.testing.assert_array_equal(discretize(noisy), discretize(lattice))
    split = dict(num_train=300, num_test=200, shuffle=False)
    for score in (
        lambda x: metrics.mig(x, factors).score,
        lambda x: metrics.modularity(x, factors, **split).score,
        lambda x: metrics.explicitness(x, factors, **split).score,
        lambda x: metrics.infomec(x, factors, bins=20, explicit=False)[:1],
        lambda x: metrics.irs(x, factors).score,
        lambda x: metrics.sap(x, factors, continuous=True, **split).score,
    ):
        np.testing.assert_allclose(score(noisy), score(lattice), atol=1e-5)
    # Two latents know half of each binary factor; of the 21 levels, the two highest share a bin.
    bits = 1 - 2 * np.log(2) / (21 * np.log(21))
    np.testing.assert_allclose(metrics.mig(noisy, factors).per_factor, [0, 0, bits], atol=1e-6)


def test_rounding_errors_of_no_information_are_no_score():
    """A latent that is independent of both factors, exactly: every combination, in numbers that are a product."""
    generator = np.random.default_rng(0)
    for _ in range(8):
        values = [np.repeat(np.arange(n), generator.integers(1, 5, n)) for n in (3, 4, 3)]
        apart, *factors = (grid.ravel() for grid in np.meshgrid(*values, indexing="ij"))
        codes, factors = np.stack([apart, factors[0]], axis=1).astype(np.float32), np.stack(factors, axis=1)
        score, per_latent = metrics.modularity_kernel(codes, factors, (4, 3))
        assert np.isnan(per_latent[0]) and score == per_latent[1] == 1
        information = metrics.infomec(codes, factors, bins=20, explicit=False)
        assert not information.information[0].any() and information.modularity == pytest.approx(1, abs=1e-6)


def test_values_on_an_edge_belong_to_the_upper_bin():
    lattice = np.linspace(-1, 1, 21, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(discretize(lattice)[:, 0], np.minimum(np.arange(21), 19))
    below = np.array([0, 0.5 - 0.9e-6, 0.5 - 1.2e-6, 1], np.float32)[:, None]
    np.testing.assert_array_equal(discretize(below)[:, 0], [0, 10, 9, 19])


# --- the regression behind explicitness ----------------------------------------------------------------------


@pytest.mark.parametrize("tails", [False, True])
def test_explicitness_is_scikit_learns_at_its_optimum(members, tails):
    codes, factors = members[0][1][:, :4].astype(np.float64), members[1]
    if tails:
        codes = codes + np.random.default_rng(0).standard_cauchy(codes.shape)
    found = metrics.explicitness(codes, factors, **SPLIT).per_factor
    x = (codes - codes[:TRAIN].mean(axis=0)) / codes[:TRAIN].std(axis=0)
    for k, size in enumerate(SIZES):
        model = LogisticRegression(max_iter=10_000, tol=1e-9).fit(x[:TRAIN], factors[:TRAIN, k])
        p = model.predict_proba(x[TRAIN:])
        areas = [roc_auc_score(factors[TRAIN:, k] == c, p[:, c]) for c in range(size)]
        np.testing.assert_allclose(found[k], np.mean(areas), atol=1e-4)


def test_area_under_curve_counts_ties_as_halves():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 5, 200).astype(np.float32)
    truth = generator.random(200) < scores / 8 + 0.1
    area = roc_auc_score(truth, scores)
    np.testing.assert_allclose(_area_under_curve(jnp.asarray(scores), jnp.asarray(truth)), area, atol=1e-6)
    noisy = scores + 1e-6 * generator.uniform(-1, 1, 200).astype(np.float32)
    np.testing.assert_allclose(_area_under_curve(jnp.asarray(noisy), jnp.asarray(truth)), area, atol=1e-6)
