"""InfoMEC: modularity, explicitness and compactness measured in information (Hsu et al. 2023)."""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import histograms, inputs
from causalvae.metrics.histograms import ON_EDGE


class InfoMEC(NamedTuple):
    """Modularity, explicitness and compactness from information, [0, 1] each; see `infomec`."""

    modularity: float  # InfoM; NaN for a single factor, and where no latent informs of any
    explicitness: float  # InfoE; NaN where explicit=False
    compactness: float  # InfoC; NaN for fewer than two active latents
    information: np.ndarray  # [d, K], I(z_i; f_k) / H(f_k); 0 for inactive latents
    active: np.ndarray  # [d] bool, latents that were not pruned
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def infomec(
    representations: ArrayLike,
    factors: ArrayLike,
    prune: float = 0.05,
    neighbors: int = 10,
    bins: int | None = None,
    discrete: bool = False,
    explicit: bool = True,
    seed: int = 0,
) -> InfoMEC:
    """Computes InfoM, InfoE and InfoC: modularity, explicitness and compactness in units of information.

    With U = I(z_i; f_k) / H(f_k), InfoM is the mean over active latents of max_k U / sum_k U, rescaled from [1/K, 1] to
    [0, 1]. InfoC is the same over factors and active latents. InfoE is 1 - (cross-entropy of an unpenalized,
    class-balanced logistic regression of the factor on all latents, pruned or not) / (that of the best constant, log of
    the number of classes), averaged over factors, in sample.
    Source: Hsu et al. 2023 (arXiv:2305.18378), section 4, and its authors' code, with which it agrees; it is not in
    disentanglement_lib.
    Range: InfoM and InfoC [0, 1]; InfoE at most 1, and below 0 only where the regression has not converged. The ceiling
    of InfoC and InfoM is 1 up to the estimate of I, which leaves class ids themselves 0.99, and to pruning: MPI3D's
    largest factor prunes its binary one, and InfoC is 0.92. Known weakness: pruning decides InfoC, and InfoM of pure
    noise is far from 0 (ratios of noise): see the null.

    Latents are standardized and pruned before any estimate, so dead and offset ones inform of nothing (with prune=0
    too). What would be 0/0 is NaN as listed in `InfoMEC`. Rescaling all latents alike and permuting them changes
    nothing; rescaling one can prune it. Nearest neighbors break ties of a latent that takes few values at random:
    rounding noise moves such a score as another seed does.

    Args:
      representations: latents [N, d] of any framework.
      factors: integer class ids [N, K].
      prune: a latent is active where its range exceeds this share of the largest range. 0.05 is the authors' rule of
        2023; others exist, so it is recorded with the score.
      neighbors: of the nearest-neighbor estimate of I for continuous latents (Ross 2014), scikit-learn's in float64.
      bins: estimates I by a histogram of this many bins instead (this library's; compiled: `infomec_kernel`).
      discrete: True for codes (indices, or their values), of which each that is used counts as a class. I is then the
        plug-in estimate, a latent is active where it uses two codes (`prune` says nothing), and InfoE regresses on one
        column for each code in use.
      explicit: False leaves InfoE out.
      seed: of the nearest neighbors' ties.

    Returns:
      The three scores, the information, and which latents are active.

    Raises:
      ValueError: for `prune` out of range, bins of discrete codes, and malformed input, see `inputs.check`.
    """
    checked = inputs.check(representations, factors)
    if not 0 <= prune < 1:
        raise ValueError(f"prune must be in [0, 1), a share of the largest range, not {prune}")
    if discrete and bins is not None:
        raise ValueError(f"a discrete code has its own bins: leave bins out, not {bins}")
    single = inputs.for_kernel(checked.representations)
    ids = _code_ids(checked.representations) if discrete else None
    if ids is not None:
        num_codes = int(ids.max()) + 1
        counts = histograms.joint_counts(ids, checked.factors, num_codes, max(checked.sizes))
        active = ids.max(axis=0) > 0
        information = histograms.mutual_information_of_counts(counts) / _entropy(checked)[None]
    elif bins is not None:
        _, _, information, active = infomec_kernel(single, checked.factors, checked.sizes, bins, prune)
    else:
        active = np.asarray(_active(single, prune))
        information = _nearest_neighbors(checked, active, neighbors, seed)
    modularity, compactness, information = _concentrations(information, active)
    return InfoMEC(
        modularity=float(modularity),
        explicitness=_explicitness(_regressors(checked.representations, ids), checked.factors) if explicit else np.nan,
        compactness=float(compactness),
        information=np.asarray(information),
        active=np.asarray(active),
        dropped=checked.dropped,
    )


@functools.partial(jax.jit, static_argnames=("sizes", "bins"))
def infomec_kernel(
    representations: Array, factors: Array, sizes: tuple[int, ...], bins: int = 20, prune: float = 0.05
) -> tuple[Array, Array, Array, Array]:
    """Computes InfoM and InfoC of `infomec` by a histogram, under `jax.jit` and `jax.vmap`. (InfoE needs scikit-learn.)

    Args:
      representations: [N, d] float32.
      factors: [N, K] int32, ids 0 to sizes[k] - 1.
      sizes: number of classes of each factor.
      bins: equal-width bins of each latent.
      prune: see `infomec`.

    Returns:
      InfoM [], InfoC [], information [d, K] and which latents are active [d] bool. A constant factor does not count.
    """
    active, informs = _active(representations, prune), histograms.varies(factors)
    information = histograms.pairwise_mutual_information(representations, factors, sizes, bins)
    entropy = jnp.where(informs, histograms.entropies(factors, max(sizes)), 1)
    return *_concentrations(information / entropy[None], active, informs), active


@jax.jit
def _active(representations: Array, prune: float) -> Array:
    """Latents [d] bool whose range exceeds a share of the largest; one that equals it, up to rounding, does not."""
    ranges = jnp.ptp(representations, axis=0)
    return (ranges > prune * ranges.max() * (1 + ON_EDGE)) & ~inputs.dead_latents(representations)


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


def _code_ids(representations: np.ndarray) -> np.ndarray:
    """Which code each value [N, d] is, by rank; values nearer than 1e-6 of the latent's range are one code."""
    order = np.argsort(representations, axis=0)
    gaps = np.diff(
        np.take_along_axis(representations, order, axis=0), axis=0, prepend=representations.min(axis=0, keepdims=True)
    )
    ranks = np.cumsum(gaps > ON_EDGE * np.ptp(representations, axis=0), axis=0)
    ids = np.empty(representations.shape, np.int32)
    np.put_along_axis(ids, order, ranks, axis=0)
    return ids


def _entropy(checked: inputs.Inputs) -> np.ndarray:
    return np.asarray(histograms.entropies(checked.factors, max(checked.sizes)))


def _standardized(representations: np.ndarray) -> np.ndarray:
    representations = representations.astype(np.float64)
    return (representations - representations.mean(axis=0)) / representations.std(axis=0)


def _nearest_neighbors(checked: inputs.Inputs, active: np.ndarray, neighbors: int, seed: int) -> np.ndarray:
    """I / H [d, K] of the active latents; 0 for the others."""
    from sklearn.feature_selection import mutual_info_classif

    information = np.zeros((len(active), checked.factors.shape[1]))
    if active.any():
        z = _standardized(checked.representations[:, active])
        options: dict[str, Any] = {"discrete_features": False, "n_neighbors": neighbors, "random_state": seed}

        def estimate(labels):
            return mutual_info_classif(z, labels, **options)

        information[active] = np.stack([estimate(labels) for labels in checked.factors.T], axis=1)
    return information / _entropy(checked)[None]


def _regressors(representations: np.ndarray, ids: np.ndarray | None) -> Any:
    """What InfoE regresses on: live latents standardized, or a column for each code in use."""
    if ids is not None:
        from sklearn.preprocessing import OneHotEncoder

        return OneHotEncoder().fit_transform(ids)
    return _standardized(representations[:, ~inputs.dead_latents(representations)])


def _explicitness(regressors: Any, factors: np.ndarray) -> float:
    """Mean over factors of the share of the constant's cross-entropy that a logistic regression explains."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    def explained(labels):
        classifier = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100).fit(regressors, labels)
        return 1 - log_loss(labels, classifier.predict_proba(regressors)) / np.log(len(classifier.classes_))

    if regressors.shape[1] == 0:
        return 0.0
    with warnings.catch_warnings():
        # Without a penalty a separable factor has no finite optimum: the iterations bound it, as in the source.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(np.mean([explained(labels) for labels in factors.T]))
