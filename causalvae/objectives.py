"""Losses, each in the shape of its equation, per example where they are sums over examples.

Units are nats throughout. z, mean, log_variance are [B, d]; logits and images [B, H, W, C].
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "TotalCorrelation",
    "bernoulli_negative_log_likelihood",
    "covariance",
    "dip_penalty",
    "kl_divergence",
    "minibatch_total_correlation",
    "squared_error",
    "total_correlation",
]

LOG_2PI = float(np.log(2 * np.pi))


def bernoulli_negative_log_likelihood(logits: jax.Array, images: jax.Array) -> jax.Array:
    """Returns -log p(x|z) [B] in nats, summed over pixels and channels: softplus(l) - x l.

    Images in [0, 1] that are not binary are taken as expected values, as in disentanglement_lib.
    """
    return jnp.sum(softplus(logits) - images * logits, axis=(1, 2, 3))


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
    """Returns log(1 + exp(x)), elementwise, without overflow.

    It is that of jax.nn, but that its derivative is the sigmoid itself: a decoder's image, which the squared error
    needs anyway, and so computed once in a training step. jax.nn's is exp(x - softplus(x)).
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals, tangents):
    return softplus(*primals), jax.nn.sigmoid(*primals) * tangents[0]


def squared_error(reconstruction: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the mean squared error over pixels and channels [B], for images in [0, 1]. Reported, not trained on."""
    return jnp.mean((reconstruction - images) ** 2, axis=(1, 2, 3))


def kl_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns KL(N(mean, exp(log_variance)) || N(0, 1)) per latent [B, d]. Kingma & Welling 2014, appendix B."""
    return 0.5 * (mean**2 + jnp.exp(log_variance) - log_variance - 1)


def gaussian_log_density(z: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns log N(z; mean, exp(log_variance)), elementwise."""
    return -0.5 * ((z - mean) ** 2 * jnp.exp(-log_variance) + log_variance + LOG_2PI)


def pairwise_log_density(z: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns log q(z_i | x_j) per latent [B, B, d]: sample i under the posterior of data point j."""
    return gaussian_log_density(z[:, None, :], mean[None, :, :], log_variance[None, :, :])


def log_importance_weights(batch_size: int, dataset_size: Any, estimator: str) -> jax.Array:
    """Returns the log weight [B, B] of data point j in estimating log q(z_i) from a minibatch.

    Source: Chen et al. 2018, appendix C.

    Args:
      batch_size: B.
      dataset_size: N.
      estimator: "mws", minibatch weighted sampling, 1 / (N B) everywhere; "mss", minibatch stratified sampling, which
        makes the density inside the logarithm unbiased; "none", 1 / B, as disentanglement_lib does (it differs from mws
        by a constant without gradient).

    Raises:
      ValueError: for another estimator.
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
    """Returns KL(q(z) || prod_i q(z_i)) per example [B], estimated on the minibatch. Chen et al. 2018, app. C.

    It is biased: "mws" reads about (d - 1) log N too much, and the rest depends on the KL. At batch 64 with N = 737,280
    and d = 4, a true 0 reads about 41 (mws). It is a training signal, never a measurement.

    Args:
      z: samples [B, d] of the posteriors.
      mean: of the posteriors [B, d].
      log_variance: of the posteriors [B, d].
      dataset_size: N.
      estimator: see `log_importance_weights`.
    """
    log_density = pairwise_log_density(z, mean, log_variance)
    log_weights = log_importance_weights(z.shape[0], dataset_size, estimator)
    log_joint = jax.nn.logsumexp(jnp.sum(log_density, axis=-1) + log_weights, axis=1)
    log_marginals = jax.nn.logsumexp(log_density + log_weights[:, :, None], axis=1)
    return log_joint - jnp.sum(log_marginals, axis=-1)


# --- FactorVAE -------------------------------------------------------------------------------------------


def permute_latents(key: jax.Array, z: jax.Array) -> jax.Array:
    """Returns each latent permuted over the batch by itself: samples of prod_i q(z_i). Kim & Mnih 2018, alg. 1."""
    return jax.random.permutation(key, z, axis=0, independent=True)


def density_ratio(discriminator_logits: jax.Array) -> jax.Array:
    """Returns log D(z) / (1 - D(z)) [B] from logits [B, 2]. Kim & Mnih 2018, eq. 3.

    Its mean under q(z) estimates the total correlation.
    """
    return discriminator_logits[:, 0] - discriminator_logits[:, 1]


def discriminator_loss(joint_logits: jax.Array, product_logits: jax.Array) -> jax.Array:
    """Returns the cross-entropy [B] of telling samples of q(z) from samples of prod_i q(z_i). Kim & Mnih 2018, alg. 2.

    Args:
      joint_logits: [B, 2] of samples of q(z), class 0.
      product_logits: [B, 2] of samples of the product, class 1; both weigh half.
    """
    joint = jax.nn.log_softmax(joint_logits)[:, 0]
    return -0.5 * (joint + jax.nn.log_softmax(product_logits)[:, 1])


def discriminator_accuracy(joint_logits: jax.Array, product_logits: jax.Array) -> jax.Array:
    """Returns the share [] of both classes that is told right; 0.5 where q(z) is the product of its marginals."""
    joint, product = density_ratio(joint_logits) > 0, density_ratio(product_logits) < 0
    return 0.5 * (jnp.mean(joint) + jnp.mean(product))


# --- DIP-VAE ---------------------------------------------------------------------------------------------


def covariance(values: jax.Array) -> jax.Array:
    """Returns the covariance [d, d] over the batch of values [B, d], normalized by B as in disentanglement_lib."""
    centered = values - jnp.mean(values, axis=0, keepdims=True)
    return centered.T @ centered / values.shape[0]


def aggregate_covariance(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns Cov_q(z)[z] = Cov_x(mean) + E_x diag(exp(log_variance)), [d, d]. Kumar et al. 2018."""
    return covariance(mean) + jnp.diag(jnp.mean(jnp.exp(log_variance), axis=0))


def dip_penalty(matrix: jax.Array, lambda_offdiagonal: jax.Array, lambda_diagonal: jax.Array) -> jax.Array:
    """Returns lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2 of a covariance [d, d]. Kumar et al. 2018.

    Eq. 6 with C = Cov(mean) is DIP-VAE-I, eq. 7 with the aggregate covariance DIP-VAE-II.
    """
    diagonal = jnp.diag(matrix)
    off_diagonal = matrix - jnp.diag(diagonal)
    return lambda_offdiagonal * jnp.sum(off_diagonal**2) + lambda_diagonal * jnp.sum((diagonal - 1) ** 2)


# --- AnnealedVAE -----------------------------------------------------------------------------------------


def capacity(step: jax.Array, final: jax.Array, steps: jax.Array) -> jax.Array:
    """Returns the KL asked for at a step: linearly from 0 to `final` at `steps`. Burgess et al. 2018, eq. 8."""
    return final * jnp.minimum(1.0, step / steps)


# --- total correlation, measured -------------------------------------------------------------------------


class TotalCorrelation(NamedTuple):
    """Estimates of KL(q(z) || prod_i q(z_i)) in nats, with the sign of their bias."""

    gaussian: jax.Array  # exact where q(z) is Gaussian; otherwise the part that second moments show
    lower: jax.Array  # each sample's own posterior left out of the densities: biased downwards
    upper: jax.Array  # each sample's own posterior among them: biased upwards


def gaussian_total_correlation(matrix: jax.Array) -> jax.Array:
    """Returns the total correlation of a Gaussian with covariance [d, d]: (sum_i log C_ii - log det C) / 2."""
    return 0.5 * (jnp.sum(jnp.log(jnp.diag(matrix))) - jnp.linalg.slogdet(matrix)[1])


@functools.partial(jax.jit, static_argnames="chunk")
def total_correlation(z: jax.Array, mean: jax.Array, log_variance: jax.Array, chunk: int = 64) -> TotalCorrelation:
    """Estimates the total correlation of the aggregate posterior of N data points. This library.

    q(z) and q(z_i) are mixtures of the N posteriors, so time is O(M N d) and memory O(chunk N d). Where the N points
    are all the data, `upper` is exact but for sampling. Otherwise the truth lies between `lower` and `upper` up to
    sampling noise. They close in as N grows past exp(I(x; z)); as long as they are far apart, only `gaussian` tells
    much.

    Args:
      z: [M, d], M <= N: z[m] drawn from q(z|x_m), the points at which the densities are compared.
      mean: of the posteriors [N, d].
      log_variance: of the posteriors [N, d].
      chunk: points at once; bounds memory, not results.
    """
    num_points = mean.shape[0]

    def both(m):
        own = gaussian_log_density(z[m], mean[m], log_variance[m])
        others = gaussian_log_density(z[m][None, :], mean, log_variance)
        others = jnp.where((jnp.arange(num_points) == m)[:, None], -jnp.inf, others)
        joint = jax.nn.logsumexp(jnp.sum(others, axis=1))
        marginals = jax.nn.logsumexp(others, axis=0)
        dimensions = z.shape[1] - 1  # how many more normalizers the marginals have than the joint
        lower = joint - jnp.sum(marginals) + dimensions * jnp.log(num_points - 1.0)
        joint, marginals = jnp.logaddexp(joint, jnp.sum(own)), jnp.logaddexp(marginals, own)
        return lower, joint - jnp.sum(marginals) + dimensions * jnp.log(float(num_points))

    lower, upper = jax.lax.map(both, jnp.arange(z.shape[0]), batch_size=chunk)
    gaussian = gaussian_total_correlation(aggregate_covariance(mean, log_variance))
    return TotalCorrelation(gaussian, jnp.mean(lower), jnp.mean(upper))
