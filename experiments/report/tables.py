"""The table of a study, name -> array with one row per run: its columns, its rows, its cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from experiments.report import statistics

Table = Mapping[str, np.ndarray]

EFFECT, DISENTANGLEMENT = "ces_l2", "dci_disentanglement"
COVARIATES = ("reconstruction", "active_latents")


def score_names(table: Table) -> tuple[str, ...]:
    """The columns that are scores: numbers beside which a null column stands."""
    return tuple(name for name in table if f"{name}.null" in table)


def column(table: Table, name: str) -> np.ndarray:
    """A score's column [runs], all NaN where the table has none."""
    return table.get(name, np.full(len(table["seed"]), math.nan))


def rows_of(table: Table, keep: np.ndarray) -> Table:
    """The table's rows where `keep` [runs] is true."""
    return {name: values[keep] for name, values in table.items()}


def of_usual_size(table: Table) -> Table:
    """The runs whose number of latents is their architecture's commonest: others are there for finding (ii)."""
    architectures = table["architecture"]
    usual = {a: Counter(table["latents"][architectures == a].tolist()).most_common(1)[0][0] for a in set(architectures)}
    return rows_of(table, table["latents"] == np.array([usual[a] for a in architectures]))


def of_defaults(table: Table) -> Table:
    """The runs of every architecture as it is by default, which a finding about architectures compares: a grid's
    variants are there for finding (i). Of an architecture that ran in variants only, all its runs."""
    architectures, default = table["architecture"], table["variant"] == ""
    only_varied = set(architectures.tolist()) - set(architectures[default].tolist())
    return rows_of(table, default | np.isin(architectures, sorted(only_varied)))


def score_cells(table: Table, name: str) -> list[statistics.Cell]:
    """Mean, deviation and every seed of a score, by data set and configuration (architecture with its variant)."""
    return statistics.cells(column(table, name), table["label"], table["dataset"], table["seed"])


def mean_of_defined(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else math.nan
