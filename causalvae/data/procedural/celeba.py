"""CelebA in its likeness: portraits drawn from ten known causes.

The real set has attributes but no causes, so nothing can be intervened on. Here the causes are factors,
the binary attributes are derived from them (`attributes`), and what else makes a picture (proportions, dress,
the parting of the hair, the blur behind) is exogenous: an identity drawn from the key, kept under `do`.

As in the real aligned crops, the eyes stay where they are whatever the pose.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.data.procedural import _face, _portrait
from causalvae.data.procedural._portrait import SIZE

FACTOR_NAMES = (
    "pose",
    "skin",
    "hair_color",
    "hair_length",
    "smile",
    "glasses",
    "beard",
    "hat",
    "background",
    "lighting",
)
FACTOR_SIZES = (7, 6, 5, 4, 5, 3, 4, 3, 8, 5)
POSES = (-36.0, -24.0, -12.0, 0.0, 12.0, 24.0, 36.0)  # degrees, positive: towards the image's right
SKINS = ((250, 218, 198), (240, 196, 166), (222, 171, 134), (194, 138, 100), (146, 97, 67), (97, 62, 44))
HAIR_COLORS = ((28, 23, 22), (84, 55, 36), (208, 170, 106), (142, 68, 32), (168, 165, 162))
HAIR_COLOR_NAMES = ("black", "brown", "blond", "red", "gray")
HAIR_LENGTHS = ("bald", "short", "medium", "long")
GLASSES = ("none", "eyeglasses", "sunglasses")
BEARDS = ("none", "stubble", "goatee", "full")
HATS = ("none", "beanie", "brimmed")
BACKGROUNDS = (
    (222, 219, 214), (148, 146, 146), (46, 44, 48), (92, 124, 162),
    (92, 122, 84), (150, 112, 80), (146, 58, 54), (196, 176, 128),
)  # fmt: skip
LIGHT_ANGLES = (-60.0, -30.0, 0.0, 30.0, 60.0)  # degrees, positive: from the image's right
EYE_COLORS = ((56, 36, 26), (41, 26, 20), (76, 107, 133), (82, 97, 61))
CLOTHES = ((38, 40, 46), (212, 210, 206), (70, 86, 126), (138, 42, 46), (92, 104, 86), (168, 140, 116))

ATTRIBUTE_NAMES = (
    "5_o_Clock_Shadow",
    "Bald",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Mouth_Slightly_Open",
    "No_Beard",
    "Pale_Skin",
    "Sideburns",
    "Smiling",
    "Wearing_Hat",
)

FREQUENCIES = (  # how often each value is sampled; factors are independent
    (0.05, 0.10, 0.20, 0.30, 0.20, 0.10, 0.05),
    (0.20, 0.25, 0.20, 0.15, 0.10, 0.10),
    (0.30, 0.30, 0.18, 0.12, 0.10),
    (0.10, 0.35, 0.25, 0.30),
    (0.20, 0.20, 0.20, 0.20, 0.20),
    (0.65, 0.22, 0.13),
    (0.58, 0.14, 0.12, 0.16),
    (0.70, 0.15, 0.15),
    (0.125,) * 8,
    (0.15, 0.20, 0.30, 0.20, 0.15),
)


@functools.lru_cache(maxsize=1)
def procedural() -> Dataset:
    """Returns the procedural portraits: ten causes, 6,048,000 combinations; the identity is drawn from the key.

    Factors are sampled independently, plain values more often than rare ones (`FREQUENCIES`).
    """
    return Dataset(
        name="celeba",
        source="procedural",
        factor_names=FACTOR_NAMES,
        factor_sizes=FACTOR_SIZES,
        image_shape=(SIZE, SIZE, 3),
        render_one=render_one,
        draw=draw,
        arrays={
            "pose": jnp.radians(jnp.array(POSES)),
            "skin": jnp.array(SKINS, jnp.float32) / 255,
            "hair_color": jnp.array(HAIR_COLORS, jnp.float32) / 255,
            "background": jnp.array(BACKGROUNDS, jnp.float32) / 255,
            "light": jnp.radians(jnp.array(LIGHT_ANGLES)),
            "clothes": jnp.array(CLOTHES, jnp.float32) / 255,
            "eye_color": jnp.array(EYE_COLORS, jnp.float32) / 255,
        },
        deterministic=False,
        provenance=(("drawn_by", __name__), ("attributes", ATTRIBUTE_NAMES)),
    )


def draw(arrays: dict[str, jax.Array], key: jax.Array) -> jax.Array:
    """Returns factors [10] int32, independent, each by its `FREQUENCIES`."""
    del arrays
    levels = jax.random.uniform(key, (len(FREQUENCIES),))
    cumulative = np.full((len(FREQUENCIES), max(FACTOR_SIZES)), 2.0, np.float32)
    for row, frequencies in zip(cumulative, FREQUENCIES, strict=True):
        row[: len(frequencies) - 1] = np.cumsum(frequencies)[:-1]
    return jnp.sum(levels[:, None] >= cumulative, -1, dtype=jnp.int32)


def attributes(factors: jax.Array) -> jax.Array:
    """Returns binary attributes [N, 14] int32 (`ATTRIBUTE_NAMES`, CelebA's own names) of `factors` [N, 10]."""
    if factors.ndim != 2 or factors.shape[1] != len(FACTOR_NAMES):
        raise ValueError(
            f"attributes needs factors [N, {len(FACTOR_NAMES)}] ({', '.join(FACTOR_NAMES)}), not {list(factors.shape)}"
        )
    f = dict(zip(FACTOR_NAMES, factors.T, strict=True))
    hair = f["hair_length"] > 0
    values = {
        "5_o_Clock_Shadow": f["beard"] == 1,
        "Bald": ~hair,
        "Black_Hair": hair & (f["hair_color"] == 0),
        "Blond_Hair": hair & (f["hair_color"] == 2),
        "Brown_Hair": hair & (f["hair_color"] == 1),
        "Eyeglasses": f["glasses"] > 0,
        "Goatee": f["beard"] == 2,
        "Gray_Hair": hair & (f["hair_color"] == 4),
        "Mouth_Slightly_Open": f["smile"] >= 3,
        "No_Beard": f["beard"] <= 1,
        "Pale_Skin": f["skin"] == 0,
        "Sideburns": f["beard"] == 3,
        "Smiling": f["smile"] >= 2,
        "Wearing_Hat": f["hat"] > 0,
    }
    return jnp.stack([values[name] for name in ATTRIBUTE_NAMES], -1).astype(jnp.int32)


def render_one(arrays: dict[str, jax.Array], factors: jax.Array, key: jax.Array) -> jax.Array:
    """Returns the image [64, 64, 3] in [0, 1] of `factors` [10]; `key` draws the identity and the sensor noise."""
    f = dict(zip(FACTOR_NAMES, factors, strict=True))
    who = _portrait.draw_identity(key, arrays)
    yaw, angle = arrays["pose"][f["pose"]], arrays["light"][f["lighting"]]
    skin, hair = arrays["skin"][f["skin"]], arrays["hair_color"][f["hair_color"]]
    light = jnp.stack([0.92 * jnp.sin(angle), jnp.asarray(-0.38), 0.92 * jnp.cos(angle)])
    smile = f["smile"] / 4.0
    # The eyes, 0.95 half-widths before the axis, stay about the middle: the head moves as it turns, and the
    # body with it.
    center = SIZE / 2 - 0.95 * _portrait.HALF_WIDTH * who.width * jnp.sin(yaw)
    behind = (
        _portrait.background(arrays["background"][f["background"]], who),
        _portrait.shoulders(center, who, light),
        _portrait.back_hair(hair, f["hair_length"], center, yaw, who, light),
        _portrait.neck(skin, center, who, light),
    )
    left = jnp.clip(jnp.round(center) - _face.HEAD_WINDOW / 2, 0, SIZE - _face.HEAD_WINDOW)
    face = jax.lax.optimization_barrier(_face.surface(left, center, who, yaw))
    shade = jax.lax.optimization_barrier(_face.skin_shade(face, smile, who, yaw, light))
    head = (
        _face.ears(skin, face, yaw, light),
        *_face.skin(skin, face, shade),
        _face.beard(hair, f["beard"], face, who, shade),
        *_face.mouth(skin, smile, face, who, shade),
        *_face.eyes(skin, hair, smile, face, who, shade),
        _face.front_hair(hair, f["hair_length"], face, who, light),
        *_face.glasses(f["glasses"], face),
        *_face.hat(f["hat"], face, who, light),
    )
    image = _portrait.composite(jnp.zeros((3, SIZE, SIZE)), behind)
    corner = (0, _face.HEAD_TOP, left.astype(jnp.int32))
    window = jax.lax.dynamic_slice(image, corner, (3, _face.HEAD_WINDOW, _face.HEAD_WINDOW))
    image = jax.lax.dynamic_update_slice(image, _portrait.composite(window, head), corner)
    return jnp.clip(jnp.moveaxis(image, 0, -1) + who.grain[..., None], 0.0, 1.0)
