"""The explorers of a finished run: its members restored, explored and written as pages."""

from __future__ import annotations

import pathlib
from typing import Any

from ml_collections import ConfigDict

from causalvae import runs, training
from experiments import pipeline
from experiments.explorer import page


def write(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The pages of every member of a run; ValueError or FileNotFoundError where there is nothing to restore."""
    config = ConfigDict(runs.read_config(workdir))
    model, dataset, settings = pipeline.prepare(config)
    seeds = pipeline.seeds(config)
    if config.pretrained:
        trained, step = pipeline.shipped_params(config, dataset)
    else:
        state = runs.restore(model, workdir, seeds, config.training.schedule)
        trained, step = state.params, int(state.step)
    known = evaluated(workdir, step)
    paths = []
    for m, seed in enumerate(seeds):
        params = training.member(trained, m)
        shown = pipeline.explore(config, model, dataset, settings, params, seed, step, known.get(seed))
        paths.append(page.write(workdir / f"explorer{pipeline.member_suffix(config, seed)}.html", shown))
    return paths


def evaluated(workdir: pathlib.Path, step: int) -> dict[int, dict[str, Any]]:
    """seed -> the record of the run's own evaluation; empty where it is of other parameters."""
    path = workdir / "results.json"
    if not path.exists():
        return {}
    results = runs.read_results(workdir)
    if results["training"]["steps"] != step:
        return {}
    return {member["seed"]: member for member in results["members"]}
