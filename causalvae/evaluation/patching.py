"""Activation patching between counterfactual pairs: every unit of every site, factor by factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae import interventions, metrics
from causalvae._display import as_html
from causalvae.architectures import Architecture
from causalvae.evaluation.claimed import LEVEL, p_values
from causalvae.interventions.patching import patch_with_gains
from causalvae.metrics.ties import descending


class Patching(NamedTuple):
    """Interchange of every unit of every site between counterfactual pairs of each factor."""

    sites: tuple[str, ...]
    largest: np.ndarray  # [sites, K] the largest recovery that any one unit reaches
    concentration: np.ndarray  # [sites, K] 1 - normalized entropy of positive recoveries over units
    left_out: np.ndarray  # [K] pairs that are decoded alike, of which nothing can be recovered
    # Of the unit that reaches it; None in results of versions that did not measure it.
    unit: np.ndarray | None = None  # [sites, K] its number
    restores: np.ndarray | None = None  # [sites, K] whether it restores anything: any false claim among all, 5 %
    p_value: np.ndarray | None = None  # [sites, K] of that, adjusted for the search over units, sites and factors

    _repr_html_ = as_html


def patch_sites(
    model: Architecture, params: Any, pairs: Sequence[interventions.Pairs], sites: tuple[str, ...], key: jax.Array
) -> Patching:
    """Interchanges every unit of every site between the pairs of every factor (one `Pairs` each).

    key: draws the signs of the claims.
    """
    largest, concentration, p_value = np.empty((3, len(sites), len(pairs)))
    unit = np.empty(largest.shape, int)
    left_out = np.zeros(len(pairs), int)
    for k, part in enumerate(pairs):
        gains, whole = [], None
        for i, site in enumerate(sites):
            effects, gained, whole = patch_with_gains(model, params, part, site)
            left_out[k] = effects.left_out[0]
            recovery = np.nan_to_num(np.asarray(effects.recovery))  # [units]
            largest[i, k], concentration[i, k] = recovery.max(), _concentration(np.maximum(recovery, 0))
            unit[i, k] = descending(recovery)[0]
            gains.append(np.asarray(gained))
        claimed = p_values(np.concatenate(gains), whole, jax.random.fold_in(key, k), len(pairs))
        of_sites = np.split(claimed, np.cumsum([len(part) for part in gains])[:-1])
        p_value[:, k] = [values[u] for values, u in zip(of_sites, unit[:, k])]
    return Patching(sites, largest, concentration, left_out, unit, (p_value <= LEVEL) & (largest > 0), p_value)


def _concentration(weights: np.ndarray) -> float:
    """1 - normalized entropy over units of weights [units]: 1 where one unit carries all."""
    return 1.0 if len(weights) == 1 else float(metrics.intervention_specificity(weights[None]).normalized[0])
