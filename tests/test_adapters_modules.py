"""Networks as people write them: VAEs in Linen and NNX that draw noise, normalize, drop out, return tuples, or hide
their parts in other transformations. Every adapter keeps rows apart and does not depend on the chunk."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import causalvae as cv
from causalvae import adapters
from causalvae import interventions as iv

X, SOURCE = jax.random.uniform(jax.random.key(0), (2, 6, 4, 4, 1))
KEY = jax.random.key(1)


class LinenEncoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(8, name="hidden")(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, name="mean")(h), nn.Dense(3, name="log_variance")(h)


class LinenDecoder(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.Dense(16, name="pixels")(nn.relu(nn.Dense(8, name="hidden")(z))).reshape(-1, 4, 4, 1)


class LinenVAE(nn.Module):
    """As in Flax's own example: the noise's key is an argument; logits, mean and log-variance are returned."""

    def setup(self):
        self.encoder, self.decoder = LinenEncoder(), LinenDecoder()

    def __call__(self, x, z_rng):
        mean, log_variance = self.encoder(x)
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(z_rng, mean.shape)
        return self.decoder(z), mean, log_variance


def linen_vae():
    module = LinenVAE()
    params = module.init(jax.random.key(2), X, KEY)
    encode, decode = lambda m, x: m.encoder(x), lambda m, z: nn.sigmoid(m.decoder(z))
    return adapters.from_linen(module, encode=encode, decode=decode), params, module


class NNXVAE(nnx.Module):
    """As in Flax's toy example: noise from the module's own streams."""

    def __init__(self, rngs):
        self.hidden, self.mean = nnx.Linear(16, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.log_variance, self.decoder = nnx.Linear(8, 3, rngs=rngs), nnx.Linear(3, 16, rngs=rngs)
        self.rngs = rngs

    def encode(self, x):
        h = nnx.relu(self.hidden(x.reshape(x.shape[0], -1)))
        return self.mean(h), self.log_variance(h)

    def decode(self, z):
        return nnx.sigmoid(self.decoder(z)).reshape(-1, 4, 4, 1)

    def __call__(self, x):
        mean, log_variance = self.encode(x)
        return self.decode(mean + jnp.exp(0.5 * log_variance) * jax.random.normal(self.rngs.noise(), mean.shape))


def nnx_vae():
    module = NNXVAE(nnx.Rngs(0, noise=1))
    return *adapters.from_nnx(module, encode=NNXVAE.encode, decode=NNXVAE.decode), module


class Normalized(nn.Module):
    """BatchNorm and Dropout as their defaults would have them: to be told at the call."""

    @nn.compact
    def __call__(self, x, training: bool = True):
        h = nn.Dense(8, name="hidden")(x.reshape(x.shape[0], -1))
        h = nn.BatchNorm(name="norm")(h, use_running_average=not training)
        h = nn.Dropout(0.5, name="drop")(nn.relu(h), deterministic=not training)
        return nn.Dense(16, name="pixels")(h).reshape(x.shape)


def normalized():
    module = Normalized()
    return adapters.from_linen(module), module.init(jax.random.key(3), X, training=False), module


class NormalizedNNX(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.norm = nnx.Linear(16, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.drop, self.pixels = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(8, 16, rngs=rngs)

    def __call__(self, x):
        h = self.drop(nnx.relu(self.norm(self.hidden(x.reshape(x.shape[0], -1)))))
        return self.pixels(h).reshape(x.shape)


def normalized_nnx():
    module = NormalizedNNX(nnx.Rngs(0))
    return *adapters.from_nnx(module), module


def functions():
    weights = jax.random.normal(jax.random.key(4), (16, 3))

    def encode(weights, x):
        return cv.tag("encoder/projection", x.reshape(x.shape[0], -1) @ weights)

    def decode(weights, z):
        return jax.nn.sigmoid(z @ weights.T).reshape(-1, 4, 4, 1)

    return adapters.from_functions(encode, decode), weights, None


MODELS = {
    "linen": (linen_vae, "encoder/hidden"),
    "nnx": (nnx_vae, "hidden"),
    "normalized": (normalized, "hidden"),
    "normalized nnx": (normalized_nnx, "hidden"),
    "functions": (functions, "encoder/projection"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("noisy", [False, True])
def test_a_row_does_not_depend_on_its_companions_nor_on_the_chunk(name, noisy):
    make, site = MODELS[name]
    model, params, _ = make()
    pairs = iv.Pairs(X, SOURCE).with_noise(KEY) if noisy else iv.Pairs(X, SOURCE)
    whole = iv.patch_effects(model, params, pairs, site, chunk=100, per_pair=True)
    assert np.asarray(whole.output_change).max() > 1e-4
    for chunk in (1, 4):
        found = iv.patch_effects(model, params, pairs, site, chunk=chunk, per_pair=True)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, found)
    first = jax.tree.map(lambda a: a[:2], pairs)
    some = iv.patch_effects(model, params, first, site, per_pair=True)
    np.testing.assert_allclose(some.output_change, whole.output_change[:, :2], atol=1e-5)
    mediated = iv.mediate(model, params, pairs, site, groups="site")
    assert np.isfinite(mediated.total).all()


@pytest.mark.parametrize("name", ["linen", "nnx", "functions"])
def test_latents_can_be_set_and_scored_where_parts_are_named(name):
    model, params, _ = MODELS[name][0]()
    outputs, acts = cv.run(model, params, X, capture="*")
    np.testing.assert_allclose(model.represent(params, X), outputs.z, atol=1e-6)
    strength = cv.metrics.causal_effect_strength(model, params, outputs.z, iv.Sweep(), KEY)
    assert strength.shape == (3,) and (np.asarray(strength) > 0).all()
    changed, _ = cv.run(model, params, X, edits={"latent/z": cv.set_unit(1, 2.0)})
    expected = model.decode(params, outputs.z.at[:, 1].set(2.0))
    np.testing.assert_allclose(changed.image, expected, atol=1e-6)
    noise = cv.run(model, params, X, key=KEY)[0].z - outputs.z
    assert (np.abs(np.asarray(noise)).max() > 0.1) == (name != "functions")  # which has no variance


def test_the_forward_pass_is_the_modules_own():
    model, params, module = linen_vae()
    mean, _ = module.bind(params).encoder(X)
    outputs, acts = cv.run(model, params, X, capture="*")
    np.testing.assert_allclose(outputs.z, mean, atol=1e-6)
    np.testing.assert_allclose(outputs.image, nn.sigmoid(module.bind(params).decoder(mean)), atol=1e-6)
    assert {"encoder/hidden", "encoder.0", "encoder.1", "latent/z", "decoder/hidden", "decoder"} <= set(acts)
    called = adapters.from_linen(module, lambda returned: nn.sigmoid(returned[0]), call=lambda m, x, key: m(x, KEY))
    image, _ = cv.run(called, params, X)
    np.testing.assert_allclose(image, nn.sigmoid(module.apply(params, X, KEY)[0]), atol=1e-6)
    model, params, module = nnx_vae()
    mean, _ = module.encode(X)
    np.testing.assert_allclose(cv.run(model, params, X)[0].image, module.decode(mean), atol=1e-6)


def test_an_nnx_module_that_draws_noise_needs_a_key_and_is_left_as_it_was():
    module = NNXVAE(nnx.Rngs(0, noise=1))
    before = int(module.rngs.noise.count[...])
    model, params = adapters.from_nnx(module)
    with pytest.raises(ValueError, match="NNXVAE draws noise of its own, which belongs to a run's key"):
        cv.run(model, params, X)
    one, two = (cv.run(model, params, X, key=KEY)[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert np.abs(np.asarray(cv.run(model, params, X, key=jax.random.key(9))[0] - one)).max() > 1e-3
    model.forward(params, X, KEY, cv.no_tap)  # outside jit
    assert int(module.rngs.noise.count[...]) == before


def test_training_mode_is_refused_in_words():
    class Training(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False, name="norm")(x)

    module = Training()
    variables = module.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="norm is a BatchNorm that was made with use_running_average=False"):
        cv.run(adapters.from_linen(module), variables, X)


class Hidden(nn.Module):
    """Submodules inside lifted transformations, one with a list among its fields, and values that are sown."""

    sizes: list

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(self.sizes[0], name="first")(x.reshape(x.shape[0], -1))
        self.sow("intermediates", "h", h)
        h = nn.remat(LinenDecoder)(name="remat")(h[:, :3])
        return nn.jit(nn.Dense)(1, name="jitted")(h)


def test_what_is_inside_another_transformation_is_no_site_and_leaks_nothing():
    module = Hidden([5])
    variables = module.init(jax.random.key(0), X)
    model = adapters.from_linen(module)
    image, acts = cv.run(model, variables, X, capture="*")
    np.testing.assert_allclose(image, module.apply(variables, X), atol=1e-6)
    assert list(acts)[0] == "first" and not any("remat/" in site for site in acts)
    effects = iv.patch_effects(model, variables, (X, SOURCE), "first")
    assert np.isfinite(effects.output_change).all()


class Jitted(nnx.Module):
    def __init__(self, rngs):
        self.inner, self.outer = NNXInner(rngs), nnx.Linear(5, 16, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.inner(x.reshape(x.shape[0], -1))).reshape(x.shape)


class NNXInner(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(16, 5, rngs=rngs)

    @nnx.jit
    def __call__(self, x):
        return self.linear(x)


def test_the_parts_of_a_jitted_nnx_module_are_sites():
    module = Jitted(nnx.Rngs(0))
    expected = module(X)
    model, params = adapters.from_nnx(module)
    image, acts = cv.run(model, params, X, capture="*")
    assert list(acts) == ["inner/linear", "inner", "outer"]
    np.testing.assert_allclose(image, expected, atol=1e-6)
    np.testing.assert_allclose(module(X), expected, atol=1e-6)


def test_a_tag_is_a_site_in_a_run_and_nothing_elsewhere():
    def forward(params, x, key):
        z = cv.tag("latent/z", x.reshape(x.shape[0], -1) @ params)
        return (z @ params.T).reshape(x.shape)

    params = jax.random.normal(KEY, (16, 2))
    np.testing.assert_array_equal(cv.tag("latent/z", X), X)
    model = adapters.from_forward(forward)
    image, acts = cv.run(model, params, X, edits={"latent/z": cv.set_unit(0, 1.0)}, capture="*")
    z = (X.reshape(6, -1) @ params).at[:, 0].set(1.0)
    np.testing.assert_allclose(image, (z @ params.T).reshape(X.shape), atol=1e-5)
    assert list(acts) == ["latent/z"]
    np.testing.assert_allclose(forward(params, X, None), cv.run(model, params, X)[0], atol=1e-5)


def test_an_encoder_that_returns_something_else_is_told_what():
    model = adapters.from_functions(lambda x: (x, x, x), lambda z: z)
    with pytest.raises(ValueError, match=r"this one returned a tuple of an array \[6, 4, 4, 1\]"):
        cv.run(model, None, X)
