"""Finding (ii): the beta-VAE loses capacity when the number of factors nears the number of latents."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import comparisons, statistics
from experiments.report.tables import DISENTANGLEMENT, Table, column, mean_of_defined
from experiments.report.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED, Verdict

NEGLIGIBLE_LOSS = 0.1  # of the VAE's capacity, lost by the beta-VAE for each factor per latent
NEARS = 0.7  # factors per latent from which their number "nears" the latents'
SIZES = 3  # numbers of latents from which a data set has a trend
CAPACITY = ("active_latents", "kl")  # what decides of capacity


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
        per_latent = mean_of_defined(table["num_factors"][beta] / latents)
        if not (vae.any() and per_latent > 0):  # sets without generative factors have none
            continue
        level = {"dataset": dataset, "latents": latents, "factors_per_latent": per_latent}
        for name in names:
            for architecture, rows in (("beta", beta), ("vae", vae)):
                values = column(table, name)[rows]
                level[f"{name}_{architecture}_seeds"] = values[np.isfinite(values)].tolist()
                level[f"{name}_{architecture}"] = mean_of_defined(values)
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
        relative, freedom = comparisons.pooled_variance([s / s.mean() for s in seeds if s.mean() > 0])
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


def _ratio(numerator, denominator):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(denominator) > 0, np.divide(numerator, denominator), math.nan)[()]
