"""The BetaVAE score: which factor a batch of pairs shares, guessed from how far they lie apart."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs, regression
from causalvae.metrics._fixed_factor import CHUNK, Groups, as_float32, draw_alike, draw_below, draw_factors, group
from causalvae.metrics.ties import first_largest


class BetaVAEScore(NamedTuple):
    """The BetaVAE score, an accuracy to compare with `chance`."""

    score: float  # test accuracy
    train_accuracy: float
    chance: float  # 1 / K
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def betavae_score(
    representations: ArrayLike,
    factors: ArrayLike,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> BetaVAEScore:
    """Computes the accuracy of a linear classifier that guesses the factor shared by a batch of pairs.

    Features are the mean over a batch of |z_1 - z_2| for pairs that share one factor's value; logistic regression names
    the factor.
    Source: Higgins et al. 2017, section 3, in the form of Locatello et al. 2019.
    Range [0, 1], chance 1 / K, ceiling 1. Known weakness: it saturates at 1 for representations that are far from
    disentangled, and a linear classifier forgives any rotation that leaves one direction still.

    Dead latents are constant features, ignored. A single factor gives 1: there is nothing to guess. Pure noise gives
    about chance. Rescaling a latent changes it only through the classifier's penalty (|w|^2 / 2, scikit-learn's
    default). Compiled: `betavae_kernel`.

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K].
      num_train: points to fit the classifier on.
      num_test: points to score it on.
      batch: pairs to a point.
      seed: of all draws.

    Returns:
      The score, its value on the points that were fitted, and chance.

    Raises:
      ValueError: for malformed input, see `inputs.check`.
    """
    checked = inputs.check(representations, factors)
    rows = as_float32(checked.representations), checked.factors
    found = betavae_kernel(*rows, checked.sizes, jax.random.key(seed), num_train, num_test, batch)
    score, train_accuracy, chance = map(float, found)
    return BetaVAEScore(score, train_accuracy, chance, checked.dropped)


@functools.partial(jax.jit, static_argnames=("sizes", "num_train", "num_test", "batch"))
def betavae_kernel(
    representations: Array,
    factors: Array,
    sizes: tuple[int, ...],
    key: Array,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
) -> tuple[Array, Array, Array]:
    """Computes `betavae_score` under `jax.jit` and `jax.vmap`.

    Args:
      representations: [N, d] float32.
      factors: [N, K] int32, ids 0 to sizes[k] - 1.
      sizes: number of classes of each factor.
      key: of all draws.
      num_train: points to fit the classifier on.
      num_test: points to score it on.
      batch: pairs to a point.

    Returns:
      Score, training accuracy and chance, [] each. A constant factor is never the one that pairs share.
    """
    groups = group(factors, sizes)
    features, labels = _pair_features(key, groups, inputs.centered(representations), num_train + num_test, batch)
    # A moved origin changes an intercept, which has no penalty.
    features = features - features[:num_train].mean(axis=0, keepdims=True)
    features = jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=1)
    target = jax.nn.one_hot(labels[:num_train], len(sizes))
    weights = regression.logistic(features[:num_train], target)
    right = first_largest(regression.logits(features, weights, target.any(axis=0)), axis=1) == labels
    return right[num_train:].mean(), right[:num_train].mean(), 1 / groups.varies.sum()


def _pair_features(key: Array, groups: Groups, representations: Array, num: int, batch: int) -> tuple[Array, Array]:
    """(features [num, d], factor [num]): mean |z_1 - z_2| over a batch of pairs that share the factor."""
    keys = jax.random.split(key, 3)
    labels = draw_factors(keys[0], groups, num)
    first = draw_below(keys[1], (num, batch), len(representations))
    second = draw_alike(keys[2], groups, first, labels[:, None])

    def feature(rows: tuple[Array, Array]) -> Array:
        return jnp.abs(representations[rows[0]] - representations[rows[1]]).mean(axis=0)

    return jax.lax.map(feature, (first, second), batch_size=CHUNK), labels
