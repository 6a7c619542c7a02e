"""The loop around the steps: checkpoints, the log, and the ways to stop."""

from __future__ import annotations

import math
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from causalvae import checkpoints, schema, sharding
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import JsonLines, Progress
from causalvae.tensorboard import EventWriter, member_scalars
from causalvae.training._advance import advancing
from causalvae.training._callbacks import Callback, Callbacks, resolve_callbacks
from causalvae.training._optimizers import check_schedule, make_optimizer
from causalvae.training._steps import (
    Report,
    StepConfig,
    TrainState,
    complete_hyper,
    init_state,
    member_hyper,
    step_config,
)


class TrainingError(RuntimeError):
    """Training stopped for a reason that the user should read, with the state saved beforehand."""


class Stopped(TrainingError):
    """A signal or a time limit asked to stop; everything is saved, and the same call goes on from there."""


class Plan(NamedTuple):
    """How long to train, at which rate, and what to write when: the `training` section of a config."""

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-4
    schedule: str = "constant"  # of the rate, see make_optimizer
    warmup: int = 0
    log_every: int = 100
    checkpoint_every: int = 1000
    stop_when_diverged: bool = True  # else the other members go on, and the log has null where a loss was not finite
    tensorboard: bool = False  # event files in `tensorboard/` as well
    precision: str = "float32"  # of the networks' products, see precision.py
    ensemble: str = "auto"  # how members are computed, see _members.py

    def check(self) -> None:
        """Raises ValueError for a number that is out of range."""
        for name in self._fields:
            if name in schema.TRAINING:
                schema.check_value(f"training.{name}", getattr(self, name), schema.TRAINING[name])
        check_schedule(self.schedule, self.warmup, self.steps)

    def targets(self, step: int) -> Iterator[int]:
        """Yields the steps after `step` at which there is something to write, the last included."""
        while step < self.steps:
            step = min(self.steps, *((step // every + 1) * every for every in (self.log_every, self.checkpoint_every)))
            yield step


def train(
    model: Architecture,
    dataset: Dataset,
    workdir: str | pathlib.Path,
    *,
    seeds: Sequence[int],
    hyper: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    progress: Callable[..., Any] = Progress,
    deadline: float = math.inf,
    callbacks: str | Sequence[Callback] = (),
    **settings: Any,
) -> TrainState:
    """Trains one member per seed, from the latest checkpoint in `workdir` if there is one.

    Writes `metrics.jsonl` (one line per `log_every` steps) and `checkpoints/`. On several hosts every process calls
    this alike, and process 0 writes.

    Args:
        model: What to train.
        dataset: What to train it on.
        workdir: Where to write, and to go on from.
        seeds: One per member.
        hyper: name -> number or [M] array, over the architecture's own values.
        mesh: Devices that share the work, see `sharding.make_mesh`.
        progress: Makes what shows progress, see `progress.Progress`.
        deadline: When to be done, on `time.monotonic()`'s clock; see StopRequest.
        callbacks: Called as (step, metrics) with every line of `metrics.jsonl`, on the process that writes it;
            metrics are floats by name, as in TensorBoard: "loss/0" of the first member. What one raises is said, and
            training goes on. Or a text "module:function, …".
        **settings: The fields of `Plan`: steps, batch_size, learning_rate, …

    Returns:
        The state after the last step, on this host's first device.

    Raises:
        TrainingError: a loss is no longer finite; the message names step and member. The state is saved before.
        Stopped: SIGTERM, SIGINT or the deadline asked to stop; likewise.
        ValueError: a setting is out of range, the checkpoint is of another model, or a callback is none.
    """
    functions = resolve_callbacks(callbacks)
    plan, workdir = Plan(**settings), pathlib.Path(workdir)
    plan.check()
    if len(seeds) < 1:
        raise ValueError("seeds: at least one member is needed")
    config, own = _configure(model, dataset, plan, {**model.hyper, **(hyper or {})}, len(seeds), mesh)
    state = init_state(model, config.optimizer, seeds)
    kept = checkpoints.manager(workdir / "checkpoints")
    state = sharding.shard_members(checkpoints.restore(kept, state) or state, mesh)
    done = int(state.step)
    targets = list(plan.targets(done))
    bar = progress(plan.steps, done=done, unit="steps", rate=("images/s", plan.batch_size * len(seeds)))
    journal = _Journal(workdir, done, plan.tensorboard, Callbacks(functions, getattr(bar, "say", print)))
    with StopRequest(deadline) as stop, bar, journal, advancing(config, dataset, state, own, targets) as advance:
        for target in targets:
            state, report = advance(state, target)
            report = sharding.fetch(report, mesh)
            loss = journal.write(target, report, bar)
            if plan.stop_when_diverged:
                _check_finite(report.diverged, seeds, sharding.fetch(state, mesh), workdir)
            reason = stop.reason()
            stopping = sharding.on_any_process(reason is not None)
            regular = target == plan.steps or target % plan.checkpoint_every == 0
            if regular or stopping:  # where a run was stopped must not decide which checkpoint is the best
                checkpoints.save(kept, target, sharding.fetch(state, mesh), loss if regular else math.inf)
            if stopping and target < plan.steps:
                raise Stopped(
                    f"stopped by {reason or 'another process'} at step {target} of {plan.steps}; saved in {workdir}. "
                    "The same command goes on from there."
                )
    kept.close()
    return sharding.fetch(state, mesh)


def _configure(
    model: Architecture, dataset: Dataset, plan: Plan, hyper: Mapping[str, Any], members: int, mesh: Mesh | None
) -> tuple[StepConfig, dict[str, jax.Array]]:
    """What a step does, and the members' hyper-parameters name -> [M], on the mesh."""
    optimizer = make_optimizer(model, plan.learning_rate, plan.schedule, plan.warmup, plan.steps)
    of_members = member_hyper(complete_hyper(hyper, dataset), members)
    config = step_config(model, optimizer, plan.batch_size, mesh, plan.precision, plan.ensemble)
    return config, sharding.shard_members(of_members, mesh)


class _Journal:
    """What a run tells of its metrics: a line in `metrics.jsonl`, TensorBoard's events, callbacks, and the progress."""

    def __init__(self, workdir: pathlib.Path, done: int, tensorboard: bool, callbacks: Callbacks):
        first = sharding.is_first_process()
        self._callbacks = callbacks if first else None
        name = "metrics.jsonl" if first else f"metrics_{jax.process_index()}.jsonl"
        self._lines = JsonLines(workdir / name, keep=lambda line: line["step"] <= done)
        self._events = EventWriter(workdir / "tensorboard") if tensorboard and first else None

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._lines.__exit__(*exception)
        if self._events:
            self._events.close()
        if self._callbacks:
            self._callbacks.close()

    def write(self, step: int, report: Report, bar: Any) -> float:
        """Writes down the report on the steps up to `step`; returns the mean of the members' finite losses."""
        metrics = {name: np.asarray(value).tolist() for name, value in report.metrics.items()}
        self._lines.write({"step": step, **metrics})
        if self._events:
            self._events.write(step, member_scalars(metrics))
        if self._callbacks:
            self._callbacks(step, member_scalars(metrics))
        losses = np.asarray(report.metrics["loss"])
        finite = losses[np.isfinite(losses)]
        loss = float(np.mean(finite)) if finite.size else float("inf")
        bar.update(step, f"loss {loss:.1f}  reconstruction {np.mean(metrics['reconstruction']):.1f}")
        return loss


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag that the loop reads between calls; a second one acts at once.

    deadline: on `time.monotonic()`'s clock, when there must be nothing left to do. A call is not begun that would end
    after it if it took as long as the one before.
    """

    def __init__(self, deadline: float = math.inf):
        self.signal: str | None = None
        self.deadline = deadline
        self._previous: dict[int, Any] = {}
        self._asked: float | None = None  # when `reason` was asked for last

    def reason(self) -> str | None:
        """Returns why to stop now, in words that follow "stopped by", or None. Asked once after every call."""
        now = time.monotonic()
        last, self._asked = now - (self._asked or now), now
        if self.signal:
            return self.signal
        return "the time limit" if now + last > self.deadline else None

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller's business
                pass
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        del frame
        signal.signal(number, self._previous[number])
        self.signal = signal.Signals(number).name


def _check_finite(diverged: jax.Array, seeds: Sequence[int], state: TrainState, workdir: pathlib.Path) -> None:
    bad = [(int(step), member) for member, step in enumerate(np.asarray(diverged)) if step >= 0]
    if not bad:
        return
    failed = checkpoints.manager(workdir / "diverged")
    checkpoints.save(failed, int(state.step), state, float("inf"))
    failed.close()
    step, member = min(bad)
    good = checkpoints.latest_step(workdir / "checkpoints")
    raise TrainingError(
        f"the loss of member {member} (seed {seeds[member]}) was not finite at step {step}. The state after it is in "
        f"{workdir / 'diverged'}"
        + (
            f", the last good one, of step {good}, in {workdir / 'checkpoints'}"
            if good
            else "; no earlier one was saved"
        )
        + ". Try a lower learning rate, in another folder."
    )
