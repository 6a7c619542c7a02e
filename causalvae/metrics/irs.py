"""IRS: interventional robustness."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from causalvae.metrics import inputs


class IRS(NamedTuple):
    """Interventional robustness, [0, 1]: its mean over latents, and every latent given every factor."""

    score: float
    per_latent: np.ndarray  # [d]; NaN for dead latents
    matrix: np.ndarray  # [d, K] robustness of each latent given each factor
    parents: np.ndarray  # [d] int, the factor that a latent is most robust given
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


def irs(
    codes: ArrayLike, factors: ArrayLike, quantile: float = 0.99, bins: int = 20, reference: bool = False
) -> IRS:
    """How little a latent moves, once its own factor is fixed, whatever happens to the others.

    Source: Suter et al. 2019, section 4, as in disentanglement_lib: for each value of a factor, the
    `quantile` of |z_i - E[z_i | value]|, averaged over values and divided by the largest |z_i - E z_i|; a
    latent's score is 1 - its smallest such ratio, and latents are averaged with their largest deviation as
    weight. Factors of more than `bins` classes are grouped into that many (the reference does the same, which
    caps the score: dSprites 0.979). float64.
    Args: codes [N, d], factors [N, K] class ids. Range [0, 1], ceiling 1 up to that grouping. Known weakness:
    high (0.85) for a nearly collapsed model, and 0.3 for pure noise with few rows per value: read it beside
    its null.
    Defined answers: dead latents have no robustness and no weight; all dead: 0. `reference=True` keeps them,
    and answers NaN where there is one. Rescaling a latent changes its weight, nothing else.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be in (0, 1], not {quantile}")
    checked = inputs.check(codes, factors)
    latents = checked.codes.astype(np.float64)
    grouped = inputs.discretise(checked.factors.astype(np.float64), bins)
    largest = np.abs(latents - latents.mean(axis=0)).max(axis=0)
    deviations = np.stack([_deviation(latents, column, quantile) for column in grouped.T], axis=1)
    live = np.ones(len(largest), bool) if reference else ~inputs.dead_latents(checked.codes)
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = 1 - deviations / largest[:, None]
    matrix = np.where(live[:, None], matrix, np.nan)
    per_latent = matrix.max(axis=1)
    score = float(np.average(per_latent[live], weights=largest[live])) if live.any() else 0.0
    parents = np.where(np.isnan(matrix), -np.inf, matrix).argmax(axis=1)
    return IRS(score, per_latent, matrix, parents, checked.dropped)


def _deviation(latents: np.ndarray, labels: np.ndarray, quantile: float) -> np.ndarray:
    """[d]: the quantile of |z - E[z | value]| within each value of a factor, averaged over its values."""
    within = []
    for value in np.unique(labels):
        rows = latents[labels == value]
        within.append(np.percentile(np.abs(rows - rows.mean(axis=0)), 100 * quantile, axis=0))
    return np.mean(within, axis=0)
