"""What is read back from disk, and may be damaged: one way to say which file, what it should be, and what to do.

`reading` stands around every read. `read_json` and `read_json_lines` check what they read against a shape, which is
written as what it describes:

    {"seed": int, "data": {"name": str, "factors": {...: int}}, "scores?": [{"name": str, "value": NUMBER}]}

is an object with these keys (a key with a question mark may be absent, others may be there), `...` for any key and
"null_*" for some, a list whose every element has a shape, types (`object` is any), tuples of alternatives, and
`Numbers(ndim)` for an array of numbers in nested lists.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

Path = str | os.PathLike
FETCH_AGAIN = "it was probably cut short in download or copy; fetch it again"
LARGEST_TEXT = 256 * 2**20  # bytes of a JSON file
LONGEST = 300  # characters of somebody else's message
NUMBER = (int, float, type(None))  # undefined numbers are null


class DamagedFile(ValueError):
    """A file whose content is not what it should be. The message names it and says what to do."""


class LockedFile(OSError):
    """A file that another process has open for writing."""


def one_line(error: BaseException) -> str:
    """Returns an error's message, or its type where there is none, in one line that is not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


@contextlib.contextmanager
def reading(path: Path, what: str, mend: str = FETCH_AGAIN) -> Iterator[None]:
    """Around every read of a file, and nothing else: what fails in here is that file's fault.

    Args:
      path: of the file.
      what: it should be, as in "JSON file".
      mend: what to do if it is not.

    Raises:
      DamagedFile: for whatever went wrong, but for a file that is not there or not permitted to be read.
    """
    try:
        yield
    except (DamagedFile, LockedFile, FileNotFoundError, PermissionError):
        raise
    except MemoryError as error:
        raise DamagedFile(f"{path} needs more memory than there is ({what})") from error
    except Exception as error:  # libraries raise whatever they happen to meet in bytes that they did not expect
        raise DamagedFile(f"{path} is not a readable {what} ({one_line(error)}): {mend}") from error


def check_regular(path: Path, what: str, largest: int | None = None) -> None:
    """Raises DamagedFile unless a path is a file (no folder, pipe or device) of at most `largest` bytes."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise DamagedFile(f"{path} is a folder, where a {what} is expected")
    if not stat.S_ISREG(status.st_mode):
        raise DamagedFile(f"{path} is a pipe or a device, where a {what} is expected")
    if largest is not None and status.st_size > largest:
        raise DamagedFile(f"{path} has {status.st_size:,} bytes; a {what} has at most {largest:,}")


def memory() -> int:
    """Returns the bytes of memory that this machine has; where it does not say, more than any has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**62


# --- JSON ------------------------------------------------------------------------------------------------


class Numbers(NamedTuple):
    """The shape of an array of numbers, undefined ones null, in nested lists."""

    ndim: int


def read_json(path: Path, what: str, shape: Any = dict, mend: str = "restore it, or delete it") -> Any:
    """Returns what a JSON file holds.

    Args:
      path: of the file.
      what: it should be, as in "record of a run".
      shape: of what it holds, see above.
      mend: what to do if it is not that.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedFile: it is not JSON, or of another shape.
    """
    check_regular(path, what, LARGEST_TEXT)
    with reading(path, what, mend):
        value = json.loads(pathlib.Path(path).read_bytes())
    difference = first_misfit(value, shape)
    if difference:
        raise DamagedFile(f"{path} is not a {what}: {difference}; {mend}")
    return value


def read_json_lines(path: Path, what: str, shape: Any = dict) -> list[Any]:
    """Returns the objects of a file with one JSON object per line.

    Lines that are not of the shape are left out, which is said on stderr, but for a last one that was cut short.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedFile: it has lines, and none is of the shape.
    """
    check_regular(path, what, 16 * LARGEST_TEXT)
    lines, bad = [], []
    with reading(path, what, "move it away"), open(path, "rb") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if first_misfit(line, shape) is None:
                lines.append(line)
            elif text.endswith(b"\n") or line is not None:
                bad.append(number)
    if bad and not lines:
        raise DamagedFile(f"{path} is not a {what}: none of its {len(bad):,} lines is one of it; move it away")
    if bad:
        listed = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        print(f"{path}: {len(bad):,} damaged of {len(bad) + len(lines):,} lines, left out: {listed}", file=sys.stderr)
    return lines


def first_misfit(value: Any, shape: Any, where: str = "") -> str | None:
    """Returns 'data.name is missing' or 'seed is a text', for the first part that is not of its shape, or None."""
    here = where or "it"
    if isinstance(shape, Numbers):
        return _misfit_of_numbers(value, shape.ndim, here)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{here} is {_kind(value)}, not an object"
        return next(filter(None, _misfits_of_parts(value, shape, where)), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{here} is {_kind(value)}, not a list"
        parts = (first_misfit(part, shape[0], f"{where}[{i}]") for i, part in enumerate(value))
        return next(filter(None, parts), None)
    types = shape if isinstance(shape, tuple) else (shape,)
    if not all(isinstance(kind, type) for kind in types):
        misfits = [first_misfit(value, kind, where) for kind in types]
        return None if None in misfits else misfits[0]
    if object in types:
        return None
    if isinstance(value, bool) and bool not in types or not isinstance(value, types):
        wanted = " or ".join(dict.fromkeys(_NAMES[kind] for kind in types))
        return f"{here} is {_kind(value)}, not {wanted}"
    return None


def _misfits_of_parts(value: dict, shape: dict, where: str) -> Iterator[str | None]:
    dot = f"{where}." if where else ""
    for key, part in shape.items():
        if key is ...:
            yield from (first_misfit(each, part, f"{dot}{name}") for name, each in value.items())
        elif key.endswith("*"):
            named = ((name, each) for name, each in value.items() if name.startswith(key[:-1]))
            yield from (first_misfit(each, part, f"{dot}{name}") for name, each in named)
        elif key.rstrip("?") in value:
            yield first_misfit(value[key.rstrip("?")], part, f"{dot}{key.rstrip('?')}")
        elif not key.endswith("?"):
            yield f"{dot}{key} is missing"


def _misfit_of_numbers(value: Any, ndim: int, where: str) -> str | None:
    if ndim == 0:
        return first_misfit(value, NUMBER, where)
    if not isinstance(value, list):
        return f"{where} is {_kind(value)}, not a list"
    if len({len(part) for part in value if isinstance(part, list)}) > 1:
        return f"the rows of {where} differ in length"
    parts = (_misfit_of_numbers(part, ndim - 1, f"{where}[{i}]") for i, part in enumerate(value))
    return next(filter(None, parts), None)


_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)
