"""The benchmark's arithmetic, its command, and that its PyTorch side is the same network."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from causalvae import architectures, interventions
from causalvae.sites import no_tap
from experiments.benchmark import sections, timing

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_paired_runs_take_turns_and_warm_up_once():
    calls = []
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = timing.paired(runs, rounds=2, warm=("b",))
    assert calls == ["b", "a", "b", "b", "a"]
    assert {name: times.shape for name, times in seconds.items()} == {"a": (2,), "b": (2,)}
    assert all((times > 0).all() for times in seconds.values())


def test_rows_are_medians_and_ratios_within_rounds():
    seconds = {"ours": np.array([1.0, 4.0, 3.0]), "theirs": np.array([2.0, 2.0, 6.0])}
    ours, theirs = timing.rows_of(seconds, "theirs", work=10)
    assert (ours.milliseconds, theirs.milliseconds) == (300.0, 200.0)
    assert (ours.ratio, ours.quartiles) == (0.5, (0.5, 1.25))  # of 0.5, 2, 0.5
    assert (theirs.ratio, theirs.quartiles) == (1.0, (1.0, 1.0))
    table = timing.Table("step", "theirs", [ours._replace(note="n"), theirs], ["why"])
    shown = timing.show("title", table)
    assert "title: ms per step, ratio to theirs" in shown
    assert "300.00   0.500 [0.500 1.250]  n" in shown and shown.endswith("why")


def command(*arguments):
    run = [sys.executable, "-m", "experiments.benchmark", *arguments]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ)


def test_the_command_lists_sections_and_refuses_others():
    listed = command("--list")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in sections.SECTIONS)
    refused = command("--only=stp")
    assert refused.returncode == 1
    error = refused.stderr.splitlines()[-1]
    assert error.startswith("error: no section 'stp'; there are: step, ") and "'step'?" in error


def test_no_more_units_than_a_site_has_are_measured():
    shapes = {"few": np.zeros((1, 3)), "many": np.zeros((1, 4, 4, 64))}
    assert sections._units(shapes, 8) == {"few": range(3), "many": range(8)}
    assert sections._units(shapes, 0) == {"few": range(3), "many": range(64)}


def test_the_pytorch_network_loses_and_patches_as_ours():
    torch = pytest.importorskip("torch")
    from experiments.benchmark import torch_side

    model = architectures.create("vae")
    params = model.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    torch_side.prepare(torch.get_num_threads(), jax.tree.map(np.asarray, params), images)
    x, x_source = images[:3].astype(np.float32) / 255, images[3:].astype(np.float32) / 255

    outputs = model.forward(params, x, None, no_tap)
    logits, posterior = outputs.logits, outputs.posterior
    entropy = np.sum(np.logaddexp(0, logits) - x * logits) / 3
    kl = np.sum(0.5 * (posterior.mean**2 + np.exp(posterior.log_variance) - posterior.log_variance - 1)) / 3
    network = torch_side.networks["eager"]
    channels_first = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    loss = torch_side.negative_elbo(network, channels_first, noise=False)
    np.testing.assert_allclose(loss.item(), entropy + kl, rtol=1e-5)

    units = {"encoder/conv1": [0, 5], "decoder/dense1": [3, 700]}
    theirs, at_once = (sweep(x, x_source, units, 2) for sweep in (torch_side.patch_sweep, torch_side.vmapped_sweep))
    for site, indices in units.items():
        ours = interventions.patch_effects(model, params, (x, x_source), site, groups=indices).output_change
        np.testing.assert_allclose(theirs[site], ours, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(at_once[site], ours, rtol=1e-3, atol=1e-5)
    assert np.isfinite(torch_side.train("channels last", 2, 1))
