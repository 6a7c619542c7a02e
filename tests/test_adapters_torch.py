"""PyTorch's layers as functions of a state dict, and published networks made of them, against plain numpy."""

import jax
import numpy as np
import numpy_torch
import pytest

import causalvae as cv
from causalvae import adapters
from causalvae.adapters import torch_layers

GENERATOR = np.random.default_rng(0)


def first(x):
    """[N, H, W, C] with channels first."""
    return np.asarray(x).transpose(0, 3, 1, 2)


def last(x):
    return x.transpose(0, 2, 3, 1)


def state_of(**shapes):
    """A state dict of arrays with these shapes; variances are positive. `encoder__0` stands for encoder.0."""
    state = {}
    for name, shape in shapes.items():
        array = GENERATOR.normal(0, 0.4, shape).astype(np.float32)
        name = name.replace("__", ".")
        state[name] = np.abs(array) + 0.5 if name.endswith("running_var") else array
    return state


def layer(name, *shape):
    return {f"{name}__weight": shape, f"{name}__bias": shape[:1]}


def up(name, *shape):
    return {f"{name}__weight": shape, f"{name}__bias": shape[1:2]}


def norm(name, channels):
    return {f"{name}__{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")}


# --- layers ----------------------------------------------------------------------------------------------


@pytest.mark.numeric
@pytest.mark.parametrize("size, stride, padding", [(3, 2, 1), (5, 1, 2), (2, 2, 0), (4, 2, 1)])
def test_convolutions_of_any_kernel_are_pytorchs(size, stride, padding):
    state = state_of(**layer("a", 4, 3, size, size))
    x = GENERATOR.normal(size=(2, 8, 6, 3)).astype(np.float32)
    expected = numpy_torch.biased(numpy_torch.conv2d(first(x), state["a.weight"], stride, padding), state, "a")
    np.testing.assert_allclose(torch_layers.conv(state, "a", x, stride, padding), last(expected), atol=1e-5)


@pytest.mark.numeric
@pytest.mark.parametrize("size, stride, padding, more", [(3, 2, 1, 1), (5, 2, 2, 0), (4, 1, 2, 0), (4, 2, 1, 1)])
def test_transposed_convolutions_of_any_kernel_are_pytorchs(size, stride, padding, more):
    state = state_of(**up("a", 3, 4, size, size))
    x = GENERATOR.normal(size=(2, 5, 4, 3)).astype(np.float32)
    found = torch_layers.conv_transpose(state, "a", x, stride, padding, more)
    expected = numpy_torch.conv_transpose2d(first(x), state["a.weight"], stride, padding, more)
    np.testing.assert_allclose(found, last(numpy_torch.biased(expected, state, "a")), atol=1e-5)


@pytest.mark.numeric
def test_norms_and_the_order_of_features_are_pytorchs():
    state = state_of(**norm("a", 4))
    x = GENERATOR.normal(2.0, 1.5, size=(2, 3, 5, 4)).astype(np.float32)
    expected = last(numpy_torch.batch_norm(first(x), state, "a"))
    np.testing.assert_allclose(torch_layers.batch_norm(state, "a", x), expected, atol=1e-5)
    groups = first(x).reshape(2, 2, -1)
    groups = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    groups = groups.reshape(2, 4, 3, 5) * state["a.weight"].reshape(-1, 1, 1) + state["a.bias"].reshape(-1, 1, 1)
    np.testing.assert_allclose(torch_layers.group_norm(state, "a", x, 2), last(groups), atol=1e-5)
    flat = torch_layers.flatten(x)
    np.testing.assert_array_equal(flat, first(x).reshape(2, -1))
    np.testing.assert_array_equal(torch_layers.unflatten(flat, (3, 5, 4)), x)


@pytest.mark.numeric
def test_batch_norm_is_folded_into_the_layer_before_it():
    state = state_of(**layer("a", 4, 3, 3, 3), **norm("an", 4), **up("b", 4, 2, 3, 3), **norm("bn", 2),
                     **layer("c", 5, 6), **norm("cn", 5))  # fmt: skip
    state |= {"an.num_batches_tracked": np.int64(7)}
    folded = adapters.fold_batch_norm(state, {"a": "an", "b": "bn", "c": "cn"}, transposed=("b",))
    assert sorted(folded) == [f"{name}.{kind}" for name in "abc" for kind in ("bias", "weight")]
    assert folded["a.weight"].dtype == np.float32
    x, z = GENERATOR.normal(size=(2, 6, 6, 3)).astype(np.float32), GENERATOR.normal(size=(2, 6)).astype(np.float32)

    def run(state, normalize):
        h = normalize("an", torch_layers.conv(state, "a", x, 2, 1))
        h = normalize("bn", torch_layers.conv_transpose(state, "b", h, 2, 1, 1))
        return h, normalize("cn", torch_layers.linear(state, "c", z))

    expected = run(state, lambda name, h: torch_layers.batch_norm(state, name, h))
    for one, other in zip(run(folded, lambda name, h: h), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    without = {name: array for name, array in state.items() if name != "a.bias"}  # as Conv2d(bias=False) has it
    shift = (0 - state["an.running_mean"]) * state["an.weight"] / np.sqrt(state["an.running_var"] + 1e-5)
    folded = adapters.fold_batch_norm(without, {"a": "an"})
    np.testing.assert_allclose(folded["a.bias"], shift + state["an.bias"], atol=1e-5)
    with pytest.raises(ValueError, match="the state dict has no d.weight, dn.weight, dn.bias, dn.running_mean, dn.r"):
        adapters.fold_batch_norm(state, {"d": "dn"})


def test_a_missing_layer_is_named_with_those_that_there_are():
    state = state_of(**layer("fc", 2, 3))
    with pytest.raises(ValueError, match="the state dict has no fc_mu.weight; it has: fc.weight, fc.bias"):
        torch_layers.linear(state, "fc_mu", np.zeros((1, 3), np.float32))


def test_weights_are_found_in_what_was_saved():
    state = state_of(**layer("model__fc", 2, 3)) | {"model.norm.num_batches_tracked": np.int64(3)}
    for saved in (state, {"state_dict": state, "epoch": 3}, {"model_state_dict": state}):
        assert list(torch_layers.weights_of(saved)) == ["fc.weight", "fc.bias"]


# --- published networks ----------------------------------------------------------------------------------


def pytorch_vae(widths=(4, 6), latents=3):
    shapes, channels = {}, 3
    for i, width in enumerate(widths):
        shapes |= layer(f"encoder__{i}__0", width, channels, 3, 3) | norm(f"encoder__{i}__1", width)
        channels = width
    shapes |= layer("fc_mu", latents, channels * 4) | layer("fc_var", latents, channels * 4)
    shapes |= layer("decoder_input", channels * 4, latents)
    for i, (wide, narrow) in enumerate(zip(widths[::-1], widths[::-1][1:])):
        shapes |= up(f"decoder__{i}__0", wide, narrow, 3, 3) | norm(f"decoder__{i}__1", narrow)
    first = widths[0]
    shapes |= up("final_layer__0", first, first, 3, 3) | norm("final_layer__1", first)
    return state_of(**shapes, **layer("final_layer__3", 3, first, 3, 3))


def run_pytorch_vae(state, x):
    """z [B, d] and image [B, 3, H, W] in [0, 1] of x in [0, 1], in plain numpy."""

    def block(h, layer, norm, convolve):
        h = numpy_torch.batch_norm(numpy_torch.biased(convolve(h, state[f"{layer}.weight"]), state, layer), state, norm)
        return np.where(h > 0, h, 0.01 * h)

    h = 2 * x - 1
    for i in range(2):
        h = block(h, f"encoder.{i}.0", f"encoder.{i}.1", lambda h, w: numpy_torch.conv2d(h, w, 2, 1))
    z = numpy_torch.linear(h.reshape(len(h), -1), state, "fc_mu")
    h = numpy_torch.linear(z, state, "decoder_input").reshape(len(z), -1, 2, 2)
    for place in ("decoder.0", "final_layer"):
        grow = lambda h, w: numpy_torch.conv_transpose2d(h, w, 2, 1, 1)  # noqa: E731
        h = block(h, f"{place}.0", f"{place}.1", grow)
    h = numpy_torch.biased(numpy_torch.conv2d(h, state["final_layer.3.weight"], 1, 1), state, "final_layer.3")
    return z, (np.tanh(h) + 1) / 2


def pythae(pixels=48, hidden=7, latents=3):
    shapes = layer("encoder__layers__0__0", hidden, pixels) | layer("encoder__embedding", latents, hidden)
    shapes |= layer("encoder__log_var", latents, hidden) | layer("decoder__layers__0__0", hidden, latents)
    return state_of(**shapes, **layer("decoder__layers__1__0", pixels, hidden))


def run_pythae(state, x):
    h = np.maximum(numpy_torch.linear(x.reshape(len(x), -1), state, "encoder.layers.0.0"), 0)
    z = numpy_torch.linear(h, state, "encoder.embedding")
    h = np.maximum(numpy_torch.linear(z, state, "decoder.layers.0.0"), 0)
    return z, 1 / (1 + np.exp(-numpy_torch.linear(h, state, "decoder.layers.1.0").reshape(x.shape)))


def pythae_mnist(widths=(2, 3, 4, 5), latents=3):
    shapes, channels = {}, 1
    for i, width in enumerate(widths):
        shapes |= layer(f"encoder__layers__{i}__0", width, channels, 4, 4) | norm(f"encoder__layers__{i}__1", width)
        channels = width
    shapes |= layer("encoder__embedding", latents, channels) | layer("encoder__log_var", latents, channels)
    shapes |= layer("decoder__layers__0", channels * 16, latents)
    for i, (wide, narrow) in enumerate(zip((5, 4, 3), (4, 3, 1)), 1):
        shapes |= up(f"decoder__layers__{i}__0", wide, narrow, 3, 3)
        shapes |= norm(f"decoder__layers__{i}__1", narrow) if i < 3 else {}
    return state_of(**shapes)


def run_pythae_mnist(state, x):
    def apply(h, layer, convolve):
        return numpy_torch.biased(convolve(h, state[f"{layer}.weight"]), state, layer)

    h = x
    for i in range(4):
        h = apply(h, f"encoder.layers.{i}.0", lambda h, w: numpy_torch.conv2d(h, w, 2, 1))
        h = np.maximum(numpy_torch.batch_norm(h, state, f"encoder.layers.{i}.1"), 0)
    z = numpy_torch.linear(h.reshape(len(h), -1), state, "encoder.embedding")
    h = numpy_torch.linear(z, state, "decoder.layers.0").reshape(len(z), -1, 4, 4)
    for i, more in ((1, 0), (2, 1), (3, 1)):
        grow = lambda h, w, more=more: numpy_torch.conv_transpose2d(h, w, 2, 1, more)  # noqa: E731
        h = apply(h, f"decoder.layers.{i}.0", grow)
        h = np.maximum(numpy_torch.batch_norm(h, state, f"decoder.layers.{i}.1"), 0) if i < 3 else h
    return z, 1 / (1 + np.exp(-h))


PUBLISHED = {  # name -> weights, twin, shape of images, a site
    "pytorch-vae": (pytorch_vae, run_pytorch_vae, (8, 8, 3), "encoder/1/0"),
    "pythae": (pythae, run_pythae, (4, 4, 3), "encoder/layers/0/0"),
    "pythae-mnist": (pythae_mnist, run_pythae_mnist, (28, 28, 1), "decoder/layers/1/0"),
}


@pytest.mark.numeric
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_runs_as_it_did_there(name):
    weights, twin, shape, site = PUBLISHED[name]
    state = weights()
    model, params = adapters.from_published(state, name, shape)
    assert adapters.from_published(state, name, shape)[0] is model and model.name == name
    x = GENERATOR.random((4, *shape), np.float32)
    outputs, acts = cv.run(model, params, x, capture="*")
    z, image = twin(state, first(x))
    np.testing.assert_allclose(outputs.z, z, atol=1e-5)
    np.testing.assert_allclose(outputs.image, last(image), atol=1e-5)
    assert {site, "latent/z", "decoder/image"} <= set(acts) and acts[site].shape[0] == 4


def test_weights_of_another_network_and_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="no published network 'vae'; there are: disentangling-vae, pytorch-vae, py"):
        adapters.from_published(pythae(), "vae", (4, 4, 3))
    with pytest.raises(ValueError, match="these are not the weights of 'pytorch-vae', which have final_layer.3.weight"):
        adapters.from_published(pythae(), "pytorch-vae", (4, 4, 3))
    with pytest.raises(ValueError, match=r"pythae with these weights takes no images \[8, 8, 3\]"):
        adapters.from_published(pythae(), "pythae", (8, 8, 3))
    model, params = adapters.from_published(pythae(), "pythae", (4, 4, 3))
    with pytest.raises(ValueError, match=r"pythae takes images \[N, 4, 4, 3\].*channels first: x.transpose"):
        cv.run(model, params, np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r"makes images \[28, 28, 1\] of images \[27, 27, 1\]"):
        adapters.from_published(pythae_mnist(), "pythae-mnist", (27, 27, 1))


def test_a_layout_of_ours_is_read_by_the_same_call():
    shape = (16, 16, 1)
    model = cv.architectures.create("vae", image_shape=shape, latents=3, network="burgess")
    params = jax.tree.map(
        lambda leaf: GENERATOR.normal(0, 0.2, leaf.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    layout = adapters.LAYOUTS["disentangling-vae"]
    state = {}
    for name, weight in adapters.to_torch(model, params).items():
        layer, kind = name.rsplit(".", 1)
        state[f"{layout.names.get(layer, layer)}.{kind}"] = weight
    for kind in ("weight", "bias"):
        heads = [state.pop(f"encoder.{head}.{kind}") for head in ("mean", "log_variance")]
        state[f"{layout.heads}.{kind}"] = np.stack(heads, axis=1).reshape(6, *heads[0].shape[1:])
    found, back = adapters.from_published(state, "disentangling-vae", shape)
    assert found.latents == 3 and jax.tree.all(jax.tree.map(np.array_equal, params, back))
    with pytest.raises(ValueError, match="the state dict has no encoder.mu_logvar_gen.bias; it has: encoder.conv1"):
        adapters.from_published({"encoder.conv1.bias": np.zeros(2)}, "disentangling-vae", shape)
