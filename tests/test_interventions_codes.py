"""Discrete codes: swaps, knock-outs and exchanges against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import architectures, planted
from causalvae import interventions as iv

KEY = jax.random.key(0)
N = 4


def vq(kind):
    model = architectures.create("vq", (32, 32, 1), network="small", latents=4, codes=kind, num_codes=5)
    params = model.init(KEY)
    params["codebook"] = jax.random.normal(jax.random.key(1), params["codebook"].shape)
    x, source = jax.random.uniform(jax.random.key(2), (2, N, 32, 32, 1))
    # The decoder's kernels are small at the start: make codes matter.
    params["decoder"] = jax.tree.map(lambda p: 3 * p, params["decoder"])
    return model, spread(model, params, x), x, source


def spread(model, params, x):
    """A codebook on the encoder's own outputs, so that several codes are in use."""
    z = model.encode(params, x).mean.reshape(-1, params["codebook"].shape[0], params["codebook"].shape[2])
    return {
        **params,
        "codebook": z[jnp.array([0, 1, 2, 3, 0])].swapaxes(0, 1) * jnp.array([1, 1, 1, 1, 5.0])[None, :, None],
    }


@pytest.fixture(scope="module", params=["spatial", "latent"])
def case(request):
    return vq(request.param)


def image(model, params, found):
    return np.asarray(jax.nn.sigmoid(model.codebook.decode(params, found)))


def test_swaps_equal_a_loop(case):
    model, params, x, _ = case
    found = iv.quantize(model, params, x)
    flat = found.reshape(N, -1)
    assert len(np.unique(found)) > 1
    values = iv.CodeSwap(3).values(KEY, found)
    distances = iv.perturb_latents(model, params, found, iv.CodeSwap(3), KEY, chunk=7)
    assert distances.shape == (flat.shape[1], 3, N)
    for position in range(flat.shape[1]):
        swapped = flat.at[:, position].set(values[1].reshape(N, -1)[:, position]).reshape(found.shape)
        change = image(model, params, swapped) - image(model, params, found)
        np.testing.assert_allclose(distances[position, 1], np.linalg.norm(change.reshape(N, -1), axis=1), atol=1e-4)


def test_a_knock_out_equals_the_model_with_the_entry_moved_away(case):
    model, params, x, _ = case
    found = iv.quantize(model, params, x)
    result = iv.knock_out(model, params, x, chunk=3)
    groups, size, _ = params["codebook"].shape
    assert result.output_change.shape == (groups, size)
    for group in range(groups):
        for entry in range(size):
            without = {**params, "codebook": params["codebook"].at[group, entry].set(1e6)}
            moved = iv.quantize(model, without, x)
            change = image(model, params, moved) - image(model, params, found)
            expected = np.linalg.norm(change.reshape(N, -1), axis=1)
            np.testing.assert_allclose(result.output_change[group, entry], expected.mean(), atol=1e-4)
            held = np.asarray(found if groups == 1 else found[:, group]) == entry
            usage = held.reshape(N, -1).any(axis=1).mean()
            np.testing.assert_allclose(result.usage[group, entry], usage, atol=1e-6)
    per_use = np.asarray(result.per_use)
    assert np.isnan(per_use[np.asarray(result.usage) == 0]).all()
    some = iv.knock_out(model, params, x, entries=[2])
    np.testing.assert_allclose(some.output_change[:, 0], result.output_change[:, 2], atol=1e-5)


def test_exchange_between_images_is_a_patch_of_single_codes(case):
    model, params, x, source = case
    base, other = (iv.quantize(model, params, end) for end in (x, source))
    effects = iv.patch_effects(model, params, (x, source), "latent/codes", chunk=3, per_pair=True)
    flat = base.reshape(N, -1)
    assert effects.output_change.shape == (flat.shape[1], N)
    for position in range(flat.shape[1]):
        exchanged = flat.at[:, position].set(other.reshape(N, -1)[:, position]).reshape(base.shape)
        change = image(model, params, exchanged) - image(model, params, base)
        expected = np.linalg.norm(change.reshape(N, -1), axis=1)
        np.testing.assert_allclose(effects.output_change[position], expected, atol=1e-4)
    with pytest.raises(ValueError, match="codes, which have no mean"):
        iv.patch_effects(model, params, (x, source), "latent/codes", mode="mean")
    with pytest.raises(ValueError, match="codes, which have no gradient"):
        iv.attribution_effects(model, params, (x, source), "latent/codes")


def test_code_space_sees_what_a_small_continuous_change_does_not(case):
    model, params, x, _ = case
    z = model.encode(params, x).mean
    continuous = iv.perturb_latents(model, params, z, iv.Shift(1e-4), KEY)
    np.testing.assert_allclose(continuous, 0, atol=1e-6)
    swapped = iv.perturb_latents(model, params, iv.quantize(model, params, x), iv.CodeSwap(), KEY)
    assert swapped.mean() > 1e-3


def test_models_without_codes_are_refused():
    model, params = planted.MODEL, planted.plant("split").params
    x = jnp.zeros((2, *model.image_shape))
    for function in (iv.quantize, iv.knock_out):
        with pytest.raises(ValueError, match="model 'planted' has no `codebook`, which quantizing images needs"):
            function(model, params, x)
    with pytest.raises(ValueError, match="has no `codebook`, which decoding codes needs"):
        iv.perturb_latents(model, params, jnp.zeros((2, 3), jnp.int32), iv.CodeSwap(), KEY)
    model, params, x, _ = vq("spatial")
    with pytest.raises(ValueError, match=r"no entries of the codebook \[5\]: they are 0 to 4"):
        iv.knock_out(model, params, x, entries=[5])
    for function in (iv.quantize, iv.knock_out):
        with pytest.raises(ValueError, match="divide them by 255"):
            function(model, params, x.at[-1].multiply(255))
