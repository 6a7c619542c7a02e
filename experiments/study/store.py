"""The runs of a study that are stored: which they are, and how one is added."""

from __future__ import annotations

import json
import pathlib
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae import evaluation, networks, sharding
from causalvae.data.base import Dataset
from causalvae.progress import finite, write_text, writing
from causalvae.runs import complete, first_difference, flatten
from experiments import pipeline
from experiments.cli import Config
from experiments.study import records
from experiments.study.planning import Run

LATENTS_SHOWN = 2  # whose traversals are stored: so many of the most and of the least specific
IMAGES_SHOWN = 8


class Facts(NamedTuple):
    """What is known of a run's training."""

    step: int  # that it has reached
    diverged: int | None  # the first logged step by which the loss was not finite
    device: str  # that trained it
    seconds: float  # a member's share of its group's training


class Result(NamedTuple):
    """What became of a run."""

    fields: dict[str, Any]  # of its record
    images: dict[str, np.ndarray]
    training_s: float
    evaluation_s: float = 0.0


def failure(reason: str, training_s: float = 0.0) -> Result:
    """Returns the result of a run that came to nothing."""
    return Result({"status": records.FAILED, "reason": reason}, {}, training_s)


def success(found: evaluation.Evaluation, training_s: float, evaluation_s: float) -> Result:
    """Returns the result of a run that was evaluated."""
    fields = {"status": records.DONE, "reason": "", **evaluation.record(found)}
    return Result(fields, images_of(found), training_s, evaluation_s)


class Store:
    """The stored runs of a study's directory."""

    def __init__(self, workdir: pathlib.Path, runs: Sequence[Run], retry: bool = False):
        """Looks up which of the runs are stored.

        Args:
            workdir: the study's directory.
            runs: all of its configuration, in the order of the table.
            retry: whether runs that are recorded as failed count as not stored.

        Raises:
            ValueError: where a run was made with other settings.
        """
        self.workdir, self.runs = workdir, runs
        self.done = {run.id for run in runs if self._is_stored(run, retry)}

    def _is_stored(self, run: Run, retry: bool) -> bool:
        record = records.read_record(self.workdir, run.id)
        if record is None or (retry and record["status"] == records.FAILED):
            return False
        difference = first_difference(flatten(lasting(record["config"])), flatten(settings_of(run.config)))
        if difference:
            raise ValueError(
                f"{self.workdir} holds a run {run.id} of other settings: {difference}. Choose another --workdir, "
                "or delete that run's folder."
            )
        return True

    def add(self, run: Run, dataset: Dataset, result: Result, facts: Facts | None = None) -> None:
        """Writes the run's record and counts it as done. facts: of its training, where it was trained."""
        model = pipeline.create_model(run.config, dataset)
        parameters = networks.parameter_count(jax.eval_shape(model.init, jax.random.key(0)))
        trained = {"steps": facts.step, "device": facts.device} if facts else {}
        record = {
            "run": run.id,
            "label": run.label,
            "variant": run.variant,
            "seed": run.seed,
            "architecture": {**dict(run.config.architecture), "latents": model.latents, "parameters": int(parameters)},
            "data": dataset.describe(),
            "training": {**run.config.training, **trained},
            "evaluation": dict(run.config.evaluation),
            "config": settings_of(run.config),
            "versions": pipeline.versions(),
            "device": pipeline.device_name(),
            **result.fields,
        }
        seconds = {"training_s": result.training_s, "evaluation_s": result.evaluation_s}
        records.write_record(self.workdir, record, result.images, seconds)
        self.done.add(run.id)

    def add_failed(self, runs: Iterable[Run], dataset: Dataset, error: Exception) -> None:
        """Records an error as the reason of every run that it ended; its traceback goes beside the record."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        pipeline.say(f"  failed: {reason}")
        for run in runs:
            folder = records.run_folder(self.workdir, run.id)
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "traceback.txt", "".join(traceback.format_exception(error)))
            self.add(run, dataset, failure(reason))

    def read(self, runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
        """Returns run -> record of those of the runs that are stored."""
        found = {run.id: records.read_record(self.workdir, run.id) for run in runs if run.id in self.done}
        return {name: record for name, record in found.items() if record is not None}

    def write_table(self) -> None:
        """Writes the table of every stored run, in the order of the plan."""
        stored = self.read(self.runs)
        if stored and sharding.is_first_process():
            records.write_table(self.workdir, records.tabulate(stored.values()))
            records.write_times(self.workdir, list(stored))


def settings_of(config: Config) -> dict[str, Any]:
    """Returns what a run's results depend on, JSON-able."""
    return finite(lasting(json.loads(config.to_json_best_effort())))


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a stored configuration without what results do not depend on, and with the defaults of what it lacks."""
    kept = complete(config)
    own = ("resize", "bins")  # of images of one's own, where they are said
    kept["data"] = {k: v for k, v in kept["data"].items() if k in ("name", "source") or (k in own and v)}
    watched = ("log_every", "checkpoint_every", "tensorboard", "callbacks")  # how training is watched, not what it does
    kept["training"] = {k: v for k, v in kept["training"].items() if k not in watched}
    return kept


def images_of(found: evaluation.Evaluation) -> dict[str, np.ndarray]:
    """Returns what the report shows of a run, as uint8: a few images, their reconstructions, and the traversals of the
    most and the least specific of the active latents (to factors where known, else over outputs)."""
    specificity = np.asarray(found.latents.specificity_to_factors)
    if not np.isfinite(specificity).any():
        specificity = np.asarray(found.latents.specificity_outputs)
    usable = np.flatnonzero(np.asarray(found.latents.active) & np.isfinite(specificity))
    order = usable[np.argsort(-specificity[usable], kind="stable")]
    least = order[::-1][: min(LATENTS_SHOWN, max(0, len(order) - LATENTS_SHOWN))]
    shown = np.concatenate([order[:LATENTS_SHOWN], least]).astype(int)

    def pixels(images):
        return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)

    return {
        "images": pixels(found.images[:IMAGES_SHOWN]),
        "reconstructed": pixels(found.reconstructed[:IMAGES_SHOWN]),
        "latents": shown,
        "specificity": specificity[shown],
        "traversals": pixels(found.traversals[shown]),
    }
