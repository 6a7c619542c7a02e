"""The causal graph among latents, recovered by interventions and scored against the graph of the factors.

Latents are matched to factors first, by what each does when a factor's pixels alone are changed. An edge
j -> i is then sought by holding every other factor at its value, setting factor j, and letting factor i
follow its mechanism: if the latent of i answers, j is a cause of i that no other factor mediates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.interventions.factors import encoder, factor_effects
from causalvae.metrics.ties import TIE

__all__ = [
    "LatentGraph",
    "recover_graph",
    "structural_hamming_distance",
]

PyTree = Any


class LatentGraph(NamedTuple):
    """A graph over factors, as a model's latents tell it."""

    adjacency: np.ndarray  # [K, K] bool; [j, i]: j is a direct cause of i
    effects: np.ndarray  # [K, K] mean absolute answer of i's latent to j through i's own mechanism, in units of scale
    latents: np.ndarray  # [K] int: the latent matched to each factor
    match: np.ndarray  # [K, d] effect of each factor's own pixels on every latent


def recover_graph(
    model: Any,
    params: PyTree,
    dataset: Dataset,
    key: jax.Array,
    *,
    num: int = 128,
    scale: jax.Array | None = None,
    threshold: float = 0.05,
) -> LatentGraph:
    """Returns the graph among the factors of a set with mechanisms, read off the latents of a model.

    Source: this library. Factors are taken to be listed causes first. Of latents that match alike, up to 1e-6 of the
    best match, the first goes to the first factor.

    Args:
      model: anything with a `represent`, see `causalvae.model`.
      params: any pytree.
      dataset: one with a causal graph among its factors: `propagate` is not None.
      key: draws the instances and their noise.
      num: instances.
      scale: [d], the units of effects; None takes each latent's own standard deviation.
      threshold: the effect from which an edge is there.

    Raises:
      ValueError: for a set without mechanisms, or fewer latents than factors.
    """
    if dataset.propagate is None:
        raise ValueError(f"{dataset.name} has no causal graph among its factors: there is nothing to recover")
    encode = encoder(model, params)
    factor_key, image_key, match_key = jax.random.split(key, 3)
    factors = dataset.sample_factors(factor_key, num)
    latents = _latents(encode, dataset, factors, image_key)
    if latents.shape[1] < dataset.num_factors:
        raise ValueError(f"{latents.shape[1]} latents cannot stand for {dataset.num_factors} factors")
    scale = jnp.maximum(jnp.std(latents, axis=0), 1e-12) if scale is None else scale
    # Without mechanisms a factor changes nothing but its own pixels.
    pixels = dataclasses.replace(dataset, propagate=None)
    match = np.asarray(factor_effects(model, params, pixels, match_key, num=num, scale=scale))
    matched = _assign(np.nan_to_num(match))
    held, followed = _answers(dataset, factors, factor_key)
    effects = np.zeros((dataset.num_factors,) * 2)
    for j, i in np.argwhere(~np.eye(dataset.num_factors, dtype=bool)):
        ends = (_latents(encode, dataset, f, image_key)[:, matched[i]] for f in (held[j], followed[j, i]))
        effects[j, i] = jnp.mean(jnp.abs(next(ends) - next(ends))) / scale[matched[i]]
    return LatentGraph(effects >= threshold * (1 - TIE), effects, matched, match)


def _assign(match: np.ndarray) -> np.ndarray:
    """The latent [K] of each factor: the assignment with the largest sum of match [K, d]."""
    from scipy.optimize import linear_sum_assignment  # here: it takes half a second to import

    num_factors, num_latents = match.shape
    # Ten times what rounding can move decides ties: the first latent, and of two factors the first.
    order = np.outer(num_factors - np.arange(num_factors), np.arange(num_latents)) / match.size
    return linear_sum_assignment(-match + TIE * np.abs(match).max() * order)[1]


@jax.jit
def _answers(dataset: Dataset, factors: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Factors with factor j set to its next value and all others held [j, N, K], and the same with factor i
    following its mechanism [j, i, N, K]."""
    num = dataset.num_factors
    held = [factors.at[:, j].set((factors[:, j] + 1) % dataset.factor_sizes[j]) for j in range(num)]

    def follow(values, effect):
        changed = factors
        for k in range(num):  # causes first, so that nothing set is evaluated anew
            if k != effect:
                changed = dataset.intervene(changed, k, values[:, k], key)
        return changed

    return jnp.stack(held), jnp.stack([jnp.stack([follow(values, i) for i in range(num)]) for values in held])


@jax.jit
def _latents(encode: Callable, dataset: Dataset, factors: jax.Array, key: jax.Array) -> jax.Array:
    return encode(dataset.render(factors, key))


def structural_hamming_distance(found: np.ndarray, true: np.ndarray) -> int:
    """Returns how many pairs of nodes differ in their edge: missing, extra, or the other way round (counted once).

    Args:
      found: [K, K] bool; [j, i]: j is a direct cause of i.
      true: as `found`.

    Raises:
      ValueError: unless both are [K, K].
    """
    found, true = np.asarray(found, bool), np.asarray(true, bool)
    if found.shape != true.shape or found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ValueError(f"adjacency matrices must both be [K, K], not {list(found.shape)} and {list(true.shape)}")
    different = found != true
    return int(np.triu(different | different.T, 1).sum())
