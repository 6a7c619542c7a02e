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
from causalvae.adapters import complete

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


def published():
    sizes = {"encoder.layers.0.0": (8, 16), "encoder.embedding": (3, 8), "encoder.log_var": (3, 8)}
    sizes |= {"decoder.layers.0.0": (8, 3), "decoder.layers.1.0": (16, 8)}
    generator = np.random.default_rng(0)
    state = {f"{name}.weight": generator.normal(0, 0.5, shape) for name, shape in sizes.items()}
    state |= {f"{name}.bias": np.full(shape[0], 0.1) for name, shape in sizes.items()}
    state = {name: array.astype(np.float32) for name, array in state.items()}
    return *adapters.from_published(state, "pythae", (4, 4, 1)), None


def haiku():
    hk = pytest.importorskip("haiku")

    def network():
        encoder, decoder = hk.nets.MLP([5, 6], name="encoder"), hk.nets.MLP([16], name="decoder")
        encode = lambda x: jnp.split(encoder(hk.Flatten()(x)), 2, axis=1)  # noqa: E731
        decode = lambda z: jax.nn.sigmoid(decoder(z)).reshape(-1, 4, 4, 1)  # noqa: E731
        return lambda x: decode(encode(x)[0]), (encode, decode)

    transformed = hk.multi_transform(network)
    encode, decode = transformed.apply
    return adapters.from_haiku(encode=encode, decode=decode), transformed.init(KEY, X), None


MODELS = {
    "linen": (linen_vae, "encoder/hidden"),
    "nnx": (nnx_vae, "hidden"),
    "normalized": (normalized, "hidden"),
    "normalized nnx": (normalized_nnx, "hidden"),
    "functions": (functions, "encoder/projection"),
    "published": (published, "encoder/layers/0/0"),
    "haiku": (haiku, "encoder/~/linear_0"),
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


# --- models that stay in another framework ---------------------------------------------------------------

WEIGHTS = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)


def elsewhere(has_variance=False):
    """A model in numpy, as a stand-in for any other framework."""

    def encode(x):
        mean = x.reshape(len(x), -1) @ WEIGHTS
        return (mean, np.zeros_like(mean)) if has_variance else mean

    def decode(z):
        return 1 / (1 + np.exp(-z @ WEIGHTS.T)).reshape(-1, 4, 4, 1)

    options = {"image_shape": (4, 4, 1), "latents": 3, "has_variance": has_variance}
    return adapters.from_callback(encode, decode, **options)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_callback_is_run_as_any_model(noisy):
    model, inside = elsewhere(noisy), functions()[0]
    pairs = iv.Pairs(X, SOURCE).with_noise(KEY) if noisy else iv.Pairs(X, SOURCE)
    found = iv.patch_effects(model, None, pairs, "latent/z", chunk=4, per_pair=True)
    if not noisy:
        expected = iv.patch_effects(inside, jnp.asarray(WEIGHTS), pairs, "latent/z", per_pair=True)
        np.testing.assert_allclose(found.output_change, expected.output_change, atol=1e-5)
        z = inside.represent(jnp.asarray(WEIGHTS), X)
        strength = [
            cv.metrics.causal_effect_strength(m, params, z, iv.Sweep(), KEY)
            for m, params in ((model, None), (inside, jnp.asarray(WEIGHTS)))
        ]
        np.testing.assert_allclose(*strength, rtol=1e-5)
    else:
        whole = iv.patch_effects(model, None, pairs, "latent/z", chunk=100, per_pair=True)
        np.testing.assert_allclose(found.output_change, whole.output_change, atol=1e-5)


def test_a_callback_of_a_wrong_shape_is_told_so():
    model = adapters.from_callback(lambda x: x[:, :2], lambda z: z, image_shape=(4, 4, 1), latents=3)
    with pytest.raises(Exception, match=r"returned an array \[6, 2, 4, 1\], where \[6, 3\] was expected"):
        jax.block_until_ready(cv.run(model, None, X))


def numpy_linear(x, params, layer):
    return np.asarray(x) @ np.asarray(params[layer]["w"]) + np.asarray(params[layer]["b"])


def test_haiku_modules_are_tapped():
    model, params, _ = haiku()
    outputs, acts = cv.run(model, params, X, capture="*")
    hidden = np.maximum(numpy_linear(X.reshape(6, -1), params, "encoder/~/linear_0"), 0)
    np.testing.assert_allclose(outputs.z, numpy_linear(hidden, params, "encoder/~/linear_1")[:, :3], atol=1e-5)
    pixels = numpy_linear(outputs.z, params, "decoder/~/linear_0").reshape(X.shape)
    np.testing.assert_allclose(outputs.image, 1 / (1 + np.exp(-pixels)), atol=1e-5)
    assert {"encoder/~/linear_0", "encoder", "latent/z", "decoder/~/linear_0"} <= set(acts)


def test_an_equinox_module_is_two_functions_of_its_arrays():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(KEY)
    module = {"encoder": eqx.nn.Linear(16, 3, key=keys[0]), "decoder": eqx.nn.Linear(3, 16, key=keys[1])}
    params, static = eqx.partition(module, eqx.is_array)

    def encode(params, x):
        return jax.vmap(eqx.combine(params, static)["encoder"])(x.reshape(x.shape[0], -1))

    def decode(params, z):
        return jax.nn.sigmoid(jax.vmap(eqx.combine(params, static)["decoder"])(z)).reshape(-1, 4, 4, 1)

    model = adapters.from_functions(encode, decode)
    mediated = iv.mediate(model, params, (X, SOURCE), "latent/z", groups="site")
    np.testing.assert_allclose(mediated.indirect[0], mediated.total, atol=1e-4)
    with pytest.raises(ValueError, match="not an array: give a pytree of arrays .of an equinox module"):
        cv.run(model, eqx.nn.MLP(2, 2, 2, 1, key=KEY), X)


# --- an evaluation of somebody else's model --------------------------------------------------------------


@pytest.mark.parametrize("name", ["linen", pytest.param("functions", marks=pytest.mark.long)])
def test_everything_is_measured_of_a_model_that_is_not_ours(name, tmp_path):
    dataset = cv.planted.linear_world()
    shape = dataset.image_shape

    class Wide(nn.Module):
        def setup(self):
            self.encoder, self.decoder = LinenEncoder(), nn.Dense(int(np.prod(shape)))

        def __call__(self, x):
            return self.decoder(self.encoder(x)[0])

    images = dataset.sample(KEY, 4)[1]
    if name == "linen":
        params = Wide().init(KEY, images)
        decode = lambda m, z: nn.sigmoid(m.decoder(z)).reshape(-1, *shape)  # noqa: E731
        model = adapters.from_linen(Wide(), encode=lambda m, x: m.encoder(x), decode=decode)
    else:
        params = jax.random.normal(KEY, (int(np.prod(shape)), 3))
        model = adapters.from_functions(
            lambda w, x: x.reshape(x.shape[0], -1) @ w, lambda w, z: jax.nn.sigmoid(z @ w.T).reshape(-1, *shape)
        )
    sizes = dict(codes=60, test_codes=30, votes=20, images=8, pairs=4, effects=8)
    settings = cv.evaluation.Settings(**sizes, metrics="mig", sites="latent/z")
    found = cv.evaluate(model, params, dataset, settings)
    scores = {score.name: score.value for score in found.scores}
    assert np.isfinite([scores["mean_squared_error"], scores["ces_l2"], scores["mig"]]).all()
    outputs, _ = cv.run(model, params, found.images)
    np.testing.assert_allclose(found.reconstructed, outputs.image, atol=1e-4)
    whole = adapters.as_architecture(model, params, shape)
    assert whole.latents == 3 and adapters.as_architecture(whole, params, shape) is whole
    np.testing.assert_allclose(whole.represent(params, images), model.represent(params, images), atol=1e-6)
    paths = cv.figures.draw(found, whole, dataset, tmp_path)
    assert len(paths) == 6 and all(path.stat().st_size > 1000 for path in paths)
    drawn = whole.init(KEY)
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, params)


def test_the_total_correlation_of_a_map_is_said_to_be_undefined():
    from causalvae.evaluation.representations import Encoded, total_correlation_score

    model, params, _ = functions()
    whole = adapters.as_architecture(model, params, (4, 4, 1))
    encoded = Encoded(
        *[None] * 2,
        mean=jnp.ones((6, 2, 2, 3)),
        log_variance=jnp.zeros((6, 2, 2, 3)),
        **dict.fromkeys(Encoded._fields[4:]),
    )
    found = total_correlation_score(whole, encoded, KEY)
    assert found.value is None and found.note == "undefined: latents are a map, whose positions are no sample"


@pytest.mark.long
def test_a_map_of_latents_is_evaluated_drawn_and_explored(tmp_path):
    from experiments.explorer.explore import explore

    dataset = cv.planted.linear_world()
    height, width, _ = dataset.image_shape
    weights = jax.random.normal(KEY, (4, 3))

    def encode(w, x):  # a vector of 3 for each block of 2 x 2 pixels, as an AutoencoderKL has one of 4
        blocks = x.reshape(len(x), height // 2, 2, width // 2, 2).swapaxes(2, 3)
        mean = blocks.reshape(len(x), height // 2, width // 2, 4) @ w
        return mean, jnp.full_like(mean, -4.0)

    def decode(w, z):
        blocks = jax.nn.sigmoid(z @ w.T).reshape(len(z), height // 2, width // 2, 2, 2)
        return blocks.swapaxes(2, 3).reshape(len(z), height, width, 1)

    model = adapters.from_functions(encode, decode)
    sizes = dict(codes=60, test_codes=30, votes=20, images=4, pairs=4, effects=4)
    found = cv.evaluate(model, weights, dataset, cv.evaluation.Settings(**sizes, metrics="mig", sites="latent/z"))
    scores = {score.name: score for score in found.scores}
    assert scores["total_correlation"].note == "undefined: latents are a map, whose positions are no sample"
    images = dataset.sample(KEY, 5)[1]
    mean, log_variance = encode(weights, images)
    kl = 0.5 * (mean**2 + jnp.exp(log_variance) - log_variance - 1).sum(axis=(1, 2)).mean(axis=0)
    whole = adapters.as_architecture(model, weights, dataset.image_shape)
    np.testing.assert_allclose(whole.activity(weights, images), kl, rtol=1e-5)
    assert np.isfinite([scores[name].value for name in ("kl", "ces_l2", "mig", "mean_squared_error")]).all()
    assert len(cv.figures.draw(found, whole, dataset, tmp_path)) == 6
    assert len(explore(whole, weights, dataset, KEY, "latent/z", 2).latent_names) == 3


def test_what_is_no_weight_is_not_drawn_anew_and_a_variance_stays_one():
    module = NNXVAE(nnx.Rngs(0, noise=1))  # whose state holds keys and counts
    state = adapters.from_nnx(module)[1]
    params = {"state": state, "variance": jnp.linspace(0.0, 1.0, 50), "steps": jnp.arange(3)}
    drawn = jax.jit(complete._redrawn(params))(KEY)
    assert jax.tree.structure(drawn) == jax.tree.structure(params)
    for one, other in zip(jax.tree.leaves(drawn), jax.tree.leaves(params), strict=True):
        weights = jnp.issubdtype(one.dtype, jnp.floating) and jnp.std(other) > 0
        assert one.dtype == other.dtype and bool((one == other).all()) != bool(weights)
    assert drawn["variance"].min() >= 0


def test_a_model_without_parts_cannot_be_evaluated_and_says_what_it_needs():
    model, params, _ = normalized()
    with pytest.raises(ValueError, match="'Normalized' has no `encode`, which an evaluation, a figure or an explorer"):
        adapters.as_architecture(model, params, (4, 4, 1))
    loud = adapters.from_functions(lambda x: x.reshape(x.shape[0], -1), lambda z: 9 * z.reshape(-1, 4, 4, 1))
    with pytest.raises(ValueError, match="decodes values from 4.5 to 4.5: images are in"):
        adapters.as_architecture(loud, None, (4, 4, 1))
