"""DCI: disentanglement, completeness and informativeness, from how a classifier of each factor uses the
latents.

The score depends on the estimator, so the estimator is named in every result:
  "sklearn"        gradient-boosted trees of scikit-learn (100 trees, depth 3, rate 0.1): the literature's
  "xla"            the same trees compiled (`boosting`), all factors at once: within 0.01, many times faster
  "random_forest"  scikit-learn's random forest
  "lasso"          linear regression of the class id with an l1 penalty, on standardised latents
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler

from causalvae.metrics import boosting, inputs


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness, [0, 1] each, with what they were computed from."""

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
    """What an estimator found for all factors of one member."""

    importance: np.ndarray  # [d, K]
    train_accuracy: np.ndarray  # [K]
    test_accuracy: np.ndarray  # [K]


Estimator = Callable[[list[np.ndarray], np.ndarray, inputs.Split, int], list[Fit]]  # one Fit for each member
Classifier = tuple[
    np.ndarray, Callable[[np.ndarray], np.ndarray]
]  # importance [d], codes [N, d] -> classes [N]


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
    Latents that give exactly the same split (copies, halves that both set a class apart) share its importance
    by chance, so boosted trees agree to 0.01 only up to such ties.
    Permuting latents permutes the importance; rescaling them leaves trees unchanged.
    """
    return dci_of_members(np.asarray(codes)[None], factors, estimator, seed, num_train, num_test, shuffle)[0]


def dci_of_members(
    codes: ArrayLike,
    factors: ArrayLike,
    estimator: str = "xla",
    seed: int = 0,
    num_train: int | None = None,
    num_test: int | None = None,
    shuffle: bool = True,
) -> list[DCI]:
    """`dci` of every member of an ensemble, codes [members, N, d], in one compiled program where it is
    "xla"."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"unknown estimator {estimator!r}; there are {', '.join(ESTIMATORS)}")
    codes = np.asarray(codes)
    if codes.ndim != 3 or codes.shape[0] == 0:
        raise ValueError(f"codes of members must be [members, N, d], not {list(codes.shape)}")
    checked = [inputs.check(member, factors) for member in codes]
    factors, dropped = checked[0].factors, checked[0].dropped
    split = inputs.split_rows(len(factors), num_train, num_test, seed if shuffle else None)
    train, test = split
    # A factor with one value among the training rows needs no classifier, and no classifier would take it.
    varies = [k for k, labels in enumerate(factors.T) if len(np.unique(labels[train])) > 1]
    fit = ESTIMATORS[estimator] if varies else _fit_nothing
    fits = fit([member.codes for member in checked], factors[:, varies], split, seed)
    full = [_with_constant_factors(fit, factors, split, varies) for fit in fits]
    return [_summary(fit, estimator, len(train), len(test), dropped) for fit in full]


def _summary(fit: Fit, estimator: str, num_train: int, num_test: int, dropped: tuple[int, ...]) -> DCI:
    return DCI(
        disentanglement=disentanglement(fit.importance),
        completeness=disentanglement(fit.importance.T),
        informativeness=float(fit.test_accuracy.mean()),
        importance=fit.importance,
        informativeness_train=float(fit.train_accuracy.mean()),
        accuracy=fit.test_accuracy,
        estimator=estimator,
        num_train=num_train,
        num_test=num_test,
        dropped=dropped,
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


# --- Estimators: codes of each member [N, d], factors [N, K] -> one Fit for each member ---------------------


def _fit_nothing(codes: list[np.ndarray], factors: np.ndarray, split: inputs.Split, seed: int) -> list[Fit]:
    return [Fit(np.zeros((x.shape[1], 0)), np.zeros(0), np.zeros(0)) for x in codes]


def _with_constant_factors(fit: Fit, factors: np.ndarray, split: inputs.Split, varies: list[int]) -> Fit:
    """A fit of the factors `varies`, with the others put in their places: no importance, one predicted
    value."""
    constant = factors[split.train[0]]
    importance = np.zeros((fit.importance.shape[0], factors.shape[1]))
    accuracies = [np.mean(factors[rows] == constant[None], axis=0) for rows in split]
    importance[:, varies] = fit.importance
    for accuracy, fitted in zip(accuracies, (fit.train_accuracy, fit.test_accuracy), strict=True):
        accuracy[varies] = fitted
    return Fit(importance, *accuracies)


def _compiled_gradient_boosting(
    codes: list[np.ndarray], factors: np.ndarray, split: inputs.Split, seed: int
) -> list[Fit]:
    train, test = split
    labels = [np.unique(column[train], return_inverse=True) for column in factors.T]
    sizes = tuple(len(values) for values, _ in labels)
    targets = np.stack([inverse.reshape(-1) for _, inverse in labels], axis=1).astype(np.int32)
    layouts = jax.tree.map(lambda *x: np.stack(x), *[boosting.lay_out(x[train], x[test]) for x in codes])
    boosted = boosting.boost_members(jax.random.key(seed), layouts, targets, sizes)
    fits = []
    for importance, logits in zip(np.asarray(boosted.importance, np.float64), boosted.logits, strict=True):
        predicted = np.asarray(boosting.predict(logits, sizes))
        classes = np.stack(
            [values[column] for (values, _), column in zip(labels, predicted.T, strict=True)], axis=1
        )
        ends = len(train), len(train) + len(test)
        train_accuracy = np.mean(classes[: ends[0]] == factors[train], axis=0)
        test_accuracy = np.mean(classes[ends[0] : ends[1]] == factors[test], axis=0)
        fits.append(Fit(_normalised(importance), train_accuracy, test_accuracy))
    return fits


def _one_by_one(fit_classifier: Callable[[np.ndarray, np.ndarray, int], Classifier]) -> Estimator:
    """An estimator that fits one classifier for each member and factor in turn."""

    def fit_factor(codes: np.ndarray, labels: np.ndarray, split: inputs.Split, seed: int) -> Fit:
        importance, predict = fit_classifier(codes[split.train], labels[split.train], seed)
        accuracies = [np.mean(predict(codes[rows]) == labels[rows]) for rows in split]
        return Fit(_normalised(importance), *accuracies)

    def fit(codes: list[np.ndarray], factors: np.ndarray, split: inputs.Split, seed: int) -> list[Fit]:
        members = [[fit_factor(x, labels, split, seed) for labels in factors.T] for x in codes]
        return [Fit(*(np.stack(field, axis=-1) for field in zip(*fits, strict=True))) for fits in members]

    return fit


def _normalised(importance: np.ndarray) -> np.ndarray:
    """Importance [d] or [d, K] with each factor's sum 1, or 0 where no latent was of use."""
    total = importance.sum(axis=0)
    return importance / np.where(total > 0, total, 1.0)


def _gradient_boosting(codes: np.ndarray, labels: np.ndarray, seed: int) -> Classifier:
    model = GradientBoostingClassifier(random_state=seed).fit(codes, labels)
    return np.abs(model.feature_importances_), model.predict


def _random_forest(codes: np.ndarray, labels: np.ndarray, seed: int) -> Classifier:
    model = RandomForestClassifier(random_state=seed).fit(codes, labels)
    return np.abs(model.feature_importances_), model.predict


def _lasso(codes: np.ndarray, labels: np.ndarray, seed: int) -> Classifier:
    """Eastwood and Williams's first choice: it reads class ids as numbers, and can only see what is
    linear."""
    scaler, mean, scale = StandardScaler().fit(codes), labels.mean(), labels.std()
    model = Lasso(alpha=0.02, random_state=seed).fit(scaler.transform(codes), (labels - mean) / scale)
    classes = np.unique(labels)

    def predict(codes: np.ndarray) -> np.ndarray:
        values = model.predict(scaler.transform(codes)) * scale + mean
        return classes[np.abs(values[:, None] - classes[None]).argmin(axis=1)]

    return np.abs(model.coef_), predict


ESTIMATORS: dict[str, Estimator] = {
    "sklearn": _one_by_one(_gradient_boosting),
    "xla": _compiled_gradient_boosting,
    "random_forest": _one_by_one(_random_forest),
    "lasso": _one_by_one(_lasso),
}
