"""Procedural 3DShapes against real frames, and its rays against marching through the solids in numpy."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from causalvae.data import load
from causalvae.data.procedural import shapes3d

BATCH = 64
SIZES = (10, 10, 10, 8, 4, 15)
VIEWS = np.stack(np.meshgrid(range(8), range(4), range(15), indexing="ij"), -1).reshape(-1, 3)
PALETTE = np.array([colorsys.hsv_to_rgb(k / 10, 1, 1) for k in range(10)])
SKY = np.array([153, 226, 249]) / 255


@functools.cache
def dataset():
    return load("3dshapes", "procedural")


render = jax.jit(lambda data, factors, key: data.render(factors, key))


# Drawn tens of thousands of times: worth the compiling that the suite spares elsewhere.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})
def errors(data, factors, image, valid):
    """Sum of squared differences [N] from one frame, where it is valid."""
    squared = (data.render(factors, jax.random.key(0)) - image[None]) ** 2
    return (squared * valid[None, :, :, None]).sum((1, 2, 3))


def draw(factors):
    """Images [N, 64, 64, 3], in batches of one compiled size."""
    padded = np.resize(factors, (-(-len(factors) // BATCH), BATCH, 6))
    images = [render(dataset(), jnp.asarray(part, jnp.int32), jax.random.key(0)) for part in padded]
    return np.concatenate(images)[: len(factors)]


@pytest.fixture(scope="module")
def real(shared_data):
    with np.load(shared_data / "3dshapes" / "3dshapes_genuine_91.npz") as file:
        images, valid, index = file["images"] / 255, file["valid"], file["dataset_index"]
    factors = np.array([infer(image, mask) for image, mask in zip(images, valid, strict=True)])
    return images, valid, index, factors, draw(factors)


def nearest_hue(image):
    """Hue index [H, W] of each pixel, -1 where no pure hue comes near it."""
    unit = image / np.maximum(np.linalg.norm(image, axis=-1, keepdims=True), 1e-6)
    palette = PALETTE / np.linalg.norm(PALETTE, axis=1, keepdims=True)
    away = ((unit[:, :, None] - palette) ** 2).sum(-1)
    return np.where((away.min(-1) < 0.02) & (image.sum(-1) > 0.15), away.argmin(-1), -1)


def commonest(hues):
    return np.bincount(hues[hues >= 0], minlength=10).argmax()


def infer(image, valid):
    """The six factors of a frame: hues where surfaces are flat, the view by least squared error."""
    hues = np.where(valid, nearest_hue(image), -1)
    floor = commonest(np.concatenate([hues[48:, 1:12].ravel(), hues[48:, 50:].ravel()]))
    wall = commonest(np.concatenate([hues[24:36, 1:14].ravel(), hues[24:36, 48:].ravel()]))
    solid = commonest(hues[40:48, 29:35])
    candidates = np.concatenate([np.tile([floor, wall, solid], (len(VIEWS), 1)), VIEWS], axis=1)
    return candidates[errors(dataset(), jnp.asarray(candidates, jnp.int32), image, valid).argmin()]


def psnr(drawn, images, valid):
    squared = ((drawn - images) ** 2 * valid[..., None]).sum((1, 2, 3)) / (3 * valid.sum((1, 2)))
    return -10 * np.log10(squared)


def bounding_box(image, hues):
    """First and last row and column of the connected region of the object's color around its middle."""
    colors = np.concatenate([PALETTE[hues], SKY[None]])  # floor, wall, object, sky
    colors /= np.linalg.norm(colors, axis=1, keepdims=True)
    regions, _ = ndimage.label((image @ colors.T).argmax(-1) == 2)
    rows, columns = np.nonzero(regions == regions[46, 32])
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()])


def test_factors_of_labeled_frames_are_inferred_exactly(real):
    _, _, index, factors, _ = real
    labeled = index >= 0
    assert labeled.sum() == 16
    np.testing.assert_array_equal(np.ravel_multi_index(factors[labeled].T, SIZES), index[labeled])


def test_real_frames_are_matched(real):
    images, valid, index, _, drawn = real
    quality = psnr(drawn, images, valid)
    assert quality[index >= 0].mean() >= 24
    assert quality[index < 0].mean() >= 24
    assert quality.min() >= 22


def test_bounding_boxes_of_objects(real):
    images, valid, _, factors, drawn = real
    checked = 0
    for image, mask, row, own in zip(images, valid, factors, drawn, strict=True):
        apart = np.abs(row[:2] - row[2])
        if np.minimum(apart, 10 - apart).min() < 2:
            continue  # the object's hue is too near that of floor or wall to tell where it ends
        checked += 1
        box = bounding_box(np.where(mask[:, :, None], image, SKY), row[:3])
        np.testing.assert_allclose(bounding_box(own, row[:3]), box, atol=2, err_msg=str(row))
    assert checked > 40


def test_hues_in_flat_areas(real):
    images, valid, _, factors, drawn = real
    hues = np.array([nearest_hue(image) for image in drawn])
    for surface, region in ((0, np.s_[50:62, 2:8]), (1, np.s_[24:34, 2:8])):
        for image, mask, own, hue, row in zip(images, valid, drawn, hues, factors, strict=True):
            flat = mask[region] & (hue[region] == row[surface])
            for frame in (image, own):
                colors = frame[region][flat]
                colors = colors[colors.max(-1) < 250 / 255]  # not saturated, where hue is lost
                if len(colors) >= 10:
                    pure = np.median(colors / colors.max(-1, keepdims=True), axis=0)
                    np.testing.assert_allclose(pure, PALETTE[row[surface]], atol=2 / 255)


def test_fronts_of_cubes_have_the_real_color(real):
    images, _, _, factors, drawn = real
    fronts = [i for i, row in enumerate(factors) if row[4] == 0 and 5 <= row[5] <= 9]
    assert len(fronts) >= 5
    for i in fronts:
        front = np.s_[43:50, 28:35]
        difference = np.median(drawn[i][front], (0, 1)) - np.median(images[i][front], (0, 1))
        assert np.abs(difference).max() <= 4 / 255


# Index in the set of a real frame -> its object's bounding box (or None where hues are too near), and the means of
# 4x4 blocks of its middle 60x60 pixels as bytes. One frame of each shape.
LABELED = {
    294060: (None, "9ddfef99e2f999e2f999e1f7f59301e39613c9952cab6f109d8359b8dc1bb1df00685b44007cff65af7c65a65f025ada"),
    430518: (
        (26, 57, 19, 44),
        "9bdef799e3f999e2f999e2f9ff009fa532bd9338b6b91e84ed00c13261ef1a4cd2a3008af800ff733ef94931cfa500ce",
    ),
    226657: (
        (34, 52, 22, 41),
        "99e3f999e3f999e3f999e3f93a0aff3a0aff370afd350af72069c1829e7676936f1d4daf00ff7b1ce0551ccd4600e85d",
    ),
    118308: (
        (18, 52, 23, 40),
        "96e3f699e2f999e2f999e2f900ff6a12c0b115aead14c26251fa432fa8a81f8e913eb229f8ff00b4d32185ae20b5e300",
    ),
}
FRONTS = {  # factors of frames with a cube -> the median color of its front, in 1/255
    (5, 2, 5, 4, 0, 8): (0, 242, 242),
    (4, 5, 8, 1, 0, 5): (192, 0, 241),
    (4, 4, 3, 1, 0, 6): (48, 242, 0),
    (4, 4, 9, 5, 0, 6): (242, 0, 145),
}


def one_step_away(factors):
    """The factors, then every combination that differs by one step of one factor; hues are a circle."""
    rows = factors + np.concatenate([np.zeros((1, 6), int), np.eye(6, dtype=int), -np.eye(6, dtype=int)])
    rows[:, :3] %= 10
    return rows[((rows >= 0) & (rows < SIZES)).all(axis=1)]


@pytest.mark.parametrize("index", LABELED)
def test_real_frames_by_the_means_of_their_blocks(index):
    box, means = LABELED[index]
    rows = one_step_away(np.array(np.unravel_index(index, SIZES)))
    images = draw(rows)
    drawn = images[:, 2:62, 2:62].reshape(-1, 4, 15, 4, 15, 3).mean(axis=(2, 4))
    real = np.frombuffer(bytes.fromhex(means), np.uint8).reshape(4, 4, 3) / 255
    error = np.sqrt(((drawn - real) ** 2).mean(axis=(1, 2, 3)))
    assert error[0] < 5 / 255 and error.argmin() == 0, dict(zip(map(tuple, rows), error))
    if box is not None:
        np.testing.assert_allclose(bounding_box(images[0], rows[0, :3]), box, atol=2)


def test_fronts_of_cubes_have_the_stored_real_color():
    fronts = draw(np.array(list(FRONTS)))[:, 43:50, 28:35]
    np.testing.assert_allclose(255 * np.median(fronts, axis=(1, 2)), list(FRONTS.values()), atol=4)


def test_hue_to_rgb_equals_colorsys():
    own = jax.vmap(shapes3d.hue_to_rgb)(jnp.arange(10))
    np.testing.assert_allclose(own, PALETTE, atol=1e-6)


def test_each_hue_colors_its_own_surface_only():
    base = np.array([1, 4, 8, 4, 2, 3])
    variants = np.tile(base, (4, 1))
    variants[1:, :3] += np.diag([3, 3, -2])
    images = draw(variants)
    changed = [(np.abs(image - images[0]) > 0.02).any(-1) for image in images[1:]]
    floor, wall, solid = changed
    assert floor[60].all() and not floor[:38].any()
    assert wall[30, :8].all() and not wall[45:].any()
    assert solid[45, 32] and not solid[:, :12].any()
    assert np.mean((floor & wall) | (floor & solid) | (wall & solid)) < 0.05  # only edges are shared
    np.testing.assert_allclose(images[:, :12], np.broadcast_to(SKY, (4, 12, 64, 3)), atol=2e-3)


def test_images_lie_in_the_unit_interval_and_do_not_depend_on_the_key():
    factors = dataset().sample_factors(jax.random.key(3), BATCH)
    images = render(dataset(), factors, jax.random.key(1))
    assert images.shape == (BATCH, 64, 64, 3) and images.dtype == jnp.float32
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    np.testing.assert_array_equal(images, render(dataset(), factors, jax.random.key(2)))


def test_no_half_precision_is_asked_of_a_processor():
    """Those without F16C cannot convert it."""
    program = jax.make_jaxpr(dataset().render)(np.zeros((1, 6), np.int32), jax.random.key(0))
    assert "f16" not in str(program)


def inside(shape, point, radius, height):
    """Whether points [..., 3] lie in a solid that stands on the origin."""
    x, y, z = np.moveaxis(point, -1, 0)
    if shape == 0:
        return (np.abs(x) < radius) & (np.abs(y) < radius) & (z > 0) & (z < height)
    if shape == 1:
        return (x**2 + y**2 < radius**2) & (z > 0) & (z < height)
    middle = radius if shape == 2 else np.clip(z, radius, height - radius)
    return x**2 + y**2 + (z - middle) ** 2 < radius**2


@pytest.mark.parametrize("shape", range(4))
def test_rays_meet_solids_where_marching_along_them_does(shape):
    rng = np.random.default_rng(shape)
    scene, scale = shapes3d.RoomScene(), 4
    size = 1 + scene.growth * scale / 7
    radius, height = scene.radius[shape] * size, scene.height[shape] * size
    origins = rng.normal(size=(200, 3)) * [1, 1, 0.3] + [0, -5, 2.5]
    aims = rng.uniform([-1.3, -1.3, 0], [1.3, 1.3, 4], size=(200, 3))
    directions = (aims - origins) / np.linalg.norm(aims - origins, axis=1, keepdims=True)
    hit = jax.jit(jax.vmap(lambda o, d: shapes3d.hit_object(scene, scale, shape, shapes3d.Ray(o, d))))
    distance, normal = map(np.asarray, hit(jnp.float32(origins), jnp.float32(directions)))

    steps = np.arange(0, 12, 2e-3)
    within = inside(shape, origins[:, None] + steps[:, None] * directions[:, None], radius, height)
    met = within.any(1)
    first = steps[within.argmax(1)]
    grazing = within.sum(1) < 10
    assert 40 < met.sum() < 200
    np.testing.assert_array_equal((distance < shapes3d.FAR)[~grazing | ~met], met[~grazing | ~met])
    np.testing.assert_allclose(distance[met & ~grazing], first[met & ~grazing], atol=4e-3)
    sure = met & ~grazing
    np.testing.assert_allclose(np.linalg.norm(normal[sure], axis=1), 1, atol=1e-4)
    point = origins[sure] + distance[sure, None] * directions[sure]
    assert inside(shape, point - 0.01 * normal[sure], radius, height).mean() > 0.97  # edges of lids and faces
    assert not inside(shape, point + 0.01 * normal[sure], radius, height).any()


def test_shadow_is_where_the_object_hides_the_light():
    scene = shapes3d.RoomScene()

    def look(right, down):
        return shapes3d.trace(scene, 5, 2, *shapes3d.camera(scene, 7, right, down))

    trace = jax.jit(jax.vmap(look))
    grid = np.stack(np.meshgrid(np.linspace(-0.25, 0.25, 40), np.linspace(0.15, 0.36, 20)), -1).reshape(-1, 2)
    room, solid = map(np.asarray, trace(*jnp.asarray(grid.T, jnp.float32)))
    assert (room[:, 0] == 1).all()  # all floor
    # The same floor points, from the pinhole camera's equations.
    cos, sin = np.cos(scene.camera_pitch), np.sin(scene.camera_pitch)
    ahead, drop = cos - grid[:, 1] * sin, sin + grid[:, 1] * cos
    depth = scene.camera_height / drop
    floor = np.stack([grid[:, 0] * depth, ahead * depth - scene.camera_distance, 0 * depth], 1)
    light = np.array(scene.key_light)
    radius = scene.radius[2] * (1 + scene.growth * 5 / 7)
    center = np.array([0, scene.object_distance - scene.camera_distance, radius])
    towards = (light - floor) / np.linalg.norm(light - floor, axis=1, keepdims=True)
    along = ((center - floor) * towards).sum(1, keepdims=True)
    miss = np.linalg.norm(floor + along * towards - center, axis=1)
    clear = np.abs(miss - radius) > 1e-2
    np.testing.assert_array_equal((solid[:, 3] < 1)[clear], (miss < radius)[clear])
    assert 20 < (miss < radius).sum() < 700
