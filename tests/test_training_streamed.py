"""Training on images read ahead from disk: bit for bit what it is on the same images in the compiled loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import real_files as real
import toy

from causalvae import architectures, data, training
from causalvae.progress import read_json_lines
from causalvae.training import _advance

SETTINGS = dict(batch_size=8, learning_rate=1e-3, log_every=3, checkpoint_every=4)
STEPS = 10


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """{(set, residency): data set}: a grid with instances, and one with attributes only."""
    made = {}
    for name, write in (("smallnorb", real.write_smallnorb), ("celeba", real.write_celeba)):
        folder = tmp_path_factory.mktemp(name)
        write(folder)
        for residency in ("device", "stream"):
            options = {"residency": residency, "size": 16}
            made[name, residency] = data.load(name, source="real", data_dir=folder, **options)
    return made


def create(name, dataset):
    return architectures.create(name, image_shape=dataset.image_shape, latents=4, network="small")


def train(model, dataset, workdir, **changes):
    return training.train(model, dataset, workdir, **{"steps": STEPS, "seeds": [3], **SETTINGS, **changes})


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(plain(one)), jax.tree.leaves(plain(other)), strict=True):
        np.testing.assert_array_equal(a, b)


def plain(state):
    return state._replace(keys=jax.random.key_data(state.keys))


# A loss of one batch and one of two; one member and an ensemble; windows of one step, and of some.
@pytest.mark.parametrize(
    "architecture, name, seeds, window_bytes",
    [
        ("vae", "smallnorb", [3], 10**9),
        ("betatc", "celeba", [3, 4], 1),
        pytest.param("factor", "smallnorb", [3, 4, 5], 16_000, marks=pytest.mark.long),
    ],
)
def test_results_and_log_are_those_of_the_compiled_loop(
    sets, tmp_path, monkeypatch, architecture, name, seeds, window_bytes
):
    monkeypatch.setattr(_advance, "WINDOW_BYTES", window_bytes)
    resident, streamed = sets[name, "device"], sets[name, "stream"]
    model = create(architecture, resident)
    expected = train(model, resident, tmp_path / "device", seeds=seeds)
    read_ahead = train(model, streamed, tmp_path / "stream", seeds=seeds)
    assert_same(read_ahead, expected)
    log = read_json_lines(tmp_path / "stream" / "metrics.jsonl")
    assert log == read_json_lines(tmp_path / "device" / "metrics.jsonl") and len(log) == 6
    # And those of the loop that asks the host for every batch.
    config = training.step_config(model, training.make_optimizer(model, 1e-3), 8)
    state = training.init_state(model, config.optimizer, seeds)
    hyper = training.member_hyper(training.complete_hyper(model.hyper, streamed), len(seeds))
    state, _ = training.train_steps(config, streamed, state, hyper, jnp.int32(STEPS))
    assert_same(state, expected)


def test_stopped_at_any_target_and_resumed_is_bit_identical(sets, tmp_path):
    dataset = sets["smallnorb", "stream"]
    model = create("vae", dataset)
    expected = train(model, dataset, tmp_path / "whole")
    for step in (3, 4, 6, 8, 9):
        with pytest.raises(training.Stopped, match=f"the time limit at step {step} of 10"):
            train(model, dataset, tmp_path / "cut", deadline=0.0)
    assert_same(train(model, dataset, tmp_path / "cut", deadline=0.0), expected)
    logs = [read_json_lines(tmp_path / part / "metrics.jsonl") for part in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert_same(train(model, dataset, tmp_path / "whole"), expected)  # nothing is left to do


def test_an_error_while_reading_ends_training_with_its_text(sets, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr("causalvae.data.real.stored.open_memory_map", fail)
    dataset = sets["smallnorb", "stream"]
    with pytest.raises(Exception, match="the disk is gone"):
        train(create("vae", dataset), dataset, tmp_path)


@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_windows_cover_every_step_once_and_end_at_every_target(size):
    windows = _advance._windows(2, [4, 10, 12], size)
    assert [step for w in windows for step in range(w.start, w.start + w.steps)] == list(range(2, 12))
    assert all(1 <= w.steps <= size for w in windows) and {4, 10, 12} <= {w.start + w.steps for w in windows}


def test_a_plan_names_the_steps_at_which_there_is_something_to_write():
    plan = training.Plan(steps=10, log_every=3, checkpoint_every=4)
    assert list(plan.targets(0)) == [3, 4, 6, 8, 9, 10]
    assert list(plan.targets(7)) == [8, 9, 10] and list(plan.targets(10)) == []
    with pytest.raises(TypeError, match="log_evry"):
        training.train(toy.model(), toy.dataset(), "nowhere", steps=1, seeds=[0], log_evry=1)
