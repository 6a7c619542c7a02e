"""The toys of procedural SmallNORB: handfuls of ellipsoids, boxes and cylinders, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

INSTANCES = 10  # per category
SEED = 2004

SIZE = 64
WINDOW = 52  # the toy's part of the frame, px
NUM_ELLIPSOIDS, NUM_BOXES, NUM_CYLINDERS = 12, 6, 4
MEAN_AREA = 0.174  # of the frame, over views; sets each toy's scale


class Bodies(NamedTuple):
    """Affine bodies: point p is in local coordinates `inverse @ (p - center)`."""

    inverse: Any  # [..., 3, 3]
    center: Any  # [..., 3]


class Toy(NamedTuple):
    """One toy in its own frame: x forward, z up, standing on z = 0."""

    ellipsoids: Bodies
    boxes: Bodies
    cylinders: Bodies
    middle: Any  # height that the camera aims at
    scale: Any  # px per unit


Body = tuple[str, np.ndarray, np.ndarray]  # kind, center [3], linear map [3, 3] of the unit body


def all_toys() -> Toy:
    """Returns all toys, with leading axes [category, instance]."""
    toys = [
        [_assemble(build(np.random.default_rng((SEED, category, i)))) for i in range(INSTANCES)]
        for category, build in enumerate(BUILDERS)
    ]
    flat = [toy for row in toys for toy in row]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *flat)
    shape = (len(BUILDERS), INSTANCES)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]).astype(np.float32), stacked)


def _assemble(bodies: list[Body]) -> Toy:
    """A toy of `bodies`, centered over the table and scaled to cover MEAN_AREA of the frame on average."""
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
    ellipsoids, boxes, cylinders = groups
    return Toy(ellipsoids, boxes, cylinders, np.array(middle), np.array(scale))


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


# --- what the toys are made of --------------------------------------------------------------------------


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
