"""Circuit modularity: how little the circuits of different causes overlap, beside its two nulls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@jax.jit
def circuit_modularity(responses: Array, active: Array | None = None) -> Array:
    """Computes how little the circuits of different causes overlap: 1 - mean over pairs i < j of |Pearson(a_i, a_j)|.

    Source: paper for the form; which activations, sites and nulls is this library's choice. a_i = responses[i] is the
    vector of mean absolute activation changes that cause i (a latent for decoder sites, a factor for the encoder's
    twin) makes in the units of one site.
    Permuting causes or units leaves it unchanged, and so does rescaling any a_i. Ceiling 1.
    Known weakness: an untrained network and vectors of unrelated noise score high (1 - O(1/sqrt(units))), so it is
    never shown without its two nulls: `permuted_modularity`, and the same network untrained. (A third party's
    reimplementation correlates the mean head's weights of two latents; a_i are activations here.)

    Args:
      responses: [d, units], non-negative.
      active: [d] bool; only pairs of active causes count. None counts all.

    Returns:
      A scalar in [0, 1]; NaN where fewer than two active causes have responses that vary over units (a constant a_i
      has no correlation).

    Raises:
      ValueError: for responses of another rank.
    """
    responses = jnp.asarray(responses, jnp.float32)
    if responses.ndim != 2:
        raise ValueError(f"responses must be [d, units], not {list(responses.shape)}")
    return _modularity(jnp, responses, None if active is None else jnp.asarray(active, bool))


def _modularity(xp: Any, responses: Any, active: Any) -> Any:
    """M [...] of responses [..., d, units], in jax.numpy or in numpy (`xp`): the nulls of many sites of many
    shapes are cheap in numpy, and would each be compiled in JAX."""
    centered = responses - xp.mean(responses, axis=-1, keepdims=True)
    norm = xp.sqrt(xp.sum(xp.square(centered), axis=-1))
    # A constant vector centers to rounding error, not to zero.
    varies = norm > 1e-6 * xp.sqrt(xp.sum(xp.square(responses), axis=-1))
    counted = varies if active is None else varies & xp.broadcast_to(active, varies.shape)
    unit = centered / xp.where(varies, norm, 1.0)[..., None]
    precision = {"precision": jax.lax.Precision.HIGHEST} if xp is jnp else {}
    correlation = xp.abs(xp.matmul(unit, xp.swapaxes(unit, -1, -2), **precision))
    pairs = xp.triu(counted[..., :, None] & counted[..., None, :], k=1)
    count = xp.sum(pairs, axis=(-1, -2))
    total = xp.sum(xp.where(pairs, correlation, 0.0), axis=(-1, -2))
    return 1.0 - total / xp.where(count > 0, count, xp.nan)


def permuted_modularity(key: Array, responses: Array, active: Array | None = None, num: int = 100) -> np.ndarray:
    """Returns the null of `circuit_modularity`: [num] values of M with the units permuted within each a_i.

    Source: this library. Runs on the host, in numpy.

    Args:
      key: of the permutations.
      responses: [d, units].
      active: [d] bool, as there.
      num: how many permutations.
    """
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint32))
    values = np.asarray(responses, np.float32)
    shuffled = generator.permuted(np.broadcast_to(values, (num, *values.shape)), axis=-1)
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
    """Computes the circuit modularity of every site and its mean, with both nulls beside it.

    Args:
      key: of the permutations.
      responses: site -> [d, units].
      active: [d] bool; only pairs of active causes count. None counts all.
      untrained: the responses of the same network before training; all of its latents count.
      num: how many permutations.

    Raises:
      ValueError: where there are no responses, or `untrained` has other sites.
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


def _nan_mean(values: np.ndarray) -> Any:
    """Mean of the values that are not NaN; NaN where there are none."""
    defined = values[~np.isnan(values)]
    return defined.mean() if defined.size else np.float32(np.nan)
