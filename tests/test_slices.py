"""Work in slices: schedules, time limits, stages and shards end with the bytes of an undisturbed run."""

import json
import math
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
import toy_study

from causalvae import runs, training
from configs import common
from experiments import pipeline, slices
from experiments.study import lock, planning, runner
from experiments.study.plan import Options, Shard, parse_shard

SETTINGS = dict(batch_size=8, learning_rate=1e-3, schedule="trapezoid", warmup=2, log_every=2, checkpoint_every=4)


def smoke(**changes):
    config = common.config_for("vae", "dsprites", "smoke")
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


WARM = [0.1 * t / 4 for t in range(4)]


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("constant", [0.1] * 20),
        ("cosine", WARM + [0.1 * (1 + math.cos(math.pi * (t - 4) / 16)) / 2 for t in range(4, 20)]),
        ("trapezoid", WARM + [0.1] * 12 + [0.1 * (20 - t) / 4 for t in range(16, 20)]),
    ],
)
def test_schedules_are_their_formulas(schedule, expected):
    optimizer = training.make_optimizer(toy.model("vae"), 0.1, schedule, warmup=4, steps=20)
    params = gradient = jnp.ones(3)
    state, rates = optimizer.init(params), []
    for _ in range(20):  # Adam's step along a constant gradient is the rate itself
        updates, state = optimizer.update(gradient, state, params)
        rates.append(-float(updates[0]))
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(training__schedule="cosin"), "no training.schedule 'cosin'; there are: constant, cosine, trapezoid"),
        (dict(training__warmup=2), "training.warmup is 2, and a constant rate has no warm-up"),
        (dict(training__schedule="cosine", training__warmup=4), "less than the 4 steps, not 4"),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_is_computed(changes, message):
    with pytest.raises(ValueError, match=message):
        pipeline.prepare(smoke(**changes))


def test_a_scheduled_run_cannot_be_continued_to_other_steps(tmp_path):
    def claim(**changes):
        config = smoke(training__schedule="cosine", **changes)
        runs.claim_workdir(tmp_path, config.to_dict(), pipeline.load_dataset(config.data))

    claim()
    claim(training__log_every=1)
    with pytest.raises(ValueError, match="training.steps is 4 there and 9 here"):
        claim(training__steps=9)


def test_a_request_to_stop_leaves_time_for_another_call_as_long_as_the_last(monkeypatch):
    def reasons(*times):
        clock = iter(times)
        monkeypatch.setattr(time, "monotonic", lambda: next(clock))
        stop = training.StopRequest(deadline=130.0)
        return [stop.reason() for _ in times]

    assert reasons(110.0, 115.0, 122.0, 126.0) == [None] * 4  # after 126 s another 4 just fit
    assert reasons(110.0, 115.0, 122.0, 128.5) == [None] * 3 + ["the time limit"]
    assert reasons(130.5) == ["the time limit"]


def test_a_scheduled_run_stopped_by_its_time_limit_and_resumed_is_bit_identical(tmp_path):
    arguments = dict(steps=10, seeds=[3], **SETTINGS)
    whole = training.train(toy.model("vae"), toy.dataset(), tmp_path / "whole", **arguments)
    for step in (2, 4, 6, 8):
        with pytest.raises(training.Stopped, match=f"the time limit at step {step} of 10"):
            training.train(toy.model("vae"), toy.dataset(), tmp_path / "cut", deadline=0.0, **arguments)
    cut = training.train(toy.model("vae"), toy.dataset(), tmp_path / "cut", deadline=0.0, **arguments)
    for a, b in zip(jax.tree.leaves(cut.params), jax.tree.leaves(whole.params), strict=True):
        assert np.array_equal(a, b)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_stages_of_a_run(tmp_path, capsys):
    config = smoke()
    with pytest.raises(ValueError, match="trained to step 0 of 4: train it first"):
        pipeline.run(config, tmp_path, stage="evaluate")
    assert pipeline.run(config, tmp_path, stage="train") is None
    assert not (tmp_path / "results.json").exists()
    expired = slices.Clock(1e-9)
    with pytest.raises(training.Stopped, match="before evaluation. The same command goes on"):
        pipeline.run(config, tmp_path, clock=expired)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"config.json", "metrics.jsonl", "checkpoints"}


# --- studies ---------------------------------------------------------------------------------------------


@pytest.fixture
def toy_images(monkeypatch):
    toy_study.patch(monkeypatch.setattr)
    yield
    planning._load.cache_clear()


def toy_slice(workdir, **options):
    config = toy_study.get_config(architectures="vae,betatc", grid="", members=1, training__steps=8)
    runner.run(config, workdir, Options(**options))


def stored(workdir):
    """What the study yields: every record, and the table."""
    files = [*sorted(workdir.glob("runs/*/record.json")), workdir / "table.csv"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def test_a_study_in_slices_stages_and_shards_stores_the_bytes_of_a_whole_one(tmp_path, toy_images):
    whole, sliced, sharded = tmp_path / "whole", tmp_path / "sliced", tmp_path / "sharded"
    toy_slice(whole)
    assert len(stored(whole)) == 5

    calls = 0
    while True:  # each call trains until its first look at the clock
        try:
            toy_slice(sliced, stage="train", clock=slices.Clock(1e-9))
            break
        except training.Stopped:
            calls += 1
    assert calls == 4 * 3 and not (sliced / "runs").exists()
    with pytest.raises(training.Stopped, match="before evaluating dsprites-vae-s0"):
        toy_slice(sliced, clock=slices.Clock(1e-9))
    toy_slice(sliced, stage="evaluate")
    assert stored(sliced) == stored(whole)

    for i in range(2):
        toy_slice(sharded, shard=Shard(i, 2))
        assert len(list(sharded.glob("runs/*/record.json"))) == 2 * (i + 1)
    assert not (sharded / "table.csv").exists()
    toy_slice(sharded)
    assert stored(sharded) == stored(whole)
    assert json.loads((sharded / "groups.json").read_text()) == json.loads((whole / "groups.json").read_text())


def test_evaluation_alone_leaves_out_what_is_not_trained(tmp_path, toy_images):
    with pytest.raises(training.Stopped):
        toy_slice(tmp_path, stage="train", clock=slices.Clock(1e-9))
    toy_slice(tmp_path, stage="evaluate")
    assert not list(tmp_path.glob("runs/*/record.json"))


def test_shards_lock_each_other_out_of_the_same_part_only(tmp_path):
    first, second = Shard(0, 2), Shard(1, 2)
    with lock.hold(tmp_path, first), lock.hold(tmp_path, second):
        for taken in (first, None):
            with pytest.raises(ValueError, match=f"in use by .*process {os.getpid()} on"), lock.hold(tmp_path, taken):
                pass
    with lock.hold(tmp_path), pytest.raises(ValueError, match="in use by process"), lock.hold(tmp_path, first):
        pass


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="--shard is i/n with i from 1 to n"):
        parse_shard(text)
    assert parse_shard("2/8") == Shard(1, 8) and parse_shard(None) is None
