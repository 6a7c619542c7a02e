"""Finding (i): within a data set, causal effect strength and DCI disentanglement correlate negatively."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import comparisons, statistics, strata
from experiments.report.tables import COVARIATES, DISENTANGLEMENT, EFFECT, Table, column, rows_of
from experiments.report.verdicts import ALPHA, CONTRADICTED, POWER, SUPPORTED, UNDECIDED, Verdict

NEGLIGIBLE = 0.1  # a correlation weaker than this is none


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
    adjusted = comparisons.holm_sidak([row["p_value"] for row in rows])
    tests = int(np.isfinite(adjusted).sum())
    for row, p_value in zip(rows, adjusted, strict=True):
        row["p_adjusted"] = float(p_value)
        row["detectable"] = comparisons.detectable_correlation(row["effective_runs"], max(1, tests), ALPHA, POWER)
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
        for row in strata.within_strata_correlations(*columns, method, seed)
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
    pooled = [r for r in rows if r["stratum"] == strata.POOLED]
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
