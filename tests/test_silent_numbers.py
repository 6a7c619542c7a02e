"""What used to give numbers without a word, or an error of the framework, to somebody with a network of functions."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import causalvae as cv
from causalvae import adapters, architectures, metrics
from causalvae import interventions as iv
from causalvae._inputs import check_images

KEY = jax.random.key(0)
SHAPE = (4, 3, 1)
PARAMS = {"in": jax.random.normal(KEY, (12, 2)) / 4, "out": jax.random.normal(KEY, (2, 12))}
X = jax.random.uniform(KEY, (6, *SHAPE))
Z = jax.random.normal(KEY, (6, 2))
SWEEP = iv.Sweep(num=2)


def encode(params, x):
    return x.reshape(x.shape[0], -1) @ params["in"]


def logits(params, z):
    return 5 * (cv.tag("decoder/hidden", z) @ params["out"]).reshape(-1, *SHAPE)


def decode(params, z):
    return jax.nn.sigmoid(logits(params, z))


MODEL, LOGITS = adapters.from_functions(encode, decode), adapters.from_functions(encode, logits)
KNOWN = adapters.from_functions(encode, decode, image_shape=SHAPE)


def broken(name="out"):
    return {**PARAMS, name: PARAMS[name].at[0, 0].set(jnp.nan)}


def strength(params=PARAMS, z=Z, perturbation=SWEEP, key=KEY, model=MODEL, **options):
    return metrics.effect_strength_with_error(model, params, z, perturbation, key, **options)


# --- images ----------------------------------------------------------------------------------------------


def test_images_of_a_network_of_functions_are_checked():
    for x, message in (
        (
            X.transpose(0, 3, 1, 2),
            r"this model takes images \[N, 4, 3, 1\], not \[6, 1, 4, 3\]. They have their channels",
        ),
        (X.reshape(6, -1), r"takes images \[N, 4, 3, 1\], not \[6, 12\]"),
        (X[..., 0], r"not \[6, 4, 3\]"),
        (X[0], r"This is one image: x\[None\]"),
        (jnp.stack([X, X]), r"not \[2, 6, 4, 3, 1\]. Two arrays, stacked\? Pairs are a tuple"),
        (X * 3, r"but these reach [0-9.]+: divide them by 255"),
    ):
        with pytest.raises(ValueError, match=message):
            iv.patch_effects(KNOWN, PARAMS, x, "latent/z", mode="zero")
    for images in (X * 255, np.float64(X * 255)):
        with pytest.raises(
            ValueError, match="these images reach 2[0-9.]+, and images are in .*let its encode function"
        ):
            cv.run(MODEL, PARAMS, images)
    assert cv.run(MODEL, PARAMS, 8 * (X - 0.5))[0].z.shape == (6, 2)  # standardized images: the network's own affair
    assert cv.run(lambda params, x, key, tap: x, PARAMS, 100 * X[:, :, 0, 0])[0].max() > 20  # no images at all
    with pytest.raises(ValueError, match=r"takes images \[N, 4, 3, 1\], not \[1, 4, 16, 1\]"):
        iv.factor_effects(KNOWN, PARAMS, cv.planted.linear_world(), KEY, num=2)
    ours = architectures.create("vae", (16, 16, 1), latents=2, network="small")
    x = jnp.linspace(-1, 1, 256).reshape(1, 16, 16, 1)
    with pytest.raises(ValueError, match=r"these go down to -1: of \[-1, 1\], give \(x \+ 1\) / 2"):
        check_images(ours, x)
    with pytest.raises(ValueError, match="divide them by 255"):
        iv.manipulate_images(MODEL, PARAMS, X * 255, iv.Brightness(num=1), KEY)


def test_every_adapter_knows_the_shape_of_images():
    made = adapters.from_functions(encode, decode, image_shape=list(SHAPE))
    assert made.image_shape == SHAPE and made.forward is KNOWN.forward is MODEL.forward and MODEL.image_shape is None
    whole = adapters.from_forward(lambda params, x: x, image_shape=SHAPE)
    with pytest.raises(ValueError, match="channels first"):
        cv.run(whole, None, X.transpose(0, 3, 1, 2))


# --- numbers that are none -------------------------------------------------------------------------------


@pytest.mark.parametrize("perturbation", [SWEEP, iv.Resample(2), iv.Shift(1.0)])
def test_strength_of_what_is_nan_is_refused(perturbation):
    with pytest.raises(ValueError, match="NaN or infinite at site 'decoder/image' .the first one in the forward pass"):
        strength(broken(), perturbation=perturbation)
    for z, message in (
        (Z.at[3, 1].set(jnp.nan), "z is NaN or infinite in 1 of 6 points, the first of them in row 3"),
        (Z.at[3, 1].set(jnp.inf), "z is NaN or infinite in 1 of 6 points"),
    ):
        with pytest.raises(ValueError, match=message):
            strength(z=z, perturbation=perturbation)


def test_other_results_that_are_nan_are_refused():
    for response in ("l2", "outputs", ("latents", "sites")):
        with pytest.raises(ValueError, match="NaN or infinite at site 'decoder/image'"):
            iv.perturb_latents(MODEL, broken(), Z, SWEEP, KEY, response=response)
    with pytest.raises(ValueError, match="values of Shift, which latents are to be set to, are NaN"):
        strength(perturbation=iv.Shift(1.0, scale=jnp.array([1.0, jnp.nan])))
    with pytest.raises(ValueError, match="or too large to measure, though as they are it is not"):
        strength(model=LOGITS, perturbation=iv.Sweep(1e30, 1e30, 1))
    example = cv.planted.plant("disentangled")
    spoiled = jax.tree.map(lambda a: a * jnp.nan, example.params)
    with pytest.raises(ValueError, match="what is measured of the images is NaN"):
        iv.factor_effects(example.model, spoiled, example.dataset, KEY, num=2)
    with pytest.raises(ValueError, match="at site 'encoder/hidden'"):
        iv.factor_effects(example.model, spoiled, example.dataset, KEY, ("encoder/hidden", "latent/z"), num=2)
    with pytest.raises(ValueError, match="what is measured of the images is NaN"):
        iv.manipulate_images(MODEL, broken("in"), X, iv.Brightness(num=1), KEY)

    def undefined(base, changed):  # what a function of yours says, NaN too, is its own affair
        return jnp.where(base.image[:, 0, 0, 0] > 2, 1.0, jnp.nan)

    assert np.isnan(iv.perturb_latents(MODEL, PARAMS, Z, SWEEP, KEY, response=undefined)).all()
    traced = jax.jit(lambda params: iv.perturb_latents(MODEL, params, Z, SWEEP, KEY))(broken())
    assert np.isnan(traced).all()  # traced values cannot be looked at

    def inside(params):  # what is known while something else is traced is looked at
        z = cv.run(KNOWN, params, X)[0].z
        kl = iv.perturb_latents(KNOWN, PARAMS, Z, SWEEP, KEY, response="bernoulli_kl")
        return z, kl, iv.patch_effects(MODEL, params, (X, X[::-1]), "latent/z").recovery

    assert all(np.isfinite(found).all() for found in jax.jit(inside)(PARAMS))
    bright = 3 * X
    with pytest.raises(ValueError, match="these reach"):
        jax.jit(lambda params: cv.run(KNOWN, params, bright)[0].z)(PARAMS)


def test_summaries_say_what_they_take():
    distances = np.ones((2, 3, 4), np.float32)
    for wrong, message in (
        (distances[0], r"distances must be \[d, V, N\].*not \[3, 4\]: the responses l2"),
        (distances[..., None], r"not \[2, 3, 4, 1\]"),
        ({"l2": distances, "rms": distances}, r"the responses l2, rms: give the distances of one, found\['l2'\]"),
        (np.where(np.arange(2)[:, None, None] == 1, np.nan, distances), r"NaN or infinite, of latents \[1\]"),
    ):
        for summary in (metrics.effect_strength, metrics.overall_strength):
            with pytest.raises(ValueError, match=message):
                summary(wrong)
    with pytest.raises(ValueError, match=r"not \[2, 3, 4\]: flatten the categories, effects.reshape"):
        metrics.intervention_specificity(distances)
    effects = np.ones((3, 4))
    effects[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"effects are NaN or infinite, in rows \[1\]"):
        metrics.intervention_specificity(effects)
    effects[:, 2] = np.nan  # a factor with one value
    assert np.isnan(metrics.intervention_specificity(effects).normalized).all()


# --- what is set, and on what it is measured -------------------------------------------------------------


def test_responses_and_keys():
    with pytest.raises(ValueError, match="logits decodes values from -.*bernoulli_kl is a distance of probabilities"):
        strength(model=LOGITS, distance="bernoulli_kl")
    assert np.isfinite(strength(distance="bernoulli_kl").mean).all()

    def average(base, changed):
        return jnp.mean(changed.image)

    with pytest.raises(
        ValueError, match=r"average\(base, changed\) must return a value for each of its 6 rows.*not \[\]"
    ):
        strength(distance=average)
    for perturbation in (iv.Resample(2), iv.Prior(2)):
        with pytest.raises(ValueError, match=r"key must be a key of JAX, such as jax.random.key\(0\), not 0"):
            strength(perturbation=perturbation, key=0)
    assert np.isfinite(strength(key=None).mean).all()  # a sweep draws nothing
    for call in (
        lambda: iv.counterfactuals(cv.planted.linear_world(), 0, 0, 2),
        lambda: iv.Pairs(X, X).with_noise(0),
        lambda: iv.Pairs(X, X).resample(0),
    ):
        with pytest.raises(ValueError, match="key must be a key of JAX"):
            call()
    assert iv.Pairs(X, X).with_noise(jax.random.PRNGKey(0)).keys.shape == (6, 2)  # the old kind of key


def test_pairs_that_are_none():
    for pairs in ((X, X, X), [X], (X, X, None, None)):
        with pytest.raises(ValueError, match=rf"pairs are a tuple \(x, x_source\).*not of {len(pairs)}"):
            iv.patch_effects(MODEL, PARAMS, pairs, "latent/z")
    for pairs in ((X, X), (X, np.array(X)), X):
        with pytest.warns(UserWarning, match="x and x_source are the same images: nothing is exchanged"):
            assert np.isnan(iv.patch_effects(MODEL, PARAMS, pairs, "latent/z").recovery).all()
    with pytest.warns(UserWarning, match="the same images"):
        iv.mediate(MODEL, PARAMS, (X, X), "latent/z")
    with warnings.catch_warnings(action="error"):
        iv.patch_effects(MODEL, PARAMS, (X, X), "latent/z", mode="zero")
        iv.patch_effects(MODEL, PARAMS, (X, X[::-1]), "latent/z")


def test_one_name_for_two_values_is_said():
    def twice(params, x):
        return encode(params, cv.tag("hidden", cv.tag("hidden", x)))

    with pytest.warns(UserWarning, match="two values of one run are named 'hidden'"):
        cv.run(adapters.from_functions(twice, decode), PARAMS, X)


# --- errors of the framework -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, note",
    [
        (lambda: strength(z=jnp.ones((6, 4))), r"While running decode on z \[6, 4\] with params of 'in', 'out'"),
        (lambda: strength({"in": PARAMS["in"]}), r"While running decode on z \[6, 2\] with params of 'in'"),
        (lambda: strength(None), "with params None: its functions are called without params"),
        (lambda: cv.run(MODEL, PARAMS, X[:, :2]), r"While running encode on x \[6, 2, 3, 1\]"),
        (lambda: cv.site_shapes(MODEL, PARAMS, X[0]), r"While running encode on x \[4, 3, 1\]"),
        (
            lambda: iv.patch_effects(MODEL, PARAMS, jnp.stack([X, X]), "latent/z"),
            r"two arrays, stacked\? Pairs are a tu",
        ),
        (
            lambda: cv.run(lambda p, x, key, tap: x @ p["w"], {"w": X}, X),
            r"While running the model on x \[6, 4, 3, 1\]",
        ),
    ],
)
def test_an_error_says_what_was_run_on_what(call, note):
    with pytest.raises((TypeError, KeyError, ValueError)) as raised:
        call()
    notes = [one for one in raised.value.__notes__ if one.startswith("While running")]
    assert len(notes) == 1
    raised.match(note)


# --- tables ----------------------------------------------------------------------------------------------


def test_tables_of_what_latents_do():
    found = iv.perturb_latents(MODEL, PARAMS, Z, SWEEP, KEY, response=("latents", "outputs", "sites"))
    table = cv.frame(found["latents"], axes="set latent")
    assert list(table.columns) == ["set", "latent", "effect"] and table.set.tolist() == ["z0", "z0", "z1", "z1"]
    np.testing.assert_array_equal(table.query("set == 'z1' and latent == 'z0'").effect, found["latents"][1, 0])
    assert set(cv.frame(found["latents"], axes="set latent", latents=["a", "b"]).set) == {"a", "b"}
    table = cv.frame(found["outputs"], axes="latent row column channel")
    np.testing.assert_array_equal(
        table.query("latent == 'z1' and row == 2 and column == 1").effect, found["outputs"][1, 2, 1]
    )
    table = cv.frame(found["sites"], axes="latent unit")
    assert list(table.columns) == ["site", "latent", "unit", "effect"]
    np.testing.assert_array_equal(
        table.query("site == 'decoder/hidden' and latent == 'z1'").effect, found["sites"]["decoder/hidden"][1]
    )
    with pytest.raises(ValueError, match=r"no table is known of an array \[2, 4, 3, 1\] by itself: name its axes"):
        cv.frame(found["outputs"])
    for axes in ("latent", "latent latent"):
        with pytest.raises(ValueError, match=r"do not name the axes of an array \[2, 2\]"):
            cv.frame(found["latents"], axes=axes)


def test_the_error_of_a_part_of_the_image_is_that_of_its_distances():
    def corner(base, changed):
        return jnp.abs(changed.image - base.image)[:, :2, :1].mean(axis=(1, 2, 3))

    perturbation = iv.Resample(3)
    distances = iv.perturb_latents(MODEL, PARAMS, Z, perturbation, KEY, response=corner)
    expected = metrics.effect_strength(distances, perturbation.sources(KEY, Z))
    found = strength(perturbation=perturbation, distance=corner)
    np.testing.assert_array_equal(found, expected)
