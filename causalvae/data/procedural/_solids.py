"""The solids that MPI3D's arm carries, and where rays meet them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Solid(NamedTuple):
    """A convex body in its own frame (z along its axis): half-spaces cut with one quadric of revolution.

    Inside is `normals @ p <= bounds` and `radial * (x² + y²) + axial * (z - apex)² <= level`.
    """

    normals: jax.Array  # [8, 3]
    bounds: jax.Array  # [8]
    radial: jax.Array
    axial: jax.Array
    apex: jax.Array
    level: jax.Array


def solids(radii: Sequence[Any], heights: Sequence[Any]) -> Solid:
    """Returns the six large shapes, stacked along a leading axis; half-spaces that a shape lacks lie far away."""
    up = jnp.array([0.0, 0.0, 1.0])
    around = {n: jnp.stack([jnp.cos(a), jnp.sin(a), 0 * a], -1) for n in (4, 6) for a in [_turn(n)]}

    def solid(height, sides=None, bound=1.0, quadric=(0.0, 0.0, 0.0, 1.0)):
        sides = jnp.zeros((0, 3)) if sides is None else sides
        far = jnp.tile(up[None], (6 - len(sides), 1))
        bounds = jnp.stack([bound] * len(sides) + [height] * 2 + [10.0] * len(far))
        return Solid(jnp.concatenate([sides, up[None], -up[None], far]), bounds, *map(jnp.asarray, quadric))

    cone_slope, rise = radii[0] / (2 * heights[0]), radii[4] / (2 * heights[4])
    walls = (around[4] + rise * up[None]) / jnp.sqrt(1 + rise**2)
    shapes = (
        solid(heights[0], quadric=(1.0, -(cone_slope**2), heights[0], 0.0)),
        solid(heights[1], around[4], radii[1]),
        solid(heights[2], quadric=(1.0, 0.0, 0.0, radii[2] ** 2)),
        solid(heights[3], around[6], radii[3]),
        solid(heights[4], walls, rise * heights[4] / jnp.sqrt(1 + rise**2)),
        solid(10.0, quadric=(1.0, 1.0, 0.0, radii[5] ** 2)),
    )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *shapes)


def _turn(parts):
    return jnp.arange(parts) * 2 * jnp.pi / parts


def trace(solid: Solid, origin: jax.Array, direction: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
    """Where rays from `origin` [3] along `direction` (x, y, z, each [1, N]) enter a solid, in its own frame.

    Returns (distance [N], infinite where a ray misses; normal x, y, z, each [N], not normalized).
    """
    # Sums are written out: XLA's matrix products do not pay for three terms.
    slope = sum(n[:, None] * d for n, d in zip(solid.normals.T, direction, strict=True))  # [8, N]
    slope = jnp.where(jnp.abs(slope) < 1e-7, 1e-7, slope)
    crossing = (solid.bounds - solid.normals @ origin)[:, None] / slope
    leave = jnp.min(jnp.where(slope > 0, crossing, jnp.inf), 0)
    # The last entry and its facet in one integer: a positive float's bits sort like the float.
    bits = jax.lax.bitcast_convert_type(jnp.maximum(crossing, 0.0), jnp.int32) & ~7
    packed = jnp.max(jnp.where(slope < 0, bits | jnp.arange(8)[:, None], 0), 0)
    packed, leave = jax.lax.optimization_barrier((packed, leave))  # or XLA finds them again for each use
    entry = jax.lax.bitcast_convert_type(packed & ~7, jnp.float32)
    facet = solid.normals[packed & 7].T

    weights = (solid.radial, solid.radial, solid.axial)
    position = origin - jnp.array([0.0, 0.0, 1.0]) * solid.apex
    along = [d[0] for d in direction]
    a = sum(w * d * d for w, d in zip(weights, along, strict=True))
    b = sum(w * p * d for w, p, d in zip(weights, position, along, strict=True))
    discriminant = b * b - a * (jnp.stack(weights) @ position**2 - solid.level)
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    inverse = 1 / jnp.where(jnp.abs(a) < 1e-9, 1e-9, a)
    first, second = -b * inverse - root * jnp.abs(inverse), -b * inverse + root * jnp.abs(inverse)
    # a < 0: the ray crosses both nappes of the double cone; the solid is the one below the apex.
    downwards, flat = along[2] < 0, solid.radial == 0  # flat: no quadric, the polyhedron alone
    curved_entry = jnp.where((a > 0) & ~flat, first, jnp.where(downwards & ~flat, second, -jnp.inf))
    curved_leave = jnp.where((a > 0) & ~flat, second, jnp.where(downwards | flat, jnp.inf, first))
    missed = ~flat & (a > 0) & (discriminant < 0)

    distance = jnp.maximum(entry, curved_entry)
    hit = (distance < jnp.minimum(leave, curved_leave)) & ~missed
    curved = curved_entry > entry
    gradient = [w * (p + distance * d) for w, p, d in zip(weights, position, along, strict=True)]
    normal = [jnp.where(curved, g, f) for g, f in zip(gradient, facet, strict=True)]
    return jnp.where(hit, distance, jnp.inf), normal
