"""Finding (iii): no architecture wins on all data sets."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import comparisons
from experiments.report.tables import DISENTANGLEMENT, Table, column, score_cells
from experiments.report.verdicts import CONTRADICTED, SIDE, SUPPORTED, UNDECIDED, Verdict

WINNING = (DISENTANGLEMENT, "mig", "factorvae")  # scores whose winners are listed; the first decides


def winners_by_score(table: Table) -> list[dict[str, Any]]:
    """The configuration with the highest mean of each of the `WINNING` scores on each data set, how far ahead it
    is, who wins each seed, and how often each would win if a single run of each were drawn."""
    found = []
    for name in (n for n in WINNING if n in table):
        for dataset, groups in _groups(table, name).items():
            labels = list(groups)
            means = np.array([g.mean() for g in groups.values()])
            order = np.argsort(-means, kind="stable")
            chances = comparisons.single_seed_winners(list(groups.values()))
            found.append(
                {
                    "score": name,
                    "dataset": dataset,
                    "winner": labels[order[0]],
                    "mean": float(means[order[0]]),
                    "second": labels[order[1]] if len(labels) > 1 else None,
                    "lead": float(means[order[0]] - means[order[1]]) if len(labels) > 1 else math.nan,
                    "by_seed": _by_seed(table, name, dataset),
                    "single_run_chance": float(chances[order[0]]),
                    "chances": dict(zip(labels, chances.tolist(), strict=True)),
                }
            )
    return found


def _groups(table: Table, name: str) -> dict[str, dict[str, np.ndarray]]:
    """data set -> label -> defined values over seeds; labels and data sets without any are left out."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for cell in score_cells(table, name):
        values = np.array(cell.values)
        if np.isfinite(values).any():
            groups.setdefault(cell.stratum, {})[cell.cluster] = values[np.isfinite(values)]
    return groups


def _by_seed(table: Table, name: str, dataset: str) -> dict[str, str]:
    values, winners = column(table, name), {}
    for seed in sorted(set(table["seed"].tolist())):
        rows = np.flatnonzero((table["dataset"] == dataset) & (table["seed"] == seed) & np.isfinite(values))
        if rows.size:
            winners[str(seed)] = str(table["label"][rows[np.argmax(values[rows])]])
    return winners


def winner_verdict(table: Table, winners: Sequence[Mapping[str, Any]]) -> Verdict:
    """Finding (iii): tests, for every configuration, that it is beaten somewhere."""
    claim = "No architecture wins on all data sets."
    score = DISENTANGLEMENT
    rule = (
        f"By {score.replace('_', ' ')}, with one-sided t-tests, each the larger p of two: with the deviation over "
        "seeds pooled over a data set's architectures, and over an architecture's data sets. Supported: every "
        f"architecture is beaten by another on at least one data set (Holm–Šidák p ≤ {SIDE} over its rivals and data "
        f"sets). Contradicted: one architecture beats every other on every data set (each p ≤ {SIDE}). Undecided "
        "otherwise: then different winners may be chance. Variants of a grid take no part."
    )
    verdict = functools.partial(Verdict, "iii", claim, rule=rule)
    groups = _groups(table, score)
    labels = list(dict.fromkeys(table["label"].tolist()))
    if len(groups) < 2 or len(labels) < 2:
        return verdict(UNDECIDED, f"Needs two architectures on two data sets with {score}; there are {len(groups)}.")
    listed = ", ".join(f"{w['winner']} on {w['dataset']}" for w in winners if w["score"] == score)
    beaten, beats = _contests(groups, labels)
    if np.isnan(list(beaten.values())).all():
        return verdict(UNDECIDED, f"Winners: {listed}. One seed each cannot say whether that is chance.")
    unbeaten = [label for label, p_value in beaten.items() if not p_value <= SIDE]
    champions = [label for label, p_value in beats.items() if p_value <= SIDE]
    if not unbeaten:
        return verdict(SUPPORTED, f"Winners: {listed}. Every architecture is beaten somewhere.")
    if champions:
        return verdict(CONTRADICTED, f"{champions[0]} beats every other on every data set.")
    return verdict(
        UNDECIDED,
        f"Winners: {listed}. Not shown to be beaten anywhere: {', '.join(unbeaten)}. "
        f"None beats every other on every data set.",
    )


def _contests(groups: Mapping[str, Mapping[str, np.ndarray]], labels: Sequence[str]):
    """label -> p-value of "it is beaten somewhere", and of "it beats every other everywhere"."""
    lost: dict[str, list[float]] = {label: [] for label in labels}
    won: dict[str, list[float]] = {label: [] for label in labels}
    spread = {
        label: comparisons.pooled_variance([values[label] for values in groups.values() if label in values])
        for label in labels
    }
    for values in groups.values():
        p_values = comparisons.pairwise_p_values(list(values.values()), [spread[label] for label in values])
        here = list(values)
        for label in labels:
            if label not in here:
                won[label].append(math.nan)  # it does not beat anyone here
                continue
            others = [i for i in range(len(here)) if here[i] != label]
            lost[label] += p_values[others, here.index(label)].tolist()
            won[label] += p_values[here.index(label), others].tolist()
    beaten = {label: _smallest(comparisons.holm_sidak(p)) for label, p in lost.items()}
    return beaten, {label: float(np.max(p)) if p else math.nan for label, p in won.items()}


def _smallest(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.min()) if defined.size else math.nan
