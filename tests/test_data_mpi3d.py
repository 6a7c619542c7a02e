"""Procedural MPI3D toy: contract, what each factor changes, geometry in closed form, real frames."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae.data.procedural import _solids, mpi3d

KEY = jax.random.key(0)
BATCH = 64  # every call is padded to this size: one compilation for all tests
BASE = (2, 1, 1, 1, 0, 10, 20)  # a large red cube, seen from the middle, purple ring


@pytest.fixture(scope="module")
def dataset():
    return mpi3d.procedural()


@pytest.fixture(scope="module")
def render(dataset):
    jitted = jax.jit(dataset.render)

    def call(factors, key=KEY):
        factors = np.asarray(factors, np.int32).reshape(-1, 7)
        padded = np.resize(factors, (-(-len(factors) // BATCH) * BATCH, 7))
        images = [np.asarray(jitted(jnp.asarray(b), key)) for b in padded.reshape(-1, BATCH, 7)]
        return np.concatenate(images)[: len(factors)]

    return call


def varied(factor, values, base=BASE):
    """Copies of `base` with `factor` set to each of `values`."""
    rows = np.tile(np.array(base, np.int32), (len(values), 1))
    rows[:, factor] = values
    return rows


def test_contract(dataset, render):
    assert dataset.name == "mpi3d" and dataset.source == "procedural" and dataset.deterministic
    assert dataset.factor_sizes == (6, 6, 2, 3, 3, 40, 40) and dataset.size == 1_036_800
    assert dataset.factor_names[3:5] == ("camera_height", "background_color")
    assert mpi3d.procedural() is dataset
    factors = np.asarray(dataset.sample_factors(jax.random.key(1), BATCH))
    images = render(factors)
    assert images.shape == (BATCH, 64, 64, 3) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    np.testing.assert_array_equal(images, render(factors, jax.random.key(7)))  # the key does not matter
    np.testing.assert_allclose(images[::-1], render(factors[::-1]), atol=1e-6)  # nor do the neighbors


@pytest.mark.parametrize("base", [BASE, (1, 5, 0, 0, 2, 35, 3)])
def test_every_value_of_every_factor_shows(dataset, render, base):
    sizes = dataset.factor_sizes
    rows = np.concatenate([varied(k, range(size), base) for k, size in enumerate(sizes)])
    images, start = render(rows).reshape(len(rows), -1), 0
    for name, size in zip(dataset.factor_names, sizes, strict=True):
        group = images[start : start + size]
        start += size
        apart = [np.abs(group[i] - group[j]).max() for i in range(size) for j in range(i)]
        assert min(apart) > 8 / 255, name


def test_background_changes_the_ring_alone(render):
    images = render(varied(4, range(3)))
    empty = np.ptp(images, axis=0).max(-1)
    ring = empty > 1 / 255
    assert 0.03 < ring.mean() < 0.12
    assert not ring[35:].any()  # the post's foot and the floor before it
    # The same two pixels of the ring in the real frames (medians over the frames of one background).
    real = [[(98, 74, 139), (70, 96, 92), (105, 75, 84)], [(94, 70, 134), (67, 92, 89), (101, 72, 80)]]
    for (row, column), colors in zip(((20, 22), (22, 52)), real, strict=True):
        assert ring[row, column]
        np.testing.assert_allclose(images[:, row, column] * 255, colors, atol=4)


def test_object_color_changes_the_object_alone(render):
    images = render(varied(0, range(6)))
    changed = np.ptp(images, axis=0).max(-1) > 1 / 255
    rows, columns = np.nonzero(changed)
    assert np.ptp(rows) < mpi3d.WINDOW and np.ptp(columns) < mpi3d.WINDOW and changed.sum() > 60
    inside = images[:, changed]
    red, green, blue = inside[2].T
    lit = red > 0.6
    assert lit.sum() > 20 and green[lit].max() < 0.1 and blue[lit].max() < 0.1
    white = inside[0][lit]
    assert np.ptp(white, axis=-1).max() < 0.02  # gray where the object is white


def test_floor_and_ring_lie_where_the_real_ones_do(render):
    images = render(varied(3, range(3), base=(2, 4, 0, 0, 1, 0, 0)))
    np.testing.assert_allclose(images[:, 45:, :20], 52 / 255, atol=1e-4)
    for image, row in zip(images, (14, 21, 32), strict=True):
        column = np.ptp(image[:, 22], axis=-1)  # left of the post, where the arm never is in this pose
        last = np.nonzero(column > 12 / 255)[0].max()
        assert abs(last + 1 - row) <= 1, (last + 1, row)


def sphere_outline(scene, camera, center, radius):
    """(left, right, top, bottom) in px of a sphere's outline seen by a pinhole camera, in closed form.

    Planes through the eye that touch the sphere are `asin(radius / distance)` off its center's direction.
    """
    distance, height, pitch, offset = scene.cameras[camera]
    x, y, z = center[0], center[1] + distance, center[2] - height
    depth = y * math.cos(pitch) - z * math.sin(pitch)
    down = -(y * math.sin(pitch) + z * math.cos(pitch))
    edges = []
    for position, middle in ((x, 32 + offset), (down, 32)):
        direction, half = math.atan2(position, depth), math.asin(radius / math.hypot(position, depth))
        edges += [middle + scene.focal * math.tan(direction + sign * half) for sign in (-1, 1)]
    return np.array(edges)


@pytest.mark.parametrize("camera", range(3))
def test_sphere_follows_the_arm(render, camera):
    """The sphere's outline, by trigonometry and a pinhole camera."""
    scene = mpi3d.ArmScene()
    poses = [(h, v) for h in (0, 13, 26, 39) for v in (0, 12, 20)]
    rows = np.array([[(0, 5, 1, camera, 0, h, v), (2, 5, 1, camera, 0, h, v)] for h, v in poses])
    images = render(rows).reshape(len(poses), 2, 64, 64, 3)
    weights = np.abs(images[:, 0] - images[:, 1]).sum(-1)
    compared = 0
    for (h, v), weight in zip(poses, weights, strict=True):
        azimuth = scene.horizontal[0] + (scene.horizontal[1] - scene.horizontal[0]) * h / 39
        elevation = scene.vertical[0] + (scene.vertical[1] - scene.vertical[0]) * v / 39
        sin, cos = math.sin(azimuth), math.cos(azimuth)
        reach = scene.arm_length * math.cos(elevation)
        center = (
            reach * cos - scene.arm_offset * sin,
            reach * sin + scene.arm_offset * cos,
            scene.joint_height + scene.arm_length * math.sin(elevation),
        )
        outline = sphere_outline(scene, camera, center, scene.radii[5])
        if outline[2] > 1:  # else the frame cuts the sphere
            down, across = np.nonzero(weight > 0.02)
            box = across.min(), across.max() + 1, down.min(), down.max() + 1  # of the pixels that it touches
            np.testing.assert_allclose(box, outline, atol=1.2)
            compared += 1
    assert compared >= 6


def test_small_objects_are_smaller(render):
    rows = np.array([[(c, 5, s, 1, 0, 12, 14) for c in (0, 2)] for s in (0, 1)])
    images = render(rows).reshape(2, 2, 64, 64, 3)
    small, large = (np.abs(pair[0] - pair[1]).max(-1) > 0.1 for pair in images)
    assert small.sum() / large.sum() == pytest.approx(mpi3d.ArmScene().small ** 2, abs=0.1)


def inside_numpy(shape, points, radius, height):
    """Whether points [N, 3] lie in a shape: its textbook definition."""
    x, y, z = points.T
    within = np.abs(z) <= height
    part = (height - z) / (2 * height)  # of the base that is left at this height, where there is an apex
    across = np.hypot(x, y)
    hexagon = [x * math.cos(a) + y * math.sin(a) for a in np.arange(6) * math.pi / 3]
    return {
        "cone": within & (across <= radius * part),
        "cube": (np.abs(points) <= radius).all(1),
        "cylinder": within & (across <= radius),
        "hexagonal prism": within & (np.max(hexagon, 0) <= radius),
        "pyramid": within & (np.maximum(np.abs(x), np.abs(y)) <= radius * part),
        "sphere": np.linalg.norm(points, axis=1) <= radius,
    }[shape]


def test_trace_meets_the_shapes_where_marching_does():
    scene = mpi3d.ArmScene()
    stacked = _solids.solids(scene.radii, scene.heights)
    rng = np.random.default_rng(0)
    trace = jax.jit(_solids.trace)
    steps = np.linspace(0.0, 1.0, 4001)
    for index, shape in enumerate(mpi3d.SHAPES):
        for _ in range(3):
            origin = rng.normal(size=3)
            origin *= 0.5 / np.linalg.norm(origin)
            aims = rng.uniform(-0.1, 0.1, (40, 3)) - origin
            solid = jax.tree.map(lambda table, index=index: table[index], stacked)
            rays = [jnp.asarray(row[None], jnp.float32) for row in aims.T]
            distance, normal = trace(solid, jnp.asarray(origin, jnp.float32), rays)
            path = origin + steps[:, None, None] * aims
            within = inside_numpy(shape, path.reshape(-1, 3), scene.radii[index], scene.heights[index])
            within = within.reshape(len(steps), -1)
            met = np.where(within.any(0), steps[within.argmax(0)], np.inf)
            grazing = within.sum(0) <= 3  # shorter than the marching can tell
            both = np.isfinite(met) & np.isfinite(distance)
            assert (np.isfinite(met) == np.isfinite(distance))[~grazing].all(), shape
            np.testing.assert_allclose(np.asarray(distance)[both], met[both], atol=2e-3)
            facing = sum(np.asarray(n) * a for n, a in zip(normal, aims.T, strict=True))
            assert (facing[both] < 1e-6).all(), shape  # the surface entered faces the viewer


def test_factors_of_the_wrong_width_are_named(dataset):
    with pytest.raises(ValueError, match="vertical_axis"):
        dataset.render(jnp.zeros((2, 5), jnp.int32), KEY)
