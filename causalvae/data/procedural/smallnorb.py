"""SmallNORB in its likeness: toys of five categories on a gray table, seen from above under six lightings.

A toy is a handful of ellipsoids, boxes and cylinders (affine images of the unit ball, cube and cylinder) in
orthographic projection. Then how far a ray passes from a body is a quadratic function of the pixel, whose
coefficients are worked out once per image instead of once per ray. Shadows use the same algebra, with the
lamp's direction in place of the viewer's. Ten instances per category are drawn from a seed; which of them an
image shows is exogenous (drawn from the key), as instance is not a factor of SmallNORB.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.data.records import SMALLNORB

CATEGORIES = ("animal", "human", "airplane", "truck", "car")
INSTANCES = 10  # per category
SEED = 2004

SIZE = 64
WINDOW = 52  # the toy's part of the frame, px
PATCH_LIMIT = 64  # surface patches of a toy, at most
NUM_ELLIPSOIDS, NUM_BOXES, NUM_CYLINDERS = 12, 6, 4
MEAN_AREA = 0.174  # of the frame, over views; sets each toy's scale
NOISE = 1.3 / 255  # standard deviation of the sensor noise
REFLECTANCE = 0.62
SHADOW_STRENGTH = 0.75


class Bodies(NamedTuple):
    """Affine bodies: point p is in local coordinates `inverse @ (p - center)`."""

    inverse: jax.Array  # [..., 3, 3]
    center: jax.Array  # [..., 3]


class Toy(NamedTuple):
    """One toy in its own frame: x forward, z up, standing on z = 0."""

    ellipsoids: Bodies
    boxes: Bodies
    cylinders: Bodies
    middle: jax.Array  # height that the camera aims at
    scale: jax.Array  # px per unit


class Lighting(NamedTuple):
    """Two distant lamps, sky light and the table's gray, fixed in the room (x right, y away, z up)."""

    key: jax.Array  # [3] unit vector to the lamp
    key_power: jax.Array
    second: jax.Array  # [3]
    second_power: jax.Array
    ambient: jax.Array
    background: jax.Array


def _lamp(azimuth: float, elevation: float) -> tuple[float, float, float]:
    a, e = np.radians(azimuth), np.radians(elevation)
    return float(np.cos(e) * np.sin(a)), float(-np.cos(e) * np.cos(a)), float(np.sin(e))


# key lamp (azimuth from the camera, elevation), power; second lamp; ambient; background gray of 255
LIGHTINGS = (
    (_lamp(-50, 55), 0.60, _lamp(60, 50), 0.15, 0.28, 201),
    (_lamp(-35, 60), 0.70, _lamp(45, 55), 0.45, 0.42, 251),
    (_lamp(65, 50), 0.55, _lamp(-60, 60), 0.12, 0.22, 172),
    (_lamp(150, 50), 0.42, _lamp(-100, 60), 0.10, 0.16, 129),
    (_lamp(25, 70), 0.72, _lamp(-140, 60), 0.25, 0.36, 232),
    (_lamp(-120, 55), 0.55, _lamp(20, 65), 0.22, 0.24, 187),
)


@functools.lru_cache(maxsize=1)
def procedural() -> Dataset:
    """The SmallNORB likeness: 4,860 combinations of factors, and an instance drawn from the key."""
    lighting = Lighting(*(np.array(column, np.float32) for column in zip(*LIGHTINGS, strict=True)))
    return Dataset(
        name="smallnorb",
        source="procedural",
        factor_names=SMALLNORB.factor_names,
        factor_sizes=SMALLNORB.factor_sizes,
        image_shape=(SIZE, SIZE, 1),
        render_one=render_one,
        arrays=jax.tree.map(
            jnp.asarray, {"toys": _toys(), "lightings": lighting._replace(background=lighting.background / 255)}
        ),
        deterministic=False,
        provenance=(("instances", INSTANCES), ("seed", SEED), ("drawn_by", __name__)),
    )


def render_one(arrays: dict, factors: jax.Array, key: jax.Array) -> jax.Array:
    """Image [64, 64, 1] in [0, 1] of `factors` [4]; `key` draws the instance (0-9) and the sensor noise."""
    instance_key, noise_key = jax.random.split(key)
    instance = jax.random.randint(instance_key, (), 0, INSTANCES)
    image = render_instance(arrays, factors, instance) + _sensor_noise(noise_key)
    return jnp.clip(image, 0.0, 1.0)[..., None]


def _sensor_noise(key: jax.Array) -> jax.Array:
    """[64, 64] of mean 0 and standard deviation NOISE: sums of two random bytes, a quarter of normal's cost."""
    words = jax.random.bits(key, (SIZE, SIZE // 2), jnp.uint32)
    sums = (words & 0x00FF00FF) + ((words >> 8) & 0x00FF00FF)  # two sums in each word
    sums = jnp.concatenate([sums & 0xFFFF, sums >> 16], 1).astype(jnp.int32)
    deviation = math.sqrt(2 * (256**2 - 1) / 12)
    return (NOISE / deviation) * (sums - 255).astype(jnp.float32)


def render_instance(arrays: dict, factors: jax.Array, instance: jax.Array) -> jax.Array:
    """Noiseless image [64, 64] of `factors` [4] for a given instance (0-9) of its category."""
    # Without barriers XLA draws the instance and works the scene out anew wherever a pixel needs them.
    toy, lighting, camera = jax.lax.optimization_barrier(_scene(arrays, factors, instance))
    layers = *_toy_layer(toy, camera, lighting), _shadow(toy, camera, lighting)
    covered, light, shadow = jax.lax.optimization_barrier(layers)
    table = lighting.background * (1 - shadow)
    return table + covered * (light - table)


def coverage(arrays: dict, factors: jax.Array, instance: jax.Array) -> jax.Array:
    """The part [64, 64] of each pixel that the toy covers."""
    toy, lighting, camera = _scene(arrays, factors, instance)
    return _toy_layer(toy, camera, lighting)[0]


def _scene(arrays, factors, instance):
    """(toy turned to its azimuth, lighting, camera: rows right / up / view direction [3, 3])."""
    category, elevation, azimuth, lighting = factors
    toy = jax.tree.map(lambda table: table[category, instance], arrays["toys"])
    cos, sin = _cos_sin(20.0 * azimuth)
    zero, one = jnp.zeros(()), jnp.ones(())
    turn = jnp.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one]).reshape(3, 3)

    def turned(bodies):
        return Bodies(bodies.inverse @ turn.T, bodies.center @ turn.T)

    toy = Toy(turned(toy.ellipsoids), turned(toy.boxes), turned(toy.cylinders), toy.middle, toy.scale)
    cos, sin = _cos_sin(30.0 + 5.0 * elevation)
    camera = jnp.stack([one, zero, zero, zero, sin, cos, zero, cos, -sin]).reshape(3, 3)
    return toy, jax.tree.map(lambda table: table[lighting], arrays["lightings"]), camera


def _cos_sin(degrees):
    return jnp.cos(jnp.radians(degrees)), jnp.sin(jnp.radians(degrees))


def _pixels(extent: int, count: int) -> tuple[jax.Array, jax.Array]:
    """(right, up) [1, count²] of a grid over the middle `extent` px of the frame, in px from its center.

    Constants: XLA would else divide each pixel's index by `count`, in every loop over pixels.
    """
    line = ((np.arange(count) + 0.5) * (extent / count) - extent / 2).astype(np.float32)
    x, y = np.meshgrid(line, -line, indexing="xy")
    return jnp.asarray(x.reshape(1, -1)), jnp.asarray(y.reshape(1, -1))


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


def _quadratic(c, x, y):
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
    room = _quadratic(ball.room, x, y)
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
    room = _quadratic(curve.room, x, y)
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


def _kinds(toy: Toy):
    return (_ellipsoid_hits, toy.ellipsoids), (_box_hits, toy.boxes), (_cylinder_hits, toy.cylinders)


def _toy_layer(toy: Toy, camera: jax.Array, lighting: Lighting) -> tuple[jax.Array, jax.Array]:
    """(coverage, gray of the visible surface), each [64, 64]; coverage is antialiased."""
    x, y = _pixels(WINDOW, WINDOW)
    target = toy.middle * jnp.array([0.0, 0.0, 1.0])
    rays = Rays(target, camera[0] / toy.scale, camera[1] / toy.scale, camera[2])
    inside, nearest, tables, offset = [], [], [], 0
    for hits_of, bodies in _kinds(toy):
        hits, patches = hits_of(bodies, rays, x, y)
        inside.append(jnp.max(hits.inside, 0))
        nearest.append(_nearest(hits, offset))
        tables.append(jnp.concatenate(patches, -1))
        offset += tables[-1].shape[0]
    inside = functools.reduce(jnp.maximum, inside)
    patch = functools.reduce(jnp.minimum, nearest) & (PATCH_LIMIT - 1)
    # Without the barrier XLA looks for the nearest body once for each of a patch's 18 numbers.
    patch, table = jax.lax.optimization_barrier((patch, jnp.concatenate(tables)))
    table = table[patch].T  # [18, N]
    light = _brightness(table, x[0], y[0], lighting)
    margin = (SIZE - WINDOW) // 2
    return tuple(jnp.pad(layer.reshape(WINDOW, WINDOW), margin) for layer in (jnp.clip(inside + 0.5, 0.0, 1.0), light))


def _nearest(hits: Hits, offset: int) -> jax.Array:
    """Depth and patch of the nearest body in one sortable integer [N]: a minimum instead of an argmin.

    The bits of a positive float sort like the float; its lowest bits make room for the patch.
    """
    bits = jax.lax.bitcast_convert_type(hits.depth + 32.0, jnp.int32) & ~(PATCH_LIMIT - 1)
    covered = hits.inside > -0.5
    return jnp.min(jnp.where(covered, bits | (hits.patch + offset), jnp.iinfo(jnp.int32).max), 0)


def _brightness(table: jax.Array, x: jax.Array, y: jax.Array, lighting: Lighting) -> jax.Array:
    """Gray [N] of a matte surface under two lamps and the sky, from each pixel's row of patches [18, N]."""
    reach = jnp.sqrt(jnp.maximum(_quadratic(table[12:].T, x[:, None], y[:, None])[:, 0], 0.0))
    normal = [table[i] + table[3 + i] * x + table[6 + i] * y + table[9 + i] * reach for i in range(3)]
    length = jax.lax.rsqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2 + 1e-9)

    def lambert(lamp):
        return jnp.maximum((normal[0] * lamp[0] + normal[1] * lamp[1] + normal[2] * lamp[2]) * length, 0.0)

    sky = lighting.ambient * (0.65 + 0.35 * normal[2] * length)
    lamps = lighting.key_power * lambert(lighting.key) + lighting.second_power * lambert(lighting.second)
    return REFLECTANCE * (sky + lamps)


def _shadow(toy: Toy, camera: jax.Array, lighting: Lighting) -> jax.Array:
    """Part of the table's light [64, 64] that the toy keeps off: both lamps' soft shadows and the sky's."""
    up = jnp.array([0.0, 0.0, 1.0])
    slope = camera[2] / camera[2, 2]  # along the view, per unit of height
    target, right, upward = toy.middle * up, camera[0] / toy.scale, camera[1] / toy.scale
    origin, right, upward = (vector - slope * vector[2] for vector in (target, right, upward))  # on the table

    def cast(towards, softness, count):
        x, y = _pixels(SIZE, count)
        rays = Rays(origin, right, upward, towards)
        inside = [jnp.max(hits_of(bodies, rays, x, y)[0].inside, 0) for hits_of, bodies in _kinds(toy)]
        shadow = jax.nn.sigmoid(functools.reduce(jnp.maximum, inside) / softness)
        return jax.image.resize(shadow.reshape(count, count), (SIZE, SIZE), "linear")

    kept = (
        lighting.key_power * cast(lighting.key, 1.2, SIZE // 2)
        + lighting.second_power * cast(lighting.second, 1.8, 5 * SIZE // 16)
        + lighting.ambient * cast(up, 2.5, SIZE // 4)
    )
    return SHADOW_STRENGTH * kept / (lighting.key_power + lighting.second_power + lighting.ambient)


Body = tuple[str, np.ndarray, np.ndarray]  # kind, center [3], linear map [3, 3] of the unit body


def _rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Degrees; yaw about z, pitch raises x (forward), roll about x."""
    y, p, r = np.radians([yaw, -pitch, roll])
    about_z = np.array([[np.cos(y), -np.sin(y), 0], [np.sin(y), np.cos(y), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(p), 0, np.sin(p)], [0, 1, 0], [-np.sin(p), 0, np.cos(p)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(r), -np.sin(r)], [0, np.sin(r), np.cos(r)]])
    return about_z @ about_y @ about_x


def _ball(center, radii, **angles) -> Body:
    return "ellipsoid", np.array(center, float), _rotation(**angles) @ np.diag(radii)


def _block(center, halves, lean: float = 0.0, **angles) -> Body:
    """A box; `lean` shears its top forward by that part of its half-height."""
    shear = np.array([[1, 0, lean], [0, 1, 0], [0, 0, 1.0]])
    return "box", np.array(center, float), _rotation(**angles) @ shear @ np.diag(halves)


def _barrel(center, radius, half_length, axis="y") -> Body:
    """A cylinder along x, y or z."""
    order = {"x": (1, 2, 0), "y": (2, 0, 1), "z": (0, 1, 2)}[axis]
    linear = np.zeros((3, 3))
    linear[order, (0, 1, 2)] = radius, radius, half_length
    return "cylinder", np.array(center, float), linear


def _limb(start, end, radius: float) -> Body:
    """An elongated ellipsoid from `start` to `end`."""
    start, end = np.array(start, float), np.array(end, float)
    span = end - start
    length = np.linalg.norm(span)
    forward = span / length
    helper = np.eye(3)[np.argmin(np.abs(forward))]
    side = np.cross(forward, helper)
    side /= np.linalg.norm(side)
    frame = np.stack([forward, side, np.cross(forward, side)], -1)
    return "ellipsoid", (start + end) / 2, frame @ np.diag([length / 2 + 0.6 * radius, radius, radius])


def _animal(rng: np.random.Generator) -> list[Body]:
    length, width, leg = rng.uniform(0.50, 0.66), rng.uniform(0.20, 0.30), rng.uniform(0.26, 0.46)
    thick, neck, raise_ = rng.uniform(0.07, 0.12), rng.uniform(0.12, 0.36), rng.uniform(15, 70)
    back = leg + 0.8 * width
    bodies = [
        _ball((0, 0, back), (length, width, 1.05 * width)),
        _ball((0.55 * length, 0, back + 0.02), (0.45 * length, 1.02 * width, 1.15 * width)),
        _ball((-0.58 * length, 0, back), (0.42 * length, 1.02 * width, 1.1 * width)),
    ]
    for front in (1, -1):
        for side in (1, -1):
            top = (front * 0.62 * length, side * 0.62 * width, back)
            foot = (front * 0.66 * length + rng.uniform(-0.06, 0.06), side * 0.66 * width, 0.05)
            bodies.append(_limb(top, foot, thick))
    base = np.array([0.82 * length, 0, back + 0.45 * width])
    head = base + neck * np.array([np.cos(np.radians(raise_)), 0, np.sin(np.radians(raise_))])
    size = rng.uniform(0.14, 0.19)
    muzzle = head + (0.5 * size, 0, -0.2 * size)
    snout = rng.uniform(0.08, 0.20)
    rump = np.array([-0.95 * length, 0, back + 0.5 * width])
    tail = (-1.1 * length - rng.uniform(0, 0.12), 0, leg * rng.uniform(0.6, 1.6))
    bodies += [
        _limb(base - 0.1 * (head - base), head, rng.uniform(0.12, 0.17)),
        _ball(head, (1.15 * size, 0.85 * size, 0.95 * size), pitch=-20),
        _limb(muzzle, muzzle + (snout, 0, -0.3 * (size + snout)), 0.5 * size),
        _limb(rump, tail, 0.05),
        _ball(head + (-0.3 * size, 0, 0.85 * size), (0.05, 0.95 * size, 0.06 + rng.uniform(0, 0.1))),
    ]
    return bodies


def _human(rng: np.random.Generator) -> list[Body]:
    width, bulk = rng.uniform(0.25, 0.31), rng.uniform(1.15, 1.45)
    hip, stride = rng.uniform(0.62, 0.72), rng.uniform(0.04, 0.28)
    chest, shoulder = hip + 0.28, hip + 0.50
    bodies = [
        _ball((0, 0, chest), (0.16 * bulk, width, 0.32)),
        _ball((0, 0, hip), (0.15 * bulk, 0.88 * width, 0.18)),
        _ball((0.02, 0, shoulder + 0.26), (0.155, 0.145, 0.18)),
    ]
    for side in (1, -1):
        foot = np.array([side * stride, side * (0.65 * width + rng.uniform(0, 0.08)), 0.05])
        knee = np.array([0.55 * side * stride + 0.06, side * 0.65 * width, 0.36])
        bodies += [
            _limb((0, side * 0.5 * width, hip), knee, 0.105 * bulk),
            _limb(knee, foot, 0.085 * bulk),
            _limb(foot, foot + (0.16, 0, -0.01), 0.06),
        ]
        swing, lift = rng.uniform(-60, 80), rng.uniform(-70, 40)
        upper = np.array([0, side * (width + 0.03), shoulder - 0.02])
        elbow = upper + 0.28 * np.array([np.sin(np.radians(swing)), side * 0.4, -np.cos(np.radians(swing))])
        hand = elbow + 0.26 * np.array([np.cos(np.radians(lift)), -side * 0.1, np.sin(np.radians(lift))])
        bodies.append(_limb(upper, elbow, 0.08 * bulk))
        if side > 0:  # the other forearm is held against the body: twelve ellipsoids are the limit
            bodies.append(_limb(elbow, hand, 0.065 * bulk))
    kind = rng.integers(3)
    if kind == 0:  # a rifle across the chest
        bodies.append(_block((0.17 * bulk + 0.05, 0, chest), (0.035, 0.36, 0.035), roll=rng.uniform(-40, 40)))
    elif kind == 1:  # a hat with a brim
        bodies += [
            _barrel((0.02, 0, shoulder + 0.36), 0.25, 0.02, "z"),
            _barrel((0.02, 0, shoulder + 0.43), 0.14, 0.07, "z"),
        ]
    else:  # a pack
        bodies.append(_block((-0.16 * bulk - 0.06, 0, chest + 0.04), (0.10, 0.17, 0.19)))
    if rng.random() < 0.6:  # a stand
        bodies.append(_barrel((0, 0, 0.02), rng.uniform(0.36, 0.42), 0.02, "z"))
    return bodies


def _airplane(rng: np.random.Generator) -> list[Body]:
    length, radius, span = rng.uniform(0.85, 1.1), rng.uniform(0.10, 0.17), rng.uniform(0.75, 1.05)
    sweep, chord = rng.uniform(-5, 42), rng.uniform(0.14, 0.22)
    height = 0.22 + radius
    low = rng.choice([-0.5, 0.0, 0.7]) * radius
    bodies = [
        _ball((0, 0, height), (length, radius, radius)),
        _ball((0.38 * length, 0, height + 0.5 * radius), (0.25 * length, 0.7 * radius, 0.75 * radius)),
    ]
    for side in (1, -1):
        root = np.array([0.08 * length, 0, height + low])
        angle = -side * sweep
        tip = _rotation(yaw=angle) @ np.array([0, side * span * 0.5, 0])
        bodies.append(_ball(root + tip, (chord, 0.58 * span, 0.028), yaw=angle))
        stern = np.array([-0.85 * length, 0, height + 0.4 * radius])
        tail = stern + _rotation(yaw=angle) @ np.array([0, side * 0.2, 0])
        bodies.append(_ball(tail, (0.11, 0.24, 0.022), yaw=angle))
    fin = rng.uniform(0.22, 0.34)
    rake = rng.uniform(10, 30)
    bodies.append(_ball((-0.88 * length, 0, height + 0.6 * fin), (0.14, 0.022, fin), pitch=rake))
    engines = rng.choice([0, 1, 2])
    for i in range(engines):
        for side in (1, -1):
            y = side * span * (0.36 + 0.3 * i)
            x = 0.12 * length - np.tan(np.radians(sweep)) * abs(y)
            bodies.append(_ball((x + 0.08, y, height + low - 0.05), (0.19, 0.06, 0.06)))
    if engines == 0:  # a propeller, or a jet's intake
        bodies.append(_ball((length, 0, height), (0.02, 0.03, 0.25)))
    bodies += [_barrel((0.1, side * 0.22, 0.09), 0.09, 0.03) for side in (1, -1)]
    bodies.append(_barrel((-0.8 * length, 0, 0.08), 0.07, 0.025))
    return bodies


def _truck(rng: np.random.Generator) -> list[Body]:
    length, width, wheel = rng.uniform(0.85, 1.05), rng.uniform(0.28, 0.34), rng.uniform(0.12, 0.17)
    floor, cab = 1.35 * wheel, rng.uniform(0.22, 0.30)
    roof = rng.uniform(0.42, 0.58)
    bodies = [
        _block((0, 0, floor), (length, 0.85 * width, 0.05)),
        _block((length - cab - 0.1, 0, floor + roof / 2), (cab, width, roof / 2), lean=-0.12),
        _block((length - 0.1, 0, floor + 0.32 * roof), (0.14, 0.9 * width, 0.32 * roof)),
    ]
    bed = length - cab - 0.12
    middle = -length + bed
    kind = rng.integers(4)
    top = rng.uniform(0.32, 0.44)
    if kind == 0:  # a closed body
        bodies.append(_block((middle, 0, floor + top + 0.05), (bed, 1.02 * width, top)))
    elif kind == 1:  # a tank
        bodies.append(_ball((middle, 0, floor + 0.36), (1.1 * bed, width, 0.32)))
        bodies.append(_block((middle, 0, floor + 0.1), (bed, 0.8 * width, 0.06)))
    elif kind == 2:  # a tipper: sides and a load
        bodies.append(_block((middle, 0, floor + 0.2), (bed, 1.02 * width, 0.16), pitch=rng.uniform(0, 14)))
        bodies.append(_ball((middle, 0, floor + 0.36), (0.8 * bed, 0.8 * width, 0.16)))
    else:  # a crane or ladder over a flat bed
        bodies.append(_block((middle, 0, floor + 0.12), (bed, width, 0.07)))
        bodies.append(_block((middle, 0, floor + 0.28), (0.14, 0.16, 0.14)))
        bodies.append(_block((0.1, 0, floor + 0.6), (0.75 * length, 0.06, 0.05), pitch=rng.uniform(2, 18)))
    for x in (0.68 * length, -0.62 * length):
        bodies += [_barrel((x, side * 0.92 * width, wheel), wheel, 0.07) for side in (1, -1)]
    return bodies


def _car(rng: np.random.Generator) -> list[Body]:
    length, width, wheel = rng.uniform(0.85, 1.0), rng.uniform(0.36, 0.43), rng.uniform(0.15, 0.19)
    side, cabin, place = rng.uniform(0.12, 0.16), rng.uniform(0.36, 0.50), rng.uniform(-0.25, 0.0)
    belt, roof = wheel + 2 * side - 0.02, rng.uniform(0.14, 0.20)
    if rng.random() < 0.4:  # rounded all over
        bodies = [
            _ball((0, 0, wheel + side), (1.08 * length, 1.02 * width, 1.25 * side)),
            _block((0, 0, wheel + 0.6 * side), (0.85 * length, 0.97 * width, 0.6 * side)),
            _ball((place, 0, belt - 0.02), (1.30 * cabin, 0.80 * width, 2.0 * roof)),
        ]
    else:
        bodies = [
            _block((0, 0, wheel + side - 0.02), (0.93 * length, width, side)),
            _ball((0, 0, wheel + side), (1.07 * length, 0.95 * width, 1.2 * side)),
        ]
        for sign in (1, -1):  # windscreen and rear window lean towards each other
            center = (place + 0.2 * sign * cabin, 0, belt + roof)
            lean = -0.25 * sign * cabin / roof
            bodies.append(_block(center, (0.62 * cabin, 0.84 * width, roof), lean=lean))
    bodies.append(_ball((0.6 * length, 0, belt - 0.05), (0.42 * length, 0.85 * width, 0.08)))
    kind = rng.integers(3)
    if kind == 0:
        bodies.append(_block((-0.95 * length, 0, belt + 0.1), (0.08, 0.9 * width, 0.02)))  # a spoiler
    elif kind == 1:
        bodies.append(_block((place, 0, belt + 2 * roof + 0.03), (0.06, 0.4 * width, 0.04)))  # a light bar
    for x in (0.58 * length, -0.58 * length):
        bodies += [_barrel((x, s * 0.93 * width, wheel), wheel, 0.06) for s in (1, -1)]
    return bodies


BUILDERS: tuple[Callable[[np.random.Generator], list[Body]], ...] = (_animal, _human, _airplane, _truck, _car)


def _toys() -> Toy:
    """All toys, with leading axes [category, instance]."""
    toys = [
        [_assemble(build(np.random.default_rng((SEED, category, i)))) for i in range(INSTANCES)]
        for category, build in enumerate(BUILDERS)
    ]
    flat = [toy for row in toys for toy in row]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *flat)
    shape = (len(BUILDERS), INSTANCES)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]).astype(np.float32), stacked)


def _assemble(bodies: list[Body]) -> Toy:
    """A toy of `bodies`, centerd over the table and scaled to cover MEAN_AREA of the frame on average."""
    points = np.concatenate([_filling(body) for body in bodies])
    low, high = points.min(0), points.max(0)
    shift = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    groups = []
    for kind, limit in (("ellipsoid", NUM_ELLIPSOIDS), ("box", NUM_BOXES), ("cylinder", NUM_CYLINDERS)):
        members = [(center - shift, linear) for name, center, linear in bodies if name == kind]
        if len(members) > limit:
            raise ValueError(f"a toy has {len(members)} {kind}s; its tables hold {limit}")
        members += [(np.array([0, 0, -1e3]), 0.01 * np.eye(3))] * (limit - len(members))  # out of sight
        centers, linears = zip(*members, strict=True)
        groups.append(Bodies(np.linalg.inv(np.stack(linears)), np.stack(centers)))
    middle = (high[2] - low[2]) / 2
    reach = _reach([(kind, center - shift, linear) for kind, center, linear in bodies], middle)
    scale = min(_scale(points - shift, middle), (WINDOW / 2 - 1.5) / reach)
    return Toy(*groups, np.array(middle), np.array(scale))


def _filling(body: Body) -> np.ndarray:
    """Points [N, 3] that fill a body."""
    kind, center, linear = body
    unit = np.random.default_rng(0).uniform(-1, 1, (1500, 3))
    round_dims = {"ellipsoid": 3, "cylinder": 2, "box": 0}[kind]
    unit = unit[(unit[:, :round_dims] ** 2).sum(1) <= 1]
    return center + unit @ linear.T


def _scale(points: np.ndarray, middle: float) -> float:
    """Pixels per unit at which the points cover MEAN_AREA of the frame, averaged over views."""
    cell, side, areas = 0.06, 128, []
    for elevation in np.radians([30, 50, 70]):
        for azimuth in range(0, 180, 20):
            turned = points @ _rotation(yaw=azimuth).T
            up = turned[:, 1] * np.sin(elevation) + (turned[:, 2] - middle) * np.cos(elevation)
            columns, rows = (np.stack([turned[:, 0], up]) / cell).astype(int) + side // 2
            filled = np.bincount(rows * side + columns, minlength=side * side) > 0
            areas.append(filled.sum() * cell**2)
    return SIZE * np.sqrt(MEAN_AREA / np.mean(areas))


def _reach(bodies: list[Body], middle: float) -> float:
    """The farthest that bodies come to lie right, left, above or below the image's center, over all views."""
    turns = np.radians(20.0 * np.arange(18))
    right = np.stack([np.cos(turns), -np.sin(turns), 0 * turns], -1)[None]
    sideways = np.stack([np.sin(turns), np.cos(turns), 0 * turns], -1)[None]
    elevation = np.radians(30.0 + 5.0 * np.arange(9))[:, None, None]
    up = sideways * np.sin(elevation) + np.array([0.0, 0.0, 1.0]) * np.cos(elevation)
    directions = np.concatenate([right.reshape(-1, 3), up.reshape(-1, 3)])
    farthest = 0.0
    for kind, center, linear in bodies:
        along = directions @ linear  # of the unit body, farthest along: |.| of a ball, sum |.| of a cube
        half = {
            "ellipsoid": np.linalg.norm(along, axis=1),
            "box": np.abs(along).sum(1),
            "cylinder": np.linalg.norm(along[:, :2], axis=1) + np.abs(along[:, 2]),
        }[kind]
        farthest = max(farthest, (np.abs(directions @ (center - (0, 0, middle))) + half).max())
    return farthest
