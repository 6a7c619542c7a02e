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
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from causalvae import _files, pretrained, sharding
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import write_bytes
from causalvae.runs import first_difference, flatten
from experiments import pipeline
from experiments.study import records
from experiments.study.planning import Group, Run
from experiments.study.store import Facts, settings_of

PyTree = Any
NAME = "weights.safetensors"
AGAIN = "delete it, and --stage=train --keep=weights makes it anew"
FACTS = {"step": int, "diverged": (int, type(None)), "device": str, "seconds": (int, float)}


def path_of(workdir: pathlib.Path, run: Run) -> pathlib.Path:
    return records.run_folder(workdir, run.id) / NAME


def are_kept(workdir: pathlib.Path, run: Run) -> bool:
    """Whether the weights of the run's last step are there.

    Raises:
        ValueError: for a file that is damaged, or of a run of other settings.
    """
    path = path_of(workdir, run)
    if not path.exists():
        return False
    facts, settings = _read(path)
    if difference := first_difference(flatten(settings), flatten(_settings(run))) if settings else None:
        raise ValueError(
            f"{path} is of a run of other settings: {difference}. Choose another --workdir, or delete its folder."
        )
    return facts.step >= run.config.training.steps


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
    """Keeps a run's weights and what they depend on; of one that diverged, only that it did.

    Raises:
        ValueError: where a weight is too large for half precision.
    """
    arrays = pretrained.pack(model, params) if facts.diverged is None else {}
    path = path_of(workdir, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"training": json.dumps(facts._asdict()), "settings": json.dumps(_settings(run))}
    write_bytes(path, safetensors.numpy.save(arrays, about))


def _settings(run: Run) -> dict[str, Any]:
    """What a run's training depends on but for its steps, of which the weights say how many they have."""
    settings = {name: value for name, value in settings_of(run.config).items() if name != "evaluation"}
    settings["training"] = {name: value for name, value in settings["training"].items() if name != "steps"}
    return settings


def read_facts(path: pathlib.Path) -> Facts:
    """Returns what a file of weights says of their training.

    Raises:
        DamagedFile: where it does not say.
    """
    return _read(path)[0]


def _read(path: pathlib.Path) -> tuple[Facts, dict[str, Any]]:
    """The facts of a file, and the settings that it is of."""
    with _files.reading(path, "file of a run's weights", AGAIN):
        with safetensors.safe_open(path, "numpy") as file:
            about = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
        found, settings = about["training"], about.get("settings", {})
    if misfit := _files.first_misfit({"facts": found, "settings": settings}, {"facts": FACTS, "settings": dict}):
        raise _files.DamagedFile(f"{path} is not a file of a run's weights: {misfit}; {AGAIN}")
    return Facts(**{name: found[name] for name in FACTS}), settings


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
