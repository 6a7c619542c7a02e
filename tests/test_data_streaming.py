"""Streamed sets give, bit for bit, what device-resident sets give: in jit, vmap and scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import real_files as real

from causalvae import data
from causalvae.data.real import stored, streaming

KEY = jax.random.key(7)


@functools.cache
def both_residencies(name, folder):
    return tuple(data.load(name, source="real", data_dir=folder, residency=r) for r in ("device", "stream"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder per data set: a plain grid, one with instances, one with attributes only."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("dsprites", "smallnorb", "celeba")}
    real.write_dsprites_npz(made["dsprites"])
    real.write_smallnorb(made["smallnorb"], sizes=(2, 2, 1, 2))
    real.write_celeba(made["celeba"])
    return made


@pytest.fixture(params=["dsprites", "smallnorb", "celeba"])
def pair(request, folders):
    """(device-resident, streamed) forms of one set."""
    return both_residencies(request.param, folders[request.param])


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_streamed_sets_hold_no_images_on_the_device(pair):
    resident, streamed = pair
    assert "images" in resident.arrays and "images" not in streamed.arrays
    assert resident.describe()["residency"] == "device" and streamed.describe()["residency"] == "stream"


def test_sample_in_jit_vmap_and_scan(pair):
    @jax.jit
    def everywhere(dataset, key):
        keys = jax.random.split(key, 3)
        sample = functools.partial(dataset.sample, num=8)
        return jax.vmap(sample)(keys), jax.lax.scan(lambda n, k: (n, sample(k)), None, keys)[1]

    resident, streamed = pair
    in_vmap, in_scan = everywhere(resident, KEY)
    assert_same(in_vmap, in_scan)
    assert_same((in_vmap, in_scan), everywhere(streamed, KEY))


def test_interventions_and_gradients_through_other_arguments(folders):
    resident, streamed = both_residencies("smallnorb", folders["smallnorb"])

    @jax.jit
    @jax.grad
    def gradient(weight, dataset, key):
        factors = jnp.zeros((8, dataset.num_factors), jnp.int32)
        changed = dataset.intervene(factors, "category", 1 - factors[:, 0], key)
        return jnp.sum((weight * dataset.render(changed, key)) ** 2)

    assert gradient(2.0, streamed, KEY) == gradient(2.0, resident, KEY) != 0


def test_eagerly_and_out_of_range(folders):
    resident, streamed = both_residencies("dsprites", folders["dsprites"])
    outside = jnp.array([[-1, 0, 0, 0, 0], [0, 0, 9, 0, 7]])
    inside = jnp.array([[0, 0, 0, 0, 0], [0, 0, 3, 0, 1]])
    images = resident.render(outside, KEY)
    assert_same(images, streamed.render(outside, KEY))
    assert_same(images, resident.render(inside, KEY))


def test_reading_ahead_keeps_the_order_and_passes_errors_on():
    assert list(streaming.read_ahead(lambda number: number**2, range(40))) == [n**2 for n in range(40)]

    def fail(_):
        raise OSError("the disk is gone")

    with pytest.raises(Exception, match="the disk is gone"):
        list(streaming.read_ahead(fail, range(3)))


def test_a_set_on_the_device_is_not_read_ahead(folders):
    resident, streamed = both_residencies("dsprites", folders["dsprites"])
    assert streaming.streamed_images(resident) is None and streaming.streamed_images(streamed) is not None
    with pytest.raises(ValueError, match="dsprites is not streamed"):
        streaming.locating(resident)


def test_a_set_loaded_twice_is_compiled_once(folders):
    traced = []

    @jax.jit
    def sample(dataset, key):
        traced.append(dataset.name)
        return dataset.sample(key, 4)

    for _ in range(2):
        dataset = data.load("dsprites", source="real", data_dir=folders["dsprites"], residency="stream")
        sample(dataset, KEY)
    assert len(traced) == 1


def test_many_images_in_one_call(folders):
    """More indices than the 100 KiB from which JAX copies a callback's arguments in the background.

    (On one core that copy would wait for the callback, which waits for the copy.)
    """
    resident, streamed = both_residencies("dsprites", folders["dsprites"])

    @jax.jit
    def brightness(dataset, key):
        return dataset.sample(key, 30_000)[1].mean((1, 2, 3))

    assert_same(brightness(resident, KEY), brightness(streamed, KEY))


def test_pixels_are_within_one_unit_in_the_last_place_of_the_quotient():
    pixels = np.arange(256, dtype=np.uint8)
    images, quotient = stored.to_unit(jnp.asarray(pixels)), pixels / np.float32(255)
    assert images[0] == 0 and images[255] == 1
    assert (np.abs(images - quotient) <= np.spacing(quotient)).all()
    np.testing.assert_array_equal(images, jax.jit(stored.to_unit)(pixels))
