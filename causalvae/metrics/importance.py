"""DCI: disentanglement, completeness and informativeness, from how a classifier of each factor uses the
latents.

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
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

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


Classifier = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]  # importance [d], codes [N, d] -> classes [N]


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
    Permuting latents permutes the importance; rescaling them leaves trees unchanged. Compiled:
    `dci_boosting_kernel`, `dci_lasso_kernel`.
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
    factors, sizes, dropped = checked[0].factors, checked[0].sizes, checked[0].dropped
    split = inputs.split_rows(len(factors), num_train, num_test, seed if shuffle else None)
    members = np.stack([inputs.for_kernel(member.codes) for member in checked])
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
    """1 - entropy of the rows of importance [d, K], weighted by each row's share: []. It traces.

    base: of the entropy; None for K. The transpose gives completeness. 0 for importance that is all zero; NaN
    where the base is 1.
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
    codes: Array, factors: Array, test_codes: Array, test_factors: Array, sizes: tuple[int, ...], key: Array
) -> DCIScores:
    """`dci` by compiled trees: codes [N, d] and factors [N, K] are fitted, ids 0 to sizes[k] - 1, and those of
    the test rows scored. `key` breaks ties between latents; under `jax.vmap` members follow one another."""
    boosted = boosting.boost(key, boosting.lay_out(codes, test_codes), factors, sizes)
    return _scores(boosted.importance, boosting.predict(boosted.logits, sizes), factors, test_factors)


@functools.partial(jax.jit, static_argnames="sizes")
def dci_lasso_kernel(
    codes: Array,
    factors: Array,
    test_codes: Array,
    test_factors: Array,
    sizes: tuple[int, ...],
    alpha: float = PENALTY,
) -> DCIScores:
    """`dci` by lasso; arguments as of `dci_boosting_kernel`. Eastwood and Williams's first choice: it reads
    class ids as numbers, and can only see what is linear."""
    num = len(codes)
    x = regression.standardized(jnp.concatenate([codes, test_codes]), num)
    mean, scale = (m[None] for m in (factors.mean(axis=0), factors.std(axis=0)))
    y = (factors - mean) / jnp.where(scale > 0, scale, 1)
    gram, products = (jnp.matmul(x[:num].T, b, precision=regression.HIGHEST) / num for b in (x[:num], y))
    weights = regression.lasso(gram, products, alpha)
    values = jnp.matmul(x, weights, precision=regression.HIGHEST) * scale + mean  # class ids, as numbers
    classes = [_nearest(values[:, k], factors[:, k], size) for k, size in enumerate(sizes)]
    return _scores(jnp.abs(weights), jnp.stack(classes, axis=1), factors, test_factors)


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
    total = importance.sum(axis=0)
    importance = jnp.where(varies[None], importance / jnp.where(total > 0, total, 1)[None], 0)
    right = jnp.where(varies[None], predicted[: len(truth)] == truth, jnp.nan)
    train, test = right[:num].mean(axis=0), right[num:].mean(axis=0)
    return DCIScores(
        disentanglement=disentanglement(importance, varies.sum()),
        completeness=disentanglement(importance.T),
        informativeness=jnp.nanmean(test),
        informativeness_train=jnp.nanmean(train),
        importance=importance,
        accuracy=test,
    )


# --- Estimators: codes [members, N, d], factors [N, K] -> scores with a leading member axis -------------------


@functools.partial(jax.jit, static_argnames="sizes", compiler_options=boosting.WELL)
def _boosting_of_members(codes, factors, test_codes, test_factors, sizes, key) -> DCIScores:
    """`dci_boosting_kernel` of codes [members, N, d], compiled with options: for the host only."""

    def kernel(codes, test_codes):
        return dci_boosting_kernel(codes, factors, test_codes, test_factors, sizes, key)

    return jax.vmap(kernel)(codes, test_codes)


def _boosting(codes: np.ndarray, factors: np.ndarray, split: inputs.Split, sizes: tuple[int, ...], seed: int):
    train, test = split
    parts = codes[:, train], factors[train], codes[:, test], factors[test]
    return _boosting_of_members(*parts, sizes, jax.random.key(seed))


def _lasso(codes: np.ndarray, factors: np.ndarray, split: inputs.Split, sizes: tuple[int, ...], seed: int):
    train, test = split
    kernel = functools.partial(dci_lasso_kernel, factors=factors[train], test_factors=factors[test], sizes=sizes)
    return jax.vmap(lambda x, test_x: kernel(x, test_codes=test_x))(codes[:, train], codes[:, test])


def _one_by_one(fit_classifier: Callable[[np.ndarray, np.ndarray, int], Classifier]) -> Callable:
    """An estimator that fits one classifier of scikit-learn for each member and factor in turn."""

    def fit_factor(codes: np.ndarray, labels: np.ndarray, split: inputs.Split, seed: int):
        rows, train = np.concatenate(split), labels[split.train]
        if (train == train[0]).all():  # no classifier would take it
            return np.zeros(codes.shape[1]), np.full(len(rows), train[0])
        importance, predict = fit_classifier(codes[split.train], train, seed)
        return importance, predict(codes[rows])

    def estimate(codes: np.ndarray, factors: np.ndarray, split: inputs.Split, sizes: tuple[int, ...], seed: int):
        scores = []
        for member in codes:
            fits = [fit_factor(member, labels, split, seed) for labels in factors.T]
            importance, predicted = (np.stack(part, axis=1) for part in zip(*fits, strict=True))
            scores.append(_scores(importance.astype(np.float32), predicted, factors[split.train], factors[split.test]))
        return jax.tree.map(lambda *x: np.stack(x), *scores)

    return estimate


def _gradient_boosting(codes: np.ndarray, labels: np.ndarray, seed: int) -> Classifier:
    model = GradientBoostingClassifier(random_state=seed).fit(codes, labels)
    return np.abs(model.feature_importances_), model.predict


def _random_forest(codes: np.ndarray, labels: np.ndarray, seed: int) -> Classifier:
    model = RandomForestClassifier(random_state=seed).fit(codes, labels)
    return np.abs(model.feature_importances_), model.predict


ESTIMATORS: dict[str, Callable[..., DCIScores]] = {
    "sklearn": _one_by_one(_gradient_boosting),
    "xla": _boosting,
    "random_forest": _one_by_one(_random_forest),
    "lasso": _lasso,
}
