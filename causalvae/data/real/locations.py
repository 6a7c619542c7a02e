"""Where the files of a published set lie on this machine, and where they are, or will be, prepared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from causalvae.data.real import cache
from causalvae.data.records import Record, Release

DataDir = str | os.PathLike | None


class Location(NamedTuple):
    """Where the images of a set come from, and where their prepared form is."""

    path: Path | None  # the file, or the folder that TensorFlow Datasets prepared; None: only `entry` is left
    entry: Path
    is_tfds: bool = False

    @property
    def original(self) -> Path:
        """The file or folder to convert; FileNotFoundError where only what was made from it is left."""
        if self.path is None:
            raise FileNotFoundError(f"what {self.entry} was made from is gone: it cannot be rebuilt")
        return self.path


def locate(
    record: Record,
    data_dir: DataDir = None,
    file: str | None = None,
    cache_dir: DataDir = None,
    choice: str | None = None,
    options: dict[str, Any] | None = None,
) -> Location:
    """Returns where the files of a set are, or what is left prepared of them.

    Looks in `data_dir`, in `data_dir/<name>` and in an `Img` folder in either; first for files, then for what
    TensorFlow Datasets prepared, then in the cache.

    Args:
        record: The set.
        data_dir: A folder, or the file itself; None: `default_data_dir`.
        file: The name of the file, where a folder holds several.
        cache_dir: Where the prepared array goes; None: see `cache.location`.
        choice: Which release, as `record.choice` counts them.
        options: Of the preparation (crop, size…); each combination is prepared on its own.

    Raises:
        FileNotFoundError: nothing is there; the message says what was looked for and where to get it.
        ValueError: several files match, or there is no such release.
        PermissionError: a folder cannot be read.
    """
    root = default_data_dir(record.name) if data_dir is None else Path(data_dir).expanduser()
    release, options = record.release(choice), options or {}

    def entry_name(path: Path) -> str:
        # What is made of several files has the set's name, what is made of one has its own.
        stem = record.name if release.beside else path.name.split(".")[0]
        return stem + _tag(options)

    if _is_file(root):
        return Location(root, cache.location(entry_name(root), root.parent, cache_dir))
    folders = [folder for base in (root, root / record.name) for folder in (base, base / "Img")]
    for folder in folders:
        path = _first_match(record.name, folder, (file,) if file else release.files)
        if path:
            return Location(path, cache.location(entry_name(path), folder, cache_dir))
    if not file:
        for path in _tfds_folders(folders, release.tfds):
            name = release.tfds.replace("/", "-") + "-tfds" + _tag(options)
            return Location(path, cache.location(name, root, cache_dir), is_tfds=True)
        for entry in _prepared_entries(record, choice, options, folders, cache_dir):
            return Location(None, entry)
    raise FileNotFoundError(_not_found(record, root, file, choice))


def prepared(record: Record, data_dir: DataDir = None, **options: Any) -> bool:
    """Returns whether real files lie in `data_dir`, prepared or in a form that needs no download.

    Args:
        record: The set.
        data_dir: As in `locate`.
        **options: Of `load`; those that decide which file is read count.
    """
    which = {name: options.get(name) for name in ("file", "cache_dir")}
    try:
        locate(record, data_dir, **which, choice=options.get(record.choice))
    except FileNotFoundError:
        return False
    return True


def default_data_dir(name: str) -> Path:
    """Returns where real files are looked for when no folder is given: $CAUSALVAE_DATA, else ./data/<name>."""
    given = os.environ.get("CAUSALVAE_DATA")
    return Path(given).expanduser() if given else Path("data") / name


def beside(path: Path, names: Sequence[str]) -> Path:
    """Returns a file that belongs to `path`, by the first of `names` that exists; FileNotFoundError if none does.

    It may lie in the same folder, in the one above, or in `Anno` or `Eval` there, as in CelebA's release.
    """
    found = find_beside(path, names)
    if found is None:
        raise FileNotFoundError(f"{path} is there, but not {' or '.join(names)}, which belongs to it; put it beside")
    return found


def find_beside(path: Path, names: Sequence[str]) -> Path | None:
    """Returns what `beside` returns, or None."""
    folders = [folder for base in (path.parent, path.parent.parent) for folder in (base, base / "Anno", base / "Eval")]
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def sources(location: Location, release: Release) -> list[Path]:
    """Returns the files there are whose change makes what was prepared out of date."""
    path = location.path
    if path is None:
        return []
    if location.is_tfds:
        return [path / "dataset_info.json", path / "features.json"]
    found = [file for names in release.beside if (file := find_beside(path, names))]
    return found if path in found or not path.is_file() else [*found, path]


def compare_published(path: Path, checksums: dict[str, str]) -> str:
    """Returns "published" where the file has the checksum that others published, else "differs" or "unknown"."""
    algorithm, _, digest = checksums.get(path.name, "").partition(":")
    if not digest:
        return "unknown"
    with open(path, "rb") as file:
        return "published" if hashlib.file_digest(file, algorithm).hexdigest() == digest else "differs"


def _tag(options: dict[str, Any]) -> str:
    return "".join(f"-{value}" for value in options.values())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError as error:
        raise PermissionError(f"no permission to read {path}") from error


def _first_match(name: str, folder: Path, patterns: Sequence[str]) -> Path | None:
    listing = _listing(folder)
    for pattern in patterns:
        matches = [folder / entry for entry in listing if Path(entry).match(pattern)]
        if len(matches) > 1:
            listed = ", ".join(path.name for path in matches)
            raise ValueError(f"{folder} holds several files of {name}: {listed}; say which one with file=…")
        if matches:
            return matches[0]
    return None


def _listing(folder: Path) -> list[str]:
    """Names in `folder`, sorted; none where it is not there. PermissionError where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise PermissionError(f"no permission to read {folder}") from error


def _tfds_folders(folders: Sequence[Path], tfds_name: str) -> Iterator[Path]:
    """Folders <data_dir>/<name>/<version> that TensorFlow Datasets prepared, newest version first."""
    for folder in folders:
        for version in reversed(_listing(folder / tfds_name)):
            if (folder / tfds_name / version / "dataset_info.json").is_file():
                yield folder / tfds_name / version


def _prepared_entries(
    record: Record, choice: str | None, options: dict[str, Any], folders: Sequence[Path], cache_dir: DataDir
) -> Iterator[Path]:
    """Entries of the cache that were made from files in `folders` which are there no more.

    They must be of the chosen release, where they record one, and of the given options (none: any will do).
    """
    chosen, damaged = choice or next(iter(record.releases)), None
    for entry in (entry for folder in folders for entry in cache.entries(folder, cache_dir)):
        try:
            facts = cache.read_record(entry)
        except cache.CorruptCache as error:  # of this set or of another: another entry may be the one
            damaged = error
            continue
        same = {**facts["options"], **facts}.get(record.choice, chosen) == chosen
        if facts["dataset"] == record.name and same and (not options or facts["options"] == options):
            yield entry
    if damaged is not None:
        raise damaged


def _not_found(record: Record, root: Path, file: str | None, choice: str | None) -> str:
    problem = "has no file of it" if root.is_dir() else "does not exist"
    release = record.release(choice)
    separate = len({other.tfds for other in record.releases.values()}) > 1
    flag = f" --{record.choice}={choice or next(iter(record.releases))}" if separate else ""
    return (
        f"no real {record.name}: {root} {problem} (looked there and in {root / record.name} for "
        f"{file or ' or '.join(release.files)}). Get it from {release.url} and put it there, or let TensorFlow "
        f"Datasets do it: `python -m causalvae prepare --dataset={record.name}{flag} --data_dir={root}`"
    )
