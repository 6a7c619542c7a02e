"""Make a shipped model of a finished run: half-precision weights, and a card with what those weights score.

    python -m experiments.main --config=configs/betatc_3dshapes.py:overnight
    python -m experiments.ship --workdir=runs/betatc_3dshapes_overnight
    python -m experiments.ship --workdir=runs/study_overnight --run=dsprites-vae-s0    # of a study

Writes causalvae/pretrained/<architecture>_<data set>.safetensors and .json. The run (its first member) is evaluated
anew with its weights as they are stored, by its own settings; a run of a study that keeps weights was evaluated so.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from absl import flags
from ml_collections import ConfigDict

from causalvae import evaluation, pretrained, runs, training
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import write_json
from causalvae.sites import no_tap
from experiments import cli, pipeline
from experiments.cli import Config
from experiments.study import records, trained, weights

CHECKED = 256  # images by which a test knows the model again
LARGEST_FILE = 1_600_000  # bytes


def main(argv: list[str]) -> None:
    if flags.FLAGS.workdir is None:
        cli.fail("--workdir is needed: the directory of a finished run, e.g. --workdir=runs/vae_dsprites_overnight")
    name = ship(pathlib.Path(flags.FLAGS.workdir), flags.FLAGS.name, run=flags.FLAGS.run)
    pipeline.say(f"shipped {name}: {(pretrained.FOLDER / name).with_suffix('.safetensors').stat().st_size:,} bytes")


def ship(
    workdir: pathlib.Path, name: str | None = None, folder: pathlib.Path = pretrained.FOLDER, run: str | None = None
) -> str:
    """Writes the weights and the card of a run's first member, or of a run of a study; returns the name.

    Raises:
        ValueError: where the run is not trained to its end, or the study has none of this name.
    """
    config, model, dataset, params = of_study(workdir, run) if run else of_run(workdir)
    record = kept_record(workdir, run) if run else None
    arrays = pretrained.pack(model, params)
    data = safetensors.numpy.save(arrays)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"the weights are {len(data):,} bytes; a shipped model has at most {LARGEST_FILE:,}")
    params = pretrained.unpack(model, arrays)
    name = name or f"{config.architecture.name}_{config.data.name}"
    settings = evaluation.Settings(**config.evaluation)
    scores = evaluated(config, model, dataset, settings, params) if record is None else record["scores"]
    about = describe(name, config, model, dataset, settings, scores, params)
    if record is not None:
        about |= {"versions": record["versions"], "device": record["device"]}
        about["training"]["device"] = record["training"]["device"]
    (folder / f"{name}.safetensors").write_bytes(data)
    write_json(folder / f"{name}.json", {**about, "sha256": hashlib.sha256(data).hexdigest()})
    return name


def of_run(workdir: pathlib.Path) -> tuple[Config, Architecture, Dataset, Any]:
    """Returns the configuration of a run, and its first member: (config, model, dataset, params)."""
    config = ConfigDict(runs.read_config(workdir))
    model, dataset, _ = pipeline.prepare(config)
    pipeline.check_trained(workdir, config.training.steps)
    state = runs.restore(model, workdir, pipeline.seeds(config), config.training.schedule)
    config.training.steps = int(state.step)  # perhaps more than was asked for last
    return config, model, dataset, training.member(state.params, 0)


def of_study(workdir: pathlib.Path, run_id: str) -> tuple[Config, Architecture, Dataset, Any]:
    """Returns the same of a run of a study."""
    group, run = trained.find(workdir, run_id)
    model, dataset, params, step = trained.restore(workdir, group, run)
    run.config.training.steps = step
    return run.config, model, dataset, params


def kept_record(workdir: pathlib.Path, run_id: str) -> dict[str, Any] | None:
    """Returns the record of a study's run that was evaluated with the half-precision weights that are kept of it."""
    _, run = trained.find(workdir, run_id)
    return records.read_record(workdir, run_id) if weights.are_kept(workdir, run) else None


def evaluated(
    config: Config, model: Architecture, dataset: Dataset, settings: evaluation.Settings, params: Any
) -> list[dict[str, Any]]:
    """Returns the scores of the stored weights."""
    untrained = training.member(training.initial_params(model, [config.seed]), 0)
    return [score._asdict() for score in evaluation.evaluate(model, params, dataset, settings, untrained).scores]


def describe(
    name: str,
    config: Config,
    model: Architecture,
    dataset: Dataset,
    settings: evaluation.Settings,
    scores: Sequence[Mapping[str, Any]],
    params: Any,
) -> dict[str, Any]:
    """The card of the stored weights but for their checksum."""
    kept = ("name", "value", "standard_error", "null", "ceiling", "estimator", "note")
    own = dict(config.training)
    return {
        "name": name,
        "architecture": dict(config.architecture),
        "image_shape": list(dataset.image_shape),
        "data": dataset.describe(),
        "training": {**own, "seed": config.seed, "images": own["steps"] * own["batch_size"]},
        "evaluation": settings._asdict(),
        "scores": [{field: score[field] for field in kept} for score in scores],
        "check": check(model, params, dataset),
        "versions": pipeline.versions(),
        "device": pipeline.device_name(),
        "licence": "Apache-2.0",
    }


def check(model: Architecture, params: Any, dataset: Dataset) -> dict[str, Any]:
    """A few numbers of fixed images, by which the weights are known again on any machine."""
    images = dataset.sample(jax.random.key(0), CHECKED)[1]
    image = model.forward(params, images, None, no_tap).image
    return {
        "images": CHECKED,
        "brightness": float(np.mean(images)),
        "mean_squared_error": float(np.mean(np.sum(np.square(image - images), axis=(1, 2, 3)))),
        "activity": np.asarray(model.activity(params, images)).tolist(),
    }


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The directory of a finished run, or of a study.")
    flags.DEFINE_string("run", None, "A run of the study in --workdir.")
    flags.DEFINE_string("name", None, "What to call the model. Default: <architecture>_<data set>.")
    cli.run(main)
