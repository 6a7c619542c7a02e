"""Real files that are not what they should be, on the command line: one clear line and exit status 1."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import real_files as real

from causalvae import data

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Runs `python -m experiments.prepare` once per list of arguments, in one process: imports take most of the time.
PREPARE = textwrap.dedent(
    """
    import contextlib, io, json, os, sys

    from absl import flags
    from experiments import cli, prepare

    results = []
    for arguments in json.loads(sys.argv[1]):
        for name in list(flags.FLAGS):
            flags.FLAGS[name].unparse()
        flags.FLAGS.unparse_flags()
        as_nobody = arguments[0] == "nobody" and os.geteuid() == 0  # permissions mean nothing to root
        sys.argv = ["experiments.prepare", *(a for a in arguments if a != "nobody")]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            os.seteuid(65534 if as_nobody else os.geteuid())
            try:
                cli.run(prepare.main)
            except SystemExit as leaving:
                status = leaving.code or 0
            os.seteuid(0 if as_nobody else os.geteuid())
        results.append([status, out.getvalue(), err.getvalue()])
    print(json.dumps(results))
    """
)


def prepare(*commands):
    """(exit status, stdout, stderr) of each command, a list of arguments."""
    run = [sys.executable, "-c", PREPARE, json.dumps(commands)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_h5(folder):
    real.write_shapes3d(folder, sizes=(2, 2, 1, 1, 1, 1))
    cut(folder / "3dshapes.h5")
    return "3dshapes", ("3dshapes.h5 is not a readable HDF5 file", "fetch it again")


def wrong_key(folder):
    np.savez(folder / "mpi3d_toy.npz", image=np.zeros((4, 64, 64, 3), np.uint8))
    return "mpi3d", ("mpi3d_toy.npz has no array 'images'; it has: image",)


def wrong_number(folder):
    np.savez(folder / "mpi3d_toy.npz", images=np.zeros((5, 64, 64, 3), np.uint8))
    return "mpi3d", ("mpi3d_toy.npz", "5 images", "1,036,800", "460,800")


def cut_gz(folder):
    real.write_smallnorb(folder, sizes=(2, 1, 1, 1))
    path = folder / f"{real.NORB_STEMS['train']}-dat.mat.gz"
    cut(path)
    return "smallnorb", (path.name, "not a readable gzip file", "fetch it again")


def broken_jpeg(folder):
    real.write_celeba(folder, num=4, as_zip=False)
    cut(folder / "img_align_celeba" / "000002.jpg")
    return "celeba", ("000002.jpg", "does not decode")


def no_permission(folder):
    real.write_dsprites_npz(folder, sizes=(3, 1, 1, 1, 1))
    folder.chmod(0)
    return "dsprites", ("no permission to read", str(folder))


CASES = (cut_h5, wrong_key, wrong_number, cut_gz, broken_jpeg, no_permission)


def test_prepare_names_what_is_wrong_in_one_line_and_leaves_nothing(tmp_path):
    commands, expected = [], []
    for case in CASES:
        folder = tmp_path / case.__name__
        folder.mkdir()
        name, parts = case(folder)
        who = ["nobody"] if case is no_permission else []
        commands.append([*who, f"--dataset={name}", f"--data_dir={folder}"])
        expected.append(parts)
    for case, parts, (status, out, err) in zip(CASES, expected, prepare(*commands), strict=True):
        assert status == 1 and out == "", (case.__name__, out)
        assert err.startswith("error: ") and err.count("\n") == 1, err
        for part in parts:
            assert part in err, case.__name__
    (tmp_path / "no_permission").chmod(0o755)
    left = [path.name for path in tmp_path.glob("*/causalvae_cache/*")]
    assert left == [], "nothing half-written may stay"


def test_a_damaged_cache_is_rebuilt_only_when_asked(tmp_path):
    real.write_dsprites_npz(tmp_path, sizes=(3, 1, 1, 1, 2))
    command = ["--dataset=dsprites", f"--data_dir={tmp_path}"]
    data.load("dsprites", source="real", data_dir=tmp_path)
    (images,) = tmp_path.glob("causalvae_cache/*/images.npy")
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    first, second, rebuilt, after = prepare(command, command, [*command, "--rebuild"], command)
    for status, out, err in (first, second):  # it must not heal by itself
        assert status == 1 and out == "" and err.count("\n") == 1
        assert "damaged: images.npy" in err and "sha256" in err and "--rebuild" in err
    assert images.read_bytes() != bytes(content)
    assert rebuilt[0] == after[0] == 0 and rebuilt[1] == after[1]
    assert rebuilt[1].startswith("dsprites: 6 images of 64 × 64 × 1")


def test_a_run_ends_with_the_same_line(tmp_path):
    name, parts = cut_h5(tmp_path)
    config = [f"--config=configs/vae_{name}.py:smoke", f"--workdir={tmp_path / 'run'}"]
    source = ["--config.data.source=real", f"--config.data.dir={tmp_path}"]
    run = [sys.executable, "-m", "experiments.main", *config, *source]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and all(part in done.stderr for part in parts)
