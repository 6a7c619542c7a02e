"""InfoMEC: modularity, explicitness and compactness measured in information (Hsu et al. 2023)."""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import OneHotEncoder

from causalvae.metrics import inputs, mutual_information
from causalvae.metrics.mutual_information import ON_EDGE


class InfoMEC(NamedTuple):
    """Modularity, explicitness and compactness from information, [0, 1] each; see `infomec`."""

    modularity: float  # InfoM; NaN for a single factor, and where no latent informs of any
    explicitness: float  # InfoE; NaN where explicit=False
    compactness: float  # InfoC; NaN for fewer than two active latents
    information: np.ndarray  # [d, K], I(z_i; f_k) / H(f_k); 0 for inactive latents
    active: np.ndarray  # [d] bool, latents that were not pruned
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def infomec(
    codes: ArrayLike,
    factors: ArrayLike,
    prune: float = 0.05,
    neighbors: int = 10,
    bins: int | None = None,
    discrete: bool = False,
    explicit: bool = True,
    seed: int = 0,
) -> InfoMEC:
    """How exclusively latents inform of factors (InfoM), factors sit in latents (InfoC), and can be read off
    (InfoE).

    Source: Hsu et al. 2023 (arXiv:2305.18378), section 4, and its authors' code, with which it agrees; not in
    disentanglement_lib. With U = I(z_i; f_k) / H(f_k): InfoM is the mean over active latents of max_k U /
    sum_k U, rescaled from [1/K, 1] to [0, 1]; InfoC the same over factors and active latents; InfoE is 1 -
    (cross-entropy of an unpenalized, class-balanced logistic regression of the factor on all latents, pruned
    or not) / (that of the best constant, log of the number of classes), averaged over factors, in sample.
    Args: codes [N, d], factors [N, K] class ids; prune: a latent is active where its range exceeds this share
    of the largest range (0.05: the authors' rule of 2023; others exist, so it is recorded with the score);
    neighbors: of the nearest-neighbor estimate of I for continuous latents (Ross 2014); bins: estimate I by a
    histogram of this many bins instead (this library's; compiled: `infomec_kernel`); discrete=True: latents are
    indices or values of a code, of which each that is used counts as a class: I is the plug-in estimate, a
    latent is active where it uses two codes (`prune` says nothing), and InfoE regresses on one column for each
    code in use; explicit=False leaves InfoE out. The nearest neighbors and InfoE are scikit-learn's, on the
    host, in float64.
    Range: InfoM, InfoC [0, 1]; InfoE at most 1, and below 0 only where the regression has not converged.
    Ceiling: 1 for InfoC and InfoM up to the estimate of I, which leaves a perfect code 0.99, and to pruning: of
    class ids as they are, MPI3D's largest factor prunes its binary one, and InfoC is 0.92.
    Known weakness: pruning decides InfoC, and InfoM of pure noise is far from 0 (ratios of noise): see the
    null.
    Defined answers: latents are standardized and pruned before any estimate, so dead and offset ones inform
    of nothing (with prune=0 too); what would be 0/0 is NaN as listed in `InfoMEC`. Rescaling all latents
    alike and permuting them changes nothing; rescaling one can prune it. Nearest neighbors break ties of a
    code that takes few values at random: rounding noise moves such a score as another seed does.
    """
    checked = inputs.check(codes, factors)
    if not 0 <= prune < 1:
        raise ValueError(f"prune must be in [0, 1), a share of the largest range, not {prune}")
    if discrete and bins is not None:
        raise ValueError(f"a discrete code has its own bins: leave bins out, not {bins}")
    single = inputs.for_kernel(checked.codes)
    ids = _code_ids(checked.codes) if discrete else None
    if discrete:
        num_codes = int(ids.max()) + 1
        counts = mutual_information.joint_counts(ids, checked.factors, num_codes, max(checked.sizes))
        active = ids.max(axis=0) > 0
        information = mutual_information.mutual_information_of_counts(counts) / _entropy(checked)[None]
    elif bins is not None:
        _, _, information, active = infomec_kernel(single, checked.factors, checked.sizes, bins, prune)
    else:
        active = np.asarray(_active(single, prune))
        information = _nearest_neighbors(checked, active, neighbors, seed)
    modularity, compactness, information = _concentrations(information, active)
    return InfoMEC(
        modularity=float(modularity),
        explicitness=_explicitness(_regressors(checked.codes, ids), checked.factors) if explicit else float("nan"),
        compactness=float(compactness),
        information=np.asarray(information),
        active=np.asarray(active),
        dropped=checked.dropped,
    )


@functools.partial(jax.jit, static_argnames=("sizes", "bins"))
def infomec_kernel(
    codes: Array, factors: Array, sizes: tuple[int, ...], bins: int = 20, prune: float = 0.05
) -> tuple[Array, Array, Array, Array]:
    """InfoM and InfoC of `infomec` by a histogram, of codes [N, d] and factors [N, K], ids 0 to sizes[k] - 1: InfoM
    [], InfoC [], information [d, K] and which latents are active [d] bool. A constant factor does not count.
    (InfoE needs scikit-learn.)"""
    active, informs = _active(codes, prune), mutual_information.varies(factors)
    information = mutual_information.pairwise_mutual_information(codes, factors, sizes, bins)
    entropy = jnp.where(informs, mutual_information.entropies(factors, max(sizes)), 1)
    return *_concentrations(information / entropy[None], active, informs), active


@jax.jit
def _active(codes: Array, prune: float) -> Array:
    """Latents [d] bool whose range exceeds a share of the largest; one that equals it, up to rounding, does not."""
    ranges = jnp.ptp(codes, axis=0)
    return (ranges > prune * ranges.max() * (1 + ON_EDGE)) & ~inputs.dead_latents(codes)


@jax.jit
def _concentrations(information: Array, active: Array, informs: Array | None = None) -> tuple[Array, Array, Array]:
    """InfoM, InfoC, and the information [d, K] that they are of: 0 for inactive latents.

    active [d] and informs [K] bool: the latents and the factors that count; None: all.
    """
    informs = jnp.ones(information.shape[1], bool) if informs is None else informs
    information = jnp.where(active[:, None] & informs[None], information, 0)
    return _concentration(information, informs), _concentration(information.T, active), information


def _concentration(information: Array, counted: Array) -> Array:
    """Mean over rows of max / sum, rescaled so that evenly spread over the columns counted is 0; rows of zeros do
    not count."""
    total, num = information.sum(axis=1), counted.sum()
    rows = total > 0
    shares = jnp.where(rows, information.max(axis=1) / jnp.where(rows, total, 1), 0)
    mean, even = shares.sum() / jnp.maximum(rows.sum(), 1), 1 / num
    return jnp.where((num > 1) & rows.any(), (mean - even) / jnp.where(num > 1, 1 - even, 1), jnp.nan)


def _code_ids(codes: np.ndarray) -> np.ndarray:
    """Which code each value [N, d] is, by rank; values nearer than 1e-6 of the latent's range are one code."""
    order = np.argsort(codes, axis=0)
    gaps = np.diff(np.take_along_axis(codes, order, axis=0), axis=0, prepend=codes.min(axis=0, keepdims=True))
    ranks = np.cumsum(gaps > ON_EDGE * np.ptp(codes, axis=0), axis=0)
    ids = np.empty(codes.shape, np.int32)
    np.put_along_axis(ids, order, ranks, axis=0)
    return ids


def _entropy(checked: inputs.Inputs) -> np.ndarray:
    return np.asarray(mutual_information.entropies(checked.factors, max(checked.sizes)))


def _standardized(codes: np.ndarray) -> np.ndarray:
    codes = codes.astype(np.float64)
    return (codes - codes.mean(axis=0)) / codes.std(axis=0)


def _nearest_neighbors(checked: inputs.Inputs, active: np.ndarray, neighbors: int, seed: int) -> np.ndarray:
    """I / H [d, K] of the active latents; 0 for the others."""
    information = np.zeros((len(active), checked.factors.shape[1]))
    if active.any():
        codes = _standardized(checked.codes[:, active])

        def estimate(labels):
            return mutual_info_classif(codes, labels, discrete_features=False, n_neighbors=neighbors, random_state=seed)

        information[active] = np.stack([estimate(labels) for labels in checked.factors.T], axis=1)
    return information / _entropy(checked)[None]


def _regressors(codes: np.ndarray, ids: np.ndarray | None) -> np.ndarray | scipy.sparse.spmatrix:
    """What InfoE regresses on: live latents standardized, or a column for each code in use."""
    if ids is not None:
        return OneHotEncoder().fit_transform(ids)
    return _standardized(codes[:, ~inputs.dead_latents(codes)])


def _explicitness(regressors: np.ndarray | scipy.sparse.spmatrix, factors: np.ndarray) -> float:
    """Mean over factors of the share of the constant's cross-entropy that a logistic regression explains."""

    def explained(labels):
        classifier = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100).fit(regressors, labels)
        return 1 - log_loss(labels, classifier.predict_proba(regressors)) / np.log(len(classifier.classes_))

    if regressors.shape[1] == 0:
        return 0.0
    with warnings.catch_warnings():
        # Without a penalty a separable factor has no finite optimum: the iterations bound it, as in the source.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(np.mean([explained(labels) for labels in factors.T]))
