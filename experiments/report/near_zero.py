"""Finding (iv): causal effect strength on the VQ-VAE is near zero."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.report import comparisons, statistics, strata
from experiments.report.tables import EFFECT, Table, column, mean_of_defined, rows_of
from experiments.report.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED, Verdict

SHARE_LEVEL = 0.96  # of the intervals of shares: at 0.95 a verdict at NEAR_ZERO would be wrong in 3.1 % on one side
NEAR_ZERO = 0.1  # of the other architectures' strength


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
        found.append({"kind": kind, "dataset": strata.POOLED, **_share_interval(defined)})
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
    means = {name: mean_of_defined(rest[here["architecture"] == name]) for name in names}
    means = {name: mean for name, mean in means.items() if mean > 0}
    if not (means and len(values)):
        return Share(math.nan, math.nan, 0, {})
    logs = np.log(list(means.values()))
    mean = math.exp(logs.mean())
    value = float(mean_of_defined(values) / mean)
    variance, freedom = comparisons.pooled_variance([values])
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
    pooled = {row["kind"]: row for row in rows if row["dataset"] == strata.POOLED}
    sweep, swap = pooled["sweep"], pooled["code swap"]
    if not math.isfinite(sweep["value"]):
        return verdict(UNDECIDED, "The table has no runs of the VQ-VAE beside others with a defined strength.")
    swaps = _with_interval(swap) if math.isfinite(swap["value"]) else "undefined"
    numbers = (
        f"By sweep {_with_interval(sweep)} of the other architectures'; "
        f"by code swaps {swaps} of their resampling strength."
    )
    single = [row for row in rows if row["kind"] == "sweep" and row["dataset"] != strata.POOLED]
    above = [row["dataset"] for row in single if row["low"] > NEAR_ZERO]
    below = [row["dataset"] for row in single if row["high"] < NEAR_ZERO]
    if sweep["high"] < NEAR_ZERO and not above:
        return verdict(SUPPORTED, numbers)
    if sweep["low"] > NEAR_ZERO and not below:
        return verdict(CONTRADICTED, numbers)
    mixed = f" Above {NEAR_ZERO:.0%} on: {', '.join(above) or 'none'}; below on: {', '.join(below) or 'none'}."
    return verdict(UNDECIDED, numbers + mixed)


def _with_interval(share: Mapping[str, Any]) -> str:
    """A share with its interval; one run has none."""
    if not math.isfinite(share["low"]):
        return f"{share['value']:.1%} (one run: no interval)"
    return f"{share['value']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"
