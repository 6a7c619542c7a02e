"""Encoders, decoders and FactorVAE's discriminator. Activations go through `tap(site, value)` (see sites.py).

The standard network is Locatello et al. 2019, table 1 of the appendix (as in disentanglement_lib):
Glorot-uniform kernels, zero biases, ReLU, 4x4 stride-2 convolutions, dense 256, 10 latents.

An encoder has one of three heads: "gaussian" returns (mean [B, d], log-variance [B, d]), "vector" returns
z [B, d], and "map" returns z [B, h, w, d], one vector for each position of the last feature map. A decoder
takes z in either shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from causalvae import precision
from causalvae.layers import Down, Up, by_platform
from causalvae.sites import Tap, no_tap

HEADS = ("gaussian", "vector", "map")
GLOROT = nn.initializers.glorot_uniform()


def dense(features: int, name: str, kernel_init=GLOROT) -> nn.Dense:
    """Returns a dense layer of the last axis with the standard network's initialization."""
    return nn.Dense(features, kernel_init=kernel_init, name=name, **precision.for_dense())


def exact_dense(features: int, name: str) -> nn.Dense:
    """Returns such a layer that is in float32 whatever the rest is in, see precision.py."""
    return nn.Dense(features, kernel_init=GLOROT, name=name)


def encoder_head(h: jax.Array, latents: int, dense_features: Sequence[int], head: str, tap: Tap):
    """Returns what `head` names of a feature map [B, h, w, C]. The layers belong to the encoder that calls it."""
    if head == "map":
        return exact_dense(latents, "z")(h)
    h = h.reshape(h.shape[0], -1)
    for i, features in enumerate(dense_features):
        name = "dense" if len(dense_features) == 1 else f"dense{i}"
        h = tap(f"encoder/{name}", nn.relu(dense(features, name)(h)))
    if head == "vector":
        return exact_dense(latents, "z")(h)
    mean = tap("latent/mean", exact_dense(latents, "mean")(h))
    log_variance = tap("latent/log_variance", exact_dense(latents, "log_variance")(h))
    return mean, log_variance


def decoder_base(z: jax.Array, dense_features: Sequence[int], base: tuple[int, int, int], tap: Tap) -> jax.Array:
    """Returns the decoder's first feature map [B, *base] of z [B, d] or [B, h, w, d].

    A map of latents is projected position by position, by one layer.
    """
    if z.ndim == 4:
        return tap("decoder/dense0", nn.relu(dense(base[2], "dense0")(z)))
    h = z
    for i, features in enumerate((*dense_features, base[0] * base[1] * base[2])):
        h = tap(f"decoder/dense{i}", nn.relu(dense(features, f"dense{i}")(h)))
    return h.reshape(h.shape[0], *base)


# --- plain convolutions ----------------------------------------------------------------------------------


class ConvEncoder(nn.Module):
    """Image [B, H, W, C] -> what the head returns.

    H and W are divisible by 2 to the number of convolutions. `kernel_sizes` are 4 or 2, all stride 2.
    """

    latents: int
    channels: Sequence[int] = (32, 32, 64, 64)
    kernel_sizes: Sequence[int] = (4, 4, 4, 4)
    dense_features: Sequence[int] = (256,)
    head: str = "gaussian"

    @nn.compact
    def __call__(self, x: jax.Array, tap: Tap = no_tap):
        h = x
        for i, (features, size) in enumerate(zip(self.channels, self.kernel_sizes, strict=True)):
            h = tap(f"encoder/conv{i}", nn.relu(Down(features, size, name=f"conv{i}")(h)))
        return encoder_head(h, self.latents, self.dense_features, self.head, tap)


class ConvDecoder(nn.Module):
    """z [B, d] or [B, H/16, W/16, d] -> logits [B, H, W, C] of the image."""

    image_shape: tuple[int, int, int]
    channels: Sequence[int] = (64, 32, 32)  # of the transposed convolutions before the last
    dense_features: Sequence[int] = (256,)
    base_channels: int = 64

    @nn.compact
    def __call__(self, z: jax.Array, tap: Tap = no_tap) -> jax.Array:
        height, width, colors = self.image_shape
        shrink = 2 ** (len(self.channels) + 1)
        h = decoder_base(z, self.dense_features, (height // shrink, width // shrink, self.base_channels), tap)
        for i, features in enumerate(self.channels):
            h = tap(f"decoder/conv{i}", nn.relu(Up(features, name=f"conv{i}")(h)))
        return tap("decoder/logits", Up(colors, name="logits")(h))


# --- residual --------------------------------------------------------------------------------------------


def convolution3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns a stride-1 SAME convolution: x [B, H, W, Cin], kernel [3, 3, Cin, Cout] -> [B, H, W, Cout].

    On a CPU it is one matrix product over the nine neighbors: 50 times as fast as XLA's own in a loop body.
    """
    return by_platform(x, kernel, product=_product_of_neighbors, convolution=_convolution3x3)


def _convolution3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _product_of_neighbors(x: jax.Array, kernel: jax.Array) -> jax.Array:
    _, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    neighbors = [padded[:, a : a + height, b : b + width] for a in range(3) for b in range(3)]
    return jnp.concatenate(neighbors, axis=-1) @ kernel.reshape(1, 1, 9 * channels, -1)


class ResidualBlock(nn.Module):
    """relu(h + W relu(K * h)), K 3x3 and W 1x1: van den Oord et al. 2017, section 4.1, with its first ReLU
    moved behind the sum. W starts at zero, so the block starts as the identity and needs no normalization."""

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        channels = h.shape[-1]
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (3, 3, channels, channels))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        inner = nn.relu(convolution3x3(*precision.operands(h, kernel)) + bias.reshape(1, 1, 1, -1))
        return nn.relu(h + dense(channels, "project", nn.initializers.zeros_init())(inner))


class ResidualEncoder(nn.Module):
    """Image [B, H, W, C] -> what the head returns: halving convolutions, a residual block after each."""

    latents: int
    channels: Sequence[int]
    dense_features: Sequence[int] = (256,)
    head: str = "gaussian"

    @nn.compact
    def __call__(self, x: jax.Array, tap: Tap = no_tap):
        h = x
        for i, features in enumerate(self.channels):
            h = tap(f"encoder/conv{i}", nn.relu(Down(features, name=f"conv{i}")(h)))
            h = tap(f"encoder/block{i}", ResidualBlock(name=f"block{i}")(h))
        return encoder_head(h, self.latents, self.dense_features, self.head, tap)


class ResidualDecoder(nn.Module):
    """z [B, d] or [B, h, w, d] -> logits [B, H, W, C]: a residual block before each doubling."""

    image_shape: tuple[int, int, int]
    channels: Sequence[int]  # of the feature maps, from the smallest; one doubling each
    dense_features: Sequence[int] = (256,)

    @nn.compact
    def __call__(self, z: jax.Array, tap: Tap = no_tap) -> jax.Array:
        height, width, colors = self.image_shape
        shrink = 2 ** len(self.channels)
        h = decoder_base(z, self.dense_features, (height // shrink, width // shrink, self.channels[0]), tap)
        for i in range(len(self.channels)):
            h = tap(f"decoder/block{i}", ResidualBlock(name=f"block{i}")(h))
            if i + 1 < len(self.channels):
                h = tap(f"decoder/conv{i}", nn.relu(Up(self.channels[i + 1], name=f"conv{i}")(h)))
        return tap("decoder/logits", Up(colors, name="logits")(h))


# --- the table -------------------------------------------------------------------------------------------


def encoder_and_decoder(
    image_shape: tuple[int, int, int], latents: int, network: str = "standard", head: str = "gaussian"
) -> tuple[Any, Any]:
    """Returns the modules of a named network for an image shape.

    Args:
      image_shape: [H, W, C].
      latents: how many.
      network: a name of `NETWORKS`.
      head: of the encoder, one of `HEADS`.

    Raises:
      ValueError: names the networks and heads that exist, or the image sizes that this network takes.
    """
    if network not in NETWORKS:
        raise ValueError(f"no network {network!r}; there are: {', '.join(NETWORKS)}")
    if head not in HEADS:
        raise ValueError(f"no encoder head {head!r}; there are: {', '.join(HEADS)}")
    if latents < 1:
        raise ValueError(f"latents must be at least 1, not {latents}")
    return NETWORKS[network](tuple(image_shape), latents, head)


def check_image_shape(image_shape: tuple[int, int, int], divisor: int, network: str) -> None:
    """Checks that height and width are multiples of `divisor`.

    Raises:
      ValueError: where they are not.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"the {network} network needs images [H, W, C], not {list(image_shape)}")
    nearest = nearest_size(image_shape, divisor)
    if nearest != tuple(image_shape[:2]):
        size = "x".join(map(str, nearest))
        raise ValueError(
            f"the {network} network needs images [H, W, C] with H and W multiples of {divisor}, not "
            f"{list(image_shape)}. The nearest that it takes are {size}: resize={size!r} of causalvae.data.from_arrays "
            f"and from_folder, or --config.data.resize={size}"
        )


def nearest_size(image_shape: Sequence[int], divisor: int) -> tuple[int, int]:
    """Returns the height and width nearest to an image's that are multiples of `divisor`, the larger of two."""
    height, width = (max(divisor, (side + divisor // 2) // divisor * divisor) for side in image_shape[:2])
    return height, width


def standard(image_shape: tuple[int, int, int], latents: int, head: str) -> tuple[nn.Module, nn.Module]:
    """Returns the standard network with four 4x4 stride-2 convolutions each way."""
    check_image_shape(image_shape, 16, "standard")
    return ConvEncoder(latents, head=head), ConvDecoder(image_shape)


def locatello_k2(image_shape: tuple[int, int, int], latents: int, head: str) -> tuple[nn.Module, nn.Module]:
    """Returns the standard network as disentanglement_lib's code has it: the encoder's last two kernels are 2x2."""
    check_image_shape(image_shape, 16, "locatello_k2")
    return ConvEncoder(latents, kernel_sizes=(4, 4, 2, 2), head=head), ConvDecoder(image_shape)


def burgess(image_shape: tuple[int, int, int], latents: int, head: str) -> tuple[nn.Module, nn.Module]:
    """Returns the network of Burgess et al. 2018 for 64-pixel images: 32 channels everywhere, two dense layers of 256.

    It is that of the published disentangling-vae logs (which start from PyTorch's initialization).
    """
    check_image_shape(image_shape, 16, "burgess")
    return (
        ConvEncoder(latents, (32, 32, 32, 32), dense_features=(256, 256), head=head),
        ConvDecoder(image_shape, (32, 32, 32), (256, 256), 32),
    )


def residual(image_shape: tuple[int, int, int], latents: int, head: str) -> tuple[nn.Module, nn.Module]:
    """Returns a residual network down to a sixteenth of the image (a 32nd from 128 pixels on). This library."""
    large = min(nearest_size(image_shape, 16)) >= 128
    check_image_shape(image_shape, 32 if large else 16, "residual")
    channels = (32, 64, 64, 128, 128) if large else (32, 64, 64, 128)
    return (
        ResidualEncoder(latents, channels, head=head),
        ResidualDecoder(image_shape, channels[::-1]),
    )


def small(image_shape: tuple[int, int, int], latents: int, head: str) -> tuple[nn.Module, nn.Module]:
    """Returns a quarter of the standard network's width: for tests and quick looks, not for reported results."""
    check_image_shape(image_shape, 16, "small")
    return (
        ConvEncoder(latents, (8, 8, 16, 16), dense_features=(64,), head=head),
        ConvDecoder(image_shape, (16, 8, 8), (64,), 16),
    )


NETWORKS: dict[str, Callable[..., tuple[nn.Module, nn.Module]]] = {
    "standard": standard,
    "locatello_k2": locatello_k2,
    "burgess": burgess,
    "residual": residual,
    "small": small,
}


def parameter_count(params) -> int:
    """Returns the number of scalars in a parameter pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


# --- the discriminator -----------------------------------------------------------------------------------


class Discriminator(nn.Module):
    """Latents [B, d] -> logits [B, 2]: column 0 "a sample of q(z)", column 1 "of the product of its marginals".

    Kim & Mnih 2018, appendix A: six hidden layers of 1000, leaky ReLU of slope 0.2.
    """

    features: Sequence[int] = (1000,) * 6

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        h = z
        for i, features in enumerate(self.features):
            h = nn.leaky_relu(exact_dense(features, f"dense{i}")(h), negative_slope=0.2)
        return exact_dense(2, "logits")(h)
