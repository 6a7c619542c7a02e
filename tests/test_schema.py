"""The schema: every setting is checked before anything is computed, and help, lists and docs are made of it."""

import json
import math
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

import causalvae as cv
from causalvae import architectures, schema
from configs import common
from configs import study as study_config
from experiments import overrides, pipeline, settings
from experiments.study import planning

ROOT = pathlib.Path(__file__).resolve().parents[1]


def config(**changes):
    made = common.config_for("betatc", "dsprites", "smoke")
    with made.unlocked():
        made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return made


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(evaluation__dci_estimator="trees"), "no dci_estimator 'trees'; there are: sklearn, xla"),
        (dict(evaluation__seed=-1), "evaluation.seed must be at least 0, not -1"),
        (dict(seed=-1), "seed must be at least 0"),
        (dict(seed=2**32), "seed must be at most 4294967295"),
        (dict(seed=2**32 - 1, seeds=2), "counts up beyond 4294967295 with 2 seeds"),
        (dict(evaluation__active_threshold=math.nan), "active_threshold must be finite, not nan"),
        (dict(training__learning_rate=math.inf), "learning_rate must be finite"),
        (dict(architecture__beta=math.nan), "architecture.beta must be finite"),
        (dict(architecture__beta=1e39), "architecture.beta must be at most 3.4"),
        (dict(training__batch_size=10**10), "batch_size must be at most"),
        (dict(architecture__latents=10**11), "latents must be at most"),
        (dict(data__dir="None"), "data.dir is the text 'None': leave it out"),
        (dict(data__residency="disk"), "no data.residency 'disk'; there are: auto, device, stream"),
        (dict(data__residency="stream", data__source="procedural"), "is not read from prepared files here"),
        (dict(data__resize="big"), "data.resize is not 'big'. Of images of your own: 32, or 32x48"),
    ],
)
def test_what_no_run_can_be_is_refused_before_it_begins(changes, message):
    with pytest.raises(ValueError, match=message):
        pipeline.prepare(config(**changes))


def test_the_library_checks_its_dictionary_alike(tmp_path):
    for section, message in (
        ({"training": {"steps": 1e5}}, "training.steps must be a whole number, not 100000.0"),
        ({"training": {"stepz": 5}}, "no setting 'training.stepz'. Did you mean 'training.steps'"),
        ({"architecture": {"name": "vq", "beta": 2.0}}, "'vq' has no option 'beta'; it has: latents, network, codes"),
        ({"architecture": {"name": "factor", "discriminator_features": [64, 0]}}, "must be at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            cv.train(section, tmp_path)
    assert not list(tmp_path.iterdir())
    assert schema.check({"training": {"steps": np.int64(5), "learning_rate": np.float32(1e-3)}}) is None


def test_every_default_passes_and_every_option_of_create_is_known():
    schema.check(schema.defaults())
    schema.check(study_config.get_config("overnight").to_dict(), schema.STUDY)
    for architecture in common.ARCHITECTURES:
        for preset in common.PRESETS:
            schema.check(common.config_for(architecture, "dsprites", preset).to_dict())
    assert cv.evaluation.Settings()._asdict() == schema.defaults()["evaluation"]
    options = {name: set(schema.options_of(name)) for name in architectures.ARCHITECTURES}
    assert options["betatc"] == {"beta", "estimator", "dataset_size"} and "commitment" in options["vq"]
    assert all(field.help for name in options for field in schema.options_of(name).values())
    assert schema.options_of("annealed")["final_capacity"].help == "Nats. Published sweep: 5 to 100, at gamma 1000."


def test_lists_of_json_are_the_tuples_that_an_architecture_takes():
    made = common.config_for("factor", "dsprites", "smoke")
    stored = json.loads(made.to_json_best_effort())
    dataset = cv.data.load("dsprites", source="procedural")
    assert stored["architecture"]["discriminator_features"] == [64, 64]
    assert cv.runs.create_model(stored, dataset) is cv.runs.create_model(made.to_dict(), dataset)


# --- the command line ------------------------------------------------------------------------------------


def flags(*words, fields=schema.RUN):
    return overrides.prepare(["main", *words], fields)[1:]


def test_settings_are_read_by_the_schema():
    assert flags("--config.training.steps=1_000", "--config.training.tensorboard", "yes") == [
        "--config.training.steps=1000",
        "--config.training.tensorboard=True",
    ]
    assert flags("--workdir=x", "--config.mine=3", "--plan") == ["--workdir=x", "--config.mine=3", "--plan"]
    for word, message in (
        ("--config.training.steps=1e5", "must be a whole number, not '1e5': write 100000"),
        ("--config.training.learning_rate=fast", "training.learning_rate must be a number, not 'fast'"),
        ("--config.training.tensorboard=maybe", "must be true or false, not 'maybe'"),
        ("--config.data=3", "data is a group of settings, each of which is set by itself: data.name"),
    ):
        with pytest.raises(ValueError, match=message):
            flags(word)
    with pytest.raises(ValueError, match="values of its grid: --config.grid='name.estimator: …'"):
        flags("--config.architecture.estimator=mss", fields=schema.STUDY)


def test_options_of_an_architecture_are_set_whatever_the_config_file_names():
    class Flag:
        value = ConfigDict({"architecture": {"name": "factor", "gamma": 30.0}}).lock()

    words = ("gamma=20", "second_batch=false", "discriminator_features=[64, 32]")
    assert flags(*(f"--config.architecture.{word}" for word in words)) == []
    overrides.apply({"config": Flag})
    expected = {"name": "factor", "gamma": 20.0, "second_batch": False, "discriminator_features": (64, 32)}
    assert Flag.value.architecture.to_dict() == expected


def test_a_config_is_found_by_its_name_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = str(ROOT / "configs" / "vae_dsprites.py")
    for name in ("vae_dsprites", "configs/vae_dsprites.py", "vae_dsprites.py"):
        assert flags(f"--config={name}:quick") == [f"--config={ours}:quick"]
    assert flags("--config=none_such") == ["--config=configs/none_such.py"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "vae_dsprites.py").touch()
    assert flags("--config=configs/vae_dsprites.py") == ["--config=configs/vae_dsprites.py"]
    assert flags("--config=vae_dsprites") == [f"--config={ours}"]


def test_the_page_of_settings_is_the_schemas():
    assert (ROOT / "docs" / "settings.md").read_text() == settings.page()
    text = overrides.help_text(schema.RUN)
    for name in (*schema.RUN, "vq.commitment"):
        assert f"  {name}: " in text


# --- a study ---------------------------------------------------------------------------------------------


def study(**changes):
    made = study_config.get_config("smoke")
    with made.unlocked():
        made.update({"datasets": "dsprites", "architectures": "beta,betatc", "seeds": 1, **changes})
    return planning.list_runs(made)


def test_a_value_that_is_named_twice_is_one_run():
    ids = [run.id for run in study(grid="beta.beta: 4 4 4.0 5", architectures="beta, beta,betatc")]
    assert ids == ["dsprites-beta-s0", "dsprites-beta-beta=5-s0", "dsprites-betatc-s0"]
    assert cv.metrics.check_names("mig,mig") == ("mig",) == cv.metrics.check_names(["mig", "mig"])
    runs = study()
    for one, other, message in (
        (runs[0], runs[0], "two runs of the study are named dsprites-beta-s0"),
        (runs[0], runs[0]._replace(id="other"), "runs dsprites-beta-s0 and other are the same"),
        (runs[0], runs[1]._replace(id="../x"), "no folder can have the name"),
    ):
        with pytest.raises(ValueError, match=message):
            planning.check_identities([one, other])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(members=-1), "members must be at least 0, not -1"),
        (dict(grid="beta.beta: NaN"), "architecture.beta must be finite"),
        (dict(grid="beta.beta: 1; beta.beta: 2"), "grid: beta.beta stands there twice"),
        (dict(grid="betatc.estimator: mws ../../x"), "no estimator '../../x'; there are: mws"),
        (dict(latents=-3), "latents must be at least 0"),
        (dict(seed=-1), "seed must be at least 0"),
    ],
)
def test_a_study_is_checked_before_its_first_step(changes, message):
    with pytest.raises(ValueError, match=message):
        study(**changes)
