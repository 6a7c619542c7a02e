"""File formats of the genuine sets, read in chunks: nothing here holds a whole set in memory.

Every function names the file in what it raises: ValueError for content that is cut short or not what the
format says.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CHUNK_BYTES = 16 * 2**20
FETCH_AGAIN = "it was probably cut short in download or copy; fetch it again"


class Grid(NamedTuple):
    """Where each stored image belongs in a complete grid of factors."""

    sizes: tuple[int, ...]
    positions: np.ndarray  # [N] int64: row-major index of image n
    values: tuple[np.ndarray, ...]  # per factor, the labels in the order of its classes


@contextlib.contextmanager
def npz(path: Path) -> Iterator[Npz]:
    """An .npz archive, read member by member."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Npz(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is not a readable npz archive ({error}): {FETCH_AGAIN}") from error


class Npz:
    """Members of an .npz archive; pickled ones (dSprites' metadata) are never loaded."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path = path
        self.archive = archive

    def array(self, key: str) -> np.ndarray:
        """A whole member."""
        with self._member(key) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    def shape(self, key: str) -> tuple[int, ...]:
        """A member's shape, from its header alone."""
        with self._member(key) as stream:
            return self._header(stream, key)[0]

    def rows(self, key: str) -> Iterator[tuple[int, np.ndarray]]:
        """(first index, rows) of a member, about 16 MiB at a time."""
        with self._member(key) as stream:
            shape, dtype = self._header(stream, key)
            row = math.prod(shape[1:]) * dtype.itemsize
            step = max(1, CHUNK_BYTES // max(row, 1))
            for start in range(0, shape[0], step):
                count = min(step, shape[0] - start)
                data = stream.read(count * row)
                if len(data) < count * row:
                    raise ValueError(f"{self.path}: {key} ends in row {start:,} or later: {FETCH_AGAIN}")
                yield start, np.frombuffer(data, dtype).reshape(count, *shape[1:])

    def _member(self, key: str) -> Any:
        names = [name.removesuffix(".npy") for name in self.archive.namelist()]
        if key not in names:
            raise ValueError(f"{self.path} has no array {key!r}; it has: {', '.join(names) or 'nothing'}")
        return self.archive.open(f"{key}.npy")

    def _header(self, stream: Any, key: str) -> tuple[tuple[int, ...], np.dtype]:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran_order, dtype = read[version](stream)
        if fortran_order and len(shape) > 1:
            raise ValueError(f"{self.path}: {key} is stored in Fortran order; store it in C order")
        return shape, dtype


def check_images(path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """ValueError unless `shape` is [N, *expected]."""
    if tuple(shape[1:]) != expected or not shape[0]:
        wanted = ", ".join(map(str, expected))
        raise ValueError(f"{path} holds images of shape {list(shape)}; expected [N, {wanted}], N at least 1")


def complete_grid(path: Path, labels: np.ndarray, names: tuple[str, ...]) -> Grid:
    """Positions of images whose labels [N, K] form a complete grid, each combination once.

    Classes are the distinct labels of a column in rising order, so that a sub-grid (every second position)
    has consecutive classes. Labels are compared at 6 decimals: files store some of them as rounded floats.
    """
    columns = [np.unique(np.round(column, 6), return_inverse=True) for column in labels.T]
    sizes = tuple(len(values) for values, _ in columns)
    total = math.prod(sizes)
    described = " × ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
    if len(labels) != total:
        raise ValueError(
            f"{path} has {len(labels):,} images, but its labels ({described}) make {total:,} combinations: "
            "the file is incomplete, or not a grid of all combinations"
        )
    positions = np.ravel_multi_index([codes.ravel() for _, codes in columns], sizes)
    missing = np.flatnonzero(np.bincount(positions, minlength=total) == 0)
    if len(missing):
        first = dict(zip(names, (int(i) for i in np.unravel_index(missing[0], sizes)), strict=True))
        raise ValueError(f"{path}: {len(missing):,} of {total:,} combinations are missing, such as {first}")
    return Grid(sizes, positions, tuple(values for values, _ in columns))
