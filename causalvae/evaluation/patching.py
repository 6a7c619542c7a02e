"""Activation patching between counterfactual pairs: every unit of every site, factor by factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from causalvae import interventions, metrics
from causalvae.architectures import Architecture


class Patching(NamedTuple):
    """Interchange of every unit of every site between counterfactual pairs of each factor."""

    sites: tuple[str, ...]
    largest: np.ndarray  # [sites, K] the largest recovery that any one unit reaches
    concentration: np.ndarray  # [sites, K] 1 - normalized entropy of positive recoveries over units
    left_out: np.ndarray  # [K] pairs that are decoded alike, of which nothing can be recovered


def patch_sites(
    model: Architecture, params: Any, pairs: Sequence[interventions.Pairs], sites: tuple[str, ...]
) -> Patching:
    """Interchanges every unit of every site between the pairs of every factor (one `Pairs` each)."""
    largest, concentration = np.empty((2, len(sites), len(pairs)))
    left_out = np.zeros(len(pairs), int)
    for i, k in np.ndindex(largest.shape):
        effects = interventions.patch_effects(model, params, pairs[k], sites[i])
        left_out[k] = effects.left_out[0]
        recovery = np.nan_to_num(np.asarray(effects.recovery))  # [units]
        largest[i, k], concentration[i, k] = recovery.max(), _concentration(np.maximum(recovery, 0))
    return Patching(sites, largest, concentration, left_out)


def _concentration(weights: np.ndarray) -> float:
    """1 - normalized entropy over units of weights [units]: 1 where one unit carries all."""
    return 1.0 if len(weights) == 1 else float(metrics.intervention_specificity(weights[None]).normalized[0])
