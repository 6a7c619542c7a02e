"""Published sets from their own files: `read(record, data_dir, **options) -> Dataset`. Needs no TensorFlow.

Each set is converted once, in chunks, into the cache (see cache.py) and opened from there ever after; the original
files may then be deleted. Which options a set takes, beside those of `Storage`, follows from its record and converter.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae._files import first_misfit
from causalvae.data.base import Dataset
from causalvae.data.real import cache, formats, locations
from causalvae.data.real.locations import DataDir
from causalvae.data.real.stored import StoredImages, StoredPairs, choose_residency, draw_attributes
from causalvae.data.records import Record, check_choice


class Storage(NamedTuple):
    """How what was prepared is kept; options that all sets take."""

    cache_dir: DataDir = None  # of the prepared array; None: beside the files, or see cache.location
    residency: str = "auto"  # "device": one uint8 array there; "stream": read as needed; "auto": by size
    rebuild: bool = False  # prepare again, whatever lies prepared
    verify: bool = False  # check the sha256 of large arrays too, although their size and time are unchanged


def read(record: Record, data_dir: DataDir = None, **options: Any) -> Dataset:
    """Returns a published set, prepared if it was not.

    Where the labels of its files make a grid of factors, that is what it has, sub-grids included; factors that are
    constant there are dropped, and `describe()` says which. A set of labeled images without causes (CelebA) has
    attributes: `sample` gives pairs as they were observed, and `render` raises.

    Args:
        record: The set.
        data_dir: The folder of the files, or the file itself; see `locations.locate`.
        **options: Those of `options_of(record)`; None stands for the default.

    Raises:
        FileNotFoundError: the files are not there; the message says which, and where to get them.
        PermissionError: they cannot be read, or the prepared array not be written.
        ValueError: an option has no such value, or files are cut short, of another format, or incomplete.
    """
    settings = {
        name: default if options.get(name) is None else options[name] for name, default in options_of(record).items()
    }
    _check(record, settings)
    entry = _prepare(record, data_dir, settings)
    _check_entry(record, entry)
    images, arrays = _images(entry, settings["residency"])
    if "attribute_names" in entry.facts:
        return _labeled_set(record, entry, images, arrays, settings["split"])
    names = tuple(entry.facts["factor_names"])
    return Dataset(
        name=record.name,
        source="real",
        factor_names=names,
        factor_sizes=images.shape[: len(names)],
        image_shape=images.image_shape,
        render_one=images,
        arrays=arrays,
        deterministic=len(images.shape) == len(names) + 3,
        provenance=_provenance(record, entry, images),
    )


def options_of(record: Record) -> dict[str, Any]:
    """Returns the options that a set takes, with their defaults."""
    choice = {record.choice: next(iter(record.releases))} if record.choice else {}
    split = {"split": "all"} if record.splits and record.choice != "split" else {}
    file = {"file": None} if record.takes_file else {}
    return {**choice, **_preparation(record), **split, **file, **Storage()._asdict()}


def _converter(record: Record) -> Callable[..., dict[str, Any]]:
    module, function = record.convert.split(":")
    return getattr(importlib.import_module(f"causalvae.data.{module}"), function)


def _preparation(record: Record) -> dict[str, Any]:
    """The converter's own options, with their defaults."""
    parameters = inspect.signature(_converter(record)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _check(record: Record, settings: dict[str, Any]) -> None:
    record.release(settings.get(record.choice))
    if "split" in settings and record.choice != "split":
        check_choice(record.name, "split", settings["split"], ("all", *record.splits))
    if "resample" in settings:
        check_choice(record.name, "resample", settings["resample"], tuple(formats.RESAMPLING))
    if settings.get("size", 1) < 1:
        raise ValueError(f"{record.name}: size must be at least 1 px, not {settings['size']}")


def _prepare(record: Record, data_dir: DataDir, settings: dict[str, Any]) -> cache.Prepared:
    """The prepared data, built first if needed."""
    options = {name: settings[name] for name in _preparation(record)}
    recorded = {name: _as_recorded(value) for name, value in options.items() if value != ()}
    choice, storage = settings.get(record.choice), Storage(*(settings[name] for name in Storage._fields))
    location = locations.locate(record, data_dir, settings.get("file"), storage.cache_dir, choice, recorded)
    files = locations.sources(location, record.release(choice))

    def build(store: cache.Store) -> dict[str, Any]:
        facts = {
            "dataset": record.name,
            "options": recorded,
            "checksums": {path.name: locations.compare_published(path, record.checksums) for path in files},
        }
        if record.choice and record.choice not in options:
            facts[record.choice] = choice
        return facts | _converter(record)(location, store, **options)

    return cache.prepare(location.entry, files, build, rebuild=storage.rebuild, verify=storage.verify)


FACTS = {
    "dataset": str,
    "options": dict,
    "checksums": {...: str},
    **{f"{names}_names?": [str] for names in ("factor", "attribute")},
    "dropped_factors?": [str],
}


def _check_entry(record: Record, entry: cache.Prepared) -> None:
    """CorruptCache unless the record and the arrays of a prepared set are what a reader takes for granted."""
    arrays, facts = entry.arrays, entry.facts
    misfit = first_misfit(facts, FACTS)
    if misfit is None and facts["dataset"] != record.name:
        misfit = f"it is of {facts['dataset']}"
    if misfit is None and not all(file["name"] in facts["checksums"] for file in facts["files"]):
        misfit = "checksums are missing"
    labeled = "attribute_names" in facts
    wanted = {"images": 4, "attributes": 2} if labeled else {"images": 3 + len(facts.get("factor_names", ()))}
    if misfit is None and not set(wanted) <= set(arrays):
        misfit = f"it lacks {', '.join(sorted(set(wanted) - set(arrays)))}"
    if misfit is None and not (
        arrays["images"].dtype == np.uint8
        and wanted["images"] <= arrays["images"].ndim <= wanted["images"] + (not labeled)
        and all(len(array) == len(arrays["images"]) and array.dtype.kind in "uf" for array in arrays.values())
        and (not labeled or arrays["attributes"].shape[1:] == (len(facts["attribute_names"]),))
    ):
        misfit = ", ".join(f"{name} is {array.dtype} {list(array.shape)}" for name, array in arrays.items())
    if misfit is not None:
        raise cache.CorruptCache(f"{entry.path} is not the prepared data of {record.name}: {misfit}; {cache.MEND}")


def _as_recorded(value: Any) -> Any:
    return "x".join(map(str, value)) if isinstance(value, (tuple, list)) else value


def _images(entry: cache.Prepared, residency: str) -> tuple[StoredImages, dict[str, jax.Array]]:
    """The renderer of the prepared images, and what it needs on the device."""
    images = entry.arrays["images"]
    if choose_residency(residency, images.nbytes) == "device":
        return StoredImages(images.shape), {"images": jnp.asarray(images)}
    return StoredImages(images.shape, str(images.filename), entry.facts["arrays"]["images"]["sha256"]), {}


def _labeled_set(
    record: Record, entry: cache.Prepared, images: StoredImages, arrays: dict[str, jax.Array], split: str
) -> Dataset:
    """A set of images with attributes; where there are landmarks, they are arrays["landmarks"] [N, 5, 2] px."""
    rows = _rows_of_split(record, entry, split)
    tables = [table for table in ("attributes", "landmarks") if table in entry.arrays]
    arrays = arrays | {table: jnp.asarray(entry.arrays[table]) for table in tables}
    names = tuple(entry.facts["attribute_names"])
    return Dataset(
        name=record.name,
        source="real",
        factor_names=names,
        factor_sizes=(2,) * len(names),
        image_shape=images.image_shape,
        arrays=arrays | {"rows": jnp.asarray(rows, jnp.int32)},
        deterministic=False,
        factor_kind="attributes",
        draw=draw_attributes,
        pair=StoredPairs(images),
        provenance=(*_provenance(record, entry, images), ("split", split), ("num_images", len(rows))),
    )


def _rows_of_split(record: Record, entry: cache.Prepared, split: str) -> np.ndarray:
    """Indices of the images of a split."""
    if split == "all":
        return np.arange(len(entry.arrays["images"]))
    if "partition" not in entry.arrays:
        raise ValueError(f"{record.name}: split={split!r} needs list_eval_partition.txt, not found with the images")
    rows = np.flatnonzero(entry.arrays["partition"] == record.splits[split])
    if not len(rows):
        raise ValueError(f"{record.name}: list_eval_partition.txt has no image in split {split!r}")
    return rows


def _provenance(record: Record, entry: cache.Prepared, images: StoredImages) -> tuple[tuple[str, Any], ...]:
    """What describe() tells of a prepared set: hashable, JSON-able."""
    facts = entry.facts
    files = ((file["name"], file["sha256"], facts["checksums"][file["name"]]) for file in facts["files"])
    return (
        *((key, facts[key]) for key in (record.choice,) if key in facts),
        *facts["options"].items(),
        ("files", tuple(files)),  # name, sha256, and how that compares with the published one
        ("sha256", facts["arrays"]["images"]["sha256"]),
        ("dropped_factors", tuple(facts.get("dropped_factors", ()))),
        ("residency", "device" if images.path is None else "stream"),
    )
