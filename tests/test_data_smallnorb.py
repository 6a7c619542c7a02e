"""Procedural SmallNORB: contract, instances under interventions, projected areas and light in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae.data.procedural import _toys, smallnorb

KEY = jax.random.key(0)
BATCH = 60  # every call has this size: one compilation for all tests


@pytest.fixture(scope="module")
def dataset():
    return smallnorb.procedural()


def batched(function, factors, *others):
    factors = np.asarray(factors, np.int32).reshape(-1, 4)
    count = len(factors)
    total = -(-count // BATCH) * BATCH
    padded = [np.resize(a, (total, *a.shape[1:])) for a in (factors, *map(np.asarray, others))]
    blocks = zip(*(a.reshape(-1, BATCH, *a.shape[1:]) for a in padded), strict=True)
    return np.concatenate([np.asarray(function(*map(jnp.asarray, block))) for block in blocks])[:count]


@pytest.fixture(scope="module")
def render(dataset):
    jitted = jax.jit(dataset.render)
    return lambda factors, key=KEY: batched(lambda block: jitted(block, key), factors)


@pytest.fixture(scope="module")
def draw(dataset):
    """Noiseless images [N, 64, 64] of given instances."""
    jitted = jax.jit(jax.vmap(smallnorb.render_instance, (None, 0, 0)))
    return lambda factors, instances: batched(lambda f, i: jitted(dataset.arrays, f, i), factors, instances)


@pytest.fixture(scope="module")
def cover():
    """Coverage [N, 64, 64] of toys (leading axis) from cameras (rows of elevation and azimuth indices)."""
    return jax.jit(jax.vmap(smallnorb.coverage, (None, 0, 0)))


def test_contract(dataset, render):
    assert dataset.name == "smallnorb" and dataset.source == "procedural" and not dataset.deterministic
    assert dict(zip(dataset.factor_names, dataset.factor_sizes, strict=True)) == {
        "category": 5,
        "elevation": 9,
        "azimuth": 18,
        "lighting": 6,
    }
    assert smallnorb.procedural() is dataset
    factors = np.asarray(dataset.sample_factors(jax.random.key(1), BATCH))
    images = render(factors)
    assert images.shape == (BATCH, 64, 64, 1) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    np.testing.assert_array_equal(images, render(factors))
    other = render(factors, jax.random.key(2))
    assert np.abs(images - other).max((1, 2, 3)).min() > 2 / 255  # another key, other instances and noise


def test_every_value_of_every_factor_shows(dataset, draw):
    for instance in (0, 7):
        for name, k, size in zip(dataset.factor_names, range(4), dataset.factor_sizes, strict=True):
            rows = np.tile([[4, 3, 5, 2]], (size, 1))
            rows[:, k] = range(size)
            images = draw(rows, np.full(size, instance))
            apart = [np.abs(images[i] - images[j]).max() for i in range(size) for j in range(i)]
            assert min(apart) > 0.05, name


def test_instances_differ(draw):
    for category in range(5):
        images = draw(np.tile([[category, 4, 2, 0]], (10, 1)), np.arange(10))
        apart = [np.abs(images[i] - images[j]).mean() for i in range(10) for j in range(i)]
        assert min(apart) > 1 / 255, smallnorb.CATEGORIES[category]


def test_counterfactuals_keep_the_instance(dataset, render, draw):
    """Whatever is set to whatever, row n shows one and the same of the ten toys, and with the same noise."""
    factors = np.array(dataset.sample_factors(jax.random.key(3), 12))
    factors[:, 0] = np.arange(12) % 5
    found, noise = [], []
    for factor, value in ((None, None), (1, 8), (2, 11), (3, 4)):
        changed = factors.copy()
        if factor is not None:
            changed = np.array(dataset.intervene(jnp.asarray(factors), factor, jnp.full(12, value), KEY))
            assert (changed[:, factor] == value).all()
        images = render(np.resize(changed, (BATCH, 4)))[:12, ..., 0]
        clean = draw(np.repeat(changed, 10, 0), np.tile(np.arange(10), 12)).reshape(12, 10, 64, 64)
        distance = np.abs(images[:, None] - clean).mean((2, 3))
        found.append(distance.argmin(1))
        noise.append(images - clean[np.arange(12), found[-1]])
        assert (distance.min(1) < 2 / 255).all()
    assert (np.array(found) == found[0]).all() and len(set(found[0])) > 3
    for other in noise[1:]:
        unclipped = (np.abs(noise[0]) > 0) & (np.abs(other) > 0) & (np.abs(noise[0] - other) < 0.5 / 255)
        assert unclipped.mean() > 0.9


def test_table_is_uniform_and_set_by_the_lighting(render):
    grays = []
    for lighting in range(6):
        factors = np.array([[c, 4, a, lighting] for c in range(5) for a in range(0, 18, 2)])
        images = render(factors)[..., 0] * 255
        border = np.concatenate([images[:, :2].ravel(), images[:, :, :2].ravel()])
        grays.append(np.median(border))
        corner = images[:, :6, :6]
        assert 0.8 < np.median(corner.std((1, 2))) < 2.5
    assert min(grays) == pytest.approx(129, abs=4) and max(grays) == pytest.approx(251, abs=4)
    assert np.diff(np.sort(grays)).min() > 5


def test_toys_cover_a_tenth_to_a_quarter_of_the_frame(dataset, cover):
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, size, 600) for size in dataset.factor_sizes], -1)
    masks = batched(lambda f, i: cover(dataset.arrays, f, i), factors, rng.integers(0, 10, 600))
    areas = masks.mean((1, 2))
    assert np.quantile(areas, 0.05) > 0.09 and np.quantile(areas, 0.99) < 0.24
    assert areas.min() > 0.06 and 0.14 < np.median(areas) < 0.19
    margin = (64 - _toys.WINDOW) // 2
    edge = np.zeros((64, 64), bool)
    edge[margin, margin:-margin] = edge[-margin - 1, margin:-margin] = True
    edge |= edge.T
    assert masks[:, edge].max() < 0.1  # the window that toys are drawn in cuts none of them off


def single_body(kind, linear, dataset):
    """Arrays whose toys are all one body, 15 px per unit, its center at the camera's target."""
    away = np.array([0, 0, -1e3])
    groups = []
    for name, count in (
        ("ellipsoid", _toys.NUM_ELLIPSOIDS),
        ("box", _toys.NUM_BOXES),
        ("cylinder", _toys.NUM_CYLINDERS),
    ):
        linears = np.stack([linear if name == kind and i == 0 else 0.01 * np.eye(3) for i in range(count)])
        centers = np.stack([np.zeros(3) if name == kind and i == 0 else away for i in range(count)])
        groups.append(_toys.Bodies(np.linalg.inv(linears), centers))
    toy = _toys.Toy(*groups, np.array(0.0), np.array(15.0))
    toys = jax.tree.map(lambda leaf: jnp.full((5, 10, *leaf.shape), leaf, jnp.float32), toy)
    return {"toys": toys, "lightings": dataset.arrays["lightings"]}


def view_numpy(elevation, azimuth):
    """Direction from the object to the viewer in the frame of a toy turned by `azimuth` (degrees)."""
    e, a = np.radians(elevation), np.radians(azimuth)
    towards = np.array([0.0, -np.cos(e), np.sin(e)])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return turn.T @ towards


def projected_area(kind, halves, view):
    """Area of the shadow of an axis-aligned body on a plane across `view`: textbook formulas."""
    a, b, c = halves
    if kind == "ellipsoid":
        return np.pi * np.sqrt((b * c * view[0]) ** 2 + (a * c * view[1]) ** 2 + (a * b * view[2]) ** 2)
    if kind == "box":
        return 4 * (b * c * abs(view[0]) + a * c * abs(view[1]) + a * b * abs(view[2]))
    return 4 * a * c * np.sqrt(1 - view[2] ** 2) + np.pi * a**2 * abs(view[2])


@pytest.mark.parametrize(
    "kind, halves",
    [("ellipsoid", (1.2, 0.5, 0.3)), ("box", (1.0, 0.6, 0.3)), ("cylinder", (0.7, 0.7, 0.6))],
)
def test_projected_areas(dataset, cover, kind, halves):
    views = [(e, a) for e in range(0, 9, 2) for a in range(0, 18, 2)]
    factors = np.array([(0, e, a, 0) for e, a in views])
    arrays = single_body(kind, np.diag(halves), dataset)
    areas = batched(lambda f, i: cover(arrays, f, i), factors, np.zeros(len(views), int)).sum((1, 2))
    expected = [projected_area(kind, halves, view_numpy(30 + 5 * e, 20 * a)) * 15.0**2 for e, a in views]
    np.testing.assert_allclose(areas, expected, rtol=0.025)


def test_brightness_of_a_sphere_is_lamberts(dataset):
    arrays = single_body("ellipsoid", np.eye(3), dataset)
    image = np.asarray(
        jax.jit(jax.vmap(smallnorb.render_instance, (None, 0, 0)))(
            arrays, jnp.array([[0, 4, 0, light] for light in range(6)], jnp.int32), jnp.zeros(6, jnp.int32)
        )
    )
    elevation = np.radians(50.0)
    right, up = np.array([1.0, 0, 0]), np.array([0, np.sin(elevation), np.cos(elevation)])
    towards = np.array([0, -np.cos(elevation), np.sin(elevation)])
    for light in range(6):
        key, key_power, second, second_power, ambient, _ = smallnorb.LIGHTINGS[light]
        for x, y in ((0.5, 0.5), (6.5, -4.5), (-7.5, 5.5)):
            u, v = x / 15, y / 15
            normal = right * u + up * v + towards * np.sqrt(1 - u * u - v * v)
            lamps = key_power * max(normal @ key, 0) + second_power * max(normal @ second, 0)
            expected = smallnorb.REFLECTANCE * (lamps + ambient * (0.65 + 0.35 * normal[2]))
            assert image[light, int(32 - y), int(32 + x)] == pytest.approx(expected, abs=0.02)


def test_shadows_fall_away_from_the_lamp(draw):
    """Beside the toy, the table is darker on the side that the key lamp does not stand on."""
    lamp_side = [np.sign(lighting[0][0]) for lighting in smallnorb.LIGHTINGS]
    for light in (0, 2):  # lamps well to the left and to the right
        images = draw([[4, 0, a, light] for a in range(18)], np.zeros(18, int))
        left, right = images[:, 34:52, :8].mean(), images[:, 34:52, -8:].mean()
        assert np.sign(left - right) == lamp_side[light] * -1 or abs(left - right) < 1e-3
        dark = images.min((1, 2)) < smallnorb.LIGHTINGS[light][5] / 255 * 0.75
        assert dark.all()


def test_a_toy_with_too_many_bodies_is_refused():
    ball = _toys._ball((0, 0, 0.5), (0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="13 ellipsoids; its tables hold 12"):
        _toys._assemble([ball] * 13)
