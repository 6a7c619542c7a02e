"""Mediation of each factor's effect on the image by each latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae import interventions
from causalvae._display import as_html
from causalvae.architectures import Architecture
from causalvae.evaluation.claimed import LEVEL, p_values

EFFECTS = ("indirect", "direct", "interaction")


class Mediated(NamedTuple):
    """Mediation by each latent, per factor: ratios of sums over pairs, with 95 % bootstrap intervals."""

    effects: tuple[str, ...]  # indirect, direct, interaction
    estimate: np.ndarray  # [K, d, effects] in units of the total effect
    low: np.ndarray
    high: np.ndarray
    left_out: np.ndarray  # [K] pairs that are decoded alike
    # Of |interaction| / |total|; None in results of versions that did not measure it.
    interaction_share: np.ndarray | None = None  # [K, d] over all pairs
    # [K, d]: whether there is one "effect through" the latent: its share is not beyond the limit, error considered
    well_defined: np.ndarray | None = None
    share_by_distance: np.ndarray | None = None  # [K, d, B] in bins of pairs, near ones first; NaN: no pair
    distance: np.ndarray | None = None  # [K, B] mean distance (rms) of the bins' x and x'
    limit: float | None = None
    carries: np.ndarray | None = None  # [K, d] whether the latent carries the factor: any false claim among all, 5 %
    p_value: np.ndarray | None = None  # [K, d] of that, adjusted for the search over latents and factors

    _repr_html_ = as_html


def mediate_latents(model: Architecture, params: Any, pairs: Sequence[interventions.Pairs], key: jax.Array) -> Mediated:
    """Takes each latent as the mediator of each factor's effect on the image (one `Pairs` per factor)."""
    rows, left_out, interactions, claimed = [], [], [], []
    for k, part in enumerate(pairs):
        found = interventions.mediate(model, params, part, "latent/z", outcome=interventions.unscaled_projection)
        summary = interventions.summarize(found, jax.random.fold_in(key, k), relative=True)
        rows.append([getattr(summary, name) for name in EFFECTS])
        left_out.append(int(summary.left_out))
        drawn = jax.random.fold_in(key, len(pairs) + k)
        claimed.append(p_values(found.indirect, found.total, drawn, len(pairs)))
        interactions.append(jax.tree.map(np.asarray, summary.interaction_share))

    def collect(field):
        return np.stack([np.stack([np.asarray(getattr(e, field)) for e in row], axis=-1) for row in rows])

    return Mediated(
        effects=EFFECTS,
        estimate=collect("mean"),
        low=collect("low"),
        high=collect("high"),
        left_out=np.array(left_out),
        interaction_share=np.stack([found.share.mean for found in interactions]),
        well_defined=~np.stack([found.share.low > interventions.INTERACTION_LIMIT for found in interactions]),
        share_by_distance=np.stack([found.binned for found in interactions]),
        distance=np.stack([found.distance for found in interactions]),
        limit=interventions.INTERACTION_LIMIT,
        carries=np.stack(claimed) <= LEVEL,
        p_value=np.stack(claimed),
    )
