"""Images of prepared sets, on the device or on disk: the same images for the same key.

A set that fits is one uint8 array on the device. A larger one stays a memory map on the host. *Where* an image lies
is computed by JAX from factors and key, in both; only reading the bytes there is left to the host, by a callback:
that works wherever a data set does (jit, vmap, scan), at the price of waiting for the disk. Training does not wait:
see streaming.py.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from causalvae import _files

RESIDENCIES = ("auto", "device", "stream")
SHARE_OF_MEMORY = 0.5  # of the device's: a set larger than that is streamed

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class StoredImages:
    """`Dataset.render_one` of a stored set: the image at `factors` in an array [*grid, H, W, C] uint8.

    Equal by value, so that a set loaded twice is compiled once. Grid axes beyond the factors are instances
    (SmallNORB's objects of one category): drawn from the key, uniformly. Factors out of range are clamped.
    """

    shape: tuple[int, ...]  # [*grid, H, W, C]
    path: str | None = None  # of the memory map to stream from; None: arrays["images"] is on the device
    sha256: str | None = None  # of that map: another content is another set
    locate_only: bool = False  # answer with the image's index, not the image

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.shape[-3:]
        return height, width, channels

    def __call__(self, arrays: Arrays, factors: jax.Array, key: jax.Array) -> jax.Array:
        grid = self.shape[:-3]
        position = tuple(factors.astype(jnp.int32))
        if len(grid) > len(factors):
            num_instances = jnp.asarray(grid[len(factors) :], jnp.int32)
            position += tuple(jax.random.randint(key, num_instances.shape, 0, num_instances))
        return self.at(arrays, jnp.ravel_multi_index(position, grid, mode="clip"))

    def at(self, arrays: Arrays, index: jax.Array) -> jax.Array:
        """Returns the image [H, W, C] float32 at `index`, row-major over the grid."""
        if self.locate_only:
            return index
        if self.path is None:
            return to_unit(arrays["images"].reshape(-1, *self.image_shape)[index])
        # One int32 per image goes to the host and its bytes come back: not positions, not floats.
        image = jax.ShapeDtypeStruct(self.image_shape, jnp.uint8)
        ask = functools.partial(jax.pure_callback, self.read, image, vmap_method="expand_dims")
        fill = buffer_callback(self.fill, image, vmap_method="expand_dims")
        return to_unit(jax.lax.platform_dependent(index, cpu=fill, default=ask))

    def fill(self, context: Any, images: Any, index: Any) -> None:
        """`read` in place, for programs on the CPU, which must not use `pure_callback` for it.

        That hands the callback its arguments as JAX arrays, and has those of 100 KiB and more copied by the very
        thread pool that the callback occupies: a pool of one thread waits for itself for ever (jax issue 24255).
        """
        del context
        np.asarray(images)[...] = self.read(np.asarray(index))

    def read(self, index: np.ndarray) -> np.ndarray:
        """Returns images [..., H, W, C] uint8 at `index` [...] from the memory map. A callback: numpy only."""
        if self.path is None or self.sha256 is None:
            raise ValueError("these images are on the device: there is no file to read them from")
        return open_memory_map(self.path, self.sha256).reshape(-1, *self.image_shape)[np.asarray(index)]


@dataclasses.dataclass(frozen=True)
class StoredPairs:
    """`Dataset.pair` of a set without generative factors: a random image and its attributes.

    arrays: "rows" [M] int32, the images to draw from (a split), and "attributes" [N, K].
    """

    images: StoredImages

    def __call__(self, arrays: Arrays, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        row = _draw_row(arrays, key)
        return arrays["attributes"][row].astype(jnp.int32), self.images.at(arrays, row)


def draw_attributes(arrays: Arrays, key: jax.Array) -> jax.Array:
    """Returns the attributes [K] of the image that `StoredPairs` draws with this key: its `Dataset.draw`."""
    return arrays["attributes"][_draw_row(arrays, key)].astype(jnp.int32)


def _draw_row(arrays: Arrays, key: jax.Array) -> jax.Array:
    rows = arrays["rows"]
    return rows[jax.random.randint(key, (), 0, rows.shape[0])]


def to_unit(pixels: jax.Array) -> jax.Array:
    """Returns uint8 pixels as float32 in [0, 1]; floats are in it already.

    Written as the product that XLA makes of a division by 255, so that the result (within one unit in the last
    place of the quotient) does not depend on who compiles it.
    """
    if jnp.issubdtype(pixels.dtype, jnp.floating):
        return pixels
    return pixels.astype(jnp.float32) * np.float32(1 / 255)


@functools.lru_cache(maxsize=32)
def open_memory_map(path: str, sha256: str) -> np.ndarray:
    """Returns the array at `path`, mapped once per process and content."""
    del sha256
    with _files.reading(path, "prepared array", "load the set again: it was built anew"):
        return np.lib.format.open_memmap(path, mode="r")


def choose_residency(residency: str, num_bytes: int) -> str:
    """Returns "device" or "stream"; "auto" streams what exceeds half of the device's memory.

    Raises:
        ValueError: `residency` is none of RESIDENCIES.
    """
    if residency not in RESIDENCIES:
        raise ValueError(f"no residency {residency!r}; there are: {', '.join(RESIDENCIES)}")
    if residency != "auto":
        return residency
    return "device" if num_bytes <= SHARE_OF_MEMORY * device_memory() else "stream"


def device_memory() -> int:
    """Returns the default device's memory in bytes; the host's where the device is the host (or does not say)."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return statistics.get("bytes_limit", host)
