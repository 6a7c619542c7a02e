"""Weights of our convolutional networks from and to PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import layers
from causalvae.architectures import Architecture, inference_params

PyTree = Any


def to_torch(model: Architecture, params: PyTree) -> dict[str, np.ndarray]:
    """Returns the weights of a convolutional network as a PyTorch state dict of numpy arrays.

    Keys are our paths with dots: "encoder.conv0.weight". Layers are Conv2d(k 4, stride 2, padding 1), Linear and
    ConvTranspose2d(k 4, stride 2, padding 1); features are flattened channels first, as PyTorch does.

    Args:
      model: one of our architectures.
      params: its parameters.

    Raises:
      ValueError: for other networks (residual, maps of codes).
    """
    state = {}
    for path, leaf in _leaves(params):
        state[_torch_name(path)] = np.ascontiguousarray(_to_torch_layout(model, params, path, np.asarray(leaf)))
    return state


class Layout(NamedTuple):
    """How a published code base names and packs the weights of a network like ours."""

    network: str  # of `architectures.create`
    names: Mapping[str, str]  # our layer -> the layer there
    heads: str = ""  # a layer there whose rows are mean and log-variance of each latent in turn


_DISENTANGLING = {
    **{f"encoder.conv{i}": f"encoder.{name}" for i, name in enumerate(("conv1", "conv2", "conv3", "conv_64"))},
    **{f"encoder.dense{i}": f"encoder.lin{i + 1}" for i in range(2)},
    **{f"decoder.dense{i}": f"decoder.lin{i + 1}" for i in range(3)},
    **{f"decoder.conv{i}": f"decoder.{name}" for i, name in enumerate(("convT_64", "convT1", "convT2"))},
    "decoder.logits": "decoder.convT3",
}
LAYOUTS: dict[str, Layout] = {
    "disentangling-vae": Layout("burgess", _DISENTANGLING, "encoder.mu_logvar_gen"),
}
"""Layouts of published code bases that `from_torch` knows by name."""


def from_torch(
    model: Architecture, state_dict: Mapping[str, Any], names: Mapping[str, str] | str | None = None
) -> PyTree:
    """Returns parameters of `model` from a PyTorch state dict: the inverse of `to_torch`.

    Args:
      model: an architecture with a convolutional network of the same layers.
      state_dict: name -> tensor or array.
      names: our name ("encoder.conv0.weight", or "encoder.conv0" for weight and bias) -> the name there, where they
        differ; or the name of one of `LAYOUTS`.

    Raises:
      ValueError: listing every weight that is missing or has another shape, with ours and theirs.
    """
    state = {name: _as_array(weight) for name, weight in state_dict.items()}
    if isinstance(names, str):
        if names not in LAYOUTS:
            raise ValueError(f"no layout {names!r}; there are: {', '.join(LAYOUTS)}, or a mapping of names")
        layout = LAYOUTS[names]
        names, state = layout.names, {**state, **_split_heads(state, layout.heads)}
    template = jax.eval_shape(model.init, jax.random.key(0))
    leaves, faults = [], []
    for path, leaf in _leaves(inference_params(model, template)):
        ours = _torch_name(path)
        theirs = _their_name(ours, names or {})
        expected = _to_torch_layout(model, template, path, np.empty(leaf.shape, np.float32)).shape
        weight = state.get(theirs)
        if weight is None:
            faults.append(f"{ours} {list(expected)}: there is no {theirs!r}")
        elif weight.shape != expected:
            faults.append(f"{ours} {list(expected)}: {theirs!r} is {list(weight.shape)}")
        else:
            leaves.append(jnp.asarray(_from_torch_layout(model, template, path, weight), leaf.dtype))
    if faults:
        have = ", ".join(f"{name} {list(weight.shape)}" for name, weight in state.items())
        raise ValueError(
            f"{len(faults)} weights do not fit {model.name}: {'; '.join(faults)}. The state dict has: {have}. `names` "
            "maps our names to those there"
        )
    return jax.tree.unflatten(jax.tree.structure(inference_params(model, template)), leaves)


def _as_array(weight: Any) -> np.ndarray:
    return np.asarray(weight.detach().cpu() if hasattr(weight, "detach") else weight)


def _their_name(ours: str, names: Mapping[str, str]) -> str:
    """What a weight is called there: by its own name, or by that of its layer."""
    layer, kind = ours.rsplit(".", 1)
    return names.get(ours) or (f"{names[layer]}.{kind}" if layer in names else ours)


def _split_heads(state: Mapping[str, np.ndarray], layer: str) -> dict[str, np.ndarray]:
    """The rows of a layer that gives mean and log-variance of each latent in turn, as two layers."""
    return {
        f"encoder.{head}.{kind}": state[f"{layer}.{kind}"][row::2]
        for row, head in enumerate(("mean", "log_variance"))
        for kind in ("weight", "bias")
        if f"{layer}.{kind}" in state
    }


def _leaves(params: PyTree) -> list[tuple[tuple[str, ...], Any]]:
    found = jax.tree_util.tree_flatten_with_path(params)[0]
    leaves = [(tuple(key.key for key in path), leaf) for path, leaf in found]
    for path, _ in leaves:
        if len(path) != 3 or path[0] not in ("encoder", "decoder") or path[2] not in ("kernel", "bias"):
            raise ValueError(
                f"only plain convolutional encoders and decoders have a PyTorch layout here, not {'/'.join(path)}"
            )
    return leaves


def _torch_name(path: tuple[str, ...]) -> str:
    return ".".join((*path[:2], "weight" if path[2] == "kernel" else "bias"))


def _to_torch_layout(model: Architecture, params: PyTree, path: tuple[str, ...], leaf: np.ndarray) -> np.ndarray:
    part, layer, kind = path
    leaf = _permute_features(model, params, path, leaf, to_torch=True)
    if kind == "bias":
        return leaf
    if leaf.ndim == 2:
        return leaf.T
    return layers.down_kernel_to_torch(leaf) if part == "encoder" else layers.up_kernel_to_torch(leaf)


def _from_torch_layout(model: Architecture, params: PyTree, path: tuple[str, ...], weight: np.ndarray) -> np.ndarray:
    part, layer, kind = path
    if kind == "kernel" and weight.ndim == 2:
        weight = weight.T
    elif kind == "kernel":
        weight = layers.down_kernel_from_torch(weight) if part == "encoder" else layers.up_kernel_from_torch(weight)
    return _permute_features(model, params, path, weight, to_torch=False)


def _permute_features(model, params, path, leaf: np.ndarray, to_torch: bool) -> np.ndarray:
    """Reorder the axis that meets the flattened feature map: rows, columns, channels here; channels first there."""
    part, layer, kind = path
    dense = sorted(name for name in params[part] if name.startswith("dense"))
    convolutions = [name for name in params[part] if name.startswith("conv")]
    steps = len(convolutions) + (part == "decoder")
    height, width = (size // 2**steps for size in model.image_shape[:2])
    if part == "encoder" and layer == dense[0] and kind == "kernel":
        axis = 0
    elif part == "decoder" and layer == dense[-1]:
        axis = leaf.ndim - 1
    else:
        return leaf
    channels = leaf.shape[axis] // (height * width)
    order = np.arange(leaf.shape[axis]).reshape(height, width, channels).transpose(2, 0, 1).reshape(-1)
    return np.take(leaf, order if to_torch else np.argsort(order), axis=axis)
