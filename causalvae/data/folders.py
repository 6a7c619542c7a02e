"""Data sets of images that a user has, as files: a folder with a list of labels, or one .npz archive."""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import functools
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ImageOps

from causalvae._files import DamagedFile, check_regular, reading
from causalvae._npz import Wanted, open_npz
from causalvae.data import _images, arrays
from causalvae.data.arrays import Plan, Resize
from causalvae.data.base import Dataset

SHOWN = 5  # bad lines that an error lists
LIST = "list of labels"
MOST_FACTORS = 4096
LARGEST_FILE = 2**28  # bytes of a list, or of an image
ARCHIVE = {
    "images": Wanted("buifc"),
    "factors": Wanted("buifcUS", itemsize=4096),
    "names": Wanted("US", itemsize=4096, largest=MOST_FACTORS),
}


def from_folder(
    path: str | os.PathLike,
    labels: str = "labels.csv",
    *,
    name: str | None = None,
    attributes: bool = False,
    resize: Resize = None,
    bins: Mapping[str, int] | None = None,
) -> Dataset:
    """Returns a data set of the images that lie in a folder and are listed in a file there.

    The file has a header. Its first column holds names of PNG or JPEG files, every other one a factor: integers, or
    texts, whose classes are the sorted distinct ones, which `describe()` records. Otherwise as `from_arrays`.

    Args:
        path: The folder.
        labels: The file's name; columns are separated by commas, semicolons or tabs.
        name: Of the set; by default the folder's.
        attributes: True where the factors did not make the images, even if they form a grid.
        resize: Height and width in px; images of several sizes need it.
        bins: factor -> number of bins of equal width that a continuous factor is divided into.

    Returns:
        The data set; its `source` is "arrays" or "arrays, observational".

    Raises:
        FileNotFoundError: there is no such folder, or no list in it.
        ValueError: for lines that do not fit the header, images that are missing, do not decode or differ in size, and
            cells that are no number in a column of numbers, each with its line; and what `from_arrays` refuses.
    """
    folder = Path(path).expanduser()
    table = _read_table(folder, folder / labels)
    images = _read_images(folder, table, None if resize is None else _images.parsed_size(resize))
    columns = {column: _values(table, k, column) for k, column in enumerate(table.names)}
    plan = Plan(name or folder.resolve().name, attributes, resize, bins)
    with _naming(folder / labels):
        return arrays.build(_images.checked(images), columns, plan, (("labels", labels),))


def from_archive(
    path: str | os.PathLike,
    *,
    name: str | None = None,
    attributes: bool = False,
    resize: Resize = None,
    bins: Mapping[str, int] | None = None,
) -> Dataset:
    """Returns the data set of an .npz archive with arrays `images`, `factors` and `names`; see `arrays.from_arrays`.

    `factors` may be left out, and `names` too.
    """
    file = Path(path).expanduser()
    held = _read_archive(file)
    with _naming(file):
        return arrays.from_arrays(
            held["images"],
            held.get("factors"),
            None if "names" not in held else np.atleast_1d(held["names"]).astype("U").tolist(),
            name=name or file.stem,
            attributes=attributes,
            resize=resize,
            bins=bins,
        )


def _read_archive(file: Path) -> dict[str, np.ndarray]:
    """The arrays `images`, `factors` and `names` of an archive, as far as they are there."""
    with open_npz(file, "npz file of plain arrays", "write it as numpy.savez does") as archive:
        if "images" not in archive.names:
            others = ", ".join(archive.names) or "nothing"
            raise DamagedFile(
                f"{file} has no array images; it holds {others}. numpy.savez(file, images=…, factors=…, names=…)"
            )
        held = {}
        for key, wanted in ARCHIVE.items():
            if key in archive.names:
                width = archive.shape(key, wanted)[1:2]
                if key == "factors" and width and width[0] > MOST_FACTORS:
                    raise DamagedFile(f"{file}: factors are [N, K], and K is {width[0]:,}")
                held[key] = archive.array(key)
        return held


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Around what is checked of a file's content: says which file."""
    try:
        yield
    except ValueError as error:
        raise DamagedFile(f"{path}: {error}") from error


def find(name: str, data_dir: str | os.PathLike | None = None) -> Path | None:
    """Returns the path that `name` is, in `data_dir` if given; None where it does not look like one.

    Raises:
        FileNotFoundError: it looks like one, and nothing is there.
        ValueError: what is there is neither a folder nor an .npz file.
    """
    path = Path(data_dir or ".").expanduser() / Path(name).expanduser()
    if not (path.is_dir() or path.suffix == ".npz" or os.sep in name or "/" in name):
        return None
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if not path.is_dir() and path.suffix != ".npz":
        raise ValueError(f"{path} is neither a folder with labels.csv nor an .npz file with images, factors and names")
    return path


# --- the list --------------------------------------------------------------------------------------------


class _Table(NamedTuple):
    """A list of labels: row n is about image n."""

    path: Path
    names: tuple[str, ...]  # of the factors
    lines: tuple[int, ...]  # where in the file each row stands
    files: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def _read_table(folder: Path, path: Path) -> _Table:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not path.is_file():
        held = ", ".join(sorted(file.name for file in folder.glob("*.csv"))[:SHOWN])
        raise FileNotFoundError(f"{folder} has no {path.name}" + (f"; say labels=… of: {held}" if held else ""))
    check_regular(path, LIST, LARGEST_FILE)
    with reading(path, LIST, "save it as text in UTF-8, with commas"):
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count))
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    if len(rows) < 2:
        raise DamagedFile(f"{path} needs a header, such as file,shape,x, and a line for each image")
    header = rows.pop(0)[1]
    bad, seen = [], {}
    for line, row in rows:
        if len(row) != len(header):
            bad.append((line, f"has {len(row)} cells, and the header {len(header)}"))
        elif "" in row:
            bad.append((line, f"has no {header[row.index('')]}"))
        elif seen.setdefault(row[0], line) != line:
            bad.append((line, f"lists {row[0]} again, after line {seen[row[0]]}"))
    _refuse(path, bad)
    if len(set(header[1:])) < len(header[1:]) or "" in header[1:]:
        raise DamagedFile(f"{path}: names of factors must differ, and none may be empty: {', '.join(header[1:])}")
    lines, cells = zip(*rows)
    return _Table(path, tuple(header[1:]), lines, tuple(row[0] for row in cells), tuple(tuple(r[1:]) for r in cells))


def _refuse(path: Path, bad: Iterable[tuple[int, str]]) -> None:
    """ValueError naming bad lines, if there are any."""
    bad = sorted(bad)
    if bad:
        more = f" (and {len(bad) - SHOWN:,} more)" if len(bad) > SHOWN else ""
        raise DamagedFile(f"{path}: " + "; ".join(f"line {line} {what}" for line, what in bad[:SHOWN]) + more)


def _values(table: _Table, k: int, name: str) -> np.ndarray:
    """Column k as integers, floats or texts [N]."""
    cells = [row[k] for row in table.cells]
    numbers = [_number(cell) for cell in cells]
    odd = [n for n, number in enumerate(numbers) if number is None]
    if 2 * len(odd) >= len(cells):  # a column of texts; a few numbers among them are names, too
        return np.array(cells)
    _refuse(table.path, [(table.lines[n], f"has {name} {cells[n]!r}, which is no number as others are") for n in odd])
    return np.array(numbers)  # int64 where all are integers


def _number(cell: str) -> int | float | None:
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


# --- the images ------------------------------------------------------------------------------------------


def _read_images(folder: Path, table: _Table, size: tuple[int, int] | None) -> np.ndarray:
    """Images [N, H, W, C] uint8: gray if all of them are."""
    from causalvae.data.real import formats  # with tools for archives, which nothing else here needs

    # Threads, since Pillow decodes without the GIL.
    with concurrent.futures.ThreadPoolExecutor() as pool, formats.refusing_bombs():
        found = list(pool.map(functools.partial(_decode, folder, size=size), table.files))
    bad = [
        (line, f"({file}) {what}") for line, file, what in zip(table.lines, table.files, found) if isinstance(what, str)
    ]
    _refuse(table.path, bad)
    pictures: list[Any] = found
    height, width = pictures[0].shape[:2]
    for line, file, picture in zip(table.lines, table.files, pictures):
        if picture.shape[:2] != (height, width):
            text = "is {} × {} px high and wide, and the first image {} × {}: resize=… makes all of one size"
            bad.append((line, f"({file}) {text.format(*picture.shape[:2], height, width)}"))
    _refuse(table.path, bad)
    channels = max(picture.shape[2] for picture in pictures)
    return np.stack([np.broadcast_to(picture, (height, width, channels)) for picture in pictures])


def _decode(folder: Path, file: str, size: tuple[int, int] | None) -> np.ndarray | str:
    """An image [H, W, 1 or 3] uint8, or what is wrong with it."""
    from causalvae.data.real import formats

    path = folder / file
    try:
        if not path.exists() or path.is_dir():
            return "is not there"
        check_regular(path, "image", LARGEST_FILE)
        with reading(file, "image"):
            image = ImageOps.exif_transpose(formats.decode_image(path.read_bytes(), file))
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if image.mode.startswith(("I", "F")):
        return f"has pixels of more than 8 bits (mode {image.mode}): convert it"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            return "is transparent in places: put it on a background"
    pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels if size is None else _images.resized(pixels[None], size)[0]
