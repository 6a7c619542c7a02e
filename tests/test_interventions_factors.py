"""Factor pairs, effects of factors, and manipulations of images, against loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import interventions as iv
from causalvae import planted
from causalvae.data import graphs, load
from causalvae.data.base import Dataset

KEY = jax.random.key(0)
WORLD = planted.linear_world(response=0.8, noise=1.0, modulation=0.4)
PLANTED = planted.plant("rotated", angle=0.3)
MODEL = PLANTED.model, PLANTED.params


def draw_attributes(arrays, key):
    """An image whose brightness is its number of positive attributes: labels that did not make the image."""
    factors = jax.random.bernoulli(key, 0.4, (5,)).astype(jnp.int32)
    return factors, jnp.broadcast_to(jnp.sum(factors) / 5.0, (4, 4, 1))


ATTRIBUTES = Dataset(
    name="faces", source="real", factor_names=tuple("abcde"), factor_sizes=(2,) * 5, image_shape=(4, 4, 1),
    factor_kind="attributes", pair=draw_attributes,
)  # fmt: skip


def test_pairs_differ_in_one_factor_and_share_the_instance():
    pairs = iv.counterfactuals(WORLD, KEY, "first", 64)
    changed = np.asarray(pairs.factors != pairs.factors_source)
    np.testing.assert_array_equal(changed, np.tile([True, False, False], (64, 1)))
    assert not pairs.observational and pairs.dataset == "linear_world (procedural)" and pairs.factor == 0
    # The instance's u, read off the mediator's block of either image, is the same.
    for x, factors in ((pairs.x, pairs.factors), (pairs.x_source, pairs.factors_source)):
        v, m = 1.5 * (2 * np.asarray(factors[:, 0]) - 1), (np.asarray(x[:, 0, 12, 0]) - 0.5) / 0.1
        u = (m - 0.8 * v) / (1 + 0.4 * v)
        np.testing.assert_allclose(u, u_of(pairs), atol=1e-4)
    assert u_of(pairs).std() > 0.3


def u_of(pairs):
    v, m = 1.5 * (2 * np.asarray(pairs.factors[:, 0]) - 1), (np.asarray(pairs.x[:, 0, 12, 0]) - 0.5) / 0.1
    return (m - 0.8 * v) / (1 + 0.4 * v)


def test_other_values_are_uniform_and_a_contrast_is_what_it_says():
    dataset = load("dsprites", source="procedural", strides=(1, 1, 8, 8, 8))
    pairs = iv.counterfactuals(dataset, KEY, "scale", 600)
    before, after = np.asarray(pairs.factors[:, 1]), np.asarray(pairs.factors_source[:, 1])
    counts = np.zeros((6, 6))
    np.add.at(counts, (before, after), 1)
    assert (np.diag(counts) == 0).all() and counts[~np.eye(6, dtype=bool)].min() >= 5
    contrast = iv.counterfactuals(dataset, KEY, 1, 8, contrast=(0, 5))
    np.testing.assert_array_equal(contrast.factors[:, 1], 0)
    np.testing.assert_array_equal(contrast.factors_source[:, 1], 5)


def test_all_values_of_a_factor_at_once():
    found = iv.counterfactuals_all_values(WORLD, KEY, "second", 5)
    assert found.x_values.shape == (2, 5, 4, 16, 1)
    np.testing.assert_array_equal(found.factors_values[:, :, 1], np.repeat([[0], [1]], 5, axis=1))
    own = np.asarray(found.factors[:, 1])
    np.testing.assert_allclose(found.x_values[own, np.arange(5)], found.x, atol=1e-6)


def test_a_factor_of_a_graph_takes_its_descendants_along():
    dataset = load("confounded_shapes")
    pairs = iv.counterfactuals(dataset, KEY, "object_hue", 64)
    names, adjacency = graphs.causal_graph("confounded_shapes")
    descendants = reachable(adjacency, names.index("object_hue"))
    changed = np.asarray(pairs.factors != pairs.factors_source).any(axis=0)
    for k, name in enumerate(names):
        assert changed[k] == (k in descendants or name == "object_hue"), name


def reachable(adjacency, start):
    found, todo = set(), [start]
    while todo:
        new = set(np.flatnonzero(adjacency[todo.pop()]).tolist()) - found
        found |= new
        todo += new
    return found


def test_attributes_give_matched_pairs_that_say_so():
    pairs = iv.counterfactuals(ATTRIBUTES, KEY, "b", 40)
    assert pairs.observational and pairs.dataset == "faces (real)"
    different = np.asarray(pairs.factors != pairs.factors_source)
    assert different[:, 1].all()
    # 320 candidates over 32 combinations: nearly every image finds one that agrees in all else.
    assert different[:, [0, 2, 3, 4]].mean() < 0.02
    np.testing.assert_allclose(pairs.x_source[:, 0, 0, 0], np.asarray(pairs.factors_source).sum(1) / 5, atol=1e-6)
    for function in (
        iv.counterfactuals_all_values,
        lambda *a: iv.factor_effects(PLANTED.model, PLANTED.params, ATTRIBUTES, KEY),
    ):
        with pytest.raises(ValueError, match="has attributes, not generative factors"):
            function(ATTRIBUTES, KEY, "b", 4)


def test_factor_effects_equal_their_closed_form():
    effects = iv.factor_effects(*MODEL, PLANTED.dataset, KEY, num=16, scale=jnp.ones(6))
    np.testing.assert_allclose(effects, planted.known_effects(PLANTED.truth), atol=1e-5)
    scaled = iv.factor_effects(*MODEL, PLANTED.dataset, KEY, num=16, scale=jnp.full(6, 2.0))
    np.testing.assert_allclose(scaled, effects / 2, atol=1e-6)


def test_effects_at_a_site_are_those_at_all_of_them():
    every = iv.factor_effects(*MODEL, PLANTED.dataset, KEY, ("encoder/*", "latent/z"), num=16)
    assert list(every) == ["encoder/hidden", "latent/z"]
    for site, effects in every.items():
        np.testing.assert_allclose(iv.factor_effects(*MODEL, PLANTED.dataset, KEY, site, num=16), effects, atol=1e-6)
    with pytest.raises(ValueError, match="no site 'encoder/hiden' in this model. Did you mean 'encoder/hidden'"):
        iv.factor_effects(*MODEL, PLANTED.dataset, KEY, "encoder/hiden", num=2)


def test_unit_effects_at_every_site_equal_a_loop():
    found = iv.factor_effects(*MODEL, PLANTED.dataset, KEY, "*", num=16)
    assert list(found)[:2] == ["encoder/hidden", "latent/mean"]
    read = np.asarray(PLANTED.params["encoder"]["hidden"])[:3]  # [K, units]
    factors = np.asarray(PLANTED.dataset.sample_factors(jax.random.split(KEY)[0], 16))
    hidden = []  # of every x under every value of every factor
    for k in range(3):
        for value in range(2):
            changed = factors.copy()
            changed[:, k] = value
            hidden.append(1.5 * (2.0 * changed - 1) @ read)
    scale = np.std(np.concatenate(hidden), axis=0)
    expected = np.where(read == 0, 0, 3.0 * np.abs(read) / np.where(scale > 0, scale, 1))
    np.testing.assert_allclose(found["encoder/hidden"], expected, rtol=1e-4)
    np.testing.assert_array_equal(np.asarray(found["decoder/logits"]).shape, (3, 1))


def test_windows_noise_brightness_and_translation_are_what_they_say():
    x = jax.random.uniform(KEY, (2, 8, 8, 1))
    window = iv.Occlude(size=4, stride=2, fill=0.25)
    assert window.grid((8, 8, 1)) == (3, 3) and window.count((8, 8, 1)) == 9
    hidden = np.array(x)
    hidden[:, 2:6, 4:8] = 0.25
    np.testing.assert_allclose(window.apply(KEY, x, 5), hidden)
    np.testing.assert_allclose(iv.Brightness(0.0, 2.0, 3).apply(KEY, x, 2), np.minimum(2 * np.asarray(x), 1))
    moved = np.concatenate([np.asarray(x)[:, :1]] * 2 + [np.asarray(x)[:, :-2]], axis=1)
    np.testing.assert_allclose(iv.Translate(2).apply(KEY, x, 1), moved)
    noisy = [np.asarray(iv.Noise(0.1, 2).apply(KEY, jnp.full_like(x, 0.5), v)) - 0.5 for v in (0, 1)]
    assert 0.07 < noisy[0].std() < 0.13 and np.abs(noisy[0] - noisy[1]).max() > 0.05


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_manipulations_equal_a_loop_whatever_the_chunk(chunk):
    x = PLANTED.dataset.sample(KEY, 5)[1]
    encode = lambda x: PLANTED.model.represent(PLANTED.params, x)  # noqa: E731
    window = iv.Occlude(size=4, stride=4, fill=0.9)
    changes = iv.manipulate_images(*MODEL, x, window, KEY, chunk=chunk)
    for v in range(window.count(x.shape[1:])):
        expected = encode(window.apply(KEY, x, v)) - encode(x)
        np.testing.assert_allclose(changes[v], expected, atol=1e-5)


def test_saliency_finds_the_block_that_a_latent_listens_to():
    dataset = planted.linear_world()
    model = planted.plant("disentangled")
    x = dataset.sample(KEY, 6)[1]
    maps = iv.saliency_maps(model.model, model.params, x, KEY, window=iv.Occlude(4, 4, 0.5))
    assert maps.shape == (6, 6, 1, 4)
    # Gray is value 0, so hiding block k moves latent k by 1.5 and no other; dead latents listen to nothing.
    np.testing.assert_allclose(maps[:, :3, 0, :3], np.broadcast_to(1.5 * np.eye(3), (6, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(maps[:, 3:], 0, atol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="has no factor 'fourth'"):
        iv.counterfactuals(WORLD, KEY, "fourth", 4)
    with pytest.raises(ValueError, match="num must be at least 1"):
        iv.counterfactuals(WORLD, KEY, 0, 0)
    with pytest.raises(ValueError, match="not two values of 'first', which are 0 to 1"):
        iv.counterfactuals(WORLD, KEY, 0, 4, contrast=(0, 2))
    constant = load("dsprites", source="procedural", strides=(3, 1, 8, 8, 8))
    with pytest.raises(ValueError, match="'shape' has only one value"):
        iv.counterfactuals(constant, KEY, "shape", 4)
    with pytest.raises(ValueError, match="window of 9 px"):
        iv.saliency_maps(*MODEL, jnp.zeros((1, 8, 8, 1)), KEY, window=iv.Occlude(9, 1))
    with pytest.raises(ValueError, match=r"images \[N, H, W, C\]"):
        iv.manipulate_images(*MODEL, jnp.zeros((8, 8)), iv.Noise(), KEY)
