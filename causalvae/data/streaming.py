"""Images of stored sets, on the device or streamed from disk: the same images for the same key.

A set that fits is one uint8 array on the device. A larger one stays a memory map, and `observe` asks the host
for its rows through `jax.pure_callback`. Both forms are the same `Dataset` to its user, inside jit, vmap and
scan; only the one array of 64-pixel rows is read from elsewhere.
"""

from __future__ import annotations

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

RESIDENCIES = ("auto", "device", "stream")
SHARE_OF_MEMORY = 0.5  # of the device's; more than that is streamed


@dataclasses.dataclass(frozen=True)
class StoredImages:
    """`render` of a stored set: the image at `factors`, in an array [*grid, H, W, C] uint8.

    Equal by value, so that a set loaded twice is compiled once. Grid axes beyond the factors are instances
    (SmallNORB's objects of one category): drawn from the key.
    """

    shape: tuple[int, ...]  # [*grid, H, W, C]
    path: str | None = None  # of the memory map to stream from; None: arrays["images"] is on the device
    locate_only: bool = False  # answer with the position, not the image there

    def __call__(self, arrays: dict[str, jax.Array], factors: jax.Array, key: jax.Array) -> jax.Array:
        instance_axes = self.shape[len(factors) : -3]
        keys = jax.random.split(key, max(len(instance_axes), 1))
        instance = [jax.random.randint(k, (), 0, n) for k, n in zip(keys, instance_axes, strict=False)]
        return self.at(arrays, jnp.stack([*factors, *instance]).astype(jnp.int32))

    def at(self, arrays: dict[str, jax.Array], position: jax.Array) -> jax.Array:
        """The image [H, W, C] float32 at `position` [D], an index along each grid axis."""
        if self.locate_only:
            return position
        if self.path is None:
            return to_unit(arrays["images"][tuple(position)])
        image = jax.ShapeDtypeStruct(self.shape[-3:], jnp.uint8)  # bytes cross to the device, not floats
        return to_unit(jax.pure_callback(self.read, image, position, vmap_method="expand_dims"))

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Images [..., H, W, C] uint8 at `positions` [..., D], from the memory map. numpy only: this runs
        inside XLA programs, where calling JAX can deadlock."""
        index = np.moveaxis(np.asarray(positions), -1, 0)
        limits = np.asarray(self.shape[:-3]).reshape(-1, *[1] * (index.ndim - 1))
        # Out of range: wrap, then clamp, as JAX does on the device.
        inside = np.clip(np.where(index < 0, index + limits, index), 0, limits - 1)
        return open_memory_map(self.path)[tuple(inside)]


def to_unit(image: jax.Array) -> jax.Array:
    """uint8 to float32 in [0, 1]. A product, since XLA may or may not turn a quotient into one: the result
    must not depend on what is compiled together."""
    return image.astype(jnp.float32) * np.float32(1 / 255)


@functools.lru_cache(maxsize=32)
def open_memory_map(path: str) -> np.ndarray:
    """The array at `path`, mapped once per process."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def choose_residency(residency: str, num_bytes: int) -> str:
    """ "device" or "stream"; "auto" streams what exceeds half of the device's memory."""
    if residency not in RESIDENCIES:
        raise ValueError(f"no residency {residency!r}; there are: {', '.join(RESIDENCIES)}")
    if residency != "auto":
        return residency
    return "device" if num_bytes <= SHARE_OF_MEMORY * device_memory() else "stream"


def device_memory() -> int:
    """Bytes of memory of the default device; the host's where the device is the host (or does not say)."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return statistics.get("bytes_limit", host)
