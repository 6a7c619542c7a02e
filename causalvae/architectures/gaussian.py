"""What the Gaussian family shares: encoder, decoder and a loss with a regularizer of one's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae import networks, objectives
from causalvae._programs import cached
from causalvae.architectures.base import (
    ACTIVE_THRESHOLD,
    Architecture,
    LossInfo,
    Outputs,
    Posterior,
    PyTree,
    reconstruction_metrics,
)
from causalvae.sites import Tap, no_tap


class GaussianFunctions(NamedTuple):
    """What Gaussian architectures of one network share; fields of Architecture."""

    init: Callable
    forward: Callable
    encode: Callable
    decode: Callable
    represent: Callable
    activity: Callable


@functools.lru_cache(maxsize=256)
def gaussian_functions(image_shape: tuple[int, int, int], latents: int, network: str) -> GaussianFunctions:
    """Returns the functions that all Gaussian architectures with one network share: the same objects."""
    encoder, decoder = networks.encoder_and_decoder(image_shape, latents, network)

    def init(key):
        return {
            "encoder": encoder.init(jax.random.fold_in(key, 0), jnp.zeros((1, *image_shape)))["params"],
            "decoder": decoder.init(jax.random.fold_in(key, 1), jnp.zeros((1, latents)))["params"],
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

    def activity(params, x):
        return jnp.mean(objectives.kl_divergence(*encode(params, x)), axis=0)

    return GaussianFunctions(init, forward, encode, decode, represent, activity)


def sample_posterior(posterior: Posterior, key: jax.Array | None) -> jax.Array:
    """Returns z = mean + sigma * noise, or the mean where key is None."""
    if key is None:
        return posterior.mean
    noise = jax.random.normal(key, posterior.mean.shape, posterior.mean.dtype)
    return posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise


class Terms(NamedTuple):
    """What a regularizer may look at."""

    z: jax.Array  # [B, d]
    posterior: Posterior
    kl: jax.Array  # [B, d]
    step: jax.Array
    params: PyTree
    other_images: jax.Array  # [(batches - 1) B, H, W, C]: the batches after the first
    key: jax.Array  # for randomness beside the posterior's noise


class Penalty(NamedTuple):
    """What a regularizer returns."""

    value: jax.Array  # [] added to the reconstruction
    metrics: dict[str, jax.Array] = {}
    adversary: jax.Array | float = 0.0  # [] descended too, but no part of the objective: an opponent's loss


@cached()
def gaussian_loss(forward: Callable, regularizer: Callable, batches: int = 1) -> Callable:
    """Returns the loss E_x[-log p(x|z)] + regularizer(terms, hyper).

    The posterior's noise depends on nothing but the key and the first batch's shape, so that architectures can be
    compared step for step. Architectures whose arguments are the same (VAE and beta-VAE) have the same function, so
    they can train as one ensemble.

    Args:
      forward: of the shared functions.
      regularizer: (terms, hyper) -> Penalty.
      batches: how many batches a step takes; those after the first are left to the regularizer.
    """

    def loss(params, images, key, hyper, step):
        batch_size = images.shape[0] // batches
        images, other_images = images[:batch_size], images[batch_size:]
        outputs = forward(params, images, jax.random.fold_in(key, 0), no_tap)
        kl = objectives.kl_divergence(*outputs.posterior)
        kl_per_latent = jnp.mean(kl, axis=0)
        rest_key = jax.random.fold_in(key, 1)
        terms = Terms(outputs.z, outputs.posterior, kl, step, params, other_images, rest_key)
        penalty = regularizer(terms, hyper)
        metrics = reconstruction_metrics(outputs.logits, images)
        value = metrics["reconstruction"] + penalty.value
        metrics |= {"loss": value, "kl": jnp.sum(kl_per_latent), "kl_per_latent": kl_per_latent}
        metrics["active_latents"] = jnp.sum(kl_per_latent > ACTIVE_THRESHOLD).astype(jnp.float32)
        return value + penalty.adversary, LossInfo(metrics | penalty.metrics, {})

    return loss


def mean_kl(terms: Terms) -> jax.Array:
    """Returns E_x KL(q(z|x) || p(z)) [] in nats."""
    return jnp.mean(jnp.sum(terms.kl, axis=1))


def gaussian(
    name: str,
    regularizer: Callable,
    hyper: Mapping[str, float],
    image_shape: tuple[int, int, int],
    latents: int,
    network: str,
) -> Architecture:
    """Returns an architecture of the Gaussian family: the shared functions and a loss with its own regularizer.

    Args:
      name: what it is called in results.
      regularizer: (terms, hyper) -> Penalty.
      hyper: the regularizer's hyper-parameters with their values.
      image_shape: [H, W, C].
      latents: how many.
      network: a name of `networks.NETWORKS`.
    """
    shape: Any = tuple(image_shape)  # perhaps of a list, or of too few numbers: the network says so
    functions = gaussian_functions(shape, latents, network)
    loss = gaussian_loss(functions.forward, regularizer)
    return Architecture(name, shape, latents, hyper, *functions, loss)
