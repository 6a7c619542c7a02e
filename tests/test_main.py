"""The entry point as a user meets it: exit statuses, one-line errors, the workdir's protection, figures."""

import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import causalvae as cv
from causalvae import runs, training
from configs import common
from experiments import pipeline, speed

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = "--config=configs/vae_dsprites.py:smoke"


def main(*arguments):
    command = [sys.executable, "-m", "experiments.main", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ)


def stored_results(workdir):
    return json.loads((workdir / "results.json").read_text())


def smoke(architecture="vae", dataset="dsprites", **changes):
    config = common.config_for(architecture, dataset, "smoke")
    for path, value in changes.items():
        config.update_from_flattened_dict({path.replace("__", "."): value})
    return config


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([CONFIG, "--config.data.sorce=real"], 'no setting \'sorce\'. Did you mean \'source\''),
        (["--config=configs/vae_dsprite.py"], "no config file configs/vae_dsprite.py. Did you mean 'configs/vae_ds"),
        (["--config=configs/vae_dsprites.py:quik"], "gpu, quick, overnight, pretrained, smoke. Did you mean 'quick'?"),
        ([CONFIG, "--config.seeds=0"], "seeds must be at least 1, not 0"),
        ([CONFIG, "--workdir=pyproject.toml/run"], "cannot be written (Not a directory)"),
    ],
)  # fmt: skip
def test_an_error_of_the_user_is_one_line_and_status_1(arguments, message):
    ran = main(*arguments)
    assert ran.returncode == 1, ran.stderr
    assert message in ran.stderr
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1 and "Traceback" not in ran.stderr


def test_a_run_out_of_time_leaves_with_the_status_that_means_go_on(tmp_path):
    ran = main(CONFIG, "--time_limit=1", f"--workdir={tmp_path}", "--stage=train", "--config.training.log_every=1")
    assert ran.returncode == 75, ran.stderr
    assert "stopped by the time limit at step 1 of 4; saved in" in ran.stderr and "error" not in ran.stderr


def test_the_catalog_and_the_help_name_what_exists():
    listed = main("--list").stdout
    for word in ("betatc", "smallnorb", "latent/z", "dci", "burgess"):
        assert word in listed
    assert "configs/betatc_3dshapes.py:quick" in main("--help").stdout


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(data__name="dsprite"), "dsprites"),
        (dict(data__source="genuine"), "procedural"),
        (dict(data__source="real", data__dir="/nowhere/at/all"), "/nowhere/at/all"),
        (dict(training__batch_size=0), "batch_size must be at least 1"),
        (dict(training__learning_rate=-1.0), "learning_rate must be positive"),
        (dict(evaluation__sites="decoder/conv9"), "no site 'decoder/conv9'.*Its sites, in order: encoder/conv0"),
        (dict(evaluation__metrics="migs"), "migs"),
        (dict(evaluation__pairs=0), "evaluation.pairs must be at least 2"),
        (dict(architecture__network="standart"), "no network 'standart'"),
        (dict(architecture__name="vqvae"), "no architecture 'vqvae'"),
        (dict(architecture__latents=0), "latents must be at least 1"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_computed(changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        pipeline.prepare(smoke(**changes))


@pytest.mark.parametrize("architecture", common.ARCHITECTURES)
def test_every_config_can_be_prepared_and_names_what_its_file_says(architecture):
    for dataset in common.DATASETS:
        made = importlib.import_module(f"configs.{architecture}_{dataset}").get_config
        for preset in ("", "gpu", "overnight", "quick", "smoke"):
            model, loaded, settings = pipeline.prepare(made(preset))
            assert (model.name, loaded.name, model.image_shape) == (architecture, dataset, loaded.image_shape)
            assert settings.pairs <= settings.images and settings == type(settings)(**made(preset).evaluation)
    assert made("").training.steps == 300_000 and made("").training.schedule == "constant"


def test_a_budget_for_accelerators_says_on_a_cpu_how_long_it_will_take(monkeypatch):
    config = common.config_for("vae", "dsprites")
    model, dataset, _ = pipeline.prepare(config)
    monkeypatch.setattr(speed, "seconds_per_step", lambda *arguments: 0.04)
    text = speed.warning(config, model, dataset, done=30_000)
    assert text.startswith("270,000 steps take about 3 h 00 min on this CPU (40 ms a step, measured)"), text
    assert ":overnight" in text and "Going on" in text
    assert speed.warning(config, model, dataset, done=295_000) == ""
    monkeypatch.setattr(speed, "seconds_per_step", lambda *arguments: 0.001)
    assert speed.warning(config, model, dataset, done=0) == ""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(speed, "seconds_per_step", lambda *arguments: 1 / 0)
    assert speed.warning(config, model, dataset, done=0) == ""


def test_a_run_trains_on_all_devices(monkeypatch, tmp_path):
    asked, given = [], []
    monkeypatch.setattr(pipeline.sharding, "make_mesh", lambda *sizes: asked.append(sizes) or "mesh")
    monkeypatch.setattr(training, "train", lambda *arguments, mesh, **settings: given.append(mesh))
    config = smoke(seeds=6)
    pipeline.train(config, None, None, tmp_path)
    assert (asked, given) == ([(6, 16)], ["mesh"])


def test_a_truncated_file_and_a_wrong_image_size_are_named(tmp_path):
    file = tmp_path / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
    np.savez(
        file,
        imgs=np.zeros((4, 32, 32), np.uint8),
        latents_classes=np.zeros((4, 6), int),
        latents_values=np.zeros((4, 6)),
    )
    config = smoke(data__source="real", data__dir=str(tmp_path))
    with pytest.raises(ValueError, match="32"):
        pipeline.prepare(config)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match="truncated|cut short|not a|damaged|incomplete"):
        pipeline.prepare(config)


def test_a_stage_that_cannot_begin_leaves_its_folder_to_others(tmp_path):
    with pytest.raises(ValueError, match="trained to step 0 of 4: train it first"):
        pipeline.run(smoke(), tmp_path, stage="evaluate")
    assert not (tmp_path / "config.json").exists()


def test_a_workdir_of_another_run_is_refused(tmp_path):
    config = smoke("vae")
    _, dataset, _ = pipeline.prepare(config)
    runs.claim_workdir(tmp_path, config.to_dict(), dataset)
    runs.claim_workdir(tmp_path, smoke("vae", training__steps=9).to_dict(), dataset)  # a continuation
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="architecture.name is 'vae' there and 'dip2' here"):
        runs.claim_workdir(tmp_path, smoke("dip2").to_dict(), dataset)
    assert (tmp_path / "config.json").read_text() == before
    older = json.loads(before)
    older.pop("pretrained")
    older["training"].pop("schedule")
    (tmp_path / "config.json").write_text(json.dumps(older))
    runs.claim_workdir(tmp_path, config.to_dict(), dataset)  # of a time when these settings did not exist
    assert json.loads((tmp_path / "config.json").read_text())["training"]["schedule"] == "constant"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not a readable configuration of a run"):
        runs.claim_workdir(tmp_path, config.to_dict(), dataset)


def test_a_run_writes_everything_it_promises_and_one_that_was_stopped_the_same(tmp_path, capsys, monkeypatch):
    config, stopped = smoke("betatc", "3dshapes", seeds=2), tmp_path / "stopped"
    tmp_path = tmp_path / "run"
    results = pipeline.run(config, tmp_path)
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("data: 3dshapes (procedural), 480,000 images")
    assert {p.name for p in tmp_path.iterdir()} == {
        "config.json", "metrics.jsonl", "checkpoints", "results.json", "timing.json", "figures",
        "explorer_seed0.html", "explorer_seed1.html",
    }  # fmt: skip
    parameters = stored_results(tmp_path)["architecture"]["parameters"]
    assert "The model redraws its images" in printed and "Disentanglement:" in printed and "Others:" not in printed
    assert re.search(rf"\| total +\| \d+ +\| {parameters:,} ", printed), "parts sum to what results.json says"
    names = ("reconstructions", "traversals", "factor_effects", "patching", "mediation", "mediation_effects")
    drawn = {p.name for p in (tmp_path / "figures").iterdir()}
    assert drawn == {f"{name}_seed{seed}.png" for name in names for seed in (0, 1)}
    stored = stored_results(tmp_path)
    assert stored["data"]["source"] == "procedural" and len(stored["members"]) == 2
    for score in stored["members"][1]["scores"]:
        assert score["estimator"] and (score["value"] is not None or score["note"]), score["name"]
    assert len(results["members"][0]["factor_effects"]) == 6
    steps = training.train_steps

    def terminate(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return steps(*arguments)

    with monkeypatch.context() as patched, pytest.raises(training.Stopped, match="SIGTERM at step 2 of 4"):
        patched.setattr("causalvae.training._advance.train_steps", terminate)
        pipeline.run(config, stopped)
    pipeline.run(config, stopped)
    for name in ("results.json", "metrics.jsonl", "config.json"):
        assert (stopped / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert_redrawn(tmp_path)
    more = smoke("betatc", "3dshapes", seeds=2, training__steps=6)
    assert pipeline.run(more, stopped, stage="train") is None
    again = pipeline.run(config, stopped, stage="evaluate", scores="all")  # asks for 4 steps, and finds 6
    assert again["training"]["steps"] == stored_results(stopped)["training"]["steps"] == 6
    assert "6 training steps" in (stopped / "explorer_seed0.html").read_text()
    printed = capsys.readouterr().out
    assert "6 steps" in printed and "Others:" in printed
    table = cv.frame(cv.load(stopped))
    assert set(table.steps) == {6} and set(table.seed) == {0, 1}


def assert_redrawn(workdir):
    """The figures of results.json are those that were drawn when it was written."""
    paths = cv.figures.redraw(cv.load(workdir).results, workdir / "redrawn")
    assert {path.name for path in paths} == {
        f"{name}_seed{seed}.png"
        for name in ("factor_effects", "patching", "mediation", "mediation_effects")
        for seed in (0, 1)
    }
    for path in paths:
        drawn = Image.open(workdir / "figures" / path.name)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(drawn), err_msg=path.name)


def test_all_thirty_configs_exist_and_agree_with_their_names():
    files = sorted(p.stem for p in (ROOT / "configs").glob("*_*.py") if not p.stem.startswith("_"))
    assert files == sorted(f"{a}_{d}" for a in common.ARCHITECTURES for d in common.DATASETS)
    for stem in files:
        module = __import__(f"configs.{stem}", fromlist=["get_config"])
        config = module.get_config()
        assert f"{config.architecture.name}_{config.data.name}" == stem
        assert config.training.steps == 300_000
