"""One study at a time on a directory, or one call of each of its shards."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator

from causalvae import locks
from experiments.study.plan import Shard

NAME = "study"
GATE_S = 1.0  # seconds that a shard waits for others that begin at the same time


@contextlib.contextmanager
def hold(workdir: pathlib.Path, shard: Shard | None = None) -> Iterator[None]:
    """Holds a study's directory, or the part of it that one shard does.

    A shard passes through the whole study's lock to take its own, and looks whether one of another number of parts,
    in which its groups would be too, is at work; a whole study keeps that lock, and looks whether any shard is.
    Temporary files are removed by whole studies only, which are alone.

    Raises:
        ValueError: where another process is at work; names it.
        OSError: where the directory cannot be written.
    """
    if shard is None:
        with locks.hold(workdir, NAME, sweep=False):
            if at_work := _shards(workdir):
                raise ValueError(f"{workdir} is in use by a shard: {locks.owner(at_work[0])}. Wait for it, or stop it.")
            locks.remove_left_overs(workdir)
            yield
        return
    with contextlib.ExitStack() as held:
        with _gate(workdir):
            if others := [path for path in _shards(workdir) if not path.stem.endswith(f"of{shard.parts}")]:
                raise ValueError(
                    f"{workdir} is in use by a shard of another number of parts than {shard.parts}, which would do "
                    f"some groups twice: {locks.owner(others[0])}. Give all shards the same number, or wait for it."
                )
            held.enter_context(locks.hold(workdir, f"{NAME}_{shard.number + 1}of{shard.parts}", sweep=False))
        yield


def _shards(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The locks of the shards that are at work."""
    return [path for path in sorted(workdir.glob(f"{NAME}_*of*.lock")) if not locks.is_free(path)]


@contextlib.contextmanager
def _gate(workdir: pathlib.Path) -> Iterator[None]:
    """The whole study's lock, for a moment: other shards hold it no longer than that."""
    until = time.monotonic() + GATE_S
    while True:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locks.hold(workdir, NAME, sweep=False))
            except ValueError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
                continue
            yield
            return
