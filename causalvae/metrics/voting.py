"""BetaVAE and FactorVAE scores: which factor was held fixed, guessed from how codes vary.

Both were defined on a simulator that draws images with one factor fixed. Here they are computed on plain
arrays: rows that share the factor's value are drawn (with replacement) from the rows given, so that neither a
full grid nor a simulator is needed. With many rows per value the two are the same.

The draws come from a JAX key. The kernels trace: `jax.vmap` serves many checkpoints with the same draws.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs, regression
from causalvae.metrics.ties import TIE, first_largest, first_least

CHUNK = 500  # batches whose codes are gathered at once: bounds memory


class BetaVAEScore(NamedTuple):
    """The BetaVAE score, an accuracy to compare with `chance`."""

    score: float  # test accuracy
    train_accuracy: float
    chance: float  # 1 / K
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


class FactorVAEScore(NamedTuple):
    """The FactorVAE score, an accuracy to compare with `chance`, and the votes behind it."""

    score: float  # accuracy of the majority vote on evaluation votes
    train_accuracy: float
    chance: float  # share of the most voted factor: what a constant guess reaches
    votes: np.ndarray  # [d, K] training votes: latent of least relative variance, by fixed factor
    active: np.ndarray  # [d] bool, latents that were not pruned
    dropped: tuple[int, ...]


def betavae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> BetaVAEScore:
    """Accuracy of a linear classifier that guesses the factor shared by a batch of pairs.

    Source: Higgins et al. 2017, section 3, in Locatello et al. 2019's form: features are the mean over a
    batch of |z_1 - z_2| for pairs that share one factor's value; logistic regression names the factor.
    Args: codes [N, d], factors [N, K] class ids; num_train, num_test: points of the classifier.
    Range [0, 1], chance 1/K, ceiling 1. Known weakness: it saturates at 1 for codes that are far from
    disentangled, and a linear classifier forgives any rotation that leaves one direction still.
    Defined answers: dead latents are constant features, ignored; a single factor gives 1 (nothing to guess);
    pure noise gives about chance. Rescaling a latent changes it only through the classifier's regularizer
    (|w|^2 / 2, scikit-learn's default). Compiled: `betavae_kernel`.
    """
    checked = inputs.check(codes, factors)
    rows = _for_kernel(checked.codes), checked.factors
    found = betavae_kernel(*rows, checked.sizes, jax.random.key(seed), num_train, num_test, batch)
    return BetaVAEScore(*map(float, found), checked.dropped)


@functools.partial(jax.jit, static_argnames=("sizes", "num_train", "num_test", "batch"))
def betavae_kernel(
    codes: Array,
    factors: Array,
    sizes: tuple[int, ...],
    key: Array,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
) -> tuple[Array, Array, Array]:
    """`betavae_score` of codes [N, d] and factors [N, K], ids 0 to sizes[k] - 1: score, training accuracy and
    chance, [] each. A constant factor is never the one that pairs share."""
    groups = _group(factors, sizes)
    features, labels = _pair_features(key, groups, inputs.centerd(codes), num_train + num_test, batch)
    # A moved origin changes an intercept, which has no penalty.
    features = features - features[:num_train].mean(axis=0, keepdims=True)
    features = jnp.concatenate([features, jnp.ones_like(features[:, :1])], axis=1)
    target = jax.nn.one_hot(labels[:num_train], len(sizes))
    weights = regression.logistic(features[:num_train], target)
    right = first_largest(regression.logits(features, weights, target.any(axis=0)), axis=1) == labels
    return right[num_train:].mean(), right[:num_train].mean(), 1 / groups.varies.sum()


def factorvae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
    prune: float = 0.05,
    seed: int = 0,
) -> FactorVAEScore:
    """Accuracy of a majority vote that guesses the fixed factor from the latent that varies least.

    Source: Kim & Mnih 2018, section 4; sizes and pruning of Locatello et al. 2019. Each vote draws a factor,
    a value of it and a batch of rows with that value; the latent with the least variance, relative to its
    variance over all rows, votes; of latents that vary alike up to 1e-6, the first. Latents with a standard
    deviation below `prune` (by more than 1e-6 of it) do not take part.
    Range [0, 1], ceiling 1; the `chance` of a constant guess comes with it. Known weakness: `prune` is
    absolute, so rescaling a latent below it removes the latent; a code with several latents for one factor
    still scores 1.
    Defined answers: dead latents are pruned (prune=0 keeps all but constant ones); if every latent is pruned
    the score is 0; pure noise gives about 1/K. Values with fewer than two rows are not drawn: they have no
    variance. Raises ValueError where a factor has no value with two rows. Compiled: `factorvae_kernel`.
    """
    checked = inputs.check(codes, factors)
    for k, column in enumerate(checked.factors.T):
        if np.bincount(column).max() < 2:
            raise ValueError(f"no value of factor {k} has two rows: {len(column)} rows are too few to fix it")
    rows = _for_kernel(checked.codes), checked.factors
    found = factorvae_kernel(*rows, checked.sizes, jax.random.key(seed), num_train, num_test, batch, prune)
    return FactorVAEScore(*map(float, found[:3]), *map(np.asarray, found[3:]), checked.dropped)


@functools.partial(jax.jit, static_argnames=("sizes", "num_train", "num_test", "batch"))
def factorvae_kernel(
    codes: Array,
    factors: Array,
    sizes: tuple[int, ...],
    key: Array,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
    prune: float = 0.05,
) -> tuple[Array, Array, Array, Array, Array]:
    """`factorvae_score` of codes [N, d] and factors [N, K], ids 0 to sizes[k] - 1.

    Returns score, training accuracy, chance ([] each), training votes [d, K] and active latents [d]. A
    constant factor is never fixed; NaN scores where a factor that varies has no value with two rows.
    """
    groups = _group(factors, sizes)
    active = (_deviations(codes) >= prune * (1 - TIE)) & ~inputs.dead_latents(codes)
    relative = regression.standardized(codes)
    least, labels = _votes(key, groups, relative, active, num_train + num_test, batch)
    none = jnp.zeros((codes.shape[1], len(sizes)), int)
    train, test = (
        none.at[least[part], labels[part]].add(active.any().astype(int))
        for part in (slice(num_train), slice(num_train, None))
    )
    majority = train.argmax(axis=1)[:, None]
    # Without an active latent nobody votes.
    score, train_accuracy = (
        jnp.take_along_axis(votes, majority, axis=1).sum() / jnp.maximum(votes.sum(), 1) for votes in (test, train)
    )
    chance = jnp.where(active.any(), test.sum(axis=0).max() / jnp.maximum(test.sum(), 1), 1 / groups.varies.sum())
    possible = (groups.usable.any(axis=0) | ~groups.varies).all()
    score, train_accuracy, chance = (jnp.where(possible, x, jnp.nan) for x in (score, train_accuracy, chance))
    return score, train_accuracy, chance, train, active


def _for_kernel(codes: np.ndarray) -> np.ndarray:
    """Checked codes as float32 and on their own scale, which both scores depend on; float64 is centerd first."""
    return codes if codes.dtype == np.float32 else (codes - codes.mean(axis=0)).astype(np.float32)


def _deviations(codes: Array) -> Array:
    """Standard deviations [d] of codes [N, d]."""
    codes = inputs.centerd(codes)
    scale = jnp.maximum(jnp.abs(codes).max(axis=0), jnp.finfo(codes.dtype).tiny)
    return scale * (codes / scale[None]).std(axis=0, ddof=1)  # no square underflows


# --- draws -----------------------------------------------------------------------------------------------


class _Groups(NamedTuple):
    """Rows by the value of each factor, to draw rows that share one."""

    varies: Array  # [K] bool, factors that are not constant
    order: Array  # [N, K] rows in the order of each factor's values
    start: Array  # [N, K] the place in `order` of the first row with the same value as this one
    count: Array  # [N, K] how many rows have this one's value

    @property
    def usable(self) -> Array:
        """[N, K] bool: another row has the same value."""
        return self.count > 1


def _group(factors: Array, sizes: tuple[int, ...]) -> _Groups:
    counts = jax.vmap(functools.partial(jnp.bincount, length=max(sizes)), in_axes=1)(factors)  # [K, classes]
    starts = jnp.cumsum(counts, axis=1) - counts
    start, count = (jnp.take_along_axis(x.T, factors, axis=0) for x in (starts, counts))
    return _Groups(jnp.ptp(factors, axis=0) > 0, jnp.argsort(factors, axis=0, stable=True), start, count)


def _below(key: Array, shape: tuple[int, ...], limit: Array | int) -> Array:
    """Whole numbers from 0 to limit - 1, uniform for limits that are small beside 2^23."""
    drawn = jax.random.uniform(key, shape) * limit
    return jnp.minimum(drawn.astype(int), limit - 1)


def _draw_factors(key: Array, groups: _Groups, num: int) -> Array:
    """Factors [num] that are not constant, each as likely."""
    kept = jnp.argsort(~groups.varies, stable=True)
    return kept[_below(key, (num,), groups.varies.sum())]


def _draw_alike(key: Array, groups: _Groups, rows: Array, factor: Array) -> Array:
    """For each of `rows` a row with the same value of the factor, itself among them; shapes broadcast."""
    place = groups.start[rows, factor] + _below(key, rows.shape, groups.count[rows, factor])
    return groups.order[place, factor]


def _pair_features(key: Array, groups: _Groups, codes: Array, num: int, batch: int) -> tuple[Array, Array]:
    """(features [num, d], factor [num]): mean |z_1 - z_2| over a batch of pairs that share the factor."""
    keys = jax.random.split(key, 3)
    labels = _draw_factors(keys[0], groups, num)
    first = _below(keys[1], (num, batch), len(codes))
    second = _draw_alike(keys[2], groups, first, labels[:, None])

    def feature(rows: tuple[Array, Array]) -> Array:
        return jnp.abs(codes[rows[0]] - codes[rows[1]]).mean(axis=0)

    return jax.lax.map(feature, (first, second), batch_size=CHUNK), labels


def _votes(key: Array, groups: _Groups, relative: Array, active: Array, num: int, batch: int) -> tuple[Array, Array]:
    """(latent [num], factor [num]): which active latent varies least in a batch with the factor fixed.

    relative: codes [N, d] with deviation 1.
    """
    keys = jax.random.split(key, 3)
    labels = _draw_factors(keys[0], groups, num)
    usable_first = jnp.argsort(~groups.usable, axis=0, stable=True)
    place = _below(keys[1], (num,), jnp.maximum(groups.usable.sum(axis=0), 1)[labels])
    fixed = jnp.broadcast_to(usable_first[place, labels][:, None], (num, batch))
    rows = _draw_alike(keys[2], groups, fixed, labels[:, None])

    def vote(rows: Array) -> Array:
        return first_least(jnp.where(active, relative[rows].var(axis=0, ddof=1), jnp.inf))

    return jax.lax.map(vote, rows, batch_size=CHUNK), labels
