"""Parameters of any model in safetensors files, and users' Orbax checkpoints."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import nnx

import causalvae as cv
from causalvae import adapters

MODULE = nn.Dense(3)
PARAMS = {"params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}}


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.layers, self.drop = nnx.List([nnx.Linear(2, 3, rngs=rngs)]), nnx.Dropout(0.5, rngs=rngs)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype and jnp.array_equal(a, b)


def test_parameters_of_any_model_go_to_safetensors_and_back(tmp_path):
    path = tmp_path / "mine.safetensors"
    adapters.save_params(path, PARAMS)
    assert sorted(safetensors.numpy.load_file(path)) == ["params/bias", "params/kernel"]
    same(adapters.load_params(path), PARAMS)
    shapes = jax.eval_shape(MODULE.init, jax.random.key(0), jnp.zeros((1, 2)))
    same(adapters.load_params(path, like=shapes), jax.tree.map(jnp.asarray, PARAMS))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]
    state = nnx.state(Noisy(nnx.Rngs(0)))  # with typed keys, counts of no axis, and a list
    adapters.save_params(path, state)
    same(adapters.load_params(path, like=nnx.state(Noisy(nnx.Rngs(1)))), state)
    model = cv.architectures.create("vae", image_shape=(16, 16, 1), latents=2, network="small")
    ours = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), jax.eval_shape(model.init, jax.random.key(0)))
    adapters.save_params(path, ours)
    same(adapters.load_params(path, like=ours), ours)


def test_a_users_checkpoint_is_read_whole_or_what_is_wanted_of_it(tmp_path):
    state = {"params": PARAMS, "opt": [np.zeros(2, np.float32), (np.ones(3, np.float32),)], "step": np.int32(7)}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
    whole = adapters.load_params(tmp_path / "state")
    same(whole["params"], PARAMS)
    assert int(whole["step"]) == 7 and len(whole["opt"]) == 2
    same(
        adapters.load_params(tmp_path / "state", like={"params": PARAMS}), jax.tree.map(jnp.asarray, {"params": PARAMS})
    )
    options = ocp.CheckpointManagerOptions(max_to_keep=None)
    with ocp.CheckpointManager(tmp_path / "managed", options=options) as manager:
        for step in (2, 10):
            params = jax.tree.map(lambda leaf, step=step: leaf + step, PARAMS)
            manager.save(step, args=ocp.args.StandardSave(params))
        manager.wait_until_finished()
    latest = adapters.load_params(tmp_path / "managed", like=PARAMS)
    np.testing.assert_array_equal(latest["params"]["bias"], np.full(3, 11.0))
    older = adapters.load_params(tmp_path / "managed" / "2", like=PARAMS)
    np.testing.assert_array_equal(older["params"]["bias"], np.full(3, 3.0))
    with pytest.raises(ValueError, match="is no Orbax checkpoint of one pytree; those inside are: .*managed/10"):
        adapters.load_params(tmp_path, like=PARAMS)


def test_every_array_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "mine.safetensors"
    adapters.save_params(path, PARAMS)
    wanted = {"params": {"kernel": np.zeros((2, 4)), "bias": np.zeros(3), "scale": np.zeros(3)}}
    with pytest.raises(
        ValueError, match=r"2 arrays do not fit: params/kernel \[2, 4\] is \[2, 3\] there; params/scale"
    ):
        adapters.load_params(path, like=wanted)
    with pytest.raises(ValueError, match="params act is a custom_jvp, not an array"):
        adapters.save_params(path, {"act": nn.relu})
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        adapters.load_params(tmp_path / "none")
    path.write_text("no")
    with pytest.raises(ValueError, match="mine.safetensors is not a safetensors file"):
        adapters.load_params(path)
