"""Runs as calls: trained in the library, loaded again, evaluated, and gone on with by the command."""

import json
import sys
import types

import jax
import numpy as np
import pytest

import causalvae as cv
from causalvae import runs
from configs import common
from experiments import pipeline

CONFIG = {
    "architecture": {"name": "betatc", "network": "small", "latents": 3, "beta": 2.0},
    "data": {"name": "dsprites", "source": "procedural"},
    "training": {"steps": 2, "batch_size": 8, "log_every": 1, "checkpoint_every": 2},
    "seeds": 2,
    "seed": 5,
}
TOLD = {"named": [], "given": []}  # what callbacks were told
TINY = cv.evaluation.Settings(
    codes=40, test_codes=20, votes=20, images=4, pairs=4, effects=4, sites="latent/z", metrics="mig"
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def trained(workdir):
    module = types.ModuleType("my_logging")
    module.log = lambda step, metrics: TOLD["named"].append(step)
    config = {**CONFIG, "training": {**CONFIG["training"], "callbacks": "my_logging:log"}}
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "my_logging", module)
        return cv.train(config, workdir, callbacks=[lambda step, metrics: TOLD["given"].append(sorted(metrics)[0])])


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_was_trained_is_loaded_by_folder_and_seed(trained, workdir):
    first, second = cv.load(workdir), cv.load(workdir, seed=6)
    same(first.params, trained.params)
    assert not np.allclose(first.params["decoder"]["dense0"]["kernel"], second.params["decoder"]["dense0"]["kernel"])
    assert first.model.name == "betatc" and first.model.hyper["beta"] == 2.0 and first.results is None
    assert first.dataset.name == "dsprites" and first.config["training"]["learning_rate"] == 1e-4
    with pytest.raises(ValueError, match="no member with seed 0; it has 5, 6"):
        cv.load(workdir, seed=0)


def test_callbacks_are_named_in_the_configuration_or_given(trained, workdir):
    assert TOLD["named"] == [1, 2] and len(TOLD["given"]) == 2 and TOLD["given"][0].endswith("/0")
    assert cv.load(workdir).config["training"]["callbacks"] == "my_logging:log"


def test_the_command_goes_on_from_what_the_call_has_left(trained, workdir):
    config = common.config_for("betatc", "dsprites")
    config.update_from_flattened_dict({"training.steps": 3, "seeds": 2, "seed": 5, "data.source": "procedural"})
    with config.unlocked():
        config.architecture.update(CONFIG["architecture"])
        config.training.update(CONFIG["training"])
    model, dataset, _ = pipeline.prepare(config)
    assert runs.claim_workdir(workdir, config.to_dict(), dataset) == workdir
    state = pipeline.train(config, model, dataset, workdir)
    same(state.params, jax.tree.map(lambda *leaves: np.stack(leaves), trained.params, cv.load(workdir, 6).params))
    with pytest.raises(ValueError, match="architecture.beta is 2.0 there and 4.0 here"):
        cv.train({**CONFIG, "architecture": {**CONFIG["architecture"], "beta": 4.0}}, workdir)


def test_an_evaluation_takes_a_run_and_untrained_parameters_are_optional(trained, tmp_path):
    found = cv.evaluate(trained.model, trained.params, trained.dataset, TINY)
    untrained = trained.model.init(jax.random.key(TINY.seed))
    given = cv.evaluate(trained.model, trained.params, trained.dataset, TINY, untrained)
    scores, expected = cv.frame(found), cv.frame(given)
    assert list(scores.score) == list(expected.score)
    np.testing.assert_allclose(scores.value.astype(float), expected.value.astype(float), rtol=1e-5)


def test_defaults_are_those_of_the_configs():
    base = common.config_for("vae", "dsprites").to_dict()
    assert cv.runs.complete({}) == cv.runs.complete(base) == base


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run in .* no config.json"):
        cv.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(cv.runs.complete(CONFIG)))
    with pytest.raises(FileNotFoundError, match="it has not been trained"):
        cv.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(
        ValueError,
        match="config.json is not a readable configuration of a run .*: restore it",
    ):
        cv.load(tmp_path)


def test_a_shipped_model_loads_from_the_run_that_evaluated_it(tmp_path):
    name = cv.pretrained.names()[0]
    config = common.config_for(*name.split("_"), "pretrained")
    _, dataset, _ = pipeline.prepare(config)
    runs.claim_workdir(tmp_path, config.to_dict(), dataset)
    same(cv.load(tmp_path).params, cv.load_pretrained(name)[1])
    with pytest.raises(ValueError, match="is trained: load it"):
        cv.train(config, tmp_path)
