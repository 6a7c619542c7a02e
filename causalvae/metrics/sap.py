"""SAP: separated attribute predictability."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from causalvae.metrics import inputs


class SAP(NamedTuple):
    """Separated attribute predictability: how far the best latent of a factor leads the second."""

    score: float
    per_factor: np.ndarray  # [K], the gap of each kept factor
    scores: np.ndarray  # [d, K], how well each latent alone predicts each factor
    num_train: int
    num_test: int
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def sap(
    codes: ArrayLike,
    factors: ArrayLike,
    continuous: bool = False,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
    reference: bool = False,
) -> SAP:
    """Mean over factors of the gap between the two latents that predict the factor best, each alone.

    Source: Kumar et al. 2018, section 3; Locatello et al. 2019's estimators. continuous=False: test accuracy
    of a linear support vector machine (C = 0.01, balanced classes) on one latent. continuous=True: squared
    correlation of latent and class id, which reads a class id as a number.
    Args: codes [N, d], factors [N, K] class ids; num_train, num_test: None for two thirds (at most 10,000)
    and the rest (at most 5,000), the second for the discrete form only; shuffle=False: the first rows train,
    the last test.
    Range [0, 1]. Ceiling: 1 for the continuous form; far below 1 for the discrete one (dSprites 0.28),
    because one linear threshold per class cannot tell many classes apart. Known weakness: class ids without
    an order (shape) have no meaningful correlation; duplicated latents score 0.
    Defined answers: a dead latent predicts nothing: correlation 0, accuracy of the best constant guess. With
    a single latent the gap is to that constant guess (`reference=True` raises ValueError). `reference=True`
    also uses disentanglement_lib's dead-latent rule for the discrete form: accuracy 0 where the variance is
    below 1e-12.
    """
    checked = inputs.check(codes, factors)
    if reference and checked.codes.shape[1] < 2:
        raise ValueError("the reference SAP is undefined for a single latent: it has no second one")
    train, test = inputs.split_rows(len(checked.codes), num_train, num_test, seed if shuffle else None)
    if continuous:
        scores = _squared_correlations(checked, train)
        guess = np.zeros(scores.shape[1])
    else:
        guess = _constant_guess(checked, train, test)
        scores = _accuracies(checked, train, test, seed, np.zeros_like(guess) if reference else guess)
    second = np.sort(np.concatenate([guess[None], scores]) if len(scores) == 1 else scores, axis=0)[-2]
    gap = np.maximum(scores.max(axis=0) - second, 0)
    return SAP(float(gap.mean()), gap, scores, len(train), 0 if continuous else len(test), checked.dropped)


def _squared_correlations(checked: inputs.Inputs, rows: np.ndarray) -> np.ndarray:
    """[d, K], float64; 0 for a dead latent."""
    codes, factors = checked.codes[rows].astype(np.float64), checked.factors[rows].astype(np.float64)
    codes, factors = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    covariance = codes.T @ factors / (len(rows) - 1)
    variances = codes.var(axis=0, ddof=1)[:, None] * factors.var(axis=0, ddof=1)[None, :]
    dead = inputs.dead_latents(checked.codes[rows])[:, None] | (codes.var(axis=0, ddof=1) <= 1e-12)[:, None]
    return np.where(dead | (variances == 0), 0.0, covariance**2 / np.where(variances > 0, variances, 1))


def _accuracies(checked: inputs.Inputs, train, test, seed: int, of_the_dead: np.ndarray) -> np.ndarray:
    """Test accuracy [d, K] of a linear classifier of each factor from each latent alone."""
    dead = inputs.dead_latents(checked.codes[train]) | (
        checked.codes[train].astype(np.float64).var(axis=0) <= 1e-12
    )
    scores = np.tile(of_the_dead, (checked.codes.shape[1], 1))
    for i in np.flatnonzero(~dead):
        for k, column in enumerate(checked.factors.T):
            if len(np.unique(column[train])) > 1:
                scores[i, k] = _accuracy(checked.codes[:, i : i + 1], column, train, test, seed)
    return scores


def _accuracy(latent: np.ndarray, labels: np.ndarray, train, test, seed: int) -> float:
    classifier = LinearSVC(C=0.01, class_weight="balanced", dual=False, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a classifier that is meant to be weak
        classifier.fit(latent[train], labels[train])
    return float(np.mean(classifier.predict(latent[test]) == labels[test]))


def _constant_guess(checked: inputs.Inputs, train, test) -> np.ndarray:
    """Test accuracy [K] of always answering the most common training class."""
    common = [np.bincount(column[train]).argmax() for column in checked.factors.T]
    return np.mean(checked.factors[test] == np.array(common)[None, :], axis=0)
