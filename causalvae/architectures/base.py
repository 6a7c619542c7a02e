"""What an architecture is: one NamedTuple of pure functions over a parameter pytree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae import objectives

PyTree = Any
ACTIVE_THRESHOLD = 0.01  # of `Architecture.activity`, from which a latent is reported as active


class Posterior(NamedTuple):
    """q(z|x) = N(mean, exp(log_variance)); both [B, d].

    Of a VQ-VAE it is a point mass (log-variance -inf), and [B, h, w, d] for a map of codes.
    """

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

    # Scalars in nats unless the name says otherwise; kl_per_latent [d] where latents have a KL each.
    metrics: dict[str, jax.Array]
    updates: dict[str, PyTree]  # top-level parameters that are set, not descended (moving averages)


class Codebook(NamedTuple):
    """What a model of discrete codes offers besides. Codes: int32 [B, h, w], or [B, d] if one per latent."""

    num_codes: int
    quantize: Callable  # (params, z) -> codes
    embed: Callable  # (params, codes) -> embeddings, shaped as z
    decode: Callable  # (params, codes, tap=no_tap) -> logits
    usage: Callable  # (params, z) -> share of each code [1, num_codes]; [d, num_codes] if one per latent


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
    activity: Callable  # (params, x) -> [d] how much each latent carries: mean KL in nats, or what stands in
    loss: Callable  # (params, images, key, hyper, step) -> (scalar to descend, LossInfo)
    batches: int = 1  # how many batches of images one step of the loss takes, end to end
    optimizers: Mapping[str, str] = {}  # top-level parameter -> optimizer label; others are "adam"
    codebook: Codebook | None = None  # where codes are discrete
    auxiliary: tuple[str, ...] = ()  # top-level parameters that only the loss reads
    to_image = staticmethod(jax.nn.sigmoid)  # logits -> image


def inference_params(model: Architecture, params: PyTree) -> PyTree:
    """Returns the parameters that encoding and decoding read, without those that only the loss does."""
    if not model.auxiliary:
        return params
    return {name: value for name, value in params.items() if name not in model.auxiliary}


def reconstruction_metrics(logits: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    """Returns the metrics that every architecture reports in the same way, averaged over the batch."""
    return {
        "reconstruction": jnp.mean(objectives.bernoulli_negative_log_likelihood(logits, images)),
        "mean_squared_error": jnp.mean(objectives.squared_error(jax.nn.sigmoid(logits), images)),
    }
