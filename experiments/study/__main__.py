"""Run the study: architectures × data sets × seeds, each evaluated, one table, one report.

    python -m experiments.study --config=configs/study.py:smoke
    python -m experiments.study --config=configs/study.py:quick --only=betatc,vq --datasets=dsprites
    python -m experiments.study --config=configs/study.py --config.seeds=10 --workdir=runs/ten_seeds
    python -m experiments.study --config=configs/study.py:quick --plan
    python -m experiments.study --config=configs/study.py:quick --stage=train --time_limit=1800 --shard=2/8
    python -m experiments.study --config=configs/study.py --engine=ray --address=head:6379 --workdir=/shared/study
    python -m experiments.study --config=configs/study.py --coordinator=host0:1234 --processes=2 --process=0

Runs that share a program train together. Every finished run is stored at once; the same command goes on where
an interrupted study stopped, and changes nothing that is finished. A run that fails is recorded with its
reason, and the rest goes on. --time_limit=SECONDS stops in time, with exit status 75; --stage=train leaves
evaluation to a later --stage=evaluate, and with --keep=weights keeps only what that needs, 1.5 MB a run;
--shard=2/8 does the second eighth of the groups, beside others on a directory that all can reach, and the same command
without it then writes table and report.

--engine=ray does groups as tasks of a Ray cluster (extra "cluster"), where a task whose process dies is tried again.

Several devices share the members and batches of each group; on several hosts, started with the last line (each
with its own --process) on a directory that all can reach, each evaluates its share of the runs.
"""

from __future__ import annotations

import functools
import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from causalvae import locks, schema, sharding
from experiments import cli, pipeline, slices
from experiments.report import page
from experiments.study import cluster, explorers, runner
from experiments.study.plan import KEEP as KEPT
from experiments.study.plan import Cluster, Options, Plan, check_hosts, parse_shard

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file: configs/study.py[:gpu|:overnight|:quick|:smoke]."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where results go. Default: runs/study[_<preset>].")
ONLY = flags.DEFINE_string("only", "", "Only these architectures, separated by commas.")
DATASETS = flags.DEFINE_string("datasets", "", "Only these data sets, separated by commas.")
PLAN = flags.DEFINE_bool("plan", False, "Print what would be done, and leave.")
SHARD = flags.DEFINE_string("shard", None, "i/n: only the i-th of n parts of the groups, i from 1; no table.")
KEEP = flags.DEFINE_enum("keep", "checkpoints", KEPT, "Of what is trained: all, or half-precision weights.")
RETRY = flags.DEFINE_bool("retry", False, "Do runs again that are recorded as failed.")
ENGINE = flags.DEFINE_enum("engine", "here", ("here", "ray"), "What does the groups: this process, or a Ray cluster.")
ADDRESS = flags.DEFINE_string("address", "", "host:port of the cluster's head. Default: this machine's, or a new one.")
GPUS = flags.DEFINE_float("gpus_per_task", None, "GPUs of a cluster's task. Default: 1 where the cluster has any.", 0)
CPUS = flags.DEFINE_float("cpus_per_task", 1.0, "CPUs of a cluster's task.", 0)
RETRIES = flags.DEFINE_integer("task_retries", 3, "How often a task is started again whose process died.", 0)
REPORT = flags.DEFINE_bool("report", True, "Write the report at the end.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, where several hosts take part.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes take part.")
PROCESS = flags.DEFINE_integer("process", None, "The number of this one, from 0.")


def main(argv: list[str]) -> None:
    if CONFIG.value is None:
        cli.fail("--config is needed, e.g. --config=configs/study.py:quick")
    engine = None
    if ENGINE.value == "ray":
        if COORDINATOR.value:
            cli.fail("--engine=ray and --coordinator are two ways to use several machines: give one of them")
        cluster.leave_accelerators()
        engine = Cluster(ADDRESS.value, GPUS.value, CPUS.value, RETRIES.value)
        if not PLAN.value:
            cluster.connect(engine)
    check_hosts(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    if COORDINATOR.value:
        jax.distributed.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    workdir = pathlib.Path(WORKDIR.value or pipeline.default_workdir(name)).resolve()
    stage, shard = slices.STAGE.value, parse_shard(SHARD.value)
    clock = slices.Clock(slices.TIME_LIMIT.value)
    options = Options(ONLY.value, DATASETS.value, RETRY.value, stage, KEEP.value, clock, shard, engine)
    runner.run(CONFIG.value, workdir, options, PLAN.value, functools.partial(report, workdir, options))


def report(workdir: pathlib.Path, options: Options, plan: Plan) -> None:
    """Writes explorers and report of a whole study, where they are asked for."""
    if REPORT.value and options.shard is None and options.stage != "train" and sharding.is_first_process():
        explorers.write(workdir, plan.groups)
        with locks.hold(workdir, "report", sweep=False):
            page.write(workdir)


if __name__ == "__main__":
    cli.run(main, schema.STUDY)
