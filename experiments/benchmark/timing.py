"""Runs timed in turn, and the tables of what was found."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Row(NamedTuple):
    """One line of a table."""

    name: str
    milliseconds: float  # median over rounds, of one unit of work
    ratio: float  # to the reference: median over rounds of the ratio within a round
    quartiles: tuple[float, float]  # of that ratio
    note: str = ""


class Table(NamedTuple):
    """What a section found."""

    unit: str  # what the milliseconds are for
    reference: str  # name of the row that ratios are to
    rows: list[Row]
    remarks: list[str] = []


def paired(
    runs: Mapping[str, Callable[[], Any]], rounds: int, warm: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Wall seconds [rounds] of each run, the runs taken in turn, forwards and backwards.

    A run may return JAX arrays, which are waited for. Runs named in `warm` (None: all) are called once
    before, so that compilation is not timed.
    """
    for name, run in runs.items():
        if warm is None or name in warm:
            jax.block_until_ready(run())
    seconds = {name: np.zeros(rounds) for name in runs}
    for i in range(rounds):
        for name in list(runs)[:: 1 if i % 2 == 0 else -1]:
            start = time.perf_counter()
            jax.block_until_ready(runs[name]())
            seconds[name][i] = time.perf_counter() - start
    return seconds


def rows_of(seconds: Mapping[str, np.ndarray], reference: str, work: int) -> list[Row]:
    """Rows of timings [rounds]; `work`: units of work that one call of every run does."""
    rows = []
    for name, times in seconds.items():
        low, ratio, high = np.quantile(times / seconds[reference], (0.25, 0.5, 0.75)).tolist()
        rows.append(Row(name, 1e3 * statistics.median(times) / work, ratio, (low, high)))
    return rows


def show(title: str, table: Table) -> str:
    """A table as text."""
    width = max(len(row.name) for row in table.rows)
    lines = [f"{title}: ms per {table.unit}, ratio to {table.reference} [quartiles over rounds]"]
    for row in table.rows:
        low, high = row.quartiles
        timing = f"{row.milliseconds:10.2f}  {row.ratio:6.3f} [{low:.3f} {high:.3f}]"
        lines.append(f"  {row.name:{width}} {timing}  {row.note}".rstrip())
    return "\n".join(lines + [f"  {remark}" for remark in table.remarks])
