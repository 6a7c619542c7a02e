"""One owner at a time of a folder, and nothing left of those that were killed.

    with locks.hold("runs/mine"):
        ...

The lock is filelock's: the operating system lets go of it when its process ends, however it ends. On a disk that has
no such locks (some network file systems), a file `<name>.held` that names its owner stands for it; that of a process
which died on this machine is taken over. Linux and macOS lock by flock, Windows by its own call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator

import filelock

from causalvae.progress import TEMPORARY

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what flock says where a disk has no locks
LOOKS = 20  # at a lock's file for its owner's name, a twentieth of a second apart
# What older versions left beside a file: `.stem.pid.suffix`; and Orbax, a checkpoint that is not whole.
LEFT_OVER = (TEMPORARY, re.compile(r"\..+\.\d+\.(npz|png|pdf|svg)"), re.compile(r"\d+\.orbax-checkpoint-tmp.*"))


@contextlib.contextmanager
def hold(folder: str | pathlib.Path, name: str = "run", wait: bool = False, sweep: bool = True) -> Iterator[None]:
    """Holds a folder's lock for as long as the context lasts; makes the folder where there is none.

    Args:
      folder: what is owned.
      name: of the lock; the file `<name>.lock` in the folder says who holds it, and is gone afterwards.
      wait: for another owner to end, where there is one; a line on stderr says so.
      sweep: whether to remove temporary files of earlier owners from the folder and those below it.

    Raises:
      ValueError: names the other owner.
      OSError: where the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, wait)
    except filelock.Timeout as error:
        raise ValueError(
            f"{folder} is in use by {owner(path)}. Wait for it, stop it, or choose another folder. (It is free as soon "
            f"as that process ends.{_by_hand(path)})"
        ) from error
    except OSError as error:
        raise type(error)(
            error.errno, f"{folder} cannot be written ({error.strerror}); choose another with --workdir"
        ) from error
    try:
        if sweep:
            remove_left_overs(folder)
        yield
    finally:
        _release(path, lock)


def is_free(path: pathlib.Path) -> bool:
    """Returns whether nobody holds the lock of this file."""
    try:
        _release(path, _acquire(path, wait=False))
    except filelock.Timeout:
        return False
    return True


def owner(path: pathlib.Path) -> str:
    """Returns who holds the lock of this file, in words: process, machine, command and since when."""
    held = _held(path)
    path = held if held.exists() else path
    text = since = ""
    for _ in range(LOOKS):  # who has the lock writes its name a moment later
        try:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        except OSError:
            break
        if text:
            break
        time.sleep(0.05)
    lines = text.splitlines()
    if len(lines) > 1 and lines[0].isdecimal():  # filelock's own file, on a disk without locks
        return f"process {lines[0]} on {lines[1]}, since {since}"
    return text or "another process"


def remove_left_overs(folder: pathlib.Path) -> list[pathlib.Path]:
    """Removes what killed writers left in a folder and those below it: files that were never given their names.

    To be called by the folder's only writer. Returns what was removed.
    """
    found = [
        pathlib.Path(parent) / name
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if any(pattern.fullmatch(name) for pattern in LEFT_OVER)
    ]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def _acquire(path: pathlib.Path, wait: bool) -> filelock.BaseFileLock:
    if wait:
        with contextlib.suppress(filelock.Timeout):
            return _acquire(path, wait=False)
        print(f"waiting for {owner(path)}, which is at work in {path.parent}", file=sys.stderr, flush=True)
    timeout = -1 if wait else 0
    lock = filelock.FileLock(path, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, filelock.Timeout) or error.errno not in NO_LOCKS:
            raise
        lock = filelock.SoftFileLock(_held(path), timeout=timeout)
        lock.acquire()
        return lock
    with contextlib.suppress(OSError):  # a courtesy; Windows may not let a locked file be written
        path.write_text(_self() + "\n", encoding="utf-8")
    return lock


def _release(path: pathlib.Path, lock: filelock.BaseFileLock) -> None:
    """Lets go of a lock. Its file is removed first: who waits for it looks whether it is there still."""
    with contextlib.suppress(OSError):
        path.unlink()
    lock.release()


def _held(path: pathlib.Path) -> pathlib.Path:
    """The file that stands for a lock on a disk without locks."""
    return path.with_suffix(".held")


def _by_hand(path: pathlib.Path) -> str:
    held = _held(path)
    return f" If it ran on another machine and died, delete {held.name}." if held.exists() else ""


def _self() -> str:
    """This process, in words."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = spec.name.removesuffix(".__main__") if spec else pathlib.Path(sys.argv[0] or "python").name
    command = " ".join([program, *map(shlex.quote, sys.argv[1:9])])
    return f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M')}: {command}"
