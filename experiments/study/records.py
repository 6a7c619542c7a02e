"""What a study leaves on disk: one folder per run, and one table of them all.

<workdir>/study.lock                 held by the study that runs
<workdir>/groups.json, groups/       which runs train together, and their checkpoints and training curves
<workdir>/runs/<run>/record.json     settings, provenance, every score, results per latent; written last
<workdir>/runs/<run>/images.npz      images, reconstructions and traversals of a few latents
<workdir>/runs/<run>/timing.json     seconds; apart from the record, so that records are reproducible
<workdir>/table.csv, table.npz       one row per run; times.csv the seconds
"""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from causalvae import _files
from causalvae._files import NUMBER, Numbers
from causalvae._npz import Wanted, read_npz
from causalvae.progress import whole_file, write_json, write_text, writing
from configs.common import ARCHITECTURES, DATASETS

# Columns of text; all others are numbers.
TEXT = ("run", "label", "architecture", "variant", "dataset", "source", "status", "reason")
TEXT += ("device", "versions", "config")
BESIDE = ("standard_error", "null", "ceiling")  # what a table shows of a score beside its value
DONE, FAILED = "done", "failed"
ORDER = tuple(DATASETS), tuple(ARCHITECTURES)
COLUMNS = ("run", "label", "architecture", "variant", "dataset", "source", "seed", "steps", "status", "reason")
COLUMNS += ("num_factors", "latents", "parameters", "device", "versions", "config")  # that every table has
AGAIN = "delete that run's folder, and `python -m causalvae study` with the same flags does it again"
SETTINGS = {"sites?": ({...: NUMBER}, list, str), "null_*": NUMBER}
SCORE = {"name": str, "value": NUMBER, "settings": SETTINGS, **dict.fromkeys(BESIDE, NUMBER)}
RECORD = {
    **{name: str for name in ("run", "label", "variant", "status", "reason", "device")},
    "seed": int,
    "architecture": {"name": str, "latents": int, "parameters": int, "network?": str},
    "data": {"name": str, "source": str, "factor_kind": str, "factors": {...: int}},
    "training": {"steps": int},
    "evaluation": dict,
    "config": {f"{section}?": dict for section in ("architecture", "data", "training", "evaluation")},
    "versions": {...: str},
    "scores?": [SCORE],
    "strengths?": {...: NUMBER},
    "patching?": ({"sites": [str], "largest": Numbers(2)}, type(None)),
    "mediation?": ({"effects": [str], "estimate": Numbers(3)}, type(None)),
}
IMAGES = {
    "images": Wanted("u", (None, None, None, None)),
    "reconstructed": Wanted("u", (None, None, None, None)),
    "latents": Wanted("iu", (None,)),
    "specificity": Wanted("f", (None,)),
    "traversals": Wanted("u", (None, None, None, None, None)),
}


# --- one run ---------------------------------------------------------------------------------------------


def run_folder(workdir: pathlib.Path, run_id: str) -> pathlib.Path:
    """The folder of a run. DamagedFile for a name that leads out of the study, as other people's records could."""
    path = pathlib.PurePath(run_id)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise _files.DamagedFile(f"{workdir} lists a run {run_id!r}, which cannot be the name of its folder")
    return workdir / "runs" / run_id


def write_record(workdir: pathlib.Path, record: Mapping[str, Any], images: Mapping[str, np.ndarray], seconds) -> None:
    """Store a finished or failed run; its record last, so that a run counts only when everything is there."""
    folder = run_folder(workdir, record["run"])
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if images:
        write_npz(folder / "images.npz", images)
    write_json(folder / "timing.json", seconds)
    write_json(folder / "record.json", record)


def read_record(workdir: pathlib.Path, run_id: str) -> dict[str, Any] | None:
    """The record of a run, or None where it has not been stored."""
    path = run_folder(workdir, run_id) / "record.json"
    if not path.exists():
        return None
    record = _files.read_json(path, "record of a run", RECORD, AGAIN)
    if record["run"] != run_id:
        raise _files.DamagedFile(f"{path} is the record of another run, {record['run']}; {AGAIN}")
    return record


def stored_record(workdir: pathlib.Path, run_id: str) -> dict[str, Any]:
    """The record of a run that the table lists; FileNotFoundError where it is gone."""
    record = read_record(workdir, run_id)
    if record is None:
        path = run_folder(workdir, run_id) / "record.json"
        raise FileNotFoundError(f"{path} is missing, though the table lists that run; {AGAIN}")
    return record


def read_records(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The records of all runs of a directory, whichever calls made them: data set by data set, then architecture,
    variant and seed. FileNotFoundError where there are none."""
    folder = workdir / "runs"
    names = [path.parent.relative_to(folder).as_posix() for path in sorted(folder.rglob("record.json"))]
    if not names:
        raise FileNotFoundError(f"no study in {workdir}: no run is evaluated. `python -m causalvae study` does that.")
    return sorted((stored_record(workdir, name) for name in names), key=_place)


def _place(record: Mapping[str, Any]) -> tuple:
    dataset, architecture = record["data"]["name"], record["architecture"]["name"]
    known = [names.index(name) if name in names else len(names) for names, name in zip(ORDER, (dataset, architecture))]
    numbers = [float(text) for text in re.findall(r"=(\d+\.?\d*)", record["variant"])]
    return known[0], dataset, known[1], architecture, record["variant"].partition("=")[0], numbers, record["seed"]


def read_images(workdir: pathlib.Path, run_id: str) -> dict[str, np.ndarray]:
    """The images of a run that is done."""
    path = run_folder(workdir, run_id) / "images.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing beside its record; {AGAIN}")
    images = read_npz(path, IMAGES, "file of a run's images", AGAIN)
    if len({len(images[name]) for name in ("latents", "specificity", "traversals")}) > 1:
        raise _files.DamagedFile(f"{path}: its latents, specificity and traversals differ in length; {AGAIN}")
    return images


def write_npz(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """A compressed .npz, whole or not at all; the same arrays give the same bytes."""
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, **arrays)


# --- the table -------------------------------------------------------------------------------------------


def tabulate(records: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """One row per record. Text columns, numbers (NaN where undefined), and for every score its value with
    `<score>.standard_error`, `.null`, `.ceiling` and other nulls beside it."""
    rows = [_row(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {
        name: np.array([row.get(name, "") for row in rows])
        if name in TEXT
        else np.array([_number(row.get(name)) for row in rows], float)
        for name in names
    }


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    data, architecture = record["data"], record["architecture"]
    generative = data["factor_kind"] == "generative"
    row = {
        "run": record["run"],
        "label": record["label"],
        "architecture": architecture["name"],
        "variant": record["variant"],
        "dataset": data["name"],
        "source": data["source"],
        "seed": record["seed"],
        "steps": record["training"]["steps"],
        "status": record["status"],
        "reason": record["reason"],
        "num_factors": len(data["factors"]) if generative else None,
        "latents": architecture["latents"],
        "parameters": architecture["parameters"],
        "device": record["device"],
        "versions": json.dumps(record["versions"]),
        "config": json.dumps({key: record[key] for key in ("architecture", "training", "evaluation")}),
    }
    row |= record.get("strengths", {})  # those that are scores follow once more, with what belongs to a score
    for score in record.get("scores", ()):
        name = score["name"]
        row[name] = score["value"]
        row |= {f"{name}.{beside}": score[beside] for beside in BESIDE}
        nulls = {key: value for key, value in score["settings"].items() if key.startswith("null_")}
        row |= {f"{name}.{key}": value for key, value in nulls.items()}
    return row


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def write_table(workdir: pathlib.Path, table: Mapping[str, np.ndarray]) -> None:
    """table.csv (undefined values empty, numbers in full precision) and table.npz."""
    write_text(workdir / "table.csv", to_csv(table))
    write_npz(workdir / "table.npz", table)


def to_csv(table: Mapping[str, np.ndarray]) -> str:
    """CSV text of a table; whole numbers without a point, undefined ones empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow([_csv_cell(value) for value in row])
    return buffer.getvalue()


def from_csv(text: str) -> dict[str, np.ndarray]:
    """Returns a table from its CSV text: the inverse of `to_csv`."""
    names, *rows = csv.reader(io.StringIO(text))
    columns = zip(*rows, strict=True)
    return {
        name: np.array(values) if name in TEXT else np.array([float(value) if value else math.nan for value in values])
        for name, values in zip(names, columns, strict=True)
    }


def _csv_cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    value = float(value)
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def read_table(workdir: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The table of a study, finished or not; of one that was stopped before it wrote any, made of its records.

    FileNotFoundError says what makes one.
    """
    path = pathlib.Path(workdir) / "table.npz"
    if path.exists():
        return _stored_table(path)
    if any((path.parent / "runs").rglob("record.json")):
        return tabulate(read_records(path.parent))
    if (path.parent / "groups.json").exists():
        raise FileNotFoundError(
            f"no run of the study in {workdir} is finished. `python -m causalvae study` with the same flags goes on."
        )
    raise FileNotFoundError(f"no study in {workdir}: no {path.name}. `python -m causalvae study` makes one.")


def _stored_table(path: pathlib.Path) -> dict[str, np.ndarray]:
    what, mend = "table of a study", "delete it, and it is made of the runs' records"
    shapes = {name: Wanted("U" if name in TEXT else "f", (None,)) for name in COLUMNS}
    try:
        table = read_npz(path, {**shapes, ...: Wanted("Uf", (None,))}, what, mend)
    except _files.DamagedFile as error:
        raise error if mend in str(error) else _files.DamagedFile(f"{error}; {mend}") from error
    if len({len(values) for values in table.values()}) > 1 or not len(table["run"]):
        raise _files.DamagedFile(f"{path} is no {what}: its columns differ in length, or are empty; {mend}")
    with _files.reading(path, what, mend):
        cells = [json.loads(text) for text in (*table["versions"], *table["config"])]
    if not all(isinstance(cell, dict) for cell in cells):
        raise _files.DamagedFile(f"{path} is no {what}: its versions and configurations are no objects; {mend}")
    return table


def read_seconds(workdir: pathlib.Path, run_id: str) -> dict[str, float]:
    """Returns what timing.json says of a run; empty where there is none."""
    path = run_folder(workdir, run_id) / "timing.json"
    return _files.read_json(path, "file of a run's seconds", mend="delete it") if path.exists() else {}


def write_times(workdir: pathlib.Path, run_ids: Sequence[str]) -> None:
    """times.csv: the seconds of every stored run."""
    found = {run_id: read_seconds(workdir, run_id) for run_id in run_ids}
    rows = [{"run": run_id, **seconds} for run_id, seconds in found.items() if seconds]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    write_text(workdir / "times.csv", "\n".join(lines) + "\n")
