"""Finding (i) under every defensible choice: the specification curve of Simonsohn, Simmons & Nelson 2020.

The correlation of causal effect strength and disentanglement within data sets depends on what perturbs the latents, how
a change of the image is measured, whether dead latents count in the mean, which score stands for disentanglement,
which runs are taken, and how correlation is measured. Every combination's pooled correlation is computed, with its
interval; the test of them all together is one of their median, with whole architectures exchanged.

What a table does not hold is left out: columns are named `ces[_<family>]_<distance>[_all]`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from experiments.report import statistics
from experiments.report.tables import COVARIATES, DISENTANGLEMENT, EFFECT, Table, column

FAMILIES = {
    "sweep ±3": "",
    "sweep ±2": "_sweep2",
    "resample": "_resample",
    "prior": "_prior",
    "shift by 1": "_shift1",
}
DISTANCES = {"l2": "_l2", "rms": "_rms", "Bernoulli KL": "_bernoulli_kl"}
MEANS = {"active latents": "", "all latents": "_all"}
SCORES = {
    "DCI-D, boosted trees": "dci_disentanglement",
    "DCI-D, lasso": "dci_lasso_disentanglement",
    "DCI-C": "dci_completeness",
    "MIG": "mig",
    "FactorVAE score": "factorvae",
}
METHODS = ("Pearson", "Spearman", "partial")  # partial: Pearson given reconstruction and active latents
ALL_RUNS = "all runs"
# The paper's combination, as far as it is known.
PAPER = ("sweep ±3", "l2", "active latents", "DCI-D, boosted trees", ALL_RUNS, "Pearson")
DIMENSIONS = ("family", "distance", "mean over", "score", "runs", "correlation")
DEFINED = 0.9  # of the runs that have the paper's two scores, for which another column must be defined to be a choice


class Data(NamedTuple):
    """The runs on which every column of the curve is defined."""

    effects: dict[tuple[str, str, str], np.ndarray]  # (family, distance, mean over) -> [n]
    scores: dict[str, np.ndarray]  # score -> [n]
    covariates: np.ndarray  # [C, n]
    architectures: np.ndarray  # [n]
    datasets: np.ndarray  # [n]


def collect(table: Table) -> Data | None:
    """The columns that a table has, on the runs that have them all; None where it has not the paper's two scores."""
    base = np.isfinite([column(table, n) for n in (EFFECT, DISENTANGLEMENT)]).all(axis=0)
    if not base.any():
        return None
    effects = {
        (family, distance, mean): f"ces{FAMILIES[family]}{DISTANCES[distance]}{MEANS[mean]}"
        for family, distance, mean in itertools.product(FAMILIES, DISTANCES, MEANS)
    }

    def chosen(names: Mapping[Any, str]) -> dict[Any, np.ndarray]:
        columns = {choice: column(table, name) for choice, name in names.items()}
        return {choice: v for choice, v in columns.items() if np.isfinite(v[base]).mean() >= DEFINED}

    effects, scores = chosen(effects), chosen(SCORES)
    covariates = np.array([column(table, name) for name in COVARIATES])
    keep = np.isfinite([*effects.values(), *scores.values(), *covariates]).all(axis=0)
    if not keep.any():
        return None
    return Data(
        {choice: values[keep] for choice, values in effects.items()},
        {choice: values[keep] for choice, values in scores.items()},
        covariates[:, keep],
        table["architecture"][keep],
        table["dataset"][keep],
    )


def curve(table: Table, seed: int = 0, permutations: int = 999) -> dict[str, Any] | None:
    """Every combination's pooled correlation with its interval, sorted by value, and the joint test. JSON-able; None
    where no combination is defined."""
    data = collect(table)
    if data is None:
        return None
    names = np.unique(data.architectures).tolist()
    scores = np.stack(list(data.scores.values()))
    subsets = [frozenset(), *(frozenset([name]) for name in names)] if len(names) > 3 else [frozenset()]

    @functools.cache
    def correlations(without: frozenset[str]) -> np.ndarray:
        return pooled(data, scores, without)

    specifications = []
    for without in subsets:
        values = correlations(without)
        others = np.stack([correlations(without | {name}) for name in names if name not in without])
        runs = ALL_RUNS if not without else f"without {next(iter(without))}"
        for (m, method), (s, score), (e, effect) in itertools.product(
            enumerate(METHODS), enumerate(data.scores), enumerate(data.effects)
        ):
            low, high = statistics.jackknife_interval(values[m, s, e], others[:, m, s, e])
            named = dict(zip(DIMENSIONS, (*effect, score, runs, method), strict=True))
            specifications.append({**named, "value": float(values[m, s, e]), "low": low, "high": high})
    specifications = [row for row in specifications if math.isfinite(row["value"])]
    specifications.sort(key=lambda row: row["value"])
    if not specifications:
        return None
    found = np.array([row["value"] for row in specifications])
    median = float(np.median(found))
    return {
        "runs": len(data.architectures),
        "architectures": names,
        "datasets": list(dict.fromkeys(data.datasets.tolist())),
        "specifications": specifications,
        "median": median,
        "share_negative": float(np.mean(found < 0)),
        "share_below": float(np.mean([row["high"] < 0 for row in specifications])),
        "share_above": float(np.mean([row["low"] > 0 for row in specifications])),
        "p_value": statistics.permutation_p_value(median, permuted_medians(data, scores, subsets, seed, permutations)),
    }


def pooled(data: Data, scores: np.ndarray, without: frozenset[str]) -> np.ndarray:
    """[methods, ..., S, E]: correlations of the effects E and `scores` [..., S, n], run-weighted over data sets, of the
    runs whose architecture is not left out."""
    kept = ~np.isin(data.architectures, list(without))
    effects = np.stack(list(data.effects.values()))
    values, runs = [], []
    for dataset in dict.fromkeys(data.datasets.tolist()):
        rows = np.flatnonzero(kept & (data.datasets == dataset))
        x, y, given = effects[:, rows], scores[..., rows], data.covariates[:, rows]
        values.append(np.stack([_correlations(x, y, given, method) for method in METHODS]))
        runs.append(len(rows))
    return statistics.pool(np.stack(values), np.array(runs))


def _correlations(x: np.ndarray, y: np.ndarray, given: np.ndarray, method: str) -> np.ndarray:
    """[..., S, E] of x [E, n] and y [..., S, n]; NaN for fewer runs than the method needs."""
    needed = 3 + (len(given) if method == "partial" else 0)
    if x.shape[-1] < needed:
        return np.full((*y.shape[:-1], len(x)), math.nan)
    if method == "Spearman":
        x, y = scipy.stats.rankdata(x, axis=-1), scipy.stats.rankdata(y, axis=-1)
    elif method == "partial":
        x, y = residuals(x, given), residuals(y, given)
    return np.clip(statistics.unit(y) @ statistics.unit(x).T, -1, 1)


def residuals(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """What least squares on `given` [C, n] and a constant leaves of values [..., n]; NaN where it explains all."""
    centered, covariates = (v - v.mean(axis=-1, keepdims=True) for v in (values, given))
    basis = np.linalg.svd(covariates / np.maximum(np.linalg.norm(covariates, axis=-1, keepdims=True), 1e-300))
    directions = basis.Vh[: np.sum(basis.S > 1e-9)]
    left = centered - centered @ directions.T @ directions
    explained = np.linalg.norm(left, axis=-1) <= 1e-6 * np.linalg.norm(centered, axis=-1)
    return np.where(explained[..., None], math.nan, left)


def permuted_medians(data: Data, scores, subsets: Sequence[frozenset[str]], seed: int, num: int) -> np.ndarray:
    """[num] medians of the curve when the scores are exchanged between architectures, all in the same way: under the
    null that strength and disentanglement have nothing to do with each other, every arrangement is as likely."""
    rng = np.random.default_rng(seed)
    rows, _ = statistics.cluster_permutations(rng, data.architectures, data.datasets, num)
    permuted = np.moveaxis(scores[:, rows], 1, 0)  # [num, S, n]
    values = np.stack([pooled(data, permuted, without) for without in subsets])  # [subsets, methods, num, S, E]
    return np.nanmedian(np.moveaxis(values, 2, 0).reshape(num, -1), axis=1)


def paper_index(found: Mapping[str, Any]) -> int | None:
    """The place of the paper's combination in a curve; None where the table has not what it takes."""
    paper = dict(zip(DIMENSIONS, PAPER, strict=True))
    rows = found["specifications"]
    return next((i for i, row in enumerate(rows) if all(row[name] == paper[name] for name in DIMENSIONS)), None)


def choices(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(dimension, choice) of a curve in a fixed order, of the dimensions in which there is a choice."""
    listed = {
        "family": FAMILIES,
        "distance": DISTANCES,
        "mean over": MEANS,
        "score": SCORES,
        "runs": (ALL_RUNS, *(f"without {name}" for name in found["architectures"])),
        "correlation": METHODS,
    }
    there = {name: {row[name] for row in found["specifications"]} for name in DIMENSIONS}
    return [(name, c) for name in DIMENSIONS if len(there[name]) > 1 for c in listed[name] if c in there[name]]


def shares(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each choice: how many combinations have it, their median, and the share of them that are negative."""
    rows = []
    for dimension, choice in choices(found):
        values = np.array([row["value"] for row in found["specifications"] if row[dimension] == choice])
        median, negative = float(np.median(values)), float(np.mean(values < 0))
        rows.append(
            {"choice of": dimension, "is": choice, "combinations": len(values), "median": median, "negative": negative}
        )
    return rows


def sentence(found: Mapping[str, Any]) -> str:
    """The curve in words."""
    place = paper_index(found)
    text = (
        f"{len(found['specifications']):,} combinations over {found['runs']} runs: median correlation "
        f"{found['median']:.2f}, {found['share_negative']:.0%} negative (intervals below 0: "
        f"{found['share_below']:.0%}, above 0: {found['share_above']:.0%}); the median's joint permutation test gives "
        f"p = {found['p_value']:.3f}."
    )
    if place is not None:
        row = found["specifications"][place]
        text += f" The paper's combination: {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]."
    return text.replace("-", "−")
