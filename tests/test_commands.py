"""Commands from anywhere: of a clone, and of an installed package beside folders that have the same names."""

import argparse
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest

from causalvae import commands
from experiments import cli, streams

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder of packages as the wheel would fill it, by links."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    site = tmp_path_factory.mktemp("site")
    (site / "causalvae" / "_commands").mkdir(parents=True)
    for path in (ROOT / "causalvae").iterdir():
        (site / "causalvae" / path.name).symlink_to(path)
    for name in set(wheel["only-include"]) - {"causalvae"}:
        (site / wheel["sources"][name]).symlink_to(ROOT / name)
    return site


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A user's folder with packages of our names."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("experiments/__init__.py", "experiments/main.py", "configs/__init__.py", "configs/vae_mine.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise SystemExit('the user's own')")
    return folder


def causalvae(installed, folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "causalvae", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_an_installed_package_runs_its_own_commands_and_configs(installed, elsewhere):
    ran = causalvae(installed, elsewhere, "run", "--config=vae_dsprites:smoke", "--config.seeds=0")
    assert (ran.returncode, ran.stderr) == (1, "error: seeds must be at least 1, not 0\n")
    code = "import causalvae as cv; print(cv.commands.find()); from experiments import overrides as o; "
    code += "print(o._as_called('python -m experiments.main --config=configs/vae_mpi3d.py:quick'))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    ran = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True)
    expected = [str(installed / "causalvae" / "_commands"), "causalvae run --config=vae_mpi3d:quick"]
    assert ran.stdout.splitlines() == expected, ran.stderr


def test_a_command_that_is_none_is_one_line(elsewhere):
    ran = causalvae(ROOT, elsewhere, "rum")
    assert ran.returncode == 1 and ran.stderr.startswith("error: no command 'rum'; there are: run, study")
    listed = causalvae(ROOT, elsewhere).stdout
    assert all(f"  {name} " in listed for name in commands.COMMANDS) and "Train a VAE" in listed


def test_terminals_without_our_characters_and_readers_that_leave():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = "from experiments import streams; streams.print_anything(); print('2×3 → β é 中')"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.stdout == "2x3 -> beta e ?\n", ran.stderr
    command = f"{sys.executable} -m experiments.metrics --list | true"
    assert subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True).stderr == ""
    assert streams.Terminated.__mro__[1] is BaseException, "no `except Exception` may stop it"


def test_a_device_that_is_not_there_is_one_line(elsewhere, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nonesuch")
    ran = causalvae(ROOT, elsewhere, "run", "--config=vae_dsprites:smoke")
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1, ran.stderr
    assert ran.stderr.startswith("error: JAX_PLATFORMS=nonesuch asks for a device that JAX does not find here")


def test_a_file_to_write_is_refused_before_anything_is_computed(tmp_path):
    assert cli.output_file(str(tmp_path / "x.md")) == tmp_path / "x.md"
    with pytest.raises(argparse.ArgumentTypeError, match="there is no folder .*nowhere"):
        cli.output_file(str(tmp_path / "nowhere" / "x.md"))
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder, or lies in one"):
        cli.output_file(str(tmp_path))
