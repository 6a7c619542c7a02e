"""The framework's three metrics: causal effect strength, intervention specificity, circuit modularity.

Plain arrays and callables in, arrays out; every function is pure and can be jitted and vmapped.
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

DISTANCES = ("l2", "rms", "bernoulli_kl")
IMAGES_AT_ONCE = 1024  # decoded together when no chunk is given: 50 MB of 64 x 64 x 3 float32 images


class Perturbation(Protocol):
    """What replaces a latent: `values(key, z [N, d], scale [d]) -> [V, N, d]`.

    Entry [v, n, i] is the v-th value that replaces z[n, i] when latent i is intervened on.
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
    perturbation: values outside the aggregate posterior (`Sweep`) reward a decoder's extrapolation. Standard
    errors over images: `effect_strength(effect_distances(...))`.
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
    if values.ndim != 3 or values.shape[1:] != z.shape:
        raise ValueError(
            f"{type(perturbation).__name__}.values must be [V, N, d] = [V, {z.shape[0]}, {z.shape[1]}], "
            f"not {list(values.shape)}"
        )
    if chunk is None:
        chunk = max(1, IMAGES_AT_ONCE // z.shape[0])
    return _sweep(
        _as_pytree(decode), z, values.astype(z.dtype), distance, min(chunk, values.shape[0] * z.shape[1])
    )


class EffectStrength(NamedTuple):
    """Causal effect strength of each latent, with its error over images; see `effect_strength`."""

    mean: Array  # [d]
    standard_error: Array  # [d], over images


@jax.jit
def effect_strength(distances: Array) -> EffectStrength:
    """Mean and standard error over images of distances [d, V, N] (one sweep serves many summaries).

    The values of one image are averaged first: images are the independent draws, values are not. One image:
    NaN error.
    """
    per_image = jnp.mean(distances, axis=1)  # [d, N]
    return EffectStrength(jnp.mean(per_image, axis=1), _standard_error(per_image))


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
    normalised: Array  # [d], 1 - H / log K'


@jax.jit
def intervention_specificity(effects: Array, eps: float = 1e-6) -> Specificity:
    """How concentrated each latent's effects are over categories: p_i = effects_i / sum, H(p_i) in nats.

    Source: `reported` S_i = 1 / (H(p_i) + eps) is the paper's form (its eps is unknown; 1e-6 is this
    library's); `normalised` 1 - H(p_i) / log K' and the sets of categories (outputs, factors, latents) are
    this library's.
    Args: effects [d, K'], non-negative, K' >= 2 categories. Returns [d] each; range (0, 1/eps] and [0, 1].
    A latent without any effect (0/0) is NaN in both: mask it, e.g. with `mean_over`. Rescaling a latent's
    effects leaves it unchanged; permuting latents permutes it. Ceiling: 1e6 and 1 (one category takes all).
    Known weakness: `reported` is unbounded and its mean belongs to the most specific latent; both depend on
    K' and on how finely the categories divide the outputs. Raises ValueError where there are fewer than two
    categories.
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
    floor: scalar or [units], the noise floor from permuted pairs. A unit counts only if its largest effect
    exceeds the floor. Range [0, 1]; ceiling 1. Known weakness: noise in a weak unit looks like
    polysemanticity, which is why the floor is not optional in a report.
    """
    effects = jnp.asarray(effects, jnp.float32)
    if effects.ndim != 2 or effects.shape[1] < 2:
        raise ValueError(f"effects must be [units, K] with at least 2 factors, not {list(effects.shape)}")
    counted = jnp.max(effects, axis=1) > jnp.asarray(floor)
    selectivity = 1.0 - _entropy(effects) / math.log(effects.shape[1])
    return Selectivity(jnp.where(counted, selectivity, jnp.nan), counted, jnp.argmax(effects, axis=1))


def _entropy(weights: Array) -> Array:
    """Entropy (nats) of each row of non-negative weights [n, K], normalised to sum to one; NaN for a zero
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
    it is never shown without its two nulls: `permuted_modularity`, and the same network untrained.
    """
    responses = jnp.asarray(responses, jnp.float32)
    if responses.ndim != 2:
        raise ValueError(f"responses must be [d, units], not {list(responses.shape)}")
    return _modularity(jnp, responses, None if active is None else jnp.asarray(active, bool))


def _modularity(xp: Any, responses: Any, active: Any) -> Any:
    """M [...] of responses [..., d, units], in jax.numpy or in numpy (`xp`): the nulls of many sites of many
    shapes are cheap in numpy, and would each be compiled in JAX."""
    centred = responses - xp.mean(responses, axis=-1, keepdims=True)
    norm = xp.sqrt(xp.sum(xp.square(centred), axis=-1))
    # A constant vector centres to rounding error, not to zero.
    varies = norm > 1e-6 * xp.sqrt(xp.sum(xp.square(responses), axis=-1))
    counted = varies if active is None else varies & xp.broadcast_to(active, varies.shape)
    unit = centred / xp.where(varies, norm, 1.0)[..., None]
    precision = {"precision": jax.lax.Precision.HIGHEST} if xp is jnp else {}
    correlation = xp.abs(xp.matmul(unit, xp.swapaxes(unit, -1, -2), **precision))
    pairs = xp.triu(counted[..., :, None] & counted[..., None, :], k=1)
    count = xp.sum(pairs, axis=(-1, -2))
    total = xp.sum(xp.where(pairs, correlation, 0.0), axis=(-1, -2))
    return 1.0 - total / xp.where(count > 0, count, xp.nan)


def permuted_modularity(
    key: Array, responses: Array, active: Array | None = None, num: int = 100
) -> np.ndarray:
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


def active_latents(mean: Array, log_variance: Array, threshold: float = 0.01) -> Array:
    """Which latents [d] bool carry more than `threshold` nats on average (METHOD: 0.01). Source: this
    library."""
    return kl_per_latent(mean, log_variance) > threshold


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
    key: Array, samples: Array, statistic: Callable[[Array], Any], num: int = 200
) -> Any:
    """Standard error over images of `statistic(mean over images of samples)`, samples [N, ...].

    For scalars that are not means themselves, such as specificity (samples: effects [N, d, K']) and
    modularity (responses [N, d, units]): images are drawn again with replacement `num` times. Returns what
    `statistic` returns; draws where it is NaN are left out.
    """
    flat = samples.reshape(samples.shape[0], -1)

    def draw(key: Array) -> Any:
        chosen = jax.random.randint(key, (flat.shape[0],), 0, flat.shape[0])
        weights = jnp.zeros(flat.shape[0]).at[chosen].add(1.0 / flat.shape[0])
        mean = jnp.matmul(weights, flat, precision=jax.lax.Precision.HIGHEST)
        return statistic(mean.reshape(samples.shape[1:]))

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
