"""Convolutions that halve an image and transposed convolutions that double it, written as matrix products.

`downsample` equals `lax.conv_general_dilated(x, kernel, (2, 2), "SAME")` and `upsample` equals
`lax.conv_transpose(x, kernel, (2, 2), "SAME")`, NHWC images and HWIO kernels, values and derivatives of every
order and mode. Two CPU cores run them several times faster this way, in loops and under vmap over parameters
as well.

Both directions join a fine image [B, 2h, 2w, F] and a coarse one [B, h, w, C]. Padded by one pixel, the fine
image is (h+1) x (w+1) blocks of 2x2 pixels, and every coarse pixel has a window of 2x2 blocks.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from causalvae.precision import operands

FORMS = ("windows", "blocks", "conv")
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (row, column) in a 2x2 block or a 2x2 window, as in memory


# --- the two functions -----------------------------------------------------------------------------------


def downsample(x: jax.Array, kernel: jax.Array, form: str | None = None) -> jax.Array:
    """Returns a stride-2 SAME convolution: x [B, 2h, 2w, F], kernel [k, k, F, C] with k 4 or 2 -> [B, h, w, C].

    Args:
      x: images.
      kernel: of the convolution.
      form: "windows", "blocks" or "conv", all with the same values; None is the fastest where the program will run:
        `choose_form`'s choice on a CPU and under CUDA, "conv" elsewhere, as on TPUs, which are made for it.

    Raises:
      ValueError: for odd sizes, another kernel size, channels that do not match, an unknown form.
    """
    _check(x, kernel, (4, 2))
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"height and width must be even to be halved, not {x.shape[1]} x {x.shape[2]}")
    return _run("down", _downsample, x, kernel, form)


def _downsample(x: jax.Array, kernel: jax.Array, form: str) -> jax.Array:
    size, _, fine, coarse = kernel.shape
    height, width = x.shape[1] // 2, x.shape[2] // 2
    if form == "conv":
        return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
    if size == 2:
        blocks = x.reshape(-1, height, 2, width, 2, fine).swapaxes(2, 3).reshape(-1, height, width, 4 * fine)
        return _product(blocks, kernel.reshape(4 * fine, coarse), axis=0)
    if form == "windows":
        return _product(_to_windows(_to_blocks(x)), _window_matrix(kernel), axis=1)
    return _from_neighbors(_product(_to_blocks(x), _block_matrix(kernel), axis=0))


def upsample(x: jax.Array, kernel: jax.Array, form: str | None = None) -> jax.Array:
    """Returns a stride-2 SAME transposed convolution: x [B, h, w, C], kernel [4, 4, C, F] -> [B, 2h, 2w, F].

    The convention is `lax.conv_transpose(..., transpose_kernel=False)`: x is dilated by 2, then *correlated* with the
    kernel, out[o] = sum over i of x[i] kernel[2i - o + 2]. PyTorch's ConvTranspose2d flips the kernel;
    `up_kernel_to_torch` gives its weight.

    Args:
      x: feature maps.
      kernel: of the convolution.
      form: as `downsample`'s.

    Raises:
      ValueError: for another kernel size, channels that do not match, an unknown form.
    """
    _check(x, kernel, (4,))
    return _run("up", _upsample, x, kernel, form)


def _upsample(x: jax.Array, kernel: jax.Array, form: str) -> jax.Array:
    if form == "conv":
        return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
    adjoint = kernel[::-1, ::-1].swapaxes(2, 3)  # [4, 4, F, C]: of the downsampling whose transpose this is
    if form == "windows":
        return _from_blocks(_from_windows(_product(x, _window_matrix(adjoint), axis=0)))
    return _from_blocks(_product(_to_neighbors(x), _block_matrix(adjoint), axis=1))


# --- which form ------------------------------------------------------------------------------------------


def _run(direction: str, function: Callable, x: jax.Array, kernel: jax.Array, form: str | None) -> jax.Array:
    """The function in the form that is asked for, or in the one that is best where the program will run."""
    if form is not None:
        return function(x, kernel, _known(form))
    fine, coarse = kernel.shape[2:] if direction == "down" else (kernel.shape[3], kernel.shape[2])
    shrink = 2 if direction == "down" else 1
    best = choose_form(direction, fine, coarse, x.shape[1] // shrink, x.shape[2] // shrink)
    return by_platform(x, kernel, product=partial(function, form=best), convolution=partial(function, form="conv"))


def by_platform(x: jax.Array, kernel: jax.Array, product: Callable, convolution: Callable) -> jax.Array:
    """Returns the product on a CPU and under CUDA, the convolution elsewhere, or what `preferring` asks for.

    On an H100 a training step of six members takes 1.7 ms by products and 10.1 ms by convolutions, of which cuDNN has
    no fast ones for feature groups; of one member, too, it spends most of its time on three weights' gradients.
    """
    preferred = _preferred.get()
    if preferred is not None:
        return {"products": product, "conv": convolution}[preferred](x, kernel)
    return lax.platform_dependent(x, kernel, cpu=product, cuda=product, default=convolution)


_preferred: contextvars.ContextVar[str | None] = contextvars.ContextVar("preferred", default=None)


@contextlib.contextmanager
def preferring(form: str | None) -> Iterator[None]:
    """Lets layers without a form of their own that are traced within the block take "products" of matrices or "conv",
    the device's own convolution, wherever the program will run. None leaves the choice."""
    token = _preferred.set(form)
    try:
        yield
    finally:
        _preferred.reset(token)


def choose_form(direction: str, fine: int, coarse: int, height: int, width: int) -> str:
    """The fastest form on a CPU for "down" or "up" between `fine` and `coarse` channels at a coarse height x width.

    "windows" is one product between every coarse pixel and its 4x4 window: 16 fine numbers a pixel.
    "blocks" is one product between every block and the four coarse pixels whose windows hold it:
    4 (fine + coarse) numbers a block, and there is one more row and column of blocks than of pixels.
    Measured on two CPU cores, batch 64: going down, windows win until their buffer is half as large again
    (so for 3 -> 32 channels, 32 -> 64 at 8x8, 64 -> 64 at 4x4; 32 -> 32 at 16x16 goes by blocks). Going up,
    windows overlap and must be added, which pays only for few fine channels or very small images.
    """
    waste = (height + 1) * (width + 1) / (height * width)
    if direction == "up":
        return "windows" if fine < 8 or waste > 1.5 else "blocks"
    return "windows" if 16 * fine < 1.5 * waste * 4 * (fine + coarse) else "blocks"


# --- layers ----------------------------------------------------------------------------------------------


class Down(nn.Module):
    """`downsample` with a bias: [B, H, W, F] -> [B, H/2, W/2, features].

    Parameters as nn.Conv: `kernel` [k, k, F, features], Glorot-uniform, and `bias` [features], zero.
    """

    features: int
    kernel_size: int = 4
    form: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = _parameters(self, self.kernel_size, x.shape[-1], self.features)
        return downsample(*operands(x, kernel), self.form) + bias


class Up(nn.Module):
    """`upsample` with a bias: [B, h, w, C] -> [B, 2h, 2w, features].

    Parameters as nn.ConvTranspose: `kernel` [4, 4, C, features], Glorot-uniform, and `bias` [features], zero.
    """

    features: int
    form: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = _parameters(self, 4, x.shape[-1], self.features)
        return upsample(*operands(x, kernel), self.form) + bias


def _parameters(module: nn.Module, size: int, channels: int, features: int) -> tuple[jax.Array, jax.Array]:
    kernel = module.param("kernel", nn.initializers.glorot_uniform(), (size, size, channels, features))
    bias = module.param("bias", nn.initializers.zeros_init(), (features,))
    return kernel, bias.reshape(1, 1, 1, features)


# --- PyTorch's layout (numpy or jax arrays) --------------------------------------------------------------


def down_kernel_to_torch(kernel: Any) -> Any:
    """Returns the weight [out, in, k, k] of torch's Conv2d for a kernel [k, k, in, out].

    For k 4 that is Conv2d(in, out, 4, stride=2, padding=1); for k 2, Conv2d(in, out, 2, stride=2).
    """
    return kernel.transpose(3, 2, 0, 1)


def down_kernel_from_torch(weight: Any) -> Any:
    """Returns the kernel [k, k, in, out] for a weight [out, in, k, k] of torch's Conv2d."""
    return weight.transpose(2, 3, 1, 0)


def up_kernel_to_torch(kernel: Any) -> Any:
    """Returns the weight [in, out, 4, 4] of torch's ConvTranspose2d(in, out, 4, 2, 1) for a kernel [4, 4, in, out]."""
    return kernel[::-1, ::-1].transpose(2, 3, 0, 1)


def up_kernel_from_torch(weight: Any) -> Any:
    """Returns the kernel [4, 4, in, out] for a weight [in, out, 4, 4] of torch's ConvTranspose2d."""
    return weight.transpose(2, 3, 0, 1)[::-1, ::-1]


# --- the pieces ------------------------------------------------------------------------------------------

# Each pair is a linear map and its transpose, written so that JAX's transpose of one is about the other: the
# backward pass is then as fast as the forward pass. The four corners are stacked on the last axis but one: XLA
# fuses that, where a concatenation on the last axis is run alone, after a copy of every part.


def _to_blocks(x: jax.Array) -> jax.Array:
    """[B, 2h, 2w, F] -> [B, h+1, w+1, 4F]: the 2x2 blocks of the image padded by one pixel."""
    batch, height, width, channels = x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    blocks = padded.reshape(batch, height + 1, 2, width + 1, 2, channels).swapaxes(2, 3)
    return blocks.reshape(batch, height + 1, width + 1, 4 * channels)


def _from_blocks(blocks: jax.Array) -> jax.Array:
    """[B, h+1, w+1, 4F] -> [B, 2h, 2w, F]: the image without its padding."""
    batch, height, width, channels = blocks.shape[0], blocks.shape[1], blocks.shape[2], blocks.shape[3] // 4
    padded = blocks.reshape(batch, height, width, 2, 2, channels).swapaxes(2, 3)
    return padded.reshape(batch, 2 * height, 2 * width, channels)[:, 1:-1, 1:-1]


def _to_windows(blocks: jax.Array) -> jax.Array:
    """[B, h+1, w+1, N] -> [B, h, w, 4N]: all windows of 2x2 blocks."""
    height, width = blocks.shape[1] - 1, blocks.shape[2] - 1
    return _join([blocks[:, a : a + height, b : b + width] for a, b in CORNERS])


def _from_windows(windows: jax.Array) -> jax.Array:
    """[B, h, w, 4N] -> [B, h+1, w+1, N]: the windows put back where they came from, overlaps added."""
    parts = zip(CORNERS, _split(windows), strict=True)
    return sum(jnp.pad(part, ((0, 0), (a, 1 - a), (b, 1 - b), (0, 0))) for (a, b), part in parts)  # pyright: ignore[reportReturnType] (sum may be of nothing)


def _to_neighbors(x: jax.Array) -> jax.Array:
    """[B, h, w, C] -> [B, h+1, w+1, 4C]: for every block the four pixels whose windows hold it, or zeros."""
    return _join([jnp.pad(x, ((0, 0), (a, 1 - a), (b, 1 - b), (0, 0))) for a, b in CORNERS])


def _from_neighbors(neighbors: jax.Array) -> jax.Array:
    """[B, h+1, w+1, 4C] -> [B, h, w, C]: what the four blocks of every window say of its pixel, added."""
    height, width = neighbors.shape[1] - 1, neighbors.shape[2] - 1
    parts = zip(CORNERS, _split(neighbors), strict=True)
    return sum(part[:, a : a + height, b : b + width] for (a, b), part in parts)  # pyright: ignore[reportReturnType] (sum may be of nothing)


def _join(corners: list[jax.Array]) -> jax.Array:
    """Four of [B, h, w, N] -> [B, h, w, 4N]."""
    joined = jnp.stack(corners, axis=3)
    return joined.reshape(*joined.shape[:3], -1)


def _split(x: jax.Array) -> list[jax.Array]:
    """[B, h, w, 4N] -> four of [B, h, w, N]."""
    channels = x.shape[3] // 4
    parts = lax.split(x.reshape(*x.shape[:3], 4, channels), (1, 1, 1, 1), axis=3)
    return [part.reshape(*x.shape[:3], channels) for part in parts]


def _block_matrix(kernel: jax.Array) -> jax.Array:
    """kernel [4, 4, F, C] -> [4F, 4C], from the pixels of a block to the pixels whose windows hold it."""
    fine, coarse = kernel.shape[2:]
    taps = kernel.reshape(2, 2, 2, 2, fine, coarse)  # block row, row in it, block column, column in it
    return taps.transpose(1, 3, 4, 0, 2, 5).reshape(4 * fine, 4 * coarse)


def _window_matrix(kernel: jax.Array) -> jax.Array:
    """kernel [4, 4, F, C] -> [C, 16F], in the order of the windows' pixels.

    Coarse channels first: then its gradient is the product of a flat matrix with a tall one, which is two to
    three times faster than the other way round.
    """
    fine, coarse = kernel.shape[2:]
    taps = kernel.reshape(2, 2, 2, 2, fine, coarse)
    return taps.transpose(5, 0, 2, 1, 3, 4).reshape(coarse, 16 * fine)


def _product(x: jax.Array, matrix: jax.Array, axis: int) -> jax.Array:
    """x [B, h, w, N] times `matrix` over its `axis`. The rows are one axis: XLA copies operands that contract
    over several when it differentiates."""
    flat = lax.dot_general(x.reshape(-1, x.shape[3]), matrix, (((1,), (axis,)), ((), ())))
    return flat.reshape(*x.shape[:3], flat.shape[1])


def _check(x: jax.Array, kernel: jax.Array, sizes: tuple[int, ...]) -> None:
    if x.ndim != 4:
        raise ValueError(f"images must be [batch, height, width, channels], not of shape {list(x.shape)}")
    if kernel.ndim != 4 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] not in sizes:
        known = " or ".join(f"[{k}, {k}, in, out]" for k in sizes)
        raise ValueError(f"the kernel must be {known}, not {list(kernel.shape)}")
    if kernel.shape[2] != x.shape[3]:
        expected = f"the kernel {list(kernel.shape)} is for {kernel.shape[2]} channels"
        raise ValueError(f"{expected}, and the images {list(x.shape)} have {x.shape[3]}")


def _known(form: str) -> str:
    if form not in FORMS:
        raise ValueError(f"no form {form!r}; there are: {', '.join(FORMS)}")
    return form
