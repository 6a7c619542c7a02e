"""How long a training step takes on this machine, measured before training begins."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from causalvae import training
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import duration

LONG = 3600.0  # seconds of training that nobody should begin by accident


def seconds_per_step(
    model: Architecture, hyper: Mapping[str, Any], dataset: Dataset, options: Any, seed: int, steps: int = 3
) -> float:
    """Returns the seconds that a step of one member takes, by a few steps of the program that trains it.

    Args:
        model: what to train.
        hyper: its hyper-parameters.
        dataset: what on.
        options: the `training` section of a config.
        seed: of the member.
        steps: in each of two timings; the shorter counts.
    """
    optimizer = training.make_optimizer(model, options.learning_rate, options.schedule, options.warmup, options.steps)
    config = training.step_config(model, optimizer, options.batch_size, precision=options.precision)
    call = functools.partial(training.train_steps, config, dataset)
    member_hyper = training.member_hyper(training.complete_hyper(hyper, dataset), 1)
    state, _ = call(training.init_state(model, optimizer, [seed]), member_hyper, jnp.int32(1))
    seconds = []
    for _ in range(2):
        jax.block_until_ready(state)
        started = time.perf_counter()
        state, _ = jax.block_until_ready(call(state, member_hyper, jnp.int32(steps)))
        seconds.append((time.perf_counter() - started) / steps)
    return min(seconds)


def warning(config: Any, model: Architecture, dataset: Dataset, done: int) -> str:
    """Returns what a user should know before a CPU trains for more than an hour; "" where it will not.

    Args:
        config: of a run.
        model: its architecture.
        dataset: its data.
        done: steps that are trained already.
    """
    left = config.training.steps - done
    if jax.default_backend() != "cpu" or left < 10_000:  # which no machine takes an hour for
        return ""
    step = seconds_per_step(model, model.hyper, dataset, config.training, config.seed) * config.seeds
    if left * step < LONG:
        return ""
    return (
        f"{left:,} steps take about {duration(left * step)} on this CPU ({1e3 * step:.0f} ms a step, measured); "
        "they are meant for an accelerator. The preset :overnight trains in some ten minutes, :quick in a few. "
        "Going on; Ctrl-C stops at any time, and the same command goes on from there."
    )
