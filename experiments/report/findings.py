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
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.report import statistics

Table = Mapping[str, np.ndarray]

ALPHA, POWER = 0.05, 0.8
SIDE = ALPHA / 2  # of a verdict one way: "supported" and "contradicted" each err at most so often
NEGLIGIBLE = 0.1  # a correlation weaker than this is none
NEGLIGIBLE_LOSS = 0.1  # of the VAE's capacity, lost by the beta-VAE for each factor per latent
SHARE_LEVEL = 0.96  # of the intervals of shares: at 0.95 a verdict at NEAR_ZERO would be wrong in 3.1 % on one side
NEAR_ZERO = 0.1  # of the other architectures' strength
NEARS = 0.7  # factors per latent from which their number "nears" the latents'
SIZES = 3  # numbers of latents from which a data set has a trend
CAPACITY = ("active_latents", "kl")  # what decides of capacity
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
        raise ValueError(f"a table must have runs of one data source; this one has {', '.join(sources) or 'no runs'}")
    capacity = capacity_by_factors(table)
    table = of_usual_size(table)
    pairs = correlation_family(table, EFFECT, DISENTANGLEMENT, seed)
    winners, near_zero = winners_by_score(table), vq_strength(table)
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


def of_usual_size(table: Table) -> Table:
    """The runs whose number of latents is their architecture's commonest: others are there for finding (ii)."""
    architectures = table["architecture"]
    usual = {a: Counter(table["latents"][architectures == a].tolist()).most_common(1)[0][0] for a in set(architectures)}
    return rows_of(table, table["latents"] == np.array([usual[a] for a in architectures]))


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
        "detectable_difference_adjusted": statistics.detectable_difference(int(seeds), max(2, labels), comparisons),
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
        row["detectable"] = statistics.detectable_correlation(row["effective_runs"], max(1, tests), ALPHA, POWER)
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
        for row in statistics.within_strata_correlations(*columns, method, seed)
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
        f"Spearman, with and without VQ-VAE) with p ≤ {ALPHA} and an interval below 0 (all must hold, so that none is "
        "adjusted); its interval stays below 0 given reconstruction and active latents; and no data set alone is "
        f"positive with a Holm–Šidák p ≤ {ALPHA}. Contradicted: every pooled interval lies above −{NEGLIGIBLE}. "
        "Undecided otherwise."
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
        "it is not significant in every way of counting": all(r["value"] < 0 and r["p_value"] <= ALPHA for r in plain),
        "its interval over architectures reaches 0": all(r["high"] < 0 for r in plain),
        "given the covariates its interval reaches 0": all(r["high"] < 0 for r in partial),
        f"it is positive on {', '.join(dict.fromkeys(opposite))}": not opposite,
    }
    failed = [reason for reason, passed in checks.items() if not passed]
    if not failed:
        return verdict(SUPPORTED, f"{numbers} It holds in every way of counting.")
    least = max((r["detectable"] for r in plain), key=lambda v: -1 if math.isnan(v) else v)
    power = f"±{least:.2f}" if math.isfinite(least) else "none of any size"
    return verdict(UNDECIDED, f"{numbers} Not supported: {'; '.join(failed)}. Detectable at power {POWER}: {power}.")


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


def capacity_by_factors(table: Table) -> dict[str, Any]:
    """The beta-VAE's active latents, KL and DCI relative to the VAE's with as many latents, against factors per
    latent; and the slope of each over the numbers of latents within data sets.

    Relative to the VAE, because whatever has fewer latents uses fewer. Within data sets, because they differ in much
    beside their number of factors: over 4 or 5 of them no trend can be told from chance. Only the architectures as
    they are by default, apart from their number of latents. The slope is least squares with an intercept for each
    data set; the error of a ratio is that of seeds, whose relative deviation is pooled over an architecture's cells.
    """
    names = (*CAPACITY, DISENTANGLEMENT)
    levels = []
    plain = np.array([variant == "" or _is_size(variant) for variant in table["variant"].tolist()])
    for dataset, latents in dict.fromkeys(zip(table["dataset"].tolist(), table["latents"].tolist())):
        here = plain & (table["dataset"] == dataset) & (table["latents"] == latents)
        beta, vae = here & (table["architecture"] == "beta"), here & (table["architecture"] == "vae")
        per_latent = _mean(table["num_factors"][beta] / latents)
        if not (vae.any() and per_latent > 0):  # sets without generative factors have none
            continue
        level = {"dataset": dataset, "latents": latents, "factors_per_latent": per_latent}
        for name in names:
            for architecture, rows in (("beta", beta), ("vae", vae)):
                values = column(table, name)[rows]
                level[f"{name}_{architecture}_seeds"] = values[np.isfinite(values)].tolist()
                level[f"{name}_{architecture}"] = _mean(values)
            level[name] = _ratio(level[f"{name}_beta"], level[f"{name}_vae"])
        levels.append(level)
    return {"levels": levels, "trends": {name: _trend(levels, name) for name in names}}


def _is_size(variant: str) -> bool:
    """Whether a variant differs from its architecture's defaults in the number of latents alone."""
    return variant.startswith("latents=") and "," not in variant


def with_trend(levels: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The levels of data sets that have at least `SIZES` numbers of latents."""
    datasets = [level["dataset"] for level in levels]
    return [level for level in levels if datasets.count(level["dataset"]) >= SIZES]


def _trend(levels, name: str) -> dict[str, float]:
    """Slope of a ratio on factors per latent, with its interval over seeds."""
    levels = [level for level in with_trend(levels) if math.isfinite(level[name])]
    if not levels:
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    x, ratio = (np.array([level[key] for level in levels], float) for key in ("factors_per_latent", name))
    datasets = np.array([level["dataset"] for level in levels])
    centered = x - np.array([x[datasets == dataset].mean() for dataset in datasets])
    weights = centered / np.sum(centered**2)
    variances, freedoms = [], []
    for architecture in ("beta", "vae"):
        seeds = [np.array(level[f"{name}_{architecture}_seeds"]) for level in levels]
        relative, freedom = statistics.pooled_variance([s / s.mean() for s in seeds if s.mean() > 0])
        variances.append(np.sum((weights * ratio) ** 2 * relative / [len(s) for s in seeds]))
        freedoms.append(freedom)
    value = float(weights @ ratio)
    low, high = statistics.t_interval(value, variances, freedoms)
    return {"value": value, "low": low, "high": high}


def capacity_verdict(capacity: Mapping[str, Any]) -> Verdict:
    """Finding (ii) from `capacity_by_factors`."""
    claim = "The β-VAE loses capacity when the number of factors nears the number of latents."
    rule = (
        "The β-VAE's active latents and its KL, each relative to the VAE's with as many latents, are regressed on "
        f"factors per latent, over at least {SIZES} numbers of latents within each data set. Supported: the intervals "
        f"over seeds of both slopes lie below 0. Contradicted: both lie above −{NEGLIGIBLE_LOSS}, a tenth of the VAE's "
        f"capacity for each factor per latent. Undecided otherwise, and where no run has {NEARS} factors per latent."
    )
    verdict = functools.partial(Verdict, "ii", claim, rule=rule)
    levels, trends = with_trend(capacity["levels"]), capacity["trends"]
    decisive = [trends[name] for name in CAPACITY]
    if not levels:
        return verdict(
            UNDECIDED,
            f"Needs VAE and β-VAE with {SIZES} numbers of latents on a data set with known factors. Data sets differ "
            "in more than their number of factors: a trend over them alone would say nothing.",
        )
    largest = max(level["factors_per_latent"] for level in levels)
    each = "; ".join(
        f"{name.replace('_', ' ')} {t['value']:.2f} [{t['low']:.2f}, {t['high']:.2f}]" for name, t in trends.items()
    ).replace("-", "−")
    numbers = f"Slope over {len(levels)} designs of up to {largest:.2g} factors per latent: {each}."
    if largest < NEARS - 1e-9:
        return verdict(UNDECIDED, f"{numbers} The number of factors nowhere nears the number of latents.")
    if all(t["high"] < 0 for t in decisive):
        return verdict(SUPPORTED, numbers)
    if all(t["low"] > -NEGLIGIBLE_LOSS for t in decisive):
        return verdict(CONTRADICTED, f"{numbers} A loss worth the name is excluded.")
    return verdict(UNDECIDED, numbers)


def _mean(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else math.nan


def _ratio(numerator, denominator):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(denominator) > 0, np.divide(numerator, denominator), math.nan)[()]


# --- (iii) winners ---------------------------------------------------------------------------------------


def winners_by_score(table: Table) -> list[dict[str, Any]]:
    """The configuration with the highest mean of each of the `WINNING` scores on each data set, how far ahead it
    is, who wins each seed, and how often each would win if a single run of each were drawn."""
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
        "otherwise: then different winners may be chance."
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
        label: statistics.pooled_variance([values[label] for values in groups.values() if label in values])
        for label in labels
    }
    for values in groups.values():
        p_values = statistics.pairwise_p_values(list(values.values()), [spread[label] for label in values])
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


def vq_strength(table: Table) -> list[dict[str, Any]]:
    """VQ-VAE's causal effect strength relative to the other architectures' mean, per data set and pooled.

    kind "sweep" is the reported perturbation; "code swap" replaces codes by others in use, and is compared with
    the others' `Resample`: each on its own data manifold. Intervals (96 %): Student's t for VQ-VAE's seeds and for the
    other architectures, each of which counts by its mean.
    """
    found = []
    for kind, own, others in (
        ("sweep", EFFECT, EFFECT),
        ("code swap", "ces_code_swap_l2", "ces_resample_l2"),
    ):
        shares = {}
        for dataset in dict.fromkeys(table["dataset"].tolist()):
            here = rows_of(table, table["dataset"] == dataset)
            shares[dataset] = _share(here, own, others)
            found.append({"kind": kind, "dataset": dataset, **_share_interval([shares[dataset]])})
        defined = [share for share in shares.values() if math.isfinite(share.value)]
        found.append({"kind": kind, "dataset": statistics.POOLED, **_share_interval(defined)})
    return found


class Share(NamedTuple):
    """VQ-VAE's strength as a share of the other architectures' mean on one data set, and what its error is made of."""

    value: float
    variance: float  # from VQ-VAE's seeds
    freedom: int
    others: dict[str, float]  # architecture -> what it adds to the share by not being the others' mean


def _share(here: Table, own: str, others: str) -> Share:
    is_vq = here["architecture"] == "vq"
    values, rest = column(here, own)[is_vq], column(here, others)
    values = values[np.isfinite(values)]
    names = dict.fromkeys(here["architecture"][~is_vq & np.isfinite(rest)].tolist())
    means = {name: _mean(rest[here["architecture"] == name]) for name in names}
    means = {name: mean for name, mean in means.items() if mean > 0}
    if not (means and len(values)):
        return Share(math.nan, math.nan, 0, {})
    logs = np.log(list(means.values()))
    mean = math.exp(logs.mean())
    value = float(_mean(values) / mean)
    variance, freedom = statistics.pooled_variance([values])
    # First order: the logarithm of the share falls by what that of the others' mean rises.
    added = dict(zip(means, value * (logs.mean() - logs) / len(logs)))
    return Share(value, variance / len(values) / mean**2, freedom, added)


def _share_interval(shares: Sequence[Share]) -> dict[str, float]:
    """Geometric mean share with its interval; where a share is 0, the arithmetic one. An architecture is one thing on
    all data sets: what it adds, it adds as one."""
    if not shares:
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    values = np.array([share.value for share in shares])
    positive = bool((values > 0).all())
    scale = values if positive else np.ones(len(values))  # errors of logarithms are relative ones
    added: dict[str, float] = {}
    for share, unit in zip(shares, scale):
        for name, part in share.others.items():
            added[name] = added.get(name, 0.0) + part / unit / len(shares)
    freedom = len(added) - 1
    between = sum(part**2 for part in added.values()) * len(added) / freedom if freedom > 0 else math.nan
    variances = [share.variance / (unit * len(shares)) ** 2 for share, unit in zip(shares, scale)]
    mean = float(np.mean(np.log(values) if positive else values))
    freedoms = [*(share.freedom for share in shares), freedom]
    interval = statistics.t_interval(mean, [*variances, between], freedoms, SHARE_LEVEL)
    value, low, high = np.exp([mean, *interval]) if positive else (mean, *interval)
    return {"value": float(value), "low": float(low), "high": float(high)}


def near_zero_verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """Finding (iv) from `vq_strength`."""
    claim = "Causal effect strength on the VQ-VAE is near zero."
    rule = (
        f"Near zero: less than {NEAR_ZERO:.0%} of the other architectures' geometric mean on a data set, with the "
        "reported perturbation. Supported: the interval of the mean over data sets lies below, and no data set's "
        "interval lies above. Contradicted: the mean's interval lies above, and no data set's below. Undecided "
        "otherwise. Code swaps are shown beside it: they say whether the codes matter, whatever a sweep finds."
    )
    verdict = functools.partial(Verdict, "iv", claim, rule=rule)
    pooled = {row["kind"]: row for row in rows if row["dataset"] == statistics.POOLED}
    sweep, swap = pooled["sweep"], pooled["code swap"]
    if not math.isfinite(sweep["value"]):
        return verdict(UNDECIDED, "The table has no runs of the VQ-VAE beside others with a defined strength.")
    swaps = (
        f"{swap['value']:.1%} [{swap['low']:.1%}, {swap['high']:.1%}]" if math.isfinite(swap["value"]) else "undefined"
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
    mixed = f" Above {NEAR_ZERO:.0%} on: {', '.join(above) or 'none'}; below on: {', '.join(below) or 'none'}."
    return verdict(UNDECIDED, numbers + mixed)
