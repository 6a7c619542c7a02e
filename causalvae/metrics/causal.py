"""The framework's three metrics: causal effect strength, intervention specificity, circuit modularity.

Plain arrays and callables in, arrays out. Functions are pure and can be jitted and vmapped, but for the summaries of
modularity with its nulls (`permuted_modularity`, `modularity_over_sites`), which are host code.
The forms marked "paper" are those of arXiv:2505.03530 as far as they are known; everything else is this
library's. Per-latent results keep their latents' positions; means over latents mask what is inactive or
undefined (NaN).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from causalvae.metrics.ties import TIE, first_largest

DISTANCES = ("l2", "rms", "bernoulli_kl")
IMAGES_AT_ONCE = 1024  # decoded together when no chunk is given: 50 MB of 64 x 64 x 3 float32 images


class Perturbation(Protocol):
    """What replaces a latent: `values(key, z [N, d], scale [d]) -> [V, N, d]`.

    Entry [v, n, i] is the v-th value that replaces z[n, i] when latent i is intervened on. Where values are those
    of other rows of z, an optional `sources(key, z)` says of which (int [V, N], or [d, V, N] where every latent has
    its own), so that errors can count what rows share; an optional `scaled = True` says that values depend on scale.
    """

    def values(self, key: Array, z: Array, scale: Array) -> Array: ...


# --- Causal effect strength ---------------------------------------------------------------------------------


def causal_effect_strength(
    decode: Callable[[Array], Array],
    z: Array,
    perturbation: Perturbation,
    key: Array,
    distance: str = "l2",
    chunk: int | None = None,
    scale: Array | None = None,
) -> Array:
    """How much the decoded image changes when one latent is set: CES_i = E_n E_v dist(D(z_n), D(z_n with z_i
    := v)).

    Source: paper for the `l2` form; the distances `rms` and `bernoulli_kl` and every perturbation are this
    library's.
    Args: see `effect_distances`. Returns: [d], in [0, inf); `l2` in units of a whole image's Euclidean norm,
    `rms` in pixel units ([0, 1] for images in [0, 1]), `bernoulli_kl` in nats for each image.
    Closed form: D(z) = Wz + b gives CES_i = |W_:i|_2 E|v - z_i|. Permuting the latents permutes the result.
    Ceiling: none. Known weakness: it measures strength, not meaning, and grows with the range of the
    perturbation: values outside the aggregate posterior (`Sweep`) reward a decoder's extrapolation. With its
    standard error: `effect_strength_with_error`. (A third party's reimplementation sweeps the same linspace(-3, 3, 7)
    from the posterior mean.)
    """
    return effect_strength(effect_distances(decode, z, perturbation, key, distance, chunk, scale)).mean


def effect_distances(
    decode: Callable[[Array], Array],
    z: Array,
    perturbation: Perturbation,
    key: Array,
    distance: str = "l2",
    chunk: int | None = None,
    scale: Array | None = None,
) -> Array:
    """Distances [d, V, N] between each decoded point and the same point with latent i set to its v-th value.

    Args:
      decode: z [N, d] -> images [N, ...] in [0, 1]. To pass parameters as arguments of the compiled program
        (and so to compile once for many models), give `jax.tree_util.Partial(function, params)`.
      z: [N, d] points, usually the posterior means; integer codes stay integers.
      perturbation: an object with `.values(key, z, scale) -> [V, N, d]`.
      key: for perturbations that draw.
      distance: "l2" (Euclidean norm over all output values), "rms" (l2 / sqrt(P), P output values) or
        "bernoulli_kl" (KL(D(z) || D(z')) summed over output values, nats; probabilities clipped to [1e-6, 1 -
        1e-6]).
      chunk: how many (latent, value) pairs are decoded together; bounds memory. None: about 1,024 images at
      once.
      scale: [d], the aggregate posterior's standard deviation s_i; None: the standard deviation of z.

    Raises: ValueError for an unknown distance, a z that is not [N, d], or values of another shape than [V, N,
    d].
    """
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; there are {', '.join(DISTANCES)}")
    z = jnp.asarray(z)
    if z.ndim != 2:
        raise ValueError(f"z must be [N, d] (points by latents), not {list(z.shape)}")
    scale = jnp.std(z.astype(jnp.float32), axis=0) if scale is None else scale
    values = perturbation.values(key, z, scale)
    check_values(perturbation, z, values)
    if values.ndim != 3 or values.shape[1:] != z.shape:
        raise ValueError(
            f"{type(perturbation).__name__}.values must be [V, N, d] = [V, {z.shape[0]}, {z.shape[1]}], "
            f"not {list(values.shape)}"
        )
    if chunk is None:
        chunk = max(1, IMAGES_AT_ONCE // z.shape[0])
    return _sweep(_as_pytree(decode), z, values.astype(z.dtype), distance, min(chunk, values.shape[0] * z.shape[1]))


def check_values(perturbation: Perturbation, z: Array, values: Array) -> None:
    """ValueError where integer codes would be set to real values: cut to integers, they would be other codes."""
    if jnp.issubdtype(z.dtype, jnp.integer) and not jnp.issubdtype(values.dtype, jnp.integer):
        name = type(perturbation).__name__
        raise ValueError(f"{name} gives {values.dtype} values, but z holds {z.dtype} codes: use CodeSwap or Resample")


class EffectStrength(NamedTuple):
    """Causal effect strength of each latent with its standard error; see `effect_strength`."""

    mean: Array  # [d]
    standard_error: Array  # [d], over the points z and whatever values are drawn from them


def effect_strength_with_error(
    decode: Callable[[Array], Array],
    z: Array,
    perturbation: Perturbation,
    key: Array,
    distance: str = "l2",
    chunk: int | None = None,
    scale: Array | None = None,
) -> EffectStrength:
    """Causal effect strength with a standard error that counts all that was drawn, whatever the perturbation.

    Source: this library. Points are independent draws; values taken from other points (`Resample`, `CodeSwap`) and a
    scale taken from z itself (`Shift` with scale None; a scale that is given counts as known) are not, and enter by
    their influence. Mean +- 1.96 errors covers the truth 92 to 95 % of the time at 64 points and 94 to 95 % at 256
    (simulated for every family on a linear decoder: docs/metrics.md). Args and errors: as in `effect_distances`,
    which is called thrice for a scale's influence.
    """
    measure = functools.partial(effect_distances, decode, z, perturbation, key, distance, chunk)
    sources = getattr(perturbation, "sources", None)
    sources = None if sources is None else sources(key, jnp.asarray(z))
    drift = None
    if scale is None and getattr(perturbation, "scaled", False):
        own = jnp.std(jnp.asarray(z, jnp.float32), axis=0)
        step = 0.01  # relative; a central difference, since distances have no derivative at zero
        above, below = (jnp.mean(measure(own * (1 + sign * step)), axis=(1, 2)) for sign in (1, -1))
        drift = _scale_influence(jnp.asarray(z, jnp.float32)) * ((above - below) / (2 * step))[:, None]
    return effect_strength(measure(scale), sources, drift)


def _scale_influence(z: Array) -> Array:
    """How much each point adds to the standard deviation of z [N, d], relative to it: jackknife values [d, N]."""
    num = z.shape[0]
    squares = jnp.square(z - jnp.mean(z, axis=0, keepdims=True)).T  # [d, N]
    total = jnp.sum(squares, axis=1, keepdims=True)
    without = (total - squares * num / (num - 1)) / (num - 1)  # the variance [d, N] of all other points
    return (num - 1) * (1 - jnp.sqrt(without * num / jnp.where(total > 0, total, jnp.nan)))


@jax.jit
def effect_strength(distances: Array, sources: Array | None = None, drift: Array | None = None) -> EffectStrength:
    """Mean and standard error of distances [d, V, N] (one sweep serves many summaries).

    The values of one point are averaged first: points are the independent draws, values are not.
    sources: int [V, N] or [d, V, N], the point that each value was taken from, where they are other points' (what
    `perturbation.sources(key, z)` says of Resample and CodeSwap). A point then counts twice, as the one that is
    changed and as the one that values are taken from; without `sources` the error would be half of what it is.
    drift: [d, N], what each point adds to the mean by other ways (a scale that was estimated).
    NaN error: one point, or one value to a point where there are sources.
    Source: this library. The error with sources is the infinitesimal jackknife of an incomplete two-index
    U-statistic (Hoeffding 1948; Fafchamps & Gubert 2007 for the sum over both indices), rid of its bias.
    """
    influence, excess, least = _influence(distances, sources)
    influence = influence if drift is None else influence + drift
    return EffectStrength(jnp.mean(distances, axis=(1, 2)), _error_of(influence, excess, least))


@jax.jit
def overall_strength(distances: Array, sources: Array | None = None) -> EffectStrength:
    """The mean over latents of `effect_strength`, scalars; latents of one point are not independent. sources: as
    there, [d, V, N] if drawn for every latent independently."""
    if sources is None or sources.ndim == 2:
        found = effect_strength(jnp.mean(distances, axis=0, keepdims=True), sources)
        return EffectStrength(found.mean[0], found.standard_error[0])
    influence, excess, least = _influence(distances, sources)
    error = _error_of(jnp.mean(influence, axis=0), jnp.mean(excess) / len(excess), least)
    return EffectStrength(jnp.mean(distances), error)


def _influence(distances: Array, sources: Array | None) -> tuple[Array, Array | float, float]:
    """What each point adds to the mean distance [d, N]; by how much the variance of that exceeds the mean's own
    [d]; and the least share of it that is the mean's own."""
    num_latents, num_values, num = distances.shape
    per_point = jnp.mean(distances, axis=1)  # [d, N]
    influence = per_point - jnp.mean(per_point, axis=1, keepdims=True)
    if sources is None:
        return influence, 0.0, 1.0
    if num_values < 2:
        return jnp.full_like(influence, jnp.nan), 0.0, 1.0
    # As a source: what the means of the points that it served would be without it. The draws of values are in the
    # variance of both parts, and once too often: `excess`; all of it where points do not matter: `least`.
    residual = (distances - per_point[:, None]) / (num_values - 1)
    sources = jnp.broadcast_to(sources, distances.shape)
    served = jax.vmap(lambda r, s: jnp.zeros(num, r.dtype).at[s].add(r))(residual, sources)
    excess = jnp.sum(jnp.square(residual), axis=(1, 2)) / num**2
    return influence + served, excess, (num_values - 1) / (2 * num_values - 1)


def _error_of(influence: Array, excess: Array | float, least: float) -> Array:
    """Standard error [...] of a mean from what its points add to it [..., N]; see `_influence`."""
    variance = jnp.square(_standard_error(influence))
    return jnp.sqrt(jnp.maximum(variance - excess, least * variance))


def image_distance(a: Array, b: Array, distance: str) -> Array:
    """Distances [N] between images a and b [N, ...]; see `effect_distances` for the kinds."""
    a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
    if distance == "bernoulli_kl":
        a, b = jnp.clip(a, 1e-6, 1 - 1e-6), jnp.clip(b, 1e-6, 1 - 1e-6)
        return jnp.sum(a * jnp.log(a / b) + (1 - a) * jnp.log((1 - a) / (1 - b)), axis=1)
    squared = jnp.sum(jnp.square(a - b), axis=1)
    return jnp.sqrt(squared / a.shape[1] if distance == "rms" else squared)


@functools.partial(jax.jit, static_argnames=("distance", "chunk"))
def _sweep(decode: Callable, z: Array, values: Array, distance: str, chunk: int) -> Array:
    num_values, num_points, num_latents = values.shape
    base = decode(z)

    def measure(
        pairs: tuple[Array, Array],
    ) -> Array:  # latents [chunk], replacements [chunk, N] -> [chunk, N]
        latents, replacements = pairs
        is_set = jax.nn.one_hot(latents, num_latents, dtype=bool)[:, None, :]
        points = jnp.where(is_set, replacements[:, :, None], z[None])
        images = decode(points.reshape(-1, num_latents)).reshape(latents.shape[0], *base.shape)
        return jax.vmap(lambda changed: image_distance(base, changed, distance))(images)

    pairs = num_latents * num_values
    steps = -(-pairs // chunk)
    latents = jnp.repeat(jnp.arange(num_latents), num_values)
    replacements = jnp.transpose(values, (2, 0, 1)).reshape(pairs, num_points)
    padding = steps * chunk - pairs  # the last chunk repeats the first pairs
    latents = jnp.concatenate([latents, latents[:padding]]).reshape(steps, chunk)
    replacements = jnp.concatenate([replacements, replacements[:padding]]).reshape(steps, chunk, num_points)
    distances = jax.lax.map(measure, (latents, replacements)).reshape(-1, num_points)[:pairs]
    return distances.reshape(num_latents, num_values, num_points)


def _as_pytree(function: Callable) -> Callable:
    """A callable as a pytree: arrays bound by `partial` become arguments of the compiled program."""
    if isinstance(function, jax.tree_util.Partial):
        return function
    if isinstance(function, functools.partial):
        return jax.tree_util.Partial(function.func, *function.args, **function.keywords)
    return jax.tree_util.Partial(function)


# --- Intervention specificity -------------------------------------------------------------------------------


class Specificity(NamedTuple):
    """How concentrated each latent's effects are, in the paper's form and scaled to [0, 1]."""

    reported: Array  # [d], 1 / (H + eps)
    normalized: Array  # [d], 1 - H / log K'


@jax.jit
def intervention_specificity(effects: Array, eps: float = 1e-6) -> Specificity:
    """How concentrated each latent's effects are over categories: p_i = effects_i / sum, H(p_i) in nats.

    Source: `reported` S_i = 1 / (H(p_i) + eps) is the paper's form (its eps is unknown; 1e-6 is this
    library's); `normalized` 1 - H(p_i) / log K' and the sets of categories (outputs, factors, latents) are
    this library's.
    Args: effects [d, K'], non-negative, K' >= 2 categories. Returns [d] each; range (0, 1/eps] and [0, 1].
    A latent without any effect (0/0) is NaN in both: mask it, e.g. with `mean_over`. Rescaling a latent's
    effects leaves it unchanged; permuting latents permutes it. Ceiling: 1e6 and 1 (one category takes all).
    Effects may be a latent's own (on outputs, on latents) or others' on it (of factors): the categories are then what
    acts, and the entropy says how few act on it. Known weakness: `reported` is unbounded and its mean belongs to the
    most specific latent; both depend on K' and on how finely the categories divide the outputs. (A third party's
    reimplementation takes z_i := 0 as the only intervention and mean squared change of each output as the effect: our
    `outputs` under `Sweep(0, 0, 1)`.) Raises ValueError where there are fewer than two categories.
    """
    effects = jnp.asarray(effects, jnp.float32)
    if effects.ndim != 2 or effects.shape[1] < 2:
        raise ValueError(f"effects must be [d, K'] with at least 2 categories, not {list(effects.shape)}")
    entropy = _entropy(effects)
    return Specificity(1.0 / (entropy + eps), 1.0 - entropy / math.log(effects.shape[1]))


class Selectivity(NamedTuple):
    """How much each unit is about one factor alone; see `unit_selectivity`."""

    selectivity: Array  # [units], 1 - H(p_u) / log K; NaN where the unit does not count
    counted: Array  # [units] bool
    factor: Array  # [units] int, the factor that affects the unit most


@jax.jit
def unit_selectivity(effects: Array, floor: Array | float = 0.0) -> Selectivity:
    """Monosemanticity of units: 1 - H(p_u) / log K with p_u(k) proportional to effects[u, k].

    Source: this library. Args: effects [units, K] non-negative (E|NIE_u| over pairs that differ in factor k,
    K >= 2);
    floor: scalar or [units], the noise floor from permuted pairs. A unit counts only if its largest effect exceeds
    the floor by more than rounding does (1e-6 of it, and of the largest effect of all units). Range [0, 1]; ceiling
    1. Known weakness: noise in a weak unit looks like polysemanticity, which is why the floor is not optional in a
    report.
    """
    effects = jnp.asarray(effects, jnp.float32)
    if effects.ndim != 2 or effects.shape[1] < 2:
        raise ValueError(f"effects must be [units, K] with at least 2 factors, not {list(effects.shape)}")
    counted = exceeds(jnp.max(effects, axis=1), floor) & exceeds(jnp.max(effects, axis=1), TIE * jnp.max(effects))
    selectivity = 1.0 - _entropy(effects) / math.log(effects.shape[1])
    return Selectivity(jnp.where(counted, selectivity, jnp.nan), counted, first_largest(effects))


def _entropy(weights: Array) -> Array:
    """Entropy (nats) of each row of non-negative weights [n, K], normalized to sum to one; NaN for a zero
    row."""
    total = jnp.sum(weights, axis=1, keepdims=True)
    p = weights / jnp.where(total > 0, total, jnp.nan)
    return jnp.sum(jax.scipy.special.entr(p), axis=1)


# --- Circuit modularity -------------------------------------------------------------------------------------


@jax.jit
def circuit_modularity(responses: Array, active: Array | None = None) -> Array:
    """How little the circuits of different causes overlap: M = 1 - mean over pairs i < j of |Pearson(a_i,
    a_j)|.

    Source: paper for the form; which activations, sites and nulls is this library's choice. a_i =
    responses[i] is the vector of mean absolute activation changes that cause i (a latent for decoder sites, a
    factor for the encoder's twin) makes in the units of one site.
    Args: responses [d, units]; active [d] bool: only pairs of active causes count. Returns a scalar in [0,
    1]; NaN where fewer than two active causes have responses that vary over units (a constant a_i has no
    correlation).
    Permuting causes or units leaves it unchanged, and so does rescaling any a_i. Ceiling 1.
    Known weakness: an untrained network and vectors of unrelated noise score high (1 - O(1/sqrt(units))), so
    it is never shown without its two nulls: `permuted_modularity`, and the same network untrained. (A third
    party's reimplementation correlates the mean head's weights of two latents; a_i are activations here.)
    """
    responses = jnp.asarray(responses, jnp.float32)
    if responses.ndim != 2:
        raise ValueError(f"responses must be [d, units], not {list(responses.shape)}")
    return _modularity(jnp, responses, None if active is None else jnp.asarray(active, bool))


def _modularity(xp: Any, responses: Any, active: Any) -> Any:
    """M [...] of responses [..., d, units], in jax.numpy or in numpy (`xp`): the nulls of many sites of many
    shapes are cheap in numpy, and would each be compiled in JAX."""
    centerd = responses - xp.mean(responses, axis=-1, keepdims=True)
    norm = xp.sqrt(xp.sum(xp.square(centerd), axis=-1))
    # A constant vector centers to rounding error, not to zero.
    varies = norm > 1e-6 * xp.sqrt(xp.sum(xp.square(responses), axis=-1))
    counted = varies if active is None else varies & xp.broadcast_to(active, varies.shape)
    unit = centerd / xp.where(varies, norm, 1.0)[..., None]
    precision = {"precision": jax.lax.Precision.HIGHEST} if xp is jnp else {}
    correlation = xp.abs(xp.matmul(unit, xp.swapaxes(unit, -1, -2), **precision))
    pairs = xp.triu(counted[..., :, None] & counted[..., None, :], k=1)
    count = xp.sum(pairs, axis=(-1, -2))
    total = xp.sum(xp.where(pairs, correlation, 0.0), axis=(-1, -2))
    return 1.0 - total / xp.where(count > 0, count, xp.nan)


def permuted_modularity(key: Array, responses: Array, active: Array | None = None, num: int = 100) -> np.ndarray:
    """The null of `circuit_modularity`: [num] values of M with the units permuted within each a_i. Source:
    this library. Runs on the host, in numpy (see `_modularity`)."""
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint32))
    responses = np.asarray(responses, np.float32)
    shuffled = generator.permuted(np.broadcast_to(responses, (num, *responses.shape)), axis=-1)
    return _modularity(np, shuffled, None if active is None else np.asarray(active, bool))


class SiteModularity(NamedTuple):
    """Circuit modularity of sites, with both nulls; see `modularity_over_sites`."""

    mean: np.ndarray  # scalar, over the sites where M is defined
    sites: dict[str, np.ndarray]  # M of each site
    permuted: dict[str, np.ndarray]  # mean of each site's permuted null
    untrained: dict[str, np.ndarray] | None  # M of each site of the untrained network


def modularity_over_sites(
    key: Array,
    responses: Mapping[str, Array],
    active: Array | None = None,
    untrained: Mapping[str, Array] | None = None,
    num: int = 100,
) -> SiteModularity:
    """Circuit modularity of every site (name -> responses [d, units]) and its mean, with both nulls beside
    it.

    `untrained`: the responses of the same network before training; all of its latents count. Raises
    ValueError where its sites are not the same.
    """
    if not responses:
        raise ValueError("responses is empty: give at least one site, name -> [d, units]")
    if untrained is not None and set(untrained) != set(responses):
        raise ValueError(f"untrained has sites {sorted(untrained)}, but responses has {sorted(responses)}")
    mask = None if active is None else np.asarray(active, bool)
    sites = {name: _modularity(np, np.asarray(value, np.float32), mask) for name, value in responses.items()}
    permuted = {
        name: _nan_mean(permuted_modularity(jax.random.fold_in(key, i), responses[name], active, num))
        for i, name in enumerate(sorted(responses))
    }
    before = None
    if untrained is not None:
        before = {name: _modularity(np, np.asarray(untrained[name], np.float32), None) for name in responses}
    return SiteModularity(_nan_mean(np.stack(list(sites.values()))), sites, permuted, before)


def _nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the values that are not NaN; NaN where there are none."""
    defined = values[~np.isnan(values)]
    return defined.mean() if defined.size else np.float32(np.nan)


# --- What is active, and means over it ----------------------------------------------------------------------


@jax.jit
def kl_per_latent(mean: Array, log_variance: Array) -> Array:
    """E_x KL(q(z_i|x) || N(0, 1)) [d] in nats, from posterior mean and log-variance [N, d]."""
    return jnp.mean(0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance), axis=0)


def exceeds(x: Array, threshold: Array | float) -> Array:
    """Whether x is greater than the threshold by more than rounding: what equals it but for a last bit does not."""
    return x > threshold + TIE * jnp.abs(jnp.asarray(threshold))


def active_latents(mean: Array, log_variance: Array, threshold: float = 0.01) -> Array:
    """Which latents [d] bool carry more than `threshold` nats on average (0.01). Source: this library."""
    return exceeds(kl_per_latent(mean, log_variance), threshold)


class MaskedMean(NamedTuple):
    """A mean over the values that count, and how many they were."""

    mean: Array  # scalar; NaN where nothing counts
    count: Array  # scalar int, how many values it is the mean of


@jax.jit
def mean_over(values: Array, active: Array | None = None) -> MaskedMean:
    """Mean of values [d] over the active and defined (not NaN) ones, with their number."""
    counted = ~jnp.isnan(values) if active is None else ~jnp.isnan(values) & active
    count = jnp.sum(counted)
    return MaskedMean(jnp.sum(jnp.where(counted, values, 0.0)) / _nan_if_zero(count), count)


def bootstrap_standard_error(
    key: Array, samples: Array, statistic: Callable[[Array], Any], num: int = 200, sources: Array | None = None
) -> Any:
    """Standard error over images of `statistic(mean over images of samples)`, samples [N, ...].

    For scalars that are not means themselves, such as specificity (samples: effects [N, d, K']) and
    modularity (responses [N, d, units]): images are drawn again with replacement `num` times. Returns what
    `statistic` returns; draws where it is NaN are left out.
    sources: int [V, N], where each image has V samples [V, N, ...] that depend on another image too, this one
    (see `effect_strength`): an image that is drawn again is so as both. This errs on the safe side, by the variance
    within an image's samples over N (V - 1): some 6 % of the error for V = 7.
    """
    values = samples[None] if sources is None else samples
    num_values, size = values.shape[:2]
    flat = values.reshape(num_values * size, -1)

    def draw(key: Array) -> Any:
        chosen = jax.random.randint(key, (size,), 0, size)
        counts = jnp.zeros(size).at[chosen].add(1.0)
        own = jnp.ones((1, size)) if sources is None else counts[sources]
        weights = counts[None] * own / jnp.maximum(jnp.sum(own, axis=0, keepdims=True), 1.0)
        mean = jnp.matmul((weights / jnp.sum(weights)).reshape(-1), flat, precision=jax.lax.Precision.HIGHEST)
        return statistic(mean.reshape(values.shape[2:]))

    draws = jax.lax.map(draw, jax.random.split(key, num))
    return jax.tree.map(lambda x: jnp.nanstd(x, axis=0, ddof=1), draws)


def _standard_error(per_image: Array) -> Array:
    """Standard error [d] of the mean over the last axis of [d, N]."""
    count = per_image.shape[-1]
    if count < 2:
        return jnp.full(per_image.shape[:-1], jnp.nan)
    return jnp.std(per_image, axis=-1, ddof=1) / math.sqrt(count)


def _nan_if_zero(count: Array) -> Array:
    return jnp.where(count > 0, count, jnp.nan)
