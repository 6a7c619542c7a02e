"""Images read from disk ahead of the steps that train on them.

Where the images of a batch lie depends on keys alone. So the batches of all steps to come are known beforehand, and
Grain's threads read them while the device computes. The images are those that `Dataset.sample` draws with these keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import jax

from causalvae.data.base import Dataset
from causalvae.data.real.stored import StoredImages, StoredPairs

THREADS = 2  # that read
AHEAD = 2  # what they read ahead, beside what they are at

Task = TypeVar("Task")
Result = TypeVar("Result")


def streamed_images(dataset: Dataset) -> StoredImages | None:
    """Returns the images that a data set reads from disk; None where it reads none."""
    images: Any = dataset.pair.images if isinstance(dataset.pair, StoredPairs) else dataset.render_one
    return images if isinstance(images, StoredImages) and images.path is not None else None


def locating(dataset: Dataset) -> Dataset:
    """Returns a streamed set with indices for images: `sample` draws as before, and reads nothing.

    It lies on the host's own JAX device: on an accelerator the indices would queue behind the very training steps that
    they are to be ahead of. Their bits are the same on every backend.
    """
    images = streamed_images(dataset)
    if images is None:
        raise ValueError(f"{dataset.name} is not streamed: its images are not read from disk")
    locate = dataclasses.replace(images, locate_only=True)
    changed = {"render_one": locate} if dataset.pair is None else {"pair": StoredPairs(locate)}
    return jax.device_put(dataset.replace(**changed), host_device())


def host_device() -> Any:
    """Returns the first CPU device of this process."""
    return jax.local_devices(backend="cpu")[0]


def read_ahead(read: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
    """Yields `read(task)` of each task in order, read in threads ahead of whoever takes the results."""
    import grain  # loads much, for few

    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    yield from grain.MapDataset.source(tasks).map(read).to_iter_dataset(options)
