"""Trains a small ensemble on every device there is; run by test_sharding.py as a process of its own.

python sharded_worker.py <workdir> <result.npz> <steps> <device|stream> [<coordinator> <processes> <index>]
"""

import pathlib
import sys
import tempfile

import jax
import numpy as np

workdir, result, steps, residency = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if len(sys.argv) > 5:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(sys.argv[5], int(sys.argv[6]), int(sys.argv[7]))

import toy  # noqa: E402  (after jax.distributed)

from causalvae import sharding, training  # noqa: E402
from causalvae.data.real.stored import StoredImages  # noqa: E402


def stored(dataset, residency):
    """The images of every combination of factors as a stored set has them, on the device or on disk."""
    factors = np.stack(np.unravel_index(np.arange(dataset.size), dataset.factor_sizes), axis=1)
    images = np.asarray(255 * dataset.render(factors, jax.random.key(0))).astype(np.uint8)
    shape = (*dataset.factor_sizes, *dataset.image_shape)
    if residency == "device":
        return dataset.replace(render_one=StoredImages(shape), arrays={"images": images.reshape(shape)})
    path = pathlib.Path(tempfile.mkdtemp()) / "images.npy"
    np.save(path, images.reshape(shape))
    return dataset.replace(render_one=StoredImages(shape, str(path), "of this process"), arrays={})


model = toy.model("betatc")
mesh = sharding.make_mesh(members=4, batch_size=16)
state = training.train(
    model,
    stored(toy.dataset(), residency),
    workdir,
    steps=steps,
    seeds=[0, 1, 2, 3],
    batch_size=16,
    hyper={"beta": np.array([1.0, 2.0, 4.0, 6.0])},
    log_every=2,
    checkpoint_every=2,
    mesh=mesh,
)
if sharding.is_first_process():
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((state.params, state.optimizer))]
    shape = np.array(mesh.devices.shape if mesh else (1, 1))
    np.savez(result, *leaves, mesh=shape, processes=jax.process_count(), step=int(state.step))
