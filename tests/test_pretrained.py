"""Shipped models: what is stored is what comes back, on any machine what the card says, and nothing damaged loads."""

import hashlib
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import toy

import causalvae as cv
from causalvae import data, pretrained, runs, training
from configs import common
from experiments import pipeline, ship

SHIPPED = pretrained.names()


def smoke(**changes):
    config = common.config_for("vae", "dsprites", "smoke")
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


@pytest.mark.parametrize("architecture", ["vae", "factor", "vq"])
def test_weights_survive_packing_as_half_precision(architecture):
    model = toy.model(architecture)
    params = model.init(jax.random.key(0))
    back = pretrained.unpack(model, safetensors.numpy.load(safetensors.numpy.save(pretrained.pack(model, params))))
    kept = cv.architectures.inference_params(model, params)
    assert jax.tree.structure(back) == jax.tree.structure(kept)
    assert "discriminator" not in back
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(kept), strict=True):
        assert a.dtype == np.float32 and np.array_equal(a, np.asarray(b).astype(np.float16).astype(np.float32))


def test_what_half_precision_cannot_hold_and_weights_of_another_model_are_refused():
    model = toy.model("vae")
    params = jax.tree.map(lambda leaf: leaf + 1e5, model.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="decoder/.* holds values that half precision cannot"):
        pretrained.pack(model, params)
    arrays = pretrained.pack(toy.model("vae", latents=5), toy.model("vae", latents=5).init(jax.random.key(0)))
    with pytest.raises(ValueError, match="of another model: .* arrays differ, such as decoder/dense0/kernel"):
        pretrained.unpack(model, arrays)


def test_a_run_is_shipped_and_evaluated_without_training(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    with pytest.raises(ValueError, match="no pretrained model 'vae_dsprites'; there are: none"):
        cv.load_pretrained("vae_dsprites")
    with pytest.raises(ValueError, match="trained to step 0 of 4"):
        runs.claim_workdir(tmp_path / "run", smoke().to_dict(), pipeline.load_dataset(smoke().data))
        ship.ship(tmp_path / "run", folder=folder)
    pipeline.run(smoke(), tmp_path / "run", stage="train")
    assert ship.ship(tmp_path / "run", folder=folder) == "vae_dsprites" and pretrained.names() == ("vae_dsprites",)
    model, params = cv.load_pretrained("vae_dsprites")
    about = pretrained.card("vae_dsprites")
    assert about["training"]["steps"] == 4 and about["sha256"] == digest(folder / "vae_dsprites.safetensors")

    # Evaluating it gives the card's scores, and says whose training it was.
    results = pipeline.run(smoke(pretrained="vae_dsprites"), tmp_path / "evaluated")
    scores = {score["name"]: score["value"] for score in results["members"][0]["scores"]}
    assert scores == {score["name"]: score["value"] for score in about["scores"]}
    assert results["training"]["pretrained"] == "vae_dsprites" and results["training"]["steps"] == 4
    assert "the shipped model vae_dsprites, not trained here" in capsys.readouterr().out
    assert not (tmp_path / "evaluated" / "checkpoints").exists()

    with pytest.raises(ValueError, match="no pretrained model 'vae_dsprite'; .* Did you mean 'vae_dsprites'"):
        cv.load_pretrained("vae_dsprite")
    with pytest.raises(ValueError, match="the shipped model vae_dsprites is trained: leave --stage=train out"):
        pipeline.run(smoke(pretrained="vae_dsprites"), tmp_path / "evaluated", stage="train")
    with pytest.raises(ValueError, match="is not the config's: latents is 5 there and 6 here"):
        pipeline.run(smoke(pretrained="vae_dsprites", architecture__latents=6), tmp_path / "other")
    assert not (tmp_path / "other" / "config.json").exists(), "it would refuse the command that is meant"
    weights = folder / "vae_dsprites.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged: its SHA-256 is"):
        cv.load_pretrained("vae_dsprites")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="is missing beside its card"):
        cv.load_pretrained("vae_dsprites")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the models that ship --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_what_its_card_says(name):
    about = pretrained.card(name)
    model, params = cv.load_pretrained(name)
    dataset = data.load(about["data"]["name"], source="procedural")
    assert about["data"]["source"] == "procedural" and list(dataset.image_shape) == about["image_shape"]
    found, expected = ship.check(model, params, dataset), about["check"]
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-3, atol=2e-3, err_msg=key)
    assert (pretrained.FOLDER / f"{name}.safetensors").stat().st_size <= ship.LARGEST_FILE
    trained = np.asarray(about["check"]["activity"])
    untrained = training.member(training.initial_params(model, [about["training"]["seed"]]), 0)
    assert ship.check(model, untrained, dataset)["mean_squared_error"] > 3 * expected["mean_squared_error"]
    assert (trained > 0.01).sum() >= 3
    config = common.config_for(about["architecture"]["name"], about["data"]["name"], "pretrained")
    config.pretrained = name
    assert pipeline.shipped_params(config, dataset)[1] == about["training"]["steps"]


def test_the_preset_takes_the_model_with_the_most_steps():
    for architecture in common.ARCHITECTURES:
        for dataset in ("3dshapes", "dsprites"):
            name = common.config_for(architecture, dataset, "pretrained").pretrained
            steps = {other: pretrained.card(other)["training"]["steps"] for other in SHIPPED if name.startswith(other)}
            assert name in steps and steps[name] == max(steps.values())


def test_shipped_files_stay_small():
    assert sum(path.stat().st_size for path in pretrained.FOLDER.glob("*.safetensors")) <= 24_000_000
    for name in SHIPPED:
        json.loads((pretrained.FOLDER / f"{name}.json").read_text(), parse_constant=lambda word: 1 / 0)
