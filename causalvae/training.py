"""Training: one step function for every architecture, with a leading member axis on everything.

An ensemble's members differ in their seed and in hyper-parameters that are arrays; one member is the special
case. Randomness is `fold_in(member_key, step)`, so a run that was stopped and resumed is bit-identical to one
that never stopped.
"""

from __future__ import annotations

import functools
import math
import pathlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from causalvae import checkpoints, sharding
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import JsonLines, Progress
from causalvae.tensorboard import EventWriter, member_scalars

PyTree = Any


class TrainingError(RuntimeError):
    """Training stopped for a reason that the user should read, with the state saved beforehand."""


class Stopped(TrainingError):
    """A signal or a time limit asked to stop; everything is saved, and the same call goes on from there."""


class TrainState(NamedTuple):
    """Everything that a step reads and writes; every leaf has a leading member axis except `step`."""

    step: jax.Array  # [] int32: steps taken
    keys: jax.Array  # [M] one typed key per member
    params: PyTree  # [M, ...]
    optimizer: PyTree  # [M, ...]


class Report(NamedTuple):
    """What a call of `train_steps` says of the steps it took."""

    metrics: dict[str, jax.Array]  # name -> [M] or [M, d], averaged over the steps
    diverged: jax.Array  # [M] int32: the first step whose loss was not finite, or -1


# --- the step --------------------------------------------------------------------------------------------


SCHEDULES = ("constant", "cosine", "trapezoid")
COOLDOWN = 0.2  # of all steps, at the end of a trapezoid


def make_optimizer(
    model: Architecture, learning_rate: float = 1e-4, schedule: str = "constant", warmup: int = 0, steps: int = 0
) -> optax.GradientTransformation:
    """Adam (0.9, 0.999, 1e-8) for all parameters but those that the architecture labels otherwise. The same
    arguments give the same object, and so the same compiled step.

    schedule: "constant", the published budgets'; or up to `learning_rate` in a straight line over `warmup` steps and
    down to 0 by step `steps`, along half a cosine ("cosine"), or after a constant stretch in a straight line over the
    last fifth ("trapezoid", Hägele et al. 2024, arXiv:2405.18392). A discriminator's own rate stays constant.
    """
    plan = () if schedule == "constant" else (schedule, int(warmup), int(steps))
    return _optimizer(tuple(sorted(model.optimizers.items())), float(learning_rate), *plan)


def check_schedule(schedule: str, warmup: int, steps: int) -> None:
    """ValueError for a schedule that does not exist, or a warm-up that does not fit into the steps."""
    if schedule not in SCHEDULES:
        raise ValueError(f"no training.schedule {schedule!r}; there are: {', '.join(SCHEDULES)}")
    if schedule == "constant" and warmup:
        raise ValueError(f"training.warmup is {warmup}, and a constant rate has no warm-up: choose another schedule")
    if not 0 <= warmup < steps:
        raise ValueError(f"training.warmup must be at least 0 and less than the {steps} steps, not {warmup}")


def _rate_of_steps(rate: float, schedule: str, warmup: int, steps: int) -> optax.Schedule:
    if schedule == "cosine":
        down, start = optax.cosine_decay_schedule(rate, steps - warmup), warmup
    else:
        start = max(warmup, steps - round(COOLDOWN * steps))
        down = optax.linear_schedule(rate, 0.0, steps - start)
    up, hold = optax.linear_schedule(0.0, rate, warmup), optax.constant_schedule(rate)
    return optax.join_schedules([up, hold, down], [warmup, start])


@functools.cache
def _optimizer(labels: tuple[tuple[str, str], ...], rate: float, *plan: Any) -> optax.GradientTransformation:
    rate = _rate_of_steps(rate, *plan) if plan else rate
    optimizers = {
        "adam": optax.adam(rate),
        "discriminator": optax.adam(1e-4, b1=0.5, b2=0.9),  # Kim & Mnih 2018, appendix A
        "frozen": optax.set_to_zero(),
    }
    if not labels:
        return optimizers["adam"]
    return optax.multi_transform(optimizers, lambda params: {name: dict(labels).get(name, "adam") for name in params})


def init_state(
    model: Architecture, optimizer: optax.GradientTransformation, seeds: np.ndarray | list[int]
) -> TrainState:
    """A fresh state of one member per seed."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    params = _init_params(model.init, keys)
    return TrainState(jnp.zeros((), jnp.int32), keys, params, jax.jit(jax.vmap(optimizer.init))(params))


def initial_params(model: Architecture, seeds: np.ndarray | list[int]) -> PyTree:
    """The parameters [M, ...] that training starts from, one member per seed."""
    return _init_params(model.init, jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32)))


def _init_params(init, keys):
    traced = isinstance(keys, jax.core.Tracer)  # options are for an outermost jit only
    return (_draw_params if traced else _draw_params_at_once)(init, keys)


def _draw_params(init, keys):
    # Folding in a number that no step has keeps the draws apart from those of training.
    return jax.vmap(lambda key: init(jax.random.fold_in(key, 2**32 - 1)))(keys)


# Run once, and nearly all random numbers: compiling it well takes seconds, running it badly milliseconds.
CHEAP = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_draw_params_at_once = jax.jit(_draw_params, static_argnums=0, compiler_options=CHEAP)


def draw_batches(dataset: Dataset, key: jax.Array, batch_size: int, batches: int) -> jax.Array:
    """`batches` batches of images, end to end. Each has its own key, so the first is the same for every
    architecture, however many it needs."""

    def batch(i):
        return dataset.sample(jax.random.fold_in(key, i), batch_size)[1]

    if batches == 1:
        return batch(0)
    images = jax.vmap(batch)(jnp.arange(batches))
    return images.reshape(-1, *images.shape[2:])


def member_step(
    loss: Callable, optimizer, batch_size: int, batches: int, mesh, dataset, step, key, params, opt_state, hyper
):
    """One step of one member: draw images, differentiate the loss, update. Returns (params, opt_state, metrics)."""
    data_key, loss_key = jax.random.split(jax.random.fold_in(key, step))
    images = sharding.shard_batch(draw_batches(dataset, data_key, batch_size, batches), mesh)
    (_, info), gradients = jax.value_and_grad(loss, has_aux=True)(params, images, loss_key, hyper, step)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    params = {**optax.apply_updates(params, updates), **info.updates}
    return params, opt_state, info.metrics


def map_members(function: Callable, mesh: Mesh | None, *arguments: PyTree) -> PyTree:
    """`function` over the leading member axis of every argument.

    On a CPU members run one after the other: a batched matrix product gains nothing there, and one member at
    a time stays in cache. On accelerators they run side by side, and on a mesh each device has its share.
    """
    if mesh is not None:
        return jax.vmap(function, spmd_axis_name=sharding.MEMBER)(*arguments)
    members = jax.tree.leaves(arguments)[0].shape[0]
    if members == 1:
        squeezed = jax.tree.map(lambda leaf: leaf[0], arguments)
        return jax.tree.map(lambda leaf: leaf[None], function(*squeezed))
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda row: function(*row), arguments)
    return jax.vmap(function)(*arguments)


STATIC = ("loss", "optimizer", "batch_size", "batches", "mesh")


@functools.partial(jax.jit, static_argnames=STATIC, donate_argnames="state")
def train_steps(
    loss: Callable,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    batches: int,
    dataset: Dataset,
    state: TrainState,
    hyper: Mapping[str, jax.Array],
    num_steps: jax.Array,
    mesh: Mesh | None = None,
) -> tuple[TrainState, Report]:
    """`num_steps` steps in one call. The number is an array, so that calls of any length share one program and
    a run's bits do not depend on how it was cut into calls.

    loss, batches: of the Architecture. hyper: name -> [M]. mesh: of the devices that state and hyper are spread
    over, see sharding.py. Returns the new state and the metrics' means.
    """
    step_of_member = functools.partial(member_step, loss, optimizer, batch_size, batches, mesh, dataset)

    @functools.partial(jax.jit, inline=True)  # traced once for the shapes below and the loop
    def one_step(params, opt_state, step):
        return map_members(
            lambda key, p, o, h: step_of_member(step, key, p, o, h), mesh, state.keys, params, opt_state, hyper
        )

    def body(i, carry):
        params, opt_state, sums, diverged = carry
        params, opt_state, metrics = one_step(params, opt_state, state.step + i)
        bad = ~jnp.isfinite(metrics["loss"]) & (diverged < 0)
        diverged = jnp.where(bad, state.step + i, diverged)
        return params, opt_state, jax.tree.map(jnp.add, sums, metrics), diverged

    shapes = jax.eval_shape(one_step, state.params, state.optimizer, state.step)[2]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    never = jnp.full(state.keys.shape, -1, jnp.int32)
    carry = (state.params, state.optimizer, zeros, never)
    params, opt_state, sums, diverged = jax.lax.fori_loop(0, num_steps, body, carry)
    means = jax.tree.map(lambda total: total / num_steps, sums)
    return TrainState(state.step + num_steps, state.keys, params, opt_state), Report(means, diverged)


# --- the loop --------------------------------------------------------------------------------------------


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag that the loop reads between calls; a second one acts at once.

    deadline: on `time.monotonic()`'s clock, when there must be nothing left to do. A call is not begun that would end
    after it if it took as long as the one before.
    """

    def __init__(self, deadline: float = math.inf):
        self.signal = None
        self.deadline = deadline
        self._previous = {}
        self._asked = None  # when `reason` was asked for last

    def reason(self) -> str | None:
        """Why to stop now, in words that follow "stopped by", or None. Asked once after every call."""
        now = time.monotonic()
        last, self._asked = now - (self._asked or now), now
        if self.signal:
            return self.signal
        return "the time limit" if now + last > self.deadline else None

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: the caller's business
                pass
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        signal.signal(number, self._previous[number])
        self.signal = signal.Signals(number).name


def train(
    model: Architecture,
    dataset: Dataset,
    workdir: str | pathlib.Path,
    *,
    steps: int,
    seeds: list[int],
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    schedule: str = "constant",
    warmup: int = 0,
    hyper: Mapping[str, Any] | None = None,
    log_every: int = 100,
    checkpoint_every: int = 1000,
    stop_when_diverged: bool = True,
    tensorboard: bool = False,
    mesh: Mesh | None = None,
    progress: Callable[..., Any] = Progress,
    deadline: float = math.inf,
) -> TrainState:
    """Train one member per seed to `steps`, from the latest checkpoint in `workdir` if there is one.

    schedule, warmup: of the learning rate, see make_optimizer. hyper: name -> number or [M] array, over the
    architecture's own values. Writes `metrics.jsonl` (one line per `log_every` steps) and `checkpoints/`. Raises
    TrainingError when a loss is no longer finite (naming step and member) and Stopped when SIGTERM, SIGINT or
    `deadline` (see StopRequest) asked to stop; the state is saved before either.
    stop_when_diverged False: members do not touch each other, so the others go on; `metrics.jsonl` has null
    where a loss was not finite. tensorboard: write event files to `tensorboard/` as well.
    mesh: devices that share the work (sharding.make_mesh); on several hosts every process calls this alike, and
    process 0 writes.
    """
    check_positive(steps=steps, batch_size=batch_size, log_every=log_every, checkpoint_every=checkpoint_every)
    check_schedule(schedule, warmup, steps)
    if len(seeds) < 1:
        raise ValueError("seeds: at least one member is needed")
    workdir = pathlib.Path(workdir)
    optimizer = make_optimizer(model, learning_rate, schedule, warmup, steps)
    hyper = member_hyper(complete_hyper({**model.hyper, **(hyper or {})}, dataset), len(seeds))
    state = init_state(model, optimizer, seeds)
    kept = checkpoints.manager(workdir / "checkpoints")
    state = sharding.shard_members(checkpoints.restore(kept, state) or state, mesh)
    hyper, dataset = sharding.shard_members(hyper, mesh), sharding.replicate(dataset, mesh)
    first = sharding.is_first_process()
    log_name = "metrics.jsonl" if first else f"metrics_{jax.process_index()}.jsonl"
    log = JsonLines(workdir / log_name, keep=lambda line: line["step"] <= int(state.step))
    call = functools.partial(train_steps, model.loss, optimizer, batch_size, model.batches, dataset)
    events = EventWriter(workdir / "tensorboard") if tensorboard and first else None
    bar = progress(steps, done=int(state.step), unit="steps", rate=("images/s", batch_size * len(seeds)))
    with StopRequest(deadline) as stop, bar, log:
        while (step := int(state.step)) < steps:
            target = min(steps, _next(step, log_every), _next(step, checkpoint_every))
            state, report = call(state, hyper, jnp.int32(target - step), mesh)
            report = sharding.fetch(report, mesh)
            metrics = {name: np.asarray(value).tolist() for name, value in report.metrics.items()}
            log.write({"step": target, **metrics})
            if events:
                events.write(target, member_scalars(metrics))
            finite = np.asarray(report.metrics["loss"])[np.isfinite(report.metrics["loss"])]
            loss = float(np.mean(finite)) if finite.size else float("inf")
            bar.update(target, f"loss {loss:.1f}  reconstruction {np.mean(metrics['reconstruction']):.1f}")
            if stop_when_diverged:
                _check_finite(report.diverged, seeds, sharding.fetch(state, mesh), workdir)
            reason = stop.reason()
            stopping = sharding.on_any_process(reason is not None)
            if target == steps or target % checkpoint_every == 0 or stopping:
                checkpoints.save(kept, target, sharding.fetch(state, mesh), loss)
            if stopping and target < steps:
                raise Stopped(
                    f"stopped by {reason or 'another process'} at step {target} of {steps}; saved in {workdir}. "
                    "The same command goes on from there."
                )
    kept.close()
    return sharding.fetch(state, mesh)


def _next(step: int, every: int) -> int:
    return (step // every + 1) * every


def _check_finite(diverged: jax.Array, seeds: list[int], state: TrainState, workdir: pathlib.Path) -> None:
    bad = [(int(step), member) for member, step in enumerate(np.asarray(diverged)) if step >= 0]
    if not bad:
        return
    failed = checkpoints.manager(workdir / "diverged")
    checkpoints.save(failed, int(state.step), state, float("inf"))
    failed.close()
    step, member = min(bad)
    raise TrainingError(
        f"the loss of member {member} (seed {seeds[member]}) was not finite at step {step}. The state after it is in "
        f"{workdir / 'diverged'}, the last good one in {workdir / 'checkpoints'}. Try a lower learning rate."
    )


def complete_hyper(hyper: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The hyper-parameters with what only the data set knows filled in: a `dataset_size` that is still NaN."""
    unknown = "dataset_size" in hyper and np.isnan(hyper["dataset_size"]).all()
    return {**hyper, "dataset_size": float(dataset.size)} if unknown else dict(hyper)


def member_hyper(hyper: Mapping[str, Any], members: int) -> dict[str, jax.Array]:
    """name -> float32 [M]: numbers are repeated, arrays must have one value per member."""
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
    for name, array in arrays.items():
        if np.isnan(array).any():
            raise ValueError(f"hyper-parameter {name!r} is not known: give it, or train with `training.train`")
        if array.shape not in ((), (members,)):
            raise ValueError(f"hyper-parameter {name!r} has shape {list(array.shape)}; there are {members} members")
    return {name: jnp.broadcast_to(array, (members,)) for name, array in arrays.items()}


def check_positive(**numbers: int) -> None:
    """ValueError naming the first of `numbers` that is less than 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, not {number}")


@jax.jit
def member(tree: PyTree, index: int) -> PyTree:
    """One member of a pytree with a leading member axis."""
    return jax.tree.map(lambda leaf: leaf[index], tree)
