"""The architectures: each one NamedTuple of pure functions over a parameter pytree, in the table at the end.

They differ in their objective and in nothing else. Hyper-parameters are arguments of the loss (arrays, so that
members of one ensemble can differ in them); functions are shared wherever they are the same, so that models
with the same network share their compiled interventions.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae import models, objectives
from causalvae.sites import Tap, no_tap

PyTree = Any


class Posterior(NamedTuple):
    """q(z|x) = N(mean, exp(log_variance)); both [B, d]."""

    mean: jax.Array
    log_variance: jax.Array


class Outputs(NamedTuple):
    """What a forward pass returns."""

    image: jax.Array  # [B, H, W, C] in [0, 1]: sigmoid of the logits, the decoder's mean image
    logits: jax.Array  # [B, H, W, C]
    z: jax.Array  # [B, ..., d]: the value at site latent/z, the last axis the latents
    posterior: Posterior


class LossInfo(NamedTuple):
    """What a loss reports beside its value."""

    metrics: dict[str, jax.Array]  # scalars in nats unless the name says otherwise, and kl_per_latent [d]
    updates: dict[str, PyTree]  # top-level parameters that are set, not descended (moving averages)


class Architecture(NamedTuple):
    """A model: pure functions over a parameter pytree, which is a plain dict with keys such as "encoder"."""

    name: str
    image_shape: tuple[int, int, int]
    latents: int  # size of the last axis of site latent/z
    hyper: Mapping[str, float]  # the loss's hyper-parameters with their values
    init: Callable  # (key) -> params
    forward: Callable  # (params, x, key, tap) -> Outputs; key None takes the posterior mean
    encode: Callable  # (params, x, tap=no_tap) -> Posterior
    decode: Callable  # (params, z, tap=no_tap) -> logits; z as at site latent/z
    represent: Callable  # (params, x) -> [B, d] the vector that disentanglement metrics score
    loss: Callable  # (params, images, key, hyper, step) -> (scalar, LossInfo)
    batches: int = 1  # how many batches of images one step of the loss takes
    optimizers: Mapping[str, str] = {}  # top-level parameter -> optimiser label; others are "adam"


def decode_image(model: Architecture, params: PyTree, z: jax.Array) -> jax.Array:
    """D(z): the decoder's mean image [B, H, W, C] in [0, 1]."""
    return jax.nn.sigmoid(model.decode(params, z))


# --- the Gaussian family ---------------------------------------------------------------------------------


class GaussianFunctions(NamedTuple):
    init: Callable
    forward: Callable
    encode: Callable
    decode: Callable
    represent: Callable


@functools.lru_cache(maxsize=None)
def gaussian_functions(image_shape: tuple[int, int, int], latents: int, network: str) -> GaussianFunctions:
    """The functions that all Gaussian architectures with one network share (the same objects, so jit's caches
    are shared too)."""
    encoder, decoder = models.networks(image_shape, latents, network)

    def init(key):
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": encoder.init(encoder_key, jnp.zeros((1, *image_shape)))["params"],
            "decoder": decoder.init(decoder_key, jnp.zeros((1, latents)))["params"],
        }

    def encode(params, x, tap: Tap = no_tap):
        return Posterior(*encoder.apply({"params": params["encoder"]}, x, tap))

    def decode(params, z, tap: Tap = no_tap):
        return decoder.apply({"params": params["decoder"]}, z, tap)

    def forward(params, x, key=None, tap: Tap = no_tap):
        posterior = encode(params, x, tap)
        z = tap("latent/z", sample_posterior(posterior, key))
        logits = decode(params, z, tap)
        return Outputs(jax.nn.sigmoid(logits), logits, z, posterior)

    def represent(params, x):
        return encode(params, x).mean

    return GaussianFunctions(init, forward, encode, decode, represent)


def sample_posterior(posterior: Posterior, key: jax.Array | None) -> jax.Array:
    """z = mean + sigma * noise, or the mean where key is None."""
    if key is None:
        return posterior.mean
    noise = jax.random.normal(key, posterior.mean.shape)
    return posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise


class Terms(NamedTuple):
    """What a regulariser may look at."""

    z: jax.Array  # [B, d]
    posterior: Posterior
    kl: jax.Array  # [B, d]
    step: jax.Array


def gaussian_loss(forward: Callable, regulariser: Callable) -> Callable:
    """E_x[-log p(x|z)] + regulariser(terms, hyper) -> (scalar, metrics)."""

    def loss(params, images, key, hyper, step):
        outputs = forward(params, images, key, no_tap)
        reconstruction = jnp.mean(objectives.bernoulli_negative_log_likelihood(outputs.logits, images))
        kl = objectives.kl_divergence(*outputs.posterior)
        penalty, extra = regulariser(Terms(outputs.z, outputs.posterior, kl, step), hyper)
        return reconstruction + penalty, LossInfo(
            {
                "loss": reconstruction + penalty,
                "reconstruction": reconstruction,
                "mean_squared_error": jnp.mean(objectives.squared_error(outputs.image, images)),
                "kl": jnp.mean(jnp.sum(kl, axis=1)),
                "kl_per_latent": jnp.mean(kl, axis=0),
                **extra,
            },
            {},
        )

    return loss


def beta_regulariser(terms: Terms, hyper) -> tuple[jax.Array, dict]:
    """beta * KL(q(z|x) || p(z)). Higgins et al. 2017, eq. 4. beta = 1 is the VAE of Kingma & Welling 2014."""
    return hyper["beta"] * jnp.mean(jnp.sum(terms.kl, axis=1)), {}


def beta_tc_regulariser(terms: Terms, hyper, estimator: str) -> tuple[jax.Array, dict]:
    """KL + (beta - 1) TC. Chen et al. 2018, eq. 2 with alpha = gamma = 1, in disentanglement_lib's arrangement:
    the whole KL once, and its total-correlation part beta - 1 times more."""
    total_correlation = jnp.mean(
        objectives.minibatch_total_correlation(terms.z, *terms.posterior, hyper["dataset_size"], estimator)
    )
    penalty = jnp.mean(jnp.sum(terms.kl, axis=1)) + (hyper["beta"] - 1) * total_correlation
    return penalty, {"minibatch_total_correlation": total_correlation}


def gaussian(
    name: str, regulariser: Callable, hyper: Mapping[str, float], image_shape, latents, network
) -> Architecture:
    """An architecture of the Gaussian family: the shared functions and a loss with its own regulariser."""
    functions = gaussian_functions(tuple(image_shape), latents, network)
    loss = gaussian_loss(functions.forward, regulariser)
    return Architecture(name, tuple(image_shape), latents, hyper, *functions, loss)


def vae(image_shape, latents=10, network="standard") -> Architecture:
    """Kingma & Welling 2014."""
    return gaussian("vae", beta_regulariser, {"beta": 1.0}, image_shape, latents, network)


def beta_vae(image_shape, latents=10, network="standard", beta=4.0) -> Architecture:
    """Higgins et al. 2017; beta weighs the whole KL."""
    return gaussian("beta", beta_regulariser, {"beta": beta}, image_shape, latents, network)


def beta_tc_vae(
    image_shape, latents=10, network="standard", beta=6.0, estimator="mws", dataset_size=480_000
) -> Architecture:
    """Chen et al. 2018; beta - 1 weighs the total correlation on top of the full KL."""
    regulariser = functools.partial(beta_tc_regulariser, estimator=estimator)
    hyper = {"beta": beta, "dataset_size": float(dataset_size)}
    return gaussian("betatc", regulariser, hyper, image_shape, latents, network)


# --- the table -------------------------------------------------------------------------------------------

ARCHITECTURES: dict[str, Callable[..., Architecture]] = {
    "vae": vae,
    "beta": beta_vae,
    "betatc": beta_tc_vae,
}


def create(name: str, image_shape: tuple[int, int, int] = (64, 64, 3), **options) -> Architecture:
    """The named architecture for an image shape. Options: latents, network, and its own hyper-parameters.

    The same arguments give the same object, and so the same compiled programs. Raises ValueError naming what
    exists for an unknown architecture or option.
    """
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}.{hint}")
    return _create(name, tuple(image_shape), **options)


@functools.lru_cache(maxsize=256)
def _create(name, image_shape, **options):
    try:
        return ARCHITECTURES[name](image_shape, **options)
    except TypeError as error:
        raise ValueError(f"architecture {name!r}: {error}") from error
