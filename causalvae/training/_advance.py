"""How a run gets from one point to the next: in one compiled call, or in calls on images that are read ahead.

A data set that computes its images, or holds them on the device, draws them within the compiled loop. One that reads
them from disk would have to ask the host from within it, which stops an accelerator at every step. So its images are
read ahead, some steps at a time, and handed to the loop.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import sharding
from causalvae.data.base import Dataset
from causalvae.data.real import streaming
from causalvae.training._steps import (
    Report,
    StepConfig,
    Tally,
    TrainState,
    draw_batches,
    empty_tally,
    step_keys,
    summarize,
    train_steps,
    train_steps_on,
)

WINDOW_STEPS, WINDOW_BYTES = 8, 32 * 2**20  # at most, of the pixels that are handed over at once

Hyper = Mapping[str, jax.Array]
Advance = Callable[[TrainState, int], tuple[TrainState, Report]]


@contextlib.contextmanager
def advancing(
    config: StepConfig, dataset: Dataset, state: TrainState, hyper: Hyper, targets: Sequence[int]
) -> Iterator[Advance]:
    """Yields `(state, target) -> (state, report)`, which trains to a target, the next of `targets` each time.

    Args:
        config: What a step does.
        dataset: What images are drawn from.
        state: Where training begins.
        hyper: name -> [M].
        targets: The steps to stop at, rising from `state.step`.
    """
    if streaming.streamed_images(dataset) is None:
        dataset = sharding.replicate(dataset, config.mesh)

        def advance(state: TrainState, target: int) -> tuple[TrainState, Report]:
            return train_steps(config, dataset, state, hyper, jnp.int32(target - int(state.step)))

        yield advance
        return
    size = _window_steps(config, dataset, len(state.keys))
    windows = _windows(int(state.step), targets, size)
    keys = _host_keys(state.keys, config.mesh)
    read = functools.partial(_read, config, dataset, streaming.locating(dataset), keys, size)
    with contextlib.closing(streaming.read_ahead(read, windows)) as pixels:
        yield functools.partial(_advance_on, config, hyper, zip(windows, pixels))


class Window(NamedTuple):
    """Steps whose pixels are handed over at once."""

    start: int
    steps: int


def _advance_on(
    config: StepConfig, hyper: Hyper, windows: Iterator[tuple[Window, jax.Array]], state: TrainState, target: int
) -> tuple[TrainState, Report]:
    step = start = int(state.step)
    tally: Tally | None = None
    while step < target:
        window, pixels = next(windows)
        before = empty_tally(config, pixels, state, hyper) if tally is None else tally
        state, tally = train_steps_on(config, pixels, state, hyper, before, jnp.int32(window.steps))
        step += window.steps
        # One window is computed while the next waits, no more: what is handed over takes the device's memory.
        jax.block_until_ready(before.diverged)
    assert tally is not None, "there is a step to every target"
    return state, summarize(tally, jnp.int32(target - start))


def _windows(step: int, targets: Sequence[int], size: int) -> list[Window]:
    """Windows of at most `size` steps that cover those after `step` and end at every target."""
    return [
        Window(start, min(size, target - start))
        for begin, target in zip([step, *targets], targets)
        for start in range(begin, target, size)
    ]


def _window_steps(config: StepConfig, dataset: Dataset, members: int) -> int:
    """How many steps' pixels are handed over at once: the same number all along, since steps of another program might
    differ in the last bit, and a run's bits must not depend on where it was stopped."""
    num_bytes = members * config.batches * config.batch_size * math.prod(dataset.image_shape)
    return max(1, min(WINDOW_STEPS, WINDOW_BYTES // num_bytes))


def _host_keys(keys: jax.Array, mesh: Any) -> jax.Array:
    """A copy of the members' keys on this host's CPU; the state's own buffers are given up to the steps."""
    words = np.array(jax.random.key_data(sharding.fetch(keys, mesh)))
    return jax.random.wrap_key_data(jax.device_put(words, streaming.host_device()))


def _read(
    config: StepConfig, dataset: Dataset, locator: Dataset, keys: jax.Array, size: int, window: Window
) -> jax.Array:
    """The pixels [S, M, B, H, W, C] uint8 of a window, on the devices; each host reads what its own need.

    Rows after the window's last step, which fill it up to S, repeat that step's.
    """
    images = streaming.streamed_images(dataset)
    assert images is not None, "only streamed sets are read ahead"
    steps = np.minimum(window.start + np.arange(size, dtype=np.int32), window.start + window.steps - 1)
    index = np.asarray(_indices(locator, keys, steps, config.batches, config.batch_size))
    shape = (*index.shape, *dataset.image_shape)
    return sharding.place_batches(shape, lambda part: images.read(index[part]), config.mesh)


@functools.partial(jax.jit, static_argnames=("batches", "batch_size"))
def _indices(locator: Dataset, keys: jax.Array, steps: jax.Array, batches: int, batch_size: int) -> jax.Array:
    """Where the images of `steps` [S] lie, [S, M, B] int32."""

    def of_member(step, key):
        return draw_batches(locator, step_keys(key, step)[0], batch_size, batches)

    return jax.vmap(jax.vmap(of_member, (None, 0)), (0, None))(steps, keys)
