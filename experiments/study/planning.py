"""The runs of a study, and which of them train as one program.

Runs of one data set whose architectures have the same loss function (the seeds of one; VAE and beta-VAE) are
members of one ensemble.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from causalvae import architectures, data, schema, sharding
from causalvae._files import read_json
from causalvae._words import nearest
from causalvae.architectures import Architecture
from causalvae.data import arrays, folders
from causalvae.data.base import Dataset
from causalvae.progress import write_json
from configs.common import ARCHITECTURES, config_for
from experiments import pipeline
from experiments.cli import Config

LONGEST = 200  # bytes of a run's name, which is its folder's


class Run(NamedTuple):
    """One member of the study. `id` is its folder's name."""

    id: str
    architecture: str
    variant: str  # "" or what distinguishes it, e.g. "beta=4"
    dataset: str
    seed: int
    config: Config  # as experiments.main would take it, with one seed

    @property
    def label(self) -> str:
        return f"{self.architecture} ({self.variant})" if self.variant else self.architecture


class Group(NamedTuple):
    """Runs that train as one program. `id` is its folder's name."""

    id: str
    runs: tuple[Run, ...]

    @property
    def dataset(self) -> str:
        return self.runs[0].dataset

    @property
    def config(self) -> Config:
        """What the runs share, data, training and evaluation: the first one's configuration."""
        return self.runs[0].config

    @property
    def labels(self) -> str:
        return "+".join(dict.fromkeys(run.label for run in self.runs))

    def folder(self, workdir: pathlib.Path) -> pathlib.Path:
        return workdir / "groups" / self.id


# --- runs ------------------------------------------------------------------------------------------------


def list_runs(config: Config) -> list[Run]:
    """Returns every run of the study, data set by data set, then architecture, variant and seed.

    Raises:
        ValueError: for names that do not exist, and for a grid that is none.
    """
    schema.check(config.to_dict(), schema.STUDY)
    grid = parse_grid(config.grid)
    names = split(config.architectures, ARCHITECTURES, "architecture")
    known = list_datasets(config.datasets, config.data.dir)
    unused = set(grid) - set(names)
    if unused:
        raise ValueError(f"grid: {', '.join(sorted(unused))} is not among the architectures {', '.join(names)}")
    runs = [
        make_run(config, dataset, name, options, config.seed + s)
        for dataset in known
        for name in names
        for options in grid.get(name, [{}])
        for s in range(config.seeds)
    ]
    check_identities(runs)
    return runs


def check_identities(runs: Sequence[Run]) -> None:
    """ValueError where two runs have one name, or are one run under two; and for a name that no folder can have."""
    names: set[str] = set()
    known: dict[str, str] = {}
    for run in runs:
        if run.id in names:
            raise ValueError(f"two runs of the study are named {run.id}: name each value once")
        if re.search(r"[/\\\0]", run.id) or len(run.id.encode()) > LONGEST:
            raise ValueError(f"no folder can have the name of run {run.id!r}: choose shorter, plain values in the grid")
        names.add(run.id)
        content = json.dumps(json.loads(run.config.to_json_best_effort(), parse_int=float), sort_keys=True)
        if known.setdefault(content, run.id) != run.id:
            raise ValueError(f"runs {known[content]} and {run.id} are the same: name each value once")


def list_datasets(text: str, folder: str = "") -> list[str]:
    """Returns the data sets in a list separated by commas: names of `DATASETS`, or whole paths of images of one's own,
    which may be given from `folder` on.

    Raises:
        ValueError: for one that does not exist, and for two that would be called the same.
        FileNotFoundError: where nothing is at a path.
    """
    found: dict[str, str] = {}
    for name in (name.strip() for name in text.split(",") if name.strip()):
        path = None if name in data.DATASETS else folders.find(name, folder or None)
        known = [*data.DATASETS, "or the path of an .npz file or of a folder"]
        whole = split(name, known, "data set")[0] if path is None else str(path.resolve())
        if found.setdefault(dataset_name(whole), whole) != whole:
            raise ValueError(f"two data sets would be called {dataset_name(whole)!r}: rename {whole}")
    return list(found.values()) or split("", data.DATASETS, "data set")


def dataset_name(dataset: str) -> str:
    """Returns what a data set is called in results: its name, or that of its file or folder."""
    path = pathlib.Path(dataset)
    return dataset if dataset in data.DATASETS else path.stem if path.suffix == ".npz" else path.name


def choose_runs(runs: Sequence[Run], only: str = "", datasets: str = "") -> list[Run]:
    """Returns the runs of some architectures and data sets, each a list separated by commas; "" is all of them."""
    names = list(dict.fromkeys(run.architecture for run in runs))
    sets = list(dict.fromkeys(run.dataset for run in runs))
    names = split(only, names, "architecture of this study") if only else names
    sets = split(datasets, sets, "data set of this study") if datasets else sets
    return [run for run in runs if run.architecture in names and run.dataset in sets]


def split(text: str, known: Iterable[str], what: str) -> list[str]:
    """Returns the names in a list separated by commas; ValueError for one that is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ValueError(f"no {what} {name!r}; there are: {', '.join(known)}.{nearest(name, known)}")
    if not names:
        raise ValueError(f"no {what} is named; there are: {', '.join(known)}")
    return list(dict.fromkeys(names))


def parse_grid(text: str) -> dict[str, list[dict[str, Any]]]:
    """'beta.beta: 1 4; factor.gamma: 10' -> architecture -> every combination of its options' values. Options joined by
    a plus sign, 'dip2.lambda_offdiagonal+lambda_diagonal: 1 5', have the same value."""
    values: dict[str, dict[str, list[Any]]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, listed = part.partition(":")
        architecture, dot, option = name.strip().partition(".")
        if not (dot and option and listed.split()):
            raise ValueError(f"grid: {part!r} is not 'architecture.option: value value …'")
        if option in values.setdefault(architecture, {}):
            raise ValueError(f"grid: {name.strip()} stands there twice; name its values once: '{name.strip()}: …'")
        values[architecture][option] = _unique(_value(word) for word in listed.split())
    return {
        architecture: [_untied(options, combination) for combination in itertools.product(*options.values())]
        for architecture, options in values.items()
    }


def _untied(options: Iterable[str], values: Sequence[Any]) -> dict[str, Any]:
    return {name: value for tied, value in zip(options, values) for name in tied.split("+")}


def _unique(values: Iterable[Any]) -> list[Any]:
    """The values, each once: 4 and 4.0 are the same, 1 and true are not."""
    kept: list[Any] = []
    for value in values:
        if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in kept):
            kept.append(value)
    return kept


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return word


def make_run(config: Config, dataset: str, architecture: str, options: dict[str, Any], seed: int) -> Run:
    """Returns a run with a configuration of its own: the study's settings over the architecture's. dataset: one of
    `list_datasets`.

    Options that say what is so by default make no variant, so that a grid shares its runs with the study without one.
    """
    schema.check({"architecture": {"name": architecture, **options}})  # a ConfigDict refuses less kindly
    own: Config = config_for(architecture, dataset, config.preset)
    with own.unlocked():
        own.architecture.network = config.network
        if config.latents:
            own.architecture.latents = config.latents
        options = {name: value for name, value in options.items() if value != _default(own, name)}
        own.architecture.update(options)
        own.data.update(config.data)
        own.training.update(config.training)
        own.evaluation.update(config.evaluation)
        own.seed = seed
    schema.check(own.to_dict())
    variant = ",".join(f"{name}={value}" for name, value in options.items())
    name = dataset_name(dataset)
    parts = (name, architecture, variant.replace(",", "_"), f"s{seed}")
    return Run("-".join(filter(None, parts)), architecture, variant, name, seed, own.lock())


def _default(config: Config, option: str) -> Any:
    """An option's value where nothing is said: the config's, or that of the function that makes the architecture."""
    name = config.architecture.name
    declared = inspect.signature(architectures.ARCHITECTURES[name]).parameters
    known = {**{key: value.default for key, value in declared.items()}, **dict(config.architecture)}
    return known.get(option, inspect.Parameter.empty)  # which equals no value: `create` refuses the option


def load_dataset(run: Run) -> Dataset:
    """Returns the run's data set; the last one stays loaded, others are let go."""
    return _load(json.dumps(dict(run.config.data)))


@functools.lru_cache(maxsize=1)
def _load(options: str) -> Dataset:
    return pipeline.load_dataset(ConfigDict(json.loads(options)))


# --- groups ----------------------------------------------------------------------------------------------


def structure(run: Run, dataset: Dataset) -> tuple[Architecture, dict[str, float]]:
    """Returns the run's architecture without its numeric hyper-parameters, and those.

    Members of one group share the first and differ in the second.
    """
    options = dict(run.config.architecture)
    model = pipeline.create_model(run.config, dataset)
    hyper = {name: float(value) for name, value in model.hyper.items()}
    shared = {name: value for name, value in options.items() if name not in hyper and name != "name"}
    return architectures.create(run.architecture, image_shape=dataset.image_shape, **shared), hyper


def group_key(run: Run, dataset: Dataset) -> tuple:
    """Returns what runs must have in common to train as one program."""
    model, hyper = structure(run, dataset)
    settings = tuple(sorted(run.config.training.items()))
    return run.dataset, model.loss, model.batches, tuple(sorted(model.optimizers.items())), tuple(hyper), settings


def group_runs(runs: Sequence[Run], dataset: Dataset, largest: int) -> list[Group]:
    """Returns the runs of one data set in ensembles of at most `largest` members (0: of any size)."""
    alike: dict[tuple, list[Run]] = {}
    for run in runs:
        alike.setdefault(group_key(run, dataset), []).append(run)
    return [
        make_group(members[i : i + (largest or len(members))])
        for members in alike.values()
        for i in range(0, len(members), largest or len(members))
    ]


def make_group(runs: Sequence[Run]) -> Group:
    """Returns the runs as a group, which is named by its data set, architectures and members."""
    names = "+".join(dict.fromkeys(run.architecture for run in runs))
    digest = hashlib.sha256(" ".join(run.id for run in runs).encode()).hexdigest()[:8]
    return Group(f"{runs[0].dataset}-{names}-{digest}", tuple(runs))


def remembered_groups(runs: Sequence[Run], path: pathlib.Path) -> tuple[list[Group], list[Run]]:
    """Returns the groups of earlier calls on a directory whose runs are all asked for, and the runs in none of them.

    A group keeps its members, so that its checkpoints fit.
    """
    by_id = {run.id: run for run in runs}
    groups = []
    for name, members in known_groups(path).items():
        if all(member in by_id for member in members):
            groups.append(Group(name, tuple(by_id.pop(member) for member in members)))
    return groups, list(by_id.values())


def remember_groups(groups: Sequence[Group], path: pathlib.Path) -> None:
    """Adds groups to those that `path`, a JSON file, holds."""
    known = known_groups(path) | {group.id: [run.id for run in group.runs] for group in groups}
    write_json(path, {**_remembered(path), "groups": known})


def known_groups(path: pathlib.Path) -> dict[str, list[str]]:
    """Returns group -> the ids of its runs, of groups.json; empty where there is none."""
    return _remembered(path).get("groups", {})


def check_images(dataset: Dataset, path: pathlib.Path, remember: bool = True) -> None:
    """Notes in `path`, a JSON file, which images of the user's a study has begun with, where `remember`.

    Raises:
        ValueError: where it began with others.
    """
    content = arrays.content(dataset).get("sha256")
    if content is None:
        return
    remembered = _remembered(path)
    images = remembered.get("images", {})
    arrays.check_content(dataset, images.get(dataset.name))
    if remember and dataset.name not in images and sharding.is_first_process():
        write_json(path, {"groups": {}, **remembered, "images": {**images, dataset.name: content}})


def _remembered(path: pathlib.Path) -> dict[str, Any]:
    shape = {"groups": {...: [str]}, "images?": {...: str}}
    return read_json(path, "list of a study's groups", shape) if path.exists() else {}
