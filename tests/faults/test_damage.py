"""Damaged files of every format that is read: one line that names the file, and nothing else happens."""

import errno
import json
import os

import h5py
import numpy as np
import pytest
import real_files as real

from causalvae import _files, _npz, data, progress
from causalvae.data.real import cache, hdf5

hypothesis = pytest.importorskip("hypothesis")
from attack import attack  # noqa: E402
from formats import FORMATS  # noqa: E402

SHORT, LONG = 8, 400  # examples of each format


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_said_in_a_line_that_names_the_file(name):
    attack(FORMATS[name], 2 if FORMATS[name].slow else SHORT, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_much_damage_is_said_in_a_line_that_names_the_file(name):
    attack(FORMATS[name], LONG // 4 if FORMATS[name].slow else LONG, seed=int(os.environ.get("FAULTS_SEED", "1")))


def test_a_harmful_read_is_seen():
    def leaky(folder, scratch):
        (folder / "groups.json").write_text("{}")

    with pytest.raises(AssertionError, match="files changed"):
        attack(FORMATS["groups.json"]._replace(read=leaky), 3, seed=0)


# --- state -----------------------------------------------------------------------------------------------


def test_a_damaged_first_line_does_not_drop_later_ones(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": [1.0]}) for step in range(1, 6)]
    path.write_text("\n".join(["{" + lines[0], *lines[1:], lines[0][:7]]))
    assert [line["step"] for line in progress.read_json_lines(path)] == [2, 3, 4, 5]
    assert capsys.readouterr().err == f"{path}: 1 damaged of 5 lines, left out: 1\n"
    with progress.JsonLines(path, keep=lambda line: line["step"] < 5) as file:
        file.write({"step": 5, "loss": [2.0]})
    assert [line["step"] for line in progress.read_json_lines(path)] == [2, 3, 4, 5]
    path.write_text('{"epoch": 1}\n')
    with pytest.raises(_files.DamagedFile, match="metrics.jsonl is not a file of training curves: none of its 1 lines"):
        progress.read_json_lines(path)


@pytest.mark.parametrize(
    "value, shape, said",
    [
        ({"a": {"b": 1}}, {"a": {"b": str}}, "a.b is a whole number, not a text"),
        ({"a": [1, "x"]}, {"a": [int]}, "a[1] is a text, not a whole number"),
        ({}, {"a": int}, "a is missing"),
        ({"a": True}, {"a": int}, "a is true or false, not a whole number"),
        ([], {"a": int}, "it is a list, not an object"),
        ({"x": 1, "y": None}, {...: int}, "y is null, not a whole number"),
        ([[1, 2], [3]], _files.Numbers(2), "the rows of it differ in length"),
        ([[1, None], [2.5, 3]], _files.Numbers(2), None),
        ({"null_a": "x"}, {"null_*": _files.NUMBER}, "null_a is a text, not a whole number or a number or null"),
        (None, ({"a": int}, type(None)), None),
        ({"b": 1}, {"a?": int}, None),
    ],
)
def test_a_shape_says_what_does_not_fit(value, shape, said):
    assert _files.first_misfit(value, shape) == said


# --- bombs and links -------------------------------------------------------------------------------------


def test_what_a_header_says_is_checked_before_anything_is_inflated(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "mpi3d_toy.npz", images=np.zeros((2, 64, 64, 3, 2**10), np.uint8))
    monkeypatch.setattr(_npz, "read_rows", None)  # would be called
    with pytest.raises(_files.DamagedFile, match=r"mpi3d_toy.npz holds images of shape \[2, 64, 64, 3, 1024\]"):
        data.load("mpi3d", source="real", data_dir=tmp_path)
    np.savez_compressed(tmp_path / "mine.npz", images=np.zeros((2, 8, 8, 1), np.uint8))
    monkeypatch.setattr(_npz, "memory", lambda: 200)
    with pytest.raises(_files.DamagedFile, match="mine.npz: images .* more than half of this machine's memory"):
        data.load(str(tmp_path / "mine.npz"))


def test_labels_that_are_no_numbers_are_refused(tmp_path):
    images, classes, _ = real.dsprites_arrays((3, 1, 2, 1, 2))
    labels = classes.astype(float)
    labels[5, 3] = np.nan
    np.savez(tmp_path / real.DSPRITES_NPZ, imgs=images, latents_classes=labels)
    with pytest.raises(_files.DamagedFile, match="npz: 1 of 12 labels are NaN or infinite, the first in row 5"):
        data.load("dsprites", source="real", data_dir=tmp_path)


@pytest.mark.parametrize("how", ["external", "virtual", "link"])
def test_what_lies_in_other_files_is_not_read(tmp_path, how):
    real.write_shapes3d(tmp_path, sizes=(2, 1, 1, 1, 1, 1))
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"s" * (2 * 64 * 64 * 3))
    with h5py.File(tmp_path / "3dshapes.h5", "a") as file:
        del file["images"]
        if how == "external":
            file.create_dataset("images", (2, 64, 64, 3), "u1", external=[("secret.bin", 0, 2 * 64 * 64 * 3)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((2, 64, 64, 3), "u1")
            layout[...] = h5py.VirtualSource("other.h5", "images", (2, 64, 64, 3))
            file.create_virtual_dataset("images", layout)
        else:
            file["images"] = h5py.ExternalLink("other.h5", "images")
    with pytest.raises(_files.DamagedFile, match="3dshapes.h5: images (lies in other files|is a link to)"):
        data.load("3dshapes", source="real", data_dir=tmp_path)
    assert not list(tmp_path.glob("causalvae_cache/*"))


def test_a_lock_is_no_damage(tmp_path, monkeypatch):
    real.write_shapes3d(tmp_path, sizes=(2, 1, 1, 1, 1, 1))
    whole, number = h5py.File, errno.ENOSYS

    def locked(path, mode, **options):
        if options.get("locking") is False:
            return whole(path, mode)
        raise OSError(f"Unable to synchronously open file (unable to lock file, errno = {number}, error message = 'x')")

    monkeypatch.setattr(hdf5.h5py, "File", locked)
    load = {"source": "real", "data_dir": tmp_path, "rebuild": True}
    assert data.load("3dshapes", **load).size == 2, "a disk without locks is read without one"
    number = errno.EAGAIN
    with pytest.raises(_files.LockedFile, match="3dshapes.h5 is locked: another process writes it"):
        data.load("3dshapes", **load)


def test_a_file_that_was_asked_for_is_said_to_be_missing(tmp_path):
    from experiments import prepare

    real.write_dsprites_npz(tmp_path, sizes=(3, 1, 1, 1, 1))
    with pytest.raises(FileNotFoundError, match="for other.npz"):
        prepare.prepare("dsprites", str(tmp_path), {"file": "other.npz"})


# --- readers beside a writer -----------------------------------------------------------------------------


def test_a_reader_finds_a_whole_entry_while_it_is_built_anew(tmp_path):
    entry = tmp_path / "cache" / "entry"

    def build(value):
        def images(store):
            store.create("images", (4, 8, 8, 1))[:] = value
            return {}

        return images

    def read():
        prepared = cache.prepare(entry, [], build(0))
        array = prepared.arrays["images"]
        assert array.min() == array.max()
        return array

    first = cache.prepare(entry, [], build(0)).arrays["images"]
    steps = []
    whole, replace = os.replace, cache.os.replace

    def watched(*paths):
        steps.append(read().max())
        replace(*paths)
        steps.append(read().max())

    cache.os.replace = watched
    try:
        for value in (1, 2, 2, 0):
            cache.prepare(entry, [], build(value), rebuild=True)
            assert read().max() == value
    finally:
        cache.os.replace = whole
    assert steps == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0], steps
    assert first.max() == 0, "who holds the old arrays keeps them"
    left = sorted(path.name for path in entry.iterdir())
    assert len(left) == 2 and left[1] == "provenance.json", left
