"""A run as calls: train by a configuration, and load what a folder holds.

    run = causalvae.train({"architecture": {"name": "betatc"}, "data": {"name": "dsprites"}}, "runs/mine")
    found = causalvae.evaluate(run.model, run.params, run.dataset)
    model, params, dataset, config, results = causalvae.load("runs/mine")

The folder is that of `experiments.main`: each goes on from what the other has left.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from causalvae import _files, architectures, checkpoints, data, locks, pretrained, schema, training
from causalvae.architectures import Architecture
from causalvae.data import arrays
from causalvae.data.base import Dataset
from causalvae.progress import write_json

# What may differ between a run and its continuation.
RUN_ONLY = ("steps", "log_every", "checkpoint_every", "tensorboard", "callbacks")
DEFAULTS: dict[str, Any] = schema.defaults()  # what a configuration need not say
SECTIONS = ("architecture", "data", "training", "evaluation")
CONFIG = "configuration of a run"
WRITTEN = {"architecture": {"name": str}, "data": {"name": str}, "training": dict, "evaluation?": dict}  # always
MOST_MEMBERS = 2**16  # of one run; a damaged file may say more


class Trained(NamedTuple):
    """A trained model with what it was trained on."""

    model: Architecture
    params: Any  # of one member, without a member axis
    dataset: Dataset
    config: dict[str, Any]  # what config.json holds
    results: dict[str, Any] | None  # what results.json holds; None before an evaluation


def load(workdir: str | pathlib.Path, seed: int | None = None) -> Trained:
    """Loads a run of `experiments.main` or of `train`.

    Args:
      workdir: its folder.
      seed: of the member, where several were trained together; None for the first.

    Returns:
      The model and the parameters of its latest checkpoint.

    Raises:
      FileNotFoundError: where there is no run, or no checkpoint yet.
      ValueError: where the run has no such member, or its files are damaged.
    """
    workdir = pathlib.Path(workdir)
    config = read_config(workdir)
    members = member_seeds(config)
    if seed is not None and seed not in members:
        raise ValueError(f"{workdir} has no member with seed {seed}; it has {', '.join(map(str, members))}")
    dataset = load_dataset(config)
    model = create_model(config, dataset)
    if config["pretrained"]:
        params = pretrained.load_pretrained(config["pretrained"])[1]
    else:
        state = restore(model, workdir, members, config["training"]["schedule"])
        params = training.member(state.params, 0 if seed is None else members.index(seed))
    results = read_results(workdir) if (workdir / "results.json").exists() else None
    return Trained(model, params, dataset, config, results)


def train(
    config: Mapping[str, Any],
    workdir: str | pathlib.Path,
    deadline: float = math.inf,
    *,
    callbacks: Sequence[Callable[[int, Mapping[str, float]], Any]] = (),
) -> Trained:
    """Trains by a configuration, from the latest checkpoint in `workdir` where there is one.

    Args:
      config: sections "architecture", "data" and "training", and "seed" (of the first member) and "seeds" (how many);
        docs/settings.md lists them. What is not said has its default.
      workdir: where config.json, metrics.jsonl and checkpoints/ go.
      deadline: on `time.monotonic()`'s clock, when there must be nothing left to do.
      callbacks: called as (step, metrics) with every line of metrics.jsonl, see `training.train`; beside those that
        the configuration names.

    Returns:
      The run with the parameters of its first member. `load(workdir, seed)` gives another's.

    Raises:
      ValueError: for settings out of range, and where `workdir` holds a run of another configuration.
      training.TrainingError: where a loss is no longer finite, or training was asked to stop.
    """
    whole = complete(config)
    schema.check(whole)
    if whole["pretrained"]:
        raise ValueError(f"the shipped model {whole['pretrained']} is trained: load it with causalvae.load_pretrained")
    dataset = load_dataset(whole)
    model = create_model(whole, dataset)
    seeds = member_seeds(whole)
    told = [*training.resolve_callbacks(whole["training"]["callbacks"]), *training.resolve_callbacks(callbacks)]
    settings = whole["training"] | {"deadline": deadline, "callbacks": told}
    with locks.hold(workdir):
        workdir = claim_workdir(workdir, whole, dataset)
        state = training.train(model, dataset, workdir, seeds=seeds, **settings)
    return Trained(model, training.member(state.params, 0), dataset, read_config(workdir), None)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration as plain dictionaries, with what it does not say from `DEFAULTS`."""
    given = {name: dict(value) if isinstance(value, Mapping) else value for name, value in config.items()}
    sections = {name: {**default, **given.get(name, {})} for name, default in DEFAULTS.items() if name in SECTIONS}
    return {**DEFAULTS, **given, **sections}


def load_dataset(config: Mapping[str, Any]) -> Dataset:
    """Returns the data set of a configuration."""
    section = config["data"]
    # Where images live is a question for stored sets only; left to their reader unless it is asked for.
    options = {} if section["residency"] == "auto" else {"residency": section["residency"]}
    if options and not data.is_real(section["name"], section["source"], section["dir"] or None):
        raise ValueError(
            f"data.residency is {section['residency']!r}, but {section['name']} is not read from prepared files here: "
            "leave it at 'auto'"
        )
    options |= {"resize": section["resize"]} if section.get("resize") else {}
    options |= {"bins": parse_bins(section["bins"])} if section.get("bins") else {}
    dataset = data.load(section["name"], source=section["source"], data_dir=section["dir"] or None, **options)
    return arrays.check_content(dataset, section.get("sha256"))


def parse_bins(bins: str | Mapping[str, int]) -> dict[str, int]:
    """Returns factor -> number of bins of "x:8,y:4", or of such a mapping.

    Raises:
      ValueError: for another text.
    """
    if isinstance(bins, Mapping):
        return dict(bins)
    parts = [part.strip().rpartition(":") for part in bins.split(",")]
    if not all(name and number.strip().isdecimal() for name, _, number in parts):
        raise ValueError(f"data.bins is factor:number, …, such as x:8,y:4, not {bins!r}")
    return {name.strip(): int(number) for name, _, number in parts}


def create_model(config: Mapping[str, Any], dataset: Dataset) -> Architecture:
    """Returns the architecture of a configuration for the data set's images."""
    options = dict(config["architecture"])
    return architectures.create(options.pop("name"), image_shape=dataset.image_shape, **options)


def member_seeds(config: Mapping[str, Any]) -> list[int]:
    """Returns the members' seeds, counting up from that of the first."""
    return [config["seed"] + i for i in range(config["seeds"])]


def restore(model: Architecture, workdir: pathlib.Path, seeds: list[int], schedule: str) -> training.TrainState:
    """Returns the latest training state of a run's members.

    Args:
      model: as it was trained.
      workdir: the run's folder.
      seeds: of the members.
      schedule: of the learning rate, for a scheduled optimizer counts its steps.

    Raises:
      FileNotFoundError: where no state was saved.
    """
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no checkpoint in {workdir}: it has not been trained. `python -m causalvae run` trains it."
        )
    optimizer = training.make_optimizer(model, schedule=schedule, steps=1)
    template = jax.eval_shape(lambda: training.init_state(model, optimizer, seeds))
    kept = checkpoints.manager(folder)
    try:
        state = checkpoints.restore(kept, template)
    finally:
        kept.close()
    if state is None:
        raise FileNotFoundError(f"no checkpoint in {folder}: the run was stopped before it saved one.")
    return state


# --- config.json -----------------------------------------------------------------------------------------


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the configuration of a run.

    Raises:
      FileNotFoundError: where the folder holds none.
      ValueError: where config.json is not one.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"no run in {workdir}: no {path.name}. `python -m causalvae run` makes one.")
    stored = _stored_config(path)
    stored["data"].pop("factors", None)
    return stored


def _stored_config(path: pathlib.Path) -> dict[str, Any]:
    """What a config.json holds, completed: an older version may have had fewer settings."""
    mend = "restore it, or choose another --workdir"
    config = complete(_files.read_json(path, CONFIG, WRITTEN, mend))
    settings = {name: {key: _kinds(value) for key, value in DEFAULTS[name].items()} for name in SECTIONS}
    shape = settings | {name: _kinds(value) for name, value in DEFAULTS.items() if name not in SECTIONS}
    misfit = _files.first_misfit(config, shape) or _odd_setting(config)
    if misfit:
        raise _files.DamagedFile(f"{path} is not a {CONFIG}: {misfit}; {mend}")
    return config


def _kinds(default: Any) -> tuple[type, ...]:
    """The types that a setting may have: those of its default, and of what may be given in their place."""
    more = {float: (int,), str: (int, list, type(None))}
    return (type(default), *more.get(type(default), ()))


def _odd_setting(config: Mapping[str, Any]) -> str | None:
    """What is wrong with a configuration whose types are right, or None."""
    known = {f"{name}.{key}" for name in ("training", "evaluation") for key in DEFAULTS[name]}
    for name, value in flatten(config).items():
        if name.partition(".")[0] in ("training", "evaluation") and name not in known:
            return f"{name} is no setting of this version"
        if isinstance(value, int) and not -(2**31) <= value < 2**32:
            return f"{name} is {value}"
    return None if 1 <= config["seeds"] <= MOST_MEMBERS else f"seeds is {config['seeds']}"


RESULTS = {
    "architecture": dict,
    "data": {"name": str, "source": str},
    "training": {"steps": int},
    "device": str,
    "members": [{"seed": int, "scores": [{"name": str, "value": _files.NUMBER}], "latents?": dict}],
}


def read_results(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what a run's results.json holds.

    Raises:
      FileNotFoundError: where there is none.
      ValueError: where it is damaged.
    """
    mend = "`python -m causalvae run` writes it anew where it is deleted"
    return _files.read_json(workdir / "results.json", "file of a run's results", RESULTS, mend)


def claim_workdir(workdir: str | pathlib.Path, config: Mapping[str, Any], dataset: Dataset) -> pathlib.Path:
    """Creates `workdir` and writes config.json there, or checks that it holds a run of the same configuration.

    Returns:
      The folder's absolute path.

    Raises:
      ValueError: names the first setting that differs.
      OSError: where the folder cannot be written.
    """
    workdir = pathlib.Path(workdir).resolve()
    wanted = complete(config)
    wanted["data"].update(
        source=dataset.source,
        dir=str(config["data"]["dir"]),
        factors=dict(dataset.describe()["factors"]),
        **arrays.content(dataset),
    )
    wanted = json.loads(json.dumps(wanted))
    path = workdir / "config.json"
    if path.exists():
        difference = first_difference(_identity(_stored_config(path)), _identity(wanted))
        if difference:
            raise ValueError(
                f"{workdir} holds a run of another configuration: {difference}. "
                "Choose another --workdir, or delete this one."
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
    except OSError as error:
        raise OSError(
            f"workdir {workdir} cannot be written ({error.strerror}); choose another with --workdir"
        ) from error
    return workdir


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that a continued run must share with the one that it goes on from."""
    flat = {key: value for key, value in flatten(config).items() if not key.startswith("evaluation.")}
    ignored = {f"training.{name}" for name in RUN_ONLY} | {"data.dir", "data.residency"}
    if flat["training.schedule"] != "constant":
        ignored.remove("training.steps")  # the rate of every step depends on it
    return {key: value for key, value in flat.items() if key not in ignored}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns 'a.b' -> value of every leaf of a nested mapping."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def first_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Returns 'key is a there and b here' for the first key in which two flat mappings differ, or None."""
    for key in sorted({*found, *wanted}, key=lambda key: (not key.endswith("name"), key)):  # names tell most
        if found.get(key) != wanted.get(key):
            return f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} here"
    return None
