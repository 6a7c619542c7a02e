"""Ellipsoids, boxes and cylinders met by parallel rays.

In orthographic projection, how far a ray passes from a body (an affine image of the unit ball, cube or cylinder) is a
quadratic function of the pixel, whose coefficients are worked out once per image instead of once per ray.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae.data.procedural._toys import Bodies, Toy


class Rays(NamedTuple):
    """Parallel rays through pixels: origin + right * x + up * y + along * t; each [..., 3]."""

    origin: jax.Array
    right: jax.Array
    up: jax.Array
    along: jax.Array


class Hits(NamedTuple):
    """Bodies of one kind as N pixels see them; each [bodies, N]."""

    inside: jax.Array  # signed distance to the outline in px, positive inside, to first order
    depth: jax.Array  # t at which the ray enters
    patch: jax.Array  # int32: which of the kind's patches it enters


class Patches(NamedTuple):
    """Surface pieces, whose normal is affine in the pixel plus sqrt(max(room, 0)) times `inward`."""

    normal: jax.Array  # [patches, 9]: components' coefficients of 1, then of x, then of y
    inward: jax.Array  # [patches, 3]
    room: jax.Array  # [patches, 6]: coefficients of 1, x, y, x², xy, y²


def _affine(coefficients, x, y):
    return coefficients[..., 0:1] + coefficients[..., 1:2] * x + coefficients[..., 2:3] * y


def quadratic(c, x, y):
    """Returns c0 + c1 x + c2 y + c3 x² + c4 x y + c5 y² of coefficients c [..., 6], at x and y [..., points]."""
    c = [c[..., i : i + 1] for i in range(6)]
    return c[0] + x * (c[1] + c[3] * x + c[4] * y) + y * (c[2] + c[5] * y)


def _localized(bodies: Bodies, rays: Rays) -> Rays:
    """The rays in each body's local coordinates, [bodies, 3]."""
    origin = jnp.einsum("bij,bj->bi", bodies.inverse, rays.origin[None] - bodies.center)
    return Rays(origin, *(jnp.einsum("bij,j->bi", bodies.inverse, vector) for vector in rays[1:]))


class Quadric(NamedTuple):
    """Balls or endless cylinders met by rays: they enter at t = middle - sqrt(max(room, 0)) * reach."""

    room: jax.Array  # [bodies, 6] quadratic: 1 - squared distance of the ray from the center (axis)
    middle: jax.Array  # [bodies, 3] affine: t of that nearest approach
    reach: jax.Array  # [bodies, 1]
    patches: Patches


def _quadric(bodies: Bodies, local: Rays, round_dims: int) -> Quadric:
    """Coefficients for bodies round in their first 3 (balls) or 2 (cylinders) local dimensions."""
    mask = (jnp.arange(3) < round_dims).astype(jnp.float32)[None]
    along = local.along * mask
    squared = jnp.maximum(jnp.sum(along**2, -1, keepdims=True), 1e-6)
    masked = [vector * mask for vector in local[:3]]
    shifts = [-jnp.sum(along * vector, -1, keepdims=True) / squared for vector in masked]
    o, r, u = (vector + shift * along for vector, shift in zip(masked, shifts, strict=True))
    products = [o * o, 2 * o * r, 2 * o * u, r * r, 2 * r * u, u * u]
    room = jnp.array([1.0, 0, 0, 0, 0, 0])[None] - jnp.stack([jnp.sum(p, -1) for p in products], -1)
    reach = 1 / jnp.sqrt(squared)

    def to_world(vector):
        return jnp.einsum("bij,bi->bj", bodies.inverse, vector)

    normal = jnp.concatenate([to_world(v) for v in (o, r, u)], -1)
    patches = Patches(normal, to_world(-along * reach), room)
    return Quadric(room, jnp.concatenate(shifts, -1), reach, patches)


def _flat_patches(faces: jax.Array) -> Patches:
    """Patches with constant normals [patches, 3]."""
    none = jnp.zeros((faces.shape[0], 6))
    return Patches(jnp.concatenate([faces, none], -1), jnp.zeros_like(faces), none)


def _outline_distance(room_coefficients, room, x, y):
    c = [room_coefficients[..., i : i + 1] for i in range(6)]
    slope_x = c[1] + 2 * c[3] * x + c[4] * y
    slope_y = c[2] + c[4] * x + 2 * c[5] * y
    return room * jax.lax.rsqrt(slope_x**2 + slope_y**2 + 1e-9)


def _slabs(local: Rays) -> tuple[jax.Array, jax.Array]:
    """Slabs |coordinate| <= 1: (t at the middle [bodies, dim, coefficient], half passage [bodies, dim])."""
    along = jnp.where(jnp.abs(local.along) < 1e-4, 1e-4, local.along)
    middle = -jnp.stack(local[:3], -1) / along[..., None]
    return middle, 1 / jnp.abs(along)


def _ellipsoid_hits(bodies: Bodies, rays: Rays, x, y) -> tuple[Hits, Patches]:
    ball = _quadric(bodies, _localized(bodies, rays), 3)
    room = quadratic(ball.room, x, y)
    depth = _affine(ball.middle, x, y) - jnp.sqrt(jnp.maximum(room, 0.0)) * ball.reach
    patch = jnp.arange(room.shape[0])[:, None]
    return Hits(_outline_distance(ball.room, room, x, y), depth, patch), ball.patches


def _box_hits(bodies: Bodies, rays: Rays, x, y) -> tuple[Hits, Patches]:
    local = _localized(bodies, rays)
    middle, half = _slabs(local)
    middles = [_affine(middle[:, i], x, y) for i in range(3)]
    halves = [half[:, i : i + 1] for i in range(3)]
    inside = None
    for i, j in ((0, 1), (1, 2), (0, 2)):  # outline: one slab is left just as another is entered
        slope = middle[:, i, 1:] - middle[:, j, 1:]
        steepness = jax.lax.rsqrt(jnp.sum(slope**2, -1, keepdims=True) + 1e-9)
        room = (halves[i] + halves[j] - jnp.abs(middles[i] - middles[j])) * steepness
        inside = room if inside is None else jnp.minimum(inside, room)
    entries = [m - h for m, h in zip(middles, halves, strict=True)]
    depth = jnp.maximum(jnp.maximum(entries[0], entries[1]), entries[2])
    face = jnp.where(depth == entries[0], 0, jnp.where(depth == entries[1], 1, 2))
    faces = -jnp.sign(local.along)[..., None] * bodies.inverse
    return Hits(inside, depth, 3 * jnp.arange(len(half))[:, None] + face), _flat_patches(faces.reshape(-1, 3))


def _cylinder_hits(bodies: Bodies, rays: Rays, x, y) -> tuple[Hits, Patches]:
    local = _localized(bodies, rays)
    curve = _quadric(bodies, local, 2)
    cap_middle, cap_half = (slab[:, 2] for slab in _slabs(local))
    room = quadratic(curve.room, x, y)
    reach = jnp.sqrt(jnp.maximum(room, 0.0)) * curve.reach
    slope = cap_middle[:, 1:] - curve.middle[:, 1:]
    steepness = jax.lax.rsqrt(jnp.sum(slope**2, -1, keepdims=True) + 1e-9)
    middle, caps = _affine(curve.middle, x, y), _affine(cap_middle, x, y)
    inside_caps = (cap_half[:, None] + reach - jnp.abs(caps - middle)) * steepness
    inside = jnp.minimum(_outline_distance(curve.room, room, x, y), inside_caps)
    entries = middle - reach, caps - cap_half[:, None]
    is_cap = (entries[1] > entries[0]).astype(jnp.int32)
    patch = 2 * jnp.arange(len(room))[:, None] + is_cap
    cap_patches = _flat_patches(-jnp.sign(local.along[:, 2:]) * bodies.inverse[:, 2])
    patches = jax.tree.map(
        lambda side, cap: jnp.stack([side, cap], 1).reshape(-1, side.shape[-1]), curve.patches, cap_patches
    )
    return Hits(inside, jnp.maximum(*entries), patch), patches


def kinds(toy: Toy) -> Any:
    """Returns a toy's bodies by kind, each with the function of (bodies, rays, x, y) that says how rays meet them."""
    return (_ellipsoid_hits, toy.ellipsoids), (_box_hits, toy.boxes), (_cylinder_hits, toy.cylinders)
