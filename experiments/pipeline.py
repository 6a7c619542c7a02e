"""The main job as one function: data, training, interventions, metrics, figures, table.

`run(config, workdir)` is what `experiments.main` calls, and the study and the notebooks too.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
import os
import pathlib
import platform
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
from clu import parameter_overview

import causalvae
from causalvae import (
    checkpoints,
    evaluation,
    figures,
    locks,
    networks,
    pretrained,
    runs,
    schema,
    sharding,
    training,
)
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import duration, write_json, writing
from experiments import slices, speed, spread
from experiments.cli import Config
from experiments.explorer import members, page


def run(
    config: Config,
    workdir: str | pathlib.Path,
    stage: str = "all",
    clock: slices.Clock | None = None,
    scores: str = "main",
) -> dict[str, Any] | None:
    """Train (or go on), evaluate, draw; everything lands in `workdir`. Returns what results.json holds.

    stage: "all", "train" (None is returned), or "evaluate", of a run that is trained. clock: the time limit. scores: of
    the table that is printed, see `evaluation.table`.
    Raises ValueError, OSError or training.TrainingError with a text for the user; nothing is half-written.
    """
    prepared = prepare(config)
    with locks.hold(workdir):
        results = _run(config, prepared, pathlib.Path(workdir), stage, clock or slices.Clock())
    if results is not None:
        known = spread.find(results)
        say("\n" + "\n".join(evaluation.summarize(results, known)))
        say(f"\n{evaluation.table(results, known, scores)}\n")
        say(f"results in {workdir}: results.json, figures/, explorer.html")
    return results


def _run(
    config: Config,
    prepared: tuple[Architecture, Dataset, evaluation.Settings],
    workdir: pathlib.Path,
    stage: str,
    clock: slices.Clock,
) -> dict[str, Any] | None:
    model, dataset, settings = prepared
    started = time.monotonic()
    say(f"data: {dataset.name} ({dataset.source}), {dataset.size:,} images of {image_size(dataset)}{dataset.reason}")
    shipped = _before_claiming(config, dataset, pathlib.Path(workdir), stage)
    workdir = runs.claim_workdir(workdir, config.to_dict(), dataset)
    say(f"model: {model.name}, {config.architecture.network} network, {model.latents} latents; results go to {workdir}")
    say(parameter_table(model))
    if shipped is not None:
        say(f"device: {device_name()}; the shipped model {config.pretrained}, not trained here")
        params, step = shipped
    else:
        if stage == "evaluate":
            check_trained(workdir, config.training.steps)
        say(f"device: {device_name()}; training {config.seeds} member(s) to step {config.training.steps:,}")
        warning = speed.warning(config, model, dataset, checkpoints.latest_step(workdir / "checkpoints"))
        if warning:
            say(warning)
        state = train(config, model, dataset, workdir, clock.deadline)
        params, step = state.params, int(state.step)
    trained = time.monotonic()
    if stage == "train":
        say(f"trained in {duration(trained - started)}; --stage=evaluate goes on from here")
        return None
    clock.check(0.0, "evaluation")
    results = evaluate(config, model, dataset, settings, params, step, workdir)
    write_json(workdir / "timing.json", {"training_s": trained - started, "evaluation_s": time.monotonic() - trained})
    say(f"done in {duration(time.monotonic() - started)}")
    return results


def _before_claiming(config: Config, dataset: Dataset, workdir: pathlib.Path, stage: str) -> tuple[Any, int] | None:
    """`shipped_params`, if the config has a shipped model. ValueError for what cannot be done in a folder that is not
    a run's yet, which would then be claimed for it."""
    if config.pretrained:
        if stage == "train":
            raise ValueError(f"the shipped model {config.pretrained} is trained: leave --stage=train out")
        return shipped_params(config, dataset)
    if stage == "evaluate" and not (workdir / "config.json").exists():
        check_trained(workdir, config.training.steps)
    return None


def prepare(config: Config) -> tuple[Architecture, Dataset, evaluation.Settings]:
    """The model, data set and evaluation settings of a config, checked before anything is computed."""
    check_device()
    check_training(config)
    dataset = load_dataset(config.data)
    model = create_model(config, dataset)
    settings = evaluation.Settings(**config.evaluation)
    evaluation.check_settings(settings, model, dataset)
    return model, dataset, settings


def check_device() -> None:
    """ValueError where JAX has not the accelerator that the environment asks for."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion, where the first platform asked for is missing
        asked = os.environ.get("JAX_PLATFORMS", "")
        said = " ".join(str(error).split())
        raise ValueError(
            f"JAX_PLATFORMS={asked} asks for a device that JAX does not find here{f' ({said})' if said else ''}: leave "
            "it out, or install JAX for that device"
        ) from error


def check_training(config: Config) -> None:
    """ValueError for a setting that does not exist, or that is out of range."""
    schema.check(config.to_dict())
    training.check_schedule(config.training.schedule, config.training.warmup, config.training.steps)
    training.resolve_callbacks(config.training.callbacks)


def check_trained(folder: pathlib.Path, steps: int) -> None:
    """ValueError where the run in `folder` has no checkpoint of its last step."""
    reached = checkpoints.latest_step(folder / "checkpoints")
    if reached < steps:
        raise ValueError(f"{folder} is trained to step {reached:,} of {steps:,}: train it first (--stage=train)")


def load_dataset(config: Config) -> Dataset:
    """Returns the data set of a config's `data` section."""
    return runs.load_dataset({"data": config.to_dict()})


def create_model(config: Config, dataset: Dataset) -> Architecture:
    """Returns the config's architecture for the data set's images."""
    return runs.create_model(config.to_dict(), dataset)


def seeds(config: Config) -> list[int]:
    """Returns the members' seeds."""
    return runs.member_seeds(config.to_dict())


def train(
    config: Config, model: Architecture, dataset: Dataset, workdir: pathlib.Path, deadline: float = math.inf
) -> training.TrainState:
    """Train the config's members to its number of steps, from the latest checkpoint where there is one, on all of this
    process's devices."""
    return training.train(
        model,
        dataset,
        workdir,
        seeds=seeds(config),
        mesh=sharding.make_mesh(config.seeds, config.training.batch_size),
        deadline=deadline,
        **config.training,
    )


def shipped_params(config: Config, dataset: Dataset) -> tuple[Any, int]:
    """The parameters [1, ...] of the config's shipped model, and the steps that it was trained for. ValueError where
    the config describes another model."""
    about = pretrained.card(config.pretrained)
    own = {**dict(config.architecture), "image_shape": list(dataset.image_shape), "data": dataset.name}
    theirs = {**about["architecture"], "image_shape": about["image_shape"], "data": about["data"]["name"]}
    difference = runs.first_difference(theirs, own)
    if difference:
        raise ValueError(f"the shipped model {config.pretrained} is not the config's: {difference}")
    if config.seeds != 1:
        raise ValueError(f"the shipped model {config.pretrained} is one member; the config has {config.seeds} seeds")
    _, params = pretrained.load_pretrained(config.pretrained)
    return jax.tree.map(lambda leaf: leaf[None], params), about["training"]["steps"]


def evaluate(config: Config, model, dataset, settings, trained, step: int, workdir: pathlib.Path) -> dict[str, Any]:
    """All interventions and metrics of every member of `trained` [M, ...], parameters after `step` steps; writes
    results.json, figures/ and explorer.html."""
    members = []
    budget = pretrained.card(config.pretrained)["training"] if config.pretrained else dict(config.training)
    untrained = training.initial_params(model, seeds(config))
    for m, seed in enumerate(seeds(config)):
        say(f"evaluating member {m + 1} of {config.seeds} (seed {seed})")
        params = training.member(trained, m)
        before = training.member(untrained, m)
        found = evaluation.evaluate(model, params, dataset, settings, before, lambda step: say(f"  {step}"))
        suffix = member_suffix(config, seed)
        figures.draw(found, model, dataset, workdir / "figures", suffix)
        if dataset.num_factors:  # the explorer shows pairs that differ in one
            shown = explore(config, model, dataset, settings, params, seed, step, evaluation.record(found))
            page.write(workdir / f"explorer{suffix}.html", shown)
        members.append({"seed": seed, **evaluation.record(found)})
    results = {
        "architecture": {
            "parameters": int(networks.parameter_count(training.member(trained, 0))),
            **dict(config.architecture),
        },
        "data": dataset.describe(),
        "training": {**budget, "steps": step, "seeds": [m["seed"] for m in members], "pretrained": config.pretrained},
        "evaluation": dict(config.evaluation),
        "versions": versions(),
        "device": device_name(),
        "members": members,
    }
    write_json(workdir / "results.json", results)
    return results


def member_suffix(config: Config, seed: int) -> str:
    """What the names of a member's files end with: nothing where there is only one."""
    return "" if config.seeds == 1 else f"_seed{seed}"


def explore(
    config: Config, model, dataset, settings, params, seed: int, steps: int, found: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the explorer of one member, JSON-able (see explorer/packing.py).

    found: the record of its evaluation, if there was one.
    """
    member = members.Member(dict(config.architecture), model, dataset, settings, params, seed, steps, found)
    return members.page_of(member)


# --- the workdir -----------------------------------------------------------------------------------------


def default_workdir(config_filename: str) -> pathlib.Path:
    """runs/<config file>[_<preset>] from the value of --config."""
    path, _, preset = config_filename.partition(":")
    return pathlib.Path("runs") / "_".join(filter(None, (pathlib.Path(path).stem, preset)))


# --- words -----------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Prints, on one of the hosts."""
    if sharding.is_first_process():
        with writing("the output"):
            print(text, flush=True)


@dataclasses.dataclass
class _Part:
    """A row of the table of parameters."""

    part: str
    arrays: int
    parameters: int


def parameter_table(model: Architecture) -> str:
    """Returns a table of how many parameters each part of a model has, and all of them."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    parts = {**{name: {name: part} for name, part in params.items()}, "total": params}
    count = parameter_overview.count_parameters
    return parameter_overview.make_table(
        [_Part(name, len(jax.tree.leaves(part)), int(count(part))) for name, part in parts.items()]
    )


def image_size(dataset: Dataset) -> str:
    return "×".join(map(str, dataset.image_shape))


def device_name() -> str:
    """'1 cpu (AMD EPYC)', '1 cpu (AMD EPYC, at most AVX2)', '1 gpu (NVIDIA H100)', '8 tpu (TPU v3)'."""
    devices = jax.devices()
    kind = processor_name() if devices[0].platform == "cpu" else devices[0].device_kind
    return f"{len(devices)} {devices[0].platform} ({kind})"


@functools.cache
def processor_name() -> str:
    """The processor's name, and the newest instructions that XLA may use where XLA_FLAGS limits them: both decide the
    last bit of every result."""
    try:
        listed = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        listed = None
    name = listed[1] if listed else platform.processor() or platform.machine()
    limits = re.findall(r"--xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    return f"{name}, at most {limits[-1]}" if limits else name


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    names = ("jax", "flax", "optax", "numpy", "scikit-learn")
    return {"causalvae": causalvae.__version__, **{name: importlib.metadata.version(name) for name in names}}
