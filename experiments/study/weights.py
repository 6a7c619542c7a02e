"""The final weights of a study's runs, in half precision: what is kept of a machine that is lent for an hour.

<workdir>/runs/<run>/weights.safetensors    encoder and decoder, and what the training was, as the file's metadata

A study with --keep=weights writes them as soon as a group is trained, and lets its checkpoints go, which are forty
times as large. Runs are then evaluated from these files alone, on any machine: a run's results are those of the
weights that are kept, as a shipped model's are.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from causalvae import _files, pretrained, sharding
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import write_bytes
from experiments import pipeline
from experiments.study import records
from experiments.study.planning import Group, Run

PyTree = Any
NAME = "weights.safetensors"
AGAIN = "delete it, and --stage=train makes it anew"
FACTS = {"step": int, "diverged": (int, type(None)), "device": str, "seconds": (int, float)}


class Facts(NamedTuple):
    """What is known of a run's training."""

    step: int  # that it has reached
    diverged: int | None  # the first logged step by which the loss was not finite; then there are no weights
    device: str  # that trained it
    seconds: float  # a member's share of its group's training


def path_of(workdir: pathlib.Path, run: Run) -> pathlib.Path:
    return records.run_folder(workdir, run.id) / NAME


def are_kept(workdir: pathlib.Path, run: Run) -> bool:
    """Whether the weights of the run's last step are there. ValueError for a file that is damaged."""
    path = path_of(workdir, run)
    return path.exists() and read_facts(path).step >= run.config.training.steps


def all_kept(workdir: pathlib.Path, group: Group) -> bool:
    return all(are_kept(workdir, run) for run in group.runs)


def keep(workdir: pathlib.Path, group: Group, dataset: Dataset, member: Callable[[Run], Any]) -> None:
    """Writes the weights of a trained group, by the first process, and lets its checkpoints go.

    What is kept already stays as it is, since results may be of it.

    Args:
        workdir: the study's.
        group: whose runs are trained.
        dataset: what on.
        member: gives a run's (params, untrained, facts).
    """
    if sharding.is_first_process():
        for run in (run for run in group.runs if not are_kept(workdir, run)):  # another group may have trained it
            params, _, facts = member(run)
            write(workdir, run, pipeline.create_model(run.config, dataset), params, facts)
        shutil.rmtree(group.folder(workdir) / "checkpoints", ignore_errors=True)  # the training curves stay
    sharding.wait_for_all(f"{group.id} weights")


def write(workdir: pathlib.Path, run: Run, model: Architecture, params: PyTree, facts: Facts) -> None:
    """Keeps a run's weights; of one that diverged, only that it did.

    Raises:
        ValueError: where a weight is too large for half precision.
    """
    arrays = pretrained.pack(model, params) if facts.diverged is None else {}
    path = path_of(workdir, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, safetensors.numpy.save(arrays, {"training": json.dumps(facts._asdict())}))


def read_facts(path: pathlib.Path) -> Facts:
    """Returns what a file of weights says of their training.

    Raises:
        DamagedFile: where it does not say.
    """
    with _files.reading(path, "file of a run's weights", AGAIN):
        with safetensors.safe_open(path, "numpy") as file:
            found = json.loads((file.metadata() or {})["training"])
    if misfit := _files.first_misfit(found, FACTS):
        raise _files.DamagedFile(f"{path} is not a file of a run's weights: {misfit}; {AGAIN}")
    return Facts(**{name: found[name] for name in FACTS})


def read(workdir: pathlib.Path, run: Run, model: Architecture) -> PyTree:
    """Returns the kept parameters of a run, float32.

    Raises:
        DamagedFile: where they are not those of the model.
    """
    path = path_of(workdir, run)
    with _files.reading(path, "file of a run's weights", AGAIN):
        arrays = safetensors.numpy.load(path.read_bytes())
        params = pretrained.unpack(model, arrays)
    damaged = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if damaged:
        raise _files.DamagedFile(f"{path} is damaged: {damaged[0]} is not finite; {AGAIN}")
    return params
