"""The explorers of a finished run: its members restored, explored and written as pages."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from causalvae import checkpoints, training
from causalvae.architectures import Architecture
from experiments import pipeline
from experiments.explorer import page
from experiments.settings import Config, with_defaults


def write(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The pages of every member of a run; ValueError or FileNotFoundError where there is nothing to restore."""
    config = read_config(workdir)
    model, dataset, settings = pipeline.prepare(config)
    seeds = pipeline.seeds(config)
    if config.pretrained:
        trained, step = pipeline.shipped_params(config, dataset)
    else:
        state = restore(model, workdir, seeds, config.training.schedule)
        trained, step = state.params, int(state.step)
    known = evaluated(workdir, step)
    paths = []
    for m, seed in enumerate(seeds):
        params = training.member(trained, m)
        shown = pipeline.explore(config, model, dataset, settings, params, seed, step, known.get(seed))
        paths.append(page.write(workdir / f"explorer{pipeline.member_suffix(config, seed)}.html", shown))
    return paths


def read_config(workdir: pathlib.Path) -> Config:
    """The configuration of a run. FileNotFoundError or ValueError where the directory holds none."""
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"no run in {workdir}: no {path.name}. `python -m experiments.main` makes one.")
    try:
        stored = json.loads(path.read_text())
        stored["data"].pop("factors", None)
        if "name" not in stored["architecture"]:
            raise KeyError("architecture.name")
        return ConfigDict(with_defaults(stored))
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{path} is not the configuration of a run ({error!r})") from error


def restore(model: Architecture, workdir: pathlib.Path, seeds: list[int], schedule: str) -> training.TrainState:
    """The latest training state of the members. schedule: that they were trained with, for a scheduled optimizer
    counts its steps. FileNotFoundError where none was saved."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise FileNotFoundError(f"no checkpoint in {workdir}: it has not been trained. `experiments.main` trains it.")
    template = training.init_state(model, training.make_optimizer(model, schedule=schedule, steps=1), seeds)
    kept = checkpoints.manager(folder)
    try:
        state = checkpoints.restore(kept, template)
    finally:
        kept.close()
    if state is None:
        raise FileNotFoundError(f"no checkpoint in {folder}: the run was stopped before it saved one.")
    return state


def evaluated(workdir: pathlib.Path, step: int) -> dict[int, dict[str, Any]]:
    """seed -> the record of the run's own evaluation; empty where it is of other parameters."""
    path = workdir / "results.json"
    if not path.exists():
        return {}
    results = json.loads(path.read_text())
    if results["training"]["steps"] != step:
        return {}
    return {member["seed"]: member for member in results["members"]}
