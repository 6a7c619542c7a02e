"""The framework's own metrics against closed forms, plain loops and hand-made matrices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import metrics

KEY = jax.random.key(0)
N, D, PIXELS = 40, 4, 12


class Sweep(NamedTuple):
    """Anything with `.values` is a perturbation."""

    num: int = 5

    def values(self, key, z, scale):
        grid = jnp.linspace(-3.0, 3.0, self.num)
        return jnp.broadcast_to(grid[:, None, None], (self.num, *z.shape))


@pytest.fixture(scope="module")
def linear():
    generator = np.random.default_rng(0)
    return generator.normal(size=(PIXELS, D)).astype(np.float32), generator.normal(size=(N, D)).astype(
        np.float32
    )


def linear_images(weights, z):
    return (z @ weights.T + 0.5).reshape(z.shape[0], 3, 4, 1)


def sigmoid_images(weights, z):
    return jax.nn.sigmoid(linear_images(weights, z))


# --- causal effect strength ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 3])
def test_effect_strength_of_a_linear_decoder_is_its_closed_form(linear, chunk):
    weights, z = linear
    decode = jax.tree_util.Partial(linear_images, weights)
    found = metrics.causal_effect_strength(decode, z, Sweep(), KEY, chunk=chunk)
    move = np.abs(np.linspace(-3, 3, 5)[:, None, None] - z[None]).mean(axis=(0, 1))
    np.testing.assert_allclose(found, np.linalg.norm(weights, axis=0) * move, rtol=1e-5)
    rms = metrics.causal_effect_strength(decode, z, Sweep(), KEY, "rms", chunk=chunk)
    np.testing.assert_allclose(rms, found / np.sqrt(PIXELS), rtol=1e-5)


@pytest.mark.parametrize("distance", ["l2", "rms", "bernoulli_kl"])
def test_distances_are_those_of_a_plain_loop(linear, distance):
    weights, z = linear
    found = metrics.effect_distances(
        jax.tree_util.Partial(sigmoid_images, weights), z, Sweep(), KEY, distance
    )
    assert found.shape == (D, 5, N)

    def image(point):
        return 1 / (1 + np.exp(-(weights.astype(np.float64) @ point + 0.5)))

    for i, v, n in [(0, 0, 0), (1, 2, 7), (3, 4, 39), (2, 1, 20)]:
        changed = z[n].astype(np.float64)
        changed[i] = np.linspace(-3, 3, 5)[v]
        a, b = image(z[n]), image(changed)
        kl = np.sum(a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b)))
        expected = {"l2": np.linalg.norm(a - b), "rms": np.sqrt(np.mean((a - b) ** 2)), "bernoulli_kl": kl}[
            distance
        ]
        np.testing.assert_allclose(found[i, v, n], expected, rtol=2e-4, atol=1e-5)


def test_permuting_latents_permutes_their_strengths(linear):
    weights, z = linear
    order = np.array([2, 0, 3, 1])
    decode, permuted = (jax.tree_util.Partial(sigmoid_images, w) for w in (weights, weights[:, order]))
    one = metrics.causal_effect_strength(decode, z, Sweep(), KEY)
    other = metrics.causal_effect_strength(permuted, z[:, order], Sweep(), KEY)
    np.testing.assert_allclose(other, one[order], rtol=1e-5)


def test_standard_errors_are_over_images():
    distances = np.random.default_rng(0).normal(size=(3, 5, 20)).astype(np.float32)
    found = metrics.effect_strength(distances)
    per_image = distances.mean(axis=1)
    np.testing.assert_allclose(found.mean, per_image.mean(axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.standard_error, per_image.std(axis=1, ddof=1) / np.sqrt(20), rtol=1e-4)
    assert np.isnan(metrics.effect_strength(distances[:, :, :1]).standard_error).all()


def test_a_perturbation_draws_with_the_scale_it_is_given(linear):
    class Shift:
        def values(self, key, z, scale):
            return (z + scale[None])[None]

    weights, z = linear
    decode = jax.tree_util.Partial(linear_images, weights)
    by_default = metrics.causal_effect_strength(decode, z, Shift(), KEY)
    np.testing.assert_allclose(by_default, np.linalg.norm(weights, axis=0) * z.std(axis=0), rtol=1e-4)
    given = metrics.causal_effect_strength(decode, z, Shift(), KEY, scale=jnp.full(D, 2.0))
    np.testing.assert_allclose(given, 2 * np.linalg.norm(weights, axis=0), rtol=1e-4)


def test_bad_arguments_are_named(linear):
    weights, z = linear
    decode = jax.tree_util.Partial(linear_images, weights)

    class Wrong:
        def values(self, key, z, scale):
            return z

    with pytest.raises(ValueError, match="unknown distance 'l1'; there are l2, rms, bernoulli_kl"):
        metrics.effect_distances(decode, z, Sweep(), KEY, "l1")
    with pytest.raises(ValueError, match=r"z must be \[N, d\].*not \[40\]"):
        metrics.effect_distances(decode, z[:, 0], Sweep(), KEY)
    with pytest.raises(ValueError, match=r"Wrong.values must be \[V, N, d\] = \[V, 40, 4\], not \[40, 4\]"):
        metrics.effect_distances(decode, z, Wrong(), KEY)
    with pytest.raises(ValueError, match="at least 2 categories"):
        metrics.intervention_specificity(np.ones((3, 1)))
    with pytest.raises(ValueError, match="at least 2 factors"):
        metrics.unit_selectivity(np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"responses must be \[d, units\]"):
        metrics.circuit_modularity(np.ones(3))
    with pytest.raises(ValueError, match="responses is empty"):
        metrics.modularity_over_sites(KEY, {})
    with pytest.raises(ValueError, match=r"untrained has sites \['b'\], but responses has \['a'\]"):
        metrics.modularity_over_sites(KEY, {"a": np.eye(2)}, untrained={"b": np.eye(2)})


# --- specificity and selectivity -------------------------------------------------------------------------


def test_specificity_of_hand_made_effects():
    effects = np.array([[3.0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 0, 0], [0, 0, 0, 0]])
    found = metrics.intervention_specificity(effects)
    entropy = np.array([0, np.log(4), np.log(2)])
    np.testing.assert_allclose(found.reported[:3], 1 / (entropy + 1e-6), rtol=1e-5)
    np.testing.assert_allclose(found.normalised[:3], 1 - entropy / np.log(4), atol=1e-6)
    assert np.isnan(found.reported[3]) and np.isnan(found.normalised[3])
    mean = metrics.mean_over(found.normalised, np.array([True, True, False, True]))
    assert mean.count == 2 and abs(float(mean.mean) - 0.5) < 1e-6
    scaled = metrics.intervention_specificity(effects * np.array([[7.0], [0.1], [100], [1]]))
    np.testing.assert_allclose(scaled.normalised[:3], found.normalised[:3], atol=1e-6)


def test_units_below_the_noise_floor_have_no_selectivity():
    effects = np.array([[1.0, 0.0], [0.5, 0.5], [0.01, 0.0]])
    found = metrics.unit_selectivity(effects, floor=np.array([0.1, 0.1, 0.1]))
    np.testing.assert_allclose(found.selectivity[:2], [1.0, 0.0], atol=1e-6)
    assert np.isnan(found.selectivity[2]) and found.counted.tolist() == [True, True, False]
    assert found.factor[0] == 0


# --- modularity ------------------------------------------------------------------------------------------


def test_modularity_is_one_less_the_mean_absolute_correlation():
    responses = np.random.default_rng(0).random((5, 30)).astype(np.float32)
    correlation = np.abs(np.corrcoef(responses.astype(np.float64)))
    expected = 1 - correlation[np.triu_indices(5, k=1)].mean()
    np.testing.assert_allclose(metrics.circuit_modularity(responses), expected, rtol=1e-5)
    order, units = np.array([3, 1, 4, 0, 2]), np.random.default_rng(1).permutation(30)
    moved = responses[order][:, units] * np.array([[1.0], [5], [0.1], [2], [3]], np.float32)
    np.testing.assert_allclose(metrics.circuit_modularity(moved), expected, rtol=1e-5)
    active = np.array([True, False, True, False, True])
    chosen = np.abs(np.corrcoef(responses[active].astype(np.float64)))[np.triu_indices(3, k=1)]
    np.testing.assert_allclose(metrics.circuit_modularity(responses, active), 1 - chosen.mean(), rtol=1e-5)


def test_modularity_of_hand_made_circuits():
    same = np.tile(np.arange(6.0), (3, 1))
    assert abs(float(metrics.circuit_modularity(same))) < 1e-6
    separate = np.array([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    assert abs(float(metrics.circuit_modularity(separate)) - 1) < 1e-6
    constant = np.array([[1.0, 2, 3, 5], [4, 4, 4, 4]])
    assert np.isnan(metrics.circuit_modularity(constant))


def test_nulls_of_modularity_lie_beside_it():
    responses = np.tile(np.arange(20.0), (3, 1))
    null = metrics.permuted_modularity(KEY, responses, num=50)
    assert null.shape == (50,) and 0.7 < null.mean() < 0.95  # 1 - E|r| of unrelated vectors of 20
    untrained = {"a": np.random.default_rng(0).random((3, 20)), "b": np.ones((3, 4))}
    found = metrics.modularity_over_sites(
        KEY, {"a": responses, "b": np.ones((3, 4))}, untrained=untrained, num=20
    )
    assert abs(float(found.mean)) < 1e-6  # of site a alone: site b is constant
    assert np.isnan(found.sites["b"]) and found.permuted["a"] > 0.7 and found.untrained["a"] > 0.5


# --- what is active, and errors of what is no mean -------------------------------------------------------


def test_active_latents_carry_information():
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(500, 3)) * np.array([1.0, 0.0, 0.05])
    log_variance = np.broadcast_to(np.log([0.1, 1.0, 1.0]), (500, 3))
    divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).mean(axis=0)
    np.testing.assert_allclose(metrics.kl_per_latent(mean, log_variance), divergence, rtol=1e-3, atol=1e-6)
    assert metrics.active_latents(mean, log_variance).tolist() == [True, False, False]
    assert metrics.active_latents(mean, log_variance, threshold=1e-4).tolist() == [True, False, True]


def test_the_bootstrap_of_a_mean_is_its_standard_error():
    samples = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    found = metrics.bootstrap_standard_error(KEY, samples, lambda mean: mean, num=400)
    np.testing.assert_allclose(found, samples.std(axis=0, ddof=1) / 20, rtol=0.15)
