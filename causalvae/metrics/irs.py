"""IRS: interventional robustness."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs
from causalvae.metrics.histograms import discretize, varies


class IRS(NamedTuple):
    """Interventional robustness, [0, 1]: its mean over latents, and every latent given every factor."""

    score: float
    per_latent: np.ndarray  # [d]; NaN for dead latents
    matrix: np.ndarray  # [d, K] robustness of each latent given each factor
    parents: np.ndarray  # [d] int, the factor that a latent is most robust given
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def irs(representations: ArrayLike, factors: ArrayLike, quantile: float = 0.99, bins: int = 20) -> IRS:
    """Computes how little a latent moves, once its own factor is fixed, whatever happens to the others.

    For each value of a factor, the `quantile` of |z_i - E[z_i | value]| is averaged over values and divided by the
    largest |z_i - E z_i|. A latent's score is 1 - its smallest such ratio. Latents are averaged with their largest
    deviation as weight.
    Source: Suter et al. 2019, section 4, as disentanglement_lib's compute_irs, with which it agrees.
    Range [0, 1]. Factors of more than `bins` classes are grouped into that many, as in the reference, which caps the
    score (dSprites 0.979). Known weakness: high (0.85) for a nearly collapsed model, and 0.3 for pure noise with few
    rows per value: read it beside its null.

    Dead latents have no robustness and no weight; all dead: 0. Rescaling a latent changes its weight and nothing else.
    Compiled: `irs_kernel`.

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K].
      quantile: of deviations, in (0, 1].
      bins: the most classes that a factor keeps.

    Returns:
      The score, each latent's, and each latent's given each factor.

    Raises:
      ValueError: for a quantile out of range and for malformed input, see `inputs.check`.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be in (0, 1], not {quantile}")
    checked = inputs.check(representations, factors)
    score, per_latent, matrix, parents = irs_kernel(
        inputs.for_kernel(checked.representations), checked.factors, quantile, bins
    )
    return IRS(float(score), np.asarray(per_latent), np.asarray(matrix), np.asarray(parents), checked.dropped)


@functools.partial(jax.jit, static_argnames=("quantile", "bins"))
def irs_kernel(
    representations: Array, factors: Array, quantile: float = 0.99, bins: int = 20
) -> tuple[Array, Array, Array, Array]:
    """Computes `irs` under `jax.jit` and `jax.vmap`.

    Args:
      representations: [N, d] float32.
      factors: [N, K] int32, ids 0 to sizes[k] - 1.
      quantile: of deviations, in (0, 1].
      bins: the most classes that a factor keeps.

    Returns:
      Score [], each latent's [d], the matrix [d, K] and parents [d] int32. A constant factor is nobody's parent, and
      its column is NaN.
    """
    latents, live = inputs.centered(representations), ~inputs.dead_latents(representations)
    largest = jnp.abs(latents).max(axis=0)
    grouped = discretize(factors.astype(jnp.float32), bins)
    deviation = jax.vmap(_deviation, (None, 1, None, None), 1)(latents, grouped, quantile, bins)
    counted = live[:, None] & varies(factors)[None]
    matrix = jnp.where(counted, 1 - deviation / jnp.where(live, largest, 1)[:, None], jnp.nan)
    per_latent = jnp.max(jnp.where(counted, matrix, -jnp.inf), axis=1)
    weights = jnp.where(live, largest, 0)
    score = jnp.sum(weights * jnp.where(live, per_latent, 0)) / jnp.where(live.any(), weights.sum(), 1)
    # Of factors that are equally good, up to rounding, the first is the parent.
    parents = jnp.argmax(counted & (matrix >= per_latent[:, None] - 1e-6), axis=1)
    return score, jnp.where(live, per_latent, jnp.nan), matrix, parents.astype(jnp.int32)


def _deviation(latents: Array, labels: Array, quantile: float, num: int) -> Array:
    """[d]: the quantile of |z - E[z | value]| within each of `num` values of a factor [N], averaged over those
    that occur."""
    member = jax.nn.one_hot(labels, num)
    counts = jnp.bincount(labels, length=num)
    within = latents
    for _ in range(2):  # the second mean takes away what rounding left of the first
        means = jnp.dot(member.T, within, precision="highest") / jnp.maximum(counts, 1)[:, None]
        within = within - means[labels]
    _, ordered = jax.lax.sort(
        (jnp.broadcast_to(labels[:, None], within.shape), jnp.abs(within)), dimension=0, num_keys=2
    )
    # Linear interpolation as numpy.percentile's, counted from the top: a high quantile loses no digits there.
    from_top = (1 - quantile) * jnp.maximum(counts - 1, 0)
    whole = jnp.floor(from_top).astype(jnp.int32)
    upper = jnp.cumsum(counts) - 1 - whole
    lower = upper - (whole < counts - 1)
    part = (from_top - whole)[:, None]
    found = ordered[upper] * (1 - part) + ordered[lower] * part
    return jnp.sum(jnp.where(counts[:, None] > 0, found, 0), axis=0) / jnp.sum(counts > 0)
