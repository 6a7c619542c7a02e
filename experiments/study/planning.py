"""What a study will do, before it does it: its runs, which of them train as one program, and an estimate.

Runs of one data set whose architectures have the same loss function (the seeds of one; VAE and beta-VAE) are
members of one ensemble: one compilation, and one program that fills an accelerator.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from causalvae import architectures, data, networks, sites, training
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import duration, write_json
from causalvae.sites import no_tap
from configs.common import ARCHITECTURES, config_for
from experiments import cli, pipeline

MEMORY_SHARE = 0.6  # of the device's memory that training may plan with
COMPILE_S = {"cpu": 20.0}  # seconds to compile one training or evaluation program; elsewhere 40


class Run(NamedTuple):
    """One member of the study. `id` is its folder's name."""

    id: str
    architecture: str
    variant: str  # "" or what distinguishes it, e.g. "beta=4"
    dataset: str
    seed: int
    config: ConfigDict  # as experiments.main would take it, with one seed

    @property
    def label(self) -> str:
        return f"{self.architecture} ({self.variant})" if self.variant else self.architecture


class Group(NamedTuple):
    """Runs that train as one program. `id` is its folder's name."""

    id: str
    runs: tuple[Run, ...]


class Estimate(NamedTuple):
    """Of one group."""

    compile_s: float
    training_s: float
    evaluation_s: float
    bytes: int


# --- runs ------------------------------------------------------------------------------------------------


def list_runs(config: ConfigDict) -> list[Run]:
    """Every run of the study, data set by data set, then architecture, variant and seed."""
    grid = parse_grid(config.grid)
    names = split(config.architectures, ARCHITECTURES, "architecture")
    known = split(config.datasets, data.DATASETS, "data set")
    unused = set(grid) - set(names)
    if unused:
        raise ValueError(f"grid: {', '.join(sorted(unused))} is not among the architectures {', '.join(names)}")
    if config.seeds < 1:
        raise ValueError(f"seeds must be at least 1, not {config.seeds}")
    return [
        make_run(config, dataset, name, options, config.seed + s)
        for dataset in known
        for name in names
        for options in grid.get(name, [{}])
        for s in range(config.seeds)
    ]


def split(text: str, known: Sequence[str], what: str) -> list[str]:
    """The names in a list separated by commas; ValueError for one that is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ValueError(f"no {what} {name!r}; there are: {', '.join(known)}.{cli.nearest(name, known)}")
    if not names:
        raise ValueError(f"no {what} is named; there are: {', '.join(known)}")
    return list(dict.fromkeys(names))


def parse_grid(text: str) -> dict[str, list[dict[str, Any]]]:
    """'beta.beta: 1 4; factor.gamma: 10' -> architecture -> every combination of its options' values."""
    values: dict[str, dict[str, list[Any]]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, listed = part.partition(":")
        architecture, dot, option = name.strip().partition(".")
        if not (dot and option and listed.split()):
            raise ValueError(f"grid: {part!r} is not 'architecture.option: value value …'")
        values.setdefault(architecture, {})[option] = [_value(word) for word in listed.split()]
    return {
        architecture: [dict(zip(options, combination)) for combination in itertools.product(*options.values())]
        for architecture, options in values.items()
    }


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return word


def make_run(config: ConfigDict, dataset: str, architecture: str, options: dict[str, Any], seed: int) -> Run:
    """The run's own configuration: the study's settings over the architecture's."""
    own = config_for(architecture, dataset, config.preset)
    with own.unlocked():
        own.architecture.update({"network": config.network, **options})
        if config.latents:
            own.architecture.latents = config.latents
        own.data.update(config.data)
        own.training.update(config.training)
        own.evaluation.update(config.evaluation)
        own.seed = seed
    variant = ",".join(f"{name}={value}" for name, value in options.items())
    parts = (dataset, architecture, variant.replace(",", "_"), f"s{seed}")
    return Run("-".join(filter(None, parts)), architecture, variant, dataset, seed, own.lock())


# --- groups ----------------------------------------------------------------------------------------------


def structure(run: Run, dataset: Dataset) -> tuple[Architecture, dict[str, float]]:
    """The run's architecture without its numeric hyper-parameters, and those: members of one group share the
    first and differ in the second."""
    options = dict(run.config.architecture)
    model = pipeline.create_model(run.config, dataset)
    hyper = {name: float(value) for name, value in model.hyper.items()}
    shared = {name: value for name, value in options.items() if name not in hyper and name != "name"}
    return architectures.create(run.architecture, image_shape=dataset.image_shape, **shared), hyper


def group_key(run: Run, dataset: Dataset) -> tuple:
    """What runs must have in common to train as one program."""
    model, hyper = structure(run, dataset)
    settings = tuple(sorted(run.config.training.items()))
    return run.dataset, model.loss, model.batches, tuple(sorted(model.optimizers.items())), tuple(hyper), settings


def group_runs(runs: Sequence[Run], dataset: Dataset, largest: int) -> list[Group]:
    """The runs of one data set in ensembles of at most `largest` members (0: of any size)."""
    alike: dict[tuple, list[Run]] = {}
    for run in runs:
        alike.setdefault(group_key(run, dataset), []).append(run)
    return [
        make_group(members[i : i + (largest or len(members))])
        for members in alike.values()
        for i in range(0, len(members), largest or len(members))
    ]


def make_group(runs: Sequence[Run]) -> Group:
    names = "+".join(dict.fromkeys(run.architecture for run in runs))
    digest = hashlib.sha256(" ".join(run.id for run in runs).encode()).hexdigest()[:8]
    return Group(f"{runs[0].dataset}-{names}-{digest}", tuple(runs))


def remembered_groups(runs: Sequence[Run], path: pathlib.Path) -> tuple[list[Group], list[Run]]:
    """The groups of an earlier call on the same directory whose runs are all asked for, and the runs in none:
    a group keeps its members, so that its checkpoints fit."""
    by_id = {run.id: run for run in runs}
    known = json.loads(path.read_text())["groups"] if path.exists() else {}
    groups = []
    for name, members in known.items():
        if all(member in by_id for member in members):
            groups.append(Group(name, tuple(by_id.pop(member) for member in members)))
    return groups, list(by_id.values())


def remember_groups(groups: Sequence[Group], path: pathlib.Path) -> None:
    known = json.loads(path.read_text())["groups"] if path.exists() else {}
    known |= {group.id: [run.id for run in group.runs] for group in groups}
    write_json(path, {"groups": known})


# --- time and memory -------------------------------------------------------------------------------------


def measure_speed(group: Group, dataset: Dataset, steps: int = 3) -> float:
    """Floating-point operations per second that a training step of the group's first member reaches here: a few
    steps, timed. Where the group has one member, its training takes the program that this compiles."""
    run = group.runs[0]
    model, hyper = structure(run, dataset)
    options = run.config.training
    optimizer = training.make_optimizer(model, options.learning_rate, options.schedule, options.warmup, options.steps)
    config = training.step_config(model, optimizer, options.batch_size)
    call = functools.partial(training.train_steps, config, dataset)
    hyper = training.member_hyper(training.complete_hyper(hyper, dataset), 1)
    state, _ = call(training.init_state(model, optimizer, [run.seed]), hyper, jnp.int32(1))
    seconds = []
    for _ in range(2):
        jax.block_until_ready(state)
        started = time.perf_counter()
        state, _ = jax.block_until_ready(call(state, hyper, jnp.int32(steps)))
        seconds.append((time.perf_counter() - started) / steps)
    return step_operations(model, dataset, options.batch_size) / min(seconds)


def step_operations(model: Architecture, dataset: Dataset, batch: int) -> float:
    """Floating-point operations of one member's training step: forward, and twice as many backward."""
    return 3.0 * forward_operations(model.forward, model.init, dataset.image_shape) * batch * model.batches


def programs(group: Group, dataset: Dataset) -> set[tuple]:
    """What stands for the programs that a group compiles, unless an earlier group has: its training's, and those of
    evaluations of its network on images of its shape."""
    model, _ = structure(group.runs[0], dataset)
    return {(dataset.name, model.loss, len(group.runs)), (dataset.image_shape, model.forward)}


def estimate(group: Group, dataset: Dataset, speed: float, to_compile: int) -> Estimate:
    """Rough seconds and bytes of a group: arithmetic of its operations at a measured `speed` per second, one member
    after the other (accelerators, which train members side by side, are faster)."""
    run = group.runs[0]
    model, _ = structure(run, dataset)
    batch, steps, members = run.config.training.batch_size, run.config.training.steps, len(group.runs)
    evaluation = run.config.evaluation
    decoded = evaluation.images * model.latents * 14 * 3 + evaluation.pairs * dataset.num_factors * 700
    images = 2 * (evaluation.codes + evaluation.test_codes) + decoded + 20 * evaluation.effects * dataset.num_factors
    compile_s = COMPILE_S.get(jax.default_backend(), 40.0)
    return Estimate(
        compile_s * to_compile,
        steps * members * step_operations(model, dataset, batch) / speed,
        members * forward_operations(model.forward, model.init, dataset.image_shape) * images / speed,
        training_bytes(model, dataset, batch, members),
    )


@functools.lru_cache(maxsize=32)
def forward_operations(forward, init, image_shape: tuple[int, int, int]) -> float:
    """Floating-point operations of one image's forward pass, as the compiler counts them."""
    params = jax.eval_shape(init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    lowered = jax.jit(lambda params, x: forward(params, x, None, no_tap).logits).lower(params, image)
    return float((lowered.cost_analysis() or {}).get("flops", 0.0)) or 2.0 * networks.parameter_count(params)


def training_bytes(model: Architecture, dataset: Dataset, batch: int, members: int) -> int:
    """Memory of a training step: parameters, Adam's two moments and gradients, and activations twice (forward
    and backward), of the members that run side by side."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    state = 4 * networks.parameter_count(params)
    shapes = sites.site_shapes(model, params, jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32))
    activations = sum(shape.size for shape in shapes.values()) * 4 * batch * model.batches * 2
    side_by_side = 1 if jax.default_backend() == "cpu" else members  # see training.map_members
    return 3 * state * members + (state + activations) * side_by_side


def memory_limit() -> int:
    """Bytes of the first device, or of the machine where it does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def largest_group(model: Architecture, dataset: Dataset, batch: int) -> int:
    """How many members fit into the memory that training may plan with; at least one."""
    one, two = (training_bytes(model, dataset, batch, members) for members in (1, 2))
    return max(1, int((MEMORY_SHARE * memory_limit() - one) // max(1, two - one)) + 1)


def describe(groups: Sequence[Group], estimates: dict[str, Estimate], done: set[str], sources: dict[str, str]) -> str:
    """The plan as text: one line per group, and the sums."""
    lines, total = [], 0.0
    for group in groups:
        left = sum(run.id not in done for run in group.runs)
        e = estimates[group.id]
        seconds = group_seconds(group, e, done)
        total += seconds
        first = group.runs[0]
        names = "+".join(dict.fromkeys(run.label for run in group.runs))
        state = "done" if not left else f"~{duration(seconds)}, {e.bytes / 2**20:,.0f} MB"
        runs = f"{len(group.runs)} run{'s' if len(group.runs) > 1 else ''}"
        runs += f", {left} left" if 0 < left < len(group.runs) else ""
        lines.append(f"  {first.dataset:<10} {sources[first.dataset]:<10} {names:<18} {runs:<16} {state}")
    runs = sum(len(group.runs) for group in groups)
    left = sum(run.id not in done for group in groups for run in group.runs)
    head = f"{runs} runs in {len(groups)} groups, {left} to do; about {duration(total)} on {pipeline.device_name()}"
    return "\n".join([head, *lines])


def group_seconds(group: Group, estimate: Estimate, done: set[str]) -> float:
    """Estimated seconds that a group still takes (its training is not split: all of it, or none)."""
    left = sum(run.id not in done for run in group.runs)
    if not left:
        return 0.0
    return estimate.compile_s + estimate.training_s + estimate.evaluation_s * left / len(group.runs)
