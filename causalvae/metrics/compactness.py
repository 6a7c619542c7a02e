"""Modularity and explicitness of Ridgeway & Mozer 2018."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs, regression
from causalvae.metrics.mutual_information import ON_EDGE, pairwise_mutual_information, varies


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
    multinomial logistic regression (penalty ||w||^2 / 2, scikit-learn's default) on standardized codes, on
    test rows.
    Args: codes [N, d], factors [N, K] class ids; explicit=False leaves explicitness out (NaN).
    Range: modularity [0, 1], explicitness [0, 1] with 0.5 for chance. Ceiling: 1 for modularity; explicitness
    of many classes on one latent is a little less (dSprites 0.987). Known weakness: the modularity of pure noise
    is 0.6 to 0.7 (the largest of K noises stands out), so it is never shown without its null, and a code that
    holds one factor in all latents is perfectly modular.
    Defined answers: a dead latent informs of nothing and does not count; `reference=True` counts it as 0, as
    disentanglement_lib does (two dead latents pull a near-perfect 0.89 to 0.67), and is otherwise what that
    computes. No latent counts: 0. A single factor: 1, there is no other to inform of. Factors with one class in
    the training rows have no explicitness (NaN). Explicitness differs from disentanglement_lib's by less than
    1e-3: its iterations stop before the optimum, and classes missing from a part are left out here, where it
    fails. Compiled: `modularity_kernel`, `explicitness_kernel`.
    """
    checked = inputs.check(codes, factors)
    codes, factors, sizes = inputs.for_kernel(checked.codes), checked.factors, checked.sizes
    train, test = inputs.split_rows(len(codes), num_train, num_test, seed if shuffle else None)
    modularity, per_latent = modularity_kernel(codes[train], factors[train], sizes, bins, reference)
    explicitness, per_factor = float("nan"), np.full(len(sizes), np.nan)
    if explicit:
        rows = codes[train], factors[train], codes[test], factors[test]
        explicitness, per_factor = explicitness_kernel(*rows, sizes)
    return ModularityExplicitness(
        modularity=float(modularity),
        explicitness=float(explicitness),
        per_latent=np.asarray(per_latent),
        per_factor=np.asarray(per_factor),
        num_train=len(train),
        num_test=len(test),
        dropped=checked.dropped,
    )


@functools.partial(jax.jit, static_argnames=("sizes", "bins", "reference"))
def modularity_kernel(
    codes: Array, factors: Array, sizes: tuple[int, ...], bins: int = 20, reference: bool = False
) -> tuple[Array, Array]:
    """The modularity of `modularity_explicitness`, of codes [N, d] and factors [N, K], ids 0 to sizes[k] - 1:
    its mean over latents [] and of each latent [d]. A constant factor does not count."""
    squared = jnp.square(pairwise_mutual_information(codes, factors, sizes, bins))
    best, others = squared.max(axis=1), varies(factors).sum() - 1
    rest = (squared.sum(axis=1) - best) / jnp.maximum(others, 1)
    per_latent = jnp.where(best > 0, 1 - rest / jnp.where(best > 0, best, 1), jnp.nan)
    counted = (best > 0) | reference
    return jnp.nansum(per_latent) / jnp.maximum(counted.sum(), 1), per_latent


@functools.partial(jax.jit, static_argnames=("sizes", "steps"))
def explicitness_kernel(
    codes: Array,
    factors: Array,
    test_codes: Array,
    test_factors: Array,
    sizes: tuple[int, ...],
    steps: int = regression.STEPS,
) -> tuple[Array, Array]:
    """The explicitness of `modularity_explicitness`: its mean over factors [] and of each factor [K].

    Codes [N, d] and factors [N, K] are fitted, ids 0 to sizes[k] - 1, and those of the test rows scored.
    Memory: N (d + 1) times the largest size, for a Hessian.
    """
    both = regression.standardized(jnp.concatenate([codes, test_codes]), len(codes))
    both = jnp.concatenate([both, jnp.ones_like(both[:, :1])], axis=1)
    x, test_x = both[: len(codes)], both[len(codes) :]
    per_factor = jnp.zeros(len(sizes))
    for size in sorted(set(sizes)):  # factors of one size share a program
        which = np.flatnonzero(np.array(sizes) == size)
        area = functools.partial(_area, x, test_x, size=size, steps=steps)
        columns = factors.T[which], test_factors.T[which]
        per_factor = per_factor.at[which].set(jax.lax.map(lambda labels, area=area: area(*labels), columns))
    return jnp.nanmean(per_factor), per_factor


def _area(x: Array, test_x: Array, labels: Array, test_labels: Array, size: int, steps: int) -> Array:
    """Mean area under the ROC curve over the classes that occur in training and in some test rows, not
    all; NaN where training has one class."""
    target = jax.nn.one_hot(labels, size)
    seen = target.any(axis=0)
    logits = regression.logits(test_x, regression.logistic(x, target, steps), seen)
    # The logarithm of p / (1 - p) orders rows as p does, and does not saturate.
    others = jnp.where(jnp.eye(size, dtype=bool)[None], -jnp.inf, logits[:, None, :])
    odds = logits - jax.nn.logsumexp(others, axis=2)
    truth = jax.nn.one_hot(test_labels, size, dtype=bool)
    judged = seen & truth.any(axis=0) & ~truth.all(axis=0) & (seen.sum() > 1)
    areas = jax.vmap(_area_under_curve, 1)(jnp.where(judged[None], odds, 0), truth)
    return jnp.where(judged.any(), jnp.sum(jnp.where(judged, areas, 0)) / judged.sum(), jnp.nan)


def _area_under_curve(scores: Array, truth: Array) -> Array:
    """Area under the ROC curve of scores [N] for truth [N] bool; scores that differ by less than 1e-6 of
    their range are equal."""
    order = jnp.argsort(scores)
    scores, truth = scores[order], truth[order]
    tolerance = ON_EDGE * (scores[-1] - scores[0])
    starts = jnp.concatenate([jnp.ones(1, bool), jnp.diff(scores) > tolerance])
    below = jnp.cumsum(~truth)  # false rows up to and with each
    index = jnp.arange(len(scores))
    first = jax.lax.cummax(jnp.where(starts, index, 0))
    last = jax.lax.cummin(jnp.where(jnp.roll(starts, -1).at[-1].set(True), index, len(scores) - 1), reverse=True)
    beaten = (below[first] - ~truth[first] + below[last]) / (2 * jnp.maximum(below[-1], 1))
    return jnp.sum(jnp.where(truth, beaten, 0)) / jnp.maximum(truth.sum(), 1)
