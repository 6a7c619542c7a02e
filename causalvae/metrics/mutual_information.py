"""Metrics from the mutual information between latents and factors: MIG, and the kernels that others share.

Mutual information is the plug-in estimate from a histogram: latents in equal-width bins (20 by default),
factors by class. Counting and everything after it is jitted (float32, exact counts); choosing the bins is
host code.
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


class MIG(NamedTuple):
    """The mutual information gap, [0, 1]; `float(...)` is the score."""

    score: float
    per_factor: np.ndarray  # [K], the gap of each kept factor
    mutual_information: np.ndarray  # [d, K], nats
    entropy: np.ndarray  # [K], nats
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given

    def __float__(self) -> float:
        return self.score


def mig(codes: ArrayLike, factors: ArrayLike, bins: int = 20, reference: bool = False) -> MIG:
    """Mutual information gap: mean over factors of (I(best latent; f) - I(second latent; f)) / H(f).

    Source: Chen et al. 2018 (arXiv:1802.04942), section 4; the histogram estimate of Locatello et al. 2019.
    Args: codes [N, d] from any framework, factors [N, K] integer class ids (N of 10,000 is the standard),
    bins.
    Range [0, 1]. Ceiling: below 1 wherever a factor has more classes than there are bins (dSprites 0.896).
    Known weakness: it asks that one latent holds the factor and every other holds none of it, so that
    duplicated latents score 0, and the plug-in estimate is biased upward by about (bins - 1)(classes - 1) /
    2N nats.
    Defined answers: constant factors are dropped; a dead latent informs of nothing (I = 0); with a single
    latent the gap is to nothing (second I = 0), where the reference fails (`reference=True` raises
    ValueError); pure noise gives about 0. Rescaling or shifting a latent leaves it unchanged up to rounding
    at the bins' edges; permuting latents leaves it unchanged.
    """
    checked = inputs.check(codes, factors)
    if reference and checked.codes.shape[1] < 2:
        raise ValueError("the reference MIG is undefined for a single latent: it has no second one")
    information = pairwise_mutual_information(checked, bins)
    entropy = np.asarray(entropies(checked.factors, max(checked.sizes)))
    first, second = _two_largest(information)
    gap = (first - second) / entropy
    return MIG(float(gap.mean()), gap, information, entropy, checked.dropped)


def pairwise_mutual_information(checked: inputs.Inputs, bins: int = 20) -> np.ndarray:
    """Mutual information [d, K] (nats) between every binned latent and every factor."""
    counts = joint_counts(inputs.discretise(checked.codes, bins), checked.factors, bins, max(checked.sizes))
    return np.asarray(mutual_information_of_counts(counts))


def _two_largest(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest and second largest entry of each column; a missing second one is 0."""
    ordered = np.sort(np.concatenate([np.zeros_like(matrix[:1]), matrix]), axis=0)
    return ordered[-1], ordered[-2]
