"""Words on mediation: where "the effect through" a latent is well defined, and where interaction forbids to say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report.figures import display

CARRIES = 0.05  # of the total effect: a latent with less is not asked what passes through it
NAMED = 3  # factor and latent, of the largest interactions


def lines(records: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """A sentence for each run of one data set; none for a run whose record has no interaction."""
    return [f"{display(r['label'])}: {text}" for r in records if r and (text := sentence(r))]


def sentence(record: Mapping[str, Any]) -> str:
    """What one run's mediation allows to say; empty for results of versions that did not measure interaction."""
    mediation = record.get("mediation")
    if not mediation or mediation.get("interaction_share") is None:
        return ""
    indirect = np.array(mediation["estimate"], float)[:, :, list(mediation["effects"]).index("indirect")]
    share, limit = np.array(mediation["interaction_share"], float), mediation["limit"]
    carries = np.abs(indirect) >= CARRIES
    asked = f"latents that carry at least {CARRIES:.0%} of a factor's effect"
    if not carries.any():
        return f"no {asked}."
    beyond = carries & (share > limit)
    if not beyond.any():
        return f"“the effect through” is well defined for all {carries.sum()} {asked} (interaction up to {limit:.0%})."
    order = np.argwhere(beyond)[np.argsort(-share[beyond], kind="stable")][:NAMED]
    factors = [name.replace("_", " ") for name in record["data"]["factors"]]
    named = ", ".join(f"{factors[k]} through z{i} {share[k, i]:.0%}" for k, i in order)
    return (
        f"“the effect through” is not well defined for {beyond.sum()} of {carries.sum()} {asked}: interaction exceeds "
        f"{limit:.0%} of the total effect ({named}).{_by_distance(mediation, carries)}"
    )


def _by_distance(mediation: Mapping[str, Any], carries: np.ndarray) -> str:
    """How the share differs between the nearest and the farthest pairs."""
    binned = np.array(mediation["share_by_distance"], float)[carries]  # [found, B]
    binned = binned[np.isfinite(binned).all(axis=1)]
    if not binned.size:
        return ""
    near, far = np.median(binned[:, 0]), np.median(binned[:, -1])
    return f" In the median it is {near:.0%} between near images and {far:.0%} between far ones."
