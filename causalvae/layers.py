"""Convolutions that halve an image and transposed convolutions that double it, as matrix products.

`downsample` equals `lax.conv_general_dilated(x, kernel, (2, 2), "SAME")` and `upsample` equals
`lax.conv_transpose(x, kernel, (2, 2), "SAME")`, NHWC images and HWIO kernels, values and gradients.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


# --- the two functions -----------------------------------------------------------------------------------


def downsample(x: jax.Array, kernel: jax.Array, form: str | None = None) -> jax.Array:
    """Stride-2 SAME convolution: x [B, H, W, Cin], kernel [k, k, Cin, Cout], k 4 or 2 -> [B, H/2, W/2, Cout].

    form: "gather", "scatter" or "conv"; None takes `down_form`'s choice. All forms give the same values.
    Raises ValueError for odd H or W, another kernel size, or channels that do not match.
    """
    _check(x, kernel, even=True)
    size, _, channels, features = kernel.shape
    form = form or down_form(channels, features)
    _check_form(form)
    if form == "conv":
        return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
    if size == 2:
        return _blocks(x) @ kernel.reshape(1, 1, 4 * channels, features)
    # Output i reads inputs 2i-1 .. 2i+2: two blocks of the image padded by one.
    blocks = _blocks(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
    taps = kernel.reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    taps = taps.reshape(2, 2, 4 * channels, features)
    if form == "gather":
        return _windows(blocks) @ taps.reshape(1, 1, 16 * channels, features)
    products = blocks @ taps.transpose(2, 0, 1, 3).reshape(1, 1, 4 * channels, 4 * features)
    height, width = x.shape[1] // 2, x.shape[2] // 2
    return sum(
        products[:, a : a + height, b : b + width, (2 * a + b) * features : (2 * a + b + 1) * features]
        for a in (0, 1)
        for b in (0, 1)
    )


def upsample(x: jax.Array, kernel: jax.Array, form: str | None = None) -> jax.Array:
    """Stride-2 SAME transposed convolution: x [B, H, W, Cin], kernel [4, 4, Cin, Cout] -> [B, 2H, 2W, Cout].

    The convention is `lax.conv_transpose(..., transpose_kernel=False)`: the image is dilated by 2 and then
    *correlated* with the kernel, out[o] = sum over i of x[i] kernel[2i - o + 2]. PyTorch's ConvTranspose2d
    flips the kernel instead; see `up_kernel_to_torch`.
    form: "gather", "scatter" or "conv"; None takes `up_form`'s choice. All forms give the same values.
    Raises ValueError for another kernel size or channels that do not match.
    """
    _check(x, kernel, even=False)
    _, _, channels, features = kernel.shape
    form = form or up_form(channels, features)
    _check_form(form)
    if form == "conv":
        return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
    batch, height, width, _ = x.shape
    if form == "gather":
        # Output 2j + p reads inputs j-1+p and j+p with taps p and 2+p.
        windows = _windows(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
        taps = kernel.reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 4, 1, 3, 5)
        phases = windows @ taps.reshape(1, 1, 4 * channels, 4 * features)
        phases = phases.reshape(batch, height + 1, width + 1, 2, 2, features)
        rows = [
            jnp.stack([phases[:, p : p + height, q : q + width, p, q] for q in (0, 1)], axis=3) for p in (0, 1)
        ]
        return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, features)
    # Input i writes outputs 2i-1 .. 2i+2 with taps 3 .. 0: two blocks of the output padded by one.
    taps = kernel[::-1, ::-1].reshape(2, 2, 2, 2, channels, features).transpose(4, 0, 2, 1, 3, 5)
    products = (x @ taps.reshape(1, 1, channels, 16 * features)).reshape(batch, height, width, 2, 2, 4 * features)
    blocks = sum(
        jnp.pad(products[:, :, :, a, b], ((0, 0), (a, 1 - a), (b, 1 - b), (0, 0))) for a in (0, 1) for b in (0, 1)
    )
    blocks = blocks.reshape(batch, height + 1, width + 1, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, 2 * height + 2, 2 * width + 2, features)[:, 1:-1, 1:-1]


# --- which form ------------------------------------------------------------------------------------------


def down_form(channels: int, features: int) -> str:
    """The fastest form of `downsample` for this backend and these channel counts."""
    if jax.default_backend() != "cpu":
        return "conv"
    return "gather" if channels < 16 else "scatter"


def up_form(channels: int, features: int) -> str:
    """The fastest form of `upsample` for this backend and these channel counts."""
    if jax.default_backend() != "cpu":
        return "conv"
    return "scatter" if features < 16 else "gather"


# --- layers ----------------------------------------------------------------------------------------------


class Down(nn.Module):
    """`downsample` with a bias: [B, H, W, C] -> [B, H/2, W/2, features]; params `kernel` and `bias` as nn.Conv."""

    features: int
    kernel_size: int = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return downsample(x, kernel) + bias.reshape(1, 1, 1, -1)


class Up(nn.Module):
    """`upsample` with a bias: [B, H, W, C] -> [B, 2H, 2W, features]; params as nn.ConvTranspose."""

    features: int
    kernel_size: int = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return upsample(x, kernel) + bias.reshape(1, 1, 1, -1)


# --- PyTorch's layout ------------------------------------------------------------------------------------


def down_kernel_to_torch(kernel):
    """[k, k, Cin, Cout] -> weight [Cout, Cin, k, k] of torch Conv2d(k=4, stride=2, padding=1) or (k=2, stride=2)."""
    return kernel.transpose(3, 2, 0, 1)


def down_kernel_from_torch(weight):
    """The inverse of `down_kernel_to_torch`."""
    return weight.transpose(2, 3, 1, 0)


def up_kernel_to_torch(kernel):
    """[4, 4, Cin, Cout] -> weight [Cin, Cout, 4, 4] of torch ConvTranspose2d(k=4, stride=2, padding=1): flipped."""
    return kernel[::-1, ::-1].transpose(2, 3, 0, 1)


def up_kernel_from_torch(weight):
    """The inverse of `up_kernel_to_torch`."""
    return weight.transpose(2, 3, 0, 1)[::-1, ::-1]


# --- pieces ----------------------------------------------------------------------------------------------


def _blocks(x: jax.Array) -> jax.Array:
    """Space to depth: [B, 2h, 2w, C] -> [B, h, w, 4C], the last axis ordered (row, column, channel)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)


def _windows(x: jax.Array) -> jax.Array:
    """All 2x2 windows: [B, h+1, w+1, C] -> [B, h, w, 4C], the last axis ordered (row, column, channel)."""
    height, width = x.shape[1] - 1, x.shape[2] - 1
    return jnp.concatenate([x[:, a : a + height, b : b + width] for a in (0, 1) for b in (0, 1)], axis=-1)


def _check(x: jax.Array, kernel: jax.Array, even: bool) -> None:
    if x.ndim != 4:
        raise ValueError(f"images must be [batch, height, width, channels], not of shape {list(x.shape)}")
    sizes = (4, 2) if even else (4,)
    if kernel.ndim != 4 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] not in sizes:
        known = " or ".join(f"[{k}, {k}, in, out]" for k in sizes)
        raise ValueError(f"the kernel must be {known}, not {list(kernel.shape)}")
    if kernel.shape[2] != x.shape[3]:
        raise ValueError(f"the kernel {list(kernel.shape)} takes {kernel.shape[2]} channels, x has {x.shape[3]}")
    if even and (x.shape[1] % 2 or x.shape[2] % 2):
        raise ValueError(f"height and width must be even to be halved, not {x.shape[1]} x {x.shape[2]}")


def _check_form(form: str) -> None:
    if form not in ("gather", "scatter", "conv"):
        raise ValueError(f"no form {form!r}: choose 'gather', 'scatter' or 'conv'")
