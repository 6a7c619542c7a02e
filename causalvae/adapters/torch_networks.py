"""Networks of published PyTorch code, as functions of the state dicts that it saves."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae import architectures
from causalvae.adapters.foreign import Foreign
from causalvae.adapters.functions import from_functions
from causalvae.adapters.torch_layers import (
    Weights,
    batch_norm,
    conv,
    conv_transpose,
    flatten,
    linear,
    unflatten,
    weights_of,
)
from causalvae.adapters.torch_weights import LAYOUTS, from_torch
from causalvae.architectures import Architecture

PyTree = Any


class Published(NamedTuple):
    """How a published network encodes and decodes images in [0, 1], by weights under its own names."""

    encode: Callable[[Weights, jax.Array], Any]  # (weights, x [N, H, W, C]) -> (mean, log-variance)
    decode: Callable[..., jax.Array]  # (weights, z, image shape) -> image
    known_by: str  # an array that only this network's state dict has


def from_published(
    state_dict: Mapping[str, Any], network: str, image_shape: tuple[int, int, int]
) -> tuple[Architecture | Foreign, PyTree]:
    """Returns (model, params) of a network that published PyTorch code trained, from its state dict.

    Widths and latents are read from the weights. Images are [N, H, W, C] in [0, 1] here, also where the network's own
    are from -1 to 1. Runs as after `module.eval()`. Sites of a network that is not ours are its layers:
    "encoder/0/0" is "encoder.0.0" there.

    Args:
      state_dict: name -> tensor or array, or the file's whole contents; see `torch_layers.weights_of`.
      network: a name of `NETWORKS`, or of `LAYOUTS`, whose networks are ours.
      image_shape: (H, W, C).

    Raises:
      ValueError: for an unknown name, weights of another network, and images of another size than it takes.
    """
    weights = weights_of(state_dict)
    if network in LAYOUTS:
        return _ours(weights, network, image_shape)
    if network not in NETWORKS:
        raise ValueError(f"no published network {network!r}; there are: {', '.join((*LAYOUTS, *NETWORKS))}")
    published = NETWORKS[network]
    if published.known_by not in weights:
        raise ValueError(
            f"these are not the weights of {network!r}, which have {published.known_by}; they are: {', '.join(weights)}"
        )
    model = _model(network, tuple(image_shape))
    one: Any = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        found = jax.eval_shape(lambda weights, x: model.forward(weights, x, None).image, weights, one).shape[1:]
    except TypeError as error:  # layers whose shapes do not fit
        raise ValueError(f"{network} with these weights takes no images {list(image_shape)}: {error}") from error
    if found != tuple(image_shape):
        raise ValueError(f"{network} with these weights makes images {list(found)} of images {list(image_shape)}")
    return model, weights


@functools.lru_cache(maxsize=64)
def _model(network: str, image_shape: tuple[int, int, int]) -> Foreign:
    """One object for each network and size, so that nothing compiles twice."""
    published = NETWORKS[network]

    def encode(weights, x):
        return published.encode(weights, x)

    def decode(weights, z):
        return published.decode(weights, z, image_shape)

    return from_functions(encode, decode)._replace(name=network, image_shape=image_shape)


def _ours(weights: Weights, layout: str, image_shape: tuple[int, int, int]) -> tuple[Architecture, PyTree]:
    heads = weights.get(f"{LAYOUTS[layout].heads}.bias")
    if heads is None:
        raise ValueError(f"the state dict has no {LAYOUTS[layout].heads}.bias; it has: {', '.join(weights)}")
    model = architectures.create(
        "vae", image_shape=image_shape, latents=heads.shape[0] // 2, network=LAYOUTS[layout].network
    )
    return model, from_torch(model, weights, layout)


# --- AntixK/PyTorch-VAE: VanillaVAE and those that share its network -------------------------------------


def _pytorch_vae_encode(weights: Weights, x: jax.Array):
    h = 2.0 * x - 1.0
    for i in range(_count(weights, "encoder.{}.0.weight")):
        h = conv(weights, f"encoder.{i}.0", h, stride=2, padding=1)
        h = _leaky(batch_norm(weights, f"encoder.{i}.1", h))
    h = flatten(h)
    return linear(weights, "fc_mu", h), linear(weights, "fc_var", h)


def _pytorch_vae_decode(weights: Weights, z: jax.Array, image_shape: tuple[int, int, int]) -> jax.Array:
    blocks = _count(weights, "decoder.{}.0.weight")
    first = weights["decoder.0.0.weight" if blocks else "final_layer.0.weight"].shape[0]
    base = tuple(side // 2 ** (blocks + 1) for side in image_shape[:2])
    h = unflatten(linear(weights, "decoder_input", z), (*base, first))
    for i in range(blocks):
        h = conv_transpose(weights, f"decoder.{i}.0", h, stride=2, padding=1, output_padding=1)
        h = _leaky(batch_norm(weights, f"decoder.{i}.1", h))
    h = conv_transpose(weights, "final_layer.0", h, stride=2, padding=1, output_padding=1)
    h = _leaky(batch_norm(weights, "final_layer.1", h))
    return 0.5 * (jnp.tanh(conv(weights, "final_layer.3", h, padding=1)) + 1.0)


# --- pythae ----------------------------------------------------------------------------------------------


def _pythae_mlp_encode(weights: Weights, x: jax.Array):
    return _pythae_heads(weights, jax.nn.relu(linear(weights, "encoder.layers.0.0", flatten(x))))


def _pythae_mlp_decode(weights: Weights, z: jax.Array, image_shape: tuple[int, int, int]) -> jax.Array:
    h = jax.nn.relu(linear(weights, "decoder.layers.0.0", z))
    return unflatten(jax.nn.sigmoid(linear(weights, "decoder.layers.1.0", h)), image_shape)


def _pythae_conv_encode(weights: Weights, x: jax.Array):
    h = x
    for i in range(_count(weights, "encoder.layers.{}.0.weight")):
        h = conv(weights, f"encoder.layers.{i}.0", h, stride=2, padding=1)
        h = jax.nn.relu(batch_norm(weights, f"encoder.layers.{i}.1", h))
    return _pythae_heads(weights, flatten(h))


def _pythae_heads(weights: Weights, h: jax.Array):
    return linear(weights, "encoder.embedding", h), linear(weights, "encoder.log_var", h)


class _Up(NamedTuple):
    """The options of a transposed convolution."""

    stride: int
    padding: int
    output_padding: int = 0


def _pythae_conv_decode(dense: str, *layers: _Up) -> Callable[..., jax.Array]:
    def decode(weights: Weights, z: jax.Array, image_shape: tuple[int, int, int]) -> jax.Array:
        del image_shape  # which the weights say
        h = linear(weights, dense, z)
        channels = weights["decoder.layers.1.0.weight"].shape[0]
        side = math.isqrt(h.shape[1] // channels)
        h = unflatten(h, (side, side, channels))
        for i, options in enumerate(layers, 1):
            h = conv_transpose(weights, f"decoder.layers.{i}.0", h, **options._asdict())
            if i < len(layers):
                h = jax.nn.relu(batch_norm(weights, f"decoder.layers.{i}.1", h))
        return jax.nn.sigmoid(h)

    return decode


def _count(weights: Weights, name: str) -> int:
    """How many of the names with 0, 1, 2, … there are."""
    return next(i for i in range(len(weights) + 1) if name.format(i) not in weights)


def _leaky(h: jax.Array) -> jax.Array:
    return jax.nn.leaky_relu(h, 0.01)


NETWORKS: dict[str, Published] = {
    "pytorch-vae": Published(_pytorch_vae_encode, _pytorch_vae_decode, "final_layer.3.weight"),
    "pythae": Published(_pythae_mlp_encode, _pythae_mlp_decode, "encoder.embedding.weight"),
    "pythae-mnist": Published(
        _pythae_conv_encode,
        _pythae_conv_decode("decoder.layers.0", _Up(2, 1), _Up(2, 1, 1), _Up(2, 1, 1)),
        "encoder.layers.3.1.running_mean",
    ),
    "pythae-cifar": Published(
        _pythae_conv_encode,
        _pythae_conv_decode("decoder.layers.0", _Up(2, 1), _Up(2, 1, 1), _Up(1, 2)),
        "encoder.layers.3.1.running_mean",
    ),
    "pythae-celeba": Published(
        _pythae_conv_encode,
        _pythae_conv_decode("decoder.layers.0.0", _Up(2, 2), _Up(2, 1), _Up(2, 2, 1), _Up(1, 1)),
        "encoder.layers.3.1.running_mean",
    ),
}
"""Networks of published code that `from_published` knows by name, beside the `LAYOUTS` that are ours."""
