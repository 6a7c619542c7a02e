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
from collections.abc import Mapping
from typing import Any, NamedTuple

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
    source = of_study(workdir, run) if run else of_run(workdir)
    model = source.model
    arrays = pretrained.pack(model, source.params)
    data = safetensors.numpy.save(arrays)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"the weights are {len(data):,} bytes; a shipped model has at most {LARGEST_FILE:,}")
    source = source._replace(params=pretrained.unpack(model, arrays))
    name = name or f"{source.config.architecture.name}_{source.config.data.name}"
    about = {
        "name": name,
        **describe(source),
        **(measured(source) if source.record is None else recorded(source.record)),
    }
    (folder / f"{name}.safetensors").write_bytes(data)
    write_json(folder / f"{name}.json", {**about, "sha256": hashlib.sha256(data).hexdigest()})
    return name


class Source(NamedTuple):
    """What is shipped."""

    config: Config
    model: Architecture
    dataset: Dataset
    params: Any
    record: dict[str, Any] | None = None  # of the evaluation of these weights in half precision, where there was one


def of_run(workdir: pathlib.Path) -> Source:
    """Returns a run's first member."""
    config = ConfigDict(runs.read_config(workdir))
    model, dataset, _ = pipeline.prepare(config)
    pipeline.check_trained(workdir, config.training.steps)
    state = runs.restore(model, workdir, pipeline.seeds(config), config.training.schedule)
    config.training.steps = int(state.step)  # perhaps more than was asked for last
    return Source(config, model, dataset, training.member(state.params, 0))


def of_study(workdir: pathlib.Path, run_id: str) -> Source:
    """Returns a run of a study."""
    group, run = trained.find(workdir, run_id)
    model, dataset, params, step = trained.restore(workdir, group, run)
    record = records.read_record(workdir, run_id) if weights.are_kept(workdir, run) else None
    run.config.training.steps = step
    return Source(run.config, model, dataset, params, record)


SCORE = ("name", "value", "standard_error", "null", "ceiling", "estimator", "note")  # what a card keeps of one


def measured(source: Source) -> dict[str, Any]:
    """Evaluates the weights as they are stored; returns what the card says of that."""
    config, model = source.config, source.model
    untrained = training.member(training.initial_params(model, [config.seed]), 0)
    settings = evaluation.Settings(**config.evaluation)
    found = evaluation.evaluate(model, source.params, source.dataset, settings, untrained)
    scores = [score._asdict() for score in found.scores]
    return recorded({"scores": scores, "versions": pipeline.versions(), "device": pipeline.device_name()})


def recorded(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the card says of an evaluation."""
    scores = [{field: score[field] for field in SCORE} for score in record["scores"]]
    return {"scores": scores, "versions": record["versions"], "device": record["device"]}


def describe(source: Source) -> dict[str, Any]:
    """The card of the stored weights but for its name, their scores and their checksum."""
    config, own = source.config, dict(source.config.training)
    own |= {"seed": config.seed, "images": own["steps"] * own["batch_size"]}
    own |= {"device": source.record["training"]["device"]} if source.record else {}
    return {
        "architecture": dict(config.architecture),
        "image_shape": list(source.dataset.image_shape),
        "data": source.dataset.describe(),
        "training": own,
        "evaluation": evaluation.Settings(**config.evaluation)._asdict(),
        "check": check(source.model, source.params, source.dataset),
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
