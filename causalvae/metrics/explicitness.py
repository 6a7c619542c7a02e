"""Explicitness: each factor is easily read off the latents (Ridgeway & Mozer 2018)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs, regression
from causalvae.metrics.histograms import ON_EDGE


class Explicitness(NamedTuple):
    """Explicitness, [0, 1]: its mean over factors on test rows, and each factor's."""

    score: float
    per_factor: np.ndarray  # [K]; NaN for a factor with one class in either part
    num_train: int
    num_test: int
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def explicitness(
    representations: ArrayLike,
    factors: ArrayLike,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> Explicitness:
    """Computes how well factors can be read off linearly.

    It is the area under the ROC curve, one class against the rest and averaged over classes and factors, of a
    multinomial logistic regression (penalty ||w||^2 / 2, scikit-learn's default) on standardized representations, on
    test rows.
    Source: Ridgeway & Mozer 2018, section 3, with the estimates of Locatello et al. 2019. It differs from
    disentanglement_lib by less than 1e-3: its iterations stop before the optimum, and classes missing from a part are
    left out here, where it fails.
    Range [0, 1], 0.5 for chance. The ceiling of many classes on one latent is a little below 1 (dSprites 0.987).

    A factor with one class in the training rows has no explicitness (NaN). Compiled: `explicitness_kernel`.

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K].
      num_train: rows to fit on; None for two thirds, at most 10,000.
      num_test: rows to score on; None for the rest, at most 5,000.
      seed: of the shuffle.
      shuffle: False takes the first rows to fit and the last to score.

    Returns:
      The score and each factor's explicitness.

    Raises:
      ValueError: for malformed input, see `inputs.check`.
    """
    checked = inputs.check(representations, factors)
    representations, factors = inputs.for_kernel(checked.representations), checked.factors
    train, test = inputs.split_rows(len(representations), num_train, num_test, seed if shuffle else None)
    score, per_factor = explicitness_kernel(
        representations[train], factors[train], representations[test], factors[test], checked.sizes
    )
    return Explicitness(float(score), np.asarray(per_factor), len(train), len(test), checked.dropped)


@functools.partial(jax.jit, static_argnames=("sizes", "steps"))
def explicitness_kernel(
    representations: Array,
    factors: Array,
    test_representations: Array,
    test_factors: Array,
    sizes: tuple[int, ...],
    steps: int = regression.STEPS,
) -> tuple[Array, Array]:
    """Computes `explicitness` under `jax.jit` and `jax.vmap`.

    It needs memory for N (d + 1) times the largest size, for a Hessian.

    Args:
      representations: rows to fit on [N, d] float32.
      factors: their classes [N, K] int32, ids 0 to sizes[k] - 1.
      test_representations: rows to score on [T, d].
      test_factors: their classes [T, K].
      sizes: number of classes of each factor.
      steps: of Newton's method.

    Returns:
      The mean over factors [] and each factor's explicitness [K].
    """
    both = regression.standardized(jnp.concatenate([representations, test_representations]), len(representations))
    both = jnp.concatenate([both, jnp.ones_like(both[:, :1])], axis=1)
    x, test_x = both[: len(representations)], both[len(representations) :]
    per_factor = jnp.zeros(len(sizes))
    for size in sorted(set(sizes)):  # factors of one size share a program
        which = np.flatnonzero(np.array(sizes) == size)
        area = functools.partial(_area, x, test_x, size=size, steps=steps)
        columns = factors.T[which], test_factors.T[which]
        per_factor = per_factor.at[which].set(jax.lax.map(lambda labels, area=area: area(*labels), columns))
    return jnp.nanmean(per_factor), per_factor


def _area(x: Array, test_x: Array, labels: Array, test_labels: Array, size: int, steps: int) -> Array:
    """Mean area under the ROC curve over the classes that occur in training and in some test rows, not
    all; NaN where training has one class."""
    target = jax.nn.one_hot(labels, size)
    seen = target.any(axis=0)
    logits = regression.logits(test_x, regression.logistic(x, target, steps), seen)
    # The logarithm of p / (1 - p) orders rows as p does, and does not saturate.
    others = jnp.where(jnp.eye(size, dtype=bool)[None], -jnp.inf, logits[:, None, :])
    odds = logits - jax.nn.logsumexp(others, axis=2)
    truth = jax.nn.one_hot(test_labels, size, dtype=bool)
    judged = seen & truth.any(axis=0) & ~truth.all(axis=0) & (seen.sum() > 1)
    areas = jax.vmap(_area_under_curve, 1)(jnp.where(judged[None], odds, 0), truth)
    return jnp.where(judged.any(), jnp.sum(jnp.where(judged, areas, 0)) / judged.sum(), jnp.nan)


def _area_under_curve(scores: Array, truth: Array) -> Array:
    """Area under the ROC curve of scores [N] for truth [N] bool; scores that differ by less than 1e-6 of
    their range are equal."""
    order = jnp.argsort(scores)
    scores, truth = scores[order], truth[order]
    tolerance = ON_EDGE * (scores[-1] - scores[0])
    starts = jnp.concatenate([jnp.ones(1, bool), jnp.diff(scores) > tolerance])
    below = jnp.cumsum(~truth)  # false rows up to and with each
    index = jnp.arange(len(scores))
    first = jax.lax.cummax(jnp.where(starts, index, 0))
    last = jax.lax.cummin(jnp.where(jnp.roll(starts, -1).at[-1].set(True), index, len(scores) - 1), reverse=True)
    beaten = (below[first] - ~truth[first] + below[last]) / (2 * jnp.maximum(below[-1], 1))
    return jnp.sum(jnp.where(truth, beaten, 0)) / jnp.maximum(truth.sum(), 1)
