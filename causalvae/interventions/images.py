"""Manipulations of the image itself, for any data set: what each latent listens to.

A manipulation is a small pure object: `count(image_shape)` says how many variants it has, `apply(key, x, v)`
gives the v-th one of images x [N, H, W, C]. Variants are made inside the compiled program, a chunk at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from causalvae._inputs import check_inputs
from causalvae._programs import jit
from causalvae.interventions._checks import check_chunk, check_measured
from causalvae.interventions._sweep import in_blocks, merge_pairs
from causalvae.interventions.factors import encoder

PyTree = Any
Shape = tuple[int, ...]


class Manipulation(Protocol):
    """Variants of images; see `Occlude`, `Noise`, `Brightness`, `Translate`."""

    def count(self, image_shape: Shape) -> int:
        """The number of variants."""
        ...

    def apply(self, key: jax.Array, x: jax.Array, variant: jax.Array) -> jax.Array:
        """Variant number `variant` of images x [N, H, W, C] in [0, 1]: the same shape."""
        ...


@dataclass(frozen=True)
class Occlude:
    """A window of `size` px set to `fill`, at every `stride` px; variants are numbered row by row."""

    size: int = 8
    stride: int = 4
    fill: float = 0.5

    def grid(self, image_shape: Shape) -> tuple[int, int]:
        """How many window positions there are, down and across."""
        height, width = image_shape[:2]
        if not 1 <= self.size <= min(height, width) or self.stride < 1:
            raise ValueError(
                f"a window of {self.size} px every {self.stride} px does not fit images of {height} x {width}"
            )
        return (height - self.size) // self.stride + 1, (width - self.size) // self.stride + 1

    def count(self, image_shape: Shape) -> int:
        rows, columns = self.grid(image_shape)
        return rows * columns

    def apply(self, key: jax.Array, x: jax.Array, variant: jax.Array) -> jax.Array:
        top, left = (self.stride * i for i in divmod(variant, self.grid(x.shape[1:])[1]))
        row, column = jnp.arange(x.shape[1])[None, :, None, None], jnp.arange(x.shape[2])[None, None, :, None]
        inside = (row >= top) & (row < top + self.size) & (column >= left) & (column < left + self.size)
        return jnp.where(inside, self.fill, x)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of standard deviation `scale` added, `num` draws; clipped to [0, 1]."""

    scale: float = 0.1
    num: int = 8

    def count(self, image_shape: Shape) -> int:
        return self.num

    def apply(self, key: jax.Array, x: jax.Array, variant: jax.Array) -> jax.Array:
        noise = jax.random.normal(jax.random.fold_in(key, variant), x.shape[1:])
        return jnp.clip(x + self.scale * noise[None], 0.0, 1.0)


@dataclass(frozen=True)
class Brightness:
    """All values multiplied by `num` equidistant factors from `low` to `high`; clipped to [0, 1]."""

    low: float = 0.5
    high: float = 1.5
    num: int = 5

    def count(self, image_shape: Shape) -> int:
        return self.num

    def apply(self, key: jax.Array, x: jax.Array, variant: jax.Array) -> jax.Array:
        return jnp.clip(x * jnp.linspace(self.low, self.high, self.num)[variant], 0.0, 1.0)


@dataclass(frozen=True)
class Translate:
    """The image moved by `pixels` up, down, left and right (four variants, in that order), its edge
    repeated.
    """

    pixels: int = 2

    def count(self, image_shape: Shape) -> int:
        return 4

    def apply(self, key: jax.Array, x: jax.Array, variant: jax.Array) -> jax.Array:
        down = jnp.array([-1, 1, 0, 0])[variant] * self.pixels
        right = jnp.array([0, 0, -1, 1])[variant] * self.pixels
        rows = jnp.clip(jnp.arange(x.shape[1]) - down, 0, x.shape[1] - 1)
        columns = jnp.clip(jnp.arange(x.shape[2]) - right, 0, x.shape[2] - 1)
        return x[:, rows][:, :, columns]


def manipulate_images(
    model: Any,
    params: PyTree,
    x: jax.Array,
    manipulation: Manipulation,
    key: jax.Array,
    *,
    scale: jax.Array | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """Returns the change of every latent under every variant of a manipulation: [V, N, d], signed.

    Source: this library.

    Args:
      model: anything with a `represent`, see `causalvae.model`.
      x: images [N, H, W, C].
      manipulation: see `Occlude`, `Noise`, `Brightness`, `Translate`.
      key: for manipulations that draw.
      scale: s_i [d], the unit of changes, such as the aggregate posterior's standard deviation; None leaves the units
        of the latents.
      chunk: images encoded at once; bounds memory, not results.

    Raises:
      ValueError: for x that are no images of this model, and for latents that are not finite.
    """
    x = jnp.asarray(x)
    if x.ndim != 4:
        raise ValueError(f"x must be images [N, H, W, C], not of shape {list(x.shape)}")
    manipulation.count(x.shape[1:])  # which refuses what does not fit the images
    check_inputs(model, params, x)
    changes = _manipulate(manipulation, check_chunk(chunk), encoder(model, params), x, key)
    check_measured(changes)
    return changes if scale is None else changes / scale.reshape(1, 1, -1)


@jit(static=2)
def _manipulate(manipulation, chunk, encode, x, key):
    variants = manipulation.count(x.shape[1:])

    def block(x, valid):
        base = encode(x)
        at_once = max(1, min(chunk // x.shape[0], variants))

        def several(variant):  # [U] -> [U, P, d]
            images = jax.vmap(lambda v: manipulation.apply(key, x, v))(variant)
            latents = encode(images.reshape(-1, *x.shape[1:]))
            return latents.reshape(at_once, *base.shape) - base[None]

        padded = jnp.arange(variants + (-variants) % at_once) % variants
        changes = jax.lax.map(several, padded.reshape(-1, at_once))
        return changes.reshape(-1, *base.shape)[:variants]

    return in_blocks(block, x, chunk, merge_pairs)


def saliency_maps(
    model: Any,
    params: PyTree,
    x: jax.Array,
    key: jax.Array,
    *,
    window: Occlude | None = None,
    scale: jax.Array | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """Returns how much each latent moves when a window of the image is hidden: [N, d, rows, columns], absolute.

    Args:
      model: as in `manipulate_images`.
      params: any pytree.
      x: images [N, H, W, C].
      key: as in `manipulate_images`.
      window: None is an eighth of the image's height, moved by half its size.
      scale: s_i [d], the unit of changes; None leaves the units of the latents.
      chunk: images encoded at once; bounds memory, not results.
    """
    if window is None:
        size = max(2, x.shape[1] // 8)
        window = Occlude(size, size // 2)
    changes = jnp.abs(manipulate_images(model, params, x, window, key, scale=scale, chunk=chunk))
    return changes.transpose(1, 2, 0).reshape(x.shape[0], -1, *window.grid(x.shape[1:]))
