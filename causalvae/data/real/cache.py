"""Prepared images: one memory-mapped uint8 array in factor order, written once, with its provenance.

    <entry>/images.npy       [*grid, H, W, C] uint8 (a plain .npy file: any numpy can map it)
    <entry>/<other>.npy      what a set needs beside its images (attributes, landmarks…)
    <entry>/provenance.json  factors, options, source files, and the sha256 of every file

An entry is built in a folder of its own and appears under its name by one rename, so that a reader finds a
whole entry or none. Whatever an interrupted preparation left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PROVENANCE = "provenance.json"
FOLDER = "causalvae_cache"
ALWAYS_VERIFY_BELOW = 256 * 2**20  # bytes: smaller arrays are hashed at every opening (under 0.3 s)
MEND = "pass rebuild=True to `load` (or --rebuild to `python -m experiments.prepare`), or delete that folder"


class CorruptCache(ValueError):
    """A prepared entry whose content is not what its record says."""


class StaleCache(ValueError):
    """A prepared entry whose source file has been replaced since."""


class Prepared(NamedTuple):
    """A prepared data set on disk."""

    path: Path
    arrays: dict[str, np.memmap]  # read-only
    facts: dict[str, Any]  # provenance.json


class Store:
    """What a build writes into: arrays on disk, and a line of progress now and then."""

    def __init__(self, folder: Path, title: str):
        self.folder = folder
        self.progress = Countdown(title)
        self._maps: list[np.memmap] = []

    def create(self, name: str, shape: Sequence[int], dtype: Any = np.uint8) -> np.memmap:
        """Returns a new array on disk, writable, filled with zeros; OSError where the disk cannot hold it."""
        needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        free = shutil.disk_usage(self.folder).free
        if needed > free:  # a memory map on a full disk ends in SIGBUS, not in an exception
            raise OSError(
                f"{self.folder.parent} has {free / 2**30:.1f} GiB free and {name} needs "
                f"{needed / 2**30:.1f} GiB; make room, or pass cache_dir=… on another disk"
            )
        self._maps.append(np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", dtype, tuple(shape)))
        return self._maps[-1]

    def save(self, name: str, array: np.ndarray) -> None:
        """Writes a small array."""
        np.save(self.folder / f"{name}.npy", array, allow_pickle=False)

    def open(self, name: str) -> np.memmap:
        """Returns an array that was written, read-only."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def flush(self) -> None:
        """Puts everything on disk, so that sizes and times are final."""
        for array in self._maps:
            array.flush()


Build = Callable[[Store], dict[str, Any]]  # writes arrays into the store; returns facts for the record


def prepare(
    entry: Path, files: Sequence[Path], build: Build, *, rebuild: bool = False, verify: bool = False
) -> Prepared:
    """Opens `entry`, building it first where it does not exist.

    Two processes that prepare at once do not disturb each other: the second waits and takes the result.

    Args:
        entry: The folder.
        files: What it is made of; a record of their size and sha256 is kept, and a change is an error.
        build: Writes arrays into a store, and returns facts for the record.
        rebuild: Build it anew where it exists.
        verify: Hash large arrays even if their size and time are those of the last check.

    Raises:
        CorruptCache: the entry's content is not what its record says.
        StaleCache: a source file has been replaced.
        OSError: there is no permission, or no room; besides, whatever `build` raises.
    """
    if rebuild or not (entry / PROVENANCE).is_file():
        _make_folder(entry.parent)
        asked_at = time.time_ns()
        with _only_writer(entry.parent):
            if not _built_since(entry, asked_at if rebuild else 0):
                _build(entry, files, build)
    opened = _open_entry(entry, verify=verify)
    _check_sources(opened, files)
    return opened


def _open_entry(entry: Path, *, verify: bool = False) -> Prepared:
    """The prepared arrays, read-only; CorruptCache names the file that is not what the record says."""
    try:
        facts = json.loads((entry / PROVENANCE).read_text())
        arrays = {name: _open_array(entry, name, record, verify) for name, record in facts["arrays"].items()}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CorruptCache(f"the record {entry / PROVENANCE} cannot be read ({error!r}); {MEND}") from error
    return Prepared(entry, arrays, facts)


def location(name: str, source: Path, cache_dir: str | os.PathLike | None = None) -> Path:
    """Returns where the entry `name`, made from files in the folder `source`, is or will be.

    In `cache_dir` if given; else beside the files; else, where that folder cannot be written, in
    $CAUSALVAE_CACHE or ~/.cache/causalvae, under a name that tells one source folder from another.
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser() / name
    beside = source / FOLDER / name
    if (beside / PROVENANCE).is_file() or _writable(beside.parent if beside.parent.is_dir() else source):
        return beside
    return _default_folder() / f"{name}-{_mark(source)}"


def entries(source: Path, cache_dir: str | os.PathLike | None = None) -> list[Path]:
    """Returns entries that were made from files in the folder `source` (any, in a `cache_dir`)."""
    if cache_dir is not None:
        found = Path(cache_dir).expanduser().glob(f"*/{PROVENANCE}")
    else:
        found = itertools.chain(
            (source / FOLDER).glob(f"*/{PROVENANCE}"),
            _default_folder().glob(f"*-{_mark(source)}/{PROVENANCE}"),
        )
    return sorted(path.parent for path in found)


def _default_folder() -> Path:
    return Path(os.environ.get("CAUSALVAE_CACHE") or "~/.cache/causalvae").expanduser()


def _mark(source: Path) -> str:
    return hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:12]


def _writable(folder: Path) -> bool:
    """Whether new files may be put there. A folder without any write bit is respected even by root."""
    any_write_bit = folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    return bool(any_write_bit) and os.access(folder, os.W_OK)


def _sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Countdown:
    """Lines on stderr about a long preparation: share done and time left. Silent when it takes under 5 s."""

    EVERY = 5.0  # seconds

    def __init__(self, title: str):
        self.title = title
        self.started = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last >= self.EVERY and done:
            self.last = now
            left = (now - self.started) / done * (total - done)
            print(
                f"{self.title}: {done:,} of {total:,} images ({done / total:.0%}), {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


def _build(entry: Path, files: Sequence[Path], build: Build) -> None:
    """Build in a folder of its own, then rename it; on any failure, and on Ctrl-C, remove it."""
    folder = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".partial", dir=entry.parent))
    try:
        folder.chmod(0o755)  # mkdtemp's 0700 would keep a shared cache from everyone else
        store = Store(folder, f"preparing {entry.name}")
        facts = build(store)
        store.flush()
        facts["files"] = [_file_record(path) for path in files]
        facts["arrays"] = {path.stem: _array_record(path) for path in sorted(folder.glob("*.npy"))}
        (folder / PROVENANCE).write_text(json.dumps(facts, indent=1) + "\n")
        _replace(folder, entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(folder: Path, entry: Path) -> None:
    if entry.exists():  # rebuilding: readers that hold the old arrays open keep them
        old = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".partial", dir=entry.parent))
        os.rename(entry, old)
        os.rename(folder, entry)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(folder, entry)


def _built_since(entry: Path, time_ns: int) -> bool:
    """Whether another process finished the entry while this one waited for its turn."""
    try:
        return (entry / PROVENANCE).stat().st_mtime_ns >= time_ns
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """One writer in a cache folder at a time. The folder itself is what is locked: nothing is left behind.

    A file system without locks costs double work, never a wrong result: entries appear by rename.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            print(f"waiting for another process that prepares data in {folder}", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        except OSError:
            locked = False
        if locked:  # so whoever made these is gone
            for left_over in folder.glob(".*.partial"):
                shutil.rmtree(left_over, ignore_errors=True)
        yield
    finally:
        os.close(handle)


def _make_folder(folder: Path) -> None:
    problem = PermissionError(
        f"cannot write to the cache folder {folder}; name one that can be written with cache_dir=… or $CAUSALVAE_CACHE"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a read-only file system is no PermissionError
        raise problem from error
    if not _writable(folder):
        raise problem


def _array_record(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"sha256": _sha256(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _file_record(path: Path) -> dict[str, Any]:
    return {"name": path.name, **_array_record(path)}


def _open_array(entry: Path, name: str, record: dict[str, Any], verify: bool) -> np.memmap:
    """Map one array. The hash is taken when asked for, when it is cheap, and when the file was touched."""
    path = entry / f"{name}.npy"
    if not path.is_file():
        raise CorruptCache(f"the prepared data in {entry} lacks {path.name}; {MEND}")
    status = path.stat()
    touched = (status.st_size, status.st_mtime_ns) != (record["bytes"], record["modified_ns"])
    if touched or verify or status.st_size < ALWAYS_VERIFY_BELOW:
        found = _sha256(path)
        if found != record["sha256"]:
            raise CorruptCache(
                f"the prepared data in {entry} is damaged: {path.name} ({status.st_size:,} bytes) has sha256 "
                f"{found[:12]}…, its record says {record['sha256'][:12]}… ({record['bytes']:,} bytes); {MEND}"
            )
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _check_sources(opened: Prepared, files: Sequence[Path]) -> None:
    """StaleCache where a source file is not the one that the entry was made from, by content."""
    records = {record["name"]: record for record in opened.facts["files"]}
    for path in files:
        record = records.get(path.name)
        status = path.stat()
        if record and (status.st_size, status.st_mtime_ns) == (record["bytes"], record["modified_ns"]):
            continue
        if record is None or status.st_size != record["bytes"] or _sha256(path) != record["sha256"]:
            raise StaleCache(
                f"{path} is not the file that the prepared data in {opened.path} was made from; "
                f"to prepare it again, {MEND}"
            )
