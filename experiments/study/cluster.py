"""A study's groups as tasks of a Ray cluster.

The caller plans, holds the study's directory and writes the table; each group is a task in a process of its own, on
whichever node has room, and stores its runs in the directory, which all nodes reach by one path. A task whose process
or node dies is started again, here or elsewhere, and goes on from its group's checkpoint. What the caller computes
itself, it computes on its CPU: accelerators belong to the tasks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax

from causalvae import locks, training
from causalvae.progress import duration
from experiments import pipeline, slices
from experiments.study.estimates import Pace
from experiments.study.plan import Cluster, Options, Plan, Work
from experiments.study.store import Store
from experiments.study.worker import Worker

GRACE_S = 120.0  # seconds that cancelled tasks are given to store what they have
LOOK_EVERY_S = 1.0


class Outcome(NamedTuple):
    """What became of a task."""

    done: tuple[str, ...]  # runs of the group that are stored
    seconds: float
    node: str
    stopped: str = ""  # why, where there is more to do


def do(plan: Plan, store: Store, options: Options) -> Iterator[Work]:
    """Does the plan's groups as tasks, and yields each that is done.

    Raises:
        ValueError: where there is no Ray, no cluster, or none with what a task asks for; and at the end, where tasks
            were lost more often than they are tried again. The rest is done by then.
        training.Stopped: where the time limit or a signal stopped tasks, with everything stored.
    """
    assert options.cluster is not None
    ray = connect(options.cluster)
    asked = resources(ray, options.cluster)
    running = _submitted(ray, asked, plan, store, options)
    say_cluster(ray, asked, len(running))
    lost, stopped, total, began = {}, [], len(running), time.monotonic()
    # A signal is looked at between Ray's calls, which do not let exceptions of handlers through.
    with training.StopRequest() as request, _cancelling(ray, running):
        while running and not request.signal:
            ready, _ = ray.wait(list(running), timeout=LOOK_EVERY_S)
            for task_id in ready:
                work = running.pop(task_id)
                try:
                    outcome = ray.get(task_id)
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                    lost[work.group.id] = _first_line(error)
                    continue
                store.done.update(outcome.done)
                stopped += [outcome.stopped] if outcome.stopped else []
                yield work
                _say_done(work, outcome, total - len(running), total, began)
    if request.signal:
        raise training.Stopped(f"stopped by {request.signal}. What is stored is whole; the same command goes on.")
    if lost:
        names = "; ".join(f"{name} ({reason})" for name, reason in lost.items())
        raise ValueError(
            f"the processes of {len(lost)} groups died, each {options.cluster.retries + 1} times: {names}. Everything "
            "else is stored, and the same command tries these again."
        )
    if stopped:
        raise training.Stopped(f"{stopped[0]} ({len(stopped)} of {total} groups have more to do.)")


def _submitted(ray: Any, asked: Mapping[str, float], plan: Plan, store: Store, options: Options) -> dict[Any, Work]:
    """Task -> its group, all at once: Ray begins them in this order, as there is room."""
    assert options.cluster is not None
    deadline = time.time() + options.clock.deadline - time.monotonic()
    task = ray.remote(**asked, max_retries=options.cluster.retries, max_calls=1)(do_group)
    how = str(store.workdir), options.stage, options.retry, deadline, options.keep
    return {task.options(name=work.group.id).remote(work, *how): work for work in plan.todo}


@contextlib.contextmanager
def _cancelling(ray: Any, running: Mapping[Any, Work]) -> Iterator[None]:
    """Whatever ends the context, asks tasks that still run to stop, as SIGINT does, and gives them time to store."""
    try:
        yield
    finally:
        for task_id in running:
            ray.cancel(task_id)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=GRACE_S)


def do_group(work: Work, workdir: str, stage: str, retry: bool, deadline: float, keep: str) -> Outcome:
    """A task: trains a group and stores its runs, as the study does in one process.

    Args:
        work: the group.
        workdir: the study's directory.
        stage: see slices.py; so is what the deadline does.
        retry: whether to do runs again that are recorded as failed.
        deadline: when to be done, on `time.time()`'s clock, which machines share.
        keep: of what is trained, see `plan.KEEP`.
    """
    began, clock = time.monotonic(), slices.Clock()
    clock.deadline = began + deadline - time.time()
    group = work.group
    # A process that a cluster takes for dead may be at work yet: nobody else writes beside it.
    with locks.hold(pathlib.Path(workdir), f"group_{group.id}", wait=True, sweep=False):
        store = Store(pathlib.Path(workdir), group.runs, retry)
        pending = [run for run in work.pending if run.id not in store.done]
        worker = Worker(store, Pace({group.id: work.seconds}, len(pending)), stage, clock, keep)
        stopped = ""
        try:
            clock.check(0.0, group.id)
            worker.do(group, pending)
        except training.Stopped as error:
            stopped = str(error)
    return Outcome(tuple(sorted(store.done)), time.monotonic() - began, socket.gethostname(), stopped)


# --- the cluster -----------------------------------------------------------------------------------------


def leave_accelerators() -> None:
    """Keeps this process to the CPU, before it has used any other device."""
    jax.config.update("jax_platforms", "cpu")


def connect(cluster: Cluster) -> Any:
    """Returns the module `ray`, connected, as it is best before JAX has started threads: on one machine, Ray forks.

    Raises:
        ValueError: in words, where it is not there or no cluster answers.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # lines of progress are alike, and all are wanted
    os.environ.setdefault("RAY_COLOR_PREFIX", str(int(sys.stdout.isatty())))
    try:
        import ray  # pyright: ignore[reportMissingImports] - an extra, and slow to import
    except ImportError as error:
        raise ValueError('--engine=ray needs Ray, which is not installed: pip install -e ".[cluster]"') from error
    if ray.is_initialized():
        return ray
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=cluster.address or None, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"at {cluster.address!r}" if cluster.address else "on this machine"
        raise ValueError(
            f"no Ray cluster {where} ({_first_line(error)}). `ray start --head` on one machine and "
            "`ray start --address=HOST:6379` on the others make one."
        ) from error
    for number, handler in handlers.items():  # Ray's own would end this process without a word
        with contextlib.suppress(ValueError):
            signal.signal(number, handler)
    return ray


def resources(ray: Any, cluster: Cluster) -> dict[str, float]:
    """Returns what a task asks for; ValueError where no node has that much, for then it would wait forever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = cluster.gpus if cluster.gpus is not None else float(any(node.get("GPU") for node in nodes))
    asked = {"num_cpus": cluster.cpus, "num_gpus": gpus}
    if not any(node.get("CPU", 0) >= cluster.cpus and node.get("GPU", 0) >= gpus for node in nodes):
        there = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ValueError(f"no node of the cluster has {cluster.cpus:g} CPUs and {gpus:g} GPUs for a task: {there}")
    return asked


def say_cluster(ray: Any, asked: Mapping[str, float], tasks: int) -> None:
    """Says what there is, and what a task takes of it."""
    total = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    pipeline.say(
        f"Ray: {nodes} node{'s' if nodes > 1 else ''}, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs; "
        f"{tasks} tasks of {asked['num_cpus']:g} CPUs and {asked['num_gpus']:g} GPUs each"
    )


def _say_done(work: Work, outcome: Outcome, number: int, total: int, began: float) -> None:
    """A line about a finished task, with the time left at the pace so far."""
    left = (time.monotonic() - began) / number * (total - number)
    what = "stopped" if outcome.stopped else "done"
    pipeline.say(
        f"{work.group.id} {what} on {outcome.node} in {duration(outcome.seconds)}: {number} of {total} groups, "
        f"about {duration(left)} left"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
