"""What users get wrong is said in one sentence: images, parameters, edits, perturbations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import causalvae as cv
from causalvae import architectures, training
from causalvae import interventions as iv

MODEL = architectures.create("vae", (16, 16, 1), latents=3, network="small")
PARAMS = MODEL.init(jax.random.key(0))
X = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1))


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((2, 16, 16, 1), np.uint8), "images are uint8, but models take floats in \\[0, 1\\]: divide by 255"),
        (X * 255, "images are in \\[0, 1\\], but these reach 25[0-9.]+: divide them by 255"),
        (X.transpose(0, 3, 1, 2), r"vae takes images \[N, 16, 16, 1\], not \[2, 1, 16, 16\]. They have their channels"),
        (X[0], r"not \[16, 16, 1\]. This is one image: x\[None\] makes a batch"),
        (jnp.zeros((2, 32, 32, 3)), r"vae takes images \[N, 16, 16, 1\], not \[2, 32, 32, 3\]"),
    ],
)
def test_images_that_the_model_does_not_take(x, message):
    with pytest.raises(ValueError, match=message):
        cv.run(MODEL, PARAMS, x)
    with pytest.raises(ValueError, match=message):
        iv.patch_effects(MODEL, PARAMS, (x, x), "latent/z")


def test_parameters_that_are_not_the_models():
    other = architectures.create("vae", (16, 16, 1), latents=5, network="small")
    ensemble = jax.tree.map(lambda a: jnp.stack([a, a]), PARAMS)
    wrong = [
        ({"params": PARAMS}, "give what is inside"),
        (ensemble, r"leading member axis of 2: causalvae.training.member\(params, 0\)"),
        (other.init(jax.random.key(0)), "the parameters are of another model"),
        ({"encoder": PARAMS["encoder"], "decoder": {}}, r"params have no \['decoder'\]"),
        ({**PARAMS, "encoder": {"f": lambda x: x}}, r"params\['encoder'\]\['f'\] is a function, not an array"),
    ]
    for params, message in wrong:
        with pytest.raises(ValueError, match=message):
            cv.run(MODEL, params, X)
        with pytest.raises(ValueError, match=message):
            iv.perturb_latents(MODEL, params, jnp.zeros((2, 3)), iv.Sweep(), jax.random.key(0))
    found = cv.run(MODEL, training.member(ensemble, 1), X)[0].image
    np.testing.assert_array_equal(found, cv.run(MODEL, PARAMS, X)[0].image)
    discriminator = {**PARAMS, "discriminator": {"kernel": jnp.ones(2)}}  # what only a loss reads may be there
    np.testing.assert_array_equal(cv.run(MODEL, discriminator, X)[0].image, found)


def test_edits_and_perturbations_that_are_none():
    for edits, message in (
        ({"latent/z": 2.0}, "the edit of site 'latent/z' is a float: give an Edit, such as set_unit"),
        (cv.set_unit(1, 2.0), "edits say at which site: edits=.*, not a Edit alone"),
        ({"latent/z": cv.set_unit(-1, 0.0)}, "no unit -1 at 'latent/z': it has units 0 to 2, counted from the front"),
    ):
        with pytest.raises(ValueError, match=message):
            cv.run(MODEL, PARAMS, X, edits=edits)
    with pytest.raises(ValueError, match=r"is a \w+: give an Edit.*transform\(function, value\)"):
        cv.run(MODEL, PARAMS, X, edits={"latent/z": jnp.tanh})
    with pytest.raises(ValueError, match=r"takes \(activation, value\)"):
        cv.transform(lambda activation: activation)
    clamped = cv.run(MODEL, PARAMS, X, edits={"latent/z": cv.transform(jnp.minimum, -1.0)})[0].z
    assert float(clamped.max()) <= -1
    z = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"give a perturbation, Sweep\(\), not the class Sweep"):
        iv.perturb_latents(MODEL, PARAMS, z, iv.Sweep, jax.random.key(0))
    with pytest.raises(ValueError, match=r"z must be \[N, ..., d\] \(at least a row.*not \[0, 3\]"):
        iv.perturb_latents(MODEL, PARAMS, z[:0], iv.Sweep(), jax.random.key(0))
    with pytest.raises(ValueError, match="Sweep goes from low to high, not from 3 to -3"):
        iv.Sweep(3, -3)
