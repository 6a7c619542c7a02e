"""SmallNORB in its likeness: toys of five categories on a gray table, seen from above under six lightings.

A toy is a handful of bodies (_toys.py) that parallel rays meet (_rays.py); shadows use the same algebra, with the
lamp's direction in place of the viewer's. Ten instances per category are drawn from a seed; which of them an
image shows is exogenous (drawn from the key), as instance is not a factor of SmallNORB.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.data.procedural._rays import Hits, Rays, kinds, quadratic
from causalvae.data.procedural._toys import INSTANCES, SEED, SIZE, WINDOW, Bodies, Toy, all_toys
from causalvae.data.records import SMALLNORB

CATEGORIES = ("animal", "human", "airplane", "truck", "car")
PATCH_LIMIT = 64  # surface patches of a toy, at most
NOISE = 1.3 / 255  # standard deviation of the sensor noise
REFLECTANCE = 0.62
SHADOW_STRENGTH = 0.75


class Lighting(NamedTuple):
    """Two distant lamps, sky light and the table's gray, fixed in the room (x right, y away, z up)."""

    key: Any  # [3] unit vector to the lamp
    key_power: Any
    second: Any  # [3]
    second_power: Any
    ambient: Any
    background: Any


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
    """Returns the SmallNORB likeness: 4,860 combinations of factors, and an instance drawn from the key."""
    lighting = Lighting(*(np.array(column, np.float32) for column in zip(*LIGHTINGS, strict=True)))
    return Dataset(
        name="smallnorb",
        source="procedural",
        factor_names=SMALLNORB.factor_names,
        factor_sizes=SMALLNORB.factor_sizes,
        image_shape=(SIZE, SIZE, 1),
        render_one=render_one,
        arrays=jax.tree.map(
            jnp.asarray, {"toys": all_toys(), "lightings": lighting._replace(background=lighting.background / 255)}
        ),
        deterministic=False,
        provenance=(("instances", INSTANCES), ("seed", SEED), ("drawn_by", __name__)),
    )


def render_one(arrays: dict, factors: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the image [64, 64, 1] in [0, 1] of `factors` [4]; `key` draws the instance (0-9) and the sensor noise."""
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
    """Returns noiseless image [64, 64] of `factors` [4] for a given instance (0-9) of its category."""
    # Without barriers XLA draws the instance and works the scene out anew wherever a pixel needs them.
    toy, lighting, camera = jax.lax.optimization_barrier(_scene(arrays, factors, instance))
    layers = *_toy_layer(toy, camera, lighting), _shadow(toy, camera, lighting)
    covered, light, shadow = jax.lax.optimization_barrier(layers)
    table = lighting.background * (1 - shadow)
    return table + covered * (light - table)


def coverage(arrays: dict, factors: jax.Array, instance: jax.Array) -> jax.Array:
    """Returns the part [64, 64] of each pixel that the toy covers."""
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


def _toy_layer(toy: Toy, camera: jax.Array, lighting: Lighting) -> tuple[jax.Array, jax.Array]:
    """(coverage, gray of the visible surface), each [64, 64]; coverage is antialiased."""
    x, y = _pixels(WINDOW, WINDOW)
    target = toy.middle * jnp.array([0.0, 0.0, 1.0])
    rays = Rays(target, camera[0] / toy.scale, camera[1] / toy.scale, camera[2])
    inside, nearest, tables, offset = [], [], [], 0
    for hits_of, bodies in kinds(toy):
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
    covered = jnp.clip(inside + 0.5, 0.0, 1.0)
    covered, light = (jnp.pad(layer.reshape(WINDOW, WINDOW), margin) for layer in (covered, light))
    return covered, light


def _nearest(hits: Hits, offset: int) -> jax.Array:
    """Depth and patch of the nearest body in one sortable integer [N]: a minimum instead of an argmin.

    The bits of a positive float sort like the float; its lowest bits make room for the patch.
    """
    bits = jax.lax.bitcast_convert_type(hits.depth + 32.0, jnp.int32) & ~(PATCH_LIMIT - 1)
    covered = hits.inside > -0.5
    return jnp.min(jnp.where(covered, bits | (hits.patch + offset), jnp.iinfo(jnp.int32).max), 0)


def _brightness(table: jax.Array, x: jax.Array, y: jax.Array, lighting: Lighting) -> jax.Array:
    """Gray [N] of a matte surface under two lamps and the sky, from each pixel's row of patches [18, N]."""
    reach = jnp.sqrt(jnp.maximum(quadratic(table[12:].T, x[:, None], y[:, None])[:, 0], 0.0))
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
        inside = [jnp.max(hits_of(bodies, rays, x, y)[0].inside, 0) for hits_of, bodies in kinds(toy)]
        shadow = jax.nn.sigmoid(functools.reduce(jnp.maximum, inside) / softness)
        return jax.image.resize(shadow.reshape(count, count), (SIZE, SIZE), "linear")

    kept = (
        lighting.key_power * cast(lighting.key, 1.2, SIZE // 2)
        + lighting.second_power * cast(lighting.second, 1.8, 5 * SIZE // 16)
        + lighting.ambient * cast(up, 2.5, SIZE // 4)
    )
    return SHADOW_STRENGTH * kept / (lighting.key_power + lighting.second_power + lighting.ambient)
