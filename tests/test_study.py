"""The study end to end on two data sets, and its promises: resumption, locking, failures, grouping, filters."""

import csv
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import toy
import toy_study
from toy_study import settings

from causalvae import architectures, pretrained, training
from causalvae._programs import free_programs
from configs import betatc_mpi3d
from configs import study as study_config
from experiments import pipeline, ship
from experiments import speed as speeds
from experiments.lowering import lower
from experiments.report import page as report
from experiments.study import estimates, lock, planning, records, runner, trained
from experiments.study.estimates import Pace
from experiments.study.plan import Options, Shard, check_hosts, describe
from experiments.study.store import Store, settings_of

TESTS = pathlib.Path(__file__).parent
toy_images = pytest.mark.usefixtures("toy_images")


# --- the plan --------------------------------------------------------------------------------------------


def test_the_study_is_ninety_runs_of_the_configs():
    runs = planning.list_runs(study_config.get_config())
    assert len(runs) == len({run.id for run in runs}) == 90
    run, own = next(r for r in runs if r.id == "mpi3d-betatc-s2"), betatc_mpi3d.get_config()
    assert run.config.seed == 2 and run.label == "betatc"
    assert run.config.architecture == own.architecture and run.config.training == own.training


def test_a_grid_adds_variants_of_an_architecture():
    config = settings(grid="beta.beta: 1 16; dip2.lambda_diagonal: 5; dip2.lambda_offdiagonal: 2 4", seeds=2)
    runs = planning.list_runs(config)
    labels = list(dict.fromkeys(run.label for run in runs if run.dataset == "dsprites"))
    assert labels[1:3] == ["beta (beta=1)", "beta (beta=16)"]
    assert labels[5] == "dip2 (lambda_diagonal=5,lambda_offdiagonal=2)" and len(runs) == 5 * 2 * 8
    assert runs[2].config.architecture.beta == 1


def test_a_grid_shares_its_runs_with_the_study_and_ties_options():
    plain = {run.id: run.config for run in planning.list_runs(settings(datasets="dsprites", seeds=1))}
    grid = "beta.beta: 2 4; vae.latents: 4 5; vq.commitment: 0.25 1; dip2.lambda_offdiagonal+lambda_diagonal: 1 10"
    listed = {run.id: run.config for run in planning.list_runs(settings(datasets="dsprites", seeds=1, grid=grid))}
    assert {name: config.to_dict() for name, config in listed.items() if name in plain} == {
        name: config.to_dict() for name, config in plain.items()
    }
    assert [name.removeprefix("dsprites-") for name in listed if name not in plain] == [
        "vae-latents=4-s0", "beta-beta=2-s0", "dip2-lambda_offdiagonal=1_lambda_diagonal=1-s0", "vq-commitment=1-s0",
    ]  # fmt: skip
    assert listed["dsprites-dip2-lambda_offdiagonal=1_lambda_diagonal=1-s0"].architecture.lambda_diagonal == 1
    (other,) = planning.list_runs(
        settings(architectures="vae", datasets="dsprites", seeds=1, latents=6, grid="vae.latents: 4")
    )
    assert other.config.architecture.latents == 4 and other.variant == "latents=4"


def write_images(path, seed=0):
    """Sixteen images, of every combination of two factors."""
    images = np.random.default_rng(seed).integers(0, 256, (16, 32, 32), dtype=np.uint8)
    np.savez(path, images=images, factors=[(i // 4, i % 4) for i in range(16)], names=["a", "b"])


def test_images_of_ones_own_are_a_data_set_of_a_study(tmp_path):
    (tmp_path / "mine").mkdir()
    write_images(tmp_path / "more.npz")
    config = settings(datasets="dsprites,mine,more.npz", architectures="vae", seeds=1, data__dir=str(tmp_path))
    config.data.resize = "16"
    runs = planning.list_runs(config)
    assert [run.id for run in runs] == ["dsprites-vae-s0", "mine-vae-s0", "more-vae-s0"]
    assert runs[2].config.data.name == str(tmp_path / "more.npz") and runs[2].dataset == "more"
    assert [run.id for run in planning.choose_runs(runs, datasets="more")] == ["more-vae-s0"]
    kept = settings_of(runs[2].config)["data"]
    assert kept == {"name": str(tmp_path / "more.npz"), "source": "auto", "resize": "16"}
    dataset = planning.load_dataset(runs[2])
    assert dataset.name == "more" and dataset.image_shape == (16, 16, 1)
    planning.check_images(dataset, tmp_path / "groups.json")
    planning.remember_groups([planning.make_group(runs)], tmp_path / "groups.json")
    planning.check_images(dataset, tmp_path / "groups.json")
    assert len(planning.known_groups(tmp_path / "groups.json")) == 1
    write_images(tmp_path / "more.npz", seed=1)
    planning._load.cache_clear()
    with pytest.raises(ValueError, match="more has other images or labels than those that the run began with"):
        planning.check_images(planning.load_dataset(runs[2]), tmp_path / "groups.json")
    (tmp_path / "more").mkdir()
    with pytest.raises(ValueError, match="two data sets would be called 'more': rename .*/more"):
        planning.list_datasets("more.npz,more", str(tmp_path))
    with pytest.raises(
        ValueError, match="no data set 'dsprits'; there are: .*or the path of an .npz file.* 'dsprites'"
    ):
        planning.list_datasets("dsprits")


@pytest.mark.long
def test_a_study_of_ones_own_images_from_start_to_report(tmp_path):
    write_images(tmp_path / "grid.npz")
    write_images(tmp_path / "labels.npz")
    for name, source in (("grid", "arrays"), ("labels", "arrays, observational")):
        options = dict(architectures="vae,vq", seeds=1, datasets=str(tmp_path / f"{name}.npz"), data__source=source)
        runner.run(settings(**options, evaluation__sites="latent/z"), tmp_path / name)
        table = table_of(tmp_path / name)
        assert {row["source"] for row in table.values()} == {source}
        assert {row["status"] for row in table.values()} == {"done"}
        text = report.write(tmp_path / name).read_text()
        assert "2 of 2 runs finished" in text and f"{name} ({source})" in text


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(architectures="vae,bta"), "no architecture 'bta'; .* Did you mean 'beta'"),
        (dict(datasets=""), "no data set is named; there are: dsprites"),
        (dict(seeds=0), "seeds must be at least 1, not 0"),
        (dict(grid="beta.beta"), "grid: 'beta.beta' is not 'architecture.option: value value …'"),
        (dict(architectures="vae", grid="beta.beta: 1"), "grid: beta is not among the architectures vae"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        planning.list_runs(settings(**changes))


def test_architectures_with_one_loss_train_together_and_others_do_not():
    runs = planning.list_runs(settings(datasets="dsprites"))
    groups = planning.group_runs(runs, toy.dataset(), 0)
    members = [tuple(dict.fromkeys(run.architecture for run in group.runs)) for group in groups]
    assert members == [("vae", "beta"), ("factor",), ("betatc",), ("dip2",), ("vq",)]
    assert [len(group.runs) for group in groups] == [6, 3, 3, 3, 3]
    assert [len(group.runs) for group in planning.group_runs(runs[:6], toy.dataset(), 4)] == [4, 2]


@toy_images
def test_a_plan_is_its_arithmetic_at_the_measured_speed(monkeypatch):
    runs = planning.list_runs(toy_study.get_config(architectures="vae,betatc", grid=""))
    first, second = planning.group_runs(runs, toy.dataset(), 0)
    ticks = iter((10.0, 16.0, 20.0, 23.0))  # two timings of three steps: 2 s and 1 s a step
    with monkeypatch.context() as patched:
        patched.setattr(speeds, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
        speed = estimates.measure_speed(first, toy.dataset())
    model, _ = planning.structure(runs[0], toy.dataset())
    settings = runs[0].config.training
    operations = estimates.step_operations(model, toy.dataset(), settings.batch_size)
    assert speed == estimates.Speed(0.0, 1.0 / operations, 1.0 / operations)
    estimate = estimates.estimate(first, toy.dataset(), speed, to_compile=2)
    assert estimate.training_s == pytest.approx(settings.steps * len(first.runs))
    assert estimate.compile_s == 2 * estimates.COMPILE_S["cpu"]
    compiled = estimates.programs(first, toy.dataset())
    assert len(compiled) == 2 and len(estimates.programs(second, toy.dataset()) - compiled) == 1


def test_a_plan_on_a_card_is_near_what_was_measured_there():
    """docs/performance.md has the times of steps; the plan's model of them is fitted to these."""
    runs = planning.list_runs(settings(architectures="vae", datasets="3dshapes", network="standard", latents=10))
    dataset = pipeline.load_dataset(runs[0].config.data)
    group = planning.make_group(runs)
    speed = estimates.speed_of_card("H100", group, dataset)
    model, _ = planning.structure(runs[0], dataset)
    operations = estimates.step_operations(model, dataset, 64)
    for members, milliseconds in {1: 0.567, 3: 1.05, 30: 7.14, 90: 21.2}.items():
        seconds = speed.step + members * operations * speed.operation
        assert seconds == pytest.approx(milliseconds / 1000, rel=0.25), "drawing the images is in it here, not there"
    assert lower.card_of("NVIDIA H100 80GB HBM3") == "H100" and lower.card_of("TPU v5 lite") == "v5e"
    assert lower.card_of("cpu") is None and math.isnan(
        estimates.estimate(group, dataset, estimates.Speed(), 0).training_s
    )


# --- records ---------------------------------------------------------------------------------------------


def test_two_studies_on_one_directory_refuse_each_other(tmp_path):
    with lock.hold(tmp_path):
        with pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on .*, since "), lock.hold(tmp_path):
            pass
    with lock.hold(tmp_path):
        pass
    with lock.hold(tmp_path, Shard(0, 2)), lock.hold(tmp_path, Shard(1, 2)):
        with pytest.raises(ValueError, match="a shard of another number of parts than 3"):
            lock.hold(tmp_path, Shard(0, 3)).__enter__()
    with lock.hold(tmp_path, Shard(0, 3)):
        pass


@toy_images
def test_a_plan_leaves_nothing_and_what_is_not_there_is_not_evaluated(tmp_path):
    config = toy_study.get_config(architectures="vae", grid="")
    runner.run(config, tmp_path / "none", plan_only=True)
    with pytest.raises(FileNotFoundError, match=r"nothing is trained in .*none: --stage=train does that first"):
        runner.run(config, tmp_path / "none", Options(stage="evaluate", shard=Shard(0, 2)))
    assert not (tmp_path / "none").exists()
    with lock.hold(tmp_path):
        assert len(runner.run(config, tmp_path, plan_only=True).runs) == 2, "a plan may be made beside a study at work"


@pytest.mark.parametrize(
    "flags, message",
    [
        ((None, 2, 0), "need --coordinator=host:port"),
        (("host0", 2, 0), "is host:port of process 0, such as host0:1234, not 'host0'"),
        (("host0:1", 2, None), "belong together"),
        (("host0:1", 2, 2), "--process is 0 to 1 where --processes=2, not 2"),
    ],
)
def test_hosts_that_would_wait_in_vain_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        check_hosts(*flags)
    check_hosts(None, None, None)
    check_hosts("host0:1", 2, 1)
    check_hosts("host0:1", None, None)  # a scheduler says the others


def test_undefined_values_are_empty_cells_and_numbers_are_exact():
    table = {"run": np.array(["a", "b"]), "seed": np.array([0.0, 1.0]), "mig": np.array([0.1 + 0.2, np.nan])}
    assert records.to_csv(table) == f"run,seed,mig\na,0,{0.1 + 0.2!r}\nb,1,\n"


# --- a study of toy images -------------------------------------------------------------------------------


@pytest.fixture(name="toy_images")
def toy_images_fixture(monkeypatch):
    toy_study.patch(monkeypatch.setattr)


def run_toy(workdir, **changes):
    runner.run(toy_study.get_config(**changes), workdir)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """VAE, a beta-VAE that diverges at once, and beta-TC, two seeds: two groups, two failures."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        toy_study.patch(patch.setattr)
        run_toy(workdir)
    return workdir


def table_of(workdir):
    with (workdir / "table.csv").open() as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_a_run_that_diverges_is_recorded_and_the_others_are_not_touched(uninterrupted):
    table = table_of(uninterrupted)
    assert {run: row["status"] for run, row in table.items()} == {
        "dsprites-vae-s0": "done",
        "dsprites-vae-s1": "done",
        "dsprites-beta-beta=3e+38-s0": "failed",
        "dsprites-beta-beta=3e+38-s1": "failed",
        "dsprites-betatc-s0": "done",
        "dsprites-betatc-s1": "done",
    }
    failed = table["dsprites-beta-beta=3e+38-s0"]
    assert failed["reason"] == "the loss was not finite by step 2" and failed["mig"] == ""
    groups = json.loads((uninterrupted / "groups.json").read_text())["groups"]
    assert [len(members) for members in groups.values()] == [4, 2], "VAE and beta-VAE are one group"


@toy_images
def test_a_member_of_a_group_is_the_run_alone(uninterrupted, tmp_path):
    own = next(r for r in planning.list_runs(toy_study.get_config()) if r.id == "dsprites-vae-s1")
    dataset = pipeline.load_dataset(own.config.data)
    state = pipeline.train(own.config, pipeline.create_model(own.config, dataset), dataset, tmp_path)
    group = next(path for path in (uninterrupted / "groups").iterdir() if "vae+beta" in path.name)
    lines = (group / "metrics.jsonl").read_text().splitlines()
    alone = (tmp_path / "metrics.jsonl").read_text().splitlines()
    for together, single in zip(map(json.loads, lines), map(json.loads, alone), strict=True):
        for name in ("loss", "reconstruction", "kl", "kl_per_latent"):
            np.testing.assert_allclose(together[name][1], single[name][0], rtol=1e-5, atol=1e-6)
    assert int(state.step) == own.config.training.steps


@toy_images
def test_a_run_of_a_study_is_found_and_shipped(uninterrupted, tmp_path):
    name = ship.ship(uninterrupted, folder=tmp_path, run="dsprites-vae-s1")
    about = json.loads((tmp_path / f"{name}.json").read_text())
    assert (name, about["training"]["seed"], about["training"]["steps"]) == ("vae_dsprites", 1, 4)
    group, run = trained.find(uninterrupted, "dsprites-vae-s1")
    assert [member.id for member in group.runs][:2] == ["dsprites-vae-s0", "dsprites-vae-s1"]
    model, _, params, step = trained.restore(uninterrupted, group, run)
    weights = pretrained.unpack(model, safetensors.numpy.load((tmp_path / f"{name}.safetensors").read_bytes()))
    kept = architectures.inference_params(model, params)
    for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b).astype(np.float16))
    with pytest.raises(ValueError, match=r"no run 'dsprites-vae-s2' in .*; there are: dsprites-beta-beta=3e\+38-s0, "):
        trained.find(uninterrupted, "dsprites-vae-s2")
    assert step == 4
    stored = [record["run"] for record in records.read_records(uninterrupted)]
    assert stored == list(table_of(uninterrupted)), "as the table has them"


@toy_images
def test_killed_and_resumed_gives_the_same_bytes(uninterrupted, tmp_path):
    """A process of its own, killed -9 when its first record is there; then the rest in this one."""
    command = [sys.executable, str(TESTS / "toy_study.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    # Killed while it writes an entry of the compilation cache, it would leave one that fails all later writes.
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1000"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("runs/*/record.json")):
        assert process.poll() is None, "the study ended before it stored anything"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/record.json")}
    assert 0 < len(stored) < 6
    run_toy(tmp_path)
    assert all(path.stat().st_mtime_ns == when for path, when in stored.items()), "finished runs are not touched"
    for name in ("table.csv", "table.npz"):
        assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes()


@toy_images
def test_a_finished_study_does_nothing_again(uninterrupted, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *arguments, **options: pytest.fail("trained again"))
    before = (uninterrupted / "table.csv").read_bytes()
    run_toy(uninterrupted)
    assert (uninterrupted / "table.csv").read_bytes() == before


@toy_images
def test_a_record_from_before_a_setting_existed_is_of_its_default(uninterrupted, tmp_path):
    record = records.read_record(uninterrupted, "dsprites-vae-s0")
    record["config"].pop("pretrained")
    record["config"]["training"].pop("schedule")
    records.write_record(tmp_path, record, {}, {})
    runs = planning.list_runs(toy_study.get_config())
    assert Store(tmp_path, runs).done == {"dsprites-vae-s0"}
    with pytest.raises(ValueError, match="training.schedule is 'constant' there and 'cosine' here"):
        Store(tmp_path, planning.list_runs(toy_study.get_config(training__schedule="cosine")))


@toy_images
def test_other_settings_on_the_same_directory_are_refused(uninterrupted):
    with pytest.raises(ValueError, match="run dsprites-vae-s0 of other settings: training.steps is 4 there and 6 here"):
        run_toy(uninterrupted, training__steps=6)


def test_filters_choose_runs_and_refuse_what_the_study_has_not():
    runs = planning.list_runs(settings())
    chosen = planning.choose_runs(runs, only="vq,vae", datasets="mpi3d")
    assert {(r.architecture, r.dataset) for r in chosen} == {("vae", "mpi3d"), ("vq", "mpi3d")}
    assert planning.choose_runs(runs) == runs
    with pytest.raises(ValueError, match="no architecture of this study 'vqq'.*Did you mean 'vq'"):
        planning.choose_runs(runs, only="vqq")


SPEED = estimates.Speed(0.0, 1e-9, 1e-9)


@toy_images
def test_only_what_a_call_trains_is_timed(tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(estimates, "measure_speed", lambda group, _: timed.append(group.id) or SPEED)
    config = toy_study.get_config(architectures="vae,betatc", grid="", datasets="dsprites,mpi3d")

    def plan(**options):
        timed.clear()
        made = runner.run(config, tmp_path, Options(**options), plan_only=True)
        return made, [name.partition("-")[0] for name in timed]

    whole, sets = plan()
    assert sets == ["dsprites", "mpi3d"] and all(np.isfinite(work.seconds) for work in whole.work)
    assert plan(stage="evaluate")[1] == [] and plan(datasets="mpi3d")[1] == ["mpi3d"]
    assert plan(shard=Shard(3, 4))[1] == ["mpi3d"], "the fourth of four groups"
    (tmp_path / "groups" / whole.groups[0].id / "checkpoints" / "4").mkdir(parents=True)
    trained, sets = plan(stage="evaluate")
    assert sets == [] and [work.done_here for work in trained.work] == [True, False, False, False]
    text = describe(trained)
    assert "8 to do; the time that it takes to evaluate on" in text and text.count("to be trained first") == 3


def test_members_that_are_computed_side_by_side_take_their_memory_side_by_side():
    model, dataset = toy.model("vae"), toy.dataset()
    one, in_turn, together = (
        estimates.training_bytes(model, dataset, 8, members, ensemble)
        for members, ensemble in ((1, "auto"), (3, "in_turn"), (3, "grouped"))
    )
    assert together == 3 * one and one < in_turn < together
    automatic = in_turn if jax.default_backend() == "cpu" else together
    assert estimates.training_bytes(model, dataset, 8, 3) == automatic


def test_the_time_left_follows_the_pace_of_what_was_done(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(estimates, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    first = planning.Group("first", ())
    pace, unknown = Pace({"first": 10.0, "second": 30.0}), Pace({"first": math.nan, "second": math.nan})
    assert (pace.left(), unknown.left()) == ("40 s", "?")
    now[0] = 20.0
    for each in (pace, unknown):
        each.note(first, 20.0)
    assert (pace.left(), unknown.left()) == ("1 min 00 s", "20 s"), "twice the estimate; as long as the group before"


@toy_images
def test_a_group_keeps_its_members_when_runs_are_added(tmp_path):
    def plan(**changes):
        plan = runner.run(toy_study.get_config(**changes), tmp_path, plan_only=True)
        planning.remember_groups(plan.groups, tmp_path / "groups.json")
        return [[r.id for r in group.runs] for group in plan.groups]

    first = plan(architectures="vae", grid="")
    assert first == [["dsprites-vae-s0", "dsprites-vae-s1"]]
    more = plan(architectures="vae,beta", grid="", seeds=3)
    assert more[0] == first[0] and set(more[1]) == {
        "dsprites-vae-s2",
        *(f"dsprites-beta-s{s}" for s in range(3)),
    }
    assert not (tmp_path / "runs").exists()


@toy_images
def test_out_of_memory_splits_a_group_and_is_recorded_for_a_single_run(tmp_path, monkeypatch):
    tried = []

    def train(model, dataset, folder, *, seeds, **options):
        tried.append(len(seeds))
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(ValueError, match="every run failed"):
        run_toy(tmp_path, architectures="vae", grid="")
    assert tried == [2, 1, 1]
    reasons = {row["reason"] for row in table_of(tmp_path).values()}
    assert reasons == {"RuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes."}
    assert "Traceback" in (tmp_path / "runs" / "dsprites-vae-s0" / "traceback.txt").read_text()


@toy_images
def test_a_request_to_stop_ends_the_study_without_a_record(tmp_path, monkeypatch):
    def train(*arguments, **options):
        raise training.Stopped("stopped by SIGTERM")

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(training.Stopped):
        run_toy(tmp_path)
    assert not list(tmp_path.glob("runs/*"))


# --- two data sets, from start to report -----------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits memory mappings")
def test_compiled_programs_are_let_go_before_mappings_run_out():
    programs = [jax.jit(lambda x, n=n: jnp.sin(x) * n) for n in range(3)]
    for program in programs:
        program(jnp.ones(3))
    free_programs()  # far from the system's limit
    assert all(program._cache_size() == 1 for program in programs)
    free_programs(limit=10)
    assert all(program._cache_size() == 0 for program in programs)


def test_one_seed_on_two_data_sets_from_start_to_report(tmp_path):
    options = {"seeds": 1, "datasets": "dsprites,smallnorb", "architectures": "vae,beta,vq"}
    runner.run(settings(**options), tmp_path)
    table = table_of(tmp_path)
    assert len(table) == 6 and {row["status"] for row in table.values()} == {"done"}
    assert {row["source"] for row in table.values()} == {"procedural"}
    for row in table.values():
        for name in ("reconstruction", "kl", "dci_disentanglement", "mig", "circuit_modularity_encoder"):
            assert row[name] != "", (row["run"], name)
        # So few steps may leave no latent active, and then there is nothing to average over.
        assert (row["ces_l2"] != "") == (float(row["active_latents"]) > 0), row["run"]
    assert float(table["dsprites-vae-s0"]["num_factors"]) == 5 and table["smallnorb-vq-s0"]["ces_code_swap_l2"] != ""
    text = report.write(tmp_path).read_text()
    assert "6 of 6 runs finished" in text and "dsprites (procedural)" in text and "Failed runs" not in text
