"""Metrics from the mutual information between latents and factors: MIG, and the kernels that others share.

Mutual information is the plug-in estimate from a histogram: latents in equal-width bins (20 by default),
factors by class. Everything from the choice of the bins on is jitted (float32, exact counts).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs

ON_EDGE = 1e-6  # of a latent's range: values this near to an edge are on it
LEAST_INFORMATION = 1e-6  # nats: less is what rounding leaves of none


@functools.partial(jax.jit, static_argnames="bins")
def discretize(codes: Array, bins: int = 20) -> Array:
    """Bin indices [N, d] int32 in 0 to bins - 1: equal-width bins over each latent's own range.

    A value on an edge belongs to the upper bin, and so does one that lies below it by no more than 1e-6 of
    the range: the last bits of a code differ between processors, and codes that take few values lie exactly
    on edges. A constant latent falls into one bin.
    """
    if bins < 2:
        raise ValueError(f"bins must be at least 2, not {bins}")
    low = codes.min(axis=0, keepdims=True)
    spread = codes.max(axis=0, keepdims=True) - low
    position = (codes - low) / jnp.where(spread > 0, spread, 1)
    return jnp.minimum(jnp.floor((position + ON_EDGE) * bins), bins - 1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("num_bins", "num_classes"))
def joint_counts(bins: Array, factors: Array, num_bins: int, num_classes: int) -> Array:
    """How many rows fall into each bin and class: bins [N, d] int, factors [N, K] int -> [d, K, num_bins,
    num_classes]."""
    num_latents, num_factors = bins.shape[1], factors.shape[1]
    pair = jnp.arange(num_latents)[:, None] * num_factors + jnp.arange(num_factors)[None, :]
    cell = bins[:, :, None] * num_classes + factors[:, None, :]  # [N, d, K]
    index = pair[None] * (num_bins * num_classes) + cell
    counts = jnp.bincount(index.reshape(-1), length=num_latents * num_factors * num_bins * num_classes)
    return counts.reshape(num_latents, num_factors, num_bins, num_classes)


@jax.jit
def mutual_information_of_counts(counts: Array) -> Array:
    """Plug-in mutual information (nats) of joint counts [..., A, B] -> [...]."""
    counts = counts.astype(jnp.float32)
    total = jnp.sum(counts, axis=(-2, -1), keepdims=True)
    rows, columns = jnp.sum(counts, axis=-1, keepdims=True), jnp.sum(counts, axis=-2, keepdims=True)
    # A product of two ratios, not a sum of four logarithms: logarithms of large counts would cancel.
    ratio = (counts / jnp.maximum(rows, 1.0)) * (total / jnp.maximum(columns, 1.0))
    terms = jnp.where(counts > 0, counts / total * jnp.log(jnp.where(counts > 0, ratio, 1.0)), 0.0)
    return jnp.maximum(jnp.sum(terms, axis=(-2, -1)), 0.0)


@functools.partial(jax.jit, static_argnames=("num_classes",))
def entropies(factors: Array, num_classes: int) -> Array:
    """Plug-in entropy (nats) [K] of each factor [N, K]."""
    p = jnp.mean(jax.nn.one_hot(factors, num_classes), axis=0)
    return jnp.sum(jax.scipy.special.entr(p), axis=1)


@functools.partial(jax.jit, static_argnames=("sizes", "bins"))
def pairwise_mutual_information(codes: Array, factors: Array, sizes: tuple[int, ...], bins: int = 20) -> Array:
    """Mutual information [d, K] (nats) between every binned latent and every factor.

    Exactly 0 for dead latents and wherever the two are independent in these rows: sums of logarithms miss it by a
    rounding error, of which a ratio (modularity, InfoM) would make a score.
    """
    counts = joint_counts(discretize(codes, bins), factors, bins, max(sizes))
    information = mutual_information_of_counts(counts)
    informs = ~inputs.dead_latents(codes)[:, None] & (information > LEAST_INFORMATION)
    return jnp.where(informs, information, 0.0)


def varies(factors: Array) -> Array:
    """Which factors [K] bool take more than one value; kernels leave out the others, as `inputs.check` does."""
    return jnp.ptp(factors, axis=0) > 0


class MIG(NamedTuple):
    """The mutual information gap, [0, 1]; `float(...)` is the score."""

    score: float
    per_factor: np.ndarray  # [K], the gap of each kept factor
    mutual_information: np.ndarray  # [d, K], nats
    entropy: np.ndarray  # [K], nats
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given

    def __float__(self) -> float:
        return self.score


def mig(codes: ArrayLike, factors: ArrayLike, bins: int = 20) -> MIG:
    """Mutual information gap: mean over factors of (I(best latent; f) - I(second latent; f)) / H(f).

    Source: Chen et al. 2018 (arXiv:1802.04942), section 4; the histogram estimate of Locatello et al. 2019,
    with whose disentanglement_lib it agrees up to this library's rule for values on the edges of bins.
    Args: codes [N, d] from any framework, factors [N, K] integer class ids (N of 10,000 is the standard),
    bins.
    Range [0, 1]. Ceiling: below 1 wherever a factor has more classes than there are bins (dSprites 0.896).
    Known weakness: it asks that one latent holds the factor and every other holds none of it, so that
    duplicated latents score 0, and the plug-in estimate is biased upward by about (bins - 1)(classes - 1) /
    2N nats.
    Defined answers: constant factors are dropped; a dead latent informs of nothing (I = 0); with a single
    latent the gap is to nothing (second I = 0), where disentanglement_lib fails; pure noise gives about 0.
    Rescaling or shifting a latent leaves it unchanged, and so does rounding noise below 1e-6 of its range (see
    `discretize`); permuting latents leaves it unchanged. Compiled: `mig_kernel`.
    """
    checked = inputs.check(codes, factors)
    score, *details = mig_kernel(inputs.for_kernel(checked.codes), checked.factors, checked.sizes, bins)
    return MIG(float(score), *map(np.asarray, details), checked.dropped)


@functools.partial(jax.jit, static_argnames=("sizes", "bins"))
def mig_kernel(
    codes: Array, factors: Array, sizes: tuple[int, ...], bins: int = 20
) -> tuple[Array, Array, Array, Array]:
    """`mig` of codes [N, d] and factors [N, K], ids 0 to sizes[k] - 1: score [], gap of each factor [K], mutual
    information [d, K] and entropy [K], nats. A constant factor has no gap (NaN) and does not count."""
    information = pairwise_mutual_information(codes, factors, sizes, bins)
    entropy = entropies(factors, max(sizes))
    # A second latent that there may not be informs of nothing.
    ordered = jnp.sort(jnp.concatenate([jnp.zeros_like(information[:1]), information]), axis=0)
    gap = jnp.where(varies(factors), (ordered[-1] - ordered[-2]) / entropy, jnp.nan)
    return jnp.nanmean(gap), gap, information, entropy
