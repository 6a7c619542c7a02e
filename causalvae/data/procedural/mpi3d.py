"""MPI3D toy in its likeness: a gray post with a thin arm that carries an object over a dark floor.

The scene was fitted to real frames of the toy set (github.com/rr-learning/disentanglement_dataset): ring
edges and the object's path under both axes, then all numbers together to the frames' pixels. Lengths are in
units of the ring's inner radius; x points right, y away from the camera, z up; the post stands at the origin.

Floor, ring and post do not depend on the object, so they are rendered once, as tables. An image is a table's
row with the arm (a thick line) and the object (a ray-traced window of 22x22 pixels) painted over it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.data.procedural._solids import solids, trace
from causalvae.data.records import MPI3D

SHAPES = ("cone", "cube", "cylinder", "hexagonal prism", "pyramid", "sphere")

SIZE = 64  # px
WINDOW = 22  # side of the object's window, px
SAMPLES = 3  # rays per pixel along each side
POST_ROWS, POST_COLS = (20, 34), (18, 24)  # first row (column) and extent of the post's window, px
STEPS = 39  # from the first to the last position of an axis


class ArmScene(NamedTuple):
    """Everything that was fitted. Fields may be traced, so that a scene can be fitted by any optimizer."""

    focal: float = 47.06  # px
    # Per camera height: distance from the post, height, downward pitch (radians), offset of the image (px).
    cameras: tuple = ((0.528, 0.946, 0.917, -1.63), (0.648, 0.831, 0.696, 1.06), (0.768, 0.646, 0.360, -2.56))
    floor: float = 52 / 255
    ring: tuple = (1.0, 1.33, 0.0)  # inner and outer radius, y of its center
    ring_end: float = 2.614  # azimuth (radians) where the ring's next color begins
    ring_light: float = 4.48  # the ring's colors are as seen where the lamp is nearest
    ring_colors: tuple = ((105, 79, 148), (73, 101, 97), (113, 80, 89), (96, 105, 123))  # the last: next only
    lights: tuple = ((0.02, 0.5, 2.0, 1.6), (-0.02, -2.9, 2.2, 8.0), (2.0, -1.5, 1.5, 2.0))  # x, y, z, power
    horizontal: tuple = (-0.30, 3.79)  # first and last azimuth of the arm, radians
    vertical: tuple = (0.08, 3.06)  # first and last elevation; beyond pi / 2 the arm points the other way
    joint_height: float = 0.367  # where the arm turns
    arm_length: float = 0.307  # from the joint to the object's center
    arm_offset: float = 0.040  # the arm is mounted on the side of the joint
    arm_radius: float = 0.010
    arm_gray: tuple = (0.43, 0.17)  # standing, and how much brighter lying
    clamp: tuple = (0.07, 0.022, 0.15)  # of the arm's beginning: length, radius, how much brighter it is
    spin: float = 0.0  # of the object about the arm, radians
    small: float = 0.70  # size of a small object relative to a large one
    # Of each shape: radius (or half its side), and half its height.
    radii: tuple = (0.088, 0.068, 0.067, 0.060, 0.085, 0.068)
    heights: tuple = (0.085, 0.068, 0.063, 0.063, 0.085, 0.068)
    colors: tuple = (  # white, green, red, blue, brown, olive
        (236, 236, 236), (44, 172, 43), (255, 0, 0), (48, 125, 238), (92, 51, 35), (140, 136, 48),
    )  # fmt: skip
    base: tuple = (0.098, 0.060, 0.68, 0.45)  # radius of disc and hub, their reflectance
    body: tuple = (0.044, 0.340, 0.42)  # radius, height, reflectance
    bracket: tuple = (0.0, -0.062, 0.030, 0.75)  # ahead of the axis, aside, half-height, reflectance
    head: tuple = (0.040, 0.026, 0.74)  # half side, half-height, reflectance
    elbow: tuple = (0.026, 0.035, 0.62)  # radius, distance from the axis, reflectance


class View(NamedTuple):
    """A pinhole camera: columns of `axes` are the image's right, down and forward directions."""

    eye: jax.Array  # [3]
    axes: jax.Array  # [3, 3]
    focal: jax.Array  # px
    offset: jax.Array  # of the image to the right, px


@functools.lru_cache(maxsize=1)
def procedural() -> Dataset:
    """Returns procedural MPI3D toy: seven factors, 1,036,800 combinations, images [64, 64, 3]; deterministic."""
    return Dataset(
        name="mpi3d",
        source="procedural",
        factor_names=MPI3D.factor_names,
        factor_sizes=MPI3D.factor_sizes,
        image_shape=(SIZE, SIZE, 3),
        render_one=render_one,
        arrays=jax.jit(_tables)(),
        provenance=(("variant", "toy"), ("drawn_by", __name__)),
    )


def render_one(arrays: dict[str, jax.Array], factors: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the image [64, 64, 3] of `factors` [7]; the key is not used: factors determine the image."""
    del key
    *_, camera, background, horizontal, _ = factors
    empty, post = arrays["background"][camera, background], arrays["post"][camera, horizontal]
    return compose(ArmScene(), factors, empty, post)


def compose(scene: ArmScene, factors: jax.Array, empty: jax.Array, post: jax.Array) -> jax.Array:
    """Returns the image [64, 64, 3]: arm and object painted over the empty floor, before or behind the post's layer."""
    color, shape, size, camera, _, horizontal, vertical = factors
    view = _view(scene, camera)
    axis, side = arm(scene, horizontal, vertical)
    joint = jnp.stack([0.0, 0.0, scene.joint_height]) + scene.arm_offset * side
    center = joint + scene.arm_length * axis
    scale = jnp.where(size == 0, scene.small, 1.0)
    solid = jax.tree.map(lambda table: table[shape], solids(scene.radii, scene.heights))
    albedo = jnp.array(scene.colors, jnp.float32)[color] / 255

    start, carried = _object_layer(scene, view, solid, scale, center, axis, side, albedo)
    rod = _arm_layer(scene, view, joint, center - scale * jnp.stack(scene.heights)[shape] * axis, axis)
    # Painter's order: the object hides the post when it is nearer to the camera than the joint.
    nearer = jnp.sum((center - view.eye) ** 2) < jnp.sum((joint - view.eye) ** 2)
    post_start = (POST_ROWS[0], POST_COLS[0])
    image = _paint(empty, carried * (1 - nearer), start)
    image = _paint(image, post * nearer, post_start)
    image = _paint(image, rod, (0, 0))
    image = _paint(image, post * (1 - nearer), post_start)
    return _paint(image, carried * nearer, start)


def arm(scene: ArmScene, horizontal: jax.Array, vertical: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Returns unit vectors [3] along the arm and to the side it is mounted on, at positions 0..39 of the axes."""
    azimuth, elevation = (
        first + (last - first) * position / STEPS
        for (first, last), position in ((scene.horizontal, horizontal), (scene.vertical, vertical))
    )
    flat = jnp.cos(elevation)
    along = jnp.stack([flat * jnp.cos(azimuth), flat * jnp.sin(azimuth), jnp.sin(elevation)])
    return along, jnp.stack([-jnp.sin(azimuth), jnp.cos(azimuth), jnp.zeros(())])


def project(view: View, point: jax.Array) -> jax.Array:
    """Returns image position (x, y) in px, y down, of `point` [3]."""
    right, down, forward = (point - view.eye) @ view.axes
    return jnp.stack([SIZE / 2 + view.offset, SIZE / 2]) + jnp.stack([right, down]) * view.focal / forward


def _look(scene, view, solid, axes, scale, center, x, y):
    """(distance, infinite for a miss; brightness), each [N], of a white solid at image positions x, y [1, N].

    The solid is placed in the room: rows of `axes` [3, 3] are its own axes, `scale` [3] stretches them.
    """
    image_x, image_y = (x - SIZE / 2 - view.offset) / view.focal, (y - SIZE / 2) / view.focal
    to_local = axes / scale[:, None]
    right, down, forward = (to_local @ view.axes).T[:, :, None]
    local = forward + right * image_x + down * image_y  # [3, N]
    distance, normal = trace(solid, to_local @ (view.eye - center), [row[None] for row in local])

    right, down, forward = view.axes.T
    reach = jnp.where(jnp.isfinite(distance), distance, 0.0)
    world = forward[:, None] + right[:, None] * image_x + down[:, None] * image_y
    point = [eye + reach * step for eye, step in zip(view.eye, world, strict=True)]
    outward = [sum(to_local[i, j] * normal[i] for i in range(3)) for j in range(3)]
    light = shade(scene, outward, point)
    return distance, jnp.where(jnp.isfinite(distance), light, 0.0)


def shade(scene: ArmScene, normal: list[Any], point: list[jax.Array]) -> Any:
    """Returns brightness of a white matte surface at `point` under two point lights; `normal` of any length."""
    total = 0.0
    length = jax.lax.rsqrt(jnp.maximum(sum(n * n for n in normal), 1e-12))
    for *lamp, power in scene.lights:
        towards = [lamp_axis - axis for lamp_axis, axis in zip(lamp, point, strict=True)]
        inverse = jax.lax.rsqrt(sum(t * t for t in towards))
        facing = sum(n * t for n, t in zip(normal, towards, strict=True)) * length
        total = total + power * jnp.maximum(facing, 0.0) * inverse * inverse * inverse
    return total


def _object_layer(scene, view, solid, scale, center, axis, side, albedo):
    """(start row and column, premultiplied RGBA [WINDOW, WINDOW, 4]) of the carried object."""
    start = jnp.clip(jnp.round(project(view, center)[::-1] - WINDOW / 2), 0, SIZE - WINDOW)
    y, x = _samples(WINDOW, WINDOW, SAMPLES)
    across = jnp.cross(axis, side)
    cos, sin = jnp.cos(scene.spin), jnp.sin(scene.spin)
    axes = jnp.stack([cos * side + sin * across, cos * across - sin * side, axis])
    looked = _look(scene, view, solid, axes, scale * jnp.ones(3), center, x + start[1], y + start[0])
    distance, light = jax.lax.optimization_barrier(looked)  # or XLA traces once per color channel
    alpha = _average(jnp.isfinite(distance).astype(jnp.float32), WINDOW, WINDOW, SAMPLES)
    light = _average(jnp.minimum(light, 1.0), WINDOW, WINDOW, SAMPLES)
    layer = jnp.concatenate([light[..., None] * albedo[None, None], alpha[..., None]], -1)
    return (start[0].astype(jnp.int32), start[1].astype(jnp.int32)), layer


def _arm_layer(scene, view, start, end, axis):
    """Returns premultiplied RGBA [64, 64, 4] of the arm: a thin rod in a clamp, brighter the more it lies flat."""
    length, clamp_radius, clamp_gray = scene.clamp
    standing, lying = scene.arm_gray
    gray = standing + lying * jnp.sqrt(jnp.maximum(1 - axis[2] ** 2, 0.0))
    rod = _rod(view, start, end, scene.arm_radius)[..., None]
    clamp = _rod(view, start, start + length * axis, clamp_radius)[..., None]
    light = (1 - clamp) * rod * gray + clamp * (gray + clamp_gray)
    return jnp.concatenate([light, light, light, clamp + (1 - clamp) * rod], -1)


def _rod(view, start, end, radius):
    """How much of each pixel [64, 64] a rod covers."""
    a, b = project(view, start), project(view, end)
    y, x = (positions.reshape(SIZE, SIZE) for positions in _samples(SIZE, SIZE, 1))
    along = b - a
    position = ((x - a[0]) * along[0] + (y - a[1]) * along[1]) / jnp.maximum(along @ along, 1e-6)
    position = jnp.clip(position, 0.0, 1.0)
    distance = jnp.sqrt((x - a[0] - position * along[0]) ** 2 + (y - a[1] - position * along[1]) ** 2)
    depth = (0.5 * (start + end) - view.eye) @ view.axes[:, 2]
    return jnp.clip(radius * view.focal / depth + 0.5 - distance, 0.0, 1.0)


def _tables() -> dict[str, jax.Array]:
    """The parts of the picture without an object, for every camera, background and azimuth."""
    scene = ArmScene()
    cameras, colors, azimuths = (jnp.arange(n) for n in (3, 3, STEPS + 1))
    return {
        "background": jax.lax.map(lambda c: jax.lax.map(lambda b: background(scene, c, b), colors), cameras),
        "post": jax.lax.map(lambda c: jax.lax.map(lambda h: post_layer(scene, c, h), azimuths), cameras),
    }


def background(scene: ArmScene, camera: jax.Array, color: jax.Array) -> jax.Array:
    """[64, 64, 3]: floor and ring; past `ring_end` the ring wears the next color."""
    count = 4
    view = _view(scene, camera)
    y, x = _samples(SIZE, SIZE, count)
    right, down, forward = view.axes.T[:, :, None]
    offset = SIZE / 2 + view.offset
    direction = forward + right * (x - offset) / view.focal + down * (y - SIZE / 2) / view.focal
    point = view.eye[:, None] + view.eye[2] / jnp.maximum(-direction[2:], 1e-3) * direction
    inner, outer, middle = scene.ring
    radius = jnp.sqrt(point[0] ** 2 + (point[1] - middle) ** 2)
    next_color = (jnp.arctan2(point[1], point[0]) > scene.ring_end).astype(jnp.int32)
    *lamp, _ = scene.lights[0]
    squared = sum((p - axis) ** 2 for p, axis in zip(point, lamp, strict=True))
    light = scene.ring_light * lamp[2] / squared**1.5
    ring = jnp.array(scene.ring_colors, jnp.float32)[color + next_color] / 255 * light[:, None]
    on_ring = (radius > inner) & (radius < outer) & (direction[2] < -1e-3)
    return _average(jnp.where(on_ring[:, None], ring, scene.floor), SIZE, SIZE, count)


def post_layer(scene: ArmScene, camera: jax.Array, horizontal: jax.Array) -> jax.Array:
    """Returns premultiplied RGBA [rows, columns, 4] of the post: disc, hub, body, bracket, head and elbow."""
    view = _view(scene, camera)
    y, x = _samples(POST_ROWS[1], POST_COLS[1], SAMPLES)
    x, y = x + POST_COLS[0], y + POST_ROWS[0]
    ahead, side = arm(scene._replace(vertical=(0.0, 0.0)), horizontal, 0)
    up = jnp.array([0.0, 0.0, 1.0])
    unit = solids((1.0,) * 6, (1.0,) * 6)
    cube, cylinder = (jax.tree.map(lambda table, i=i: table[i], unit) for i in (1, 2))
    upright, lying = jnp.stack([ahead, side, up]), jnp.stack([up, ahead, side])
    disc, hub, disc_gray, hub_gray = scene.base
    radius, height, body_gray = scene.body
    forth, aside, bracket, bracket_gray = scene.bracket
    head, head_height, head_gray = scene.head
    elbow, elbow_aside, elbow_gray = scene.elbow
    joint = scene.joint_height * up
    bodies = (  # solid, axes, half-extents, center, reflectance
        (cylinder, upright, (disc, disc, 0.004), 0.004 * up, disc_gray),
        (cylinder, upright, (hub, hub, 0.010), 0.010 * up, hub_gray),
        (cylinder, upright, (radius, radius, height / 2), height / 2 * up, body_gray),
        (cube, upright, (0.010, 0.016, bracket), forth * ahead + aside * side + bracket * up, bracket_gray),
        (cube, upright, (head, head, head_height), joint, head_gray),
        (cylinder, lying, (elbow, elbow, 0.018), joint + elbow_aside * side, elbow_gray),
    )
    nearest, gray = jnp.full(x.size, jnp.inf), jnp.zeros(x.size)
    for solid, axes, extents, center, reflectance in bodies:
        distance, light = _look(scene, view, solid, axes, jnp.stack(extents), center, x, y)
        gray = jnp.where(distance < nearest, reflectance * light, gray)
        nearest = jnp.minimum(nearest, distance)
    layer = jnp.stack([gray] * 3 + [jnp.isfinite(nearest).astype(jnp.float32)], -1)
    return _average(layer, POST_ROWS[1], POST_COLS[1], SAMPLES)


def _view(scene: ArmScene, camera: jax.Array) -> View:
    distance, height, pitch, offset = jnp.array(scene.cameras)[camera]
    cos, sin, zero, one = jnp.cos(pitch), jnp.sin(pitch), jnp.zeros(()), jnp.ones(())
    columns = jnp.stack([one, zero, zero, zero, -sin, cos, zero, -cos, -sin]).reshape(3, 3)
    return View(jnp.stack([zero, -distance, height]), columns, jnp.asarray(scene.focal), offset)


def _paint(image, layer, start):
    """`image` with a premultiplied RGBA layer [h, w, 4] over its window at `start` (row, column)."""
    corner = (*start, 0)
    window = jax.lax.dynamic_slice(image, corner, (*layer.shape[:2], 3))
    return jax.lax.dynamic_update_slice(image, window * (1 - layer[..., 3:]) + layer[..., :3], corner)


def _samples(height, width, count):
    """(rows, columns) [1, N] in px of count x count samples in each pixel of an image.

    Constants: XLA would else divide each sample's index by the width, in every loop over samples.
    """
    rows, columns = (((np.arange(size * count) + 0.5) / count).astype(np.float32) for size in (height, width))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return jnp.asarray(y.reshape(1, -1)), jnp.asarray(x.reshape(1, -1))


def _average(samples, height, width, count):
    """Mean over each pixel's samples: [N, ...] -> [height, width, ...]."""
    return samples.reshape(height, count, width, count, *samples.shape[1:]).mean((1, 3))
