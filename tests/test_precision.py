"""Training in bfloat16: which computations are rounded, how far that moves loss and gradients, and who is told."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import architectures, data, networks, precision, runs, training
from causalvae.data.base import Dataset
from causalvae.sites import no_tap
from experiments.study.store import lasting

SHAPE = (16, 16, 1)
CHEAP = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # run once


@functools.cache
def model_of(name, network="small"):
    options = {"discriminator_features": (16,)} if name == "factor" else {}
    return architectures.create(name, image_shape=SHAPE, network=network, latents=4, **options)


def draw(images, factors, key):
    return images[factors[0]]


@functools.cache
def lowered(name, network, kind):
    """A training step as a GPU gets it, on a data set that costs nothing to trace."""
    model = model_of(name, network)
    dataset = Dataset("toy", "procedural", ("image",), (4,), SHAPE, draw, jnp.zeros((4, *SHAPE)))
    config = training.step_config(model, training.make_optimizer(model), 8, precision=kind)
    hyper = training.member_hyper(training.complete_hyper(model.hyper, dataset), 1)
    state = jax.eval_shape(lambda: training.init_state(model, config.optimizer, [0]))
    traced = training.train_steps.trace(config, dataset, state, hyper, jnp.int32(1))
    return traced.lower(lowering_platforms=("tpu",)).as_text(), traced.out_info


def types_of(operation, text):
    """The operand types of every operation of a name."""
    found = re.findall(rf"stablehlo\.{operation}.*? : \((tensor<\S+>), (tensor<\S+>)\)", text)
    return [{operand.rstrip(">").split("x")[-1] for operand in pair} for pair in found]


@pytest.mark.parametrize("name, network", [("factor", "small"), ("vq", "residual")])
def test_convolutions_are_in_bfloat16_and_what_is_kept_in_float32(name, network):
    rounded, out = lowered(name, network, "bfloat16")
    convolutions = types_of("convolution", rounded)
    assert len(convolutions) >= 20 and all(types == {"bf16"} for types in convolutions)
    assert "bf16" in set().union(*types_of("dot_general", rounded))
    floating = {leaf.dtype for leaf in jax.tree.leaves(out) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floating == {jnp.dtype("float32")}  # parameters, optimizer, metrics
    if name == "factor":
        plain, _ = lowered(name, network, "float32")
        assert "bf16" not in plain and len(types_of("convolution", plain)) == len(convolutions)


def test_heads_losses_and_the_discriminator_are_not_rounded():
    text, _ = lowered("factor", "small", "bfloat16")
    exact = [line for line in text.splitlines() if "dot_general" in line and "bf16" not in line]
    assert any(re.search(r"tensor<16x2xf32>", line) for line in exact)  # the discriminator's last layer
    assert any(re.search(r"tensor<64x4xf32>", line) for line in exact)  # mean and log-variance


@pytest.mark.numeric
def test_loss_and_gradients_are_close_to_those_in_float32():
    model = model_of("vae")
    params = training.member(training.initial_params(model, [0]), 0)
    images = jax.random.uniform(jax.random.key(1), (8 * model.batches, *SHAPE))
    hyper = training.member_hyper(model.hyper, 1)
    own = {name: value[0] for name, value in hyper.items()}

    def measured(kind):
        def value(params):
            with precision.computing(kind):
                return jax.value_and_grad(model.loss, has_aux=True)(params, images, jax.random.key(2), own, 0)

        (loss, _), gradients = jax.jit(value, compiler_options=CHEAP)(params)
        return loss, gradients

    (loss, exact), (near, rounded) = measured("float32"), measured("bfloat16")
    assert near.dtype == jnp.float32
    np.testing.assert_allclose(near, loss, rtol=2e-3)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rounded))
    for part in ("encoder", "decoder"):
        one, other = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g[part])]) for g in (exact, rounded))
        assert 1e-4 < np.linalg.norm(other - one) / np.linalg.norm(one) < 0.04  # 0.025 here


def test_activations_that_a_tap_sees_are_in_float32():
    model, seen = model_of("vae"), {}

    def tap(site, value):
        seen[site] = value.dtype
        return value

    with precision.computing("bfloat16"):
        jax.eval_shape(lambda p, x: model.forward(p, x, None, tap), *shapes(model))
    assert set(seen.values()) == {jnp.dtype("float32")} and len(seen) > 8


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0)), jax.ShapeDtypeStruct((2, *SHAPE), jnp.float32)


def test_outside_of_a_block_nothing_is_rounded():
    x, kernel = jnp.ones((2, 2)), jnp.ones((2, 2))
    assert precision.operands(x, kernel)[0] is x
    with precision.computing("float32"):
        assert precision.operands(x, kernel)[1] is kernel
    assert networks.dense(3, "d").promote_dtype is networks.exact_dense(3, "d").promote_dtype
    model = model_of("vae")
    text = jax.jit(lambda p, x: model.forward(p, x, None, no_tap)).lower(*shapes(model)).as_text()
    assert "bf16" not in text


def test_a_model_with_layers_of_its_own_is_told_that_nothing_would_be_rounded():
    with pytest.raises(ValueError, match="bfloat16 is for networks of causalvae.layers"):
        with precision.computing("bfloat16"):
            jnp.ones(2) @ jnp.ones(2)
    with pytest.raises(ValueError, match="no training.precision 'float16'; there are: float32, bfloat16"):
        with precision.computing("float16"):
            pass
    dataset = data.load("dsprites", source="procedural")
    with pytest.raises(ValueError, match="no training.precision 'half'; there are: float32, bfloat16"):
        training.train(model_of("vae"), dataset, "nowhere", seeds=[0], steps=1, precision="half")


def test_what_an_older_run_does_not_say_is_float32():
    old = {"architecture": {"name": "vae"}, "data": {"name": "dsprites"}, "training": {"steps": 3}}
    new = {**old, "training": {"steps": 3, "precision": "float32"}}
    assert lasting(old) == lasting(new) and runs.complete(old)["training"]["precision"] == "float32"
    assert runs._identity(runs.complete(old)) == runs._identity(runs.complete(new))
    other = {**old, "training": {"steps": 3, "precision": "bfloat16"}}
    assert runs._identity(runs.complete(old)) != runs._identity(runs.complete(other))
