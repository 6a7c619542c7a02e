"""Readers of genuine files: `(data_dir, **options) -> Dataset`. None needs TensorFlow.

Each set is converted once into the cache (see cache.py) and opened from there ever after; the original files
may then be deleted. Options that all readers take:

    file: the file to read, where data_dir holds several.
    cache_dir: where the prepared array goes; by default beside the files, or in $CAUSALVAE_CACHE or
        ~/.cache/causalvae where that folder is read-only.
    residency: "device" (one uint8 array there), "stream" (rows are read from disk as they are needed), or
        "auto": by size.
    rebuild: prepare again, whatever lies prepared.
    verify: check the sha256 of large arrays too, although they are unchanged by size and time.

They raise FileNotFoundError where the files are not (naming them, and where to get them), PermissionError,
and ValueError for files that are cut short, of another format, or not the complete set of combinations.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from causalvae.data import cache, formats
from causalvae.data import factors as factor_tables
from causalvae.data.base import Dataset
from causalvae.data.streaming import StoredImages, choose_residency

DataDir = str | os.PathLike | None


class Origin(NamedTuple):
    """Which files a data set is known by, and where they come from."""

    patterns: tuple[str, ...]  # file names, the usual one first; a later one is tried where no earlier one is
    url: str


ORIGINS: dict[str, Origin] = {
    "dsprites": Origin(
        (
            "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
            "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5",
            "dsprites*.npz",
            "dsprites*.hdf5",
        ),
        "https://github.com/google-deepmind/dsprites-dataset",
    ),
}


def dsprites(
    data_dir: DataDir = None,
    file: str | None = None,
    cache_dir: str | None = None,
    residency: str = "auto",
    rebuild: bool = False,
    verify: bool = False,
) -> Dataset:
    """dSprites from its .npz or .hdf5 file, or from a file of the same format that holds a complete sub-grid.

    Factor sizes come from the file's labels; factors that are constant in it (colour, in the genuine set) are
    dropped and recorded as such.
    """
    source = find("dsprites", data_dir, file)
    build = functools.partial(_build_dsprites, source)
    return _stored("dsprites", source, build, cache_dir, residency, rebuild, verify)


def _build_dsprites(path: Path, store: cache.Store) -> dict[str, Any]:
    with formats.npz(path) as archive:
        labels = archive.array("latents_classes")
        names = factor_tables.names(factor_tables.DSPRITES)
        if labels.ndim == 2 and labels.shape[1] == len(names) + 1:
            names = ("color", *names)
        if labels.ndim != 2 or labels.shape[1] != len(names):
            raise ValueError(f"{path}: latents_classes is {list(labels.shape)}; expected [N, 5] or [N, 6]")
        shape = archive.shape("imgs")
        formats.check_images(path, shape, (64, 64))
        return _write_grid(store, path, labels, names, shape, archive.rows("imgs"), scale=255)


def _write_grid(store, path, labels, names, shape, rows, scale=1) -> dict[str, Any]:
    """Write images into row-major factor order; the facts that the record keeps of them."""
    if len(labels) != shape[0]:
        raise ValueError(f"{path} has {shape[0]:,} images but {len(labels):,} labels")
    grid = formats.complete_grid(path, labels, names)
    kept = [i for i, size in enumerate(grid.sizes) if size > 1]
    image_shape = tuple(shape[1:]) if len(shape) == 4 else (*shape[1:], 1)
    images = store.create("images", (*(grid.sizes[i] for i in kept), *image_shape))
    flat = images.reshape(-1, *image_shape)
    for start, chunk in rows:
        flat[grid.positions[start : start + len(chunk)]] = chunk.reshape(-1, *image_shape) * scale
        store.progress(start + len(chunk), shape[0])
    images.flush()
    return {
        "factor_names": [names[i] for i in kept],
        "dropped_factors": [name for i, name in enumerate(names) if i not in kept],
        "reordered": bool((grid.positions != range(len(labels))).any()),
    }


def prepared(name: str, data_dir: DataDir = None) -> bool:
    """Whether genuine files of `name` lie in data_dir, prepared or in a form that needs no download."""
    try:
        find(name, data_dir)
    except FileNotFoundError:
        return False
    return True


def find(name: str, data_dir: DataDir = None, file: str | None = None) -> Path:
    """The file (or prepared folder) of `name` in data_dir or data_dir/<name>.

    Raises FileNotFoundError, which says what was looked for and where to get it; ValueError where several
    files match; PermissionError.
    """
    root = default_data_dir(name) if data_dir is None else Path(data_dir).expanduser()
    if root.is_file():
        return root
    origin = ORIGINS[name]
    for folder in (root, root / name):
        for pattern in (file,) if file else origin.patterns:
            matches = sorted(_listing(folder, pattern))
            if len(matches) > 1:
                listed = ", ".join(path.name for path in matches)
                raise ValueError(f"{folder} holds several files of {name}: {listed}; say which with file=…")
            if matches:
                return matches[0]
    missing = "does not exist" if not root.is_dir() else "holds no file of it"
    wanted = file or " or ".join(origin.patterns)
    raise FileNotFoundError(
        f"no genuine {name}: {root} {missing} (looked there, and in {root / name}, for {wanted}). Get it "
        f"from {origin.url} and put it there, or let TensorFlow Datasets download it: "
        f"`python -m experiments.prepare --dataset={name} --data_dir={root}`"
    )


def default_data_dir(name: str) -> Path:
    """Where genuine files are looked for when no folder is given: $CAUSALVAE_DATA, else ./data/<name>."""
    given = os.environ.get("CAUSALVAE_DATA")
    return Path(given).expanduser() if given else Path("data") / name


def _listing(folder: Path, pattern: str) -> Sequence[Path]:
    """Files in `folder` that match; PermissionError where it cannot be read."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise PermissionError(f"no permission to read the data folder {folder}") from error
    return [folder / name for name in names if Path(name).match(pattern)]


def _stored(name, source, build, cache_dir, residency, rebuild, verify) -> Dataset:
    """Prepare `source` if needed, and make the data set whose images are the prepared array."""
    entry = cache.prepare(
        cache.location(source.stem, source.parent, cache_dir), [source], build, rebuild=rebuild, verify=verify
    )
    facts, images = entry.facts, entry.arrays["images"]
    where = choose_residency(residency, images.nbytes)
    names = tuple(facts["factor_names"])
    return Dataset(
        name=name,
        source="real",
        factor_names=names,
        factor_sizes=images.shape[: len(names)],
        image_shape=images.shape[-3:],
        render=StoredImages(images.shape, None if where == "device" else str(entry.path / "images.npy")),
        arrays={"images": jnp.asarray(images)} if where == "device" else {},
        provenance=(
            ("files", tuple(record["name"] for record in facts["files"])),
            ("file_sha256", tuple(record["sha256"] for record in facts["files"])),
            ("sha256", facts["arrays"]["images"]["sha256"]),
            ("dropped_factors", tuple(facts["dropped_factors"])),
            ("residency", where),
        ),
    )
