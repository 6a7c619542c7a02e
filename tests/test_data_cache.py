"""The cache of prepared images: whole or absent, checked, and rebuilt only when asked."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import real_files as real

from causalvae import data
from causalvae.data.real import cache
from causalvae.data.real import entry as entries

ENTRY = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"


@pytest.fixture
def folder(tmp_path):
    """A data folder with a small dSprites file."""
    real.write_dsprites_npz(tmp_path, sizes=(3, 1, 2, 1, 2))
    return tmp_path


def load(folder, **options):
    return data.load("dsprites", source="real", data_dir=folder, **options)


def damage(path, offset=-1):
    """Change one byte."""
    with open(path, "r+b") as file:
        file.seek(offset, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(offset, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def test_an_entry_is_written_once_with_its_record(folder):
    dataset = load(folder)
    entry = folder / cache.FOLDER / ENTRY
    assert sorted(os.listdir(entry)) == ["images.npy", "provenance.json"]
    assert os.listdir(folder / cache.FOLDER) == [ENTRY], "no lock, no partial folder"
    record = json.loads((entry / "provenance.json").read_text())
    assert record["arrays"]["images"]["sha256"] == hashlib.sha256((entry / "images.npy").read_bytes()).hexdigest()
    source = (folder / f"{ENTRY}.npz").read_bytes()
    assert record["files"][0]["sha256"] == hashlib.sha256(source).hexdigest()
    assert record["dataset"] == "dsprites" and record["factor_names"] == ["shape", "orientation", "posY"]
    stored = np.load(entry / "images.npy", mmap_mode="r")
    assert stored.shape == (3, 2, 2, 64, 64, 1) and stored.dtype == np.uint8
    assert dataset.describe()["sha256"] == record["arrays"]["images"]["sha256"]
    written = (entry / "images.npy").stat()
    load(folder)
    assert (entry / "images.npy").stat().st_ino == written.st_ino, "prepared again without being asked"


@pytest.mark.parametrize("what", ["byte", "length", "missing", "record"])
def test_a_damaged_entry_is_named_and_rebuilt_only_when_asked(folder, what):
    before = np.asarray(load(folder).arrays["images"]).copy()
    entry = folder / cache.FOLDER / ENTRY
    if what == "byte":
        damage(entry / "images.npy", -5000)
    elif what == "length":
        os.truncate(entry / "images.npy", 9000)
    elif what == "missing":
        (entry / "images.npy").unlink()
    else:
        (entry / "provenance.json").write_text('{"arrays": ')
    for _ in range(2):  # it must not heal, nor be forgotten, by itself
        with pytest.raises(cache.CorruptCache, match=f"{ENTRY}.*rebuild=True.*causalvae prepare") as error:
            load(folder)
    if what in ("byte", "length"):
        assert "sha256" in str(error.value)
    np.testing.assert_array_equal(load(folder, rebuild=True).arrays["images"], before)
    np.testing.assert_array_equal(load(folder).arrays["images"], before)


def test_large_arrays_are_hashed_when_touched_or_asked_for(folder, monkeypatch):
    load(folder)
    monkeypatch.setattr(entries, "ALWAYS_VERIFY_BELOW", 0)
    images = folder / cache.FOLDER / ENTRY / "images.npy"
    times = images.stat()
    damage(images)
    with pytest.raises(cache.CorruptCache):
        load(folder)
    os.utime(images, ns=(times.st_atime_ns, times.st_mtime_ns))
    load(folder)
    with pytest.raises(cache.CorruptCache):
        load(folder, verify=True)


def test_a_copied_cache_is_as_good(folder, tmp_path_factory):
    images = np.asarray(load(folder).arrays["images"])
    copy = tmp_path_factory.mktemp("copy")
    subprocess.run(["cp", "-r", folder / cache.FOLDER, copy], check=True)
    np.testing.assert_array_equal(load(copy).arrays["images"], images)


def test_a_replaced_source_is_noticed(folder):
    load(folder)
    source = folder / f"{ENTRY}.npz"
    os.utime(source, (1, 1))
    load(folder)  # only its time has changed
    images = real.write_dsprites_npz(folder, sizes=(3, 2, 1, 1, 2))
    with pytest.raises(cache.StaleCache, match=f"{ENTRY}.npz is not the file that .* was made from.*rebuild=True"):
        load(folder)
    assert load(folder, rebuild=True).factor_names == ("shape", "scale", "posY")
    np.testing.assert_array_equal(load(folder).arrays["images"][..., 0] // 255, images[:, :, 0, 0])


def test_open_data_sets_survive_a_rebuild(folder):
    streamed = load(folder, residency="stream")
    before = streamed.render_one.read(np.arange(12))
    again = load(folder, residency="stream", rebuild=True)
    np.testing.assert_array_equal(streamed.render_one.read(np.arange(12)), before)
    np.testing.assert_array_equal(again.render_one.read(np.arange(12)), before)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_preparation_leaves_nothing(tmp_path, interruption):
    def build(store):
        store.create("images", (4, 2, 2, 1))[0] = 1
        raise interruption

    with pytest.raises(interruption):
        cache.prepare(tmp_path / "cache" / "entry", [], build)
    assert os.listdir(tmp_path / "cache") == []


def test_an_interrupted_rebuild_keeps_what_there_was(folder, monkeypatch):
    before = np.asarray(load(folder).arrays["images"])
    monkeypatch.setattr("causalvae.data.real.conversion.dsprites", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load(folder, rebuild=True)
    np.testing.assert_array_equal(load(folder).arrays["images"], before)


PREPARE = textwrap.dedent(
    """
    import importlib.util, pathlib, sys, time

    spec = importlib.util.spec_from_file_location("cache", sys.argv[3])  # alone: the package imports JAX
    cache = importlib.util.module_from_spec(spec)
    sys.modules["cache"] = cache
    spec.loader.exec_module(cache)
    folder, pause = pathlib.Path(sys.argv[1]), float(sys.argv[2])

    def build(store):
        images = store.create("images", (100, 8, 8, 1))
        images[:50] = 7
        with open(folder / "builds", "a") as log:
            log.write("build\\n")
        time.sleep(pause)
        images[50:] = 7
        return {}

    entry = cache.prepare(folder / "cache" / "entry", [], build)
    assert (entry.arrays["images"] == 7).all()
    """
)


def start(folder, pause):
    command = [sys.executable, "-c", PREPARE, folder, str(pause), cache.__file__]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(path, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_killed_and_concurrent_processes(tmp_path):
    killed = start(tmp_path, pause=600)
    wait_for(tmp_path / "builds")
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "cache" / "entry").exists(), "half an entry must not be seen"
    assert len(list((tmp_path / "cache").glob(".entry.*.partial"))) == 1
    (tmp_path / "builds").unlink()
    first = start(tmp_path, pause=2)
    wait_for(tmp_path / "builds")
    second = start(tmp_path, pause=0)
    errors = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], errors
    assert (tmp_path / "builds").read_text() == "build\n", "the second process must take the first one's result"
    assert "waiting for process" in errors[1] or "waiting" not in errors[0]
    assert os.listdir(tmp_path / "cache") == ["entry"], "what the killed process left must be gone"


def test_where_the_cache_goes(folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    load(folder, cache_dir=elsewhere / "given")
    assert (elsewhere / "given" / ENTRY / "images.npy").is_file() and not (folder / cache.FOLDER).exists()
    monkeypatch.setenv("CAUSALVAE_CACHE", str(elsewhere / "default"))
    folder.chmod(0o555)
    try:
        load(folder)
        assert not (folder / cache.FOLDER).exists(), "a folder without a write bit is left alone, even by root"
    finally:
        folder.chmod(0o755)
    (entry,) = os.listdir(elsewhere / "default")
    assert entry.startswith(f"{ENTRY}-")
    other = tmp_path_factory.mktemp("other")
    assert cache.location(ENTRY, other) == other / cache.FOLDER / ENTRY
    other.chmod(0o555)
    assert cache.location(ENTRY, other) != elsewhere / "default" / entry, "two folders must not share an entry"
    monkeypatch.delenv("CAUSALVAE_CACHE")
    monkeypatch.setenv("HOME", str(elsewhere / "home"))
    assert cache.location(ENTRY, other).parent == elsewhere / "home" / ".cache" / "causalvae"


def test_no_room_and_no_permission(folder, tmp_path_factory, monkeypatch):
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o555)
    with pytest.raises(PermissionError, match="cannot write to the cache folder .*cache_dir=… or .CAUSALVAE_CACHE"):
        load(folder, cache_dir=closed)
    usage = cache.shutil.disk_usage(folder)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="0.0 GiB free and images needs 0.0 GiB; make room"):
        load(folder)
    assert os.listdir(folder / cache.FOLDER) == []


def test_progress_tells_the_time_left(folder, monkeypatch, capsys):
    load(folder)
    assert capsys.readouterr().err == "", "a short preparation is silent"
    monkeypatch.setattr(cache.Countdown, "EVERY", 0.0)
    monkeypatch.setattr("causalvae._npz.CHUNK_BYTES", 6 * 4096)
    load(folder, rebuild=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"preparing {ENTRY}: 6 of 12 images (50%), ") and lines[0].endswith(" s left")
    assert "12 of 12 images (100%), 0 s left" in lines[1]
