"""Prepared images: one memory-mapped uint8 array in factor order, written once, with its provenance.

    <entry>/images.npy       [*grid, H, W, C] uint8 (a plain .npy file: any numpy can map it)
    <entry>/<other>.npy      what a set needs beside its images (attributes, landmarks…)
    <entry>/provenance.json  factors, options, source files, and the sha256 of every file

An entry is built in a folder of its own and appears under its name by one rename. One that is built anew stays where
it is: arrays that differ come beside the old ones under names of their own, and the record, which names them, is
replaced by one rename. So a reader finds a whole entry or none. Whatever an interrupted preparation left is removed by
the next one.
"""

from __future__ import annotations

import contextlib
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
from typing import Any

import numpy as np

from causalvae import locks
from causalvae.data.real.entry import (  # noqa: F401 (also for whoever reads a cache)
    MEND,
    PROVENANCE,
    CorruptCache,
    Prepared,
    StaleCache,
    check_sources,
    open_entry,
    open_map,
    read_record,
    sha256_of,
)

FOLDER = "causalvae_cache"


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
        return open_map(self.folder / f"{name}.npy")

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
    opened = open_entry(entry, verify=verify)
    check_sources(opened, files)
    return opened


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
        _publish(folder, entry, facts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, entry: Path, facts: dict[str, Any]) -> None:
    """Gives what was built its place: a new entry by one rename, an old one by one rename of its record.

    Readers that hold old arrays open keep them; those that come between two steps find the old record and its arrays.
    """
    if not entry.exists():
        (folder / PROVENANCE).write_text(json.dumps(facts, indent=1) + "\n")
        os.rename(folder, entry)
        return
    for name, record in facts["arrays"].items():
        _move_array(folder / f"{name}.npy", entry, record)
    (folder / PROVENANCE).write_text(json.dumps(facts, indent=1) + "\n")
    os.replace(folder / PROVENANCE, entry / PROVENANCE)
    kept = {record.get("file", f"{name}.npy") for name, record in facts["arrays"].items()}
    for path in entry.glob("*.npy"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _move_array(new: Path, entry: Path, record: dict[str, Any]) -> None:
    """Moves an array into an entry, or leaves the one there that holds the same; notes in its record where it is."""
    versioned = f"{new.stem}-{record['sha256'][:12]}.npy"
    for name in (versioned, new.name):
        path = entry / name
        if path.is_file() and sha256_of(path) == record["sha256"]:
            record |= {"modified_ns": path.stat().st_mtime_ns, "file": name}
            return
    damaged = not _is_whole(entry, new.stem)
    record["file"] = new.name if damaged else versioned
    os.replace(new, entry / record["file"])


def _is_whole(entry: Path, name: str) -> bool:
    """Whether an entry has an array that its record describes: what readers may be at."""
    try:
        record = read_record(entry)["arrays"][name]
        return sha256_of(entry / record.get("file", f"{name}.npy")) == record["sha256"]
    except (OSError, CorruptCache, KeyError):
        return False


def _built_since(entry: Path, time_ns: int) -> bool:
    """Whether another process finished the entry while this one waited for its turn."""
    try:
        return (entry / PROVENANCE).stat().st_mtime_ns >= time_ns
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """One writer in a cache folder at a time, which removes what killed ones left."""
    with locks.hold(folder, "prepare", wait=True, sweep=False):
        for left_over in folder.glob(".*.partial"):
            shutil.rmtree(left_over, ignore_errors=True)
        yield


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
    return {"sha256": sha256_of(path), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _file_record(path: Path) -> dict[str, Any]:
    return {"name": path.name, **_array_record(path)}
