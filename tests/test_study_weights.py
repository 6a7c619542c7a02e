"""A study that keeps weights instead of checkpoints: what is kept, what is made of it, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import toy_study

from causalvae import pretrained
from causalvae._files import DamagedFile
from experiments import pipeline, ship
from experiments.study import planning, runner, trained, weights
from experiments.study.plan import Options, Shard


def study(workdir, seeds=2, plan_only=False, **options):
    """VAE, and a beta-VAE that diverges."""
    config = toy_study.get_config(architectures="vae,beta", seeds=seeds)
    return runner.run(config, workdir, Options(**options), plan_only)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A study of which only the weights are there, and another with its checkpoints."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        toy_study.patch(patch.setattr)
        study(folder / "weights", stage="train", keep="weights")
        study(folder / "checkpoints")
        yield folder
        planning._load.cache_clear()


@pytest.fixture
def copy(kept, tmp_path):
    shutil.copytree(kept / "weights", tmp_path / "study")
    return tmp_path / "study"


def record(workdir, run):
    return json.loads((workdir / "runs" / run / "record.json").read_text())


def test_the_weights_of_every_run_are_kept_and_no_checkpoint(kept, copy):
    files = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
    assert [name.split("/")[-1] for name in files] == ["groups.json", "metrics.jsonl", *["weights.safetensors"] * 4]
    for run in study(copy, plan_only=True).runs:
        facts = weights.read_facts(weights.path_of(copy, run))
        assert facts.step == 4 and facts.device and facts.seconds > 0
        assert (facts.diverged is None) == (run.architecture == "vae")
    group, run = trained.find(kept / "checkpoints", "dsprites-vae-s1")
    model, _, params, _ = trained.restore(kept / "checkpoints", group, run)
    ours = weights.read(copy, run, model)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(pretrained.inference_params(model, params)), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b).astype(np.float16).astype(np.float32))


def test_shards_evaluate_from_the_weights_alone_and_train_nothing(kept, copy, monkeypatch):
    shutil.rmtree(copy / "groups")
    groups = (copy / "groups.json").read_bytes()
    monkeypatch.setattr("experiments.study.worker.train", lambda *_: pytest.fail("trained again"))
    for i in range(2):
        study(copy, stage="evaluate", shard=Shard(i, 2))
        assert len(list(copy.glob("runs/*/record.json"))) == 2 * (i + 1)
    assert (copy / "groups.json").read_bytes() == groups
    study(copy)
    for run in ("dsprites-vae-s0", "dsprites-vae-s1"):
        half, whole = record(copy, run), record(kept / "checkpoints", run)
        assert half["config"] == whole["config"] and half["training"] == whole["training"]
        for a, b in zip(half["scores"], whole["scores"], strict=True):
            assert a["name"] == b["name"]
            if a["name"] in ("elbo", "reconstruction"):
                np.testing.assert_allclose(a["value"], b["value"], rtol=1e-3)
    assert record(copy, "dsprites-beta-beta=3e+38-s1")["reason"] == "the loss was not finite by step 2"
    (_,), run = trained.find(copy, "dsprites-vae-s1")[0].runs, trained.find(copy, "dsprites-vae-s1")[1]
    assert trained.restore(copy, planning.make_group([run]), run).step == 4


def test_what_is_kept_is_neither_trained_again_nor_replaced(copy):
    before = {path: path.read_bytes() for path in copy.rglob("weights.safetensors")}
    plan = study(copy, seeds=3, stage="train", keep="weights")
    assert [[run.id for run in work.group.runs] for work in plan.todo] == [
        ["dsprites-vae-s2", "dsprites-beta-beta=3e+38-s2"]
    ]
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(copy.rglob("weights.safetensors"))) == 6


def test_what_is_kept_beside_a_lost_file_is_evaluated_once(copy):
    run = study(copy, plan_only=True).runs[0]
    weights.path_of(copy, run).unlink()
    plan = study(copy, plan_only=True)
    assert len(plan.runs) == 4 and [[r.id for r in work.pending] for work in plan.todo][0] == [run.id]
    assert sorted(r.id for work in plan.todo for r in work.pending) == sorted(r.id for r in plan.runs)


def test_a_damaged_file_is_named(copy):
    (run, *_) = study(copy, plan_only=True).runs
    path = weights.path_of(copy, run)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        DamagedFile, match=r"weights.safetensors is not a readable file of a run's weights .*--stage=tr"
    ):
        study(copy, stage="evaluate")
    arrays = safetensors.numpy.load(data)
    name = next(iter(arrays))
    arrays[name] = np.full_like(arrays[name], np.nan)
    facts = {"step": 4, "diverged": None, "device": "x", "seconds": 1.0}
    path.write_bytes(safetensors.numpy.save(arrays, {"training": json.dumps(facts)}))
    with pytest.raises(DamagedFile, match="weights.safetensors is damaged: .* is not finite"):
        weights.read(copy, run, toy_model(run))
    path.write_bytes(safetensors.numpy.save(arrays, {"training": json.dumps({**facts, "step": "4"})}))
    with pytest.raises(DamagedFile, match="is not a file of a run's weights: .*step"):
        study(copy, stage="evaluate")


def test_weights_of_other_settings_are_refused(copy):
    config = toy_study.get_config(architectures="vae,beta", training__learning_rate=0.5)
    with pytest.raises(ValueError, match="weights.safetensors is of a run of other settings: .*learning_rate is 0.001"):
        runner.run(config, copy, Options(stage="evaluate"))
    config = toy_study.get_config(architectures="vae,beta", training__steps=8)
    assert len(runner.run(config, copy, Options(), plan_only=True).todo) == 1, "more steps: trained again"


def toy_model(run):
    return pipeline.create_model(run.config, planning.load_dataset(run))


def test_a_model_is_shipped_from_its_weights(copy, tmp_path):
    study(copy, stage="evaluate")
    name = ship.ship(copy, folder=tmp_path, run="dsprites-vae-s1")
    about = json.loads((tmp_path / f"{name}.json").read_text())
    assert about["training"]["steps"] == 4
    shipped = safetensors.numpy.load_file(tmp_path / f"{name}.safetensors")
    own = safetensors.numpy.load_file(copy / "runs" / "dsprites-vae-s1" / "weights.safetensors")
    for key, array in own.items():
        np.testing.assert_array_equal(shipped[key], array)
    scores = {score["name"]: score["value"] for score in record(copy, "dsprites-vae-s1")["scores"]}
    assert {score["name"]: score["value"] for score in about["scores"]} == scores
