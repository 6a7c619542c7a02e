"""One call on a study's directory: the plan, its groups, here or on a cluster, the table."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator

from causalvae import sharding
from causalvae._programs import free_programs
from causalvae.progress import duration
from experiments import pipeline
from experiments.cli import Config
from experiments.study import cluster, lock, planning, records
from experiments.study.estimates import Pace
from experiments.study.plan import Options, Plan, Work, describe, is_trained, make_plan
from experiments.study.store import Store
from experiments.study.worker import Worker


def run(
    config: Config,
    workdir: pathlib.Path,
    options: Options | None = None,
    plan_only: bool = False,
    finish: Callable[[Plan], None] = lambda plan: None,
) -> Plan:
    """Does what is left of a study, group by group, and writes the table after each.

    Args:
        config: the study's, as configs/study.py makes it.
        workdir: where results go. What is stored there is not done again.
        options: which part of it this call does; None is all.
        plan_only: whether to say what would be done, and leave; nothing is written, and nobody at work is in the way.
        finish: called with the plan when all is done, while the directory is still held.

    Returns:
        The plan that was made.

    Raises:
        ValueError: for settings that cannot be, or that are not those of what is stored, where another process is at
            work in the directory, and where every run failed.
        FileNotFoundError: where what is to be evaluated was never trained.
        training.Stopped: for a signal or the time limit, with everything stored that was done.
    """
    pipeline.check_device()
    options, first = options or Options(), sharding.is_first_process()
    runs = planning.list_runs(config)
    chosen = planning.choose_runs(runs, options.only, options.datasets)
    if options.stage == "evaluate" and not plan_only:
        _check_begun(workdir)
    with lock.hold(workdir, options.shard) if first and not plan_only else contextlib.nullcontext():
        store = Store(workdir, runs, options.retry)
        plan = make_plan(chosen, store.done, workdir, config.members, options, remember=not plan_only)
        pipeline.say(f"{describe(plan, options.cluster)}\nresults go to {workdir}")
        if not plan_only:
            _do(plan, store, options)
            finish(plan)
    return plan


def _check_begun(workdir: pathlib.Path) -> None:
    """FileNotFoundError where nothing of a study is: a shard that finds nothing to evaluate would end well."""
    if not any((workdir / name).is_dir() for name in ("groups", "runs")):
        raise FileNotFoundError(
            f"nothing is trained in {workdir}: --stage=train does that first, or give the --workdir where it was done"
        )


def _do(plan: Plan, store: Store, options: Options) -> None:
    started = time.monotonic()
    engine = _in_turn if options.cluster is None else cluster.do
    for _ in engine(plan, store, options):
        if options.shard is None:
            store.write_table()
    if options.shard is None:
        store.write_table()
    _say_end(plan, store, options, time.monotonic() - started)


def _in_turn(plan: Plan, store: Store, options: Options) -> Iterator[Work]:
    """Does the groups in this process, one after the other, and yields each that is done."""
    pace = Pace({work.group.id: work.seconds for work in plan.todo}, sum(len(work.pending) for work in plan.todo))
    worker = Worker(store, pace, options.stage, options.clock, options.keep)
    for work in plan.todo:
        began = time.monotonic()
        worker.do(work.group, work.pending)
        pace.note(work.group, time.monotonic() - began)
        free_programs()
        yield work


def _say_end(plan: Plan, store: Store, options: Options, seconds: float) -> None:
    found = store.read(plan.runs)
    failed = {name: record["reason"] for name, record in found.items() if record["status"] == records.FAILED}
    text = f"{len(found) - len(failed)} runs done, {len(failed)} failed"
    if options.stage != "all":
        trained = sum(is_trained(group, store.workdir) for group in plan.groups)
        text += f", {trained} of {len(plan.groups)} groups trained"
    text += f", in {duration(seconds)}"
    pipeline.say(text if options.shard or options.stage == "train" else f"{text}; table: table.csv")
    for name, reason in failed.items():
        pipeline.say(f"  failed: {name}: {reason}")
    if failed and len(failed) == len(found):
        raise ValueError("every run failed; traceback.txt in each run's folder has the whole error")
