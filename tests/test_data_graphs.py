"""Sets with a causal graph: mechanisms, interventions and counterfactuals against closed forms in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae.data import graphs, load

NUM = 20_000
NAMES = ("pendulum", "confounded_shapes")
sample_factors = jax.jit(lambda dataset, key: dataset.sample_factors(key, NUM))


@functools.cache
def sampled(name):
    dataset = load(name)
    return dataset, np.asarray(sample_factors(dataset, jax.random.key(0)))


def probabilities(mean, spread, size):
    """P(value) of clip(floor(mean + U(-spread, spread) + 1/2)), from the uniform's distribution function."""
    edges = np.concatenate([[-np.inf], np.arange(1, size) - 0.5, [np.inf]])
    return np.diff(np.clip((edges - mean + spread) / (2 * spread), 0, 1))


def laplace_probabilities(mean, spread, size):
    """P(value) of clip(floor(mean + Laplace(spread) + 1/2)), from that distribution's function."""
    edges = np.concatenate([[-np.inf], np.arange(1, size) - 0.5, [np.inf]]) - mean
    return np.diff(0.5 + 0.5 * np.sign(edges) * -np.expm1(-np.abs(edges) / spread))


HUE = [laplace_probabilities(5 * b / 3, 2.5, 6) for b in range(4)]  # P(hue | background)
SCALE = [laplace_probabilities(hue, 2.5, 6) for hue in range(6)]  # P(scale | hue)


def pendulum_mean(light, pendulum):
    """Mean position and length of the shadow on their grids, by intersecting the sun's ray with the floor."""
    light, pendulum = (np.pi / 5 * (2 * index / 15 - 1) for index in (light, pendulum))
    points = np.array([[32, 16], [32 + 22 * np.sin(pendulum), 16 + 22 * np.cos(pendulum)]])
    sun = np.array([32 - 42 * np.sin(light), 52 - 42 * np.cos(light)])
    ray = np.array([32, 52]) - sun  # the rays are parallel
    x = [point[0] + ray[0] * (52 - point[1]) / ray[1] for point in points]
    return (np.mean(x) - 6) / 52 * 15, abs(x[1] - x[0]) / 26 * 11


@pytest.mark.parametrize("name", NAMES)
def test_factors_stay_on_their_grids_and_reach_all_of_them(name):
    dataset, factors = sampled(name)
    assert factors.dtype == np.int32
    for k, size in enumerate(dataset.factor_sizes):
        np.testing.assert_array_equal(np.unique(factors[:, k]), np.arange(size))


def test_roots_are_uniform():
    for name, roots in (("pendulum", (0, 1)), ("confounded_shapes", (0, 4, 5))):
        dataset, factors = sampled(name)
        for k in roots:
            share = np.bincount(factors[:, k]) / NUM
            np.testing.assert_allclose(share, 1 / dataset.factor_sizes[k], atol=0.015)


def test_shadows_follow_the_geometry_within_one_step_of_noise():
    _, factors = sampled("pendulum")
    for row in factors[:300]:
        means = pendulum_mean(*row[:2].astype(float))
        for value, mean, size in zip(row[2:], means, (16, 12), strict=True):
            allowed = np.clip([np.floor(mean - 0.5), np.floor(mean + 1.5)], 0, size - 1)
            assert allowed[0] <= value <= allowed[1]


def test_mechanisms_of_confounded_shapes_have_the_stated_probabilities():
    _, factors = sampled("confounded_shapes")
    background, hue, scale, height = factors.T[:4]
    for value in range(4):
        share = np.bincount(hue[background == value], minlength=6) / (background == value).sum()
        np.testing.assert_allclose(share, HUE[value], atol=0.03)
        assert HUE[value].min() > 0.04  # overlap: adjustment is possible
    for value in range(6):
        share = np.bincount(scale[hue == value], minlength=6) / (hue == value).sum()
        np.testing.assert_allclose(share, SCALE[value], atol=0.04)
    cell = (background == 0) & (hue == 0) & (scale == 5)
    share = np.bincount(height[cell], minlength=8) / cell.sum()
    np.testing.assert_allclose(share, probabilities(7 * 0.4, 1.5, 8), atol=0.1)


def test_intervening_differs_from_conditioning_as_the_adjustment_formula_says():
    dataset, factors = sampled("confounded_shapes")
    background, hue, _, height = factors.T[:4]
    values = jnp.full(NUM, 5)
    done = np.asarray(dataset.intervene(jnp.asarray(factors), "object_hue", values, jax.random.key(1)))
    adjusted = np.full(4, 0.25) @ height_given(5)
    assert done[:, 3].mean() == pytest.approx(adjusted, abs=0.04)
    assert height[hue == 5].mean() - adjusted > 0.2  # the confounder's bias


def height_given(hue):
    """E[pos_y | background, hue] [4]: the sum over m of P(m | hue) E[y | background, hue, m]."""
    means = [[7 * (0.3 * c / 3 + 0.3 * hue / 5 + 0.4 * m / 5) for m in range(6)] for c in range(4)]
    return np.array([[probabilities(mean, 1.5, 8) @ np.arange(8) for mean in row] for row in means]) @ SCALE[hue]


def test_every_hue_is_confounded_with_height():
    """E[pos_y | hue] and E[pos_y | do(hue)] differ at every value; uniform noise of 6 steps left four of six alike."""
    _, factors = sampled("confounded_shapes")
    background, hue = factors.T[:2]
    for value in range(6):
        posterior = np.array([HUE[b][value] for b in range(4)])
        posterior = posterior / posterior.sum()
        np.testing.assert_allclose(np.bincount(background[hue == value]) / (hue == value).sum(), posterior, atol=0.04)
        bias = (posterior - 0.25) @ height_given(value)
        assert bias * (value - 2.5) > 0 and abs(bias) > 0.08, (value, bias)


@pytest.mark.parametrize("name", NAMES)
def test_interventions_recover_the_true_graph(name):
    dataset, factors = sampled(name)
    graph = graphs.causal_graph(name)
    assert graph.factor_names == dataset.factor_names
    num = len(graph.factor_names)
    reach = np.linalg.matrix_power(np.eye(num, dtype=int) + graph.adjacency, num) > 0
    found = np.zeros((num, num), bool)
    for k in range(num):
        # Under the noise that drew the factors, only what the intervention causes can change.
        values = jnp.asarray((factors[:, k] + 1) % dataset.factor_sizes[k])
        done = np.asarray(dataset.intervene(jnp.asarray(factors), k, values, jax.random.key(0)))
        np.testing.assert_array_equal(done[:, k], values)
        found[k] = (done != factors).any(0)
    np.testing.assert_array_equal(found, reach)


def test_direct_causes_change_an_effect_while_its_other_causes_are_held():
    _, factors = sampled("confounded_shapes")
    graph = graphs.causal_graph("confounded_shapes")
    edges = {(graph.factor_names[i], graph.factor_names[j]) for i, j in np.argwhere(graph.adjacency)}
    assert edges == {
        ("background", "object_hue"),
        ("background", "pos_y"),
        ("object_hue", "scale"),
        ("object_hue", "pos_y"),
        ("scale", "pos_y"),
    }
    background, hue, scale, height = factors.T[:4]
    for cause, others in ((background, (hue, scale)), (hue, (background, scale)), (scale, (background, hue))):
        held = (others[0] == 0) & (others[1] == 0)
        assert height[held & (cause == cause.max())].mean() > height[held & (cause == 0)].mean() + 0.5


@pytest.mark.parametrize("name", NAMES)
def test_do_nothing_under_the_same_noise_changes_nothing(name):
    dataset, factors = sampled(name)
    for k in range(dataset.num_factors):
        done = dataset.intervene(jnp.asarray(factors), k, jnp.asarray(factors[:, k]), jax.random.key(0))
        np.testing.assert_array_equal(done, factors)


@pytest.mark.parametrize("name", NAMES)
def test_images(name):
    dataset, factors = sampled(name)
    images = dataset.render(jnp.asarray(factors[:64]), jax.random.key(0))
    assert images.shape == (64, 64, 64, 3) and images.dtype == jnp.float32
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    for k, size in enumerate(dataset.factor_sizes):
        changed = factors[:64].copy()
        changed[:, k] = (changed[:, k] + size // 2) % size
        difference = dataset.render(jnp.asarray(changed), jax.random.key(0)) - images
        assert (np.abs(difference).max((1, 2, 3)) > 0.05).all(), dataset.factor_names[k]


def test_the_shadow_is_drawn_where_its_factors_say():
    factors = np.array([[8, 8, position, length] for position in (0, 7, 15) for length in (3, 11)])
    images = np.asarray(load("pendulum").render(jnp.asarray(factors), jax.random.key(0)))
    for row, image in zip(factors, images, strict=True):
        columns = np.nonzero(image[57].sum(-1) < 1.2)[0]
        center, half = 6 + 52 * row[2] / 15, 13 * row[3] / 11 + 2  # with its round ends
        expected = np.clip([center - half, center + half], 0, 64)
        np.testing.assert_allclose([columns[0], columns[-1] + 1], expected, atol=1.1)


def test_a_set_without_a_graph_is_named_with_those_that_have_one():
    with pytest.raises(ValueError, match="'dsprites' has no causal graph.*pendulum, confounded_shapes"):
        graphs.causal_graph("dsprites")


def test_source_real_does_not_exist():
    with pytest.raises(ValueError, match="pendulum exists only as a procedural set"):
        load("pendulum", source="real")


@pytest.mark.parametrize("name", NAMES)
def test_a_traced_factor_is_intervened_on_as_one_that_is_known(name):
    dataset, factors = sampled(name)
    factors, key = jnp.asarray(factors[:64]), jax.random.key(3)
    traced = jax.jit(lambda k: dataset.intervene(factors, k, jnp.ones(64), key))
    for k in range(dataset.num_factors):
        np.testing.assert_array_equal(traced(k), dataset.intervene(factors, k, jnp.ones(64), key))
    assert traced._cache_size() == 1
