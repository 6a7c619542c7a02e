"""What a study's table says of the four findings of arXiv:2505.03530, each with its rule and its numbers.

    (i)   within a data set, causal effect strength and DCI correlate negatively
    (ii)  the beta-VAE loses capacity when the number of factors nears the number of latents
    (iii) no architecture wins on all data sets
    (iv)  causal effect strength on the VQ-VAE is near zero

They are hypotheses here. A verdict is "supported", "contradicted" or "undecided"; the rules are this library's
and are stated with every verdict. A table is name -> array, one row per finished run, of one data source.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from causalvae import statistics

Table = Mapping[str, np.ndarray]

ALPHA, POWER = 0.05, 0.8
NEGLIGIBLE = 0.1  # a correlation weaker than this is none
NEAR_ZERO = 0.1  # of the other architectures' strength
NEARS = 0.7  # factors per latent from which their number "nears" the latents'
BOOTSTRAPS = 2000
EFFECT, DISENTANGLEMENT = "ces_l2", "dci_disentanglement"
COVARIATES = ("reconstruction", "active_latents")
WINNING = (DISENTANGLEMENT, "mig", "factorvae")  # scores whose winners are listed; the first decides
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


class Verdict(NamedTuple):
    """What the study says of one finding."""

    finding: str
    claim: str
    verdict: str
    reason: str
    rule: str


def study(table: Table, seed: int = 0) -> dict[str, Any]:
    """Every analysis of one table, JSON-able (NaN where undefined): cells, correlations, capacity, winners,
    strength of VQ-VAE, the design's power, and the verdicts.

    Raises ValueError where the table has no runs or mixes data sources.
    """
    sources = sorted(set(table["source"].tolist()))
    if len(sources) != 1:
        raise ValueError(
            f"a table must have runs of one data source; this one has {', '.join(sources) or 'no runs'}"
        )
    pairs = correlation_family(table, EFFECT, DISENTANGLEMENT, seed)
    capacity, winners, near_zero = (
        capacity_by_factors(table, seed),
        winners_by_score(table),
        vq_strength(table, seed),
    )
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
                winner_verdict(table, winners),
                near_zero_verdict(near_zero),
            )
        ],
    }


def score_names(table: Table) -> tuple[str, ...]:
    """The columns that are scores: numbers beside which a null column stands."""
    return tuple(name for name in table if f"{name}.null" in table)


def column(table: Table, name: str) -> np.ndarray:
    """A score's column [runs], all NaN where the table has none."""
    return table.get(name, np.full(len(table["seed"]), math.nan))


def rows_of(table: Table, keep: np.ndarray) -> Table:
    """The table's rows where `keep` [runs] is true."""
    return {name: values[keep] for name, values in table.items()}


def score_cells(table: Table, name: str) -> list[statistics.Cell]:
    """Mean, deviation and every seed of a score, by data set and configuration (architecture with its variant)."""
    return statistics.cells(column(table, name), table["label"], table["dataset"], table["seed"])


def design(table: Table, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the study's size could have shown at all."""
    labels, datasets = len(set(table["label"].tolist())), len(set(table["dataset"].tolist()))
    seeds = min(np.unique(list(zip(table["label"], table["dataset"])), axis=0, return_counts=True)[1])
    comparisons = max(1, (labels - 1) * datasets)
    return {
        "runs": len(table["seed"]),
        "configurations": labels,
        "datasets": datasets,
        "seeds": int(seeds),
        "alpha": ALPHA,
        "power": POWER,
        "family": sum(1 for row in pairs if math.isfinite(row["p_value"])),
        "detectable_difference": statistics.detectable_difference(int(seeds), max(2, labels)),
        "detectable_difference_adjusted": statistics.detectable_difference(
            int(seeds), max(2, labels), comparisons
        ),
    }


# --- (i) causal effect strength and disentanglement ------------------------------------------------------


def correlation_family(table: Table, effect: str, other: str, seed: int = 0) -> list[dict[str, Any]]:
    """Correlations within data sets and pooled: Pearson and Spearman, with and without VQ-VAE, plain and partial.

    One dictionary per row, with Holm-Šidák adjusted p-values over all plain ones and the smallest correlation
    that the design would have found at that family's first step.
    """
    rows = []
    without = table["architecture"] != "vq"
    for given in ((), COVARIATES):
        rows += correlation_rows(table, effect, other, given, seed, "all")
        if 0 < without.sum() < len(without):
            rows += correlation_rows(rows_of(table, without), effect, other, given, seed, "without VQ-VAE")
    adjusted = statistics.holm_sidak([row["p_value"] for row in rows])
    tests = int(np.isfinite(adjusted).sum())
    for row, p_value in zip(rows, adjusted, strict=True):
        row["p_adjusted"] = float(p_value)
        row["detectable"] = statistics.detectable_correlation(
            row["effective_runs"], max(1, tests), ALPHA, POWER
        )
    return rows


def correlation_rows(table: Table, effect, other, given, seed, subset) -> list[dict[str, Any]]:
    """One dictionary per data set and method, and the pooled ones, of the score columns `effect` and `other`."""
    covariates = [column(table, name) for name in given]
    columns = (
        column(table, effect),
        column(table, other),
        table["architecture"],
        table["dataset"],
        covariates,
    )
    return [
        {"x": effect, "y": other, "subset": subset, "given": list(given), **row._asdict()}
        for method in statistics.METHODS
        for row in statistics.within_strata_correlations(*columns, method, seed, BOOTSTRAPS)
    ]


def sensitivity_pairs(table: Table) -> list[tuple[str, str]]:
    """Other pairs of scores whose correlations are shown beside the primary pair's; they decide nothing."""
    effects = [name for name in (EFFECT, "ces_resample_l2") if name in table]
    others = [n for n in (DISENTANGLEMENT, "dci_completeness", "mig", "specificity_to_factors") if n in table]
    return [(e, o) for e in effects for o in others if (e, o) != (EFFECT, DISENTANGLEMENT)]


def correlation_verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """Finding (i) from the rows of `correlation_family`."""
    claim = "Within a data set, causal effect strength (CES) and DCI disentanglement correlate negatively."
    rule = (
        "Supported: pooled over data sets the correlation is negative in every way of counting (Pearson and "
        f"Spearman, with and without VQ-VAE) with a Holm–Šidák p ≤ {ALPHA} and an interval below 0; its interval "
        "stays below 0 given reconstruction and active latents; and no data set alone is positive at that level. "
        f"Contradicted: every pooled interval lies above −{NEGLIGIBLE}. Undecided otherwise."
    )
    verdict = functools.partial(Verdict, "i", claim, rule=rule)
    pooled = [r for r in rows if r["stratum"] == statistics.POOLED]
    plain, partial = ([r for r in pooled if bool(r["given"]) == wanted] for wanted in (False, True))
    if not all(math.isfinite(r["value"]) for r in plain):
        return verdict(UNDECIDED, "No data set has both scores for enough runs.")
    numbers = f"Pooled correlation {_span(plain)}; given {' and '.join(COVARIATES)} {_span(partial)}."
    numbers = numbers.replace("_", " ")
    opposite = [r["stratum"] for r in rows if not r["given"] and r["value"] > 0 and r["p_adjusted"] <= ALPHA]
    if all(r["low"] > -NEGLIGIBLE for r in plain):
        return verdict(CONTRADICTED, f"{numbers} A negative correlation worth the name is excluded.")
    checks = {
        "it is not significant in every way of counting": all(
            r["value"] < 0 and r["p_adjusted"] <= ALPHA for r in plain
        ),
        "its interval reaches 0 when architectures are drawn again": all(r["high"] < 0 for r in plain),
        "given the covariates its interval reaches 0": all(r["high"] < 0 for r in partial),
        f"it is positive on {', '.join(dict.fromkeys(opposite))}": not opposite,
    }
    failed = [reason for reason, passed in checks.items() if not passed]
    if not failed:
        return verdict(SUPPORTED, f"{numbers} It holds in every way of counting.")
    least = max((r["detectable"] for r in plain), key=lambda v: -1 if math.isnan(v) else v)
    power = f"±{least:.2f}" if math.isfinite(least) else "none of any size"
    return verdict(
        UNDECIDED, f"{numbers} Not supported: {'; '.join(failed)}. Detectable at power {POWER}: {power}."
    )


def _span(rows: Sequence[Mapping[str, Any]]) -> str:
    """'−0.42 [−0.60, −0.20] to −0.35 [...]' of the strongest and weakest value."""

    def one(row):
        return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"

    ordered = sorted((r for r in rows if math.isfinite(r["value"])), key=lambda r: r["value"])
    if not ordered:
        return "undefined"
    text = one(ordered[0]) if len(ordered) == 1 else f"{one(ordered[0])} to {one(ordered[-1])}"
    return text.replace("-", "−")


# --- (ii) capacity against the number of factors ---------------------------------------------------------


def capacity_by_factors(table: Table, seed: int = 0) -> dict[str, Any]:
    """The beta-VAE's active latents and KL relative to the VAE's on each data set, against factors per latent.

    Relative to the VAE, because data sets differ in much else. The trend is the Pearson correlation over data
    sets: its p-value exchanges data sets (exactly, where there are few), its interval draws seeds again.
    """
    rng = np.random.default_rng(seed)
    names = ("active_latents", "kl")
    levels, draws = [], {name: [] for name in names}
    for dataset in dict.fromkeys(table["dataset"].tolist()):
        here = table["dataset"] == dataset
        beta, vae = here & (table["architecture"] == "beta"), here & (table["architecture"] == "vae")
        per_latent = _mean(table["num_factors"][beta] / table["latents"][beta])
        if not (vae.any() and per_latent > 0):  # sets without generative factors have none
            continue
        level = {"dataset": dataset, "factors_per_latent": per_latent}
        for name in names:
            values = [column(table, name)[rows] for rows in (beta, vae)]
            level[f"{name}_beta"], level[f"{name}_vae"] = (_mean(v) for v in values)
            level[name] = _ratio(level[f"{name}_beta"], level[f"{name}_vae"])
            draws[name].append(_ratio(*(statistics.bootstrap_means(rng, v, BOOTSTRAPS) for v in values)))
        levels.append(level)
    return {"levels": levels, "trends": {name: _trend(levels, name, draws[name], seed) for name in names}}


def _trend(levels, name: str, draws, seed: int) -> dict[str, float]:
    x, y = (np.array([level[key] for level in levels], float) for key in ("factors_per_latent", name))
    undefined = {"value": math.nan, "low": math.nan, "high": math.nan, "p_value": math.nan}
    if len(levels) < 3 or not np.isfinite(y).all():
        return undefined
    value = float(statistics.correlation(x, y))
    if not math.isfinite(value):
        return undefined  # the same on every data set
    null = scipy.stats.permutation_test(
        (x,),
        lambda shuffled, axis: np.sum(statistics.unit(shuffled) * statistics.unit(y), axis=axis),
        permutation_type="pairings",
        n_resamples=999,
        vectorized=True,
        rng=seed,
    ).null_distribution
    exact = math.factorial(len(x)) <= len(null)  # then the observed arrangement is among them
    p_value = (
        np.mean(np.abs(null) >= abs(value) - 1e-9) if exact else statistics.permutation_p_value(value, null)
    )
    low, high = statistics.interval(statistics.unit(np.stack(draws, axis=1)) @ statistics.unit(x))
    return {"value": value, "low": low, "high": high, "p_value": float(p_value)}


def capacity_verdict(capacity: Mapping[str, Any]) -> Verdict:
    """Finding (ii) from `capacity_by_factors`."""
    claim = "The β-VAE loses capacity when the number of factors nears the number of latents."
    rule = (
        "Over data sets, the β-VAE's active latents and its KL, each relative to the VAE's, are correlated with "
        f"factors per latent. Supported: both correlations negative, p ≤ {ALPHA} when data sets are exchanged, and "
        "intervals over seeds below 0. Contradicted: both positive in the same way. Undecided otherwise, and where "
        f"no data set has {NEARS} factors per latent."
    )
    verdict = functools.partial(Verdict, "ii", claim, rule=rule)
    levels, trends = capacity["levels"], capacity["trends"]
    if len(levels) < 3:
        return verdict(
            UNDECIDED, f"Needs VAE and β-VAE on three data sets with known factors; there are {len(levels)}."
        )
    largest = max(level["factors_per_latent"] for level in levels)
    each = "; ".join(
        f"{name.replace('_', ' ')} {t['value']:.2f} [{t['low']:.2f}, {t['high']:.2f}], p = {t['p_value']:.3f}"
        for name, t in trends.items()
    ).replace("-", "−")
    numbers = (
        f"Correlation over {len(levels)} data sets with factors per latent (up to {largest:.2g}): {each}."
    )

    def holds(sign):
        return all(
            sign * t["value"] > 0 and t["p_value"] <= ALPHA and min(sign * t["low"], sign * t["high"]) > 0
            for t in trends.values()
        )

    if largest < NEARS - 1e-9:
        return verdict(UNDECIDED, f"{numbers} No data set's number of factors nears the number of latents.")
    if holds(-1):
        return verdict(SUPPORTED, numbers)
    if holds(+1):
        return verdict(CONTRADICTED, numbers)
    least = math.factorial(len(levels))
    return verdict(
        UNDECIDED, f"{numbers} With {len(levels)} data sets no p-value can be below {1 / least:.3f}."
    )


def _mean(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else math.nan


def _ratio(numerator, denominator):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(denominator) > 0, np.divide(numerator, denominator), math.nan)[()]


# --- (iii) winners ---------------------------------------------------------------------------------------


def winners_by_score(table: Table) -> list[dict[str, Any]]:
    """The configuration with the highest mean of each of the `WINNING` scores on each data set, how far ahead it
    is, who wins each seed, and how often a single run of each would have given the same winner."""
    found = []
    for name in (n for n in WINNING if n in table):
        for dataset, groups in _groups(table, name).items():
            labels = list(groups)
            means = np.array([g.mean() for g in groups.values()])
            order = np.argsort(-means, kind="stable")
            chances = statistics.single_seed_winners(list(groups.values()))
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
        f"By {score.replace('_', ' ')}, with one-sided t-tests whose deviation is pooled over a data set's "
        "architectures. Supported: every architecture is beaten by another on at least one data set (Holm–Šidák "
        f"p ≤ {ALPHA} over its rivals and data sets). Contradicted: one architecture beats every other on every "
        f"data set (each p ≤ {ALPHA}). Undecided otherwise: then different winners may be chance."
    )
    verdict = functools.partial(Verdict, "iii", claim, rule=rule)
    groups = _groups(table, score)
    labels = list(dict.fromkeys(table["label"].tolist()))
    if len(groups) < 2 or len(labels) < 2:
        return verdict(
            UNDECIDED, f"Needs two architectures on two data sets with {score}; there are {len(groups)}."
        )
    listed = ", ".join(f"{w['winner']} on {w['dataset']}" for w in winners if w["score"] == score)
    beaten, beats = _contests(groups, labels)
    if np.isnan(list(beaten.values())).all():
        return verdict(UNDECIDED, f"Winners: {listed}. One seed each cannot say whether that is chance.")
    unbeaten = [label for label, p_value in beaten.items() if not p_value <= ALPHA]
    champions = [label for label, p_value in beats.items() if p_value <= ALPHA]
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
    for values in groups.values():
        p_values = statistics.pairwise_p_values(list(values.values()))
        here = list(values)
        for label in labels:
            if label not in here:
                won[label].append(math.nan)  # it does not beat anyone here
                continue
            others = [i for i in range(len(here)) if here[i] != label]
            lost[label] += p_values[others, here.index(label)].tolist()
            won[label] += p_values[here.index(label), others].tolist()
    beaten = {label: _smallest(statistics.holm_sidak(p)) for label, p in lost.items()}
    return beaten, {label: float(np.max(p)) if p else math.nan for label, p in won.items()}


def _smallest(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.min()) if defined.size else math.nan


# --- (iv) VQ-VAE -----------------------------------------------------------------------------------------


def vq_strength(table: Table, seed: int = 0) -> list[dict[str, Any]]:
    """VQ-VAE's causal effect strength relative to the mean of the other architectures', per data set and pooled.

    kind "sweep" is the reported perturbation; "code swap" replaces codes by others in use, and is compared with
    the others' `Resample`: each on its own data manifold. Intervals draw the other architectures first, seeds
    within.
    """
    found = []
    for kind, own, others in (
        ("sweep", EFFECT, EFFECT),
        ("code swap", "ces_code_swap_l2", "ces_resample_l2"),
    ):
        draws = []
        for dataset in dict.fromkeys(table["dataset"].tolist()):
            here = rows_of(table, table["dataset"] == dataset)
            is_vq = here["architecture"] == "vq"
            row, drawn = _relative_strength(column(here, own)[is_vq], rows_of(here, ~is_vq), others, seed)
            found.append({"kind": kind, "dataset": dataset, **row})
            draws.append((row["value"], drawn))
        values, drawn = np.array([value for value, _ in draws]), np.stack([d for _, d in draws])
        counted = np.isfinite(values)
        pooled = values[counted].mean() if counted.any() else math.nan
        low, high = (
            statistics.interval(drawn[counted].mean(axis=0)) if counted.any() else (math.nan, math.nan)
        )
        found.append(
            {"kind": kind, "dataset": statistics.POOLED, "value": float(pooled), "low": low, "high": high}
        )
    return found


def _relative_strength(own: np.ndarray, others: Table, name: str, seed: int):
    rng = np.random.default_rng(seed)
    values = column(others, name)
    defined = np.isfinite(values)
    values, clusters = values[defined], others["architecture"][defined]
    if not values.size or not np.isfinite(own).any():
        return {"value": math.nan, "low": math.nan, "high": math.nan}, np.full(BOOTSTRAPS, math.nan)
    weights = statistics.bootstrap_weights(rng, clusters, np.zeros(len(values)), BOOTSTRAPS)
    drawn = _ratio(statistics.bootstrap_means(rng, own, BOOTSTRAPS), weights @ values / weights.sum(axis=1))
    low, high = statistics.interval(drawn)
    return {"value": float(_ratio(_mean(own), values.mean())), "low": low, "high": high}, drawn


def near_zero_verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """Finding (iv) from `vq_strength`."""
    claim = "Causal effect strength on the VQ-VAE is near zero."
    rule = (
        f"Near zero: less than {NEAR_ZERO:.0%} of the other architectures' mean on the same data set, with the "
        "reported perturbation. Supported: the interval of the mean over data sets lies below, and no data set's "
        "interval lies above. Contradicted: the mean's interval lies above, and no data set's below. Undecided "
        "otherwise. Code swaps are shown beside it: they say whether the codes matter, whatever a sweep finds."
    )
    verdict = functools.partial(Verdict, "iv", claim, rule=rule)
    pooled = {row["kind"]: row for row in rows if row["dataset"] == statistics.POOLED}
    sweep, swap = pooled["sweep"], pooled["code swap"]
    if not math.isfinite(sweep["value"]):
        return verdict(
            UNDECIDED, "The table has no runs of the VQ-VAE beside others with a defined strength."
        )
    swaps = (
        f"{swap['value']:.1%} [{swap['low']:.1%}, {swap['high']:.1%}]"
        if math.isfinite(swap["value"])
        else "undefined"
    )
    numbers = (
        f"By sweep {sweep['value']:.1%} [{sweep['low']:.1%}, {sweep['high']:.1%}] of the other architectures'; "
        f"by code swaps {swaps} of their resampling strength."
    )
    single = [row for row in rows if row["kind"] == "sweep" and row["dataset"] != statistics.POOLED]
    above = [row["dataset"] for row in single if row["low"] > NEAR_ZERO]
    below = [row["dataset"] for row in single if row["high"] < NEAR_ZERO]
    if sweep["high"] < NEAR_ZERO and not above:
        return verdict(SUPPORTED, numbers)
    if sweep["low"] > NEAR_ZERO and not below:
        return verdict(CONTRADICTED, numbers)
    mixed = (
        f" Above {NEAR_ZERO:.0%} on: {', '.join(above) or 'none'}; below on: {', '.join(below) or 'none'}."
    )
    return verdict(UNDECIDED, numbers + mixed)
