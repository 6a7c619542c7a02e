"""Real files: what they are called, where they come from, and where they lie on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from causalvae.data.real import cache

DataDir = str | os.PathLike | None


class Origin(NamedTuple):
    """The files that a data set is known by, in order of preference, and their sources."""

    files: tuple[str, ...]  # names, or patterns for files of the same format
    url: str
    tfds: str  # its name in TensorFlow Datasets (ours for mpi3d: see mpi3d_tfds.py)


NORB_URL = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
NORB_SPLITS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
MPI3D_URL = "https://storage.googleapis.com/mpi3d_disentanglement_dataset/data/"
MPI3D_FILES = {  # the published file first, then names that are in use for it
    "toy": ("mpi3d_toy.npz",),
    "realistic": ("mpi3d_realistic.npz",),
    "real": ("real.npz", "mpi3d_real.npz"),
    "complex": ("real3d_complicated_shapes_ordered.npz", "mpi3d_real_complex.npz", "mpi3d_complex.npz"),
}
MPI3D_COMPLEX_URL = "https://drive.google.com/file/d/1Tp8eTdHxgUMtsZv5uAoYAbJR1BOa_OQm"


def origin(name: str, variant: str = "toy", split: str = "both") -> Origin:
    """Files and sources of one set; `variant` (mpi3d) and `split` (smallnorb) decide which of its files."""
    if name == "dsprites":
        stem = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
        files = (f"{stem}.npz", f"{stem}.hdf5", "dsprites*.npz", "dsprites*.hdf5")
        return Origin(files, "https://github.com/google-deepmind/dsprites-dataset", "dsprites")
    if name == "3dshapes":
        files = ("3dshapes.h5", "3dshapes*.h5")
        return Origin(files, "https://storage.googleapis.com/3d-shapes/3dshapes.h5", "shapes3d")
    if name == "mpi3d":
        if variant not in MPI3D_FILES:
            raise ValueError(f"mpi3d has no variant {variant!r}; it has: {', '.join(MPI3D_FILES)}")
        url = MPI3D_COMPLEX_URL if variant == "complex" else MPI3D_URL + MPI3D_FILES[variant][0]
        return Origin(MPI3D_FILES[variant], url, f"mpi3d/{variant}")
    if name == "smallnorb":
        stem = NORB_SPLITS["test" if split == "test" else "train"]
        return Origin((f"{stem}-dat.mat.gz", f"{stem}-dat.mat"), NORB_URL, "smallnorb")
    url = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    return Origin(("img_align_celeba.zip", "img_align_celeba"), url, "celeb_a")


# Checksums that others have published: TensorFlow Datasets (sha256) and loaders for PyTorch (md5). None is
# known for MPI3D complex, nor for MPI3D real since April 2025, when it was replaced: its first file had this.
PUBLISHED = {
    "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz": "md5:7da33b31b13a06f4b04a70402ce90c2e",
    "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5": (
        "sha256:729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb"
    ),
    "3dshapes.h5": "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
    "mpi3d_toy.npz": "md5:55889cb7c7dfc655d6e0277beee88868",
    "mpi3d_realistic.npz": "md5:59a6225b88b635365f70c91b3e52f70f",
    "mpi3d_real.npz": "md5:0f33f609918fb5c97996692f91129802",
    "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz": (
        "sha256:5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873"
    ),
    "smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz": (
        "sha256:cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474"
    ),
    "img_align_celeba.zip": "sha256:46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
    "list_attr_celeba.txt": "sha256:f0e5da289d5ccf75ffe8811132694922b60f2af59256ed362afa03fefba324d0",
}


def compare_published(path: Path) -> str:
    """ "published" where the file has the checksum that others published, else "differs" or "unknown"."""
    algorithm, _, digest = PUBLISHED.get(path.name, "").partition(":")
    if not digest:
        return "unknown"
    with open(path, "rb") as file:
        return "published" if hashlib.file_digest(file, algorithm).hexdigest() == digest else "differs"


class Location(NamedTuple):
    """Where the images of a set come from, and where they are, or will be, prepared."""

    path: Path | None  # the file, or the folder that TensorFlow Datasets prepared; None: only `entry` is left
    entry: Path
    is_tfds: bool = False


def locate(
    name: str,
    data_dir: DataDir = None,
    file: str | None = None,
    cache_dir: str | None = None,
    *,
    variant: str = "toy",
    split: str = "both",
    options: dict[str, Any] | None = None,
    stem: str | None = None,
) -> Location:
    """The files of `name` in data_dir, data_dir/<name> or an `Img` folder there; else what is left prepared.

    options: of the preparation (crop, size…); each combination is prepared on its own.
    stem: what to call the prepared data; by default, what the file is called.

    Raises FileNotFoundError, which says what was looked for and where to get it; ValueError where several
    files match; PermissionError.
    """
    root = default_data_dir(name) if data_dir is None else Path(data_dir).expanduser()
    options = options or {}
    tag = "".join(f"-{value}" for value in options.values())
    wanted = origin(name, variant, split)
    if _is_file(root):
        return Location(root, cache.location((stem or _stem(root)) + tag, root.parent, cache_dir))
    folders = [folder for base in (root, root / name) for folder in (base, base / "Img")]
    for folder in folders:
        path = _first_match(name, folder, (file,) if file else wanted.files)
        if path:
            return Location(path, cache.location((stem or _stem(path)) + tag, folder, cache_dir))
    if not file:
        for path in _tfds_folders(folders, wanted.tfds):
            tfds_stem = wanted.tfds.replace("/", "-") + "-tfds"
            return Location(path, cache.location(tfds_stem + tag, root, cache_dir), is_tfds=True)
        for entry in _prepared_entries(name, options, {"variant": variant, "split": split}, folders, cache_dir):
            return Location(None, entry)
    raise FileNotFoundError(_not_found(name, root, file, wanted, variant))


def prepared(name: str, data_dir: DataDir = None, **options: Any) -> bool:
    """Whether real files of `name` lie in data_dir, prepared or in a form that needs no download.

    options: those of the set's reader; the ones that decide which file is read count.
    """
    which = {key: options[key] for key in ("file", "cache_dir", "variant", "split") if key in options}
    if name == "celeba":
        which.pop("split", None)
    try:
        locate(name, data_dir, **which)
    except FileNotFoundError:
        return False
    return True


def default_data_dir(name: str) -> Path:
    """Where real files are looked for when no folder is given: $CAUSALVAE_DATA, else ./data/<name>."""
    given = os.environ.get("CAUSALVAE_DATA")
    return Path(given).expanduser() if given else Path("data") / name


def beside(path: Path, names: Sequence[str], *, required: bool = True) -> Path | None:
    """A file that belongs to `path`: in its folder, in the one above, or in `Anno` or `Eval` there (CelebA's
    release is laid out so). The first of `names` that exists."""
    for base in (path.parent, path.parent.parent):
        for folder in (base, base / "Anno", base / "Eval"):
            for name in names:
                if (folder / name).is_file():
                    return folder / name
    if required:
        raise FileNotFoundError(f"{path} is there, but not {' or '.join(names)}, which belongs to it; put it beside")
    return None


def parts(name: str, location: Location, options: dict[str, Any]) -> list[Path]:
    """The files there are whose change makes what was prepared out of date."""
    path = location.path
    if path is None:
        return []
    if location.is_tfds:
        return [path / "dataset_info.json", path / "features.json"]
    if name == "smallnorb":
        stems = NORB_SPLITS.values() if options["split"] == "both" else (NORB_SPLITS[options["split"]],)
        names = [f"{stem}-{part}" for stem in stems for part in ("dat", "cat", "info")]
        found = [beside(path, (f"{name}.mat.gz", f"{name}.mat"), required=False) for name in names]
    elif name == "celeba":
        names = ("list_attr_celeba", "list_landmarks_align_celeba", "list_eval_partition")
        found = [beside(path, (f"{name}.txt", f"{name}.csv"), required=False) for name in names]
        found += [path] if path.is_file() else []
    else:
        found = [path]
    return [file for file in found if file]


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
    name: str, options: dict[str, Any], which: dict[str, str], folders: Sequence[Path], cache_dir: str | None
) -> Iterator[Path]:
    """Entries of the cache that were made from files in `folders` which are there no more.

    which: choices that an entry must share where it records them; options: these it must have, all of them,
    unless none are given (then any entry will do).
    """
    for folder in folders:
        for entry in cache.entries(folder, cache_dir):
            facts = json.loads((entry / cache.PROVENANCE).read_text())
            chosen = {**facts["options"], **facts}
            same = all(chosen.get(key, value) == value for key, value in which.items())
            if facts["dataset"] == name and same and (not options or facts["options"] == options):
                yield entry


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _not_found(name: str, root: Path, file: str | None, wanted: Origin, variant: str) -> str:
    problem = "has no file of it" if root.is_dir() else "does not exist"
    extra = f" --variant={variant}" if name == "mpi3d" else ""
    return (
        f"no real {name}: {root} {problem} (looked there and in {root / name} for "
        f"{file or ' or '.join(wanted.files)}). Get it from {wanted.url} and put it there, or let TensorFlow "
        f"Datasets do it: `python -m experiments.prepare --dataset={name}{extra} --data_dir={root}`"
    )
