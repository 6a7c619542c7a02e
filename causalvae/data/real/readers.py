"""Readers of real files: `(data_dir, **options) -> Dataset`. None needs TensorFlow.

Each set is converted once, in chunks, into the cache (see cache.py) and opened from there ever after; the
original files may then be deleted. What all readers take:

    data_dir: the folder of the files (see `locations.locate`), or the file itself.
    file: the name of the file to read, where data_dir holds several.
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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.data.real import cache, conversion, formats, locations
from causalvae.data.real.locations import DataDir, Location, locate, prepared
from causalvae.data.real.streaming import StoredImages, StoredPairs, choose_residency, draw_attributes

__all__ = ["celeba", "dsprites", "mpi3d", "prepared", "shapes3d", "smallnorb"]


class Storage(NamedTuple):
    """The options that all readers share."""

    cache_dir: str | None
    residency: str
    rebuild: bool
    verify: bool


def dsprites(
    data_dir: DataDir = None,
    file: str | None = None,
    cache_dir: str | None = None,
    residency: str = "auto",
    rebuild: bool = False,
    verify: bool = False,
) -> Dataset:
    """dSprites from its .npz or .hdf5 file, or from a file of the same format with a complete sub-grid.

    Factor sizes come from the file's labels; factors that are constant there (color, in the real set) are
    dropped and recorded as dropped.
    """
    storage = Storage(cache_dir, residency, rebuild, verify)
    location = locate("dsprites", data_dir, file, cache_dir)
    return _factorial_set("dsprites", location, conversion.build_dsprites, storage)


def shapes3d(
    data_dir: DataDir = None,
    file: str | None = None,
    cache_dir: str | None = None,
    residency: str = "auto",
    rebuild: bool = False,
    verify: bool = False,
) -> Dataset:
    """3DShapes from 3dshapes.h5, or from a file of the same format with a complete sub-grid."""
    storage = Storage(cache_dir, residency, rebuild, verify)
    location = locate("3dshapes", data_dir, file, cache_dir)
    return _factorial_set("3dshapes", location, conversion.build_shapes3d, storage)


def mpi3d(
    data_dir: DataDir = None,
    variant: str = "toy",
    factor_sizes: Sequence[int] | None = None,
    file: str | None = None,
    cache_dir: str | None = None,
    residency: str = "auto",
    rebuild: bool = False,
    verify: bool = False,
) -> Dataset:
    """MPI3D from its .npz file. variant: "toy", "realistic", "real" or "complex".

    The files have no labels: images lie in row-major factor order. Factor sizes follow from their number
    (1,036,800: 6·6·2·3·3·40·40; 460,800: 4·4·2·3·3·40·40); for a file with another number of images, a part
    of the grid of your own, give `factor_sizes`.
    """
    storage = Storage(cache_dir, residency, rebuild, verify)
    options = {"factor_sizes": "x".join(map(str, factor_sizes))} if factor_sizes else {}
    location = locate("mpi3d", data_dir, file, cache_dir, variant=variant, options=options)
    build = functools.partial(conversion.build_mpi3d, factor_sizes=factor_sizes)
    return _factorial_set("mpi3d", location, build, storage, options, variant=variant)


def smallnorb(
    data_dir: DataDir = None,
    split: str = "both",
    size: int = 64,
    resample: str = "lanczos",
    cache_dir: str | None = None,
    residency: str = "auto",
    rebuild: bool = False,
    verify: bool = False,
) -> Dataset:
    """SmallNORB from its six .mat.gz (or .mat) files: the left camera's images, resized.

    The instance, which of a category's objects is seen, is no factor: it is drawn from the key, and
    counterfactuals keep it (same key, same instance). split: "train" and "test" have five instances of each
    category, "both" all ten. size: px; resample: a filter of Pillow's ("lanczos": disentanglement_lib's).
    """
    _check_choice("smallnorb", "split", split, ("both", *locations.NORB_SPLITS))
    _check_resize("smallnorb", size, resample)
    storage = Storage(cache_dir, residency, rebuild, verify)
    options = {"split": split, "size": size, "resample": resample}
    location = locate("smallnorb", data_dir, None, cache_dir, split=split, options=options, stem="smallnorb")
    build = functools.partial(conversion.build_smallnorb, **options)
    return _factorial_set("smallnorb", location, build, storage, options)


def celeba(
    data_dir: DataDir = None,
    crop: int | None = None,
    size: int = 64,
    resample: str = "bicubic",
    split: str = "all",
    file: str | None = None,
    cache_dir: str | None = None,
    residency: str = "auto",
    rebuild: bool = False,
    verify: bool = False,
) -> Dataset:
    """CelebA, aligned and cropped, from img_align_celeba (zip or folder) and its lists of attributes,
    landmarks and partition (as released, or CSV).

    It has attributes, not generative factors: `sample` gives pairs as they were observed, `render` raises.
    crop: side of the central square that is kept (148 in many papers; None: all of 178×218); size: px after
    resizing; resample: a filter of Pillow's; split: "all", "train", "valid" or "test". The landmarks
    (arrays["landmarks"] [N, 5, 2], x and y in px of the prepared image) are optional; the partition is needed
    for a split.
    """
    _check_choice("celeba", "split", split, ("all", *conversion.CELEBA_SPLITS))
    _check_resize("celeba", size, resample)
    storage = Storage(cache_dir, residency, rebuild, verify)
    options = {"crop": crop, "size": size, "resample": resample}
    location = locate("celeba", data_dir, file, cache_dir, options=options, stem="celeba")
    build = functools.partial(conversion.build_celeba, **options)
    entry = _prepare("celeba", location, build, storage, options)
    images, arrays = _images(entry, residency)
    rows = _celeba_rows(entry, split)
    tables = [table for table in ("attributes", "landmarks") if table in entry.arrays]
    arrays |= {table: jnp.asarray(entry.arrays[table]) for table in tables}
    names = tuple(entry.facts["attribute_names"])
    return Dataset(
        name="celeba",
        source="real",
        factor_names=names,
        factor_sizes=(2,) * len(names),
        image_shape=images.shape[1:],
        arrays=arrays | {"rows": jnp.asarray(rows, jnp.int32)},
        deterministic=False,
        factor_kind="attributes",
        draw=draw_attributes,
        pair=StoredPairs(images),
        provenance=(*_provenance(entry, images), ("split", split), ("num_images", len(rows))),
    )


def _celeba_rows(entry: cache.Entry, split: str) -> np.ndarray:
    """Indices of the images of a split."""
    if split == "all":
        return np.arange(len(entry.arrays["images"]))
    if "partition" not in entry.arrays:
        raise ValueError(f"celeba: split={split!r} needs list_eval_partition.txt, not found with the images")
    rows = np.flatnonzero(entry.arrays["partition"] == conversion.CELEBA_SPLITS[split])
    if not len(rows):
        raise ValueError(f"celeba: list_eval_partition.txt has no image in split {split!r}")
    return rows


Build = Callable[[Location, cache.Store], dict[str, Any]]


def _factorial_set(
    name: str,
    location: Location,
    build: Build,
    storage: Storage,
    options: dict[str, Any] | None = None,
    **facts: str,
) -> Dataset:
    """The data set whose images are the prepared grid of `location`; `facts` are for the record."""
    entry = _prepare(name, location, build, storage, options or {}, **facts)
    images, arrays = _images(entry, storage.residency)
    names = tuple(entry.facts["factor_names"])
    return Dataset(
        name=name,
        source="real",
        factor_names=names,
        factor_sizes=images.shape[: len(names)],
        image_shape=images.shape[-3:],
        render_one=images,
        arrays=arrays,
        deterministic=len(images.shape) == len(names) + 3,
        provenance=_provenance(entry, images),
    )


def _prepare(
    name: str, location: Location, build: Build, storage: Storage, options: dict[str, Any], **facts: str
) -> cache.Entry:
    """Open the prepared data of `location`, building it first if needed."""
    files = locations.parts(name, location, options)

    def build_with_record(store: cache.Store) -> dict[str, Any]:
        if location.path is None:
            raise FileNotFoundError(f"what {location.entry} was made from is gone: it cannot be rebuilt")
        checksums = {path.name: locations.compare_published(path) for path in files}
        record = {"dataset": name, "options": options, "checksums": checksums, **facts}
        return record | build(location, store)

    rebuild, verify = storage.rebuild, storage.verify
    return cache.prepare(location.entry, files, build_with_record, rebuild=rebuild, verify=verify)


def _images(entry: cache.Entry, residency: str) -> tuple[StoredImages, dict[str, jax.Array]]:
    """The renderer of the prepared images, and what it needs on the device."""
    images = entry.arrays["images"]
    if choose_residency(residency, images.nbytes) == "device":
        return StoredImages(images.shape), {"images": jnp.asarray(images)}
    path = entry.path / "images.npy"
    return StoredImages(images.shape, str(path), entry.facts["arrays"]["images"]["sha256"]), {}


def _provenance(entry: cache.Entry, images: StoredImages) -> tuple[tuple[str, Any], ...]:
    """What describe() tells of a prepared set: hashable, JSON-able."""
    facts = entry.facts
    files = ((file["name"], file["sha256"], facts["checksums"][file["name"]]) for file in facts["files"])
    return (
        *((key, facts[key]) for key in ("variant",) if key in facts),
        *facts["options"].items(),
        ("files", tuple(files)),  # name, sha256, and how that compares with the published one
        ("sha256", facts["arrays"]["images"]["sha256"]),
        ("dropped_factors", tuple(facts.get("dropped_factors", ()))),
        ("residency", "device" if images.path is None else "stream"),
    )


def _check_choice(name: str, option: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} has no {option} {value!r}; it has: {', '.join(choices)}")


def _check_resize(name: str, size: int, resample: str) -> None:
    _check_choice(name, "resample", resample, tuple(formats.RESAMPLING))
    if size < 1:
        raise ValueError(f"{name}: size must be at least 1 px, not {size}")
