"""3DShapes, ray-traced: a floor, three walls, one primitive, two lights and one hard shadow.

What the rays meet depends on (scale, shape, orientation) only, so they are traced once per combination into
tables of coverage and shade; an image then colors its three surfaces by hue and lets them saturate.
Camera, sizes and lights were fitted to real frames (github.com/google-deepmind/3d-shapes).
Lengths are in units of a tenth of the room's half-width; z points up; the room's center is the origin.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.data.records import SHAPES3D

CANVAS = 64  # px
SUPERSAMPLE = 3  # rays per pixel and axis
STEP = 2.0**-14  # of the tables, whose numbers are -0.2 to 1.7: int16, since not every processor converts float16
SKY_COLOR = np.array([153, 226, 249], np.float32) / 255
UP = np.array([0, 0, 1], np.float32)
FAR = 1e4  # the distance of what a ray does not meet
FLOOR, BACK_WALL, SIDE_WALL, SKY = range(4)  # materials; reflectances are in this order, the object's last


class RoomScene(NamedTuple):
    """Everything that was fitted. Fields may be traced, so that a scene can be fitted by any optimizer."""

    focal_length: float = 78.8802  # px
    camera_distance: float = 10.0  # from the room's center, around which the camera turns
    camera_height: float = 1.9047
    camera_pitch: float = -0.0145  # radians, downwards
    max_yaw: float = 0.5354  # radians; orientation 0 is -max_yaw, 14 is +max_yaw
    side_wall: float = 10.4255  # |x| of the left and right walls
    back_wall: float = 10.4446  # y of the back wall
    wall_height: float = 5.9133
    object_distance: float = 7.5517  # from the camera, on its axis
    radius: tuple[float, ...] = (0.6954, 0.7395, 0.8485, 0.6407)  # at scale 0; for the cube half a side
    height: tuple[float, ...] = (1.4033, 1.5089, 1.648, 2.5955)  # at scale 0
    growth: float = 0.6677  # of the object from first to last scale
    key_light: tuple[float, ...] = (-4.9795, -0.6548, 22.7311)  # a spot; it casts the shadow
    target: tuple[float, ...] = (-5.0666, 0.4402, 0.0)  # what the spot points at
    spot: float = 9.4854  # exponent of its cone
    ambient: float = 0.3087
    diffuse: tuple[float, ...] = (0.892, 0.4157)  # of the key light and of one at the camera
    specular: tuple[float, ...] = (0.1453, 0.0036)  # white, on the object only
    reflectance: tuple[float, ...] = (1.0, 1.2749, 1.0169, 1.3298)  # floor, back wall, side wall, object


class Ray(NamedTuple):
    """A half-line from the camera through a pixel."""

    origin: Any  # [3]
    direction: jax.Array  # [3], unit length


class Hit(NamedTuple):
    """Where a ray first meets a surface, and which way that faces."""

    distance: jax.Array  # FAR where the ray meets nothing
    normal: jax.Array  # [3]


def procedural() -> Dataset:
    """Returns procedural 3DShapes: six factors, 480,000 combinations, images [64, 64, 3]."""
    room, solid = _tables()
    return Dataset(
        name="3dshapes",
        source="procedural",
        factor_names=SHAPES3D.factor_names,
        factor_sizes=SHAPES3D.factor_sizes,
        image_shape=(CANVAS, CANVAS, 3),
        render_one=render_one,
        arrays={"room": jnp.asarray(room), "object": jnp.asarray(solid)},
        provenance=(("drawn_by", __name__),),
    )


def render_one(arrays: dict[str, jax.Array], factors: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the image [64, 64, 3] of factors [6]; the key is not used: factors determine the image."""
    del key
    floor_hue, wall_hue, object_hue, scale, shape, orientation = factors
    room = STEP * arrays["room"][orientation].astype(jnp.float32)
    solid = STEP * arrays["object"][scale, shape, orientation].astype(jnp.float32)
    floor, floor_shade, wall, wall_shade = (room[i][:, :, None] for i in range(4))
    covered, shade, highlight, lit = (solid[i][:, :, None] for i in range(4))
    sky = (1 - floor - wall) * jnp.asarray(SKY_COLOR)[None, None, :]
    behind = sky + _paint(floor_hue, floor, floor_shade * lit) + _paint(wall_hue, wall, wall_shade * lit)
    image = (1 - covered) * behind + _paint(object_hue, covered, shade, highlight)
    return jnp.clip(image, 0.0, 1.0)


def hue_to_rgb(hue: jax.Array) -> jax.Array:
    """Returns RGB [3] of hue index 0..9 (hue / 10 of a turn) at full saturation and value."""
    sixth = hue.astype(jnp.float32) * 0.6
    channels = jnp.stack([jnp.abs(sixth - 3) - 1, 2 - jnp.abs(sixth - 2), 2 - jnp.abs(sixth - 4)])
    return jnp.clip(channels, 0.0, 1.0)


def _paint(hue: jax.Array, coverage: jax.Array, shade: jax.Array, highlight: Any = 0.0) -> jax.Array:
    """Light [H, W, 3] from a surface; a channel saturates at the coverage [H, W, 1] of its pixel."""
    return jnp.minimum(hue_to_rgb(hue)[None, None, :] * shade + highlight, coverage)


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Room [orientation, 4, 64, 64] and object [scale, shape, orientation, 4, 64, 64], in `STEP`s: see `layers`."""
    *_, scales, shapes, turns = SHAPES3D.factor_sizes
    views = np.stack(np.meshgrid(range(scales), range(shapes), range(turns), indexing="ij"), -1)
    trace_all = jax.jit(lambda rows: jax.lax.map(lambda row: layers(RoomScene(), *row), rows))
    traced = trace_all(jnp.asarray(views.reshape(-1, 3)))
    room, solid = (np.rint(np.asarray(t) / STEP).astype(np.int16) for t in traced)
    return room[:turns], solid.reshape(scales, shapes, turns, *solid.shape[1:])


def layers(scene: RoomScene, scale: jax.Array, shape: jax.Array, orientation: Any) -> tuple[jax.Array, ...]:
    """Returns one view, filtered from each pixel's rays: two arrays [4, 64, 64], in the order of `trace`."""
    steps = ((jnp.arange(CANVAS * SUPERSAMPLE) + 0.5) / SUPERSAMPLE - CANVAS / 2) / scene.focal_length

    def pixel(down: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        return trace(scene, scale, shape, *camera(scene, orientation, right, down))

    samples = jax.vmap(jax.vmap(pixel, (None, 0)), (0, None))(steps, steps)
    weights = jnp.asarray(_lanczos(SUPERSAMPLE))
    return tuple(jnp.einsum("yi,xj,ijk->kyx", weights, weights, sample) for sample in samples)


def _lanczos(samples: int) -> np.ndarray:
    """Weights [64, 64 samples] of the Lanczos-3 filter, whose ringing the edges of real frames show."""
    at = (np.arange(CANVAS * samples) + 0.5) / samples
    away = at[None, :] - (np.arange(CANVAS)[:, None] + 0.5)
    weights = np.where(np.abs(away) < 3, np.sinc(away) * np.sinc(away / 3), 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def camera(scene: RoomScene, orientation: Any, right: jax.Array, down: jax.Array) -> tuple[Ray, jax.Array]:
    """The ray through a point of the canvas, in focal lengths from its center, and the object's place [3]."""
    yaw, zero = scene.max_yaw * (orientation / 7 - 1), jnp.zeros(())
    ahead = jnp.stack([-jnp.sin(yaw), jnp.cos(yaw), zero])
    rightwards = jnp.stack([jnp.cos(yaw), jnp.sin(yaw), zero])
    cos, sin = jnp.cos(scene.camera_pitch), jnp.sin(scene.camera_pitch)
    forward, downwards = cos * ahead - sin * UP, -cos * UP - sin * ahead
    direction = _unit(forward + right * rightwards + down * downwards)
    place = (scene.object_distance - scene.camera_distance) * ahead
    return Ray(scene.camera_height * UP - scene.camera_distance * ahead, direction), place


def trace(scene: RoomScene, scale: Any, shape: Any, ray: Ray, place: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What one ray sees.

    Returns the room without its object [4]: coverage and coverage times shade, of floor and of walls; and the
    object [4]: its coverage, coverage times shade, its highlight, and the fraction of light that its shadow
    leaves to the room.
    """
    room, material = hit_room(scene, ray)
    on_room = ray.origin + room.distance * ray.direction
    diffuse, unlit, _ = shading(scene, on_room, room.normal, ray.origin)
    to_light = Ray(on_room + 1e-3 * room.normal - place, _unit(jnp.asarray(scene.key_light) - on_room))
    shadowed = hit_object(scene, scale, shape, to_light).distance < FAR
    lit = jnp.where(shadowed, unlit / diffuse, 1.0)

    solid = hit_object(scene, scale, shape, Ray(ray.origin - place, ray.direction))
    covered = (solid.distance < room.distance).astype(jnp.float32)
    on_object = ray.origin + solid.distance * ray.direction
    object_diffuse, _, highlight = shading(scene, on_object, solid.normal, ray.origin)
    floor = (material == FLOOR).astype(jnp.float32)
    wall = ((material == BACK_WALL) | (material == SIDE_WALL)).astype(jnp.float32)
    reflectance = jnp.asarray(scene.reflectance)
    along = jnp.where(material == SIDE_WALL, on_room[1], on_room[0])
    texture = jnp.where(wall > 0, wall_texture(along, on_room[2], scene.wall_height), 1.0)
    shade = diffuse * reflectance[jnp.minimum(material, SIDE_WALL)] * texture
    return (
        jnp.stack([floor, floor * shade, wall, wall * shade]),
        jnp.stack([covered, covered * object_diffuse * reflectance[-1], covered * highlight, lit]),
    )


def hit_room(scene: RoomScene, ray: Ray) -> tuple[Hit, jax.Array]:
    """The nearest of floor and walls, and its material, which is SKY where the ray passes over the walls."""
    (x, y, z), (dx, dy, dz) = ray.origin, _away_from_zero(ray.direction)
    floor = jnp.where(dz < 0, -z / dz, FAR)
    side = (jnp.sign(dx) * scene.side_wall - x) / dx
    back = jnp.where(dy > 0, (scene.back_wall - y) / dy, FAR)
    wall = jnp.minimum(side, back)
    is_floor, is_side, is_over = floor <= wall, side < back, z + wall * dz > scene.wall_height
    material = jnp.where(is_floor, FLOOR, jnp.where(is_over, SKY, jnp.where(is_side, SIDE_WALL, BACK_WALL)))
    facing_wall = jnp.where(is_side, jnp.sign(dx) * jnp.array([-1.0, 0.0, 0.0]), jnp.array([0.0, -1.0, 0.0]))
    distance = jnp.where(material == SKY, FAR, jnp.minimum(floor, wall))
    return Hit(distance, jnp.where(is_floor, UP, facing_wall)), material


def wall_texture(along: jax.Array, up: jax.Array, tile: Any) -> jax.Array:
    """Factor on a wall's brightness: faint hexagons, and one slanting dark blotch per square tile."""
    u, v, turn = along / tile, up / tile, 2 * jnp.pi
    waves = jnp.cos(turn * (5 * u + 8 * v)) + jnp.cos(turn * (5 * u - 8 * v)) + jnp.cos(turn * 10 * u) / 2
    u, v = jnp.mod(u - 0.08 + 0.5, 1) - 0.5, v - 0.49
    length, width = (0.6 * u - 0.8 * v) / 0.21, (0.8 * u + 0.6 * v) / 0.083
    return 1 + 0.012 * waves - 0.06 * jnp.exp(-(length**4) - width**4)


def hit_object(scene: RoomScene, scale: jax.Array, shape: jax.Array, ray: Ray) -> Hit:
    """The object, standing at the origin of the ray's coordinates and turned with the room."""
    size = 1 + scene.growth * scale / 7
    radius, height = (jnp.asarray(v)[shape] * size for v in (scene.radius, scene.height))
    return jax.lax.switch(shape, (_hit_box, _hit_cylinder, _hit_sphere, _hit_capsule), radius, height, ray)


def shading(scene: RoomScene, point: jax.Array, normal: jax.Array, eye: jax.Array) -> tuple[Any, ...]:
    """Diffuse light at a point, the same without the key light, and the highlight.

    As in fixed-function OpenGL with no shininess, a highlight is all or nothing: what faces a light has it.
    """
    key_light = jnp.asarray(scene.key_light)
    rays = [_unit(light - point) for light in (key_light, eye)]
    off_axis = jnp.sum(rays[0] * _unit(key_light - jnp.asarray(scene.target)))
    cone = (jnp.maximum(off_axis, 1e-3) ** scene.spot, 1.0)
    cosines = [jnp.maximum(jnp.sum(normal * ray), 0.0) for ray in rays]
    diffuse = [a * b * c for a, b, c in zip(scene.diffuse, cone, cosines, strict=True)]
    highlight = [a * b * (c > 0) for a, b, c in zip(scene.specular, cone, cosines, strict=True)]
    unlit = scene.ambient + diffuse[1]
    return diffuse[0] + unlit, unlit, sum(highlight)


def _hit_box(half: jax.Array, height: jax.Array, ray: Ray) -> Hit:
    direction = _away_from_zero(ray.direction)
    low, high = jnp.stack([-half, -half, jnp.zeros(())]), jnp.stack([half, half, height])
    first, second = (low - ray.origin) / direction, (high - ray.origin) / direction
    entries = jnp.minimum(first, second)
    enter, leave = jnp.max(entries), jnp.min(jnp.maximum(first, second))
    normal = -jnp.sign(direction) * jax.nn.one_hot(jnp.argmax(entries), 3)
    return Hit(jnp.where((enter < leave) & (enter > 0), enter, FAR), normal)


def _hit_cylinder(radius: jax.Array, height: jax.Array, ray: Ray) -> Hit:
    side = _cylinder_side(radius, jnp.zeros(()), height, ray)
    lid = (height - ray.origin[2]) / _away_from_zero(ray.direction)[2]
    on_lid = ray.origin + lid * ray.direction
    lid = jnp.where((lid > 0) & (jnp.sum(on_lid[:2] ** 2) < radius**2), lid, FAR)
    outwards = (ray.origin + side * ray.direction) * jnp.array([1.0, 1.0, 0.0]) / radius
    return Hit(jnp.minimum(side, lid), jnp.where(lid < side, UP, outwards))


def _hit_sphere(radius: jax.Array, height: jax.Array, ray: Ray) -> Hit:
    del height
    distance = _ball(radius, radius, ray)
    return Hit(distance, (ray.origin + distance * ray.direction - radius * UP) / radius)


def _hit_capsule(radius: jax.Array, height: jax.Array, ray: Ray) -> Hit:
    low, high = radius, height - radius
    ends = jnp.minimum(_ball(radius, low, ray), _ball(radius, high, ray))
    distance = jnp.minimum(ends, _cylinder_side(radius, low, high, ray))
    point = ray.origin + distance * ray.direction
    return Hit(distance, (point - jnp.clip(point[2], low, high) * UP) / radius)


def _ball(radius: jax.Array, center_height: jax.Array, ray: Ray) -> jax.Array:
    """Distance to a sphere on the z axis."""
    offset = ray.origin - center_height * UP
    along = jnp.sum(ray.direction * offset)
    inside = along**2 - jnp.sum(offset**2) + radius**2
    distance = -along - jnp.sqrt(jnp.maximum(inside, 0.0))
    return jnp.where((inside > 0) & (distance > 0), distance, FAR)


def _cylinder_side(radius: jax.Array, low: jax.Array, high: jax.Array, ray: Ray) -> jax.Array:
    """Distance to the upright cylinder around the z axis between two heights, without its lids."""
    flat, offset = ray.direction[:2], ray.origin[:2]
    square, along = jnp.sum(flat**2), jnp.sum(flat * offset)
    inside = along**2 - square * (jnp.sum(offset**2) - radius**2)
    distance = (-along - jnp.sqrt(jnp.maximum(inside, 0.0))) / jnp.maximum(square, 1e-9)
    z = ray.origin[2] + distance * ray.direction[2]
    return jnp.where((inside > 0) & (distance > 0) & (z > low) & (z < high), distance, FAR)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.linalg.norm(vector)


def _away_from_zero(direction: jax.Array) -> jax.Array:
    """A direction whose components can be divided by."""
    return jnp.where(jnp.abs(direction) < 1e-6, 1e-6, direction)
