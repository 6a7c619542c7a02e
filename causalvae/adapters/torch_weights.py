"""Weights of our convolutional networks from and to PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import layers
from causalvae.architectures import Architecture

PyTree = Any


def to_torch(model: Architecture, params: PyTree) -> dict[str, np.ndarray]:
    """The weights of a convolutional network as a PyTorch state dict of numpy arrays.

    Keys are our paths with dots: "encoder.conv0.weight". Layers are Conv2d(k 4, stride 2, padding 1), Linear and
    ConvTranspose2d(k 4, stride 2, padding 1); features are flattened channels first, as PyTorch does.
    Raises ValueError for other networks (residual, maps of codes).
    """
    state = {}
    for path, leaf in _leaves(params):
        state[_torch_name(path)] = np.ascontiguousarray(_to_torch_layout(model, params, path, np.asarray(leaf)))
    return state


def from_torch(model: Architecture, state_dict: Mapping[str, Any], names: Mapping[str, str] | None = None) -> PyTree:
    """Parameters of `model` from a PyTorch state dict: the inverse of `to_torch`.

    state_dict: name -> tensor or array. names: our name ("encoder.conv0.weight") -> the name there, where they
    differ. Raises ValueError naming the first weight that is missing or has another shape.
    """
    template = jax.eval_shape(model.init, jax.random.key(0))
    names = names or {}
    leaves = []
    for path, leaf in _leaves(template):
        ours = _torch_name(path)
        theirs = names.get(ours, ours)
        if theirs not in state_dict:
            have = ", ".join(state_dict)
            raise ValueError(f"the state dict has no {theirs!r} for {ours!r}; it has: {have}. `names` maps names")
        weight = state_dict[theirs]
        weight = np.asarray(weight.detach().cpu() if hasattr(weight, "detach") else weight)
        expected = _to_torch_layout(model, template, path, np.empty(leaf.shape, np.float32)).shape
        if weight.shape != expected:
            raise ValueError(f"{theirs!r} has shape {list(weight.shape)}; {ours!r} needs {list(expected)}")
        leaves.append(jnp.asarray(_from_torch_layout(model, template, path, weight), leaf.dtype))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


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
