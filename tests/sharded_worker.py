"""Trains a small ensemble on every device there is; run by test_sharding.py as a process of its own.

python sharded_worker.py <workdir> <result.npz> <steps> [<coordinator> <processes> <index>]
"""

import pathlib
import sys

import jax
import numpy as np

workdir, result, steps = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
if len(sys.argv) > 4:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))

import toy  # noqa: E402  (after jax.distributed)

from causalvae import sharding, training  # noqa: E402

model = toy.model("betatc")
mesh = sharding.make_mesh(members=4, batch_size=16)
state = training.train(
    model,
    toy.dataset(),
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
