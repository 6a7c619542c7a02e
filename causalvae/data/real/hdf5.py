"""Arrays of HDF5 files, read in chunks from the file itself: nothing that a file points to elsewhere is followed."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from causalvae._files import DamagedFile, LockedFile, check_regular, reading
from causalvae._npz import CHUNK_BYTES, Header, Wanted, check_header

HDF5 = "HDF5 file"
LARGEST_CHUNK = 2**28  # bytes that are inflated at once, whatever is read of them
LISTED = 20  # names in a message
BUSY = (11, 35)  # errno of a lock that somebody holds (EAGAIN, of BSD too)


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5Arrays]:
    """The arrays of an HDF5 file, for the time of a `with` block."""
    check_regular(path, HDF5)
    with contextlib.ExitStack() as stack:
        with reading(path, HDF5):
            file = _open(path)
            stack.enter_context(file)
        yield Hdf5Arrays(path, file)


def _open(path: Path) -> h5py.File:
    """The file, for reading. Where the disk has no locks (network disks say so in many ways), without one."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        found = re.search(r"lock file.*?errno = (\d+)", str(error), re.DOTALL)
        if found is None:
            raise
        if int(found[1]) in BUSY:
            raise LockedFile(
                f"{path} is locked: another process writes it. Wait for that, or stop it; where there is none, "
                "HDF5_USE_FILE_LOCKING=FALSE in the environment reads it without a lock"
            ) from error
    return h5py.File(path, "r", locking=False)


class Hdf5Arrays:
    """Data sets of an HDF5 file."""

    def __init__(self, path: Path, file: h5py.File):
        self.path = path
        self.file = file

    def array(self, key: str, wanted: Wanted | None = None) -> np.ndarray:
        """Returns a whole array, for labels; DamagedFile where it is not what is wanted."""
        with reading(self.path, HDF5):
            return self._dataset(key, wanted)[...]

    def shape(self, key: str, wanted: Wanted | None = None) -> tuple[int, ...]:
        """Returns an array's shape, read from its header alone."""
        with reading(self.path, HDF5):
            return self._dataset(key, wanted).shape

    def rows(self, key: str) -> Iterator[np.ndarray]:
        """Yields consecutive rows of an array, about 16 MiB at a time."""
        with reading(self.path, HDF5):
            dataset = self._dataset(key, None)
            stored = (dataset.chunks or (1,))[0]  # reading across stored chunks would decompress them again
            row = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
            step = stored * max(1, CHUNK_BYTES // max(stored * row, 1))
            for start in range(0, len(dataset), step):
                yield dataset[start : start + step]

    def _dataset(self, key: str, wanted: Wanted | None) -> Any:
        found, what = self._find(key), f"{self.path}: {key}"
        if found.shape is None:
            raise DamagedFile(f"{what} is empty: it has a type, and no shape")
        if found.external or found.is_virtual:
            raise DamagedFile(f"{what} lies in other files, which are not read: fetch a file that holds its arrays")
        size = math.prod(found.chunks or (0,)) * found.dtype.itemsize
        if size > LARGEST_CHUNK:
            raise DamagedFile(f"{what} is stored in chunks of {size:,} bytes; expected at most {LARGEST_CHUNK:,}")
        if wanted is not None:
            check_header(what, Header(found.shape, found.dtype), wanted)
        if found.size and not found.id.get_storage_size():
            raise DamagedFile(f"{what} {list(found.shape)} was declared, and never written: fetch the file again")
        return found

    def _find(self, key: str) -> Any:
        place: Any = self.file
        for part in key.split("/"):
            link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
            if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
                raise DamagedFile(f"{self.path}: {key} is a link to {link.path}, which is not followed")
            place = None if link is None else place[part]
        if not isinstance(place, h5py.Dataset):
            names = self._names()
            raise DamagedFile(f"{self.path} has no array {key!r}; it has: {', '.join(names) or 'none'}")
        return place

    def _names(self) -> list[str]:
        names: list[str] = []

        def note(name: str, item: Any) -> bool | None:
            names.extend([name] if isinstance(item, h5py.Dataset) else [])
            return True if len(names) >= LISTED else None  # anything but None ends the visit

        self.file.visititems(note)
        return names
