"""Modularity and explicitness of Ridgeway & Mozer 2018."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from causalvae.metrics import inputs
from causalvae.metrics.mutual_information import pairwise_mutual_information


class ModularityExplicitness(NamedTuple):
    """Modularity (a latent, one factor) and explicitness (a factor, easily read); [0, 1] each."""

    modularity: float  # mean over latents that count
    explicitness: float  # mean over factors, test rows
    per_latent: np.ndarray  # [d] modularity of each latent; NaN where it does not count
    per_factor: np.ndarray  # [K] explicitness of each factor
    num_train: int
    num_test: int
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def modularity_explicitness(
    codes: ArrayLike,
    factors: ArrayLike,
    bins: int = 20,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
    shuffle: bool = True,
    explicit: bool = True,
    reference: bool = False,
) -> ModularityExplicitness:
    """Modularity: each latent informs of one factor only. Explicitness: factors can be read off linearly.

    Source: Ridgeway & Mozer 2018, section 3; estimates of Locatello et al. 2019. Modularity of latent i is
    1 - sum over factors but the best of I(z_i; f)^2 / (I(z_i; best)^2 (K - 1)), on training rows in 20 bins.
    Explicitness is the area under the ROC curve, one class against the rest and averaged over classes, of a
    multinomial logistic regression on standardised codes, on test rows.
    Args: codes [N, d], factors [N, K] class ids; explicit=False leaves explicitness out (NaN).
    Range: modularity [0, 1], explicitness [0, 1] with 0.5 for chance; ceiling 1 for both. Known weakness: the
    modularity of pure noise is 0.6 to 0.7 (the largest of K noises stands out), so it is never shown without
    its null, and a code that holds one factor in all latents is perfectly modular.
    Defined answers: a dead latent informs of nothing and does not count; `reference=True` counts it as 0, as
    disentanglement_lib does (two dead latents pull a near-perfect 0.89 to 0.67). No latent counts: 0. A
    single factor: 1, there is no other to inform of. Factors with one class in the training rows have no
    explicitness (NaN).
    """
    checked = inputs.check(codes, factors)
    train, test = inputs.split_rows(len(checked.codes), num_train, num_test, seed if shuffle else None)
    rows = checked._replace(codes=checked.codes[train], factors=checked.factors[train])
    information = pairwise_mutual_information(rows, bins).astype(np.float64)
    # One bin holds a dead latent: its information is 0, which float32 arithmetic misses by a rounding error.
    per_latent = _modularity(np.where(inputs.dead_latents(rows.codes)[:, None], 0.0, information))
    counted = (
        np.where(np.isnan(per_latent), 0.0, per_latent) if reference else per_latent[~np.isnan(per_latent)]
    )
    per_factor = np.full(checked.factors.shape[1], np.nan)
    if explicit:
        per_factor = np.array(
            inputs.per_factor(lambda labels: _explicitness(checked.codes, labels, train, test), checked.factors)
        )
    defined = per_factor[~np.isnan(per_factor)]
    return ModularityExplicitness(
        modularity=float(counted.mean()) if counted.size else 0.0,
        explicitness=float(defined.mean()) if defined.size else float("nan"),
        per_latent=per_latent,
        per_factor=per_factor,
        num_train=len(train),
        num_test=len(test),
        dropped=checked.dropped,
    )


def _modularity(information: np.ndarray) -> np.ndarray:
    """[d] of mutual information [d, K]; NaN for a latent that informs of nothing."""
    squared = np.square(information)
    best = squared.max(axis=1)
    if squared.shape[1] == 1:
        return np.where(best > 0, 1.0, np.nan)
    rest = (squared.sum(axis=1) - best) / (squared.shape[1] - 1)
    return 1 - rest / np.where(best > 0, best, np.nan)


def _explicitness(codes: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Mean area under the ROC curve over the classes that occur in training and in some test rows, not
    all."""
    classes = np.unique(labels[train])
    if len(classes) < 2:
        return float("nan")
    scaler = StandardScaler().fit(codes[train])
    classifier = LogisticRegression(max_iter=1000).fit(scaler.transform(codes[train]), labels[train])
    probabilities = classifier.predict_proba(scaler.transform(codes[test]))
    truth = labels[test][:, None] == classes[None, :]
    judged = truth.any(axis=0) & ~truth.all(axis=0)
    if not judged.any():
        return float("nan")
    return float(np.mean([roc_auc_score(truth[:, c], probabilities[:, c]) for c in np.flatnonzero(judged)]))
