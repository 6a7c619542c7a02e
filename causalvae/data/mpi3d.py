"""MPI3D toy in its likeness: a grey post with a thin arm that carries an object over a dark floor.

Cameras, ring, lamp and arm were fitted to genuine frames of the toy set (ring edges, the object's path under
both axes): distances are in units of the ring's inner radius, the camera is a pinhole of focal length 47 px.
Floor, ring and post do not depend on the object, so they are rendered once, as tables; an image is then a
table row with the arm (a thick line) and the object (a ray-traced window of 22x22 pixels) painted over it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from causalvae.data.base import Dataset

FACTOR_NAMES = (
    "object_color",
    "object_shape",
    "object_size",
    "camera_height",
    "background_color",
    "horizontal_axis",
    "vertical_axis",
)
FACTOR_SIZES = (6, 6, 2, 3, 3, 40, 40)
COLORS = ("white", "green", "red", "blue", "brown", "olive")
SHAPES = ("cone", "cube", "cylinder", "hexagonal prism", "pyramid", "sphere")

SIZE = 64
FOCAL = 47.06  # px
# Distance from the post, height, downward pitch (radians), horizontal offset of the image (px), per height.
CAMERAS = ((0.528, 0.946, 0.917, -1.63), (0.648, 0.831, 0.696, 1.06), (0.768, 0.646, 0.360, -2.56))
FLOOR = 52 / 255
RING = (1.0, 1.33)  # inner and outer radius
RING_END = 2.614  # the azimuth (radians) where the ring's next colour begins
RING_COLORS = ((105, 79, 148), (73, 101, 97), (113, 80, 89), (96, 105, 123))  # the last is never the factor's
LAMP = (0.02, 0.52, 2.21)  # a point light
FILL = (0.20, -0.72, 0.66)  # direction of the second, distant light
OBJECT_COLORS = ((236, 236, 236), (44, 172, 43), (255, 0, 0), (48, 125, 238), (92, 51, 35), (140, 136, 48))
JOINT_HEIGHT = 0.367  # where the arm turns
ARM_LENGTH = 0.307  # from the joint to the object's centre
ARM_OFFSET = 0.040  # the arm is mounted on the side of the joint
HORIZONTAL_RANGE = (-0.30, 3.79)  # azimuth of the arm, radians
VERTICAL_RANGE = (0.08, 3.06)  # elevation of the arm, radians; beyond pi/2 it points the other way
SMALL = 0.70  # size of a small object relative to a large one
MOUNTS = (0.085, 0.068, 0.063, 0.063, 0.085, 0.068)  # from a shape's centre to the end that the arm holds
LAMP_POWER, FILL_POWER = 1.35, 0.75
ARM_RADIUS = 0.010

WINDOW = 22  # side of the object's window, px
OBJECT_SAMPLES = 3  # rays per pixel along each side
POST_ROWS, POST_COLS = (20, 34), (18, 24)  # first row (column) and extent of the post's window


class View(NamedTuple):
    """A pinhole camera: where it is, how far it looks down, and its image's horizontal offset in px."""

    distance: jax.Array
    height: jax.Array
    pitch: jax.Array
    offset: jax.Array


class Solid(NamedTuple):
    """A convex body in its own frame (z along the arm): half-spaces cut with one quadric of revolution.

    Inside is `normals @ p <= bounds` and `radial * (x² + y²) + axial * (z - apex)² <= level`.
    """

    normals: jax.Array  # [8, 3]
    bounds: jax.Array  # [8]
    radial: jax.Array
    axial: jax.Array
    apex: jax.Array
    level: jax.Array


@functools.lru_cache(maxsize=1)
def procedural() -> Dataset:
    """The procedural MPI3D toy set (1,036,800 combinations of factors); deterministic."""
    return Dataset(
        name="mpi3d",
        source="procedural",
        factor_names=FACTOR_NAMES,
        factor_sizes=FACTOR_SIZES,
        image_shape=(SIZE, SIZE, 3),
        render=render,
        arrays=jax.jit(_tables)(),
        provenance=(("variant", "toy"), ("renderer", "this library: ray-traced likeness of MPI3D toy")),
    )


def render(arrays: dict[str, jax.Array], factors: jax.Array, key: jax.Array) -> jax.Array:
    """Image [64, 64, 3] in [0, 1] of `factors` [7]; `key` is unused (the set is deterministic)."""
    del key
    color, shape, size, camera, background, horizontal, vertical = factors
    view = View(*arrays["cameras"][camera])
    azimuth = _grid(HORIZONTAL_RANGE, horizontal)
    axis, side = _arm_frame(azimuth, _grid(VERTICAL_RANGE, vertical))
    joint = jnp.array([0.0, 0.0, JOINT_HEIGHT]) + ARM_OFFSET * side
    center = joint + ARM_LENGTH * axis

    solid = jax.tree.map(lambda table: table[shape], arrays["solids"])
    scale = jnp.where(size == 0, SMALL, 1.0)
    albedo = arrays["object_colors"][color]
    start, object_layer = _object_layer(view, solid, scale, center, axis, side, albedo)
    arm_layer = _arm_layer(view, joint, center - scale * arrays["mount"][shape] * axis, axis)
    post_layer = arrays["post"][camera, horizontal]

    # Painter's order: the object hides the post when it is nearer to the camera than the joint.
    eye = jnp.stack([jnp.zeros(()), -view.distance, view.height])
    nearer = jnp.sum((center - eye) ** 2) < jnp.sum((joint - eye) ** 2)
    post_start = (POST_ROWS[0], POST_COLS[0])
    image = arrays["background"][camera, background]
    image = _paint(image, object_layer * (1 - nearer), start)
    image = _paint(image, post_layer * nearer, post_start)
    image = _paint(image, arm_layer, (0, 0))
    image = _paint(image, post_layer * (1 - nearer), post_start)
    return _paint(image, object_layer * nearer, start)


def project(view: View, point: jax.Array) -> jax.Array:
    """Image position (x, y) in px, y down, of `point` [3]."""
    forward, down = _camera_axes(view)
    relative = point - _eye(view)
    plane = jnp.stack([relative[0], down @ relative]) * (FOCAL / (forward @ relative))
    return plane + jnp.stack([SIZE / 2 + view.offset, jnp.asarray(SIZE / 2)])


def rays(view: View, x: jax.Array, y: jax.Array) -> jax.Array:
    """Directions [3, ...] of the rays through image positions x, y (px); not normalised."""
    forward, down = _camera_axes(view)
    right_part = (x - SIZE / 2 - view.offset) / FOCAL
    down_part = (y - SIZE / 2) / FOCAL
    return jnp.stack([right_part, forward[1] + down_part * down[1], forward[2] + down_part * down[2]])


def shade(normal: jax.Array, point: jax.Array) -> jax.Array:
    """Brightness [...] of a white matte surface with unit `normal` [3, ...] near `point` [3]."""
    to_lamp = jnp.array(LAMP) - point
    squared = jnp.sum(to_lamp**2)
    fill = jnp.array(FILL)
    from_lamp = jnp.tensordot(to_lamp / jnp.sqrt(squared), normal, 1)
    from_fill = jnp.tensordot(fill / jnp.linalg.norm(fill), normal, 1)
    return LAMP_POWER / squared * jnp.maximum(from_lamp, 0) + FILL_POWER * jnp.maximum(from_fill, 0)


def trace(solid: Solid, origin: jax.Array, direction: jax.Array, brightness) -> tuple[jax.Array, jax.Array]:
    """Where rays from `origin` [3] along `direction` [3, N] enter a solid, all in the solid's own frame.

    Returns (distance [N], infinite where the ray misses; brightness [N] of the surface entered), the latter
    by `brightness(normal [3, M]) -> [M]` of normals that need not have unit length.
    """
    slope = solid.normals @ direction  # [8, N]
    slope = jnp.where(jnp.abs(slope) < 1e-7, 1e-7, slope)
    crossing = (solid.bounds - solid.normals @ origin)[:, None] / slope
    entries = jnp.where(slope < 0, crossing, -jnp.inf)
    entry = jnp.max(entries, 0)
    leave = jnp.min(jnp.where(slope > 0, crossing, jnp.inf), 0)
    facets = jnp.max(jnp.where(entries == entry[None], brightness(solid.normals.T)[:, None], 0.0), 0)

    weights = jnp.stack([solid.radial, solid.radial, solid.axial])
    position = origin - jnp.array([0.0, 0.0, 1.0]) * solid.apex
    a = weights @ direction**2
    b = (weights * position) @ direction
    c = weights @ position**2 - solid.level
    discriminant = b * b - a * c
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    safe = jnp.where(jnp.abs(a) < 1e-9, 1e-9, a)
    first, second = (-b - jnp.sign(safe) * root) / safe, (-b + jnp.sign(safe) * root) / safe
    # a < 0: the ray crosses both nappes of the double cone; the solid is the one below the apex.
    downwards = direction[2] < 0
    curved_entry = jnp.where(a > 0, first, jnp.where(downwards, second, -jnp.inf))
    curved_leave = jnp.where(a > 0, second, jnp.where(downwards, jnp.inf, first))
    flat = weights[0] == 0  # no quadric: the polyhedron alone
    curved_entry = jnp.where(flat, -jnp.inf, curved_entry)
    curved_leave = jnp.where(flat, jnp.inf, curved_leave)
    missed = ~flat & (a > 0) & (discriminant < 0)

    distance = jnp.maximum(entry, curved_entry)
    normal = weights[:, None] * (position[:, None] + distance[None] * direction)
    hit = (distance < jnp.minimum(leave, curved_leave)) & ~missed
    light = jnp.where(curved_entry > entry, brightness(normal), facets)
    return jnp.where(hit, distance, jnp.inf), jnp.where(hit, light, 0.0)


def _trace_posed(solid, center, axes, scale, view, directions):
    """`trace` of a solid placed in the room: rows of `axes` [3, 3] are its axes, `scale` [3] its sizes."""
    origin = axes @ (_eye(view) - center) / scale
    local = (axes @ directions.reshape(3, -1)) / scale[:, None]

    def brightness(normal):
        world = axes.T @ (normal / scale[:, None])
        return shade(world * jax.lax.rsqrt(jnp.maximum(jnp.sum(world**2, 0), 1e-12))[None], center)

    return trace(solid, origin, local, brightness)


def _object_layer(view, solid, scale, center, axis, side, albedo):
    """(start row and column, premultiplied RGBA [WINDOW, WINDOW, 4]) of the carried object."""
    middle = project(view, center)
    start = jnp.clip(jnp.round(middle[::-1] - WINDOW / 2), 0, SIZE - WINDOW)
    offsets = (jnp.arange(WINDOW * OBJECT_SAMPLES) + 0.5) / OBJECT_SAMPLES
    y, x = jnp.meshgrid(start[0] + offsets, start[1] + offsets, indexing="ij")
    axes = jnp.stack([side, jnp.cross(axis, side), axis])
    distance, light = _trace_posed(solid, center, axes, scale * jnp.ones(3), view, rays(view, x, y))
    alpha = _average(jnp.isfinite(distance).astype(jnp.float32).reshape(x.shape), OBJECT_SAMPLES)
    light = _average(jnp.minimum(light, 1.0).reshape(x.shape), OBJECT_SAMPLES)
    layer = jnp.concatenate([light[..., None] * albedo[None, None], alpha[..., None]], -1)
    return (start[0].astype(jnp.int32), start[1].astype(jnp.int32)), layer


def _arm_layer(view, start, end, axis):
    """Premultiplied RGBA [64, 64, 4] of the arm: a thin metal rod, brighter the more it lies flat."""
    a, b = project(view, start), project(view, end)
    y, x = _pixel_centres(SIZE, SIZE)
    along = b - a
    position = ((x - a[0]) * along[0] + (y - a[1]) * along[1]) / jnp.maximum(along @ along, 1e-6)
    position = jnp.clip(position, 0.0, 1.0)
    distance = jnp.hypot(x - a[0] - position * along[0], y - a[1] - position * along[1])
    depth = _camera_axes(view)[0] @ (0.5 * (start + end) - _eye(view))
    alpha = jnp.clip(ARM_RADIUS * FOCAL / depth + 0.5 - distance, 0.0, 1.0)
    gray = 0.43 + 0.17 * jnp.sqrt(jnp.maximum(1 - axis[2] ** 2, 0.0))
    return jnp.stack([alpha * gray] * 3 + [alpha], -1)


def _paint(image, layer, start):
    """`image` with a premultiplied RGBA layer [h, w, 4] over its window at `start` (row, column)."""
    corner = (*start, 0)
    window = jax.lax.dynamic_slice(image, corner, (*layer.shape[:2], 3))
    return jax.lax.dynamic_update_slice(image, window * (1 - layer[..., 3:]) + layer[..., :3], corner)


def _arm_frame(azimuth, elevation):
    """(unit vector along the arm [3], unit vector to the side it is mounted on [3])."""
    flat = jnp.cos(elevation)
    axis = jnp.stack([flat * jnp.cos(azimuth), flat * jnp.sin(azimuth), jnp.sin(elevation)])
    side = jnp.stack([-jnp.sin(azimuth), jnp.cos(azimuth), jnp.zeros(())])
    return axis, side


def _eye(view):
    return jnp.stack([jnp.zeros(()), -view.distance, view.height])


def _camera_axes(view):
    """(forward, down) unit vectors [3]; the image's x axis is the room's."""
    cos, sin, zero = jnp.cos(view.pitch), jnp.sin(view.pitch), jnp.zeros(())
    return jnp.stack([zero, cos, -sin]), jnp.stack([zero, -sin, -cos])


def _grid(interval, index):
    return interval[0] + (interval[1] - interval[0]) * index / 39


def _pixel_centres(height, width):
    return jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")


def _average(samples, count):
    """Mean over the count x count samples of each pixel: [H * count, W * count, ...] -> [H, W, ...]."""
    height, width = samples.shape[0] // count, samples.shape[1] // count
    return samples.reshape(height, count, width, count, *samples.shape[2:]).mean((1, 3))


def _tables() -> dict[str, jax.Array]:
    """What `render` looks up: cameras, shapes, colours, and the parts of the scene that never move."""
    cameras = jnp.array(CAMERAS)
    indices = jnp.arange(FACTOR_SIZES[5])
    per_camera = functools.partial(jax.lax.map, xs=cameras)
    return {
        "cameras": cameras,
        "solids": _solids(),
        "mount": jnp.array(MOUNTS),
        "object_colors": jnp.array(OBJECT_COLORS, jnp.float32) / 255,
        "background": per_camera(
            lambda camera: jax.lax.map(lambda color: _background(View(*camera), color), jnp.arange(3))
        ),
        "post": per_camera(
            lambda camera: jax.lax.map(lambda i: _post(View(*camera), _grid(HORIZONTAL_RANGE, i)), indices)
        ),
    }


def _solids() -> Solid:
    """The six large shapes, stacked along a leading axis; half-spaces a shape lacks lie far away."""
    angles = {n: jnp.arange(n) * 2 * jnp.pi / n for n in (4, 6)}
    around = {n: jnp.stack([jnp.cos(a), jnp.sin(a), jnp.zeros(n)], -1) for n, a in angles.items()}
    up = jnp.array([0.0, 0.0, 1.0])

    def solid(mount, sides=None, side_bound=1.0, quadric=(0.0, 0.0, 0.0, 1.0)):
        sides = jnp.zeros((0, 3)) if sides is None else sides
        caps = jnp.stack([up, -up])
        far = jnp.tile(up[None], (6 - len(sides), 1))
        normals = jnp.concatenate([sides, caps, far])
        bounds = jnp.array([side_bound] * len(sides) + [mount, mount] + [10.0] * len(far))
        return Solid(normals, bounds, *(jnp.asarray(q) for q in quadric))

    rise = jnp.array([2.0, 2.0, 0.0])[None] * around[4] + up[None]  # a pyramid twice as high as half its base
    shapes = (
        solid(MOUNTS[0], quadric=(1.0, -0.2704, MOUNTS[0], 0.0)),
        solid(MOUNTS[1], around[4], 0.068),
        solid(MOUNTS[2], quadric=(1.0, 0.0, 0.0, 0.067**2)),
        solid(MOUNTS[3], around[6], 0.060),
        solid(MOUNTS[4], rise / jnp.sqrt(5.0), MOUNTS[4] / jnp.sqrt(5.0)),
        solid(10.0, quadric=(1.0, 1.0, 0.0, MOUNTS[5] ** 2)),
    )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *shapes)


def _background(view, color):
    """[64, 64, 3]: floor and ring; past RING_END the ring wears the next colour."""
    count = 4
    y, x = (axis / count for axis in _pixel_centres(SIZE * count, SIZE * count))
    direction = rays(view, x, y)
    to_floor = view.height / jnp.maximum(-direction[2], 1e-3)
    point = _eye(view)[:, None, None] + to_floor[None] * direction
    radius = jnp.hypot(point[0], point[1])
    next_color = (jnp.arctan2(point[1], point[0]) > RING_END).astype(jnp.int32)
    squared = (point[0] - LAMP[0]) ** 2 + (point[1] - LAMP[1]) ** 2 + LAMP[2] ** 2
    light = 5.30 * LAMP[2] / squared**1.5  # relative to the ring's point nearest to the lamp
    ring = jnp.array(RING_COLORS, jnp.float32)[color + next_color] / 255 * light[..., None]
    on_ring = (radius > RING[0]) & (radius < RING[1]) & (direction[2] < -1e-3)
    return _average(jnp.where(on_ring[..., None], ring, FLOOR), count)


def _post(view, azimuth):
    """Premultiplied RGBA [rows, columns, 4] of the post at `azimuth`: base disc, body, bracket and joint."""
    count = 3
    y, x = (axis / count for axis in _pixel_centres(POST_ROWS[1] * count, POST_COLS[1] * count))
    directions = rays(view, x + POST_COLS[0], y + POST_ROWS[0])
    solids = _solids()
    cube, cylinder = (jax.tree.map(lambda table, i=i: table[i], solids) for i in (1, 2))
    axis, side = _arm_frame(azimuth, 0.0)
    up = jnp.array([0.0, 0.0, 1.0])
    upright = jnp.stack([axis, side, up])
    lying = jnp.stack([up, axis, side])
    bodies = (  # solid, centre, axes, half-extents, reflectance
        (cylinder, 0.004 * up, upright, (0.098, 0.098, 0.004), 0.68),
        (cylinder, 0.010 * up, upright, (0.060, 0.060, 0.010), 0.45),
        (cylinder, 0.170 * up, upright, (0.044, 0.044, 0.170), 0.42),
        (cube, 0.070 * axis - 0.02 * side + 0.03 * up, upright, (0.010, 0.016, 0.030), 0.75),
        (cube, 0.365 * up, upright, (0.040, 0.040, 0.026), 0.74),
        (cylinder, JOINT_HEIGHT * up + 0.035 * side, lying, (0.026, 0.026, 0.018), 0.62),
    )
    nearest, gray = jnp.full(x.size, jnp.inf), jnp.zeros(x.size)
    unit = {id(cube): jnp.full(3, 0.068), id(cylinder): jnp.array([0.067, 0.067, 0.063])}
    for solid, center, axes, extents, reflectance in bodies:
        scale = jnp.array(extents) / unit[id(solid)]
        distance, light = _trace_posed(solid, center, axes, scale, view, directions)
        gray = jnp.where(distance < nearest, reflectance * light, gray)
        nearest = jnp.minimum(nearest, distance)
    layer = jnp.stack([gray] * 3 + [jnp.isfinite(nearest).astype(jnp.float32)], -1)
    return _average(layer.reshape(*x.shape, 4), count)
