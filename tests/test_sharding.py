"""Several devices and several hosts give the numbers of one device: eight forced host devices, two processes."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from causalvae import sharding
from causalvae.progress import read_json_lines

TESTS = pathlib.Path(__file__).parent
STEPS = 4


def start(workdir, result, devices, steps=STEPS, residency="device", distributed=()):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    command = [sys.executable, str(TESTS / "sharded_worker.py"), str(workdir), str(result), str(steps), residency]
    return subprocess.Popen([*command, *distributed], env=environment, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]


def leaves(path):
    with np.load(path) as stored:
        return [stored[f"arr_{i}"] for i in range(len(stored.files) - 3)], dict(
            mesh=stored["mesh"], processes=stored["processes"]
        )


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one")
    finish(start(workdir, workdir / "result.npz", devices=1))
    return workdir


def compare(workdir, one_device):
    """Parameters, Adam's moments and logged metrics to 1e-5 of one device's."""
    for found, expected in zip(leaves(workdir / "result.npz")[0], leaves(one_device / "result.npz")[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))
    logged = zip(*(read_json_lines(folder / "metrics.jsonl") for folder in (workdir, one_device)), strict=True)
    for found, expected in logged:
        assert found["step"] == expected["step"]
        for name in ("loss", "kl", "kl_per_latent"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_eight_devices_stopped_and_resumed_on_a_streamed_set_give_the_numbers_of_one(one_device, tmp_path):
    finish(start(tmp_path, tmp_path / "half.npz", devices=8, steps=STEPS // 2))
    finish(start(tmp_path, tmp_path / "result.npz", devices=8, residency="stream"))
    assert leaves(tmp_path / "result.npz")[1]["mesh"].tolist() == [4, 2]
    compare(tmp_path, one_device)


def test_two_hosts_on_a_streamed_set_give_the_numbers_of_one(one_device, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = [(coordinator, "2", str(i)) for i in range(2)]
    finish(*[start(tmp_path, tmp_path / "result.npz", 2, residency="stream", distributed=host) for host in hosts])
    assert leaves(tmp_path / "result.npz")[1]["processes"] == 2
    assert leaves(tmp_path / "result.npz")[1]["mesh"].tolist() == [4, 1]
    compare(tmp_path, one_device)


@pytest.mark.parametrize(
    "devices, members, batch_size, shape",
    [(8, 4, 16, (4, 2)), (8, 6, 64, (2, 4)), (8, 3, 64, (1, 8)), (8, 8, 16, (8, 1)), (4, 3, 6, (1, 2))],
)
def test_mesh_uses_the_devices_that_divide_members_and_batch(devices, members, batch_size, shape):
    mesh = sharding.make_mesh(members, batch_size, [FakeDevice(i) for i in range(devices)])
    assert mesh.devices.shape == shape and mesh.axis_names == ("member", "data")


class FakeDevice:
    def __init__(self, index):
        self.id, self.process_index, self.platform, self.device_kind = index, 0, "cpu", "cpu"


def test_one_device_needs_no_mesh():
    assert sharding.make_mesh(6, 64, jax.devices()[:1]) is None
    tree = {"a": np.ones(3)}
    assert sharding.shard_members(tree, None) is tree and sharding.replicate(tree, None) is tree
    assert sharding.fetch(tree, None) is tree and not sharding.on_any_process(False)
