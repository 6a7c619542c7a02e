"""A study on a Ray cluster: what the caller makes of its tasks, and a real one of which a worker is killed."""

import functools
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import pytest
import toy_study

from causalvae import training
from experiments import slices
from experiments.study import cluster, planning, runner
from experiments.study.plan import Cluster, Options

ROOT = pathlib.Path(__file__).parents[1]


# --- the caller, with tasks that are done at once -----------------------------------------------------


class Died(Exception):
    """What Ray raises for a task whose process died too often."""


def fake_ray(dies=(), nodes=({"CPU": 2.0},)):
    """The part of Ray that is used, in this process. dies: data sets' architectures whose tasks are lost."""

    class Task(functools.partial):
        """A task that is done when its result is asked for."""

    def remote(**resources):
        asked = types.SimpleNamespace()
        asked.options = lambda name: types.SimpleNamespace(remote=functools.partial(Task, asked.function))
        return lambda function: setattr(asked, "function", function) or asked

    def get(task):
        if task.args[0].group.labels in dies:
            raise Died("The worker died unexpectedly.\nmore")
        return task()

    return types.SimpleNamespace(
        remote=remote,
        get=get,
        wait=lambda tasks, **_: (tasks[-1:], tasks[:-1]),  # the last one first
        nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes],
        cluster_resources=lambda: {"CPU": 2.0},
        exceptions=types.SimpleNamespace(WorkerCrashedError=Died, NodeDiedError=Died),
    )


@pytest.fixture
def study(monkeypatch):
    toy_study.patch(monkeypatch.setattr)

    def run(workdir, ray=None, **options):
        config = toy_study.get_config(architectures="vae,betatc", grid="", seeds=1)
        if ray:
            monkeypatch.setattr(cluster, "connect", lambda cluster: ray)
            options["cluster"] = Cluster(retries=2)
        return runner.run(config, workdir, Options(**options))

    yield run
    planning._load.cache_clear()


def stored(workdir):
    files = [*sorted(workdir.glob("runs/*/record.json")), workdir / "table.csv", workdir / "groups.json"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in files}


def test_tasks_leave_the_bytes_of_one_process(tmp_path, study, capsys):
    study(tmp_path / "plain")
    with pytest.raises(
        ValueError, match=r"1 groups died, each 3 times: .*\(The worker died unexpectedly\).* tries these"
    ):
        study(tmp_path / "ray", fake_ray(dies=("vae",)))
    assert [path.parent.name for path in tmp_path.glob("ray/runs/*/record.json")] == ["dsprites-betatc-s0"]
    with pytest.raises(training.Stopped, match=r"time limit.*\(1 of 1 groups have more to do"):
        study(tmp_path / "ray", fake_ray(), clock=slices.Clock(1e-9))
    study(tmp_path / "ray", fake_ray())
    assert stored(tmp_path / "ray") == stored(tmp_path / "plain")
    assert not list(tmp_path.glob("ray/*.lock"))
    said = capsys.readouterr().out
    assert "2 runs in 2 groups, 2 to do on a Ray cluster" in said
    assert "Ray: 1 node, 2 CPUs, 0 GPUs; 1 tasks of 1 CPUs and 0 GPUs each" in said
    assert re.search(r"dsprites-vae-\w+ done on .* in .*: 1 of 1 groups, about 0 s left", said)


def test_a_task_asks_for_what_some_node_has():
    two = fake_ray(nodes=({"CPU": 8.0}, {"CPU": 4.0, "GPU": 2.0}))
    assert cluster.resources(two, Cluster()) == {"num_cpus": 1.0, "num_gpus": 1.0}
    assert cluster.resources(two, Cluster(gpus=0.5, cpus=2)) == {"num_cpus": 2, "num_gpus": 0.5}
    assert cluster.resources(fake_ray(), Cluster())["num_gpus"] == 0
    with pytest.raises(ValueError, match="no node of the cluster has 8 CPUs and 1 GPUs for a task: 8 CPUs, 0 GPUs; 4"):
        cluster.resources(two, Cluster(cpus=8))


def test_where_there_is_no_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r'needs Ray, which is not installed: pip install -e "\.\[cluster\]"'):
        cluster.connect(Cluster())


# --- a queue ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "requeued"), [(75, "requeue 17\n"), (0, ""), (1, "")])
def test_the_job_script_of_the_docs_goes_on_where_there_is_more_to_do(tmp_path, status, requeued):
    script = re.search(r"```text\n(#!/bin/bash\n#SBATCH.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)[
        1
    ]
    (tmp_path / "job.sh").write_text(script)
    stubs = {"srun": 'exec "$@"', "python": f'echo "$@" > {tmp_path}/asked; exit {status}'}
    stubs["scontrol"] = f'echo "$@" >> {tmp_path}/requeued'
    for name, text in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    where = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "17"}
    assert subprocess.run(["bash", tmp_path / "job.sh"], env=where).returncode == status
    asked = (tmp_path / "asked").read_text().split()
    assert asked[:2] == ["-m", "experiments.study"] and "--shard=3/8" in asked
    told = tmp_path / "requeued"
    assert (told.read_text() if told.exists() else "") == requeued


# --- a real cluster ---------------------------------------------------------------------------------------

STUDY = [
    "--config=configs/study.py:smoke", "--datasets=dsprites", "--only=vae,betatc", "--config.seeds=1",
    "--config.latents=4", "--config.evaluation.metrics=mig", "--config.evaluation.sites=latent/z", "--report=false",
    "--config.training.steps=400", "--config.training.log_every=20", "--config.training.checkpoint_every=20",
]  # fmt: skip


def started(workdir, *words):
    command = [sys.executable, "-m", "experiments.study", *STUDY, f"--workdir={workdir}", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process):
    """(exit status, what it said)."""
    said = process.communicate()[0]
    return process.returncode, said


def kill_one(workdir, process):
    """Ends the process of a task in the middle of its training; returns its number."""
    while process.poll() is None:
        for path in workdir.glob("groups/*/checkpoints/[0-9]*"):
            lock = workdir / f"group_{path.parents[1].name}.lock"
            if path.name != "400" and lock.exists():
                number = int(re.search(r"process (\d+)", lock.read_text())[1])
                os.kill(number, signal.SIGKILL)
                return number
        time.sleep(0.01)
    raise AssertionError(ended(process))


@pytest.mark.long
def test_a_killed_worker_changes_nothing(tmp_path):
    pytest.importorskip("ray", reason='needs Ray: pip install -e ".[cluster]"')
    status, said = ended(started(tmp_path / "plain"))
    assert status == 0, said
    process = started(tmp_path / "ray", "--engine=ray")
    number = kill_one(tmp_path / "ray", process)
    status, said = ended(process)
    assert status == 0, said
    assert str(number) in said and "2 runs done, 0 failed" in said, said
    assert stored(tmp_path / "ray") == stored(tmp_path / "plain")
    curves = [path.relative_to(tmp_path / "ray") for path in tmp_path.glob("ray/groups/*/metrics.jsonl")]
    assert len(curves) == 2
    for path in curves:
        assert (tmp_path / "ray" / path).read_bytes() == (tmp_path / "plain" / path).read_bytes()


@pytest.mark.long
def test_a_cluster_is_stopped_as_one_process_is(tmp_path):
    pytest.importorskip("ray", reason='needs Ray: pip install -e ".[cluster]"')
    process = started(tmp_path, "--engine=ray")
    while not list(tmp_path.glob("groups/*/metrics.jsonl")):
        assert process.poll() is None, ended(process)
        time.sleep(0.05)
    process.terminate()
    status, said = ended(process)
    assert status == 75 and "the same command goes on" in said and "Traceback" not in said, said
    assert not list(tmp_path.glob("*.lock"))
    status, said = ended(started(tmp_path, "--engine=ray"))
    assert status == 0, said
    for words, message in ((["--cpus_per_task=99"], "no node of the cluster has 99 CPUs"), (["--address=x"], "no Ray")):
        status, said = ended(started(tmp_path / "other", "--engine=ray", *words))
        assert status == 1 and f"error: {message}" in said.splitlines()[-1], said
