"""Procedural dSprites against real frames, and its raster against a scanline fill in plain Python."""

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae.data import load
from causalvae.data.procedural import dsprites

BATCH = 1536
WELL = {"xla_backend_optimization_level": 1}  # tens of thousands of images: worth the compiling that the suite spares
render = jax.jit(lambda dataset, factors: dataset.render(factors, jax.random.key(0))[..., 0], compiler_options=WELL)
fill = jax.jit(dsprites.fill_polygon)
SUB_GRID = (1, 1, 4, 2, 2)


def draw(dataset, factors):
    """Images [N, 64, 64] uint8, in batches of one compiled size."""
    padded = np.concatenate([factors, np.zeros((-len(factors) % BATCH, 5), int)]).reshape(-1, BATCH, 5)
    images = [np.uint8(render(dataset, jnp.asarray(part, jnp.int32))) for part in padded]
    return np.concatenate(images)[: len(factors)]


def test_real_frames_to_the_pixel(shared_data):
    real = np.load(shared_data / "dsprites" / "dsprites_genuine_subgrid_46080.npz")
    dataset = load("dsprites", "procedural", strides=SUB_GRID)
    assert dataset.factor_sizes == (3, 6, 10, 16, 16) and dataset.size == len(real["imgs"]) == 46_080
    images = draw(dataset, real["latents_classes"])
    wrong_pixels = (images != real["imgs"]).sum((1, 2))
    assert wrong_pixels.max() <= 2
    assert (wrong_pixels > 0).sum() <= 0.005 * len(images)


def test_real_frames_are_found_at_their_indices_in_the_full_set(shared_data):
    real = np.load(shared_data / "dsprites" / "dsprites_genuine_subgrid_46080.npz")
    rows = np.random.default_rng(0).choice(46_080, BATCH, replace=False)
    dataset = load("dsprites", "procedural")
    indices = real["original_dataset_indices"][rows]
    factors = np.stack(np.unravel_index(indices, dataset.factor_sizes), axis=1)
    wrong_pixels = (draw(dataset, factors) != real["imgs"][rows]).sum((1, 2))
    assert (wrong_pixels > 0).sum() <= 0.005 * BATCH


# Index in the full set -> SHA-256 of a real frame's packed pixels (16 digits): every shape at four scales. Their
# vertices keep 3e-4 of a unit away from where they would be snapped to another one.
GENUINE = {
    28690: "e199172d7019aec1",
    115136: "ffc061067cad86b1",
    168082: "799018502165f305",
    230224: "5a11fa7272c1fa3a",
    262480: "252cff71d496602c",
    348190: "64c2af9ff110282e",
    422790: "6bf609ffd0252bc1",
    459332: "62496ee419a0a98c",
    529364: "44a321738585b151",
    602138: "fc03ef69034d4451",
    688398: "9402a47553ee29c8",
    700804: "31b914df11938e57",
}


@pytest.mark.parametrize("strides", [(1, 1, 1, 1, 1), SUB_GRID])
def test_real_frames_by_their_digests(strides):
    dataset = load("dsprites", "procedural", strides=strides)
    factors = np.stack(np.unravel_index(list(GENUINE), (3, 6, 40, 32, 32)), axis=1)
    images = draw(dataset, factors // strides)
    digests = [hashlib.sha256(np.packbits(image).tobytes()).hexdigest()[:16] for image in images]
    assert digests == list(GENUINE.values())


def scanline(polygon):
    """Even-odd fill [64, 64] of a polygon [V, 2] in units of 1/256 px, in exact rational arithmetic."""
    image = np.zeros((64, 64), np.uint8)
    for row in range(64):
        y = 256 * row + 128
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            x0, y0, x1, y1 = int(x0), int(y0), int(x1), int(y1)
            if min(y0, y1) < y <= max(y0, y1):
                run, rise = x1 - x0, y1 - y0
                crossing = (x0 - 128) * rise + (y - y0) * run  # over `rise`
                column = -(-crossing // (256 * rise))  # rounded up
                image[row, max(column, 0) :] ^= 1
    return image


def test_fill_polygon_equals_a_scanline_fill():
    rng = np.random.default_rng(1)
    for _ in range(40):
        polygon = rng.integers(20 * 256, 48 * 256, size=(4, 2))
        np.testing.assert_array_equal(fill(*jnp.asarray(polygon.T, jnp.int32)), scanline(polygon))


def test_vertices_on_pixel_centers_belong_to_the_left_and_bottom_edges():
    corners = 256 * np.array([[20, 20], [30, 20], [30, 30], [20, 30]]) + 128  # on centers of pixels 20 and 30
    filled = fill(*jnp.asarray(corners.T, jnp.int32))
    expected = np.zeros((64, 64))
    expected[21:31, 20:30] = 1
    np.testing.assert_array_equal(filled, expected)


def test_area_center_and_symmetry():
    dataset = load("dsprites", "procedural")
    square, ellipse = (np.array([[shape, 5, k, 16, 16] for k in (0, 10, 39)]) for shape in (0, 1))
    # Vertices are 0.3 * 32 px from the center at scale 1; an ellipse of semi-axes 1.33 r and r / 1.33.
    for factors, area in ((square, 19.2**2), (ellipse, math.pi * 9.6**2)):
        images = draw(dataset, factors)
        np.testing.assert_allclose(images.sum((1, 2)), area, rtol=0.03)
        rows, columns = np.nonzero(images[0])
        np.testing.assert_allclose([rows.mean() + 0.5, columns.mean() + 0.5], 16 + 32 * 16 / 31, atol=0.5)
        np.testing.assert_array_equal(images[0], images[2])  # 0 and 2 pi are the same orientation


def test_position_moves_right_and_down():
    dataset = load("dsprites", "procedural")
    images = draw(dataset, np.array([[2, 3, 7, 0, 0], [2, 3, 7, 31, 0], [2, 3, 7, 0, 31]]))
    np.testing.assert_array_equal(np.roll(images[0], 32, axis=1), images[1])
    np.testing.assert_array_equal(np.roll(images[0], 32, axis=0), images[2])


@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 1, 0, 1, 1), (1, 1, 1.5, 1, 1)])
def test_strides_that_make_no_grid_are_refused(strides):
    with pytest.raises(ValueError, match="strides must be 5 positive integers"):
        load("dsprites", "procedural", strides=strides)
