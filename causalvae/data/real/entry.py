"""An entry of the cache as it is read: its record, checked, and its arrays, mapped and checked against the record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from causalvae import _files
from causalvae._files import DamagedFile

PROVENANCE = "provenance.json"
ALWAYS_VERIFY_BELOW = 256 * 2**20  # bytes: smaller arrays are hashed at every opening (under 0.3 s)
MEND = "pass rebuild=True to `load` (or --rebuild to `python -m causalvae prepare`), or delete that folder"
_ARRAY = {"sha256": str, "bytes": int, "modified_ns": int, "file?": str}
RECORD = {"files": [{"name": str, **_ARRAY}], "arrays": {...: _ARRAY}}


class CorruptCache(DamagedFile):
    """A prepared entry whose content is not what its record says."""


class StaleCache(DamagedFile):
    """A prepared entry whose source file has been replaced since."""


class Prepared(NamedTuple):
    """A prepared data set on disk."""

    path: Path
    arrays: dict[str, np.memmap]  # read-only
    facts: dict[str, Any]  # provenance.json


def open_entry(entry: Path, *, verify: bool = False) -> Prepared:
    """The prepared arrays, read-only; CorruptCache names the file that is not what the record says."""
    facts = read_record(entry)
    while True:
        try:
            arrays = {name: _open_array(entry, name, record, verify) for name, record in facts["arrays"].items()}
            return Prepared(entry, arrays, facts)
        except (CorruptCache, FileNotFoundError):
            before, facts = facts, read_record(entry)
            if facts == before:  # else it was built anew in between
                raise


def read_record(entry: Path) -> dict[str, Any]:
    """Returns what an entry's record says; CorruptCache where it is damaged."""
    path = entry / PROVENANCE
    try:
        return _files.read_json(path, "record of prepared data", RECORD, MEND)
    except FileNotFoundError as error:
        raise CorruptCache(f"the prepared data in {entry} lacks {path.name}; {MEND}") from error
    except DamagedFile as error:
        raise CorruptCache(f"the record {path} cannot be read ({error})") from error


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_array(entry: Path, name: str, record: dict[str, Any], verify: bool) -> np.memmap:
    """Map one array. The hash is taken when asked for, when it is cheap, and when the file was touched."""
    path = entry / record.get("file", f"{name}.npy")
    if path.parent != entry:
        raise CorruptCache(f"the record of the prepared data in {entry} names {path}, outside of it; {MEND}")
    if not path.is_file():
        raise CorruptCache(f"the prepared data in {entry} lacks {path.name}; {MEND}")
    status = path.stat()
    touched = (status.st_size, status.st_mtime_ns) != (record["bytes"], record["modified_ns"])
    if touched or verify or status.st_size < ALWAYS_VERIFY_BELOW:
        found = sha256_of(path)
        if found != record["sha256"]:
            raise CorruptCache(
                f"the prepared data in {entry} is damaged: {path.name} ({status.st_size:,} bytes) has sha256 "
                f"{found[:12]}…, its record says {record['sha256'][:12]}… ({record['bytes']:,} bytes); {MEND}"
            )
    return open_map(path)


def open_map(path: Path) -> np.memmap:
    """Returns the array of a .npy file, mapped and not read; DamagedFile, in words, where it is none."""
    with _files.reading(path, "array (.npy)", MEND):
        return np.lib.format.open_memmap(path, mode="r")


def check_sources(opened: Prepared, files: Sequence[Path]) -> None:
    """StaleCache where a source file is not the one that the entry was made from, by content."""
    records = {record["name"]: record for record in opened.facts["files"]}
    for path in files:
        record = records.get(path.name)
        status = path.stat()
        if record and (status.st_size, status.st_mtime_ns) == (record["bytes"], record["modified_ns"]):
            continue
        if record is None or status.st_size != record["bytes"] or sha256_of(path) != record["sha256"]:
            raise StaleCache(
                f"{path} is not the file that the prepared data in {opened.path} was made from; "
                f"to prepare it again, {MEND}"
            )
