"""Which of many units or edges carry an effect: claims whose family-wise error is that of the whole search.

Among thousands of units that do nothing on average, some look as if they did. A claim must exceed the largest statistic
that chance gives over the whole search, which is drawn by flipping the signs of pairs, or by drawing them again, all
units of a pair together: so units may depend on each other, as those of a network do.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from causalvae._display import as_html
from causalvae.interventions._checks import check_choice

NOTHING = 1e-5  # of the largest effect, or of the total: what float32 leaves uncertain is no effect
CHUNK = 2**24  # draws x units at once
METHODS = ("flips", "bootstrap")
TIE = 1e-9  # statistics so close are equal: rounding must not decide


class Claims(NamedTuple):
    """Units or edges, each with its mean effect over pairs; all [...] as the effects were, without pairs."""

    claimed: np.ndarray  # bool: carries an effect; the chance of any false claim in the family is at most the level
    p_value: np.ndarray  # adjusted for the search
    effect: np.ndarray  # mean over pairs; given totals, as a share of the mean total
    low: np.ndarray  # simultaneous intervals: all of them hold at once, with probability 1 - level
    high: np.ndarray
    pairs: int  # how many pairs counted
    left_out: int  # how many did not: an effect is NaN

    _repr_html_ = as_html


def claims(
    effects: jax.Array | np.ndarray,
    key: jax.Array,
    *,
    method: str = "flips",
    total: jax.Array | np.ndarray | None = None,
    least: float = 0.0,
    level: float = 0.05,
    draws: int = 2000,
    families: int = 1,
) -> Claims:
    """Returns which units or edges carry an effect, with adjusted p-values and simultaneous intervals.

    Source: Westfall & Young 1993 and Romano & Wolf 2005: step-down max-T. What is controlled is the chance that any
    effect whose mean is zero (or at most `least`) is claimed, whatever the others are. "flips" is exact, for any number
    of pairs and any tails, where such an effect is as often positive as negative, and wrong where it is skewed.
    "bootstrap" (studentized) is approximate, holds for skewed effects, and claims little where tails are heavy or few
    pairs have any effect. Both take the dependence between units as it is, which Holm's method does not, and need no
    tail probability of a single test; e-values would allow to stop at any time, at the price of power, but the number
    of pairs is fixed here. docs/claims.md compares them all. Intervals are approximate with either. A claim says that
    the mean over the population of such pairs is not zero, not that it is large: see `least`.

    Args:
      effects: [..., N] per pair, of everything that was searched: `indirect` of `mediate`, `effects` of `edge_effects`.
      key: draws the signs, or the pairs.
      method: "flips" or "bootstrap".
      total: [N] total effects of the pairs; effects are then given as shares of the mean total.
      least: claim only what exceeds this share of the total in either direction (without `total`, this effect).
      level: family-wise error of the claims, and one minus the joint coverage of the intervals.
      draws: how many; p-values are multiples of families / (draws + 1).
      families: how many such families are claimed of together, such as factors: level and p-values are corrected
        (Bonferroni).

    Raises:
      ValueError: for no pair whose effects are all defined, a method that does not exist, a level outside (0, 1), draws
        too few for a claim, a negative `least`, and totals that are not one for each pair.
    """
    check_choice("method", method, METHODS)
    values = np.asarray(effects, np.float64)
    shape, values = values.shape[:-1], values.reshape(-1, values.shape[-1])
    whole = np.ones(values.shape[1]) if total is None else np.asarray(total, np.float64)
    _check(values, whole, level / families, draws, least)
    valid = np.isfinite(whole) & np.isfinite(values).all(axis=0)
    if not valid.any():
        raise ValueError("no pair of which all effects are defined: nothing can be claimed")
    values, whole = _without_rounding(values[:, valid], whole[valid], total is not None)
    weights = _drawn(method, key, draws, values.shape[1])
    p_value = np.ones(len(values))  # of a single pair nothing can be claimed
    if values.shape[1] > 1:
        p_value = np.minimum(_step_down(_deviations(values, whole, least), weights) * families, 1)
    effect, half = _simultaneous(values, whole, weights, level / families)
    return Claims(
        claimed=(p_value <= level).reshape(shape),
        p_value=p_value.reshape(shape),
        effect=effect.reshape(shape),
        low=(effect - half).reshape(shape),
        high=(effect + half).reshape(shape),
        pairs=int(valid.sum()),
        left_out=int((~valid).sum()),
    )


def _check(values: np.ndarray, total: np.ndarray, level: float, draws: int, least: float) -> None:
    if total.shape != values.shape[1:]:
        raise ValueError(f"totals are one for each of the {values.shape[1]} pairs, not {list(total.shape)}")
    if not 0 < level < 1 or (draws + 1) * level < 1:
        raise ValueError(
            f"nothing can be claimed at level {level:g} (of one family) with {draws} draws: a level is in (0, 1), and "
            "there are at least as many draws as its inverse"
        )
    if least < 0:
        raise ValueError(f"least is a size, at least 0, not {least}")


def _without_rounding(values: np.ndarray, total: np.ndarray, known: bool) -> tuple[np.ndarray, np.ndarray]:
    """Effects with zeros in place of what may be rounding, and totals turned so that their mean is not negative."""
    scale = np.abs(total).mean() if known else np.abs(values).max(initial=0)
    values = np.where(np.abs(values) > NOTHING * scale, values, 0.0)
    turned = -1.0 if total.mean() < 0 else 1.0
    return turned * values, turned * total


def _deviations(values: np.ndarray, total: np.ndarray, least: float) -> list[np.ndarray]:
    """What is tested to be positive [units, pairs], of each unit the largest: its effect beyond `least`, both ways."""
    idle = ~values.any(axis=1, keepdims=True)
    return [np.where(idle, 0.0, sign * values - least * total) for sign in (1, -1)]


# --- family-wise error -----------------------------------------------------------------------------------


def _drawn(method: str, key: jax.Array, draws: int, pairs: int) -> np.ndarray:
    """What each pair weighs in each draw [draws, pairs]: a sign, or how often it was drawn."""
    if method == "flips":
        return np.asarray(jax.random.rademacher(key, (draws, pairs), "int8"), np.float64)
    chosen = np.asarray(jax.random.randint(key, (draws, pairs), 0, pairs))
    return np.stack([np.bincount(row, minlength=pairs) for row in chosen]).astype(np.float64)


def _statistics(deviations: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The largest of the self-normalized sums [draws, units] of deviations [units, pairs]; 0 where nothing deviates.

    t = T sqrt((N - 1) / (N - T^2)) is Student's statistic of the same draw: one rises with the other.
    """
    found = []
    for values in deviations:
        sums, squares = weights @ values.T, np.abs(weights) @ (values**2).T
        found.append(sums / np.sqrt(np.where(squares > 0, squares, 1.0)))
    return np.maximum(*found)


def _by_chance(deviations: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """The statistics of draws [draws, units] in which there is no effect."""
    if (weights >= 0).all():  # pairs drawn again, around their mean
        deviations = [values - values.mean(axis=1, keepdims=True) for values in deviations]
    return _statistics(deviations, weights)


def _step_down(deviations: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Adjusted p-values [units]: how often draws give, over the unit and all weaker ones, so large a statistic.

    Units are taken from the weakest to the strongest, a chunk at a time, so that memory is bounded.
    """
    observed = _statistics(deviations, np.ones((1, weights.shape[1])))[0]
    order = np.argsort(observed, kind="stable")
    size = max(1, CHUNK // len(weights))
    largest, counts = np.full(len(weights), -np.inf), np.empty(len(observed))
    for start in range(0, len(order), size):
        units = order[start : start + size]
        drawn = np.maximum.accumulate(_by_chance([d[units] for d in deviations], weights), axis=1)
        drawn = np.maximum(drawn, largest[:, None])
        counts[units] = (drawn >= observed[units] - TIE).sum(axis=0)
        largest = drawn[:, -1]
    p_value = (1 + counts[order[::-1]]) / (1 + len(weights))
    adjusted = np.empty(len(order))
    adjusted[order[::-1]] = np.maximum.accumulate(p_value)  # none below that of a stronger unit
    return np.where(observed > 0, adjusted, 1.0)


def _simultaneous(
    values: np.ndarray, total: np.ndarray, weights: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Means [units], or shares of the mean total, and half the width of their simultaneous intervals."""
    num, whole = values.shape[1], total.mean() or np.nan  # there are no shares of nothing
    mean = values.mean(axis=1) / whole
    residuals = (values - mean[:, None] * total) / whole
    deviation = np.sqrt((residuals**2).sum(axis=1) / max(num - 1, 1))
    largest, size = np.zeros(len(weights)), max(1, CHUNK // len(weights))
    for start in range(0, len(values), size):
        part = residuals[start : start + size]
        largest = np.maximum(largest, _by_chance([part, -part], weights).max(axis=1, initial=0))
    place = min(int(np.ceil((1 - level) * (len(weights) + 1))), len(weights)) - 1
    statistic = np.sort(largest)[place]
    rest = num - statistic**2
    critical = statistic * np.sqrt((num - 1) / rest) if num > 1 and rest > TIE * num else np.inf  # few pairs: no bound
    varies = (deviation > 0) | ((num == 1) & values.any(axis=1)) | np.isnan(deviation)
    return mean, np.where(varies, critical * np.where(varies, np.maximum(deviation, TIE), 1.0) / np.sqrt(num), 0.0)
