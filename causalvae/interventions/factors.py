"""Input manipulation: do(factor := value), and what it does to the representation and to units of any site."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from causalvae._inputs import check_inputs
from causalvae._programs import cached, jit
from causalvae.data.base import Dataset
from causalvae.interventions._checks import as_pytree, check_key, check_measured
from causalvae.model import forward_of, require, sites_of
from causalvae.sites import check_patterns, tapped

PyTree = Any
POOL = 8  # how many candidates are drawn for each observational pair


# --- pairs -----------------------------------------------------------------------------------------------


@struct.dataclass
class Pairs:
    """N pairs of images, x and x_source, row n of one paired with row n of the other. A pytree.

    Where `counterfactuals` made them they differ in one factor, and in what that factor causes. Interventions take
    Pairs, a tuple (x, x_source), or images alone, which are then paired with themselves (for ablations).
    """

    x: jax.Array  # [N, H, W, C]
    x_source: jax.Array  # [N, H, W, C]: the same instances under do(factor := another value)
    factors: jax.Array | None = None  # [N, K] int32
    factors_source: jax.Array | None = None  # [N, K] int32
    factor: int = struct.field(pytree_node=False, default=0)
    observational: bool = struct.field(pytree_node=False, default=False)  # True: matched on attributes, not causal
    dataset: str = struct.field(pytree_node=False, default="")  # "name (source)"
    keys: jax.Array | None = None  # [N] the posterior's noise in every run of a pair; None: the posterior mean

    @property
    def key(self) -> jax.Array | None:
        """The first pair's key, to look at shapes with."""
        return None if self.keys is None else self.keys[0]

    def swap(self) -> Pairs:
        """Returns the pairs with x and x_source exchanged: what denoising is to them, noising is to these."""
        factors = {"factors": self.factors_source, "factors_source": self.factors}
        return dataclasses.replace(self, x=self.x_source, x_source=self.x, **factors)

    def with_noise(self, key: jax.Array) -> Pairs:
        """Returns the pairs with posterior noise, the same in all runs of a pair: pair n has the n-th key split."""
        check_key(key)
        return dataclasses.replace(self, keys=jax.random.split(key, self.x.shape[0]))

    def resample(self, key: jax.Array) -> Pairs:
        """Returns every x paired with another row's x_source, uniformly: interchange is then resample ablation.

        Raises:
          ValueError: for fewer than two rows.
        """
        check_key(key)
        num = self.x.shape[0]
        if num < 2:
            raise ValueError("resampling pairs rows with other rows: it needs at least two")
        rows = (jnp.arange(num) + jax.random.randint(key, (num,), 1, num)) % num
        factors = None if self.factors_source is None else self.factors_source[rows]
        return dataclasses.replace(self, x_source=self.x_source[rows], factors_source=factors)


def as_pairs(pairs: Pairs | tuple[jax.Array, jax.Array] | jax.Array) -> Pairs:
    """Returns Pairs of what interventions take for pairs.

    Raises:
      ValueError: unless x and x_source, and nothing else, are given, of one shape and of at least one row.
    """
    if isinstance(pairs, (tuple, list)) and len(pairs) != 2:
        raise ValueError(
            f"pairs are a tuple (x, x_source) of two arrays of images, not of {len(pairs)}: what more there is to say "
            "of them has its place in Pairs(x, x_source, factors, factors_source)"
        )
    if not isinstance(pairs, Pairs):
        pairs = Pairs(*pairs) if isinstance(pairs, (tuple, list)) else Pairs(pairs, pairs)
    x, x_source = jnp.asarray(pairs.x), jnp.asarray(pairs.x_source)
    if x.shape != x_source.shape:
        raise ValueError(
            f"x {list(x.shape)} and x_source {list(x_source.shape)} are not pairs: their shapes differ. Both must come "
            "from the same data set, row n of one belonging to row n of the other"
        )
    if x.ndim < 2 or x.shape[0] < 1:
        raise ValueError(f"x must be a batch [N, ...] of at least one row, not {list(x.shape)}")
    return dataclasses.replace(pairs, x=x, x_source=x_source)


def counterfactuals(
    dataset: Dataset, key: jax.Array, factor: int | str, num: int, contrast: tuple[int, int] | None = None
) -> Pairs:
    """Returns `num` pairs (x, x') with x' the same instance under do(f_k := v), v uniform over the other values.

    Source: the paper for the idea, this library for the form. Noise is shared within a pair, so nothing else
    differs; in a set with a causal graph the factor's descendants follow. Where factors are attributes that did not
    make the image, pairs are two images matched on all other attributes as well as can be: `observational` is True,
    and their effects are not causal effects.

    Args:
      dataset: the set that draws and renders.
      key: draws the instances, their noise and the values.
      factor: its name or number.
      num: how many pairs.
      contrast: (a, b), two values of the factor: x is then under do(f_k := a) and x' under do(f_k := b).

    Raises:
      ValueError: for a factor that does not exist or has one value, or attributes that admit no pair.
    """
    check_key(key)
    index = dataset.factor_index(factor)
    if num < 1:
        raise ValueError(f"num must be at least 1, not {num}")
    if dataset.factor_sizes[index] < 2:
        raise ValueError(f"{dataset.name}: factor {dataset.factor_names[index]!r} has only one value")
    label = f"{dataset.name} ({dataset.source})"
    if dataset.factor_kind == "attributes":
        return Pairs(*_matched(dataset, key, index, num), index, True, label)
    factor_key, value_key, image_key = jax.random.split(key, 3)
    _check_contrast(dataset, index, contrast)
    factors = dataset.sample_factors(factor_key, num)
    factors, changed = _changed_factors(dataset, factors, index, contrast, factor_key, value_key)
    return Pairs(
        dataset.render(factors, image_key),
        dataset.render(changed, image_key),
        factors,
        changed,
        index,
        False,
        label,
    )


def _check_contrast(dataset: Dataset, factor: int, contrast: tuple[int, int] | None) -> None:
    size = dataset.factor_sizes[factor]
    if contrast is not None and (len(contrast) != 2 or not all(0 <= value < size for value in contrast)):
        raise ValueError(
            f"contrast {contrast} is not two values of {dataset.factor_names[factor]!r}, which are 0 to {size - 1}"
        )


@jax.jit
def _changed_factors(dataset, factors, factor, contrast, factor_key, value_key):
    """Factors [N, K], drawn with `factor_key`, and the same with one factor set to another of its values, uniformly.
    One program for all factors: `factor` and `contrast` are traced."""
    num = factors.shape[0]
    if contrast is not None:
        ends = (dataset.intervene(factors, factor, jnp.full((num,), value), factor_key) for value in contrast)
        return tuple(ends)
    size = jnp.asarray(dataset.factor_sizes)[factor]
    values = (factors[:, factor] + jax.random.randint(value_key, (num,), 1, size)) % size
    # A graph's exogenous noise comes from the key that the factors were drawn with.
    return factors, dataset.intervene(factors, factor, values, factor_key)


def _matched(dataset: Dataset, key: jax.Array, factor: int, num: int):
    """Observational pairs: (x, x', factors, factors'), matched by the number of other attributes that
    agree.
    """
    base_key, pool_key = jax.random.split(key)
    factors, x = dataset.sample(base_key, num)
    pool_factors, pool = dataset.sample(pool_key, max(POOL * num, 64))
    match, exists = _nearest(factors, pool_factors, factor)
    if not bool(jnp.all(exists)):
        raise ValueError(
            f"{dataset.name}: attribute {dataset.factor_names[factor]!r} takes one value only in a sample of "
            f"{pool.shape[0]} images, so no pair differs in it; ask for more pairs or for another attribute"
        )
    return x, pool[match], factors, pool_factors[match]


@jax.jit
def _nearest(factors, pool_factors, factor):
    differs = factors[:, None, :] != pool_factors[None, :, :]  # [N, pool, K]
    distance = jnp.sum(differs, axis=2)
    usable = jnp.take(differs, factor, axis=2)
    distance = jnp.where(usable, distance, jnp.iinfo(jnp.int32).max)
    return jnp.argmin(distance, axis=1), jnp.any(usable, axis=1)


class AllValues(NamedTuple):
    """The same instances at every value of one factor."""

    x: jax.Array  # [N, H, W, C]
    x_values: jax.Array  # [V, N, H, W, C]: under do(factor := v), v = 0 .. V - 1
    factors: jax.Array  # [N, K]
    factors_values: jax.Array  # [V, N, K]


def counterfactuals_all_values(dataset: Dataset, key: jax.Array, factor: int | str, num: int) -> AllValues:
    """Returns `num` instances, each under do(f_k := v) for every value v of the factor, its own value included.

    Args:
      dataset: the set that draws and renders.
      key: draws the instances and their noise.
      factor: its name or number.
      num: how many instances.

    Raises:
      ValueError: for a factor that does not exist, or a set whose images are not a function of its factors.
    """
    check_key(key)
    index = dataset.factor_index(factor)
    _check_generative(dataset)
    factor_key, image_key = jax.random.split(key)
    factors = dataset.sample_factors(factor_key, num)
    changed = all_values(dataset, factors, index, factor_key)
    images = jax.lax.map(lambda f: dataset.render(f, image_key), changed)
    return AllValues(dataset.render(factors, image_key), images, factors, changed)


@functools.partial(jax.jit, static_argnames="factor")
def all_values(dataset: Dataset, factors: jax.Array, factor: int, key: jax.Array) -> jax.Array:
    """Returns factors [V, N, K] under do(factor := v) for every v; `key` is what `factors` were drawn with."""

    def change(value):
        return dataset.intervene(factors, factor, jnp.full((factors.shape[0],), value), key)

    return jax.vmap(change)(jnp.arange(dataset.factor_sizes[factor]))


def _check_generative(dataset: Dataset) -> None:
    if dataset.factor_kind == "attributes":
        raise ValueError(
            f"{dataset.name} ({dataset.source}) has attributes, not generative factors{dataset.reason}: "
            "do(factor := value) is undefined on it. Use `counterfactuals` for matched pairs, or source='procedural'"
        )


# --- effects of factors ----------------------------------------------------------------------------------


def factor_effects(
    model: Any,
    params: PyTree,
    dataset: Dataset,
    key: jax.Array,
    site: str | Sequence[str] | None = None,
    *,
    num: int = 64,
    scale: jax.Array | None = None,
) -> Any:
    """Returns how far setting each factor moves each unit: E_x E_{v != f_k} |a_u(x') - a_u(x)| / s_u.

    Source: this library. v is every other value of the factor. Posterior mean, no noise. At sites with positions the
    mean is over positions too. 0/0 (a unit that never moves) is 0. A factor with one value has no effect to speak
    of: NaN.

    Args:
      site: None for the representation that metrics score (R of a model with `represent`); the name of a site; or
        several names or patterns such as "encoder/*".
      num: how many images x; each is run at all values of all factors.
      scale: [units] the s_u of the representation or of a single site, such as the aggregate posterior's standard
        deviation; None takes the unit's standard deviation over the manipulated images.

    Returns:
      [K, units]; of several sites or a pattern, site -> [K, units].

    Raises:
      ValueError: for sets without generative factors, for sites that do not exist, and for activations that are not
        finite.
    """
    _check_generative(dataset)
    check_inputs(model, params, jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32))
    if site is None:
        measured = encoder(model, params)
    else:
        patterns = (site,) if isinstance(site, str) else tuple(site)
        measured = jax.tree_util.Partial(_activations_of(forward_of(model), patterns), params)
    changes, deviations = factor_changes(measured, dataset, key, num)
    if isinstance(site, str) and site in changes:
        changes, deviations = changes[site], deviations[site]
    elif site is not None:
        check_patterns(patterns, sites_of(model, params, jnp.zeros((1, *dataset.image_shape))))
    return in_units_of(deviations if scale is None else scale, changes)


def factor_changes(
    function: Callable[[jax.Array], PyTree], dataset: Dataset, key: jax.Array, num: int
) -> tuple[PyTree, PyTree]:
    """Returns how far setting each factor moves anything that is measured of images, and in what units.

    `factor_effects` is this function of a representation or of activations; `in_units_of` makes effects of changes.

    Args:
      function: x [N, H, W, C] -> pytree of [N, ..., units]; both results are such pytrees.
      dataset: the set that draws and renders.
      key: draws the images.
      num: how many x.

    Returns:
      E_x E_{v != f_k} |f_u(x') - f_u(x)| [K, units], and the standard deviation [units] of f_u.

    Raises:
      ValueError: for sets without generative factors, and where what is measured is not finite.
    """
    _check_generative(dataset)
    check_key(key)
    factor_key, image_key = jax.random.split(key)
    factors = dataset.sample_factors(factor_key, num)
    changed = _all_values_of_all(dataset, factors, factor_key)
    owner = np.repeat(np.arange(dataset.num_factors), dataset.factor_sizes)
    x = dataset.render(factors, image_key)
    changes, deviations = _factor_changes(as_pytree(function), dataset, x, factors, changed, owner, image_key)
    check_measured(deviations)
    return changes, deviations


@jax.jit
def _all_values_of_all(dataset: Dataset, factors: jax.Array, key: jax.Array) -> jax.Array:
    """Factors [E, N, K] under do(f_k := v) for every v of every factor in turn; `key` as in `all_values`."""
    return jnp.concatenate([all_values(dataset, factors, k, key) for k in range(dataset.num_factors)])


@jit()
def _factor_changes(function, dataset, x, factors, changed, owner, key):
    """`changed` [E, N, K] are manipulations of x [N, ...] and its `factors` [N, K], the e-th of factor `owner[e]`."""
    base = function(x)

    def effect(entry):
        factors_now, k = entry
        moved = (jnp.take(factors_now, k, axis=1) != jnp.take(factors, k, axis=1)).astype(jnp.float32)
        now = function(dataset.render(factors_now, key))
        change = jax.tree.map(lambda a, b: _mean_change(a, b, moved), now, base)
        return change, jnp.sum(moved), jax.tree.map(_moments, now, base)

    totals, counts, moments = jax.lax.map(effect, (changed, owner))
    total = functools.partial(jax.ops.segment_sum, segment_ids=owner, num_segments=dataset.num_factors)
    count = total(counts)[:, None]
    means = jax.tree.map(lambda sums: total(sums) / jnp.where(count > 0, count, jnp.nan), totals)
    return means, jax.tree.map(_standard_deviation, moments, base)


@jax.jit
def in_units_of(scale: PyTree, changes: PyTree) -> PyTree:
    """Returns changes [K, units] divided by scales [units]; 0/0 is 0."""
    return jax.tree.map(
        lambda change, s: jnp.where(change == 0, 0.0, change / jnp.maximum(s, 1e-12)[None]), changes, scale
    )


def _standard_deviation(moments: jax.Array, base: jax.Array) -> jax.Array:
    """[units], over the manipulated images and not x alone: one silent in few x may answer to a factor.

    Not below the rounding error of its values, so that a constant unit has no effect. moments [E, 2, units].
    """
    first, second = jnp.mean(moments, axis=0)
    rounding = 1e-6 * jnp.max(jnp.abs(base), axis=tuple(range(base.ndim - 1)))
    return jnp.maximum(jnp.sqrt(jnp.maximum(second - first**2, 0.0)), rounding)


def _moments(now: jax.Array, base: jax.Array) -> jax.Array:
    """[2, units]: mean and mean square of [N, ..., units] about the base's mean (for float32's sake)."""
    rows = tuple(range(now.ndim - 1))
    centered = now - jnp.mean(base, axis=rows, keepdims=True)
    return jnp.stack([jnp.mean(centered, axis=rows), jnp.mean(centered**2, axis=rows)])


def _mean_change(now: jax.Array, base: jax.Array, weight: jax.Array) -> jax.Array:
    """Sum over rows of weight [N] times the change of [N, ..., units], averaged over positions: [units]."""
    change = jnp.abs(now - base)
    return jnp.tensordot(weight, jnp.mean(change, axis=tuple(range(1, change.ndim - 1))), 1)


@cached()
def _activations_of(forward, capture):
    """(params, x) -> the activations that `capture` names."""

    def activations(params, x):
        return tapped(forward, capture, params, x, None, {})[1]

    return activations


def encoder(model: Any, params: PyTree) -> jax.tree_util.Partial:
    """Returns x -> representation [N, d] of a model, with the parameters as an argument of compiled programs."""
    return jax.tree_util.Partial(require(model, "represent", "an effect on the representation"), params)
