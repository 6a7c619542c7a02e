"""The explorers of finished runs: members restored, explored and written as pages."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from causalvae import runs, training
from experiments import pipeline
from experiments.explorer import page
from experiments.explorer.content import Detail
from experiments.explorer.explore import WHOLE
from experiments.explorer.members import Member, page_of


def write(workdir: pathlib.Path, detail: Detail = WHOLE) -> list[pathlib.Path]:
    """The pages of every member of a run; ValueError or FileNotFoundError where there is nothing to restore."""
    members = restored(workdir)
    paths = []
    for member in members:
        suffix = f"_seed{member.seed}" if len(members) > 1 else ""
        paths.append(page.write(workdir / f"explorer{suffix}.html", page_of(member, detail)))
    return paths


def write_beside(workdirs: Sequence[pathlib.Path], circuits: bool = True) -> pathlib.Path:
    """One page with the first member of each run side by side, of the same images and pairs; in the first one's folder.

    Pictures are fewer than on a page of its own: a page of two stays within 3 MB.

    Raises:
        ValueError: for runs of different data sets, and as `write`.
    """
    members = [restored(workdir)[0] for workdir in workdirs]
    check_same_data({str(workdir): member.dataset.describe() for workdir, member in zip(workdirs, members)})
    first = members[0]
    drawn = {name: getattr(first.settings, name) for name in ("seed", "pairs")}
    same = [m._replace(dataset=first.dataset, settings=m.settings._replace(**drawn)) for m in members]
    detail = Detail.beside(len(members), circuits)
    pages = [page_of(member, detail) for member in same]
    others = "_".join(workdir.resolve().name for workdir in workdirs[1:])
    titled = dict(zip(_titles(workdirs, pages), pages))
    return page.write_beside(workdirs[0] / f"explorer_beside_{others}.html", titled)


def _titles(workdirs: Sequence[pathlib.Path], pages: Sequence[Mapping[str, Any]]) -> list[str]:
    """'vae, seed 0', and the folder where these are not different."""
    plain = [f"{p['about']['architecture']}, seed {p['about']['seed']}" for p in pages]
    named = [f"{title} ({workdir.resolve().name})" for title, workdir in zip(plain, workdirs)]
    whole = [f"{title} ({workdir})" for title, workdir in zip(plain, workdirs)]
    return next((titles for titles in (plain, named) if len(set(titles)) == len(titles)), whole)


def check_same_data(described: Mapping[str, Mapping[str, Any]]) -> None:
    """ValueError unless all runs, folder -> what its data set says of itself, are of the same data set."""
    (first, wanted), *others = described.items()
    for folder, found in others:
        difference = runs.first_difference(found, wanted)
        if difference:
            names = [f"{data['name']} ({data['source']})" for data in (wanted, found)]
            more = "" if names[0] != names[1] else f" ({difference})"
            raise ValueError(
                f"{first} is a run on {names[0]}, {folder} one on {names[1]}{more}: models side by side are shown the "
                "same images, so give runs on one data set"
            )


def restored(workdir: pathlib.Path) -> list[Member]:
    """The members of a run, in the order of their seeds; ValueError or FileNotFoundError where there are none."""
    config = ConfigDict(runs.read_config(workdir))
    model, dataset, settings = pipeline.prepare(config)
    seeds = pipeline.seeds(config)
    if config.pretrained:
        trained, step = pipeline.shipped_params(config, dataset)
    else:
        state = runs.restore(model, workdir, seeds, config.training.schedule)
        trained, step = state.params, int(state.step)
    known, architecture = evaluated(workdir, step), dict(config.architecture)
    return [
        Member(architecture, model, dataset, settings, training.member(trained, m), seed, step, known.get(seed))
        for m, seed in enumerate(seeds)
    ]


def evaluated(workdir: pathlib.Path, step: int) -> dict[int, dict[str, Any]]:
    """seed -> the record of the run's own evaluation; empty where it is of other parameters."""
    path = workdir / "results.json"
    if not path.exists():
        return {}
    results = runs.read_results(workdir)
    if results["training"]["steps"] != step:
        return {}
    return {member["seed"]: member for member in results["members"]}
