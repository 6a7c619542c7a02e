"""One owner of a folder: refused, named, released by death, also on disks without locks and systems without fcntl."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from causalvae import locks, progress

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOLDER = """
import errno, fcntl, sys, time
from causalvae import locks
if sys.argv[2]:
    def flock(*arguments):
        raise OSError(int(sys.argv[2]), "no locks here")
    fcntl.flock = flock
with locks.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
@pytest.mark.parametrize("error", ["", str(errno.ENOSYS), str(errno.ENOTSUP), str(errno.ENOLCK)])
def test_an_owner_is_named_and_released_by_death(tmp_path, monkeypatch, error):
    import fcntl

    if error:

        def flock(*arguments):
            raise OSError(int(error), "no locks here")

        monkeypatch.setattr(fcntl, "flock", flock)
    command = [sys.executable, "-c", HOLDER, str(tmp_path), error]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(ValueError, match=f"in use by process {holder.pid} on .*, since 20"),
                locks.hold(tmp_path),
            ):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    with locks.hold(tmp_path):
        assert f"process {os.getpid()} on" in locks.owner(tmp_path / "run.lock")
    assert os.listdir(tmp_path) == []


def test_an_owner_that_has_not_written_its_name_yet_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "run.lock"
    path.touch()
    writer = threading.Timer(0.2, path.write_text, ["process 7 on there"])
    writer.start()
    assert locks.owner(path) == "process 7 on there"
    writer.join()
    monkeypatch.setattr(locks, "LOOKS", 2)
    path.write_text("")
    assert locks.owner(path) == locks.owner(tmp_path / "none.lock") == "another process"


def test_the_next_owner_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    left = [".results.json.123.tmp", "figures/.mediation.55.png", "figures/.mediation.55.tmp.png", ".table.9.npz"]
    kept = ["results.json", ".hidden", ".figure.png", "metrics.12.tmp", "checkpoints/12/state"]
    for name in left + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "checkpoints" / "16.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    with locks.hold(tmp_path):
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {*kept, "run.lock"} and not (tmp_path / "checkpoints" / "16.orbax-checkpoint-tmp").exists()


def test_a_file_is_whole_or_not_there_and_an_error_names_it(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(KeyboardInterrupt), progress.whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match=r"results.json cannot be written \(No space left.*MiB free there\). What was"):
        with progress.whole_file(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=r"cannot be written \(File name too long"):
        progress.write_text(tmp_path / ("x" * 300), "")
    with pytest.raises(OSError, match="cannot be written .Not a directory.*another with --workdir"):
        with locks.hold(pathlib.Path(__file__) / "run"):
            pass


def test_without_fcntl_everything_is_imported_and_locks_hold(tmp_path):
    """As on Windows, where there is no such module."""
    code = """
import sys, warnings
sys.modules["fcntl"] = None
import importlib, pkgutil
import causalvae as cv
import experiments.prepare, experiments.report.page, experiments.study.runner, experiments.study.explorers
for module in pkgutil.walk_packages(cv.__path__, "causalvae."):
    if not module.name.endswith("tfds"):
        importlib.import_module(module.name)
with cv.locks.hold(sys.argv[1]):
    try:
        cv.locks.hold(sys.argv[1]).__enter__()
    except ValueError as error:
        print("refused:", error)
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and "refused: " in ran.stdout, ran.stderr
