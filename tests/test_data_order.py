"""Files without labels: permuted images and noise of the right shape are refused, and nothing is left of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import data
from causalvae.data.real import order

SIZES = (1, 1, 1, 1, 1, 20, 20)


@pytest.fixture(scope="module")
def images():
    """Every second place of the stand-in's arm, [400, 64, 64, 3] uint8."""
    dataset = data.load("mpi3d", source="procedural")
    places = np.stack(np.meshgrid(*[np.arange(0, 40, 2)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    factors = np.concatenate([np.full((400, 5), [3, 3, 1, 1, 1]), places], axis=1)
    rendered = [dataset.render(jnp.asarray(f, jnp.int32), jax.random.key(0)) for f in np.split(factors, 8)]
    return np.rint(255 * np.concatenate(rendered)).astype(np.uint8)


def load(folder, images):
    np.savez(folder / "mpi3d_toy.npz", images=images)
    return data.load("mpi3d", source="real", data_dir=folder, factor_sizes=SIZES)


def test_images_in_order_are_taken(tmp_path, images):
    dataset = load(tmp_path, images)
    assert dataset.factor_names == ("horizontal_axis", "vertical_axis") and dataset.factor_sizes == (20, 20)


@pytest.mark.parametrize("what", ["permuted", "noise", "one axis"])
def test_permuted_and_garbled_images_are_refused_unless_they_are_asked_for(tmp_path, images, monkeypatch, what):
    generator = np.random.default_rng(0)
    wrong = {
        "permuted": generator.permutation(images),
        "noise": generator.integers(0, 256, images.shape, dtype=np.uint8),
        "one axis": images.reshape(20, 20, 64, 64, 3)[:, generator.permutation(20)].reshape(images.shape),
    }[what]
    axis = "vertical_axis" if what == "one axis" else "horizontal_axis"
    with pytest.raises(ValueError, match=f"mpi3d_toy.npz: images whose {axis} is one step apart look no more alike"):
        load(tmp_path, wrong)
    assert not list(tmp_path.rglob("images.npy"))
    monkeypatch.setenv(order.SKIP, "0")
    assert load(tmp_path, wrong).factor_sizes == (20, 20)


def test_images_that_do_not_differ_are_no_evidence():
    grid = np.zeros((20, 64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="nearer in 50% of 500 trials"):
        order.check_order("file", grid, ["x"], ["x"])
    order.check_order("file", grid, ["x"], ["y"])  # without an order
    order.check_order("file", grid[:19], ["x"], ["x"])  # steps too large to tell
