"""Work in slices: a time limit, and training apart from evaluation.

A run or a study that stops for a signal or for its time limit has stored everything, and leaves with exit status 75
(EX_TEMPFAIL of sysexits.h: try again), so that a loop or a scheduler can tell "go on" from "done" (0) and "failed" (1):

    while python -m experiments.study --config=configs/study.py:quick --time_limit=1800; [ $? -eq 75 ]; do :; done
"""

from __future__ import annotations

import math
import time

from absl import flags

from causalvae.training import Stopped

STAGES = ("all", "train", "evaluate")

STAGE = flags.DEFINE_enum("stage", "all", STAGES, "What to do of the work: training, evaluation, or both.")
TIME_LIMIT = flags.DEFINE_float("time_limit", None, "Stop before so many seconds are over, with everything stored.", 1)


class Clock:
    """How much of a time limit is left. `deadline` is on time.monotonic()'s clock."""

    def __init__(self, limit: float | None = None):
        self.deadline = math.inf if limit is None else time.monotonic() + limit

    def check(self, expected: float, what: str) -> None:
        """Raise Stopped where `what`, which takes about `expected` seconds, would not end in time."""
        if time.monotonic() + expected > self.deadline:
            raise Stopped(f"stopped by the time limit before {what}. The same command goes on from there.")
