"""Mediation of each factor's effect on the image by each latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae import interventions
from causalvae.architectures import Architecture

EFFECTS = ("indirect", "direct", "interaction")


class Mediated(NamedTuple):
    """Mediation by each latent, per factor: ratios of sums over pairs, with 95 % bootstrap intervals."""

    effects: tuple[str, ...]  # indirect, direct, interaction
    estimate: np.ndarray  # [K, d, effects] in units of the total effect
    low: np.ndarray
    high: np.ndarray
    left_out: np.ndarray  # [K] pairs that are decoded alike


def mediate_latents(model: Architecture, params: Any, pairs: Sequence[interventions.Pairs], key: jax.Array) -> Mediated:
    """Takes each latent as the mediator of each factor's effect on the image (one `Pairs` per factor)."""
    rows, left_out = [], []
    for k, part in enumerate(pairs):
        found = interventions.mediate(model, params, part, "latent/z", outcome=interventions.unscaled_projection)
        summary = interventions.summarize(found, jax.random.fold_in(key, k), relative=True)
        rows.append([getattr(summary, name) for name in EFFECTS])
        left_out.append(int(summary.left_out))

    def collect(field):
        return np.stack([np.stack([np.asarray(getattr(e, field)) for e in row], axis=-1) for row in rows])

    return Mediated(EFFECTS, collect("mean"), collect("low"), collect("high"), np.array(left_out))
