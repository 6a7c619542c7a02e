"""The ways to compute an ensemble's members: the same values, by other operations."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import layers, networks, schema, sharding
from causalvae.training._members import ENSEMBLES, map_members

MEMBERS = 3
CHEAP = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # run once


class Network(nn.Module):
    """One of each convolution."""

    @nn.compact
    def __call__(self, x):
        h = networks.ResidualBlock()(nn.relu(layers.Down(4)(x)))
        return layers.Up(3)(layers.Up(4)(layers.Down(5, 2)(h)))


@functools.cache
def members():
    x = jax.random.normal(jax.random.key(0), (MEMBERS, 2, 8, 8, 3))
    shapes = jax.eval_shape(Network().init, jax.random.key(0), x[0])
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(MEMBERS, *leaf.shape)).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, drawn), x


@functools.cache
def program(ensemble):
    def step(params, x):
        return jax.value_and_grad(lambda p: jnp.mean(Network().apply(p, x) ** 2))(params)

    return jax.jit(lambda *own: map_members(step, None, *own, ensemble=ensemble), compiler_options=CHEAP)


@pytest.mark.numeric
def test_all_ways_have_the_same_values_and_gradients():
    found = {name: program(name)(*members()) for name in ENSEMBLES}
    for name, values in found.items():
        for one, other in zip(jax.tree.leaves(found["auto"]), jax.tree.leaves(values), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * np.abs(one).max(), err_msg=name)


@pytest.mark.parametrize("platform, automatic", [("cuda", "products"), ("tpu", "grouped")])
def test_each_way_is_by_its_own_operations_on_an_accelerator(platform, automatic):
    texts = {
        name: program(name).trace(*members()).lower(lowering_platforms=(platform,)).as_text() for name in ENSEMBLES
    }
    groups = {name: set(map(int, re.findall(r"(?:feature|batch)_group_count = (\d+)", t))) for name, t in texts.items()}
    assert groups["grouped"] == {1, MEMBERS} and groups["products"] == set() and groups["auto"] == groups[automatic]
    assert "stablehlo.while" not in texts["grouped"] + texts["products"] + texts["auto"]
    assert groups["in_turn"] == ({1} if platform == "tpu" else set()) and "stablehlo.while" in texts["in_turn"]
    assert "stablehlo.convolution" in program("grouped").lower(*members()).as_text()  # on a CPU, too


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="no training.ensemble 'vmap'; there are: auto, grouped, products, in_turn"):
        program("vmap")(*members())
    with pytest.raises(ValueError, match="no training.ensemble 'turn'; there are: .*Did you mean 'in_turn'?"):
        schema.check({"training": {"ensemble": "turn"}})
    mesh = jax.sharding.AbstractMesh((3, 1), (sharding.MEMBER, sharding.DATA))
    with pytest.raises(ValueError, match="'in_turn', and 3 devices share the members"):
        map_members(jnp.sin, mesh, jnp.ones(3), ensemble="in_turn")
