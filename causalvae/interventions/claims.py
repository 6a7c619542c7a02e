"""Which of many units or edges carry an effect: claims whose family-wise error is that of the whole search.

Among thousands of units that do nothing on average, some look as if they did. The largest statistic that chance gives
over the whole search is drawn by flipping the signs of pairs, all units of a pair together, and a claim must exceed
it. Where an effect that is not there is as often positive as negative this is exact for any number of pairs, for heavy
tails, and for units that depend on each other, as those of a network do.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

NOTHING = 1e-5  # of the largest effect, or of the total: what float32 leaves uncertain is no effect
CHUNK = 2**24  # flips x units at once
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


def claims(
    effects: jax.Array | np.ndarray,
    key: jax.Array,
    *,
    total: jax.Array | np.ndarray | None = None,
    least: float = 0.0,
    level: float = 0.05,
    flips: int = 2000,
    families: int = 1,
) -> Claims:
    """Returns which units or edges carry an effect, with adjusted p-values and simultaneous intervals.

    Source: Westfall & Young 1993 and Romano & Wolf 2005: step-down max-T, here by sign flips over pairs, of the sum of
    effects over the root of the sum of their squares. Chosen over Holm's method, whose p-values of single tests must be
    right far out in the tails and which ignores that units are dependent, and over e-values, which pay with power for
    the freedom to stop at any time: the number of pairs is fixed here. What is controlled: the chance that any effect
    whose mean is zero (or at most `least`) is claimed, whatever the others are. It is at most `level` where these
    effects are symmetric, and about that where they are skewed; docs/claims.md has simulations. Intervals are those of
    residuals with flipped signs (the wild bootstrap), of the largest studentized mean: they are approximate. A claim
    says that the mean over the population of such pairs is not zero, not that it is large: see `least`.

    Args:
      effects: [..., N] per pair, of everything that was searched: `indirect` of `mediate`, `path` of `path_effects`.
      key: draws the flips.
      total: [N] total effects of the pairs; effects are then given as shares of the mean total.
      least: claim only what exceeds this share of the total in either direction (without `total`, this effect).
      level: family-wise error of the claims, and one minus the joint coverage of the intervals.
      flips: how often signs are drawn; p-values are multiples of families / (flips + 1).
      families: how many such families are claimed of together, such as factors: level and p-values are corrected
        (Bonferroni).

    Raises:
      ValueError: for no pair whose effects are all defined, a level outside (0, 1), flips too few for a claim, a
        negative `least`, and totals that are not one for each pair.
    """
    values = np.asarray(effects, np.float64)
    shape, values = values.shape[:-1], values.reshape(-1, values.shape[-1])
    whole = np.ones(values.shape[1]) if total is None else np.asarray(total, np.float64)
    _check(values, whole, level / families, flips, least)
    valid = np.isfinite(whole) & np.isfinite(values).all(axis=0)
    if not valid.any():
        raise ValueError("no pair of which all effects are defined: nothing can be claimed")
    values, whole = _without_rounding(values[:, valid], whole[valid], total is not None)
    signs = np.asarray(jax.random.rademacher(key, (flips, values.shape[1]), "int8"), np.float64)
    p_value = np.minimum(_step_down(_deviations(values, whole, least), signs) * families, 1)
    effect, half = _simultaneous(values, whole, signs, level / families)
    return Claims(
        claimed=(p_value <= level).reshape(shape),
        p_value=p_value.reshape(shape),
        effect=effect.reshape(shape),
        low=(effect - half).reshape(shape),
        high=(effect + half).reshape(shape),
        pairs=int(valid.sum()),
        left_out=int((~valid).sum()),
    )


def _check(values: np.ndarray, total: np.ndarray, level: float, flips: int, least: float) -> None:
    if total.shape != values.shape[1:]:
        raise ValueError(f"totals are one for each of the {values.shape[1]} pairs, not {list(total.shape)}")
    if not 0 < level < 1 or (flips + 1) * level < 1:
        raise ValueError(
            f"nothing can be claimed at level {level:g} (of one family) with {flips} flips: a level is in (0, 1), and "
            "there are at least as many flips as its inverse"
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


def _statistics(deviations: list[np.ndarray], signs: np.ndarray) -> np.ndarray:
    """Self-normalized sums [flips, units] under flips of the pairs' signs [flips, pairs]; 0 where nothing deviates."""
    found = []
    for values in deviations:
        norm = np.sqrt((values**2).sum(axis=1))
        found.append(signs @ values.T / np.where(norm > 0, norm, 1.0))
    return np.maximum(*found)


def _step_down(deviations: list[np.ndarray], signs: np.ndarray) -> np.ndarray:
    """Adjusted p-values [units]: how often flips give, over the unit and all weaker ones, so large a statistic.

    Units are taken from the weakest to the strongest, a chunk at a time, so that memory is bounded.
    """
    observed = _statistics(deviations, np.ones((1, signs.shape[1])))[0]
    order = np.argsort(observed, kind="stable")
    size = max(1, CHUNK // len(signs))
    largest, counts = np.full(len(signs), -np.inf), np.empty(len(observed))
    for start in range(0, len(order), size):
        units = order[start : start + size]
        flipped = np.maximum.accumulate(_statistics([d[units] for d in deviations], signs), axis=1)
        flipped = np.maximum(flipped, largest[:, None])
        counts[units] = (flipped >= observed[units] - TIE).sum(axis=0)
        largest = flipped[:, -1]
    p_value = (1 + counts[order[::-1]]) / (1 + len(signs))
    adjusted = np.empty(len(order))
    adjusted[order[::-1]] = np.maximum.accumulate(p_value)  # none below that of a stronger unit
    return np.where(observed > 0, adjusted, 1.0)


def _simultaneous(
    values: np.ndarray, total: np.ndarray, signs: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Means [units], or shares of the mean total, and half the width of their simultaneous intervals."""
    num = values.shape[1]
    mean = values.mean(axis=1) / total.mean()
    residuals = (values - mean[:, None] * total) / total.mean()
    deviation = np.sqrt((residuals**2).sum(axis=1) / max(num - 1, 1))
    largest, size = np.zeros(len(signs)), max(1, CHUNK // len(signs))
    for start in range(0, len(values), size):
        part = residuals[start : start + size]
        largest = np.maximum(largest, _statistics([part, -part], signs).max(axis=1, initial=0))
    place = min(int(np.ceil((1 - level) * (len(signs) + 1))), len(signs)) - 1
    sum_ = np.sort(largest)[place]
    with np.errstate(divide="ignore"):  # few pairs, all of one sign: no bound
        critical = sum_ * np.sqrt((num - 1) / np.maximum(num - sum_**2, 0))
    return mean, np.where(deviation > 0, critical * deviation / np.sqrt(num), 0.0)
