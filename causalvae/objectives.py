"""Losses per example, each in the shape of its equation. The caller reduces.

Units are nats throughout. z, mean, log_variance are [B, d]; logits and images [B, H, W, C].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

LOG_2PI = float(np.log(2 * np.pi))


def bernoulli_negative_log_likelihood(logits: jax.Array, images: jax.Array) -> jax.Array:
    """-log p(x|z) [B] in nats, summed over pixels and channels: softplus(l) - x l.

    Images in [0, 1] that are not binary are taken as expected values, as in disentanglement_lib.
    """
    return jnp.sum(jax.nn.softplus(logits) - images * logits, axis=(1, 2, 3))


def squared_error(reconstruction: jax.Array, images: jax.Array) -> jax.Array:
    """Mean squared error over pixels and channels [B], for images in [0, 1]. Reported, not trained on."""
    return jnp.mean((reconstruction - images) ** 2, axis=(1, 2, 3))


def kl_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) per latent [B, d] in nats. Kingma & Welling 2014, appendix B."""
    return 0.5 * (mean**2 + jnp.exp(log_variance) - log_variance - 1)


def gaussian_log_density(z: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """log N(z; mean, exp(log_variance)), elementwise."""
    return -0.5 * ((z - mean) ** 2 * jnp.exp(-log_variance) + log_variance + LOG_2PI)


def pairwise_log_density(z: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """log q(z_i | x_j) per latent [B, B, d]: sample i under the posterior of data point j."""
    return gaussian_log_density(z[:, None, :], mean[None, :, :], log_variance[None, :, :])


def log_importance_weights(batch_size: int, dataset_size: jax.Array, estimator: str) -> jax.Array:
    """log weight [B, B] of data point j in estimating log q(z_i) from a minibatch. Chen et al. 2018, app. C.

    "mws": minibatch weighted sampling, 1 / (N M) everywhere. "mss": minibatch stratified sampling, which makes
    the density inside the logarithm unbiased. "none": 1 / M, as disentanglement_lib does (it differs from mws
    by a constant without gradient).
    """
    if estimator == "none":
        return jnp.full((batch_size, batch_size), -jnp.log(float(batch_size)))
    if estimator == "mws":
        return jnp.full((batch_size, batch_size), -jnp.log(dataset_size * batch_size))
    if estimator == "mss":
        # Weight 1/N for the data point that z_i was drawn from, (N-M)/(N M) for one other, 1/M for the rest,
        # M = B - 1. The authors' code and its ports put 1/N in column 0 of every row instead of the diagonal.
        others = batch_size - 1
        own = jnp.eye(batch_size, dtype=bool)
        weights = jnp.where(own, 1.0 / dataset_size, 1.0 / others)
        stratum = (dataset_size - others) / (dataset_size * others)
        return jnp.log(jnp.where(jnp.roll(own, 1, axis=1), stratum, weights))
    raise ValueError(f"no density estimator {estimator!r}; there are: mws, mss, none")


def minibatch_total_correlation(
    z: jax.Array, mean: jax.Array, log_variance: jax.Array, dataset_size: jax.Array, estimator: str = "mws"
) -> jax.Array:
    """KL(q(z) || prod_i q(z_i)) per example [B], estimated on the minibatch. Chen et al. 2018, eq. 5 and app. C.

    Biased: at batch 64 a true value of 0 reads about 40 (mws). It is a training signal, never a measurement.
    """
    log_density = pairwise_log_density(z, mean, log_variance)
    log_weights = log_importance_weights(z.shape[0], dataset_size, estimator)
    log_joint = jax.nn.logsumexp(jnp.sum(log_density, axis=-1) + log_weights, axis=1)
    log_marginals = jax.nn.logsumexp(log_density + log_weights[:, :, None], axis=1)
    return log_joint - jnp.sum(log_marginals, axis=-1)
