"""Training: one step recomputed by hand, resumption bit for bit, members as if alone, and every refusal."""

import os
import pathlib
import re
import signal
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from causalvae import checkpoints, training
from causalvae.progress import Progress, read_json_lines
from causalvae.training._steps import draw_batches

SETTINGS = dict(batch_size=8, learning_rate=1e-3, log_every=2, checkpoint_every=4)


def same(a, b):
    flags = jax.tree.map(lambda x, y: bool(np.array_equal(np.asarray(x), np.asarray(y))), a, b)
    return jax.tree.all(flags)


def plain(state):
    return state._replace(keys=jax.random.key_data(state.keys))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    state = training.train(toy.model("betatc"), toy.dataset(), workdir, steps=10, seeds=[3], **SETTINGS)
    return state, read_json_lines(workdir / "metrics.jsonl")


def test_one_step_is_the_gradient_of_the_loss_under_adam():
    model, dataset = toy.model("vae"), toy.dataset()
    optimizer = training.make_optimizer(model, 1e-3)
    state = training.init_state(model, optimizer, [7])
    params, key = training.member(state.params, 0), state.keys[0]
    data_key, loss_key = jax.random.split(jax.random.fold_in(key, 0))
    images = dataset.sample(jax.random.fold_in(data_key, 0), 8)[1]
    gradients = jax.jit(jax.grad(lambda p: model.loss(p, images, loss_key, {"beta": 1.0}, 0)[0]))(params)
    # Adam's first step, written out: with bias correction it is -rate * g / (|g| + eps).
    expected = jax.tree.map(lambda p, g: p - 1e-3 * g / (jnp.abs(g) + 1e-8), params, gradients)
    hyper = training.member_hyper(model.hyper, 1)
    after, report = training.train_steps(training.step_config(model, optimizer, 8), dataset, state, hyper, jnp.int32(1))
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a[0], b, atol=2e-6)
    assert int(after.step) == 1
    loss = jax.jit(model.loss)(params, images, loss_key, {"beta": 1.0}, 0)[0]
    np.testing.assert_allclose(report.metrics["loss"][0], loss, rtol=1e-5)


def test_a_fresh_state_traces():
    model = toy.model("factor")
    optimizer = training.make_optimizer(model, 1e-3)
    state = training.init_state(model, optimizer, [3, 4])
    shapes = jax.eval_shape(lambda seeds: training.init_state(model, optimizer, seeds), jnp.array([3, 4]))
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, shapes)
    compiled = jax.jit(lambda: training.initial_params(model, [3, 4]))()
    for a, b in zip(jax.tree.leaves(compiled), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_stopped_by_a_signal_and_resumed_is_bit_identical(uninterrupted, tmp_path):
    class StopAtFour(Progress):
        def update(self, done, note=""):
            if done == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    arguments = (toy.model("betatc"), toy.dataset(), tmp_path)
    with pytest.raises(training.TrainingError, match="SIGTERM at step 4 of 10"):
        training.train(*arguments, steps=10, seeds=[3], progress=StopAtFour, **SETTINGS)
    state = training.train(*arguments, steps=10, seeds=[3], **SETTINGS)
    expected, log = uninterrupted
    assert same(plain(state), plain(expected))
    assert read_json_lines(tmp_path / "metrics.jsonl") == log
    steps = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert len(steps) <= 2 and "10" in steps and "4" not in steps, "that of the interruption is gone"


def test_killed_between_checkpoints_and_resumed_is_bit_identical(uninterrupted, tmp_path):
    class Killed(BaseException):
        pass

    class KillAtSix(Progress):
        def update(self, done, note=""):
            if done == 6:
                raise Killed

    arguments = (toy.model("betatc"), toy.dataset(), tmp_path)
    with pytest.raises(Killed):
        training.train(*arguments, steps=10, seeds=[3], progress=KillAtSix, **SETTINGS)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # a line cut short
    state = training.train(*arguments, steps=10, seeds=[3], **SETTINGS)
    expected, log = uninterrupted
    assert same(plain(state), plain(expected))
    assert read_json_lines(tmp_path / "metrics.jsonl") == log


def test_how_a_run_is_cut_into_calls_does_not_change_its_bits(uninterrupted):
    model, dataset = toy.model("betatc"), toy.dataset()
    config = training.step_config(model, training.make_optimizer(model, 1e-3), 8)
    state = training.init_state(model, config.optimizer, [3])
    hyper = training.member_hyper(training.complete_hyper(model.hyper, dataset), 1)
    for steps in (1, 6, 3):
        state, _ = training.train_steps(config, dataset, state, hyper, jnp.int32(steps))
    assert same(state.params, uninterrupted[0].params)


def test_the_size_of_the_data_set_is_the_data_sets_unless_it_is_given():
    model, dataset = toy.model("betatc"), toy.dataset()
    assert training.complete_hyper(model.hyper, dataset) == {"beta": 6.0, "dataset_size": 32.0}
    ensemble = training.complete_hyper({"dataset_size": np.full(3, np.nan)}, dataset)  # as a study gives it
    assert training.member_hyper(ensemble, 3)["dataset_size"].tolist() == [32.0] * 3
    given = toy.model("betatc", dataset_size=100)
    assert training.complete_hyper(given.hyper, dataset)["dataset_size"] == 100.0
    with pytest.raises(ValueError, match="hyper-parameter 'dataset_size' is not known: give it, or train with"):
        training.member_hyper(model.hyper, 1)


def test_members_train_as_if_alone_and_may_differ_in_hyper_parameters(tmp_path):
    model, dataset = toy.model("beta"), toy.dataset()
    settings = dict(SETTINGS, log_every=4)
    together = training.train(
        model, dataset, tmp_path / "all", steps=4, seeds=[0, 1], hyper={"beta": [1.0, 8.0]}, **settings
    )
    for m, beta in enumerate((1.0, 8.0)):
        alone = training.train(model, dataset, tmp_path / str(m), steps=4, seeds=[m], hyper={"beta": beta}, **settings)
        for a, b in zip(jax.tree.leaves(together.params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(a[m], b[0], atol=1e-5)


def test_the_first_batch_is_the_same_however_many_a_loss_takes():
    one = draw_batches(toy.dataset(), jax.random.key(0), 4, 1)
    two = draw_batches(toy.dataset(), jax.random.key(0), 4, 2)
    assert np.array_equal(one, two[:4]) and not np.array_equal(two[:4], two[4:])


def test_a_loss_that_is_not_finite_names_step_and_member_and_keeps_the_state(tmp_path):
    hyper = {"beta": [1.0, np.inf]}
    with pytest.raises(training.TrainingError, match=r"member 1 \(seed 6\) was not finite at step 0"):
        training.train(toy.model("beta"), toy.dataset(), tmp_path, steps=4, seeds=[5, 6], hyper=hyper, **SETTINGS)
    assert (tmp_path / "diverged" / "2").is_dir()
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    training.train(toy.model("vae"), toy.dataset(), tmp_path, steps=1, seeds=[0], **SETTINGS)
    with pytest.raises(ValueError, match="another model"):
        training.train(toy.model("vae", latents=5), toy.dataset(), tmp_path, steps=1, seeds=[0], **SETTINGS)


def test_a_damaged_checkpoint_is_named(tmp_path):
    state = {"weights": jnp.arange(4.0)}
    kept = checkpoints.manager(tmp_path)
    checkpoints.save(kept, 3, state, loss=1.0)
    for file in (tmp_path / "3" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(ValueError, match="3/state/.* is not as it was saved.*delete that step's folder"):
        checkpoints.restore(kept, state)


def test_the_latest_and_the_best_checkpoint_are_kept(tmp_path):
    """Also by managers of processes that ended; and one whose loss is infinite, of an interruption, goes."""
    for step, loss in enumerate((5.0, 1.0, 3.0, np.inf, 2.0, 6.0)):
        kept = checkpoints.manager(tmp_path)
        checkpoints.save(kept, step, {"w": jnp.full(2, float(step))}, loss)
        assert sorted(kept.all_steps()) == sorted({step, min(step, 1)})
        kept.close()
    kept = checkpoints.manager(tmp_path)
    assert checkpoints.restore(kept, {"w": jnp.zeros(2)})["w"][0] == 5.0


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(seeds=[]), "at least one member"),
        (dict(steps=0), "steps must be at least 1"),
        (dict(batch_size=0), "batch_size must be at least 1"),
        (dict(hyper={"beta": [1.0, 2.0, 3.0]}), r"'beta' has shape \[3\]; there are 1 members"),
    ],
)
def test_bad_settings_are_refused(change, message, tmp_path):
    arguments = dict(SETTINGS, steps=2, seeds=[0]) | change
    with pytest.raises(ValueError, match=message):
        training.train(toy.model("beta"), toy.dataset(), tmp_path, **arguments)


def test_the_discriminator_has_its_own_optimizer():
    labeled = toy.model("vae")._replace(optimizers={"decoder": "frozen"})
    optimizer = training.make_optimizer(labeled, 1e-3)
    params = {"encoder": jnp.ones(2), "decoder": jnp.ones(2)}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    assert np.allclose(after["encoder"], 0.999, atol=1e-5) and np.array_equal(after["decoder"], params["decoder"])


# --- callbacks -------------------------------------------------------------------------------------------


def documented():
    """The lines that the reference gives for W&B."""
    page = pathlib.Path(__file__).resolve().parents[1] / "docs" / "reference" / "training.md"
    return re.search(r"```text\n(import wandb.*?)```", page.read_text(), flags=re.DOTALL)[1].splitlines()


def test_any_logger_is_three_lines_away(uninterrupted, tmp_path, monkeypatch):
    logged = []
    wandb = types.SimpleNamespace(init=lambda **about: None, log=lambda data, step: logged.append((step, data)))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    lines = documented()
    assert len(lines) == 3
    names = {"cv": types.SimpleNamespace(train=lambda config, workdir, callbacks: callbacks), "config": {}}
    exec("\n".join([*lines[:2], "callbacks = " + lines[2]]), names)
    for _ in range(2):  # a run that is done tells nothing again
        training.train(
            toy.model("betatc"), toy.dataset(), tmp_path, steps=10, seeds=[3], callbacks=names["callbacks"], **SETTINGS
        )
    log = uninterrupted[1]
    assert [step for step, _ in logged] == [line["step"] for line in log] == [2, 4, 6, 8, 10]
    assert [scalars["loss/0"] for _, scalars in logged] == [line["loss"][0] for line in log]
    assert all(isinstance(value, float) for _, scalars in logged for value in scalars.values())


def test_what_a_callback_raises_is_said_and_ends_nothing(uninterrupted, tmp_path, capsys):
    seen = []

    def broken(step, metrics):
        metrics.clear()
        raise ConnectionError("no\nnetwork")

    callbacks = [broken, lambda step, metrics: seen.append((step, len(metrics)))]
    state = training.train(
        toy.model("betatc"), toy.dataset(), tmp_path, steps=10, seeds=[3], callbacks=callbacks, **SETTINGS
    )
    assert same(plain(state), plain(uninterrupted[0])) and len(seen) == 5 and min(n for _, n in seen) > 2
    said = capsys.readouterr().err
    assert said.count("failed at step") == 1 and "broken failed at step 2 (ConnectionError: no network)" in said
    assert "broken failed 5 times of 5" in said
    assert read_json_lines(tmp_path / "metrics.jsonl") == uninterrupted[1]


@pytest.mark.parametrize(
    "callbacks, message",
    [
        ("my_logging", "is module:function, such as my_logging:log, not 'my_logging'"),
        ("no_such_module:log", "no_such_module:log cannot be imported .ModuleNotFoundError.*on PYTHONPATH"),
        ("math:no_such_function", "cannot be imported .AttributeError"),
        ("math:pi", r"math:pi is no function \(step, metrics\)"),
        (["math:sin"], r"a callback is a function \(step, metrics\), not 'math:sin'"),
        (print, r"callbacks are several: write \[print\]"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_computed(callbacks, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training.train(toy.model("betatc"), toy.dataset(), tmp_path, steps=1, seeds=[3], callbacks=callbacks)
    assert not list(tmp_path.iterdir())
