"""Layers of a portrait, the person's identity, and what is behind the head: backdrop, shoulders, neck, long hair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

SIZE = 64
HALF_WIDTH = 13.6  # of the average head, px
NOISE = 1.5 / 255


class Layer(NamedTuple):
    """One color, shaded, painted where alpha is not 0."""

    color: jax.Array  # [3]
    shade: jax.Array | float  # [H, W], or a scalar
    alpha: jax.Array  # [H, W]


class Identity(NamedTuple):
    """What the factors leave open about a person and a photograph; drawn from the key."""

    width: jax.Array  # of the head, relative
    jaw: jax.Array  # how much the face narrows towards the chin
    eye_size: jax.Array
    eye_color: jax.Array  # [3]
    brow: jax.Array  # thickness
    nose: jax.Array  # width
    lips: jax.Array  # thickness
    parting: jax.Array  # of the hair, u
    hairline: jax.Array  # v
    phase: jax.Array  # of the hair's strands, turns [3]
    shirt: jax.Array  # [3]
    hat_color: jax.Array  # [3]
    blobs: jax.Array  # [4, 4] background: x, y, size, strength
    slope: jax.Array  # of the background's brightness [2]
    grain: jax.Array  # [64, 64] sensor noise


def draw_identity(key: jax.Array, arrays: dict[str, jax.Array]) -> Identity:
    """Returns what `key` draws; arrays: the tables of eye colors and clothes."""
    numbers_key, grain_key = jax.random.split(key)
    numbers = jax.random.uniform(numbers_key, (32,))  # drawn at once: each call to a generator costs a kernel
    width, jaw, eye, brow, nose, lips, parting, line, *slope = 2.0 * numbers[:10] - 1.0
    eye_color, shirt, hat = numbers[10:13]

    def choose(table, number):
        return table[(number * len(table)).astype(jnp.int32)]

    low, high = jnp.array([[0.0, 0.0, 9.0, -0.40]]), jnp.array([[64.0, 64.0, 26.0, 0.40]])
    return Identity(
        width=1.0 + 0.06 * width,
        jaw=0.22 + 0.07 * jaw,
        eye_size=1.0 + 0.12 * eye,
        eye_color=choose(arrays["eye_color"], eye_color),
        brow=0.042 + 0.014 * brow,
        nose=1.0 + 0.2 * nose,
        lips=1.0 + 0.25 * lips,
        parting=0.5 * parting,
        hairline=-0.56 + 0.07 * line,
        phase=numbers[13:16],
        shirt=choose(arrays["clothes"], shirt),
        hat_color=0.05 + 0.8 * choose(arrays["clothes"], hat),
        blobs=low + (high - low) * numbers[16:].reshape(4, 4),
        slope=0.25 * jnp.stack(slope),
        grain=NOISE * jax.random.normal(grain_key, (SIZE, SIZE)),
    )


def composite(image: jax.Array, layers: Sequence[Layer]) -> jax.Array:
    """Returns `image` [3, H, W] with the layers painted over it in turn."""
    shape = image.shape[1:]
    # Without a barrier XLA computes every layer's masks three times over, once per channel.
    masks = [(jnp.broadcast_to(layer.shade, shape), layer.alpha) for layer in layers]
    for layer, (shade, alpha) in zip(layers, jax.lax.optimization_barrier(masks), strict=True):
        image += alpha[None] * (layer.color[:, None, None] * shade[None] - image)
    return image


def background(color, who) -> Layer:
    """Returns the backdrop, a color [3] with a slope of brightness and four soft blobs."""
    x, y = pixels(SIZE)
    tone = 0.98 + who.slope[0] * (x / SIZE - 0.5) + (who.slope[1] - 0.08) * (y / SIZE - 0.5)
    for bx, by, size, strength in who.blobs:
        tone += strength * bell((x - bx) / size, (y - by) / size)
    return Layer(color, tone, jnp.ones_like(tone))


def shoulders(center, who, light) -> Layer:
    """Returns the shirt, below a head whose middle is at `center` px. light: its direction [3]."""
    x, y = pixels(SIZE)
    side = (x - SIZE / 2 - 0.4 * (center - SIZE / 2)) / 30.0
    top = 55.5 + 9.0 * side**2 + 3.0 * side**4
    folds = 1.0 + 0.05 * wave(0.08 * x + 0.06 * y + who.phase[0])
    return Layer(who.shirt, (0.72 + 0.28 * light[2] + 0.35 * side * light[0]) * folds, edge(y - top, 1.5))


def neck(skin, center, who, light) -> Layer:
    """Returns the neck, of the skin's color [3]; arguments as in `shoulders`."""
    x, y = pixels(SIZE)
    middle = SIZE / 2 + (0.4 + 0.5 * jnp.clip((58.0 - y) / 14.0, 0.0, 1.0)) * (center - SIZE / 2)
    side = (x - middle) / (8.4 * who.width)
    collar = 61.0 - 3.5 * side**2
    mask = edge(1.0 - jnp.abs(side), 0.15) * edge(y - 42.0, 2.0) * edge(collar - y, 1.5)
    under_chin = 0.55 + 0.35 * jnp.clip((y - 50.0) / 10.0, 0.0, 1.0)
    shade = under_chin * (0.80 + 0.25 * side * light[0] + 0.12 * light[2])
    return Layer(skin * jnp.array([1.0, 0.94, 0.91]), shade, mask)


def back_hair(hair, length, center, yaw, who, light) -> Layer:
    """Returns the hair behind the head, of the two longer ones of `length` 0 to 3; yaw in radians."""
    x, y = pixels(SIZE)
    side = (x - center + 3.5 * jnp.sin(yaw)) / (HALF_WIDTH * who.width)
    reach = jnp.array([0.0, 0.0, 50.0, 68.0])[length]
    flare = jnp.array([0.0, 0.0, 1.20, 1.26])[length]
    flare = flare + 0.04 * wave(0.05 * y + who.phase[2]) + 0.10 * jnp.clip((y - 34.0) / 20.0, 0.0, 1.0)
    above = jnp.clip((34.0 - y) / 21.5, 0.0, 1.0)  # follows the skull upwards
    ends = jnp.clip((reach - y) / 6.0, 0.0, 1.0)  # and is rounded at its ends
    width = flare * jnp.sqrt((1.0 - above**2) * ends)
    waves = 0.13 * wave(2.2 * side + 0.01 * y + who.phase[0]) + 0.07 * wave(4.7 * side + who.phase[1])
    shade = (0.52 + 0.33 * light[2] + 0.22 * side * light[0]) * (0.82 + waves)
    return Layer(hair, shade, edge(width - jnp.abs(side), 0.14) * ((length >= 2) & (width > 0.07)))


def pixels(size: int) -> tuple[jax.Array, jax.Array]:
    """(x, y) of pixel centers, each [size, size]."""
    x, y = jnp.meshgrid(jnp.arange(size) + 0.5, jnp.arange(size) + 0.5, indexing="xy")
    return x, y


def edge(inside, width):
    """A soft step: 0 below -width / 2, 1 above width / 2."""
    return jnp.clip(inside / width + 0.5, 0.0, 1.0)


def bell(x, y):
    """A smooth bump of height 1 that vanishes outside the unit disc."""
    return jnp.square(jnp.maximum(1.0 - x * x - y * y, 0.0))


def wave(turns):
    """A sine of `turns`, drawn as parabolas: much cheaper, and just as good for texture."""
    t = turns - jnp.round(turns)
    return 8.0 * t - 16.0 * t * jnp.abs(t)
