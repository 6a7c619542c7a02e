"""What long work says while it runs: progress with the time left, and metrics as JSON lines."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from causalvae import _files

TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.\w+)?")  # the names of `whole_file`
SAFE = "What was stored before is whole: make room, or mend it, and the same command goes on."


def duration(seconds: float) -> str:
    """Returns '42 s', '3 min 05 s' or '2 h 10 min'."""
    if not math.isfinite(seconds):
        return "?"
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Progress with rate and time left: one line rewritten in a terminal or notebook, lines at growing intervals in a
    log file.

    tqdm would draw the same line, but counts the first call, which compiles, in its rate, and floods a log file.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        unit: str = "",
        rate: tuple[str, float] | None = None,
        stream: TextIO | None = None,
    ):
        self.total, self.start_done, self.unit = total, done, unit
        self.rate_name, self.rate_factor = rate or (f"{unit}/s", 1)
        self.stream = stream or sys.stderr
        self.rewrites = self.stream.isatty() or "ipykernel" in sys.modules
        self.interval = 0.2 if self.rewrites else 5.0
        self.started = self.shown = time.monotonic()
        self.first: tuple[float, int] | None = (
            None  # (time, done) after the first call, which compiles: rates leave it out
        )
        self.line = ""  # that is rewritten

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.rewrites and self.line:
            self.stream.write("\n")
            self.stream.flush()

    def update(self, done: int, note: str = "") -> None:
        """Says that `done` of the total are finished."""
        now = time.monotonic()
        self.first = self.first or (now, done)
        if now - self.shown < self.interval and done < self.total and self.first != (now, done):
            return
        if not self.rewrites:
            self.interval = min(60.0, self.interval * 1.5)
        self.shown = now
        self._show(f"{self._bar(done)}{done}/{self.total} {self.unit}  {self._speed(now, done)}{note}")

    def say(self, text: str) -> None:
        """Writes a line of its own, above the one that is rewritten."""
        hidden = f"\r{' ' * len(self.line)}\r" if self.rewrites else ""
        self.stream.write(f"{hidden}{text}\n{self.line}")
        self.stream.flush()

    def _bar(self, done: int) -> str:
        """' 40% [####------]  ', for whoever watches; nothing in a log."""
        if not self.rewrites or not self.total:
            return ""
        part = min(1.0, done / self.total)
        return f"{math.floor(100 * part):3d}% [{'#' * math.floor(10 * part):-<10}]  "

    def _speed(self, now: float, done: int) -> str:
        first_time, first_done = self.first or (now, done)
        if done <= first_done or now <= first_time:
            return ""
        speed = (done - first_done) / (now - first_time)
        left = duration((self.total - done) / speed)
        return f"{speed * self.rate_factor:.0f} {self.rate_name}  {left} left  "

    def _show(self, line: str) -> None:
        if self.rewrites:
            if self.stream.isatty():  # of a line that wraps, only the last part would be rewritten
                line = line[: max(1, shutil.get_terminal_size().columns - 1)]
            self.stream.write("\r" + line.ljust(len(self.line)))
            self.line = line
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


class JsonLines:
    """A file of one JSON object per line, appended to; on opening, lines that `keep` refuses are dropped, so
    that a resumed run's file is what an uninterrupted run's would be."""

    def __init__(self, path: str | pathlib.Path, keep: Callable[[dict[str, Any]], bool] = lambda line: True):
        self.path = pathlib.Path(path)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [line for line in read_json_lines(self.path) if keep(line)]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        with writing(self.path):
            self.file = self.path.open("a", encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(OSError):  # a full disk has been said by then
            self.file.close()

    def write(self, line: dict[str, Any]) -> None:
        """Appends one object and flushes it."""
        with writing(self.path):
            self.file.write(json.dumps(finite(line)) + "\n")
            self.file.flush()


CURVES = {  # a line of metrics.jsonl
    "step": int,
    **{f"{name}?": _files.Numbers(1) for name in ("loss", "reconstruction", "kl", "active_latents")},
}


def read_json_lines(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl; damaged ones are left out, and a last one that was cut short."""
    return _files.read_json_lines(path, "file of training curves", CURVES)


@contextlib.contextmanager
def whole_file(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the name of a temporary file beside `path`, which takes its place at the end: a whole file or none.

    Raises:
      OSError: where it cannot be written; says why, how much room there is and what is safe.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.stem[:100]}.{os.getpid()}.tmp{path.suffix}")
    try:
        with writing(path):
            yield temporary
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(path: str | pathlib.Path) -> Iterator[None]:
    """Gives an OSError within the context the file's name, the room on its disk and what is safe."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if getattr(error, "of_a_file", False):  # said already, of a part of what is written here
            raise
        found = OSError(f"{path} cannot be written ({error.strerror or error}{_room(pathlib.Path(path))}). {SAFE}")
        found.of_a_file = True  # type: ignore[attr-defined]
        raise found from error


def _room(path: pathlib.Path) -> str:
    """', 3,200 MiB free there', or nothing where that cannot be found out."""
    try:
        return f", {shutil.disk_usage(path.parent).free / 2**20:,.1f} MiB free there"
    except OSError:
        return ""


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes a whole file or nothing, in UTF-8: through a temporary file beside it and a rename."""
    write_bytes(path, text.encode())


def write_bytes(path: str | pathlib.Path, data: bytes) -> None:
    """Writes a whole file or nothing, as `write_text` does."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | pathlib.Path, value: Any) -> None:
    """Writes indented JSON by `write_text`; NaN and infinities become null, which every JSON reader takes."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Returns `value` with arrays as lists and non-finite numbers as None."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    if hasattr(value, "_asdict"):
        return finite(value._asdict())
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
