"""What a study's table says of the four findings of arXiv:2505.03530, each with its rule and its numbers.

    (i)   within a data set, causal effect strength and DCI correlate negatively
    (ii)  the beta-VAE loses capacity when the number of factors nears the number of latents
    (iii) no architecture wins on all data sets
    (iv)  causal effect strength on the VQ-VAE is near zero

They are hypotheses here. A verdict is "supported", "contradicted" or "undecided"; the rules are this library's
and are stated with every verdict. A table is name -> array, one row per finished run, of one data source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import comparisons
from experiments.report.capacity import capacity_by_factors, capacity_verdict
from experiments.report.correlations import (
    correlation_family,
    correlation_rows,
    correlation_verdict,
    sensitivity_pairs,
)
from experiments.report.near_zero import near_zero_verdict, vq_strength
from experiments.report.tables import (
    DISENTANGLEMENT,
    EFFECT,
    Table,
    of_defaults,
    of_usual_size,
    score_cells,
    score_names,
)
from experiments.report.verdicts import ALPHA, POWER
from experiments.report.winners import winner_verdict, winners_by_score


def study(table: Table, seed: int = 0) -> dict[str, Any]:
    """Every analysis of one table, JSON-able (NaN where undefined): cells, correlations, capacity, winners,
    strength of VQ-VAE, the design's power, and the verdicts.

    Raises ValueError where the table has no runs or mixes data sources.
    """
    sources = sorted(set(table["source"].tolist()))
    if len(sources) != 1:
        raise ValueError(f"a table must have runs of one data source; this one has {', '.join(sources) or 'no runs'}")
    capacity = capacity_by_factors(table)
    table = of_usual_size(table)
    pairs = correlation_family(table, EFFECT, DISENTANGLEMENT, seed)
    by_default = of_defaults(table)
    winners, near_zero = winners_by_score(by_default), vq_strength(by_default)
    return {
        "source": sources[0],
        "design": design(table, pairs),
        "cells": {name: [c._asdict() for c in score_cells(table, name)] for name in score_names(table)},
        "correlations": pairs,
        "sensitivity": [
            row
            for effect, other in sensitivity_pairs(table)
            for row in correlation_rows(table, effect, other, (), seed, "all")
        ],
        "capacity": capacity,
        "winners": winners,
        "near_zero": near_zero,
        "verdicts": [
            verdict._asdict()
            for verdict in (
                correlation_verdict(pairs),
                capacity_verdict(capacity),
                winner_verdict(by_default, winners),
                near_zero_verdict(near_zero),
            )
        ],
    }


def design(table: Table, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the study's size could have shown at all."""
    labels, datasets = len(set(table["label"].tolist())), len(set(table["dataset"].tolist()))
    seeds = min(np.unique(list(zip(table["label"], table["dataset"])), axis=0, return_counts=True)[1])
    tests = max(1, (labels - 1) * datasets)
    return {
        "runs": len(table["seed"]),
        "configurations": labels,
        "datasets": datasets,
        "seeds": int(seeds),
        "alpha": ALPHA,
        "power": POWER,
        "family": sum(1 for row in pairs if math.isfinite(row["p_value"])),
        "detectable_difference": comparisons.detectable_difference(int(seeds), max(2, labels)),
        "detectable_difference_adjusted": comparisons.detectable_difference(int(seeds), max(2, labels), tests),
    }
