"""Sets whose images are all combinations of their factors: one array in row-major factor order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from causalvae._files import DamagedFile
from causalvae.data.real.cache import Store


class Grid(NamedTuple):
    """Where each stored image belongs in a complete grid of factors."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    positions: np.ndarray  # [N] int64: row-major index of image n


def complete_grid(path: Path, labels: np.ndarray, names: tuple[str, ...]) -> Grid:
    """Returns the places of images whose labels form a complete grid, each combination once.

    Classes are the distinct labels of a column in rising order, so that a sub-grid (every second position) has
    consecutive classes. Labels are compared at 6 decimals: some files hold rounded floats.

    Args:
        path: What to name in an error.
        labels: [N, K].
        names: Of the K factors.

    Raises:
        ValueError: combinations are missing or occur twice.
    """
    bad = np.flatnonzero(~np.isfinite(labels).all(axis=1))
    if len(bad):
        raise DamagedFile(
            f"{path}: {len(bad):,} of {len(labels):,} labels are NaN or infinite, the first in row {bad[0]}"
        )
    with np.errstate(over="ignore"):  # of numbers that nobody could take for labels
        rounded = np.round(labels.astype(np.float64), 6)  # half precision has no sixth decimal
    columns = [np.unique(column, return_inverse=True) for column in rounded.T]
    sizes = tuple(len(values) for values, _ in columns)
    total = math.prod(sizes)
    if len(labels) != total:
        described = " × ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        raise DamagedFile(
            f"{path} has {len(labels):,} images, but its labels ({described}) make {total:,} combinations: "
            "the file is incomplete, or not a grid of all combinations"
        )
    positions = np.ravel_multi_index([codes.ravel() for _, codes in columns], sizes)
    missing = np.flatnonzero(np.bincount(positions, minlength=total) == 0)
    if len(missing):
        first = dict(zip(names, (int(i) for i in np.unravel_index(missing[0], sizes)), strict=True))
        raise DamagedFile(f"{path}: {len(missing):,} of {total:,} combinations are missing, such as {first}")
    return Grid(names, sizes, positions)


def check_images(path: Path, shape: tuple[int, ...], expected: tuple[int, ...], num_labels: int | None = None) -> None:
    """Raises ValueError unless `shape` is [N, *expected], with one label for each image."""
    if tuple(shape[1:]) != expected or not shape[0]:
        wanted = ", ".join(map(str, expected))
        raise DamagedFile(f"{path} holds images of shape {list(shape)}; expected [N, {wanted}], N at least 1")
    if num_labels not in (None, shape[0]):
        raise DamagedFile(f"{path} has {shape[0]:,} images but {num_labels:,} labels")


def write_grid(
    store: Store, grid: Grid, image_shape: Sequence[int], rows: Iterable[np.ndarray], instance: str | None = None
) -> dict[str, Any]:
    """Writes images into their places in the grid.

    Args:
        store: Where `images` is written, [*grid, H, W, C] uint8. Constant factors have no axis.
        grid: Where each image belongs.
        image_shape: (H, W, C).
        rows: The images in the order of `grid.positions`, some at a time.
        instance: The name in the grid that is no factor; its axis is the last.

    Returns:
        What the record says of the factors: `factor_names` and `dropped_factors`.
    """
    sizes = dict(zip(grid.names, grid.sizes, strict=True))
    instances = [sizes.pop(instance)] if instance else []
    kept = {name: size for name, size in sizes.items() if size > 1}
    images = store.create("images", (*kept.values(), *instances, *image_shape))
    flat = images.reshape(-1, *image_shape)
    done = 0
    for chunk in rows:
        if chunk.dtype != np.uint8:
            raise DamagedFile(f"images are {chunk.dtype}; expected uint8")
        flat[grid.positions[done : done + len(chunk)]] = chunk.reshape(-1, *image_shape)
        done += len(chunk)
        store.progress(done, len(flat))
    return {"factor_names": list(kept), "dropped_factors": [name for name in sizes if name not in kept]}
