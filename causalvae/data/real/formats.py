"""File formats of the real sets, read in chunks: nothing here holds a whole set in memory.

Every function names the file in what it raises: ValueError for content that is cut short or is not what the
format says.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from PIL import Image

CHUNK_BYTES = 16 * 2**20
FETCH_AGAIN = "it was probably cut short in download or copy; fetch it again"
NPZ, HDF5, GZIP = "npz archive", "HDF5 file", "gzip file"
Encoded = tuple[bytes, str]  # an image file, and what to call it in an error
RESAMPLING = {filter.name.lower(): filter for filter in Image.Resampling}


class Arrays(Protocol):
    """Named arrays of one file."""

    def array(self, key: str) -> np.ndarray:
        """Returns a whole array, for labels."""
        ...

    def shape(self, key: str) -> tuple[int, ...]:
        """Returns an array's shape, read from its header alone."""
        ...

    def rows(self, key: str) -> Iterator[np.ndarray]:
        """Yields consecutive rows of an array, about 16 MiB at a time."""
        ...


def open_arrays(path: Path) -> contextlib.AbstractContextManager[Arrays]:
    """The arrays of an .npz archive or an HDF5 file."""
    return _open_npz(path) if path.suffix == ".npz" else _open_hdf5(path)


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Around every read of a file, and nothing else: what fails in here is that file's fault."""
    try:
        yield
    except (PermissionError, FileNotFoundError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:  # h5py's one word for all is OSError
        raise ValueError(f"{path} is not a readable {kind} ({error}): {FETCH_AGAIN}") from error


def _rows_of(path: Path, kind: str, rows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    with _reading(path, kind):
        yield from rows


@contextlib.contextmanager
def _open_npz(path: Path) -> Iterator[Arrays]:
    with contextlib.ExitStack() as streams:
        with _reading(path, NPZ):
            archive = streams.enter_context(zipfile.ZipFile(path))
        yield NpzArrays(path, archive, streams)


class NpzArrays:
    """Members of an .npz archive, decompressed as they are read; pickled ones are never loaded."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, streams: contextlib.ExitStack):
        self.path = path
        self.archive = archive
        self.streams = streams  # closed with the archive, however far they were read

    def array(self, key: str) -> np.ndarray:
        return np.concatenate(list(self.rows(key)))

    def shape(self, key: str) -> tuple[int, ...]:
        with _reading(self.path, NPZ):
            return self._header(self._member(key), key)[0]

    def rows(self, key: str) -> Iterator[np.ndarray]:
        with _reading(self.path, NPZ):
            stream = self._member(key)
            shape, dtype = self._header(stream, key)
        return _rows_of(self.path, NPZ, _read_rows(stream, dtype, shape, f"{self.path}: {key}"))

    def _member(self, key: str) -> Any:
        names = [name.removesuffix(".npy") for name in self.archive.namelist()]
        if key not in names:
            raise ValueError(f"{self.path} has no array {key!r}; it has: {', '.join(names) or 'none'}")
        return self.streams.enter_context(self.archive.open(f"{key}.npy"))

    def _header(self, stream: Any, key: str) -> tuple[tuple[int, ...], np.dtype]:
        try:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran_order, dtype = read[version](stream)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{self.path}: the header of {key} cannot be read ({error})") from error
        if dtype.hasobject or not shape or (fortran_order and len(shape) > 1):
            raise ValueError(f"{self.path}: {key} is no plain array in C order, but {dtype} {list(shape)}")
        return shape, dtype


@contextlib.contextmanager
def _open_hdf5(path: Path) -> Iterator[Arrays]:
    with contextlib.ExitStack() as stack:
        with _reading(path, HDF5):
            file = stack.enter_context(h5py.File(path, "r"))
        yield Hdf5Arrays(path, file)


class Hdf5Arrays:
    """Data sets of an HDF5 file."""

    def __init__(self, path: Path, file: h5py.File):
        self.path = path
        self.file = file

    def array(self, key: str) -> np.ndarray:
        with _reading(self.path, HDF5):
            return self._dataset(key)[...]

    def shape(self, key: str) -> tuple[int, ...]:
        with _reading(self.path, HDF5):
            return self._dataset(key).shape

    def rows(self, key: str) -> Iterator[np.ndarray]:
        return _rows_of(self.path, HDF5, self._rows(key))

    def _rows(self, key: str) -> Iterator[np.ndarray]:
        dataset = self._dataset(key)
        stored = (dataset.chunks or (1,))[0]  # reading across stored chunks would decompress them again
        row = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
        step = stored * max(1, CHUNK_BYTES // max(stored * row, 1))
        for start in range(0, len(dataset), step):
            yield dataset[start : start + step]

    def _dataset(self, key: str) -> Any:
        found: list[str] = []
        self.file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        if key not in found:
            raise ValueError(f"{self.path} has no array {key!r}; it has: {', '.join(found) or 'none'}")
        return self.file[key]


NORB_TYPES = {0x1E3D4C55: np.dtype("uint8"), 0x1E3D4C54: np.dtype("<i4")}


@contextlib.contextmanager
def open_norb(path: Path) -> Iterator[tuple[tuple[int, ...], Iterator[np.ndarray]]]:
    """(shape, rows in chunks) of a SmallNORB matrix, .mat or .mat.gz.

    Layout, little-endian int32: a number for the element type, the number of dimensions n, max(3, n) sizes
    of which the first n count; then the elements (cs.nyu.edu/~ylclab/data/norb-v1.0-small).
    """
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        with _reading(path, GZIP):
            magic, ndim = _read_int32(stream, 2, path)
            if magic not in NORB_TYPES or not 1 <= ndim <= 8:
                raise ValueError(f"{path} is no SmallNORB matrix: it begins with {magic:#010x} and {ndim}")
            shape = tuple(int(size) for size in _read_int32(stream, max(3, ndim), path)[:ndim])
        yield shape, _rows_of(path, GZIP, _read_rows(stream, NORB_TYPES[magic], shape, str(path)))


def read_norb(path: Path) -> np.ndarray:
    """A whole SmallNORB matrix, for labels."""
    with open_norb(path) as (_, rows):
        return np.concatenate(list(rows))


def read_table(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """(columns, file names [N], values [N, columns] int64) of one of CelebA's lists.

    Read as they were released (blanks between columns; a line with the number of images and one with the
    columns' names, both absent from the partition) and as CSV with a header, the form of common mirrors.
    """
    text = path.read_text()
    lines = csv.reader(io.StringIO(text)) if path.suffix == ".csv" else map(str.split, text.splitlines())
    rows = [row for row in lines if row]
    expected = int(rows.pop(0)[0]) if rows and len(rows[0]) == 1 and rows[0][0].isdigit() else None
    width = max((len(row) for row in rows), default=0)
    header = rows.pop(0) if rows and not rows[0][-1].lstrip("-").isdigit() else []
    columns = tuple(header[-(width - 1) :])
    try:
        values = np.array([[int(value) for value in row[1:]] for row in rows], np.int64)
        values = values.reshape(len(rows), width - 1)
    except ValueError as error:
        raise ValueError(f"{path}: its rows are not all a file name and {width - 1} integers ({error})") from error
    if not rows or expected not in (None, len(rows)):
        raise ValueError(f"{path} lists {len(rows):,} images; its first line says {expected}: {FETCH_AGAIN}")
    return columns, tuple(row[0] for row in rows), values


def decode_image(data: bytes, name: str) -> Image.Image:
    """A JPEG or PNG; ValueError with `name` where it does not decode."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return image
    except (OSError, SyntaxError, ValueError) as error:  # all three are Pillow's words for broken files
        raise ValueError(f"{name} does not decode ({error}): {FETCH_AGAIN}") from error


def crop_and_resize(image: Image.Image, crop: int | None, size: int, resample: str) -> np.ndarray:
    """[size, size] or [size, size, C] uint8: the central `crop` square (None: all of it), resized.

    Pillow's filters, which are antialiased. Cropped first: resizing a box would look beyond its edges.
    """
    if crop is not None:
        left, top = crop_corner(image.size, crop)
        image = image.crop((left, top, left + crop, top + crop))
    return np.asarray(image.resize((size, size), RESAMPLING[resample]))


def crop_corner(size: tuple[int, int], crop: int | None) -> tuple[int, int]:
    """(left, top) of the central square of `crop` px in an image of `size` (width, height), px."""
    if crop is None:
        return 0, 0
    if crop > min(size):
        raise ValueError(f"crop={crop} does not fit into images of {size[0]} × {size[1]} px")
    return (size[0] - crop) // 2, (size[1] - crop) // 2


def _read_rows(stream: Any, dtype: np.dtype, shape: tuple[int, ...], what: str) -> Iterator[np.ndarray]:
    row = math.prod(shape[1:]) * dtype.itemsize
    step = max(1, CHUNK_BYTES // max(row, 1))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        data = stream.read(count * row)
        if len(data) < count * row:
            raise ValueError(f"{what} ends before row {start + count:,} of {shape[0]:,}: {FETCH_AGAIN}")
        yield np.frombuffer(data, dtype).reshape(count, *shape[1:])


def _read_int32(stream: Any, count: int, path: Path) -> list[int]:
    data = stream.read(4 * count)
    if len(data) < 4 * count:
        raise ValueError(f"{path} ends within its header: {FETCH_AGAIN}")
    return np.frombuffer(data, "<u4").tolist()
