"""What an evaluation claims of units and latents: p-values that are adjusted for the search."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from causalvae import interventions

LEVEL = 0.05  # family-wise error of the claims


def p_values(effects: Any, total: Any, key: jax.Array, factors: int) -> np.ndarray:
    """Returns p-values [G] of effects [G, N] being other than zero, adjusted for the search over all of them and over
    all factors; NaN where no pair has a total effect [N]."""
    total = np.asarray(total)
    if not np.isfinite(total).any():
        return np.full(len(effects), np.nan)
    return interventions.claims(effects, key, total=total, families=factors).p_value
