"""What a verdict is, and how often one may err."""

from __future__ import annotations

from typing import NamedTuple

ALPHA, POWER = 0.05, 0.8
SIDE = ALPHA / 2  # of a verdict one way: "supported" and "contradicted" each err at most so often
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


class Verdict(NamedTuple):
    """What the study says of one finding."""

    finding: str
    claim: str
    verdict: str
    reason: str
    rule: str
