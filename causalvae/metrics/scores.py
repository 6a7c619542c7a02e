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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsFloat


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


def score(name: str, value: SupportsFloat, **circumstances: Any) -> Score:
    """Returns a `Score` whose value NaN becomes None.

    Args:
      name: of the score.
      value: a number.
      **circumstances: other fields of `Score`.

    Raises:
      ValueError: where an undefined value comes without a note that says why.
    """
    known = finite(value)
    if known is None and not circumstances.get("note"):
        raise ValueError(f"{name} is {value}: an undefined score needs a note that says why")
    return Score(name, known, **circumstances)


def no_better_than_chance(score: Score) -> bool:
    """Returns whether a score is within two standard errors of its null (or 1 % of the way to its ceiling), or beyond
    it on the wrong side; False where null or ceiling is not known. Where the null's deviation is known, it counts."""
    if score.value is None or score.null is None or score.ceiling is None:
        return False
    way = score.ceiling - score.null
    errors = score.standard_error or 0.0, score.settings.get("null_deviation") or 0.0
    margin = max(2 * math.hypot(*errors), 0.01 * abs(way))
    return (score.value - score.null) * math.copysign(1.0, way) <= margin


def to_json(scores: Sequence[Score], **metadata: Any) -> str:
    """Returns JSON text {"scores": [...], **metadata}; undefined values are null."""
    return json.dumps({**metadata, "scores": [s._asdict() for s in scores]}, indent=1, allow_nan=False)


def from_json(text: str) -> list[Score]:
    """Returns the scores in JSON text written by `to_json`."""
    return [Score(**record) for record in json.loads(text)["scores"]]


def to_csv(scores: Sequence[Score]) -> str:
    """Returns CSV text with one row for each score; `samples` and `settings` are JSON inside their cells."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Score._fields)
    for record in scores:
        writer.writerow([json.dumps(dict(x)) if isinstance(x, Mapping) else x for x in record])
    return buffer.getvalue()


def table(
    scores: Sequence[Score] | Mapping[str, Sequence[Score]],
    columns: Sequence[str] = ("null", "ceiling", "estimator", "samples", "note"),
    beside: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Returns a text table with one line for each score.

    Args:
      scores: scores, or several lists of the same scores by the titles of their columns.
      columns: what stands right of the values: fields of `Score`, or "how" (the estimator, or why there is no value).
      beside: title -> name of a score -> text, for columns between values and `columns`.
    """
    members = scores if isinstance(scores, Mapping) else {"value": scores}
    beside = beside or {}
    rows = [("score", *members, *beside, *columns)]
    for same in zip(*members.values(), strict=True):
        first = same[0]
        known = [texts.get(first.name, "–") for texts in beside.values()]
        rows.append((first.name, *map(_value, same), *known, *(CELLS[column](first) for column in columns)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


CELLS: dict[str, Callable[[Score], str]] = {
    "null": lambda record: short(record.null),
    "ceiling": lambda record: short(record.ceiling),
    "estimator": lambda record: record.estimator,
    "samples": lambda record: ", ".join(f"{count:,} {what}" for what, count in record.samples.items()),
    "note": lambda record: record.note,
    "how": lambda record: (record.estimator if record.value is not None else "") or record.note or record.estimator,
}


def _value(record: Score) -> str:
    error = "" if record.standard_error is None else f" ± {short(record.standard_error)}"
    return short(record.value) + error


def short(value: float | None) -> str:
    """Returns a number with three significant digits, or more where it is a large one; "–" for None."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 or float(value).is_integer() and abs(value) > 1 else f"{value:.3g}"


def finite(value: SupportsFloat) -> float | None:
    """Returns the number as a float; None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(float(value)) else None
