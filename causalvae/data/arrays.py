"""Data sets of images that a user has, as arrays.

    dataset = from_arrays(images, factors, names=("shape", "x", "y"))

Images of every combination of the factors, each once, make a causal data set: its image is a function of its factors,
so do(f := v) is exact. Any other images have attributes: labels that did not make them. What is measured by setting
factors is then undefined, and pairs are matched, not counterfactual. `source` and `describe()` say which it is.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from causalvae.data import _images
from causalvae.data.base import Dataset
from causalvae.data.real.stored import StoredImages, StoredPairs, draw_attributes

ARRAYS, OBSERVATIONAL = "arrays", "arrays, observational"  # what `source` says
Resize = _images.Size | None


class Plan(NamedTuple):
    """What a user says of images beside their factors."""

    name: str = "arrays"
    attributes: bool = False  # True: the factors did not make the images, even where they form a grid
    resize: Resize = None  # to this height and width, px
    bins: Mapping[str, int] | None = None  # factor -> number of bins


def from_arrays(
    images: Any,
    factors: Any = None,
    names: Sequence[str] | None = None,
    *,
    name: str = "arrays",
    attributes: bool = False,
    resize: Resize = None,
    bins: Mapping[str, int] | None = None,
) -> Dataset:
    """Returns a data set of images and their factors.

    Where every combination of the factors' values occurs exactly once, in whatever order, the set is causal: setting a
    factor gives the image that has all else the same. Otherwise, or with attributes=True, it is observational:
    `factor_kind` is "attributes", pairs of images are matched, and what needs causes is undefined.
    `describe()["observational"]` says why.

    Args:
        images: [N, H, W, C] or [N, H, W], uint8 (0 to 255), bool or floats in [0, 1]; C is 1 or 3.
        factors: [N, K] integers or texts, or [N] for a single one. A factor's classes are its distinct values in rising
            order, recorded where they are not 0, 1, 2, …; a factor with one value is dropped, and recorded. None: there
            are only images.
        names: Of the K factors; by default "factor0", "factor1", …
        name: Of the set, on results and figures.
        attributes: True where the factors did not make the images, even if they form a grid.
        resize: Height and width in px to resize to, (32, 48), "32x48" or 32: averaging areas where images shrink,
            else bilinear (Pillow). Recorded.
        bins: factor -> number of bins of equal width that a continuous factor is divided into. Edges are recorded.

    Returns:
        The data set; its `source` is "arrays" or "arrays, observational".

    Raises:
        ValueError: for images of another range or layout (0 to 255 as floats, channels first, NaN), other numbers of
            factors or names, and factors that are continuous and not binned.
    """
    pixels = _images.checked(images)
    return build(pixels, _columns(factors, names, len(pixels)), Plan(name, attributes, resize, bins))


def build(
    images: np.ndarray, columns: Mapping[str, np.ndarray], plan: Plan, facts: tuple[tuple[str, Any], ...] = ()
) -> Dataset:
    """Returns the data set of checked images [N, H, W, C] and one column [N] of each factor.

    Args:
        images: uint8, or float32 in [0, 1].
        columns: factor -> its values, integers, floats or texts.
        plan: What else the user says.
        facts: What else `describe()` is to say.
    """
    unknown = sorted(set(plan.bins or {}) - set(columns))
    if unknown:
        raise ValueError(f"bins are given of {', '.join(unknown)}; the factors are {', '.join(columns) or 'none'}")
    found = {name: _classes(name, column, (plan.bins or {}).get(name)) for name, column in columns.items()}
    kept = {name: classes for name, classes in found.items() if len(classes.values) > 1}
    _check_not_a_name(kept, len(images))
    labels = np.stack([classes.ids for classes in kept.values()], axis=1) if kept else np.zeros((len(images), 0), int)
    if plan.resize is not None:
        size = _images.parsed_size(plan.resize)
        if images.shape[1:3] != size:
            text = f"{_by(images.shape[1:3])} to {_by(size)}, {_images.filter_for(images.shape[1:3], size)}"
            facts, images = (*facts, ("resize", text)), _images.resized(images, size)
    facts += (
        ("sha256", hashlib.sha256(images.tobytes() + np.ascontiguousarray(labels, np.int64).tobytes()).hexdigest()),
        ("dropped_factors", tuple(name for name in found if name not in kept)),
        ("classes", tuple((name, c.values) for name, c in kept.items() if c.values != tuple(range(len(c.values))))),
        ("bins", tuple((name, c.edges) for name, c in found.items() if c.edges)),
    )
    why = "given as attributes, not causes" if plan.attributes else _missing(labels, kept)
    sizes = tuple(len(classes.values) for classes in kept.values())
    common: dict[str, Any] = {"name": plan.name, "factor_names": tuple(kept), "factor_sizes": sizes}
    if why:
        return _observational(images, labels, common, (*facts, ("observational", why)))
    grid = images[np.lexsort(labels.T[::-1])].reshape(*sizes, *images.shape[1:])
    stored = StoredImages(grid.shape)
    return Dataset(
        source=ARRAYS,
        image_shape=stored.image_shape,
        render_one=stored,
        arrays={"images": jnp.asarray(grid)},
        provenance=facts,
        **common,
    )


def content(dataset: Dataset) -> dict[str, str]:
    """Returns the sha256 of a user's images, by which a run knows them again; nothing of other sets."""
    return {"sha256": dataset.describe()["sha256"]} if dataset.source in (ARRAYS, OBSERVATIONAL) else {}


def check_content(dataset: Dataset, expected: str | None) -> Dataset:
    """Returns the data set, after a check that it has the sha256 that a run recorded, if one did; see `content`.

    Raises:
        ValueError: images or labels have changed since.
    """
    if expected is not None and content(dataset).get("sha256") != expected:
        raise ValueError(f"{dataset.name} has other images or labels than those that the run began with")
    return dataset


def _observational(images: np.ndarray, labels: np.ndarray, common: dict[str, Any], facts: tuple) -> Dataset:
    stored = StoredImages(images.shape)
    return Dataset(
        source=OBSERVATIONAL,
        image_shape=stored.image_shape,
        arrays={
            "images": jnp.asarray(images),
            "attributes": jnp.asarray(labels, jnp.int32),
            "rows": jnp.arange(len(images), dtype=jnp.int32),
        },
        deterministic=False,
        factor_kind="attributes",
        draw=draw_attributes,
        pair=StoredPairs(stored),
        provenance=(*facts, ("num_images", len(images))),
        **common,
    )


# --- factors ---------------------------------------------------------------------------------------------


def _columns(factors: Any, names: Sequence[str] | None, num: int) -> dict[str, np.ndarray]:
    """name -> the factor's values [N]."""
    table = np.zeros((num, 0), int) if factors is None else np.asarray(factors)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2:
        raise ValueError(f"factors are [N, K], one row for each image, not {list(table.shape)}")
    if len(table) != num:
        raise ValueError(f"there are {num:,} images but {len(table):,} rows of factors: each image has one")
    names = [f"factor{k}" for k in range(table.shape[1])] if names is None else [str(name) for name in names]
    if len(names) != table.shape[1]:
        raise ValueError(f"{len(names)} names are given ({', '.join(names)}), and there are {table.shape[1]} factors")
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"names of factors must differ, and none may be empty: {', '.join(map(repr, names))}")
    return dict(zip(names, table.T))


class _Classes(NamedTuple):
    """A factor as class ids."""

    ids: np.ndarray  # [N]
    values: tuple[Any, ...]  # what each id stands for: a number, a text, or the number of a bin
    edges: tuple[float, ...] = ()  # of the bins


def _classes(name: str, column: np.ndarray, bins: int | None) -> _Classes:
    if column.dtype.kind not in "iubfU":
        raise ValueError(f"factor {name!r} is {column.dtype}: give integers or texts")
    if column.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise ValueError(f"factor {name!r} is NaN or infinite in {len(bad):,} rows, the first of them {bad[0]}")
    edges: tuple[float, ...] = ()
    if bins is not None:
        column, edges = _binned(name, column, bins)
    elif column.dtype.kind == "f":
        if (column % 1).any():
            raise ValueError(
                f"factor {name!r} is continuous ({len(np.unique(column)):,} values from {column.min():g} to "
                f"{column.max():g}), and factors are classes: bins={{{name!r}: 8}} of from_arrays or from_folder, "
                f"in a shell --config.data.bins={name}:8, makes 8 of them and records the edges. As it is, it is "
                "scored by the regression forms of the metrics, causalvae.metrics.mcc and r2"
            )
        column = column.astype(np.int64)
    values, ids = np.unique(column, return_inverse=True)
    return _Classes(ids.reshape(-1), tuple(values.tolist()), edges)


def _binned(name: str, column: np.ndarray, bins: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """Numbers of bins [N] of equal width, and their edges; the last one includes its upper edge."""
    if column.dtype.kind == "U":
        raise ValueError(f"factor {name!r} is text: it has classes, and no bins")
    if bins < 2:
        raise ValueError(f"factor {name!r} takes at least 2 bins, not {bins}")
    edges = np.linspace(column.min(), column.max(), bins + 1)
    return np.clip(np.searchsorted(edges, column, side="right") - 1, 0, bins - 1), tuple(edges.tolist())


def _check_not_a_name(kept: Mapping[str, _Classes], num: int) -> None:
    for name, classes in kept.items():
        if len(kept) > 1 and len(classes.values) == num:
            raise ValueError(f"factor {name!r} is different in every image, as a name is: leave it out")


def _missing(labels: np.ndarray, kept: Mapping[str, _Classes]) -> str:
    """What the labels [N, K] lack to be a complete grid, each combination once; nothing where they lack nothing."""
    if not kept:
        return "there are no factors"

    def written(combination: tuple[int, ...]) -> str:
        return ", ".join(f"{name}={c.values[i]!r}" for (name, c), i in zip(kept.items(), combination))

    found, reasons = collections.Counter(map(tuple, labels.tolist())), []
    sizes = [len(classes.values) for classes in kept.values()]
    if math.prod(sizes) > len(found):
        hole = next(c for c in itertools.product(*map(range, sizes)) if c not in found)
        number = f"{math.prod(sizes) - len(found):,} of {math.prod(sizes):,}"
        reasons.append(f"{number} combinations of the factors are missing, such as {written(hole)}")
    if len(labels) > len(found):
        (most, times) = found.most_common(1)[0]
        reasons.append(
            f"{len(labels) - len(found):,} images repeat a combination: {written(most)} occurs {times} times"
        )
    return "; ".join(reasons)


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
