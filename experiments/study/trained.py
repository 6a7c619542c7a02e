"""The trained models of a study: parameters of a run, from its kept weights or its group's checkpoint."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from causalvae import runs, training
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from experiments import pipeline
from experiments.study import planning, records, weights
from experiments.study.planning import Group, Run

PyTree = Any


class Trained(NamedTuple):
    """A run's model as it is kept."""

    model: Architecture
    dataset: Dataset
    params: PyTree
    step: int


def find(workdir: pathlib.Path, run_id: str) -> tuple[Group, Run]:
    """Returns an evaluated run of a study's directory and the group that it was trained with.

    Raises:
        ValueError: where no such run, or not all of its group, is evaluated there; names those that are.
    """
    record = records.read_record(workdir, run_id)
    run = None if record is None else _run(record)
    if run is not None and weights.are_kept(workdir, run):
        return planning.make_group([run]), run
    for name, members in planning.known_groups(workdir / "groups.json").items():
        if run_id in members:
            stored = [records.read_record(workdir, member) for member in members]
            missing = [member for member, record in zip(members, stored) if record is None]
            if missing:
                raise ValueError(f"{workdir}: {', '.join(missing)} is not evaluated yet; --stage=evaluate does that")
            group = Group(name, tuple(_run(record) for record in stored if record is not None))
            return group, group.runs[members.index(run_id)]
    there = sorted(path.parent.name for path in (workdir / "runs").glob("*/record.json"))
    raise ValueError(f"no run {run_id!r} in {workdir}; there are: {', '.join(there) or 'none'}")


def _run(record: dict[str, Any]) -> Run:
    names = record["run"], record["architecture"]["name"], record["variant"], record["data"]["name"], record["seed"]
    return Run(*names, config=ConfigDict(runs.complete(record["config"])))


def restore(workdir: pathlib.Path, group: Group, run: Run) -> Trained:
    """Returns the model of a run of the group.

    Raises:
        FileNotFoundError: where neither the run's weights are kept nor the group has a checkpoint.
    """
    if weights.are_kept(workdir, run):
        dataset = planning.load_dataset(run)
        model, facts = pipeline.create_model(run.config, dataset), weights.read_facts(weights.path_of(workdir, run))
        return Trained(model, dataset, weights.read(workdir, run, model), facts.step)
    alone = planning.make_group([run])  # where memory was short
    if not (group.folder(workdir) / "checkpoints").is_dir() and alone.folder(workdir).is_dir():
        group = alone
    dataset = planning.load_dataset(run)
    shared = planning.structure(group.runs[0], dataset)[0]
    seeds = [member.seed for member in group.runs]
    state = runs.restore(shared, group.folder(workdir), seeds, run.config.training.schedule)
    params = training.member(state.params, group.runs.index(run))
    return Trained(pipeline.create_model(run.config, dataset), dataset, params, int(state.step))
