"""The record of one score: its value, and everything that is needed to believe it.

A disentanglement score means little without its estimator, its sample sizes, the ceiling that a perfect code
reaches on the same data set and the value that chance gives. `Score` holds them together; a table, a CSV file
or a JSON file of scores is a list of such records.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Score(NamedTuple):
    """One score with its circumstances. JSON-able: `to_json` and `from_json` are exact inverses."""

    name: str
    value: float | None  # None: undefined, and `note` says why
    standard_error: float | None = None
    estimator: str = ""  # how the value was computed, e.g. "gradient boosting (xla)"
    samples: Mapping[str, int] = {}  # e.g. {"train": 10000, "test": 5000}
    settings: Mapping[str, Any] = {}  # bins, thresholds, seeds
    ceiling: float | None = None  # what a perfect, axis-aligned code scores on the same data set
    null: float | None = None  # the same score with the rows of the factors permuted
    note: str = ""  # dropped factors, pruned latents, why a value is undefined


def score(name: str, value: float, **circumstances: Any) -> Score:
    """A `Score` whose value NaN becomes None; ValueError where an undefined value comes without its
    reason."""
    value = float(value)
    if math.isfinite(value):
        return Score(name, value, **circumstances)
    if not circumstances.get("note"):
        raise ValueError(f"{name} is {value}: an undefined score needs a note that says why")
    return Score(name, None, **circumstances)


def to_json(scores: Sequence[Score], **metadata: Any) -> str:
    """JSON text {"scores": [...], **metadata}; undefined values are null."""
    return json.dumps({**metadata, "scores": [s._asdict() for s in scores]}, indent=1, allow_nan=False)


def from_json(text: str) -> list[Score]:
    """The scores in JSON text written by `to_json`."""
    return [Score(**record) for record in json.loads(text)["scores"]]


def to_csv(scores: Sequence[Score]) -> str:
    """CSV text with one row for each score; `samples` and `settings` are JSON inside their cells."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Score._fields)
    for record in scores:
        writer.writerow([json.dumps(dict(x)) if isinstance(x, Mapping) else x for x in record])
    return buffer.getvalue()


def table(scores: Sequence[Score]) -> str:
    """A text table: value ± standard error, the null and the ceiling beside it, then how it was computed."""
    header = ("score", "value", "null", "ceiling", "estimator", "samples", "note")
    rows = [header, *(_row(s) for s in scores)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(record: Score) -> tuple[str, ...]:
    def number(x: float | None) -> str:
        return "–" if x is None else f"{x:.3f}"

    value = "undefined" if record.value is None else number(record.value)
    if record.standard_error is not None:
        value += f" ± {record.standard_error:.3f}"
    samples = ", ".join(f"{count:,} {what}" for what, count in record.samples.items())
    null, ceiling = number(record.null), number(record.ceiling)
    return (record.name, value, null, ceiling, record.estimator, samples, record.note)
