"""Archives of numpy arrays, .npz: what their headers say is checked before anything is inflated, and nothing executes.

with open_npz(path) as arrays:
    images = arrays.array("images", Wanted("u", (None, 64, 64), largest=480_000))
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from causalvae._files import FETCH_AGAIN, DamagedFile, Path, check_regular, memory, reading

NPZ = "npz archive"
CHUNK_BYTES = 16 * 2**20
KINDS = {
    "b": "bool",
    "u": "whole numbers",
    "i": "whole numbers",
    "f": "real numbers",
    "c": "complex numbers",
    "U": "texts",
    "S": "texts",
}
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Wanted(NamedTuple):
    """What an array must be; told from its header alone."""

    kinds: str  # of numpy's one-letter kinds of dtypes: "u", "iuf", ...
    shape: tuple[int | None, ...] | None = None  # None for any length, or for any shape
    largest: int | None = None  # rows
    itemsize: int | None = None  # bytes of an element, at most


class Header(NamedTuple):
    """What the header of an array says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def check_header(what: str, header: Header, wanted: Wanted) -> None:
    """Raises DamagedFile, naming `what` (path and array), where an array's header is not what is wanted."""
    shape, dtype = header.shape, header.dtype
    if dtype.kind not in wanted.kinds or dtype.subdtype is not None:
        raise DamagedFile(f"{what} is {dtype}; expected {_described(wanted)}")
    if wanted.itemsize is not None and dtype.itemsize > wanted.itemsize:
        raise DamagedFile(f"{what} is {dtype}; expected elements of at most {wanted.itemsize} bytes")
    if wanted.shape is not None and not (
        len(shape) == len(wanted.shape) and all(w in (None, n) for n, w in zip(shape, wanted.shape))
    ):
        sizes = ", ".join("N" if n is None else str(n) for n in wanted.shape)
        raise DamagedFile(f"{what} has shape {list(shape)}; expected [{sizes}]")
    if wanted.largest is not None and shape and shape[0] > wanted.largest:
        raise DamagedFile(f"{what} has {shape[0]:,} rows; expected at most {wanted.largest:,}")


def _described(wanted: Wanted) -> str:
    if wanted.itemsize == 1:
        return " or ".join({"u": "uint8", "b": "bool", "i": "int8"}[kind] for kind in wanted.kinds)
    return " or ".join(dict.fromkeys(KINDS[kind] for kind in wanted.kinds))


@contextlib.contextmanager
def open_npz(path: Path, what: str = NPZ, mend: str = FETCH_AGAIN) -> Iterator[NpzArrays]:
    """The arrays of an archive, for the time of a `with` block."""
    check_regular(path, what)
    with contextlib.ExitStack() as streams:
        with reading(path, what, mend):
            archive = streams.enter_context(zipfile.ZipFile(path))
        yield NpzArrays(path, archive, streams, what, mend)


def read_npz(
    path: Path, wanted: Mapping[Any, Wanted], what: str = NPZ, mend: str = FETCH_AGAIN
) -> dict[str, np.ndarray]:
    """Returns arrays of an archive by name; a name with a question mark may be absent, and `...` is of all others.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedFile: it is no such archive, or an array is missing or not what is wanted.
    """
    with open_npz(path, what, mend) as arrays:
        named = {name.rstrip("?"): (name, like) for name, like in wanted.items() if isinstance(name, str)}
        found = {}
        for name in [*named, *(name for name in arrays.names if ... in wanted and name not in named)]:
            asked, like = named.get(name, (name, wanted.get(...)))
            if asked.endswith("?") and name not in arrays.names:
                continue
            found[name] = arrays.array(name, like)
        return found


class NpzArrays:
    """Members of an .npz archive, decompressed as they are read; pickled ones are never loaded."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, streams: contextlib.ExitStack, what: str, mend: str):
        self.path, self.what, self.mend = path, what, mend
        self.archive = archive
        self.streams = streams  # closed with the archive, however far they were read
        self.names = [name.removesuffix(".npy") for name in archive.namelist()]

    def array(self, key: str, wanted: Wanted | None = None) -> np.ndarray:
        """Returns a whole array; DamagedFile where it is not what is wanted, or larger than half of the memory."""
        stream, header = self._open(key, wanted)
        if header.nbytes > memory() // 2:
            size = f"{header.nbytes / 2**30:.1f} GiB, more than half of this machine's memory"
            raise DamagedFile(f"{self.path}: {key} {list(header.shape)} {header.dtype} takes {size}")
        with reading(self.path, self.what, self.mend):
            flat = np.empty(math.prod(header.shape), header.dtype)
            done = 0
            for chunk in self._rows(stream, header._replace(shape=(flat.size,)), key):
                flat[done : done + len(chunk)] = chunk
                done += len(chunk)
            return flat.reshape(header.shape, order="F" if header.fortran_order else "C")

    def shape(self, key: str, wanted: Wanted | None = None) -> tuple[int, ...]:
        """Returns an array's shape, read from its header alone."""
        return self._open(key, wanted)[1].shape

    def rows(self, key: str) -> Iterator[np.ndarray]:
        """Yields consecutive rows of an array, about 16 MiB at a time."""
        stream, header = self._open(key)
        if not header.shape or (header.fortran_order and len(header.shape) > 1):
            raise DamagedFile(f"{self.path}: {key} {list(header.shape)} is no array of rows in C order")
        with reading(self.path, self.what, self.mend):
            yield from self._rows(stream, header, key)

    def _rows(self, stream: Any, header: Header, key: str) -> Iterator[np.ndarray]:
        return read_rows(stream, header.dtype, header.shape, f"{self.path}: {key}")

    def _open(self, key: str, wanted: Wanted | None = None) -> tuple[Any, Header]:
        if key not in self.names:
            raise DamagedFile(f"{self.path} has no array {key!r}; it has: {', '.join(self.names) or 'none'}")
        with reading(self.path, self.what, self.mend):
            stream = self.streams.enter_context(self.archive.open(f"{key}.npy"))
            header = _read_header(stream, f"{self.path}: the header of {key}")
            size = self.archive.getinfo(f"{key}.npy").file_size - stream.tell()
        if header.dtype.hasobject:
            raise DamagedFile(f"{self.path}: {key} holds Python objects, which could run code: they are not read")
        if wanted is not None:
            check_header(f"{self.path}: {key}", header, wanted)
        if size != header.nbytes:
            says = (
                f"{key} has {size:,} bytes, and its header {list(header.shape)} {header.dtype} says {header.nbytes:,}"
            )
            raise DamagedFile(f"{self.path}: {says}: {self.mend}")
        return stream, header


def _read_header(stream: Any, what: str) -> Header:
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = HEADERS[version](stream)
    except Exception as error:  # it is parsed as Python's literals are, which fails in many ways
        raise DamagedFile(
            f"{what} cannot be read ({type(error).__name__}): it is no array that numpy.savez wrote"
        ) from error
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise DamagedFile(f"{what} says shape {list(shape)}")
    return Header(shape, dtype, fortran_order)


def read_rows(stream: Any, dtype: np.dtype, shape: tuple[int, ...], what: str) -> Iterator[np.ndarray]:
    """Yields consecutive rows of an array that a stream holds in C order, about 16 MiB at a time."""
    row = math.prod(shape[1:]) * dtype.itemsize
    step = max(1, CHUNK_BYTES // max(row, 1))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        data = stream.read(count * row)
        if len(data) < count * row:
            raise DamagedFile(f"{what} ends before row {start + count:,} of {shape[0]:,}: {FETCH_AGAIN}")
        yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
