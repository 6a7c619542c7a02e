"""The state of training and the steps that it takes, on images drawn within the program or read beforehand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.sharding import Mesh

from causalvae import precision, sharding
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.data.real.stored import to_unit
from causalvae.training._members import map_members

PyTree = Any


class TrainState(NamedTuple):
    """Everything that a step reads and writes; every leaf has a leading member axis except `step`."""

    step: jax.Array  # [] int32: steps taken
    keys: jax.Array  # [M] one typed key per member
    params: PyTree  # [M, ...]
    optimizer: PyTree  # [M, ...]


class Report(NamedTuple):
    """What is said of some steps."""

    metrics: dict[str, jax.Array]  # name -> [M] or [M, d], averaged over the steps
    diverged: jax.Array  # [M] int32: the first step whose loss was not finite, or -1


class StepConfig(NamedTuple):
    """What a step does, hashable: steps of equal configurations and shapes share a program."""

    loss: Callable[..., Any]  # of the Architecture
    batches: int  # that the loss takes, of the Architecture
    optimizer: optax.GradientTransformation
    batch_size: int
    mesh: Mesh | None = None  # of the devices that the state is spread over, see sharding.py
    precision: str = "float32"  # of the networks' products, see precision.py
    ensemble: str = "auto"  # how members are computed, see _members.py


def step_config(
    model: Architecture,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    mesh: Mesh | None = None,
    precision: str = "float32",
    ensemble: str = "auto",
) -> StepConfig:
    """Returns the configuration of a model's training step.

    Args:
        model: What is trained.
        optimizer: By what.
        batch_size: Images of a step and member.
        mesh: Devices that share the work, see `sharding.make_mesh`.
        precision: "float32", or "bfloat16" for the networks' products.
        ensemble: How members are computed: "auto", "grouped", "products" or "in_turn".
    """
    return StepConfig(model.loss, model.batches, optimizer, batch_size, mesh, precision, ensemble)


# --- the state -------------------------------------------------------------------------------------------


def init_state(model: Architecture, optimizer: optax.GradientTransformation, seeds: Any) -> TrainState:
    """Returns a fresh state of one member per seed."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    params = _init_params(model.init, keys)
    return TrainState(jnp.zeros((), jnp.int32), keys, params, jax.jit(jax.vmap(optimizer.init))(params))


def initial_params(model: Architecture, seeds: Any) -> PyTree:
    """Returns the parameters [M, ...] that training starts from, one member per seed."""
    return _init_params(model.init, jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32)))


def _init_params(init: Callable[[jax.Array], PyTree], keys: jax.Array) -> PyTree:
    traced = isinstance(keys, Tracer)  # options are for an outermost jit only
    return (_draw_params if traced else _draw_params_at_once)(init, keys)


def _draw_params(init: Callable[[jax.Array], PyTree], keys: jax.Array) -> PyTree:
    # Folding in a number that no step has keeps the draws apart from those of training.
    return jax.vmap(lambda key: init(jax.random.fold_in(key, 2**32 - 1)))(keys)


# Run once, and nearly all random numbers: compiling it well takes seconds, running it badly milliseconds.
CHEAP = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_draw_params_at_once = jax.jit(_draw_params, static_argnums=0, compiler_options=CHEAP)


def complete_hyper(hyper: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Returns hyper-parameters with what only the data set knows filled in: a `dataset_size` that is still NaN."""
    unknown = "dataset_size" in hyper and np.isnan(hyper["dataset_size"]).all()
    return {**hyper, "dataset_size": float(dataset.size)} if unknown else dict(hyper)


def member_hyper(hyper: Mapping[str, Any], members: int) -> dict[str, jax.Array]:
    """Returns name -> float32 [M]: numbers are repeated, arrays must have one value per member.

    Raises:
        ValueError: a value is NaN, or an array has another length.
    """
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()}
    for name, array in arrays.items():
        if np.isnan(array).any():
            raise ValueError(f"hyper-parameter {name!r} is not known: give it, or train with `training.train`")
        if array.shape not in ((), (members,)):
            raise ValueError(f"hyper-parameter {name!r} has shape {list(array.shape)}; there are {members} members")
    return {name: jnp.broadcast_to(array, (members,)) for name, array in arrays.items()}


@jax.jit
def member(tree: PyTree, index: int) -> PyTree:
    """Returns one member of a pytree with a leading member axis."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


# --- one member's step -----------------------------------------------------------------------------------


def draw_batches(dataset: Dataset, key: jax.Array, batch_size: int, batches: int) -> jax.Array:
    """Returns `batches` batches of images, end to end.

    Each has its own key, so the first is the same for every architecture, however many it needs.
    """

    def batch(i):
        return dataset.sample(jax.random.fold_in(key, i), batch_size)[1]

    if batches == 1:
        return batch(0)
    images = jax.vmap(batch)(jnp.arange(batches))
    return images.reshape(-1, *images.shape[2:])


def step_keys(key: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the keys of a member's step: of its images, and of its loss."""
    data_key, loss_key = jax.random.split(jax.random.fold_in(key, number))
    return data_key, loss_key


class _Member(NamedTuple):
    """What differs between members, [M, ...] or one member's."""

    key: jax.Array
    params: PyTree
    optimizer: PyTree
    hyper: Mapping[str, jax.Array]


def _update(config: StepConfig, own: _Member, images: jax.Array, loss_key: jax.Array, number: jax.Array) -> Any:
    """One step of one member: differentiate the loss, update. Returns (params, optimizer, metrics)."""
    images = sharding.shard_batch(images, config.mesh)
    differentiate = jax.value_and_grad(config.loss, has_aux=True)
    with precision.computing(config.precision):
        (_, info), gradients = differentiate(own.params, images, loss_key, own.hyper, number)
    updates, optimizer = config.optimizer.update(gradients, own.optimizer, own.params)
    params: Any = {**optax.apply_updates(own.params, updates), **info.updates}  # pyright: ignore[reportGeneralTypeIssues]  (a dict)
    return params, optimizer, info.metrics


# --- many steps ------------------------------------------------------------------------------------------


class Tally(NamedTuple):
    """What is carried along over steps, of which a report is made."""

    sums: dict[str, jax.Array]  # of metrics
    diverged: jax.Array  # as in Report


# Of the members and the number of the step, and of the step's place within the call: (params, optimizer, metrics).
_OneStep = Callable[[_Member, jax.Array, jax.Array], Any]


def _empty_tally(one_step: _OneStep, state: TrainState, hyper: Mapping[str, jax.Array]) -> Tally:
    members = _Member(state.keys, state.params, state.optimizer, hyper)
    shapes = jax.eval_shape(one_step, members, state.step, state.step)[2]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return Tally(zeros, jnp.full(state.keys.shape, -1, jnp.int32))


def _loop(
    one_step: _OneStep, state: TrainState, hyper: Mapping[str, jax.Array], tally: Tally, num_steps: jax.Array
) -> tuple[TrainState, Tally]:
    """`num_steps` of `one_step`. The number is an array, so that calls of any length share one program and a run's
    bits do not depend on how it was cut into calls."""

    def body(i, carry):
        params, optimizer, tally = carry
        number = state.step + i
        params, optimizer, metrics = one_step(_Member(state.keys, params, optimizer, hyper), number, i)
        bad = ~jnp.isfinite(metrics["loss"]) & (tally.diverged < 0)
        sums = jax.tree.map(jnp.add, tally.sums, metrics)
        return params, optimizer, Tally(sums, jnp.where(bad, number, tally.diverged))

    carry = (state.params, state.optimizer, tally)
    params, optimizer, tally = jax.lax.fori_loop(0, num_steps, body, carry)
    return TrainState(state.step + num_steps, state.keys, params, optimizer), tally


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def train_steps(
    config: StepConfig, dataset: Dataset, state: TrainState, hyper: Mapping[str, jax.Array], num_steps: jax.Array
) -> tuple[TrainState, Report]:
    """Takes `num_steps` steps in one call, on images drawn from the data set within it.

    Args:
        config: What a step does; static.
        dataset: What images are drawn from.
        state: Where training stands; its buffers are given up.
        hyper: name -> [M].
        num_steps: [] int32, of the call.

    Returns:
        The new state and a report on the steps.
    """

    @functools.partial(jax.jit, inline=True)  # traced once, for the shapes of its metrics and for the loop
    def one_step(members: _Member, number: jax.Array, _: jax.Array) -> Any:
        def of_member(*fields):
            own = _Member(*fields)
            data_key, loss_key = step_keys(own.key, number)
            images = draw_batches(dataset, data_key, config.batch_size, config.batches)
            return _update(config, own, images, loss_key, number)

        return map_members(of_member, config.mesh, *members, ensemble=config.ensemble)

    state, tally = _loop(one_step, state, hyper, _empty_tally(one_step, state, hyper), num_steps)
    return state, Report(jax.tree.map(lambda total: total / num_steps, tally.sums), tally.diverged)


def _step_on(config: StepConfig, pixels: jax.Array) -> _OneStep:
    """The step on the pixels [S, M, B, H, W, C] uint8 that were read for it, the i-th of S."""

    def one_step(members: _Member, number: jax.Array, i: jax.Array) -> Any:
        def of_member(pixels, *fields):
            own = _Member(*fields)
            _, loss_key = step_keys(own.key, number)
            return _update(config, own, to_unit(pixels), loss_key, number)

        # The barrier keeps the choice of the step out of what is compiled of the images: their consumers are then
        # compiled as those of images that are drawn in the program, and give the same bits.
        images = jax.lax.optimization_barrier(pixels[i])
        return map_members(of_member, config.mesh, images, *members, ensemble=config.ensemble)

    return one_step


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def train_steps_on(
    config: StepConfig,
    pixels: jax.Array,
    state: TrainState,
    hyper: Mapping[str, jax.Array],
    tally: Tally,
    num_steps: jax.Array,
) -> tuple[TrainState, Tally]:
    """Takes `num_steps` steps on pixels [S, M, B, H, W, C] uint8, of which the first `num_steps` rows count.

    The images are those that `train_steps` draws, and so are the results, bit for bit.
    """
    return _loop(_step_on(config, pixels), state, hyper, tally, num_steps)


@functools.partial(jax.jit, static_argnames="config")
def empty_tally(config: StepConfig, pixels: jax.Array, state: TrainState, hyper: Mapping[str, jax.Array]) -> Tally:
    """Returns the tally of no steps."""
    return _empty_tally(_step_on(config, pixels), state, hyper)


@jax.jit
def summarize(tally: Tally, num_steps: jax.Array) -> Report:
    """Returns what a tally says of the steps it was carried over."""
    return Report(jax.tree.map(lambda total: total / num_steps, tally.sums), tally.diverged)
