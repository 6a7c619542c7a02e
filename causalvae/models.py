"""Encoders and decoders. Every activation worth naming goes through `tap(site, value)` (see sites.py).

The standard network is Locatello et al. 2019, table 1 of the appendix (as in disentanglement_lib):
Glorot-uniform kernels, zero biases, ReLU, 4x4 stride-2 convolutions, dense 256, 10 latents.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from causalvae.layers import Down, Up
from causalvae.sites import Tap, no_tap


def dense(features: int, name: str) -> nn.Dense:
    """A dense layer with the standard network's initialisation."""
    return nn.Dense(features, kernel_init=nn.initializers.glorot_uniform(), name=name)


class ConvEncoder(nn.Module):
    """Image [B, H, W, C] -> posterior (mean [B, d], log-variance [B, d]).

    H and W are divisible by 2 to the number of convolutions. `kernel_sizes` are 4 or 2, all stride 2.
    """

    latents: int
    channels: Sequence[int] = (32, 32, 64, 64)
    kernel_sizes: Sequence[int] = (4, 4, 4, 4)
    dense_features: Sequence[int] = (256,)

    @nn.compact
    def __call__(self, x: jax.Array, tap: Tap = no_tap) -> tuple[jax.Array, jax.Array]:
        h = x
        for i, (features, size) in enumerate(zip(self.channels, self.kernel_sizes, strict=True)):
            h = tap(f"encoder/conv{i}", nn.relu(Down(features, size, name=f"conv{i}")(h)))
        h = h.reshape(h.shape[0], -1)
        for i, features in enumerate(self.dense_features):
            name = "dense" if len(self.dense_features) == 1 else f"dense{i}"
            h = tap(f"encoder/{name}", nn.relu(dense(features, name)(h)))
        mean = tap("latent/mean", dense(self.latents, "mean")(h))
        log_variance = tap("latent/log_variance", dense(self.latents, "log_variance")(h))
        return mean, log_variance


class ConvDecoder(nn.Module):
    """Latent [B, d] -> logits [B, H, W, C] of the image."""

    image_shape: tuple[int, int, int]
    channels: Sequence[int] = (64, 32, 32)  # of the transposed convolutions before the last
    dense_features: Sequence[int] = (256,)
    base_channels: int = 64

    @nn.compact
    def __call__(self, z: jax.Array, tap: Tap = no_tap) -> jax.Array:
        height, width, colours = self.image_shape
        shrink = 2 ** (len(self.channels) + 1)
        base = (height // shrink, width // shrink, self.base_channels)
        h = z
        for i, features in enumerate((*self.dense_features, base[0] * base[1] * base[2])):
            h = tap(f"decoder/dense{i}", nn.relu(dense(features, f"dense{i}")(h)))
        h = h.reshape(h.shape[0], *base)
        for i, features in enumerate(self.channels):
            h = tap(f"decoder/conv{i}", nn.relu(Up(features, name=f"conv{i}")(h)))
        return tap("decoder/logits", Up(colours, name="logits")(h))


def networks(
    image_shape: tuple[int, int, int], latents: int, network: str = "standard"
) -> tuple[nn.Module, nn.Module]:
    """(encoder, decoder) modules of a named network for an image shape and a number of latents.

    Raises ValueError naming the networks that exist, or the image sizes that this one takes.
    """
    if network not in NETWORKS:
        raise ValueError(f"no network {network!r}; there are: {', '.join(NETWORKS)}")
    if latents < 1:
        raise ValueError(f"latents must be at least 1, not {latents}")
    return NETWORKS[network](tuple(image_shape), latents)


def check_image_shape(image_shape: tuple[int, int, int], divisor: int, network: str) -> None:
    """ValueError unless height and width are multiples of `divisor`."""
    if len(image_shape) != 3 or image_shape[0] % divisor or image_shape[1] % divisor or min(image_shape) < 1:
        raise ValueError(
            f"the {network} network needs images [H, W, C] with H and W multiples of {divisor}, "
            f"not {list(image_shape)}"
        )


def standard(image_shape: tuple[int, int, int], latents: int) -> tuple[nn.Module, nn.Module]:
    """The standard network with four 4x4 stride-2 convolutions each way."""
    check_image_shape(image_shape, 16, "standard")
    return ConvEncoder(latents), ConvDecoder(image_shape)


def small(image_shape: tuple[int, int, int], latents: int) -> tuple[nn.Module, nn.Module]:
    """A quarter of the standard network's width: for tests and quick looks, not for reported results."""
    check_image_shape(image_shape, 16, "small")
    return (
        ConvEncoder(latents, (8, 8, 16, 16), dense_features=(64,)),
        ConvDecoder(image_shape, (16, 8, 8), (64,), 16),
    )


NETWORKS = {"standard": standard, "small": small}


def parameter_count(params) -> int:
    """The number of scalars in a parameter pytree."""
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
