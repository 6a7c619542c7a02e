"""PyTorch's layers as functions of a state dict, for networks that none of ours is.

    def encode(weights, x):
        h = jax.nn.relu(batch_norm(weights, "encoder.1", conv(weights, "encoder.0", x, stride=2, padding=1)))
        return linear(weights, "fc_mu", flatten(h)), linear(weights, "fc_var", flatten(h))

Weights stay as PyTorch saved them, under their names there. Activations are [N, H, W, C], so that units are the last
axis as everywhere here. What a layer returns is a site in a run of `from_functions`: "encoder.0" is "encoder/0".
Everything runs as after `module.eval()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from causalvae.sites import tag

__all__ = [
    "batch_norm",
    "conv",
    "conv_transpose",
    "flatten",
    "fold_batch_norm",
    "group_norm",
    "linear",
    "unflatten",
    "weights_of",
]

Weights = Mapping[str, jax.Array]


def weights_of(state_dict: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the floating-point arrays of a state dict, which are the params of functions made of these layers.

    Args:
      state_dict: name -> tensor or array; or a file's contents that hold it at "state_dict" (Lightning) or
        "model_state_dict". A prefix "model." that all names have is dropped.
    """
    for key in ("state_dict", "model_state_dict"):
        inner = state_dict.get(key)
        state_dict = inner if isinstance(inner, Mapping) else state_dict
    found = {name: as_array(weight) for name, weight in state_dict.items() if hasattr(weight, "shape")}
    prefix = "model." if found and all(name.startswith("model.") for name in found) else ""
    return {
        name.removeprefix(prefix): jnp.asarray(array)
        for name, array in found.items()
        if np.issubdtype(array.dtype, np.floating)
    }


def as_array(weight: Any) -> np.ndarray:
    """Returns a tensor of any framework as a numpy array."""
    return np.asarray(weight.detach().cpu() if hasattr(weight, "detach") else weight)


def linear(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """Returns `torch.nn.Linear`: x [..., in] -> [..., out]."""
    return _named(name, _biased(weights, name, x @ _get(weights, name, "weight").T))


def conv(weights: Weights, name: str, x: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """Returns `torch.nn.Conv2d`: x [N, H, W, in], weight [out, in, k, k] -> [N, H', W', out]."""
    kernel = _get(weights, name, "weight")
    pads = ((padding, padding), (padding, padding))
    h = lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "OIHW", "NHWC"))
    return _named(name, _biased(weights, name, h))


def conv_transpose(
    weights: Weights, name: str, x: jax.Array, stride: int = 1, padding: int = 0, output_padding: int = 0
) -> jax.Array:
    """Returns `torch.nn.ConvTranspose2d`: x [N, H, W, in], weight [in, out, k, k] -> [N, H', W', out]."""
    kernel = jnp.flip(_get(weights, name, "weight"), (2, 3))
    pads = tuple((size - 1 - padding, size - 1 - padding + output_padding) for size in kernel.shape[2:])
    h = lax.conv_general_dilated(
        x, kernel, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=("NHWC", "IOHW", "NHWC")
    )
    return _named(name, _biased(weights, name, h))


def batch_norm(weights: Weights, name: str, x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Returns `torch.nn.BatchNorm1d` or `2d` with running averages: x [..., C] -> [..., C]."""
    mean, variance = _get(weights, name, "running_mean"), _get(weights, name, "running_var")
    scale = _get(weights, name, "weight") * lax.rsqrt(variance + epsilon)
    return _named(name, (x - _row(mean, x)) * _row(scale, x) + _row(_get(weights, name, "bias"), x))


def group_norm(weights: Weights, name: str, x: jax.Array, groups: int, epsilon: float = 1e-5) -> jax.Array:
    """Returns `torch.nn.GroupNorm`: x [N, H, W, C] -> [N, H, W, C]."""
    parts = x.reshape(*x.shape[:-1], groups, -1)
    axes = (*range(1, x.ndim - 1), x.ndim)
    mean, variance = jnp.mean(parts, axes, keepdims=True), jnp.var(parts, axes, keepdims=True)
    h = ((parts - mean) * lax.rsqrt(variance + epsilon)).reshape(x.shape)
    return _named(name, h * _row(_get(weights, name, "weight"), x) + _row(_get(weights, name, "bias"), x))


def flatten(x: jax.Array) -> jax.Array:
    """Returns x [N, H, W, C] as [N, C H W], in the order of `torch.flatten` of [N, C, H, W]."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def unflatten(x: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Returns x [N, C H W] as [N, H, W, C], `shape` being (H, W, C): the inverse of `flatten`."""
    height, width, channels = shape
    return x.reshape(x.shape[0], channels, height, width).transpose(0, 2, 3, 1)


def fold_batch_norm(
    state_dict: Mapping[str, Any], norms: Mapping[str, str], transposed: tuple[str, ...] = (), epsilon: float = 1e-5
) -> dict[str, np.ndarray]:
    """Returns a state dict whose convolutions and linear layers have the BatchNorm behind them folded in.

    What is left computes what `module.eval()` does, and fits a network without normalization.

    Args:
      state_dict: name -> tensor or array.
      norms: layer -> the BatchNorm that follows it with nothing between: {"encoder.0": "encoder.1"}.
      transposed: those of the layers that are transposed convolutions, whose weights have output channels second.
      epsilon: of the BatchNorms.

    Raises:
      ValueError: listing every array that is missing.
    """
    state = {name: as_array(weight) for name, weight in state_dict.items()}
    needed = [f"{layer}.weight" for layer in norms]
    needed += [
        f"{norm}.{kind}" for norm in norms.values() for kind in ("weight", "bias", "running_mean", "running_var")
    ]
    _check_there(needed, state)
    for layer, norm in norms.items():
        scale, shift, mean, variance = (
            state.pop(f"{norm}.{k}") for k in ("weight", "bias", "running_mean", "running_var")
        )
        state.pop(f"{norm}.num_batches_tracked", None)
        scale = scale / np.sqrt(variance + epsilon)
        weight = state[f"{layer}.weight"]
        axis = 1 if layer in transposed else 0
        state[f"{layer}.weight"] = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1 - axis))
        state[f"{layer}.bias"] = (state.get(f"{layer}.bias", 0.0) - mean) * scale + shift
    return state


def _get(weights: Weights, name: str, kind: str) -> jax.Array:
    _check_there([f"{name}.{kind}"], weights)
    return weights[f"{name}.{kind}"]


def _check_there(needed: list[str], weights: Mapping[str, Any]) -> None:
    missing = [name for name in needed if name not in weights]
    if missing:
        raise ValueError(f"the state dict has no {', '.join(missing)}; it has: {', '.join(weights)}")


def _biased(weights: Weights, name: str, h: jax.Array) -> jax.Array:
    bias = weights.get(f"{name}.bias")
    return h if bias is None else h + _row(bias, h)


def _row(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _named(name: str, h: jax.Array) -> jax.Array:
    return tag(name.replace(".", "/"), h)
