"""Which latents are active, and means over them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from causalvae import objectives
from causalvae.metrics.ties import exceeds


@jax.jit
def kl_per_latent(mean: Array, log_variance: Array) -> Array:
    """Returns E_x KL(q(z_i|x) || N(0, 1)) [d] in nats, from posterior mean and log-variance [N, d]."""
    return jnp.mean(objectives.kl_divergence(mean, log_variance), axis=0)


def active_latents(mean: Array, log_variance: Array, threshold: float = 0.01) -> Array:
    """Returns which latents [d] bool carry more than `threshold` nats on average (0.01). Source: this library."""
    return exceeds(kl_per_latent(mean, log_variance), threshold)


class MaskedMean(NamedTuple):
    """A mean over the values that count, and how many they were."""

    mean: Array  # scalar; NaN where nothing counts
    count: Array  # scalar int, how many values it is the mean of


@jax.jit
def mean_over(values: Array, active: Array | None = None) -> MaskedMean:
    """Returns the mean of values [d] over the active and defined (not NaN) ones, with their number."""
    counted = ~jnp.isnan(values) if active is None else ~jnp.isnan(values) & active
    count = jnp.sum(counted)
    return MaskedMean(jnp.sum(jnp.where(counted, values, 0.0)) / jnp.where(count > 0, count, jnp.nan), count)
