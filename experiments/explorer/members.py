"""A trained member of a run, and its explorer as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from causalvae import evaluation
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from experiments.explorer import moves, packing, page
from experiments.explorer.content import Detail
from experiments.explorer.explore import WHOLE, explore


class Member(NamedTuple):
    """What an explorer needs of one trained member."""

    architecture: dict[str, Any]  # the config's section
    model: Architecture
    dataset: Dataset
    settings: evaluation.Settings
    params: Any
    seed: int
    steps: int  # that it was trained for
    found: Mapping[str, Any] | None = None  # the record of its evaluation, if there was one


def page_of(member: Member, detail: Detail = WHOLE) -> dict[str, Any]:
    """The explorer of one member, JSON-able (see packing.py)."""
    model, dataset, settings, found = member.model, member.dataset, member.settings, member.found
    strengths = None if found is None else moves.evaluated_strengths(found, codes=bool(model.codebook))
    key = evaluation.random_key(settings.seed, "explorer")
    explored = explore(model, member.params, dataset, key, settings.sites, settings.pairs, strengths, detail)
    architecture = {**member.architecture, "latents": model.latents}
    about = page.describe(architecture, dataset.describe(), member.steps, member.seed)
    return packing.as_json(explored, about | {"summary": page.in_words(dataset.describe(), found)})
