"""Doing one group of a study: its members are trained together, and each is evaluated and stored."""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae import evaluation, sharding, training
from causalvae._files import DamagedFile
from causalvae.data.base import Dataset
from causalvae.progress import read_json_lines
from experiments import pipeline
from experiments.slices import Clock
from experiments.study import planning, weights
from experiments.study.estimates import Pace, StudyProgress
from experiments.study.planning import Group, Run
from experiments.study.store import Facts, Store, failure, success

PyTree = Any


class Member(NamedTuple):
    """A run that is trained."""

    params: PyTree  # after `step` steps
    untrained: PyTree  # before the first
    facts: Facts


class Worker:
    """Does groups, one after the other, within a time limit."""

    def __init__(self, store: Store, pace: Pace, stage: str, clock: Clock, keep: str = "checkpoints"):
        """stage and clock: see slices.py; keep: of what is trained, see `plan.KEEP`."""
        self.store, self.pace, self.stage, self.clock, self.keep = store, pace, stage, clock, keep
        self.longest_evaluation = 0.0  # seconds
        self.begun = 0  # runs whose evaluation has begun

    def do(self, group: Group, pending: Sequence[Run]) -> None:
        """Trains a group's members together, then evaluates and stores the pending ones.

        An error becomes the record of the runs that it ended. Where memory is short, members are trained one by one.

        Raises:
            training.Stopped: for a signal or the time limit, with everything stored that was done.
        """
        dataset = planning.load_dataset(group.runs[0])
        try:
            member = self._trained(group, dataset)
        except (training.Stopped, OSError):  # a disk that is full, say, is no property of the runs
            raise
        except Exception as error:
            if out_of_memory(error) and len(group.runs) > 1:
                pipeline.say(f"{group.id}: out of memory with {len(group.runs)} members; training them one by one")
                for run in pending:
                    self.do(planning.make_group([run]), [run])
            else:
                self.store.add_failed(pending, dataset, error)
            return
        if self.stage == "train":
            return
        for run in pending[jax.process_index() :: jax.process_count()]:
            params, untrained, facts = member(run)
            if facts.diverged is None:
                self.evaluate(run, dataset, (params, untrained), facts)
            else:
                reason = f"the loss was not finite by step {facts.diverged}"
                self.store.add(run, dataset, failure(reason, facts.seconds), facts)
        sharding.wait_for_all(group.id)
        self.store.done.update(run.id for run in pending)

    def _trained(self, group: Group, dataset: Dataset) -> Callable[[Run], Member]:
        """Trains the group, unless its weights are kept, and returns what gives each of its runs."""
        workdir = self.store.workdir
        if not weights.all_kept(workdir, group):
            began = time.monotonic()
            trained, untrained, diverged, step = train(group, dataset, workdir, self.pace, self.clock)
            seconds = (time.monotonic() - began) / len(group.runs)

            def of_state(run: Run) -> Member:
                member = group.runs.index(run)
                facts = Facts(step, diverged[member], pipeline.device_name(), seconds)
                return Member(training.member(trained, member), training.member(untrained, member), facts)

            if self.keep == "checkpoints":
                return of_state
            weights.keep(workdir, group, dataset, of_state)

        def of_file(run: Run) -> Member:
            model = pipeline.create_model(run.config, dataset)
            kept = weights.read_facts(weights.path_of(workdir, run))
            params = weights.read(workdir, run, model) if kept.diverged is None else {}
            return Member(params, training.member(training.initial_params(model, [run.seed]), 0), kept)

        return of_file

    def evaluate(self, run: Run, dataset: Dataset, params: tuple[PyTree, PyTree], facts: Facts) -> None:
        """Measures one member and stores it. params: after training, and before."""
        self.clock.check(self.longest_evaluation, f"evaluating {run.id}")
        self.begun += 1
        number, left = f"{self.begun} of {self.pace.runs} runs to do", self.pace.left()
        pipeline.say(f"  evaluating {run.id} ({number}{f', {left} left' if left != '?' else ''})")
        began = time.monotonic()
        model = pipeline.create_model(run.config, dataset)
        settings = evaluation.Settings(**run.config.evaluation)
        try:
            found = evaluation.evaluate(model, params[0], dataset, settings, params[1])
        except OSError:
            raise
        except Exception as error:
            self.store.add_failed([run], dataset, error)
            return
        seconds = time.monotonic() - began
        self.longest_evaluation = max(self.longest_evaluation, seconds)
        self.store.add(run, dataset, success(found, facts.seconds, seconds), facts)


def train(
    group: Group, dataset: Dataset, workdir: pathlib.Path, pace: Pace, clock: Clock
) -> tuple[PyTree, PyTree, list[int | None], int]:
    """Trains the group's members, from their checkpoint where there is one.

    Returns:
        Their parameters [M, ...] after training and before, the logged step by which each one's loss was not finite, or
        None, and the step that training has reached.
    """
    structures = [planning.structure(run, dataset) for run in group.runs]
    model, names = structures[0][0], structures[0][1]
    seeds = [run.seed for run in group.runs]
    state = training.train(
        model,
        dataset,
        group.folder(workdir),
        seeds=seeds,
        hyper={name: np.array([hyper[name] for _, hyper in structures]) for name in names},
        stop_when_diverged=False,
        mesh=mesh_of(group),
        progress=functools.partial(StudyProgress, f"{group.dataset} {group.labels} ×{len(group.runs)}", pace),
        deadline=clock.deadline,
        **dict(group.config.training),
    )
    diverged = first_not_finite(group.folder(workdir) / "metrics.jsonl", len(group.runs))
    return state.params, training.initial_params(model, seeds), diverged, int(state.step)


def mesh_of(group: Group) -> Any:
    """Returns the mesh that trains a group, None for a single device. ValueError where several hosts cannot share
    it."""
    batch_size = group.config.training.batch_size
    mesh = sharding.make_mesh(len(group.runs), batch_size)
    if jax.process_count() > 1 and (mesh is None or mesh.size != jax.device_count()):
        raise ValueError(
            f"{group.id}: {len(group.runs)} members and batches of {batch_size} cannot be divided over "
            f"{jax.device_count()} devices; choose training.batch_size or the number of hosts to fit."
        )
    return mesh


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device or the machine had no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def first_not_finite(path: pathlib.Path, members: int) -> list[int | None]:
    """Returns for each member the first logged step whose mean loss is null, or None."""
    lines = read_json_lines(path)
    if any(len(line.get("loss", ())) != members for line in lines):
        raise DamagedFile(f"{path} has lines that are not of {members} members; move it away")
    return [next((line["step"] for line in lines if line["loss"][m] is None), None) for m in range(members)]
