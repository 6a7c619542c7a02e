"""InfoMEC: modularity, explicitness and compactness measured in information (Hsu et al. 2023)."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from causalvae.metrics import inputs, mutual_information


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
    neighbours: int = 10,
    discrete: bool = False,
    explicit: bool = True,
    seed: int = 0,
) -> InfoMEC:
    """How exclusively latents inform of factors (InfoM), factors sit in latents (InfoC), and can be read off
    (InfoE).

    Source: Hsu et al. 2023 (arXiv:2305.18378), section 4. With U = I(z_i; f_k) / H(f_k): InfoM is the mean
    over active latents of max_k U / sum_k U, rescaled from [1/K, 1] to [0, 1]; InfoC the same over factors
    and active latents; InfoE is 1 - (cross-entropy of an unpenalised, class-balanced logistic regression of
    the factor on all latents) / (that of the best constant, log of the number of classes), averaged over
    factors, in sample.
    Args: codes [N, d], factors [N, K] class ids; prune: a latent is active where its range exceeds this share
    of the largest range (0.05: the authors' rule; others exist, so it is recorded with the score);
    neighbours: of the nearest-neighbour estimate of I for continuous latents (Ross 2014); discrete=True:
    latents are code indices, and I is the plug-in estimate; explicit=False leaves InfoE out. float64.
    Range: InfoM, InfoC [0, 1]; InfoE at most 1, and below 0 only where the regression has not converged.
    Ceiling 1 for InfoM and InfoC; InfoE of many classes on one latent is below 1, a line cannot tell them all
    apart.
    Known weakness: pruning decides InfoC, and InfoM of pure noise is far from 0 (ratios of noise): see the
    null.
    Defined answers: latents are standardised and pruned before any estimate, so dead and offset ones inform
    of nothing (with prune=0 too); what would be 0/0 is NaN as listed in `InfoMEC`. Rescaling all latents
    alike and permuting them changes nothing; rescaling one can prune it.
    """
    checked = inputs.check(codes, factors)
    if not 0 <= prune < 1:
        raise ValueError(f"prune must be in [0, 1), a share of the largest range, not {prune}")
    ranges = np.ptp(checked.codes.astype(np.float64), axis=0)
    active = (ranges > prune * ranges.max()) & ~inputs.dead_latents(checked.codes)
    standardised = _standardised(checked.codes[:, active])
    information = np.zeros((checked.codes.shape[1], checked.factors.shape[1]))
    if active.any():
        estimate = _plug_in if discrete else _nearest_neighbours
        information[active] = estimate(standardised, checked, neighbours, seed)
    explicitness = [np.nan]
    if explicit:
        with warnings.catch_warnings():
            # Without a penalty a separable factor has no finite optimum: the iterations bound it, as in the source.
            warnings.simplefilter("ignore", ConvergenceWarning)
            explicitness = inputs.per_factor(lambda labels: _explicitness(standardised, labels), checked.factors)
    return InfoMEC(
        modularity=_concentration(information[active]),
        explicitness=float(np.mean(explicitness)),
        compactness=_concentration(information[active].T),
        information=information,
        active=active,
        dropped=checked.dropped,
    )


def _concentration(information: np.ndarray) -> float:
    """Mean over rows of max / sum, rescaled so that evenly spread is 0; rows of zeros do not count."""
    total = information.sum(axis=1)
    num = information.shape[1]
    if num < 2 or not (total > 0).any():
        return float("nan")
    rows = information[total > 0]
    return float(((rows.max(axis=1) / rows.sum(axis=1)).mean() - 1 / num) / (1 - 1 / num))


def _standardised(codes: np.ndarray) -> np.ndarray:
    codes = codes.astype(np.float64)
    return (codes - codes.mean(axis=0)) / codes.std(axis=0)


def _nearest_neighbours(codes: np.ndarray, checked: inputs.Inputs, neighbours: int, seed: int) -> np.ndarray:
    entropy = np.asarray(mutual_information.entropies(checked.factors, max(checked.sizes)))

    def estimate(labels):
        return mutual_info_classif(
            codes, labels, discrete_features=False, n_neighbors=neighbours, random_state=seed
        )

    columns = inputs.per_factor(estimate, checked.factors)
    return np.stack(columns, axis=1) / entropy[None]


def _plug_in(codes: np.ndarray, checked: inputs.Inputs, neighbours: int, seed: int) -> np.ndarray:
    ids = np.stack([np.unique(column, return_inverse=True)[1].reshape(-1) for column in codes.T], axis=1)
    counts = mutual_information.joint_counts(ids, checked.factors, int(ids.max()) + 1, max(checked.sizes))
    entropy = np.asarray(mutual_information.entropies(checked.factors, max(checked.sizes)))
    return np.asarray(mutual_information.mutual_information_of_counts(counts)) / entropy[None]


def _explicitness(codes: np.ndarray, labels: np.ndarray) -> float:
    if codes.shape[1] == 0:
        return 0.0
    classifier = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100)
    classifier.fit(codes, labels)
    constant = np.log(len(classifier.classes_))
    return float(1 - log_loss(labels, classifier.predict_proba(codes)) / constant)
