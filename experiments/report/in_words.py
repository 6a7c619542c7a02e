"""What every run of a study found, in the sentences of `evaluation.summarize`, beside the other seeds of its kind."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from causalvae import evaluation
from experiments.explorer.page import listed
from experiments.markup import html, joined
from experiments.report.figures import display
from experiments.report.tables import Table, rows_of, score_names
from experiments.study import records

PART = '<details class="more"><summary>What each run found, in sentences</summary>{}</details>'


class Others(NamedTuple):
    """A score over the other seeds of a run's kind."""

    mean: float
    deviation: float  # standard deviation with ddof 1


def runs_in_words(workdir: pathlib.Path, table: Table) -> Markup:
    """The sentences of every run of one data set, to be opened; nothing where no record has any."""
    found = []
    for i, run in enumerate(table["run"].tolist()):
        record = records.stored_record(workdir, run)
        if sentences := _sentences(record, other_seeds(table, i)):
            found.append(html("<h3>{}, seed {}</h3>{}", display(record["label"]), record["seed"], listed(sentences)))
    return html(PART, joined(found)) if found else Markup("")


def _sentences(record: dict, spread: dict[str, Others]) -> list[str]:
    whole = "scores" in record and "latents" in record
    return evaluation.summarize({"data": record["data"], "members": [record]}, spread) if whole else []


def other_seeds(table: Table, run: int) -> dict[str, Others]:
    """Score -> mean and deviation over the runs of the same label but `run`, where at least two have a value."""
    others = rows_of(table, (table["label"] == table["label"][run]) & (np.arange(len(table["run"])) != run))
    found = {}
    for name in score_names(table):
        values = others[name][np.isfinite(others[name])]
        if len(values) > 1:
            found[name] = Others(float(values.mean()), float(values.std(ddof=1)))
    return found
