"""dSprites, drawn: polygons snapped to 1/256 px, sampled at pixel centers, no antialiasing.

Geometry and raster rule were fitted to real frames (github.com/google-deepmind/dsprites-dataset): of 46,080 of them
all but 6 are drawn to the pixel, and those differ in one.
Every vertex is snapped on the host in float64, so that the raster is exact int32 arithmetic on any device.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.data.records import DSPRITES

CANVAS = 64  # px
UNIT = 256  # sub-pixel positions per px: the grid that vertices are snapped to
WINDOW = 32  # rows that can hold a shape, whose radius is at most 13.6 px
MAX_VERTICES = 150


def procedural(strides: tuple[int, ...] = (1, 1, 1, 1, 1)) -> Dataset:
    """Returns procedural dSprites. `strides` keeps every n-th value of (shape, scale, orientation, posX, posY).

    The constant sixth factor of the real files, color, is dropped.
    """
    full = DSPRITES.factor_sizes
    if len(strides) != len(full) or any(int(stride) != stride or stride < 1 for stride in strides):
        raise ValueError(f"strides must be {len(full)} positive integers, one per factor, not {strides!r}")
    sizes = tuple(math.ceil(size / stride) for size, stride in zip(full, strides, strict=True))
    x, y = _vertex_tables()
    shape, scale, turn, pos_x, pos_y = (slice(None, None, stride) for stride in strides)
    return Dataset(
        name="dsprites",
        source="procedural",
        factor_names=DSPRITES.factor_names,
        factor_sizes=sizes,
        image_shape=(CANVAS, CANVAS, 1),
        render_one=render_one,
        arrays={
            "x": jnp.asarray(x[shape, scale, turn, pos_x]),
            "y": jnp.asarray(y[shape, scale, turn, pos_y]),
        },
        provenance=(("strides", tuple(strides)), ("drawn_by", __name__)),
    )


def render_one(arrays: dict[str, jax.Array], factors: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the image [64, 64, 1], 0 or 1, of factors [5]; the key is not used: factors determine the image."""
    del key
    shape, scale, turn, pos_x, pos_y = factors
    x = arrays["x"][shape, scale, turn, pos_x].astype(jnp.int32)
    y = arrays["y"][shape, scale, turn, pos_y].astype(jnp.int32)
    return fill_polygon(x, y)[:, :, None]


def fill_polygon(x: jax.Array, y: jax.Array) -> jax.Array:
    """Even-odd fill of the polygon with vertices (x, y) [V] int32, in units of 1/256 px: [64, 64] float32.

    A pixel is inside if its center is: left and bottom edges inclusive, right and top exclusive (y down).
    The polygon must fit into `WINDOW` rows and lie on the canvas.
    """
    top = jnp.min(y) // UNIT
    row_center = (top + jnp.arange(WINDOW)) * UNIT + UNIT // 2
    x0, y0, x1, y1 = (v[:, None] for v in (x, y, jnp.roll(x, -1), jnp.roll(y, -1)))
    centers = row_center[None, :]
    crosses = (jnp.minimum(y0, y1) < centers) & (centers <= jnp.maximum(y0, y1))
    # First column whose center is not left of the crossing: ceil((x - 128) / 256), exactly.
    rise = jnp.where(y0 == y1, 1, y1 - y0)
    sign = jnp.sign(rise)
    numerator = sign * ((x0 - UNIT // 2) * rise + (centers - y0) * (x1 - x0))
    column = -(-numerator // (UNIT * sign * rise))
    rows = jnp.stack([_toggle_right_of(column - 32 * word, crosses) for word in range(CANVAS // 32)])
    pixels = _unpack(rows)
    source_row = jnp.arange(CANVAS) - top
    inside = (source_row >= 0) & (source_row < WINDOW)
    return jnp.where(inside[:, None], pixels[jnp.clip(source_row, 0, WINDOW - 1)], 0.0)


def _toggle_right_of(column: jax.Array, crosses: jax.Array) -> jax.Array:
    """Bit c of word r [rows] uint32 is the parity of the edges [V, rows] that cross row r at or left of c."""
    shift = jnp.clip(column, 0, 31).astype(jnp.uint32)
    mask = jnp.where(crosses & (column < 32), jnp.uint32(0xFFFFFFFF) << shift, jnp.uint32(0))
    return jax.lax.reduce(mask, np.uint32(0), jax.lax.bitwise_xor, (0,))


def _unpack(words: jax.Array) -> jax.Array:
    """Pixels [rows, 32 W] float32 of bits in words [W, rows] uint32."""
    bits = (words[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None, :]) & 1
    return bits.transpose(1, 0, 2).reshape(words.shape[1], -1).astype(jnp.float32)


@functools.cache
def _vertex_tables() -> tuple[np.ndarray, np.ndarray]:
    """Snapped x and y, each [shape, scale, orientation, position, vertex] int16, in units of 1/256 px."""
    sizes = DSPRITES.factor_sizes
    shapes = np.stack([_pad(polygon) for polygon in (_square(), _ellipse(), _heart())])  # [3, V, 2]
    scale = 32 * (0.5 + 0.1 * np.arange(sizes[1]))
    angle = 2 * np.pi * np.arange(sizes[2]) / (sizes[2] - 1)
    center = 16 + 32 * np.arange(sizes[3]) / (sizes[3] - 1)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = (scale[None, :, None] * shapes[:, None, :, i] for i in (0, 1))
    x, y = x[:, :, None, :], y[:, :, None, :]
    turned = (x * cos + y * sin, y * cos - x * sin)  # counter-clockwise on screen, where y points down
    x, y = (np.rint(UNIT * (v[:, :, :, None, :] + center[:, None])).astype(np.int16) for v in turned)
    return x, y


def _pad(polygon: np.ndarray) -> np.ndarray:
    """Repeat the last vertex: the added edges have no height and so cross no row."""
    return np.pad(polygon, ((0, MAX_VERTICES - len(polygon)), (0, 0)), mode="edge")


def _square() -> np.ndarray:
    return 0.3 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])


def _ellipse() -> np.ndarray:
    t = 2 * np.pi * np.arange(100) / 100
    return 0.3 * np.stack([np.cos(t) * 1.33, np.sin(t) / 1.33], axis=1)


def _heart() -> np.ndarray:
    t = 2 * np.pi * np.arange(150) / 150
    height = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 14.5
    return 0.3 * np.stack([np.sin(t) ** 3, -(height + 0.15)], axis=1)
