"""The head of a portrait and what is on it, each a layer or some.

A head is an ellipsoid that narrows towards the chin. A pixel on it is turned back by the pose into the face's
own coordinates: u across (the ears at -1 and 1), v down (the crown at -1, the chin at 1). Eyes, mouth, beard
and glasses are drawn there, and the relief (nose, sockets, cheeks, lips) tilts the normals that meet light.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causalvae.data.procedural._portrait import HALF_WIDTH, Identity, Layer, bell, edge, pixels, wave

HEAD_TOP, HEAD_WINDOW = 8, 48  # the head is drawn in a square window: its first row, and its side in px
EYE_ROW = 32.8  # px, where CelebA's alignment puts the eyes
HALF_HEIGHT = 19.5  # of the average head, px
DEPTH = 1.1  # of the head, in half-widths
EYE_U, EYE_V = 0.50, -0.10
MOUTH_V = 0.50


class Face(NamedTuple):
    """The head's surface in each pixel of its window, in the image's and in the face's own coordinates."""

    x: jax.Array  # across, in half-widths of the head at that height
    v: jax.Array  # down, in half-heights
    z: jax.Array  # towards the viewer
    u: jax.Array  # across the face
    front: jax.Array  # towards where the face looks
    radius: jax.Array  # 1 on the head's outline


def surface(left, center, who: Identity, yaw) -> Face:
    """Returns where each pixel of the head's window lies on a head turned by `yaw` (radians). left: the window's first
    column; center: the head's middle, both in px."""
    x, y = pixels(HEAD_WINDOW)
    v = (y + HEAD_TOP - EYE_ROW) / HALF_HEIGHT + EYE_V
    narrowing = 1.0 - who.jaw * jnp.square(jnp.maximum(v + 0.1, 0.0))
    across = (x + left - center) / (HALF_WIDTH * who.width * jnp.maximum(narrowing, 0.3))
    squared = across**2 + v**2 * (0.6 + 0.4 * v**2)  # rounder than an ellipse: crown and jaw are broad
    z = DEPTH * jnp.sqrt(jnp.maximum(1.0 - squared, 0.0))
    cos, sin = jnp.cos(yaw), jnp.sin(yaw)
    return Face(across, v, z, across * cos - z * sin, across * sin + z * cos, jnp.sqrt(squared))


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


def skin_shade(face, smile, who, yaw, light):
    """(brightness of the skin, shine on it) in each pixel."""
    normal = _normal(face, smile, who, yaw)
    facing = jnp.maximum(normal[0] * light[0] + normal[1] * light[1] + normal[2] * light[2], -0.2)
    return 0.56 + 0.46 * facing, 0.08 * jnp.square(jnp.square(jnp.maximum(facing, 0.0)))


def ears(skin, face, yaw, light) -> Layer:
    """Returns the ears, of the skin's color [3]; the far one of a turned head is hidden. light: its direction [3]."""
    ear = jnp.square((jnp.abs(face.x) - 0.99) / 0.14) + jnp.square((face.v - 0.02) / 0.19)
    hidden = jnp.sin(yaw) * jnp.sign(face.x) > 0.3  # the far ear of a turned head
    shade = 0.78 + 0.2 * light[0] * jnp.sign(face.x)
    return Layer(skin * jnp.array([0.95, 0.82, 0.78]), shade, edge(1.0 - ear, 0.8) * ~hidden)


def skin(skin, face, light) -> tuple[Layer, ...]:
    """Returns the head's skin, its blush and its shine; skin: color [3], light: what `skin_shade` gives, as below."""
    shade, shine = light
    head = edge(1.0 - face.radius, 0.09)
    au, v = jnp.abs(face.u), face.v
    cheeks = bell((au - 0.55) / 0.35, (v - 0.22) / 0.25)
    blush = 0.5 * cheeks + 0.4 * bell(au / 0.25, (v - 0.2) / 0.15)
    return (
        Layer(skin, shade, head),
        Layer(skin * jnp.array([1.0, 0.80, 0.78]), shade, head * blush),
        Layer(jnp.ones(3), 1.0, head * shine),
    )


def eyes(skin, hair, smile, face, who, light) -> tuple[Layer, ...]:
    """Returns eyes, lashes and brows; the eyes narrow with the smile, in [0, 1]."""
    shade, _ = light
    du, dv = (jnp.abs(face.u) - EYE_U) / who.eye_size, (face.v - EYE_V) / who.eye_size
    seen = _seen(face)
    arc = jnp.maximum(1.0 - jnp.square(du / 0.23), 0.0) * (1.0 - 0.25 * smile)
    top, bottom = -0.085 * arc, 0.060 * arc
    opening = edge(dv - top, 0.05) * edge(bottom - dv, 0.05) * edge(0.23 - jnp.abs(du), 0.06) * seen
    iris = jnp.sqrt(jnp.square(du / 0.115) + jnp.square((dv + 0.012) / 0.080))
    glint = bell((du + 0.03) / 0.08, (dv + 0.04) / 0.055)
    lash = edge(0.028 - jnp.abs(dv - top), 0.04) * edge(0.24 - jnp.abs(du), 0.06) * seen
    curve = -0.275 + 0.50 * jnp.square(du - 0.06) - 0.02 * smile
    brow = edge(who.brow - jnp.abs(face.v - curve), 0.06) * edge(0.27 - jnp.abs(du - 0.01), 0.10) * seen
    return (
        Layer(0.2 * skin, 1.0, 0.20 * seen * bell(du / 0.36, (dv + 0.02) / 0.17)),  # depth of the socket
        Layer(jnp.array([0.88, 0.86, 0.85]), 0.55 + 0.45 * shade, 0.9 * opening),
        Layer(who.eye_color, 0.4 + 0.6 * shade, opening * edge(1.0 - iris, 0.5)),
        Layer(jnp.full(3, 0.04), 1.0, opening * edge(0.5 - iris, 0.4)),
        Layer(jnp.ones(3), 1.0, 0.8 * glint * opening),
        Layer(0.25 * skin, 1.0, 0.8 * lash),
        Layer(0.75 * hair, 0.5 + 0.5 * shade, 0.75 * brow),
    )


def mouth(skin, smile, face, who, light) -> tuple[Layer, ...]:
    """Returns lips, teeth, nostrils and folds; the lips part with the smile, in [0, 1]."""
    shade, _ = light
    au, v, seen = jnp.abs(face.u), face.v, _seen(face)
    side = au / (0.29 + 0.16 * smile)
    arc = jnp.maximum(1.0 - side**2, 0.0)
    offset = v - (MOUTH_V + 0.02 - (0.13 * smile - 0.045) * side**2 + 0.02 * smile)
    gap = 0.10 * jnp.maximum(smile - 0.35, 0.0) * arc  # half the opening
    upper, lower = 0.055 * who.lips * jnp.sqrt(arc), 0.085 * who.lips * jnp.sqrt(arc)
    ends = edge(1.0 - side, 0.13) * seen
    lips = edge(offset + upper + gap, 0.05) * edge(gap + lower - offset, 0.05) * ends
    lip_color = skin * jnp.array([0.86, 0.58, 0.56])
    teeth = jnp.clip(gap / 0.015, 0.0, 1.0)
    between = edge(gap - jnp.abs(offset), 0.05) * ends * teeth
    parted = edge(0.020 - jnp.abs(offset), 0.04) * ends * (1.0 - teeth)
    nostril = bell((au - 0.095 * who.nose) / 0.085, (v - 0.285) / 0.055)
    fold = edge(0.03 - jnp.abs(au - 0.24 - 0.45 * (v - 0.25)), 0.06) * bell((v - 0.36) / 0.2, 0.0)
    return (
        Layer(lip_color, shade * jnp.where(offset < 0, 0.86, 1.04), 0.9 * lips),
        Layer(jnp.array([0.93, 0.91, 0.87]), 0.45 + 0.55 * shade, between),
        Layer(0.35 * lip_color, 1.0, 0.85 * parted),
        Layer(0.1 * skin, 1.0, seen * (0.45 * nostril + (0.06 + 0.16 * smile) * fold)),
    )


def beard(hair, beard, face, who, light) -> Layer:
    """Returns the beard: none, stubble, goatee or full for `beard` 0 to 3. hair: color [3]."""
    shade, _ = light
    au, v = jnp.abs(face.u), face.v
    jaw = edge(v - (0.60 - 0.62 * au**2), 0.12) * edge(au + v - 0.45, 0.15)
    moustache = edge(0.38 - au, 0.1) * edge(0.085 - jnp.abs(v - 0.385 - 0.15 * au**2), 0.06)
    chin = edge(0.30 - au, 0.1) * edge(v - 0.66, 0.08)
    sides = edge(0.05 - jnp.abs(au - 0.34), 0.06) * edge(0.15 - jnp.abs(v - 0.52), 0.1)
    goatee = jnp.maximum(jnp.maximum(moustache, chin), sides)
    mask = jnp.where(beard == 2, goatee, jnp.maximum(jaw, goatee)) * edge(1.0 - face.radius, 0.09)
    mask = mask * jnp.array([0.0, 0.42, 0.88, 0.92])[beard]
    texture = 0.75 + 0.09 * wave(6.4 * face.u + 0.8 * v + who.phase[0]) * wave(5.2 * v + who.phase[1])
    return Layer(0.8 * hair + 0.02, texture * (0.35 + 0.65 * shade), mask)


def front_hair(hair, length, face, who, light) -> Layer:
    """Returns the hair before the head: none, short, longer or long for `length` 0 to 3. light: its direction [3]."""
    u, v, au = face.u, face.v, jnp.abs(face.u)
    outline = edge(jnp.array([1.0, 1.06, 1.11, 1.13])[length] - face.radius, 0.09)
    temple = jnp.array([-2.0, 0.02, 0.45, 1.3])[length]
    fringe = who.hairline + 0.16 * jnp.square(u - who.parting) + 0.04 * wave(1.4 * u + who.phase[2])
    sides = who.hairline + (temple - who.hairline) * jnp.clip((au - 0.72) / 0.22, 0.0, 1.0)
    behind = jnp.minimum(temple + 0.25, 0.60) - 12.0 * jnp.maximum(face.front - 0.02, 0.0)
    line = jnp.maximum(jnp.maximum(fringe, sides), behind)
    along = (u - 0.5 * who.parting) / jnp.maximum(1.35 + v, 0.25)  # strands fan out from the crown
    waves = wave(2.7 * along + who.phase[0]) + 0.7 * wave(4.9 * along + 0.5 * v + who.phase[1])
    shine = bell((v + 0.70 - 0.25 * u**2) / 0.28, 0.45 * u)
    shade = 0.66 - 0.18 * v + 0.30 * light[0] * face.x + 0.12 * light[2]
    shade = shade * (0.82 + 0.09 * waves + 0.5 * shine)
    return Layer(hair, shade, outline * edge(line - v, 0.08) * (length >= 1))


def glasses(kind, face) -> tuple[Layer, ...]:
    """Returns lenses and frames: none, clear or dark for `kind` 0 to 2."""
    au, dv = jnp.abs(face.u), face.v - EYE_V - 0.01
    seen = jnp.clip(face.front / 0.15 + 0.6, 0.0, 1.0) * (face.radius < 1.05) * (kind > 0)
    shape = jnp.sqrt(jnp.sqrt(((au - EYE_U) / 0.30) ** 4 + (dv / 0.185) ** 4))
    rim = edge(0.13 - jnp.abs(shape - 1.0), 0.2)
    bridge = edge(0.2 - au, 0.08) * edge(0.03 - jnp.abs(dv + 0.06), 0.05)
    arm = edge(au - 0.78, 0.05) * edge(0.035 - jnp.abs(dv + 0.05), 0.05) * (face.radius < 1.0)
    frame = jnp.maximum(jnp.maximum(rim, bridge), arm)
    lens = edge(1.0 - shape, 0.25) * jnp.where(kind == 2, 0.93, 0.10)
    return (
        Layer(jnp.array([0.10, 0.09, 0.09]), 1.0 - 2.0 * dv, lens * seen),
        Layer(jnp.array([0.09, 0.07, 0.07]), 1.0, 0.85 * frame * seen),
    )


def hat(kind, face, who, light) -> tuple[Layer, ...]:
    """Returns a hat over the hair: none, knitted or with a brim for `kind` 0 to 2. light: its direction [3]."""
    x, v = face.x, face.v
    brow_line = -0.48 + 0.10 * x**2
    shade = 0.72 + 0.25 * light[2] + 0.35 * light[0] * x - 0.15 * (v + 0.7)
    crown = edge(jnp.where(kind == 2, 1.21, 1.15) - face.radius, 0.09) * edge(brow_line - v, 0.06)
    band = v > brow_line - 0.17
    knit = 1.0 + 0.10 * wave(4.1 * face.u) + 0.12 * band
    pattern = jnp.where(kind == 1, knit, jnp.where(band, 0.7, 1.0))
    brim = 1.0 - jnp.square(x / 1.6) - jnp.square((v - brow_line + 0.01) / 0.11)
    return (
        Layer(who.hat_color, shade * pattern, crown * (kind > 0)),
        Layer(who.hat_color, 0.9 * shade, edge(brim, 0.3) * (kind == 2)),
    )


def _seen(face):
    """1 on the front of the face, falling to 0 where it turns away."""
    return jnp.clip(face.front / 0.25, 0.0, 1.0)
