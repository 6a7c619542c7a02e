"""Modularity: each latent informs of one factor only (Ridgeway & Mozer 2018)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs
from causalvae.metrics.histograms import pairwise_mutual_information, varies


class Modularity(NamedTuple):
    """Modularity, [0, 1]: its mean over the latents that count, and each latent's."""

    score: float
    per_latent: np.ndarray  # [d]; NaN where a latent does not count
    num_train: int
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def modularity(
    representations: ArrayLike,
    factors: ArrayLike,
    bins: int = 20,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
    reference: bool = False,
) -> Modularity:
    """Computes how exclusively each latent informs of one factor.

    Modularity of latent i is 1 - the sum over factors but the best of I(z_i; f)^2 / (I(z_i; best)^2 (K - 1)), on
    training rows. The score is the mean over latents.
    Source: Ridgeway & Mozer 2018, section 3, with the estimates of Locatello et al. 2019.
    Range [0, 1], ceiling 1. Known weakness: pure noise has 0.6 to 0.7, since the largest of K noises stands out, so it
    is never shown without its null. Latents that all hold the same factor are perfectly modular.

    A dead latent does not count; no latent counts: 0. With a single factor it is 1: there is no other to inform of.
    Compiled: `modularity_kernel`.

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K].
      bins: equal-width bins of each latent.
      num_train: rows to fit on; None for two thirds, at most 10,000.
      num_test: rows to score on; None for the rest, at most 5,000.
      seed: of the shuffle.
      shuffle: False takes the first rows to fit and the last to score.
      reference: True counts a dead latent as 0, as disentanglement_lib does (two dead latents pull a near-perfect
        0.89 to 0.67), and gives its numbers otherwise too.

    Returns:
      The score and each latent's modularity.

    Raises:
      ValueError: for malformed input, see `inputs.check`.
    """
    checked = inputs.check(representations, factors)
    train, _ = inputs.split_rows(len(checked.representations), num_train, num_test, seed if shuffle else None)
    rows = inputs.for_kernel(checked.representations)[train], checked.factors[train]
    score, per_latent = modularity_kernel(*rows, checked.sizes, bins, reference)
    return Modularity(float(score), np.asarray(per_latent), len(train), checked.dropped)


@functools.partial(jax.jit, static_argnames=("sizes", "bins", "reference"))
def modularity_kernel(
    representations: Array, factors: Array, sizes: tuple[int, ...], bins: int = 20, reference: bool = False
) -> tuple[Array, Array]:
    """Computes `modularity` under `jax.jit` and `jax.vmap`.

    Args:
      representations: [N, d] float32.
      factors: [N, K] int32, ids 0 to sizes[k] - 1.
      sizes: number of classes of each factor.
      bins: equal-width bins of each latent.
      reference: see `modularity`.

    Returns:
      The mean over latents [] and each latent's modularity [d]. A constant factor does not count.
    """
    squared = jnp.square(pairwise_mutual_information(representations, factors, sizes, bins))
    best, others = squared.max(axis=1), varies(factors).sum() - 1
    rest = (squared.sum(axis=1) - best) / jnp.maximum(others, 1)
    per_latent = jnp.where(best > 0, 1 - rest / jnp.where(best > 0, best, 1), jnp.nan)
    counted = (best > 0) | reference
    return jnp.nansum(per_latent) / jnp.maximum(counted.sum(), 1), per_latent
