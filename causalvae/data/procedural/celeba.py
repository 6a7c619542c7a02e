"""CelebA in its likeness: portraits drawn from ten known causes.

The real set has attributes but no causes, so nothing can be intervened on. Here the causes are factors,
the binary attributes are derived from them (`attributes`), and what else makes a picture (proportions, dress,
the parting of the hair, the blur behind) is exogenous: an identity drawn from the key, kept under `do`.

A head is an ellipsoid that narrows towards the chin. A pixel on it is turned back by the pose into the face's
own coordinates: u across (the ears at -1 and 1), v down (the crown at -1, the chin at 1). Eyes, mouth, beard
and glasses are drawn there, and the relief (nose, sockets, cheeks, lips) tilts the normals that meet light.
As in the real aligned crops, the eyes stay where they are whatever the pose.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset

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

SIZE = 64
HEAD_TOP, HEAD_WINDOW = 8, 48  # the head is drawn in a square window: its first row, and its side in px
EYE_ROW = 32.8  # px, where CelebA's alignment puts the eyes
HALF_WIDTH, HALF_HEIGHT = 13.6, 19.5  # of the average head, px
DEPTH = 1.1  # of the head, in half-widths
EYE_U, EYE_V = 0.50, -0.10
MOUTH_V = 0.50
NOISE = 1.5 / 255


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


class Face(NamedTuple):
    """The head's surface in each pixel of its window, in the image's and in the face's own coordinates."""

    x: jax.Array  # across, in half-widths of the head at that height
    v: jax.Array  # down, in half-heights
    z: jax.Array  # towards the viewer
    u: jax.Array  # across the face
    front: jax.Array  # towards where the face looks
    radius: jax.Array  # 1 on the head's outline


class Layer(NamedTuple):
    """One color, shaded, painted where alpha is not 0."""

    color: jax.Array  # [3]
    shade: jax.Array  # [H, W], or a scalar
    alpha: jax.Array  # [H, W]


@functools.lru_cache(maxsize=1)
def procedural() -> Dataset:
    """The procedural portraits: ten causes, 6,048,000 combinations; the identity is drawn from the key.

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
    """Factors [10] int32, independent, each by its `FREQUENCIES`."""
    del arrays
    levels = jax.random.uniform(key, (len(FREQUENCIES),))
    cumulative = np.full((len(FREQUENCIES), max(FACTOR_SIZES)), 2.0, np.float32)
    for row, frequencies in zip(cumulative, FREQUENCIES, strict=True):
        row[: len(frequencies) - 1] = np.cumsum(frequencies)[:-1]
    return jnp.sum(levels[:, None] >= cumulative, -1, dtype=jnp.int32)


def attributes(factors: jax.Array) -> jax.Array:
    """Binary attributes [N, 14] int32 (`ATTRIBUTE_NAMES`, CelebA's own names) of `factors` [N, 10]."""
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
    """Image [64, 64, 3] in [0, 1] of `factors` [10]; `key` draws the identity and the sensor noise."""
    f = dict(zip(FACTOR_NAMES, factors, strict=True))
    who = _identity(key, arrays)
    yaw, angle = arrays["pose"][f["pose"]], arrays["light"][f["lighting"]]
    skin, hair = arrays["skin"][f["skin"]], arrays["hair_color"][f["hair_color"]]
    light = jnp.stack([0.92 * jnp.sin(angle), jnp.asarray(-0.38), 0.92 * jnp.cos(angle)])
    smile = f["smile"] / 4.0
    # The eyes, 0.95 half-widths before the axis, stay about the middle: the head moves as it turns, and the
    # body with it.
    center = SIZE / 2 - 0.95 * HALF_WIDTH * who.width * jnp.sin(yaw)
    behind = (
        _background(arrays["background"][f["background"]], who),
        _shoulders(center, who, light),
        _back_hair(hair, f["hair_length"], center, yaw, who, light),
        _neck(skin, center, who, light),
    )
    left = jnp.clip(jnp.round(center) - HEAD_WINDOW / 2, 0, SIZE - HEAD_WINDOW)
    face = jax.lax.optimization_barrier(_face(left, center, who, yaw))
    shade = jax.lax.optimization_barrier(_skin_shade(face, smile, who, yaw, light))
    head = (
        _ears(skin, face, yaw, light),
        *_skin(skin, face, shade),
        _beard(hair, f["beard"], face, who, shade),
        *_mouth(skin, smile, face, who, shade),
        *_eyes(skin, hair, smile, face, who, shade),
        _front_hair(hair, f["hair_length"], face, who, light),
        *_glasses(f["glasses"], face),
        *_hat(f["hat"], face, who, light),
    )
    image = _composite(jnp.zeros((3, SIZE, SIZE)), behind)
    corner = (0, HEAD_TOP, left.astype(jnp.int32))
    window = jax.lax.dynamic_slice(image, corner, (3, HEAD_WINDOW, HEAD_WINDOW))
    image = jax.lax.dynamic_update_slice(image, _composite(window, head), corner)
    return jnp.clip(jnp.moveaxis(image, 0, -1) + who.grain[..., None], 0.0, 1.0)


def _composite(image: jax.Array, layers: Sequence[Layer]) -> jax.Array:
    """`image` [3, H, W] with the layers painted over it in turn."""
    shape = image.shape[1:]
    # Without a barrier XLA computes every layer's masks three times over, once per channel.
    masks = [(jnp.broadcast_to(layer.shade, shape), layer.alpha) for layer in layers]
    for layer, (shade, alpha) in zip(layers, jax.lax.optimization_barrier(masks), strict=True):
        image += alpha[None] * (layer.color[:, None, None] * shade[None] - image)
    return image


def _identity(key: jax.Array, arrays: dict[str, jax.Array]) -> Identity:
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


def _face(left, center, who: Identity, yaw) -> Face:
    x, y = _pixels(HEAD_WINDOW)
    v = (y + HEAD_TOP - EYE_ROW) / HALF_HEIGHT + EYE_V
    narrowing = 1.0 - who.jaw * jnp.square(jnp.maximum(v + 0.1, 0.0))
    across = (x + left - center) / (HALF_WIDTH * who.width * jnp.maximum(narrowing, 0.3))
    squared = across**2 + v**2 * (0.6 + 0.4 * v**2)  # rounder than an ellipse: crown and jaw are broad
    z = DEPTH * jnp.sqrt(jnp.maximum(1.0 - squared, 0.0))
    cos, sin = jnp.cos(yaw), jnp.sin(yaw)
    return Face(across, v, z, across * cos - z * sin, across * sin + z * cos, jnp.sqrt(squared))


def _background(color, who) -> Layer:
    x, y = _pixels(SIZE)
    tone = 0.98 + who.slope[0] * (x / SIZE - 0.5) + (who.slope[1] - 0.08) * (y / SIZE - 0.5)
    for bx, by, size, strength in who.blobs:
        tone += strength * _bell((x - bx) / size, (y - by) / size)
    return Layer(color, tone, jnp.ones_like(tone))


def _shoulders(center, who, light) -> Layer:
    x, y = _pixels(SIZE)
    side = (x - SIZE / 2 - 0.4 * (center - SIZE / 2)) / 30.0
    top = 55.5 + 9.0 * side**2 + 3.0 * side**4
    folds = 1.0 + 0.05 * _wave(0.08 * x + 0.06 * y + who.phase[0])
    return Layer(who.shirt, (0.72 + 0.28 * light[2] + 0.35 * side * light[0]) * folds, _edge(y - top, 1.5))


def _neck(skin, center, who, light) -> Layer:
    x, y = _pixels(SIZE)
    middle = SIZE / 2 + (0.4 + 0.5 * jnp.clip((58.0 - y) / 14.0, 0.0, 1.0)) * (center - SIZE / 2)
    side = (x - middle) / (8.4 * who.width)
    collar = 61.0 - 3.5 * side**2
    mask = _edge(1.0 - jnp.abs(side), 0.15) * _edge(y - 42.0, 2.0) * _edge(collar - y, 1.5)
    under_chin = 0.55 + 0.35 * jnp.clip((y - 50.0) / 10.0, 0.0, 1.0)
    shade = under_chin * (0.80 + 0.25 * side * light[0] + 0.12 * light[2])
    return Layer(skin * jnp.array([1.0, 0.94, 0.91]), shade, mask)


def _back_hair(hair, length, center, yaw, who, light) -> Layer:
    x, y = _pixels(SIZE)
    side = (x - center + 3.5 * jnp.sin(yaw)) / (HALF_WIDTH * who.width)
    reach = jnp.array([0.0, 0.0, 50.0, 68.0])[length]
    flare = jnp.array([0.0, 0.0, 1.20, 1.26])[length]
    flare = flare + 0.04 * _wave(0.05 * y + who.phase[2]) + 0.10 * jnp.clip((y - 34.0) / 20.0, 0.0, 1.0)
    above = jnp.clip((34.0 - y) / 21.5, 0.0, 1.0)  # follows the skull upwards
    ends = jnp.clip((reach - y) / 6.0, 0.0, 1.0)  # and is rounded at its ends
    width = flare * jnp.sqrt((1.0 - above**2) * ends)
    waves = 0.13 * _wave(2.2 * side + 0.01 * y + who.phase[0]) + 0.07 * _wave(4.7 * side + who.phase[1])
    shade = (0.52 + 0.33 * light[2] + 0.22 * side * light[0]) * (0.82 + waves)
    return Layer(hair, shade, _edge(width - jnp.abs(side), 0.14) * ((length >= 2) & (width > 0.07)))


def _normal(face: Face, smile, who, yaw):
    """Unit normal (x, y, z) in each pixel: the ellipsoid's, tilted by the relief of the face."""
    u, v, au = face.u, face.v, jnp.abs(face.u)
    near = jnp.clip(face.front / 0.3, 0.0, 1.0)
    middle = (  # height, v, radii across and down
        (0.075, 0.02, 0.17 * who.nose, 0.30),  # bridge of the nose
        (0.12, 0.19, 0.21 * who.nose, 0.17),  # its tip
        (0.05, MOUTH_V, 0.38, 0.16),  # mouth
        (0.06, 0.84, 0.32, 0.20),  # chin
        (-0.04, 0.69, 0.30, 0.08),  # below the lip
    )
    paired = (  # height, u, v, radii
        (0.04, 0.15 * who.nose, 0.23, 0.11, 0.09),  # wings of the nose
        (-0.07, 0.46, -0.12, 0.34, 0.17),  # eye sockets
        (0.05 + 0.05 * smile, 0.55, 0.20 - 0.04 * smile, 0.36, 0.28),  # cheeks
        (0.02, 0.35, -0.36, 0.45, 0.25),  # forehead
    )
    slope_u, slope_pair, slope_v = 0.0, 0.0, 0.0
    for height, center, ru, rv in middle:
        room = height * jnp.maximum(1.0 - jnp.square(u / ru) - jnp.square((v - center) / rv), 0.0)
        slope_u, slope_v = slope_u + room * u / ru**2, slope_v + room * (v - center) / rv**2
    for height, aside, center, ru, rv in paired:
        room = height * jnp.maximum(1.0 - jnp.square((au - aside) / ru) - jnp.square((v - center) / rv), 0.0)
        slope_pair = slope_pair + room * (au - aside) / ru**2
        slope_v = slope_v + room * (v - center) / rv**2
    slope_u = -4 * near * (slope_u + jnp.sign(u) * slope_pair)
    slope_v = -4 * near * slope_v
    nx, ny = face.x - slope_u * jnp.cos(yaw), 0.62 * (face.v - slope_v)
    nz = face.z / DEPTH + slope_u * jnp.sin(yaw) + 0.05
    scale = jax.lax.rsqrt(nx**2 + ny**2 + nz**2 + 1e-6)
    return nx * scale, ny * scale, nz * scale


def _skin_shade(face, smile, who, yaw, light):
    """(brightness of the skin, shine on it) in each pixel."""
    normal = _normal(face, smile, who, yaw)
    facing = jnp.maximum(normal[0] * light[0] + normal[1] * light[1] + normal[2] * light[2], -0.2)
    return 0.56 + 0.46 * facing, 0.08 * jnp.square(jnp.square(jnp.maximum(facing, 0.0)))


def _ears(skin, face, yaw, light) -> Layer:
    ear = jnp.square((jnp.abs(face.x) - 0.99) / 0.14) + jnp.square((face.v - 0.02) / 0.19)
    hidden = jnp.sin(yaw) * jnp.sign(face.x) > 0.3  # the far ear of a turned head
    shade = 0.78 + 0.2 * light[0] * jnp.sign(face.x)
    return Layer(skin * jnp.array([0.95, 0.82, 0.78]), shade, _edge(1.0 - ear, 0.8) * ~hidden)


def _skin(skin, face, light) -> tuple[Layer, ...]:
    shade, shine = light
    head = _edge(1.0 - face.radius, 0.09)
    au, v = jnp.abs(face.u), face.v
    cheeks = _bell((au - 0.55) / 0.35, (v - 0.22) / 0.25)
    blush = 0.5 * cheeks + 0.4 * _bell(au / 0.25, (v - 0.2) / 0.15)
    return (
        Layer(skin, shade, head),
        Layer(skin * jnp.array([1.0, 0.80, 0.78]), shade, head * blush),
        Layer(jnp.ones(3), 1.0, head * shine),
    )


def _eyes(skin, hair, smile, face, who, light) -> tuple[Layer, ...]:
    shade, _ = light
    du, dv = (jnp.abs(face.u) - EYE_U) / who.eye_size, (face.v - EYE_V) / who.eye_size
    seen = _seen(face)
    arc = jnp.maximum(1.0 - jnp.square(du / 0.23), 0.0) * (1.0 - 0.25 * smile)
    top, bottom = -0.085 * arc, 0.060 * arc
    opening = _edge(dv - top, 0.05) * _edge(bottom - dv, 0.05) * _edge(0.23 - jnp.abs(du), 0.06) * seen
    iris = jnp.sqrt(jnp.square(du / 0.115) + jnp.square((dv + 0.012) / 0.080))
    glint = _bell((du + 0.03) / 0.08, (dv + 0.04) / 0.055)
    lash = _edge(0.028 - jnp.abs(dv - top), 0.04) * _edge(0.24 - jnp.abs(du), 0.06) * seen
    curve = -0.275 + 0.50 * jnp.square(du - 0.06) - 0.02 * smile
    brow = _edge(who.brow - jnp.abs(face.v - curve), 0.06) * _edge(0.27 - jnp.abs(du - 0.01), 0.10) * seen
    return (
        Layer(0.2 * skin, 1.0, 0.20 * seen * _bell(du / 0.36, (dv + 0.02) / 0.17)),  # depth of the socket
        Layer(jnp.array([0.88, 0.86, 0.85]), 0.55 + 0.45 * shade, 0.9 * opening),
        Layer(who.eye_color, 0.4 + 0.6 * shade, opening * _edge(1.0 - iris, 0.5)),
        Layer(jnp.full(3, 0.04), 1.0, opening * _edge(0.5 - iris, 0.4)),
        Layer(jnp.ones(3), 1.0, 0.8 * glint * opening),
        Layer(0.25 * skin, 1.0, 0.8 * lash),
        Layer(0.75 * hair, 0.5 + 0.5 * shade, 0.75 * brow),
    )


def _mouth(skin, smile, face, who, light) -> tuple[Layer, ...]:
    shade, _ = light
    au, v, seen = jnp.abs(face.u), face.v, _seen(face)
    side = au / (0.29 + 0.16 * smile)
    arc = jnp.maximum(1.0 - side**2, 0.0)
    offset = v - (MOUTH_V + 0.02 - (0.13 * smile - 0.045) * side**2 + 0.02 * smile)
    gap = 0.10 * jnp.maximum(smile - 0.35, 0.0) * arc  # half the opening
    upper, lower = 0.055 * who.lips * jnp.sqrt(arc), 0.085 * who.lips * jnp.sqrt(arc)
    ends = _edge(1.0 - side, 0.13) * seen
    lips = _edge(offset + upper + gap, 0.05) * _edge(gap + lower - offset, 0.05) * ends
    lip_color = skin * jnp.array([0.86, 0.58, 0.56])
    teeth = jnp.clip(gap / 0.015, 0.0, 1.0)
    between = _edge(gap - jnp.abs(offset), 0.05) * ends * teeth
    parted = _edge(0.020 - jnp.abs(offset), 0.04) * ends * (1.0 - teeth)
    nostril = _bell((au - 0.095 * who.nose) / 0.085, (v - 0.285) / 0.055)
    fold = _edge(0.03 - jnp.abs(au - 0.24 - 0.45 * (v - 0.25)), 0.06) * _bell((v - 0.36) / 0.2, 0.0)
    return (
        Layer(lip_color, shade * jnp.where(offset < 0, 0.86, 1.04), 0.9 * lips),
        Layer(jnp.array([0.93, 0.91, 0.87]), 0.45 + 0.55 * shade, between),
        Layer(0.35 * lip_color, 1.0, 0.85 * parted),
        Layer(0.1 * skin, 1.0, seen * (0.45 * nostril + (0.06 + 0.16 * smile) * fold)),
    )


def _beard(hair, beard, face, who, light) -> Layer:
    shade, _ = light
    au, v = jnp.abs(face.u), face.v
    jaw = _edge(v - (0.60 - 0.62 * au**2), 0.12) * _edge(au + v - 0.45, 0.15)
    moustache = _edge(0.38 - au, 0.1) * _edge(0.085 - jnp.abs(v - 0.385 - 0.15 * au**2), 0.06)
    chin = _edge(0.30 - au, 0.1) * _edge(v - 0.66, 0.08)
    sides = _edge(0.05 - jnp.abs(au - 0.34), 0.06) * _edge(0.15 - jnp.abs(v - 0.52), 0.1)
    goatee = jnp.maximum(jnp.maximum(moustache, chin), sides)
    mask = jnp.where(beard == 2, goatee, jnp.maximum(jaw, goatee)) * _edge(1.0 - face.radius, 0.09)
    mask = mask * jnp.array([0.0, 0.42, 0.88, 0.92])[beard]
    texture = 0.75 + 0.09 * _wave(6.4 * face.u + 0.8 * v + who.phase[0]) * _wave(5.2 * v + who.phase[1])
    return Layer(0.8 * hair + 0.02, texture * (0.35 + 0.65 * shade), mask)


def _front_hair(hair, length, face, who, light) -> Layer:
    u, v, au = face.u, face.v, jnp.abs(face.u)
    outline = _edge(jnp.array([1.0, 1.06, 1.11, 1.13])[length] - face.radius, 0.09)
    temple = jnp.array([-2.0, 0.02, 0.45, 1.3])[length]
    fringe = who.hairline + 0.16 * jnp.square(u - who.parting) + 0.04 * _wave(1.4 * u + who.phase[2])
    sides = who.hairline + (temple - who.hairline) * jnp.clip((au - 0.72) / 0.22, 0.0, 1.0)
    behind = jnp.minimum(temple + 0.25, 0.60) - 12.0 * jnp.maximum(face.front - 0.02, 0.0)
    line = jnp.maximum(jnp.maximum(fringe, sides), behind)
    along = (u - 0.5 * who.parting) / jnp.maximum(1.35 + v, 0.25)  # strands fan out from the crown
    waves = _wave(2.7 * along + who.phase[0]) + 0.7 * _wave(4.9 * along + 0.5 * v + who.phase[1])
    shine = _bell((v + 0.70 - 0.25 * u**2) / 0.28, 0.45 * u)
    shade = 0.66 - 0.18 * v + 0.30 * light[0] * face.x + 0.12 * light[2]
    shade = shade * (0.82 + 0.09 * waves + 0.5 * shine)
    return Layer(hair, shade, outline * _edge(line - v, 0.08) * (length >= 1))


def _glasses(kind, face) -> tuple[Layer, ...]:
    au, dv = jnp.abs(face.u), face.v - EYE_V - 0.01
    seen = jnp.clip(face.front / 0.15 + 0.6, 0.0, 1.0) * (face.radius < 1.05) * (kind > 0)
    shape = jnp.sqrt(jnp.sqrt(((au - EYE_U) / 0.30) ** 4 + (dv / 0.185) ** 4))
    rim = _edge(0.13 - jnp.abs(shape - 1.0), 0.2)
    bridge = _edge(0.2 - au, 0.08) * _edge(0.03 - jnp.abs(dv + 0.06), 0.05)
    arm = _edge(au - 0.78, 0.05) * _edge(0.035 - jnp.abs(dv + 0.05), 0.05) * (face.radius < 1.0)
    frame = jnp.maximum(jnp.maximum(rim, bridge), arm)
    lens = _edge(1.0 - shape, 0.25) * jnp.where(kind == 2, 0.93, 0.10)
    return (
        Layer(jnp.array([0.10, 0.09, 0.09]), 1.0 - 2.0 * dv, lens * seen),
        Layer(jnp.array([0.09, 0.07, 0.07]), 1.0, 0.85 * frame * seen),
    )


def _hat(kind, face, who, light) -> tuple[Layer, ...]:
    x, v = face.x, face.v
    brow_line = -0.48 + 0.10 * x**2
    shade = 0.72 + 0.25 * light[2] + 0.35 * light[0] * x - 0.15 * (v + 0.7)
    crown = _edge(jnp.where(kind == 2, 1.21, 1.15) - face.radius, 0.09) * _edge(brow_line - v, 0.06)
    band = v > brow_line - 0.17
    knit = 1.0 + 0.10 * _wave(4.1 * face.u) + 0.12 * band
    pattern = jnp.where(kind == 1, knit, jnp.where(band, 0.7, 1.0))
    brim = 1.0 - jnp.square(x / 1.6) - jnp.square((v - brow_line + 0.01) / 0.11)
    return (
        Layer(who.hat_color, shade * pattern, crown * (kind > 0)),
        Layer(who.hat_color, 0.9 * shade, _edge(brim, 0.3) * (kind == 2)),
    )


def _seen(face):
    """1 on the front of the face, falling to 0 where it turns away."""
    return jnp.clip(face.front / 0.25, 0.0, 1.0)


def _pixels(size: int) -> tuple[jax.Array, jax.Array]:
    """(x, y) of pixel centers, each [size, size]."""
    return tuple(jnp.meshgrid(jnp.arange(size) + 0.5, jnp.arange(size) + 0.5, indexing="xy"))


def _edge(inside, width):
    """A soft step: 0 below -width / 2, 1 above width / 2."""
    return jnp.clip(inside / width + 0.5, 0.0, 1.0)


def _bell(x, y):
    """A smooth bump of height 1 that vanishes outside the unit disc."""
    return jnp.square(jnp.maximum(1.0 - x * x - y * y, 0.0))


def _wave(turns):
    """A sine of `turns`, drawn as parabolas: much cheaper, and just as good for texture."""
    t = turns - jnp.round(turns)
    return 8.0 * t - 16.0 * t * jnp.abs(t)
