"""Information between latents and factors, estimated from histograms: what MIG, modularity, IRS and InfoMEC share.

Mutual information is the plug-in estimate: latents in equal-width bins (20 by default), factors by class.
Everything from the choice of the bins on is jitted (float32, exact counts).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from causalvae.metrics import inputs

ON_EDGE = 1e-6  # of a latent's range: values this near to an edge are on it
LEAST_INFORMATION = 1e-6  # nats: less is what rounding leaves of none


@functools.partial(jax.jit, static_argnames="bins")
def discretize(representations: Array, bins: int = 20) -> Array:
    """Returns bin indices [N, d] int32 in 0 to bins - 1: equal-width bins over each latent's own range.

    A value on an edge belongs to the upper bin, and so does one that lies below it by no more than 1e-6 of the range:
    last bits differ between processors, and latents that take few values lie exactly on edges. A constant latent falls
    into one bin.
    """
    if bins < 2:
        raise ValueError(f"bins must be at least 2, not {bins}")
    low = representations.min(axis=0, keepdims=True)
    spread = representations.max(axis=0, keepdims=True) - low
    position = (representations - low) / jnp.where(spread > 0, spread, 1)
    return jnp.minimum(jnp.floor((position + ON_EDGE) * bins), bins - 1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("num_bins", "num_classes"))
def joint_counts(bins: Array, factors: Array, num_bins: int, num_classes: int) -> Array:
    """Returns how many rows fall into each bin and class.

    Args:
      bins: [N, d] int.
      factors: [N, K] int.
      num_bins: of every latent.
      num_classes: of every factor.

    Returns:
      [d, K, num_bins, num_classes].
    """
    num_latents, num_factors = bins.shape[1], factors.shape[1]
    pair = jnp.arange(num_latents)[:, None] * num_factors + jnp.arange(num_factors)[None, :]
    cell = bins[:, :, None] * num_classes + factors[:, None, :]  # [N, d, K]
    index = pair[None] * (num_bins * num_classes) + cell
    counts = jnp.bincount(index.reshape(-1), length=num_latents * num_factors * num_bins * num_classes)
    return counts.reshape(num_latents, num_factors, num_bins, num_classes)


@jax.jit
def mutual_information_of_counts(counts: Array) -> Array:
    """Returns plug-in mutual information (nats) [...] of joint counts [..., A, B]."""
    counts = counts.astype(jnp.float32)
    total = jnp.sum(counts, axis=(-2, -1), keepdims=True)
    rows, columns = jnp.sum(counts, axis=-1, keepdims=True), jnp.sum(counts, axis=-2, keepdims=True)
    # A product of two ratios, not a sum of four logarithms: logarithms of large counts would cancel.
    ratio = (counts / jnp.maximum(rows, 1.0)) * (total / jnp.maximum(columns, 1.0))
    terms = jnp.where(counts > 0, counts / total * jnp.log(jnp.where(counts > 0, ratio, 1.0)), 0.0)
    return jnp.maximum(jnp.sum(terms, axis=(-2, -1)), 0.0)


@functools.partial(jax.jit, static_argnames=("num_classes",))
def entropies(factors: Array, num_classes: int) -> Array:
    """Returns plug-in entropy (nats) [K] of each factor [N, K]."""
    p = jnp.mean(jax.nn.one_hot(factors, num_classes), axis=0)
    return jnp.sum(jax.scipy.special.entr(p), axis=1)


@functools.partial(jax.jit, static_argnames=("sizes", "bins"))
def pairwise_mutual_information(
    representations: Array, factors: Array, sizes: tuple[int, ...], bins: int = 20
) -> Array:
    """Returns mutual information [d, K] (nats) between every binned latent and every factor.

    It is exactly 0 for dead latents and wherever the two are independent in these rows: sums of logarithms miss it by a
    rounding error, of which a ratio (modularity, InfoM) would make a score.
    """
    counts = joint_counts(discretize(representations, bins), factors, bins, max(sizes))
    information = mutual_information_of_counts(counts)
    informs = ~inputs.dead_latents(representations)[:, None] & (information > LEAST_INFORMATION)
    return jnp.where(informs, information, 0.0)


def varies(factors: Array) -> Array:
    """Returns which factors [K] bool take more than one value; kernels leave out the others, as `inputs.check` does."""
    return jnp.ptp(factors, axis=0) > 0
