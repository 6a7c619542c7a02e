"""Five benchmarks, real and procedural, sets with a causal graph, and images of your own, behind one function.

A set is a function from factors to images, so that do(factor := v) is one line:

    dataset = load("3dshapes")                  # real files if prepared on disk, else procedural
    dataset = load("mine.npz")                  # or a folder; from_arrays and from_folder have more options
    factors, images = dataset.sample(jax.random.key(0), 64)
    changed = dataset.render(dataset.intervene(factors, "wall_hue", values, key), key)
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from causalvae.data import arrays, folders, records
from causalvae.data.arrays import from_arrays
from causalvae.data.base import Dataset
from causalvae.data.folders import from_folder

__all__ = ["DATASETS", "Dataset", "Entry", "from_arrays", "from_folder", "load"]

SOURCES = ("auto", "real", "procedural")


class Entry(NamedTuple):
    """How to obtain one data set. Modules are named, not imported: a set costs nothing until it is loaded."""

    procedural: str = ""  # "module:function" in this package, (**options) -> Dataset
    real: records.Record | None = None  # None: no real files exist
    included: str = ""  # as `procedural`, of real images that need no files: a dependency has them


DATASETS: dict[str, Entry] = {
    "dsprites": Entry("procedural.dsprites:procedural", records.DSPRITES),
    "3dshapes": Entry("procedural.shapes3d:procedural", records.SHAPES3D),
    "mpi3d": Entry("procedural.mpi3d:procedural", records.MPI3D),
    "smallnorb": Entry("procedural.smallnorb:procedural", records.SMALLNORB),
    "celeba": Entry("procedural.celeba:procedural", records.CELEBA),
    "pendulum": Entry("graphs:pendulum"),
    "confounded_shapes": Entry("graphs:confounded_shapes"),
    "digits": Entry(included="digits:digits"),
}
"""name -> data set: a new one is one line here."""


def load(name: str, source: str = "auto", data_dir: str | None = None, **options: Any) -> Dataset:
    """Returns the data set `name`, one of `DATASETS`, or that of an .npz file or a folder.

    Args:
        name: Of the set; or the path of a folder as `from_folder` reads it, or of an .npz file with arrays `images`,
            `factors` and `names`, as `from_arrays` takes them.
        source: "real" reads real files; "procedural" renders, and needs none; "auto" takes real files if they lie
            prepared on disk, else the procedural set. The result says which it is: `dataset.source`. Of a path,
            "arrays" demands a complete grid of factors, and "arrays, observational" takes factors for attributes.
        data_dir: Where real files lie; by default `$CAUSALVAE_DATA`, else `./data/<name>`. A path starts there.
        **options: The set's own: of a procedural set, its function's (e.g. `strides` of dSprites); of a real one,
            those of `real.reading.Storage` and of its converter (e.g. `crop` of CelebA); of a path, `resize`, `bins`…

    Raises:
        ValueError: there is no such name, source or option, or the set does not have that source.
        FileNotFoundError: source="real" finds no files, or nothing is at the path.
    """
    if name not in DATASETS:
        path = folders.find(str(name), data_dir)
        if path is None:
            there = f"{', '.join(DATASETS)}. Or give the path of an .npz file or of a folder"
            raise ValueError(f"no data set {name!r}{_nearest(name, DATASETS)}; there are: {there}")
        return _load_path(path, source, options)
    if source not in SOURCES:
        raise ValueError(f"no source {source!r}{_nearest(source, SOURCES)}; there are: {', '.join(SOURCES)}")
    entry = DATASETS[name]
    if source == "procedural" and not entry.procedural:
        raise ValueError(f"{name} has real images only; use source='real'")
    if source == "real" and entry.real is None and not entry.included:
        raise ValueError(f"{name} exists only as a procedural set; use source='procedural'")
    if entry.real is not None and (
        source == "real" or source == "auto" and _is_prepared(entry.real, data_dir, options)
    ):
        from causalvae.data.real import reading

        _check_options(f"{name} ({entry.real.convert})", options, reading.options_of(entry.real))
        return reading.read(entry.real, data_dir, **options)
    target = entry.included or entry.procedural
    make = _resolve(name, target)
    _check_options(f"{name} ({target})", options, inspect.signature(make).parameters)
    return make(**options)


def is_real(name: str, source: str = "auto", data_dir: str | None = None) -> bool:
    """Returns whether `load` reads the published set's own files for these arguments."""
    record = DATASETS[name].real if name in DATASETS else None
    if record is None or source not in ("real", "auto"):
        return False
    return source == "real" or _is_prepared(record, data_dir, {})


def _load_path(path: Path, source: str, options: dict[str, Any]) -> Dataset:
    """The data set of a user's file or folder, which must be what `source` says."""
    sources = ("auto", arrays.ARRAYS, arrays.OBSERVATIONAL)
    if source not in sources:
        raise ValueError(f"{path} has no source {source!r}; it has: {', '.join(map(repr, sources))}")
    read = folders.from_folder if path.is_dir() else folders.from_archive
    accepted = [option for option in inspect.signature(read).parameters if option != "path"]
    _check_options(str(path), options, accepted)
    if source == arrays.OBSERVATIONAL:
        options = {**options, "attributes": True}
    dataset = read(path, **options)
    if source == arrays.ARRAYS and dataset.source != source:
        why = dataset.describe()["observational"]
        raise ValueError(f"{path} is no complete grid of factors, which source={source!r} asks for: {why}")
    return dataset


def _is_prepared(record: records.Record, data_dir: str | None, options: dict[str, Any]) -> bool:
    """Whether the real files that `options` ask for lie on disk in a form that needs no download."""
    from causalvae.data.real import locations

    return locations.prepared(record, data_dir, **options)


def _resolve(name: str, target: str) -> Callable[..., Dataset]:
    """The function that "module:function" names."""
    module_name, function_name = target.split(":")
    try:
        return getattr(importlib.import_module(f"{__name__}.{module_name}"), function_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ImportError(f"{name} is not available: cannot import {__name__}.{target} ({error})") from error


def _check_options(what: str, options: dict[str, Any], accepted: Iterable[str]) -> None:
    accepted = list(accepted)
    for option in options:
        if option not in accepted:
            listed = ", ".join(accepted) or "none"
            raise ValueError(f"{what} takes no option {option!r}{_nearest(option, accepted)}; it takes: {listed}")


def _nearest(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(words), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
