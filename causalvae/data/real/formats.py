"""File formats of the real sets, read in chunks: nothing here holds a whole set in memory.

Every function names the file in what it raises: ValueError for content that is cut short or is not what the
format says.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from causalvae._files import FETCH_AGAIN, DamagedFile, check_regular, one_line, reading
from causalvae._npz import Header, Wanted, check_header, open_npz, read_rows

GZIP = "gzip file"
Encoded = tuple[bytes, str]  # an image file, and what to call it in an error
RESAMPLING = {filter.name.lower(): filter for filter in Image.Resampling}
DECODED = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # Pillow's others run programs, or hold no pixels
LARGEST_PIXELS = 2**26  # of an image
LARGEST_LIST = 2**28  # bytes of a list of labels


class Arrays(Protocol):
    """Named arrays of one file. What is `wanted` of one is checked before anything of it is read."""

    def array(self, key: str, wanted: Wanted | None = None) -> np.ndarray:
        """Returns a whole array, for labels."""
        ...

    def shape(self, key: str, wanted: Wanted | None = None) -> tuple[int, ...]:
        """Returns an array's shape, read from its header alone."""
        ...

    def rows(self, key: str) -> Iterator[np.ndarray]:
        """Yields consecutive rows of an array, about 16 MiB at a time."""
        ...


def open_arrays(path: Path) -> contextlib.AbstractContextManager[Arrays]:
    """The arrays of an .npz archive or an HDF5 file."""
    if path.suffix == ".npz":
        return open_npz(path)
    from causalvae.data.real.hdf5 import open_hdf5

    return open_hdf5(path)


NORB_TYPES = {0x1E3D4C55: np.dtype("uint8"), 0x1E3D4C54: np.dtype("<i4")}


@contextlib.contextmanager
def open_norb(path: Path, wanted: Wanted) -> Iterator[tuple[tuple[int, ...], Iterator[np.ndarray]]]:
    """(shape, rows in chunks) of a SmallNORB matrix, .mat or .mat.gz.

    Layout, little-endian int32: a number for the element type, the number of dimensions n, max(3, n) sizes
    of which the first n count; then the elements (cs.nyu.edu/~ylclab/data/norb-v1.0-small).
    """
    check_regular(path, GZIP)
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        with reading(path, GZIP):
            magic, ndim = _read_int32(stream, 2, path)
            if magic not in NORB_TYPES or not 1 <= ndim <= 8:
                raise DamagedFile(f"{path} is no SmallNORB matrix: it begins with {magic:#010x} and {ndim}")
            shape = tuple(int(size) for size in _read_int32(stream, max(3, ndim), path)[:ndim])
        check_header(str(path), Header(shape, NORB_TYPES[magic]), wanted)
        yield shape, _rows_of(path, read_rows(stream, NORB_TYPES[magic], shape, str(path)))


def _rows_of(path: Path, rows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    with reading(path, GZIP):
        yield from rows


def read_norb(path: Path, wanted: Wanted) -> np.ndarray:
    """A whole SmallNORB matrix, for labels."""
    with open_norb(path, wanted) as (shape, rows):
        return np.concatenate([np.zeros((0, *shape[1:]), np.int32), *rows])


def read_table(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """(columns, file names [N], values [N, columns] int64) of one of CelebA's lists.

    Read as they were released (blanks between columns; a line with the number of images and one with the
    columns' names, both absent from the partition) and as CSV with a header, the form of common mirrors.
    """
    check_regular(path, "list of images", LARGEST_LIST)
    with reading(path, "list of images"):
        text = path.read_text(encoding="utf-8")
        lines = csv.reader(io.StringIO(text)) if path.suffix == ".csv" else map(str.split, text.splitlines())
        rows = [row for row in lines if row]
    expected = int(rows.pop(0)[0]) if rows and len(rows[0]) == 1 and rows[0][0].isdecimal() else None
    width = max((len(row) for row in rows), default=0)
    header = rows.pop(0) if rows and not rows[0][-1].lstrip("-").isdecimal() else []
    columns = tuple(header[-(width - 1) :])
    try:
        values = np.array([[int(value) for value in row[1:]] for row in rows], np.int64)
        values = values.reshape(len(rows), width - 1)
    except (ValueError, OverflowError) as error:
        text = f"its rows are not all a file name and {width - 1} integers ({one_line(error)})"
        raise DamagedFile(f"{path}: {text}") from error
    if not rows or expected not in (None, len(rows)):
        raise DamagedFile(f"{path} lists {len(rows):,} images; its first line says {expected}: {FETCH_AGAIN}")
    return columns, tuple(row[0] for row in rows), values


@contextlib.contextmanager
def refusing_bombs() -> Iterator[None]:
    """Around threads that decode images: one that Pillow finds too large to be honest is an error, not a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_image(data: bytes, name: str) -> Image.Image:
    """A JPEG, PNG or the like; DamagedFile with `name` where it does not decode, or is too large."""
    try:
        image = Image.open(io.BytesIO(data), formats=DECODED)
        if image.width * image.height > LARGEST_PIXELS:
            raise DamagedFile(f"{name} is {image.width:,} × {image.height:,} px: resize it before")
        image.load()
        return image
    except DamagedFile:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DamagedFile(f"{name} has too many pixels to be read ({one_line(error)}): resize it before") from error
    except Exception as error:  # Pillow raises whatever it meets in a broken file
        raise DamagedFile(f"{name} does not decode ({one_line(error)}): {FETCH_AGAIN}") from error


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


def _read_int32(stream: Any, count: int, path: Path) -> list[int]:
    data = stream.read(4 * count)
    if len(data) < 4 * count:
        raise DamagedFile(f"{path} ends within its header: {FETCH_AGAIN}")
    return np.frombuffer(data, "<u4").tolist()
