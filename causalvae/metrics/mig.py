"""MIG: the mutual information gap."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs
from causalvae.metrics.histograms import entropies, pairwise_mutual_information, varies


class MIG(NamedTuple):
    """The mutual information gap, [0, 1]; `float(...)` is the score."""

    score: float
    per_factor: np.ndarray  # [K], the gap of each kept factor
    mutual_information: np.ndarray  # [d, K], nats
    entropy: np.ndarray  # [K], nats
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given

    def __float__(self) -> float:
        return self.score


def mig(representations: ArrayLike, factors: ArrayLike, bins: int = 20) -> MIG:
    """Computes the mutual information gap.

    It is the mean over factors of (I(best latent; f) - I(second latent; f)) / H(f).
    Source: Chen et al. 2018 (arXiv:1802.04942), section 4, with the histogram estimate of Locatello et al. 2019. It
    agrees with disentanglement_lib up to this library's rule for values on the edges of bins.
    Range [0, 1]. The ceiling is below 1 where a factor has more classes than there are bins (dSprites 0.896).
    Known weakness: it asks that one latent holds the factor and every other holds none of it, so that duplicated
    latents score 0. The plug-in estimate is biased upward by about (bins - 1)(classes - 1) / 2N nats.

    Constant factors are dropped. A dead latent informs of nothing. With a single latent the gap is to nothing, where
    disentanglement_lib fails. Pure noise gives about 0. Rescaling, shifting and permuting latents change nothing, and
    neither does rounding noise below 1e-6 of a latent's range. Compiled: `mig_kernel`.

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K].
      bins: equal-width bins of each latent.

    Returns:
      The score with each factor's gap, the mutual information and the entropies.

    Raises:
      ValueError: for malformed input, see `inputs.check`.
    """
    checked = inputs.check(representations, factors)
    score, gap, information, entropy = mig_kernel(
        inputs.for_kernel(checked.representations), checked.factors, checked.sizes, bins
    )
    return MIG(float(score), np.asarray(gap), np.asarray(information), np.asarray(entropy), checked.dropped)


@functools.partial(jax.jit, static_argnames=("sizes", "bins"))
def mig_kernel(
    representations: Array, factors: Array, sizes: tuple[int, ...], bins: int = 20
) -> tuple[Array, Array, Array, Array]:
    """Computes `mig` under `jax.jit` and `jax.vmap`.

    Args:
      representations: [N, d] float32.
      factors: [N, K] int32, ids 0 to sizes[k] - 1.
      sizes: number of classes of each factor.
      bins: equal-width bins of each latent.

    Returns:
      Score [], gap of each factor [K], mutual information [d, K] and entropy [K] in nats. A constant factor has no gap
      (NaN) and does not count.
    """
    information = pairwise_mutual_information(representations, factors, sizes, bins)
    entropy = entropies(factors, max(sizes))
    # A second latent that there may not be informs of nothing.
    ordered = jnp.sort(jnp.concatenate([jnp.zeros_like(information[:1]), information]), axis=0)
    gap = jnp.where(varies(factors), (ordered[-1] - ordered[-2]) / entropy, jnp.nan)
    return jnp.nanmean(gap), gap, information, entropy
