"""How long the groups of a study take, and the time that is left while they are done."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae import networks, sites
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import Progress, duration
from causalvae.sites import no_tap
from causalvae.training._members import ENSEMBLES
from experiments.lowering.lower import CARDS, PLATFORM_OF, card_of, lower
from experiments.lowering.programs import BATCH, training_step
from experiments.speed import seconds_per_step
from experiments.study.planning import Group, structure

COMPILE_S = {"cpu": 20.0, "gpu": 15.0}  # seconds to compile one training or evaluation program; elsewhere 40


class Estimate(NamedTuple):
    """Of one group."""

    compile_s: float
    training_s: float
    evaluation_s: float
    bytes: int


class Speed(NamedTuple):
    """What work takes here, in seconds; NaN where it is not known."""

    step: float = math.nan  # of every training step, however many members it has
    operation: float = math.nan  # of every floating-point operation of training
    evaluation: float = math.nan  # of one of an evaluation


def find_speed(group: Group, dataset: Dataset) -> Speed:
    """Returns what work takes here: measured on a CPU, and on an accelerator, where to compile a few steps would cost
    more than they tell, what the card's data sheet makes of the bytes that a step moves."""
    if jax.default_backend() == "cpu":
        return measure_speed(group, dataset)
    card = card_of(jax.devices()[0].device_kind)
    return Speed() if card is None else speed_of_card(card, group, dataset)


def measure_speed(group: Group, dataset: Dataset) -> Speed:
    """Measures training by a few steps of the group's first member. Where that is the only one, its training takes the
    program that this compiles."""
    run = group.runs[0]
    model, hyper = structure(run, dataset)
    seconds = seconds_per_step(model, hyper, dataset, run.config.training, run.seed)
    operation = seconds / step_operations(model, dataset, run.config.training.batch_size)
    return Speed(0.0, operation, operation)


# A step of the VAE with 1 to 90 members takes 0.3 ms and 0.27 of the time in which an H100's memory moves what the
# program would if nothing were fused, within a tenth; a step of FactorVAE takes a third longer than that.
STEP_S, FUSED = 3e-4, 0.27


def speed_of_card(card: str, group: Group, dataset: Dataset) -> Speed:
    """Returns what training would take on a card that need not be there, by the group's first member; of evaluations,
    much of which is no work of the card, nothing is known. card: of `lowering.lower.CARDS`."""
    run = group.runs[0]
    model, _ = structure(run, dataset)
    program = training_step(run.label, model, 1, precision=run.config.training.precision, dataset=dataset)
    platform = PLATFORM_OF[card]
    seconds = FUSED * lower(program, (platform,))[platform].bytes_most / CARDS[card].bandwidth
    return Speed(STEP_S, seconds / step_operations(model, dataset, BATCH))


def step_operations(model: Architecture, dataset: Dataset, batch: int) -> float:
    """Returns the floating-point operations of one member's training step: forward, and twice as many backward."""
    return 3.0 * forward_operations(model.forward, model.init, dataset.image_shape) * batch * model.batches


@functools.lru_cache(maxsize=32)
def forward_operations(forward: Any, init: Any, image_shape: tuple[int, int, int]) -> float:
    """Returns the floating-point operations of one image's forward pass, as the compiler counts them."""
    params = jax.eval_shape(init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    lowered = jax.jit(lambda params, x: forward(params, x, None, no_tap).logits).lower(params, image)
    counted: Any = lowered.cost_analysis() or {}
    return float(counted.get("flops", 0.0)) or 2.0 * networks.parameter_count(params)


def programs(group: Group, dataset: Dataset) -> set[tuple]:
    """Returns what stands for the programs that a group compiles, unless an earlier group has: its training's, and
    those of evaluations of its network on images of its shape."""
    model, _ = structure(group.runs[0], dataset)
    return {(dataset.name, model.loss, len(group.runs)), (dataset.image_shape, model.forward)}


def estimate(group: Group, dataset: Dataset, speed: Speed, to_compile: int) -> Estimate:
    """Estimates seconds and bytes of a group.

    Args:
        group: what is to be done.
        dataset: what on.
        speed: of work here, `find_speed`'s.
        to_compile: programs that no earlier group has compiled.
    """
    model, _ = structure(group.runs[0], dataset)
    batch, steps, members = group.config.training.batch_size, group.config.training.steps, len(group.runs)
    evaluation = group.config.evaluation
    decoded = evaluation.images * model.latents * 14 * 3 + evaluation.pairs * dataset.num_factors * 700
    images = 2 * (evaluation.codes + evaluation.test_codes) + decoded + 20 * evaluation.effects * dataset.num_factors
    return Estimate(
        COMPILE_S.get(jax.default_backend(), 40.0) * to_compile,
        steps * (speed.step + members * step_operations(model, dataset, batch) * speed.operation),
        members * forward_operations(model.forward, model.init, dataset.image_shape) * images * speed.evaluation,
        training_bytes(model, dataset, batch, members, group.config.training.ensemble),
    )


def training_bytes(model: Architecture, dataset: Dataset, batch: int, members: int, ensemble: str = "auto") -> int:
    """Returns the memory of a training step: parameters, Adam's two moments and gradients, and activations twice
    (forward and backward), of the members that run side by side. ensemble: as `training.ensemble` says."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    state = 4 * networks.parameter_count(params)
    image: Any = jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32)
    shapes = sites.site_shapes(model, params, image)
    activations = sum(shape.size for shape in shapes.values()) * 4 * batch * model.batches * 2
    together = ENSEMBLES[ensemble].side_by_side
    together = jax.default_backend() != "cpu" if together is None else together  # as "auto" does it
    return 3 * state * members + (state + activations) * (members if together else 1)


# --- while they are done ---------------------------------------------------------------------------------


class Pace:
    """The time left of a study: what is left of the estimates, at the pace of what has been done."""

    def __init__(self, expected: Mapping[str, float], runs: int = 0):
        """Args:
        expected: seconds of each group that is to be done, in their order. Where any is NaN, all count as much.
        runs: that are to be evaluated.
        """
        self.runs = runs
        self._known = all(map(math.isfinite, expected.values()))
        self._left = dict(expected) if self._known else dict.fromkeys(expected, 1.0)
        self._expected = self._taken = 0.0
        self._began = time.monotonic()

    def note(self, group: Group, seconds: float) -> None:
        """Counts a group that took so many seconds as done."""
        self._expected += self._left.pop(group.id, 0.0)
        self._taken += seconds
        self._began = time.monotonic()

    def left(self) -> str:
        """Returns the time left in words; '?' where nothing is known yet."""
        if not self._left:
            return duration(0)
        pace = self._taken / self._expected if self._expected else 1.0 if self._known else math.nan
        elapsed = time.monotonic() - self._began
        overdue = elapsed / max(next(iter(self._left.values())), 1e-9)  # groups are done in this order
        return duration(max(pace, overdue) * sum(self._left.values()) - elapsed)


class StudyProgress(Progress):
    """Progress of one group's training, with the study's time left."""

    def __init__(self, heading: str, pace: Pace, total: int, **options: Any):
        super().__init__(total, **options)
        self.heading, self.pace = heading, pace

    def _show(self, line: str) -> None:
        left = self.pace.left()
        super()._show(f"{self.heading}  {line}" + (f"  (study: {left} left)" if left != "?" else ""))
