"""Damages examples of every file format and reads them: what was tried, and what went wrong.

    python tests/faults/attack.py --examples=400 --seed=1           # a table, one line per format
    python tests/faults/attack.py --formats="table.npz,mine.npz"

One oracle for all: a read returns, or raises an error that the commands say in one line with exit status 1, and that
line names the file. Nothing on disk changes or is left behind, and neither time nor memory grows beyond bounds.
"""

import argparse
import collections
import contextlib
import io
import os
import pathlib
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from typing import NamedTuple

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parents[2])]

import hypothesis  # noqa: E402
from formats import FORMATS, Format  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from experiments import cli  # noqa: E402

MADE = "times.csv"  # of what is read, as figures are
SECONDS, MEGABYTES = 20.0, 400  # of one read, beyond what was held before


class Tally(NamedTuple):
    """What became of the examples of a format."""

    counts: collections.Counter  # "read", "refused", "bad"
    bad: list[str]


def attack(format: Format, examples: int, seed: int, raising: bool = True) -> Tally:
    """Damages a format's example `examples` times.

    raising: whether the first bad outcome is an AssertionError, which hypothesis makes smaller; else they are counted.
    """
    tally = Tally(collections.Counter(), [])
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / "whole"
        whole.mkdir()
        format.write(whole)
        with tempfile.TemporaryDirectory() as other:
            copy = shutil.copytree(whole, pathlib.Path(other) / "data")
            format.read(copy, pathlib.Path(other) / "scratch")  # an example that is whole must be read

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if raising else [])],
            print_blob=False,
        )
        @hypothesis.given(st.data())
        def once(drawn):
            problem = _try(format, whole, drawn.draw, tally)
            if problem:
                tally.counts["bad"] += 1
                tally.bad.append(problem)
                assert not raising, problem

        once()
    return tally


def _try(format: Format, whole: pathlib.Path, draw, tally: Tally) -> str | None:
    """One damage and one read; returns what is wrong with the outcome, if anything."""
    with tempfile.TemporaryDirectory() as folder:
        place, scratch = pathlib.Path(folder) / "data", pathlib.Path(folder) / "scratch"
        shutil.copytree(whole, place)
        files = sorted(path for path in place.glob(format.target) if path.is_file())
        path = draw(st.sampled_from(files))
        harm = draw(st.sampled_from(format.damages))
        harm(draw, path)
        before, held, began = _content(place), _peak(), time.monotonic()
        error, said = _outcome(format, place, scratch)
        wrong = _judge(format, error, path)
        if _content(place) != before:
            wrong = "files changed"
        elif error is not None and scratch.exists() and any(scratch.iterdir()):
            wrong = f"left behind: {sorted(os.listdir(scratch))}"
        elif time.monotonic() - began > SECONDS:
            wrong = f"took {time.monotonic() - began:.0f} s"
        elif _peak() - held > MEGABYTES:
            wrong = f"took {_peak() - held:,.0f} MB"
        elif "Traceback" in said or len(set(said.splitlines())) > 1:
            wrong = f"said {said[:200]!r}"
        if wrong is None:
            tally.counts["read" if error is None else "refused"] += 1
            return None
        return f"{harm.__name__} of {path.relative_to(place)}: {wrong}"


def _outcome(format: Format, place: pathlib.Path, scratch: pathlib.Path) -> tuple[BaseException | None, str]:
    said, failed = io.StringIO(), None
    with _everything_said(said), warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            format.read(place, scratch)
        except Exception as error:
            failed = error
    return failed, said.getvalue()


@contextlib.contextmanager
def _everything_said(said: io.StringIO):
    """What goes to stderr, by Python or by libraries of another language, in `said`."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stderr(said):
                yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.write(file.read().decode(errors="replace"))


def _judge(format: Format, error: BaseException | None, path: pathlib.Path) -> str | None:
    if error is None:
        return None
    text = f"{type(error).__name__}: {error}"[:300]
    if not isinstance(error, cli.USER_ERRORS):
        return f"no error for users: {text}"
    if "\n" in str(error).strip():
        return f"several lines: {text!r}"
    # A list may be named by an error of what it belongs to, an archive by one of its folder.
    names = [path.name, str(path.parent), *filter(None, [format.named])]
    return None if any(name in str(error) for name in names) else f"names no file: {text}"


def _content(folder: pathlib.Path) -> dict[str, int]:
    return {str(path): hash(path.read_bytes()) for path in folder.rglob("*") if path.is_file() and path.name != MADE}


def _peak() -> float:
    """The largest memory that this process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _say(name: str, counts: collections.Counter) -> None:
    numbers = f"{counts.total():>6} {counts['read']:>6} {counts['refused']:>8} {counts['bad']:>5}"
    print(f"{name:<18} {numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--formats", default=",".join(FORMATS))
    options = parser.parse_args()
    total: collections.Counter = collections.Counter()
    print(f"seed {options.seed}\n{'format':<18} {'tried':>6} {'read':>6} {'refused':>8} {'bad':>5}")
    for name in options.formats.split(","):
        examples = options.examples // 4 if FORMATS[name].slow else options.examples
        counts, bad = attack(FORMATS[name], examples, options.seed, raising=False)
        total += counts
        _say(name, counts)
        for problem in list(dict.fromkeys(bad))[:8]:
            print(f"    {problem}", flush=True)
    _say("all", total)
    sys.exit(1 if total["bad"] else 0)


if __name__ == "__main__":
    main()
