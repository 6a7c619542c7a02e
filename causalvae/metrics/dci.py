"""DCI: disentanglement, completeness and informativeness, from how a classifier uses the latents.

The score depends on the estimator, so the estimator is named in every result:
  "sklearn"        gradient-boosted trees of scikit-learn (100 trees, depth 3, rate 0.1): the literature's
  "xla"            the same trees compiled (`boosting`), all factors at once: within 0.01, many times faster
  "random_forest"  scikit-learn's random forest
  "lasso"          linear regression of the class id with an l1 penalty, on standardized latents, compiled

"xla" and "lasso" have kernels that trace, `dci_boosting_kernel` and `dci_lasso_kernel`: they run under `jax.jit`
and `jax.vmap`, over checkpoints or members. "sklearn" and "random_forest" fit models of scikit-learn, on the host
only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import boosting, inputs, regression
from causalvae.metrics.ties import first_least

PENALTY = 0.02  # of the lasso: disentanglement_lib's


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


class DCIScores(NamedTuple):
    """What the kernels return, float32. A constant factor does not count: importance 0, accuracy NaN."""

    disentanglement: Array  # []; NaN for a single factor
    completeness: Array  # []; NaN for a single latent
    informativeness: Array  # []
    informativeness_train: Array  # []
    importance: Array  # [d, K]
    accuracy: Array  # [K]


# Importance [d], and a function from representations [N, d] to classes [N].
Classifier = tuple[np.ndarray, Callable[[np.ndarray], Any]]


def dci(
    representations: ArrayLike,
    factors: ArrayLike,
    estimator: str = "sklearn",
    seed: int = 0,
    num_train: int | None = None,
    num_test: int | None = None,
    shuffle: bool = True,
) -> DCI:
    """Computes disentanglement, completeness and informativeness.

    P[i, k] is the importance of latent i for predicting factor k. Disentanglement is 1 - the entropy of row i over
    factors (base K), weighted by the row's share of all importance. Completeness is 1 - the entropy of column k over
    latents (base d), weighted alike. Informativeness is the mean accuracy on test rows.
    Source: Eastwood and Williams 2018; trees: Locatello et al. 2019.
    Range [0, 1] each, ceiling 1 with boosted trees. Known weakness: it depends on the estimator (noise latents gain
    importance in a random forest), completeness depends on how many latents there are, and informativeness has no floor
    at 0: chance is the largest class. Latents that give exactly the same split (copies, halves that both set a class
    apart) share its importance by chance, so boosted trees agree to 0.01 only up to such ties.

    Constant factors are dropped. Dead latents have importance 0 and weigh nothing. Latents that carry nothing at all
    give D = C = 0. A single latent has no completeness and a single factor no disentanglement (log 1 = 0: NaN). A
    factor with one value among the training rows is predicted as that value with no importance. Permuting latents
    permutes the importance, and rescaling them leaves trees unchanged. Compiled: `dci_boosting_kernel`,
    `dci_lasso_kernel`.

    Continuous factors are taken by "lasso" alone, the authors' own choice: in place of accuracy stands R², the share of
    a factor's variance on the test rows that is explained.

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K], or real numbers with "lasso".
      estimator: a name of `ESTIMATORS`, see this module.
      seed: of the shuffle and of the estimator.
      num_train: rows to fit on; None for two thirds, at most 10,000.
      num_test: rows to score on; None for the rest, at most 5,000.
      shuffle: False takes the first rows to fit and the last to score.

    Returns:
      The three scores and what they were computed from.

    Raises:
      ValueError: for an unknown estimator and for malformed input, see `inputs.check`.
    """
    return dci_of_members(np.asarray(representations)[None], factors, estimator, seed, num_train, num_test, shuffle)[0]


def dci_of_members(
    representations: ArrayLike,
    factors: ArrayLike,
    estimator: str = "xla",
    seed: int = 0,
    num_train: int | None = None,
    num_test: int | None = None,
    shuffle: bool = True,
) -> list[DCI]:
    """Computes `dci` of every member of an ensemble, in one compiled program where the estimator is "xla" or "lasso".

    Args:
      representations: [members, N, d].
      factors: integer class ids [N, K].
      estimator: see `dci`, and so are the other arguments.
      seed: of the shuffle and of the estimator.
      num_train: rows to fit on.
      num_test: rows to score on.
      shuffle: whether rows are shuffled.

    Returns:
      One result for each member.

    Raises:
      ValueError: for an unknown estimator and for malformed input.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"unknown estimator {estimator!r}; there are {', '.join(ESTIMATORS)}")
    representations = np.asarray(representations)
    if representations.ndim != 3 or representations.shape[0] == 0:
        raise ValueError(f"representations of members must be [members, N, d], not {list(representations.shape)}")
    real = inputs.is_continuous(factors)
    if real and estimator != "lasso":
        raise ValueError(f"factors are continuous: estimator 'lasso' takes them, and {estimator!r} takes classes")
    check = inputs.check_continuous if real else inputs.check
    checked = [check(member, factors) for member in representations]
    factors, sizes, dropped = checked[0].factors, checked[0].sizes, checked[0].dropped
    split = inputs.split_rows(len(factors), num_train, num_test, seed if shuffle else None)
    members = np.stack([inputs.for_kernel(member.representations) for member in checked])
    if real:
        scores = _regression_of_members(members, inputs.for_kernel(factors), split)
    else:
        scores = ESTIMATORS[estimator](members, factors, split, sizes, seed)
    ends = len(split.train), len(split.test)
    return [_record(jax.tree.map(lambda x, m=m: x[m], scores), estimator, ends, dropped) for m in range(len(members))]


def _record(scores: DCIScores, estimator: str, ends: tuple[int, int], dropped: tuple[int, ...]) -> DCI:
    return DCI(
        disentanglement=float(scores.disentanglement),
        completeness=float(scores.completeness),
        informativeness=float(scores.informativeness),
        importance=np.asarray(scores.importance),
        informativeness_train=float(scores.informativeness_train),
        accuracy=np.asarray(scores.accuracy),
        estimator=estimator,
        num_train=ends[0],
        num_test=ends[1],
        dropped=dropped,
    )


def disentanglement(importance: ArrayLike, base: ArrayLike | None = None) -> Array:
    """Returns 1 - the entropy of the rows of importance, weighted by each row's share: []. It traces.

    Args:
      importance: [d, K]; the transpose gives completeness.
      base: of the entropy; None for K.

    Returns:
      0 for importance that is all zero; NaN where the base is 1.
    """
    importance = jnp.asarray(importance, jnp.float32)
    base = jnp.asarray(importance.shape[1] if base is None else base)
    total = importance.sum(axis=1)
    p = importance / jnp.where(total > 0, total, 1)[:, None]
    entropy = jax.scipy.special.entr(p).sum(axis=1) / jnp.log(jnp.maximum(base, 2))
    score = jnp.sum((1 - entropy) * total) / jnp.where(total.any(), total.sum(), 1)
    return jnp.where(base > 1, score, jnp.nan)


# --- Kernels ---------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="sizes")
def dci_boosting_kernel(
    representations: Array,
    factors: Array,
    test_representations: Array,
    test_factors: Array,
    sizes: tuple[int, ...],
    key: Array,
) -> DCIScores:
    """Computes `dci` by compiled trees under `jax.jit`; under `jax.vmap` members follow one another.

    Args:
      representations: rows to fit on [N, d] float32.
      factors: their classes [N, K] int32, ids 0 to sizes[k] - 1.
      test_representations: rows to score on [T, d].
      test_factors: their classes [T, K].
      sizes: number of classes of each factor.
      key: breaks ties between latents.

    Returns:
      The scores, importance and accuracies.
    """
    boosted = boosting.boost(key, boosting.lay_out(representations, test_representations), factors, sizes)
    return _scores(boosted.importance, boosting.predict(boosted.logits, sizes), factors, test_factors)


@functools.partial(jax.jit, static_argnames="sizes")
def dci_lasso_kernel(
    representations: Array,
    factors: Array,
    test_representations: Array,
    test_factors: Array,
    sizes: tuple[int, ...],
    alpha: float = PENALTY,
) -> DCIScores:
    """Computes `dci` by lasso under `jax.jit` and `jax.vmap`.

    It is the first choice of Eastwood and Williams. It reads class ids as numbers and sees only what is linear.

    Args:
      representations: rows to fit on [N, d] float32.
      factors: their classes [N, K] int32, ids 0 to sizes[k] - 1.
      test_representations: rows to score on [T, d].
      test_factors: their classes [T, K].
      sizes: number of classes of each factor.
      alpha: weight of the l1 penalty.

    Returns:
      The scores, importance and accuracies.
    """
    weights, values = _lasso_values(representations, factors, test_representations, alpha)  # class ids, as numbers
    classes = [_nearest(values[:, k], factors[:, k], size) for k, size in enumerate(sizes)]
    return _scores(jnp.abs(weights), jnp.stack(classes, axis=1), factors, test_factors)


def _lasso_values(
    representations: Array, factors: Array, test_representations: Array, alpha: float
) -> tuple[Array, Array]:
    """Weights [d, K] of standardized latents for standardized factors, and what they predict of all rows [N + T, K]."""
    num = len(representations)
    x = regression.standardized(jnp.concatenate([representations, test_representations]), num)
    mean, scale = (m[None] for m in (factors.mean(axis=0), factors.std(axis=0)))
    y = (factors - mean) / jnp.where(scale > 0, scale, 1)
    gram, products = (jnp.matmul(x[:num].T, b, precision=regression.HIGHEST) / num for b in (x[:num], y))
    weights = regression.lasso(gram, products, alpha)
    return weights, jnp.matmul(x, weights, precision=regression.HIGHEST) * scale + mean


def _nearest(values: Array, labels: Array, size: int) -> Array:
    """The class nearest to each value [R], among those that labels have; of two as near, the lower."""
    seen = jax.nn.one_hot(labels, size).any(axis=0)
    return first_least(jnp.where(seen[None], jnp.abs(values[:, None] - jnp.arange(size)[None]), jnp.inf))


@jax.jit
def _scores(importance: Array, predicted: Array, factors: Array, test_factors: Array) -> DCIScores:
    """DCI of importance [d, K], unnormalized, and of the classes [R, K] predicted of training, test and other
    rows."""
    num, truth = len(factors), jnp.concatenate([factors, test_factors])
    varies = jnp.ptp(truth, axis=0) > 0
    right = jnp.where(varies[None], predicted[: len(truth)] == truth, jnp.nan)
    return _summarized(importance, varies, right[:num].mean(axis=0), right[num:].mean(axis=0))


def _summarized(importance: Array, varies: Array, train: Array, test: Array) -> DCIScores:
    """DCI of importance [d, K], unnormalized, and of how well each factor [K] is predicted of the rows."""
    total = importance.sum(axis=0)
    importance = jnp.where(varies[None], importance / jnp.where(total > 0, total, 1)[None], 0)
    return DCIScores(
        disentanglement=disentanglement(importance, varies.sum()),
        completeness=disentanglement(importance.T),
        informativeness=jnp.nanmean(test),
        informativeness_train=jnp.nanmean(train),
        importance=importance,
        accuracy=test,
    )


# --- Estimators: representations [members, N, d], factors [N, K] -> scores with a member axis --------------------


@functools.partial(jax.jit, static_argnames="sizes", compiler_options=boosting.WELL)
def _boosting_of_members(representations, factors, test_representations, test_factors, sizes, key) -> DCIScores:
    """`dci_boosting_kernel` of representations [members, N, d], compiled with options: for the host only."""

    def kernel(representations, test_representations):
        return dci_boosting_kernel(representations, factors, test_representations, test_factors, sizes, key)

    return jax.vmap(kernel)(representations, test_representations)


def _boosting(representations: np.ndarray, factors: np.ndarray, split: inputs.Split, sizes: tuple[int, ...], seed: int):
    train, test = split
    parts = representations[:, train], factors[train], representations[:, test], factors[test]
    return _boosting_of_members(*parts, sizes, jax.random.key(seed))


def _lasso(representations: np.ndarray, factors: np.ndarray, split: inputs.Split, sizes: tuple[int, ...], seed: int):
    train, test = split
    kernel = functools.partial(dci_lasso_kernel, factors=factors[train], test_factors=factors[test], sizes=sizes)
    return jax.vmap(lambda x, test_x: kernel(x, test_representations=test_x))(
        representations[:, train], representations[:, test]
    )


@jax.jit
def _regression(representations: Array, factors: Array, test_representations: Array, test_factors: Array) -> DCIScores:
    """`dci` by lasso of continuous factors [N, K] float32, with R² in place of accuracy."""
    weights, values = _lasso_values(representations, factors, test_representations, PENALTY)
    truth, num = jnp.concatenate([factors, test_factors]), len(factors)
    varies = jnp.ptp(truth, axis=0) > 0

    def explained(rows: slice) -> Array:
        spread = jnp.square(truth[rows] - truth[rows].mean(axis=0, keepdims=True)).sum(axis=0)
        error = jnp.square(values[rows] - truth[rows]).sum(axis=0)
        return jnp.where(spread > 0, 1 - error / jnp.where(spread > 0, spread, 1), jnp.nan)

    return _summarized(jnp.abs(weights), varies, explained(slice(None, num)), explained(slice(num, None)))


def _regression_of_members(representations: np.ndarray, factors: np.ndarray, split: inputs.Split) -> DCIScores:
    train, test = split
    return jax.vmap(lambda x, test_x: _regression(x, factors[train], test_x, factors[test]))(
        representations[:, train], representations[:, test]
    )


def _one_by_one(fit_classifier: Callable[[np.ndarray, np.ndarray, int], Classifier]) -> Callable:
    """An estimator that fits one classifier of scikit-learn for each member and factor in turn."""

    def fit_factor(representations: np.ndarray, labels: np.ndarray, split: inputs.Split, seed: int):
        rows, train = np.concatenate(split), labels[split.train]
        if (train == train[0]).all():  # no classifier would take it
            return np.zeros(representations.shape[1]), np.full(len(rows), train[0])
        importance, predict = fit_classifier(representations[split.train], train, seed)
        return importance, predict(representations[rows])

    def estimate(
        representations: np.ndarray, factors: np.ndarray, split: inputs.Split, sizes: tuple[int, ...], seed: int
    ):
        scores = []
        for member in representations:
            fits = [fit_factor(member, labels, split, seed) for labels in factors.T]
            importance, predicted = (np.stack(part, axis=1) for part in zip(*fits, strict=True))
            scores.append(_scores(importance.astype(np.float32), predicted, factors[split.train], factors[split.test]))
        return jax.tree.map(lambda *x: np.stack(x), *scores)

    return estimate


def _gradient_boosting(representations: np.ndarray, labels: np.ndarray, seed: int) -> Classifier:
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(random_state=seed).fit(representations, labels)
    return np.abs(model.feature_importances_), model.predict


def _random_forest(representations: np.ndarray, labels: np.ndarray, seed: int) -> Classifier:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(random_state=seed).fit(representations, labels)
    return np.abs(model.feature_importances_), model.predict


ESTIMATORS: dict[str, Callable[..., DCIScores]] = {
    "sklearn": _one_by_one(_gradient_boosting),
    "xla": _boosting,
    "random_forest": _one_by_one(_random_forest),
    "lasso": _lasso,
}
