"""The runner that kills anywhere: processes ended at random instants, and what they leave, compared."""

import fcntl
import os
import pathlib
import random
import re
import signal
import tempfile
import time
from typing import NamedTuple

import toy_command

from causalvae import locks

ROOT = pathlib.Path(__file__).resolve().parents[2]
WAYS = ("SIGKILL", "SIGTERM", "SIGINT", "full disk")
GO_ON = 75
SIZES = "--config.training.steps=12 --config.training.log_every=2 --config.training.checkpoint_every=4".split()
RUN = ["main", "--config=vae_dsprites:smoke", *SIZES]
STUDY = [
    "study", "--config=study:smoke", "--datasets=dsprites", "--config.seeds=1", "--config.architectures=vae,betatc",
    "--config.latents=4", "--config.evaluation.metrics=mig", "--config.evaluation.sites=latent/z", *SIZES,
]  # fmt: skip
# What says when and how long, or is named at random; all else must be the same bytes.
VARIES = re.compile(r"(.*/)?timing\.json|times\.csv|.*\.pdf|.*/checkpoints/\d+/.*|checkpoints/\d+/.*")


SERVER = toy_command.server()


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    errors: str
    seconds: float  # since it began


class Started:
    """A command in a process of its own."""

    def __init__(self, words, cache, **options):
        """options: of `toy_command.run`."""
        self.streams = pathlib.Path(tempfile.mkdtemp(dir=cache.parent, prefix="streams"))
        self.process = SERVER.Process(target=toy_command.run, args=(words, self.streams, cache), kwargs=options)
        os.mkfifo(self.streams / "err")  # a pipe: no limit to the size of files holds for it
        self.errors = os.open(self.streams / "err", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self.errors, fcntl.F_SETPIPE_SZ, 2**20)
        self.process.start()
        while not (self.streams / "begun").exists() and self.process.is_alive():
            time.sleep(0.001)
        self.began = time.monotonic()

    def end(self, after=None, number=None):
        """Waits for its end; it gets a signal `after` so many seconds."""
        if number is not None:
            self.process.join(after)
            if self.process.is_alive():
                os.kill(self.process.pid, number)
        self.process.join(600)
        return Ended(self.process.exitcode, self._said(), time.monotonic() - self.began)

    def _said(self):
        with open(self.errors, "rb", closefd=True) as pipe:
            return (pipe.read() or b"").decode(errors="replace")


def undisturbed(words, folder, cache):
    """Runs a command to its end, and fills the cache of compiled programs; returns the seconds of another one."""
    cache.mkdir(exist_ok=True)
    ended = Started([*words, f"--workdir={folder}"], cache, fills_cache=True).end()
    assert ended.status == 0, ended.errors
    again = Started([*words, f"--workdir={folder}_again"], cache).end()
    assert not differences(pathlib.Path(f"{folder}_again"), folder), "the same command twice gives the same bytes"
    return again.seconds


def disturb(words, folder, cache, seconds, draw: random.Random):
    """Begins the command and ends it at a random instant in a random way; returns (way, whether it had finished, what
    is wrong with how it ended)."""
    way = draw.choice(WAYS)
    words = [*words, f"--workdir={folder}"]
    if way == "full disk":
        ended = Started(words, cache, limit=int(10 ** draw.uniform(1, 5))).end()
        expected = (0, 1)
    else:
        number = signal.Signals[way]
        ended = Started(words, cache).end(draw.uniform(0, seconds), number)
        expected = (0, -9) if way == "SIGKILL" else (0, GO_ON)
    wrong = [] if ended.status in expected else [f"exit status {ended.status}"]
    last = (ended.errors.strip().splitlines() or [""])[-1]
    if "Traceback" in ended.errors:
        wrong.append("a traceback")
    if ended.status == 1 and not (last.startswith("error: ") and "cannot be written" in last):
        wrong.append("no line that names the file")
    return way, ended.status == 0, [f"{way}: {' and '.join(wrong)}\n{ended.errors[-2000:]}"] if wrong else []


def differences(folder, expected):
    """Names of files that are not in both folders, or are not the same bytes, or are left over."""
    found, wanted = contents(folder), contents(expected)
    different = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    left = [str(p.relative_to(folder)) for p in folder.rglob("*") if any(k.fullmatch(p.name) for k in locks.LEFT_OVER)]
    return different + left


def contents(folder):
    """name -> bytes of the files below a folder; of what varies, no bytes, and of a checkpoint only its name."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file() and not re.search(r"checkpoints/\d+/", name):
            found[name] = b"" if VARIES.fullmatch(name) else path.read_bytes()
        elif path.parent.name == "checkpoints":
            found[name] = b""
    return found


def together(words, cache, gap=0.0):
    """Starts a command twice; returns how both ended."""
    first = Started(words, cache)
    time.sleep(gap)
    second = Started(words, cache)
    return [first.end(), second.end()]


def refused(ended):
    """Of two ends, those that are not 'done' or 'in use by the other', and how many were done."""
    lines = [(end.errors.strip().splitlines() or [""])[-1] for end in ended]
    fine = [end.status == 0 or "is in use by process" in line for end, line in zip(ended, lines)]
    return [end.errors for end, good in zip(ended, fine) if not good], sum(end.status == 0 for end in ended)
