"""SAP: separated attribute predictability."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs
from causalvae.metrics.histograms import varies


class SAP(NamedTuple):
    """Separated attribute predictability: how far the best latent of a factor leads the second."""

    score: float
    per_factor: np.ndarray  # [K], the gap of each kept factor
    scores: np.ndarray  # [d, K], how well each latent alone predicts each factor
    num_train: int
    num_test: int
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def sap(
    representations: ArrayLike,
    factors: ArrayLike,
    continuous: bool = False,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
) -> SAP:
    """Computes the mean over factors of the gap between the two latents that predict the factor best, each alone.

    Source: Kumar et al. 2018, section 3, with the estimators of Locatello et al. 2019.
    Range [0, 1]. The ceiling is 1 for the continuous form and far below 1 for the discrete one (dSprites 0.28), because
    one linear threshold per class cannot tell many classes apart. Known weakness: class ids without an order (shape)
    have no meaningful correlation, and duplicated latents score 0.

    A dead latent predicts nothing: correlation 0, accuracy of the best constant guess. With a single latent the gap is
    to that guess. Both forms agree with disentanglement_lib but for two rules: it fails on a single latent, and a
    variance below 1e-12 has correlation 0 there, where here rescaling a latent leaves its correlation unchanged. (The
    support vector machine is penalized, so the discrete form depends on scale in both.)

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K], or real numbers where `continuous`.
      continuous: False takes the test accuracy of a linear support vector machine (scikit-learn's LinearSVC, C = 0.01,
        balanced classes) on one latent. True takes the squared correlation of latent and class id, which reads a class
        id as a number (compiled: `sap_kernel`).
      num_train: rows to fit on; None for two thirds, at most 10,000.
      num_test: rows to score the discrete form on; None for the rest, at most 5,000.
      seed: of the shuffle and of the support vector machine.
      shuffle: False takes the first rows to fit and the last to score.

    Returns:
      The score, each factor's gap, and how well each latent predicts each factor.

    Raises:
      ValueError: for malformed input, see `inputs.check`.
    """
    real = continuous and np.asarray(factors).dtype.kind == "f"  # numbers as they are, whole or not
    checked = (inputs.check_continuous if real else inputs.check)(representations, factors)
    train, test = inputs.split_rows(len(checked.representations), num_train, num_test, seed if shuffle else None)
    if continuous:
        single = inputs.for_kernel(checked.representations)[train]
        numbers = inputs.for_kernel(checked.factors) if real else checked.factors
        score, per_factor, scores = map(np.asarray, sap_kernel(single, numbers[train]))
        return SAP(float(score), per_factor, scores, len(train), 0, checked.dropped)
    guess = _constant_guess(checked, train, test)
    scores = _accuracies(checked, train, test, seed, guess)
    second = np.sort(np.concatenate([guess[None], scores]) if len(scores) == 1 else scores, axis=0)[-2]
    gap = np.maximum(scores.max(axis=0) - second, 0)
    return SAP(float(gap.mean()), gap, scores, len(train), len(test), checked.dropped)


@jax.jit
def sap_kernel(representations: Array, factors: Array) -> tuple[Array, Array, Array]:
    """Computes `sap` with continuous=True under `jax.jit` and `jax.vmap`.

    Args:
      representations: [N, d] float32.
      factors: [N, K] int32, or float32 where they are continuous.

    Returns:
      Score [], gap of each factor [K] and squared correlations [d, K]. A constant factor has no gap (NaN) and does not
      count.
    """
    squared = jnp.square(_correlations(representations, factors))
    ordered = jnp.sort(jnp.concatenate([jnp.zeros_like(squared[:1]), squared]), axis=0)
    gap = jnp.where(varies(factors), ordered[-1] - ordered[-2], jnp.nan)
    return jnp.nanmean(gap), gap, squared


def _correlations(representations: Array, factors: Array) -> Array:
    """[d, K]; 0 for a dead latent and for a constant factor."""
    unit = []
    for values, live in (
        (representations, ~inputs.dead_latents(representations)),
        (factors.astype(jnp.float32), varies(factors)),
    ):
        values = inputs.centered(values)
        values = values / jnp.where(live, jnp.abs(values).max(axis=0), 1)[None]  # no square underflows
        norm = jnp.sqrt(jnp.sum(jnp.square(values), axis=0))
        unit.append(jnp.where(live[None], values / jnp.where(live, norm, 1)[None], 0))
    return jnp.dot(unit[0].T, unit[1], precision="highest")


def _accuracies(checked: inputs.Inputs, train, test, seed: int, guess: np.ndarray) -> np.ndarray:
    """Test accuracy [d, K] of a linear classifier of each factor from each latent alone; `guess` of the dead."""
    dead = inputs.dead_latents(checked.representations[train])
    scores = np.tile(guess, (checked.representations.shape[1], 1))
    for i in np.flatnonzero(~dead):
        for k, column in enumerate(checked.factors.T):
            if len(np.unique(column[train])) > 1:
                scores[i, k] = _accuracy(checked.representations[:, i : i + 1], column, train, test, seed)
    return scores


def _accuracy(latent: np.ndarray, labels: np.ndarray, train, test, seed: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    options: dict[str, Any] = {"class_weight": "balanced", "dual": False, "random_state": seed}
    classifier = LinearSVC(C=0.01, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a classifier that is meant to be weak
        classifier.fit(latent[train], labels[train])
    return float(np.mean(classifier.predict(latent[test]) == labels[test]))


def _constant_guess(checked: inputs.Inputs, train, test) -> np.ndarray:
    """Test accuracy [K] of always answering the most common training class."""
    common = [np.bincount(column[train]).argmax() for column in checked.factors.T]
    return np.mean(checked.factors[test] == np.array(common)[None, :], axis=0)
