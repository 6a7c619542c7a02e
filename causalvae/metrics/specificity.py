"""Intervention specificity of latents, and selectivity of units: how concentrated effects are."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from causalvae.interventions._checks import is_finite
from causalvae.metrics.ties import TIE, exceeds, first_largest


class Specificity(NamedTuple):
    """How concentrated each latent's effects are, in the paper's form and scaled to [0, 1]."""

    reported: Array  # [d], 1 / (H + eps)
    normalized: Array  # [d], 1 - H / log K'


def intervention_specificity(effects: ArrayLike, eps: float = 1e-6) -> Specificity:
    """Computes how concentrated each latent's effects are over categories: p_i = effects_i / sum, H(p_i) in nats.

    Source: `reported` S_i = 1 / (H(p_i) + eps) is the paper's form (its eps is unknown; 1e-6 is this library's);
    `normalized` 1 - H(p_i) / log K' and the sets of categories (outputs, factors, latents) are this library's.
    A latent without any effect (0/0) is NaN in both: mask it, e.g. with `mean_over`. Rescaling a latent's
    effects leaves it unchanged; permuting latents permutes it. Ceiling: 1e6 and 1 (one category takes all).
    Effects may be a latent's own (on outputs, on latents) or others' on it (of factors): the categories are then what
    acts, and the entropy says how few act on it. Known weakness: `reported` is unbounded and its mean belongs to the
    most specific latent; both depend on K' and on how finely the categories divide the outputs. (A third party's
    reimplementation takes z_i := 0 as the only intervention and mean squared change of each output as the effect: our
    `outputs` under `Sweep(0, 0, 1)`.)

    Args:
      effects: [d, K'], non-negative, K' >= 2 categories.
      eps: of the paper's form.

    Returns:
      [d] each; range (0, 1/eps] and [0, 1].

    Raises:
      ValueError: where there are fewer than two categories, or effects of another shape, and where effects are NaN or
        infinite but for whole columns (a factor with one value has no effect to speak of).
    """
    shape = jnp.shape(effects)
    if len(shape) > 2:
        raise ValueError(
            f"effects must be [d, K'], not {list(shape)}: flatten the categories, effects.reshape(len(effects), -1)"
        )
    if len(shape) != 2 or shape[1] < 2:
        raise ValueError(f"effects must be [d, K'] with at least 2 categories, not {list(shape)}")
    if not is_finite(effects):
        bad = ~np.isfinite(np.asarray(effects, np.float32))
        if bad.all() or (bad & ~bad.all(axis=0)).any():
            rows = np.flatnonzero(bad.any(axis=1)).tolist()
            raise ValueError(f"effects are NaN or infinite, in rows {rows}: look at the model that they are of")
    return _specificity(effects, eps)


@jax.jit
def _specificity(effects: Array, eps: Array | float) -> Specificity:
    effects = jnp.asarray(effects, jnp.float32)
    entropy = _entropy(effects)
    return Specificity(1.0 / (entropy + eps), 1.0 - entropy / math.log(effects.shape[1]))


class UnitSelectivity(NamedTuple):
    """How much each unit is about one factor alone; see `unit_selectivity`."""

    selectivity: Array  # [units], 1 - H(p_u) / log K; NaN where the unit does not count
    counted: Array  # [units] bool
    factor: Array  # [units] int, the factor that affects the unit most


@jax.jit
def unit_selectivity(effects: Array, floor: Array | float = 0.0) -> UnitSelectivity:
    """Computes the monosemanticity of units: 1 - H(p_u) / log K with p_u(k) proportional to effects[u, k].

    Source: this library. A unit counts only if its largest effect exceeds the floor by more than rounding does (1e-6
    of it, and of the largest effect of all units). Range [0, 1]; ceiling 1. Known weakness: noise in a weak unit looks
    like polysemanticity, which is why the floor is not optional in a report.

    Args:
      effects: [units, K] non-negative (E|NIE_u| over pairs that differ in factor k), K >= 2.
      floor: scalar or [units], the noise floor from permuted pairs.

    Raises:
      ValueError: where there are fewer than two factors.
    """
    effects = jnp.asarray(effects, jnp.float32)
    if effects.ndim != 2 or effects.shape[1] < 2:
        raise ValueError(f"effects must be [units, K] with at least 2 factors, not {list(effects.shape)}")
    counted = exceeds(jnp.max(effects, axis=1), floor) & exceeds(jnp.max(effects, axis=1), TIE * jnp.max(effects))
    selectivity = 1.0 - _entropy(effects) / math.log(effects.shape[1])
    return UnitSelectivity(jnp.where(counted, selectivity, jnp.nan), counted, first_largest(effects))


def _entropy(weights: Array) -> Array:
    """Entropy (nats) of each row of non-negative weights [n, K], normalized to sum to one; NaN for a zero
    row."""
    total = jnp.sum(weights, axis=1, keepdims=True)
    p = weights / jnp.where(total > 0, total, jnp.nan)
    return jnp.sum(jax.scipy.special.entr(p), axis=1)
