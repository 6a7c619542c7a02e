"""DCI: disentanglement, completeness and informativeness, from how a classifier of each factor uses the
latents.

The score depends on the estimator, so the estimator is named in every result:
  "sklearn"        gradient-boosted trees of scikit-learn (100 trees, depth 3, rate 0.1): the literature's
  "xla"            the same trees with histogram splits, compiled (`boosting`): within 0.01 and many times
  faster "random_forest"  scikit-learn's random forest
  "lasso"          one-against-rest logistic regression with an l1 penalty, on standardised latents
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from causalvae.metrics import inputs


class DCI(NamedTuple):
    disentanglement: float
    completeness: float  # NaN for a single latent
    informativeness: float  # mean test accuracy over factors
    importance: np.ndarray  # [d, K]; each column sums to 1, or to 0 where no latent was of use
    informativeness_train: float
    accuracy: np.ndarray  # [K], test accuracy of each kept factor
    estimator: str
    num_train: int
    num_test: int
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


class Fit(NamedTuple):
    importance: np.ndarray  # [d]
    train_accuracy: float
    test_accuracy: float


def dci(
    codes: ArrayLike,
    factors: ArrayLike,
    estimator: str = "sklearn",
    seed: int = 0,
    num_train: int | None = None,
    num_test: int | None = None,
    shuffle: bool = True,
) -> DCI:
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018; trees: Locatello et al.
    2019).

    P[i, k] is the importance of latent i for predicting factor k. Disentanglement: 1 - entropy of row i over
    factors (base K), weighted by the row's share of all importance. Completeness: 1 - entropy of column k
    over latents (base d), weighted alike. Informativeness: mean accuracy on test rows.
    Args: codes [N, d], factors [N, K] integer class ids; estimator: see this module; seed: of the shuffle and
    of the estimator; num_train, num_test: None for two thirds (at most 10,000) and the rest (at most 5,000);
    shuffle=False: the first rows train, the last test.
    Range [0, 1] each; ceiling 1 for a perfect code with boosted trees.
    Known weakness: it depends on the estimator (noise latents gain importance in a random forest),
    completeness depends on how many latents there are, and informativeness has no floor at 0: chance is the
    largest class.
    Defined answers: constant factors are dropped; dead latents have importance 0 and weigh nothing; codes
    that carry nothing at all give D = C = 0; a single latent has no completeness and a single factor no
    disentanglement (log 1 = 0: NaN); a factor with one value among the training rows is predicted as that
    value with no importance.
    Permuting latents permutes the importance; rescaling them leaves trees unchanged.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"unknown estimator {estimator!r}; there are {', '.join(ESTIMATORS)}")
    checked = inputs.check(codes, factors)
    train, test = inputs.split_rows(len(checked.codes), num_train, num_test, seed if shuffle else None)
    fits = [_fit(estimator, checked.codes, labels, train, test, seed) for labels in checked.factors.T]
    importance = np.stack([fit.importance for fit in fits], axis=1)
    return DCI(
        disentanglement=disentanglement(importance),
        completeness=disentanglement(importance.T),
        informativeness=float(np.mean([fit.test_accuracy for fit in fits])),
        importance=importance,
        informativeness_train=float(np.mean([fit.train_accuracy for fit in fits])),
        accuracy=np.array([fit.test_accuracy for fit in fits]),
        estimator=estimator,
        num_train=len(train),
        num_test=len(test),
        dropped=checked.dropped,
    )


def disentanglement(importance: np.ndarray) -> float:
    """1 - entropy of the rows of importance [d, K], in base K, weighted by each row's share (float64).

    The transpose gives completeness. 0 for importance that is all zero; NaN where K is 1.
    """
    importance = np.asarray(importance, np.float64)
    if importance.shape[1] < 2:
        return float("nan")
    if importance.sum() == 0:
        return 0.0
    total = importance.sum(axis=1, keepdims=True)
    p = importance / np.where(total > 0, total, 1.0)
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1) / np.log(importance.shape[1])
    return float(np.sum((1.0 - entropy) * total[:, 0]) / importance.sum())


def _fit(
    estimator: str, codes: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int
) -> Fit:
    present = np.unique(labels[train])
    if len(present) == 1:
        accuracies = (float(np.mean(labels[rows] == present[0])) for rows in (train, test))
        return Fit(np.zeros(codes.shape[1]), *accuracies)
    importance, predict = ESTIMATORS[estimator](codes[train], labels[train], seed)
    total = importance.sum()
    return Fit(
        importance / total if total > 0 else importance,
        float(np.mean(predict(codes[train]) == labels[train])),
        float(np.mean(predict(codes[test]) == labels[test])),
    )


Fitted = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]  # importance [d], codes [N, d] -> classes [N]


def _gradient_boosting(codes: np.ndarray, labels: np.ndarray, seed: int) -> Fitted:
    model = GradientBoostingClassifier(random_state=seed).fit(codes, labels)
    return np.abs(model.feature_importances_), model.predict


def _random_forest(codes: np.ndarray, labels: np.ndarray, seed: int) -> Fitted:
    model = RandomForestClassifier(random_state=seed).fit(codes, labels)
    return np.abs(model.feature_importances_), model.predict


def _lasso(codes: np.ndarray, labels: np.ndarray, seed: int) -> Fitted:
    scaler = StandardScaler().fit(codes)
    logistic = LogisticRegression(l1_ratio=1.0, solver="saga", C=0.1, max_iter=200, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = OneVsRestClassifier(logistic).fit(scaler.transform(codes), labels)
    importance = np.mean([np.abs(e.coef_[0]) for e in model.estimators_], axis=0)
    return importance, lambda x: model.predict(scaler.transform(x))


ESTIMATORS: dict[str, Callable[[np.ndarray, np.ndarray, int], Fitted]] = {
    "sklearn": _gradient_boosting,
    "random_forest": _random_forest,
    "lasso": _lasso,
}
