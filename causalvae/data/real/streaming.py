"""Images of stored sets, on the device or streamed from disk: the same images for the same key.

A set that fits is one uint8 array on the device. A larger one stays a memory map on the host, and two ways
lead to its rows. Both give what the first form gives, bit for bit:

    dataset.render, .sample   ask the host through a callback: works wherever a data set does (jit, vmap,
                               scan), at the price of waiting for the disk
    batches(dataset, keys, n)  reads ahead in threads (Grain), for training loops: the wait is hidden

Both rest on one split: *where* an image lies is computed by JAX from factors and key; only reading the bytes
there is left to the host. So there is one sampler, and nothing to keep in step.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import Buffer, ExecutionContext, buffer_callback

from causalvae.data.base import Dataset

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

    def __call__(self, arrays: Arrays, factors: jax.Array, key: jax.Array) -> jax.Array:
        grid = self.shape[:-3]
        position = tuple(factors.astype(jnp.int32))
        if len(grid) > len(factors):
            num_instances = jnp.asarray(grid[len(factors) :], jnp.int32)
            position += tuple(jax.random.randint(key, num_instances.shape, 0, num_instances))
        return self.at(arrays, jnp.ravel_multi_index(position, grid, mode="clip"))

    def at(self, arrays: Arrays, index: jax.Array) -> jax.Array:
        """The image [H, W, C] float32 at `index`, row-major over the grid."""
        if self.locate_only:
            return index
        if self.path is None:
            return to_unit(arrays["images"].reshape(-1, *self.shape[-3:])[index])
        # One int32 per image goes to the host and its bytes come back: not positions, not floats.
        image = jax.ShapeDtypeStruct(self.shape[-3:], jnp.uint8)
        ask = functools.partial(jax.pure_callback, self.read, image, vmap_method="expand_dims")
        fill = buffer_callback(self.fill, image, vmap_method="expand_dims")
        return to_unit(jax.lax.platform_dependent(index, cpu=fill, default=ask))

    def fill(self, context: ExecutionContext, images: Buffer, index: Buffer) -> None:
        """`read` in place, for programs on the CPU, which must not use `pure_callback` for it.

        That hands the callback its arguments as JAX arrays, and has those of 100 KiB and more copied by the very
        thread pool that the callback occupies: a pool of one thread waits for itself for ever (jax issue 24255).
        """
        np.asarray(images)[...] = self.read(np.asarray(index))

    def read(self, index: np.ndarray) -> np.ndarray:
        """Images [..., H, W, C] uint8 at `index` [...] from the memory map. A callback: numpy only."""
        return open_memory_map(self.path, self.sha256).reshape(-1, *self.shape[-3:])[np.asarray(index)]


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
    """`Dataset.draw` that goes with `StoredPairs`: the attributes [K] of the image that this key draws."""
    return arrays["attributes"][_draw_row(arrays, key)].astype(jnp.int32)


def _draw_row(arrays: Arrays, key: jax.Array) -> jax.Array:
    rows = arrays["rows"]
    return rows[jax.random.randint(key, (), 0, rows.shape[0])]


def batches(
    dataset: Dataset, keys: jax.Array, num: int, *, threads: int = 4, ahead: int = 16
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """`dataset.sample(key, num)` for each key of `keys` [S], read ahead: factors [num, K], images [num, …].

    keys: typed keys, usually `fold_in(key, step)` of the steps to come, so that a resumed run starts at its
        step. Further axes [S, M] (ensemble members) lead the batches: [M, num, …].
    threads, ahead: readers, and batches that they may be ahead; only for streamed sets, others have no disk
        to wait for.
    """
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.ndim < 1:
        raise ValueError(f"keys must be an array [S, …] of jax.random.key, not {keys.dtype} {list(keys.shape)}")
    seeds = np.asarray(jax.random.key_data(keys))  # indexing typed keys one by one is slow
    sample = functools.partial(_sample, num=num, implementation=jax.random.key_impl(keys))
    images = _streamed_images(dataset)
    if images is None:
        for seed in seeds:
            yield sample(dataset, seed)
        return
    # Indices are computed on the host's own JAX device: on the accelerator they would queue behind the
    # training steps that they are to be ahead of. The bits are the same on every backend.
    host = jax.local_devices(backend="cpu")[0]
    locator = jax.device_put(_locating(dataset), host)

    def read(seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        factors, index = sample(locator, jax.device_put(seed, host))
        return np.asarray(factors), images.read(np.asarray(index))

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    for factors, pixels in grain.MapDataset.source(seeds).map(read).to_iter_dataset(options):
        yield jnp.asarray(factors), _to_unit(jnp.asarray(pixels))


@functools.partial(jax.jit, static_argnames=("num", "implementation"))
def _sample(dataset: Dataset, seed: jax.Array, num: int, implementation: str) -> tuple[jax.Array, jax.Array]:
    """`dataset.sample(key, num)`, one for each key of an array of keys given as its data."""
    keys = jax.random.wrap_key_data(seed, impl=implementation)
    sample = functools.partial(dataset.sample, num=num)
    for _ in range(keys.ndim):
        sample = jax.vmap(sample)
    return sample(keys)


def _streamed_images(dataset: Dataset) -> StoredImages | None:
    images = dataset.pair.images if isinstance(dataset.pair, StoredPairs) else dataset.render_one
    return images if isinstance(images, StoredImages) and images.path is not None else None


def _locating(dataset: Dataset) -> Dataset:
    """The same set with indices for images: its `sample` draws as before, and reads nothing."""
    locate = dataclasses.replace(_streamed_images(dataset), locate_only=True)
    if dataset.pair is not None:
        return dataset.replace(pair=StoredPairs(locate))
    return dataset.replace(render_one=locate)


def to_unit(pixels: jax.Array) -> jax.Array:
    """uint8 to float32 in [0, 1]. Written as the product that XLA makes of a division by 255, so that the
    result (within one unit in the last place of the quotient) does not depend on who compiles it."""
    return pixels.astype(jnp.float32) * np.float32(1 / 255)


_to_unit = jax.jit(to_unit)


@functools.lru_cache(maxsize=32)
def open_memory_map(path: str, sha256: str) -> np.ndarray:
    """The array at `path`, mapped once per process and content."""
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
