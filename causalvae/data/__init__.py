"""Five benchmarks, real and procedural, and sets with a causal graph, behind one function.

dataset = load("3dshapes")                      # real files if prepared on disk, else procedural
factors, images = dataset.sample(jax.random.key(0), 64)
changed = dataset.render(dataset.intervene(factors, "wall_hue", values, key), key)
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from causalvae.data import factors
from causalvae.data.base import Dataset

__all__ = ["DATASETS", "Dataset", "Entry", "load"]

SOURCES = ("auto", "real", "procedural")


class Entry(NamedTuple):
    """How to obtain one data set. Modules are named, not imported: a set costs nothing until it is loaded."""

    procedural: str  # "module:function" in this package, (**options) -> Dataset
    real: str | None  # "module:function", (data_dir, **options) -> Dataset; None: no real files exist
    factors: factors.Factors | None  # None: the sources differ; see Dataset.describe()


DATASETS: dict[str, Entry] = {
    "dsprites": Entry("procedural.dsprites:procedural", "real.readers:dsprites", factors.DSPRITES),
    "3dshapes": Entry("procedural.shapes3d:procedural", "real.readers:shapes3d", factors.SHAPES3D),
    "mpi3d": Entry("procedural.mpi3d:procedural", "real.readers:mpi3d", factors.MPI3D),
    "smallnorb": Entry("procedural.smallnorb:procedural", "real.readers:smallnorb", factors.SMALLNORB),
    "celeba": Entry("procedural.celeba:procedural", "real.readers:celeba", None),
    "pendulum": Entry("graphs:pendulum", None, None),
    "confounded_shapes": Entry("graphs:confounded_shapes", None, None),
}


def load(name: str, source: str = "auto", data_dir: str | None = None, **options: Any) -> Dataset:
    """The data set `name`, one of `DATASETS`.

    source: "real" reads real files; "procedural" renders, and needs none; "auto" takes real files if
        they lie prepared on disk, else the procedural set. The result says which it is: `dataset.source`.
    data_dir: where real files lie; by default $CAUSALVAE_DATA, else ./data/<name>.
    options: passed on to the set's own function (e.g. `strides` of procedural dSprites).

    Raises ValueError for an unknown name, source or option, and for a source that the set does not have;
    FileNotFoundError where source="real" finds no files.
    """
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}{_nearest(name, DATASETS)}; there are: {', '.join(DATASETS)}")
    if source not in SOURCES:
        raise ValueError(f"no source {source!r}{_nearest(source, SOURCES)}; there are: {', '.join(SOURCES)}")
    entry = DATASETS[name]
    if source == "real" and entry.real is None:
        raise ValueError(f"{name} exists only as a procedural set; use source='procedural'")
    on_disk = source == "auto" and entry.real is not None and _is_prepared(name, data_dir, options)
    if source == "real" or on_disk:
        return _call(name, entry.real, (data_dir,), options)
    return _call(name, entry.procedural, (), options)


def _is_prepared(name: str, data_dir: str | None, options: dict[str, Any]) -> bool:
    """Whether the real files that `options` ask for lie on disk in a form that needs no download."""
    return _resolve(name, "real.readers:prepared")(name, data_dir, **options)


def _resolve(name: str, target: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module_name, function_name = target.split(":")
    try:
        return getattr(importlib.import_module(f"{__name__}.{module_name}"), function_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ImportError(f"{name} is not available: cannot import {__name__}.{target} ({error})") from error


def _call(name: str, target: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Dataset:
    function = _resolve(name, target)
    accepted = list(inspect.signature(function).parameters)[len(arguments) :]
    for option in options:
        if option not in accepted:
            listed = ", ".join(accepted) or "none"
            nearest = _nearest(option, accepted)
            raise ValueError(f"{name} ({target}) takes no option {option!r}{nearest}; it takes: {listed}")
    return function(*arguments, **options)


def _nearest(word: str, words: Any) -> str:
    close = difflib.get_close_matches(str(word), list(words), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
