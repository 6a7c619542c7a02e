"""Which units of a site are replaced together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from causalvae.interventions._checks import check_numbers
from causalvae.sites import check_site

GRANULARITIES = ("unit", "channel", "position", "element", "site")
"""What can be replaced together, by name."""


@struct.dataclass
class Groups:
    """G groups of units, each replaced together. A pytree; `granularity` says how `selectors` are read."""

    selectors: dict[str, jax.Array]  # site -> [G] int32 numbers, or [G, units] or [G, ...shape] bool masks
    granularity: str = struct.field(pytree_node=False, default="mask")

    @property
    def size(self) -> int:
        return next(iter(self.selectors.values())).shape[0]

    def select(self, site: str, groups: jax.Array, base: jax.Array) -> jax.Array:
        """Where [C, ...] the groups [C] lie in the base run's activations [C, ...]; broadcastable to them."""
        chosen, ndim = self.selectors[site][groups], base.ndim
        if self.granularity == "mask":
            return chosen.reshape(chosen.shape[0], *(1,) * (ndim - chosen.ndim), *chosen.shape[1:])
        chosen = chosen.reshape(-1, *(1,) * (ndim - 1))
        return chosen == _numbers(base.shape[1:], self.granularity)[None]

    def total(self, site: str, base: jax.Array, values: jax.Array) -> jax.Array:
        """[G, P]: the sum of values [P, ...] over each group, in runs with activations `base` [P, ...]."""
        del base  # other kinds of group depend on it
        selector, shape, pairs = self.selectors[site], values.shape[1:], values.shape[0]
        if self.granularity == "mask":
            if selector.ndim - 1 < len(shape):  # masks of units: over all positions
                values = values.sum(axis=tuple(range(1, len(shape))))
            flat = values.reshape(pairs, -1)
            chosen = selector.reshape(selector.shape[0], -1).astype(flat.dtype)
            return jnp.matmul(chosen, flat.T, precision=jax.lax.Precision.HIGHEST)
        axes = {"unit": range(1, len(shape)), "position": (len(shape),), "element": ()}
        reduced = values.sum(axis=tuple(axes.get(self.granularity, range(1, len(shape) + 1))))
        return reduced.reshape(pairs, -1).T[selector]


def _numbers(shape: tuple[int, ...], granularity: str) -> jax.Array:
    """The group's number of every value of an activation [...shape], broadcastable to it."""
    if granularity == "unit":
        return jnp.arange(shape[-1]).reshape(*(1,) * (len(shape) - 1), -1)
    if granularity == "position":
        return jnp.arange(math.prod(shape[:-1])).reshape(*shape[:-1], 1)
    if granularity == "element":
        return jnp.arange(math.prod(shape)).reshape(shape)
    return jnp.zeros((1,) * len(shape), jnp.int32)


def _group_count(shape: tuple[int, ...], granularity: str) -> int:
    counts = {"unit": shape[-1], "position": math.prod(shape[:-1]), "element": math.prod(shape)}
    return counts.get(granularity, 1)


def union(groups: Groups, activations: Mapping[str, jax.Array]) -> Groups:
    """Returns one group of all units that any of the groups holds."""
    masks = {}
    for site in groups.selectors:
        everything = jnp.zeros((groups.size, *activations[site].shape[1:]), activations[site].dtype)
        chosen = groups.select(site, jnp.arange(groups.size), everything)
        masks[site] = jnp.broadcast_to(chosen, everything.shape).any(axis=0, keepdims=True)
    return Groups(masks)


def make_groups(shapes: Mapping[str, Any], sites: str | Sequence[str], groups: Any = "unit") -> Groups:
    """Returns the groups of units that the argument `groups` of an intervention names.

    Args:
      shapes: site -> activation, of all sites.
      sites: one site, or several that are replaced together (`groups="site"` only).
      groups: a granularity, every group of it in turn: "unit" (an index of the last axis, at all positions; "channel"
        is the same word for sites that have positions), "position" (all channels of one, numbered row by row),
        "element" (one number), "site" (all of it). Or numbers of units, such as `[3, 5]`; numbers of another
        granularity, such as `("position", [0, 7])`; or masks, site -> bool [G, units] or [G, ...], which may name
        several sites.

    Raises:
      ValueError: naming what exists.
    """
    if isinstance(groups, Mapping):
        return _groups_of_masks(shapes, groups)
    sites = (sites,) if isinstance(sites, str) else tuple(sites)
    for site in sites:
        check_site(site, shapes)
    granularity, numbers = _parse(groups)
    if len(sites) != 1 and granularity != "site":
        raise ValueError(f"{len(sites)} sites together need groups='site' or masks, not {granularity!r}")
    granularity = _resolve(granularity, sites[0], shapes[sites[0]])
    count = _group_count(shapes[sites[0]].shape[1:], granularity)
    numbers = np.arange(count) if numbers is None else numbers
    chosen = check_numbers(f"{granularity} of site {sites[0]!r}", numbers, count)
    return Groups({site: chosen for site in sites}, granularity)


def _parse(groups: Any) -> tuple[str, Any]:
    """(granularity, numbers or None for all) of the argument `groups`."""
    granularity, numbers = groups, None
    if isinstance(groups, tuple) and groups and isinstance(groups[0], str):
        granularity, numbers = groups
    elif not isinstance(groups, str):
        granularity, numbers = "unit", groups
    if granularity not in GRANULARITIES:
        raise ValueError(
            f"no groups {granularity!r}; there are: {', '.join(GRANULARITIES)}, numbers of units, or masks by site"
        )
    return granularity, numbers


def _resolve(granularity: str, site: str, activation: Any) -> str:
    """The granularity in the words of `Groups`. In a map of integer codes each code is a unit."""
    positions = len(activation.shape) - 2
    if granularity in ("channel", "position") and positions < 1:
        units = activation.shape[-1]
        raise ValueError(f"site {site!r} has no positions; use groups='unit' for its {units} units")
    if jnp.issubdtype(activation.dtype, jnp.integer) and positions and granularity != "site":
        return "element"
    return "unit" if granularity == "channel" else granularity


def _groups_of_masks(shapes: Mapping[str, Any], masks: Mapping[str, Any]) -> Groups:
    sizes = set()
    for site, mask in masks.items():
        check_site(site, shapes)
        shape = shapes[site].shape[1:]
        if jnp.shape(mask)[1:] not in (shape, shape[-1:]):
            raise ValueError(
                f"masks for site {site!r} must be [groups, {shape[-1]}] or "
                f"[groups, {', '.join(map(str, shape))}], not {list(jnp.shape(mask))}"
            )
        sizes.add(jnp.shape(mask)[0])
    if len(sizes) != 1:
        raise ValueError(f"masks must name at least one site and have as many groups at each, not {sorted(sizes)}")
    return Groups({site: jnp.asarray(mask, bool) for site, mask in masks.items()}, "mask")
