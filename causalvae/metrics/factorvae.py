"""The FactorVAE score: which factor is fixed in a batch, guessed from the latent that varies least."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs, regression
from causalvae.metrics._fixed_factor import CHUNK, Groups, as_float32, draw_alike, draw_below, draw_factors, group
from causalvae.metrics.ties import TIE, first_least


class FactorVAEScore(NamedTuple):
    """The FactorVAE score, an accuracy to compare with `chance`, and the votes behind it."""

    score: float  # accuracy of the majority vote on evaluation votes
    train_accuracy: float
    chance: float  # share of the most voted factor: what a constant guess reaches
    votes: np.ndarray  # [d, K] training votes: latent of least relative variance, by fixed factor
    active: np.ndarray  # [d] bool, latents that were not pruned
    dropped: tuple[int, ...]


def factorvae_score(
    representations: ArrayLike,
    factors: ArrayLike,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
    prune: float = 0.05,
    seed: int = 0,
) -> FactorVAEScore:
    """Computes the accuracy of a majority vote that guesses the fixed factor from the latent that varies least.

    Each vote draws a factor, a value of it and a batch of rows with that value. The latent with the least variance,
    relative to its variance over all rows, votes; of latents that vary alike up to 1e-6, the first.
    Source: Kim & Mnih 2018, section 4, with the sizes and pruning of Locatello et al. 2019.
    Range [0, 1], ceiling 1; the `chance` of a constant guess comes with it. Known weakness: `prune` is absolute, so
    rescaling a latent below it removes the latent. Several latents for one factor still score 1.

    Dead latents are pruned. Every latent pruned: 0. Pure noise gives about 1 / K. Values with fewer than two rows are
    not drawn: they have no variance. Compiled: `factorvae_kernel`.

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K].
      num_train: votes that decide what each latent stands for.
      num_test: votes that are scored.
      batch: rows to a vote.
      prune: latents with a standard deviation below it (by more than 1e-6 of it) do not vote; 0 keeps all but constant
        ones.
      seed: of all draws.

    Returns:
      The score, its value on the training votes, chance, the votes, and which latents voted.

    Raises:
      ValueError: where a factor has no value with two rows, and for malformed input, see `inputs.check`.
    """
    checked = inputs.check(representations, factors)
    for k, column in enumerate(checked.factors.T):
        if np.bincount(column).max() < 2:
            raise ValueError(f"no value of factor {k} has two rows: {len(column)} rows are too few to fix it")
    rows = as_float32(checked.representations), checked.factors
    found = factorvae_kernel(*rows, checked.sizes, jax.random.key(seed), num_train, num_test, batch, prune)
    score, train_accuracy, chance = map(float, found[:3])
    votes, active = map(np.asarray, found[3:])
    return FactorVAEScore(score, train_accuracy, chance, votes, active, checked.dropped)


@functools.partial(jax.jit, static_argnames=("sizes", "num_train", "num_test", "batch"))
def factorvae_kernel(
    representations: Array,
    factors: Array,
    sizes: tuple[int, ...],
    key: Array,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
    prune: float = 0.05,
) -> tuple[Array, Array, Array, Array, Array]:
    """Computes `factorvae_score` under `jax.jit` and `jax.vmap`.

    Args:
      representations: [N, d] float32.
      factors: [N, K] int32, ids 0 to sizes[k] - 1.
      sizes: number of classes of each factor.
      key: of all draws.
      num_train: votes that decide what each latent stands for.
      num_test: votes that are scored.
      batch: rows to a vote.
      prune: the least standard deviation of a latent that votes.

    Returns:
      Score, training accuracy, chance ([] each), training votes [d, K] and active latents [d]. A constant factor is
      never fixed. Scores are NaN where a factor that varies has no value with two rows.
    """
    groups = group(factors, sizes)
    active = (_deviations(representations) >= prune * (1 - TIE)) & ~inputs.dead_latents(representations)
    relative = regression.standardized(representations)
    least, labels = _votes(key, groups, relative, active, num_train + num_test, batch)
    none = jnp.zeros((representations.shape[1], len(sizes)), int)
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


def _deviations(representations: Array) -> Array:
    """Standard deviations [d] of representations [N, d]."""
    representations = inputs.centered(representations)
    scale = jnp.maximum(jnp.abs(representations).max(axis=0), jnp.finfo(representations.dtype).tiny)
    return scale * (representations / scale[None]).std(axis=0, ddof=1)  # no square underflows


def _votes(key: Array, groups: Groups, relative: Array, active: Array, num: int, batch: int) -> tuple[Array, Array]:
    """(latent [num], factor [num]): which active latent varies least in a batch with the factor fixed.

    relative: representations [N, d] with deviation 1.
    """
    keys = jax.random.split(key, 3)
    labels = draw_factors(keys[0], groups, num)
    usable_first = jnp.argsort(~groups.usable, axis=0, stable=True)
    place = draw_below(keys[1], (num,), jnp.maximum(groups.usable.sum(axis=0), 1)[labels])
    fixed = jnp.broadcast_to(usable_first[place, labels][:, None], (num, batch))
    rows = draw_alike(keys[2], groups, fixed, labels[:, None])

    def vote(rows: Array) -> Array:
        return first_least(jnp.where(active, relative[rows].var(axis=0, ddof=1), jnp.inf))

    return jax.lax.map(vote, rows, batch_size=CHUNK), labels
