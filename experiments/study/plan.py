"""What one call on a study's directory is to do."""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from causalvae import checkpoints, evaluation, sharding
from causalvae.data.base import Dataset
from causalvae.progress import duration
from experiments import pipeline
from experiments.slices import Clock
from experiments.study import estimates, planning, weights
from experiments.study.planning import Group, Run


class Shard(NamedTuple):
    """The part of a study's groups that one of several calls does: numbers `number`, `number + parts`, … from 0."""

    number: int
    parts: int

    def holds(self, index: int) -> bool:
        return index % self.parts == self.number


def parse_shard(text: str | None) -> Shard | None:
    """'2/8' -> Shard(1, 8); None -> None. ValueError for anything else."""
    if text is None:
        return None
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise ValueError(f"--shard is i/n with i from 1 to n, such as 2/8, not {text!r}")
    return Shard(int(number) - 1, int(parts))


def check_hosts(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """ValueError for flags of several hosts that would wait for each other in vain, or each do the whole study."""
    if coordinator is None and (processes, process) != (None, None):
        raise ValueError("--processes and --process need --coordinator=host:port, the address of process 0")
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"--coordinator is host:port of process 0, such as host0:1234, not {coordinator!r}")
    if (processes is None) != (process is None):
        raise ValueError("--processes, how many take part, and --process, the number of this one, belong together")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise ValueError(f"--process is 0 to {processes - 1} where --processes={processes}, not {process}")


class Cluster(NamedTuple):
    """The Ray cluster that does a study's groups, and what each takes of it."""

    address: str = ""  # host:port of its head; "" is the one that runs here, or one of this machine alone
    gpus: float | None = None  # of a task; None: 1 where the cluster has any
    cpus: float = 1.0
    retries: int = 3  # how often a task is started again whose process died


KEEP = ("checkpoints", "weights")  # of what is trained: all, to go on from, or what weights.py says


class Options(NamedTuple):
    """What a call does of a study, and by what."""

    only: str = ""  # these architectures, separated by commas; "" is all
    datasets: str = ""  # these data sets, likewise
    retry: bool = False  # do runs again that are recorded as failed
    stage: str = "all"  # see slices.py
    keep: str = "checkpoints"  # one of KEEP
    clock: Clock = Clock()
    shard: Shard | None = None
    cluster: Cluster | None = None  # None: this process


class Work(NamedTuple):
    """A group, and what this call does of it."""

    group: Group
    pending: tuple[Run, ...]  # its runs that are not stored
    trained: bool
    done_here: bool  # whether this call does what is left
    seconds: float  # that this takes; NaN where no speed was measured, as of a cluster's devices
    bytes: int
    source: str


class Plan(NamedTuple):
    """Every group of a call's shard."""

    work: tuple[Work, ...]

    @property
    def groups(self) -> list[Group]:
        return [work.group for work in self.work]

    @property
    def runs(self) -> list[Run]:
        """Each once: one whose weights are kept stands alone, and in the group that is trained again for another's."""
        return list({run.id: run for work in self.work for run in work.group.runs}.values())

    @property
    def todo(self) -> list[Work]:
        return [work for work in self.work if work.done_here]


def make_plan(
    runs: Sequence[Run],
    done: Collection[str],
    workdir: pathlib.Path,
    largest: int,
    options: Options,
    remember: bool = True,
) -> Plan:
    """Groups the runs, as earlier calls on the directory did, and estimates what is left.

    Steps are timed of each data set of which this call trains something.

    Args:
        runs: those that are asked for.
        done: the ids of the stored ones.
        workdir: the study's directory, whose groups.json is read, and written where `remember`.
        largest: members of a group; 0 is any number.
        options: what the call does.
        remember: whether groups.json is written; a call that only says what it would do leaves nothing.

    Raises:
        ValueError: for settings of training or evaluation that cannot be.
    """
    path = workdir / "groups.json"
    kept = {run.id for run in runs if weights.are_kept(workdir, run)}
    remembered, rest = planning.remembered_groups(runs, path)
    rest = [run for run in rest if run.id not in kept]
    groups: list[Group] = []
    work: list[Work] = []
    compiled: set[tuple] = set()
    for name in dict.fromkeys(run.dataset for run in runs):
        of_set = [run for run in runs if run.dataset == name]
        dataset = planning.load_dataset(of_set[0])
        planning.check_images(dataset, path, remember)
        _check(of_set, dataset)
        here = [group for group in remembered if group.dataset == name]
        here += planning.group_runs([run for run in rest if run.dataset == name], dataset, largest)
        untrained = [(i, g) for i, g in enumerate(here, len(groups)) if not all(run.id in kept for run in g.runs)]
        groups += here
        # A shard's part of what is kept goes by the place of each run, and is the same whatever else is kept.
        alone = [
            (i, planning.make_group([run])) for i, run in enumerate(runs) if run.id in kept and run.dataset == name
        ]
        own = [group for i, group in untrained + alone if options.shard is None or options.shard.holds(i)]
        # What is kept of a group that is trained again is evaluated alone, and once.
        left = [_left(g, {*done, *(kept if len(g.runs) > 1 else ())}, workdir, options.stage, dataset) for g in own]
        work += _estimated(left, dataset, compiled, options)
    sharding.wait_for_all("plan")
    # Which runs train together, who trains shall say.
    if remember and options.stage != "evaluate" and sharding.is_first_process():
        planning.remember_groups(groups, path)
    return Plan(tuple(work))


def _check(runs: Sequence[Run], dataset: Dataset) -> None:
    for run in runs:
        pipeline.check_training(run.config)
        model = pipeline.create_model(run.config, dataset)
        evaluation.check_settings(evaluation.Settings(**run.config.evaluation), model, dataset)


def _left(group: Group, done: Collection[str], workdir: pathlib.Path, stage: str, dataset: Dataset) -> Work:
    """A group with what is left of it, not estimated yet."""
    pending, trained = tuple(run for run in group.runs if run.id not in done), is_trained(group, workdir)
    done_here = bool(pending) and {"all": True, "train": not trained, "evaluate": trained}[stage]
    return Work(group, pending, trained, done_here, 0.0, 0, dataset.source)


def is_trained(group: Group, workdir: pathlib.Path) -> bool:
    """Whether the group has a checkpoint of its last step, or its runs' weights are kept."""
    return (
        weights.all_kept(workdir, group)
        or checkpoints.latest_step(group.folder(workdir) / "checkpoints") >= group.config.training.steps
    )


def _estimated(listed: Sequence[Work], dataset: Dataset, compiled: set[tuple], options: Options) -> list[Work]:
    """The work on one data set with its estimates. compiled: what earlier groups compile; these ones' is added."""
    trains = [work.group for work in listed if options.cluster is None and work.done_here and not work.trained]
    speed = estimates.find_speed(trains[0], dataset) if trains else estimates.Speed()
    estimated = []
    for work in listed:
        if work.done_here:
            new = estimates.programs(work.group, dataset) - compiled
            compiled |= new
            own = estimates.estimate(work.group, dataset, speed, len(new))
            share = len(work.pending) / len(work.group.runs)  # training is not split: all of it, or none
            seconds = own.compile_s + (0.0 if work.trained else own.training_s)
            seconds += 0.0 if options.stage == "train" else own.evaluation_s * share
            work = work._replace(seconds=seconds, bytes=own.bytes)
        estimated.append(work)
    return estimated


# --- in words --------------------------------------------------------------------------------------------


def describe(plan: Plan, cluster: Cluster | None = None) -> str:
    """Returns the plan as text: a line about all groups, and one about each."""
    lines = []
    for work in plan.work:
        members, left = len(work.group.runs), len(work.pending)
        runs = f"{members} run{'s' if members > 1 else ''}" + (f", {left} left" if 0 < left < members else "")
        names = f"{work.group.dataset:<10} {work.source:<10} {work.group.labels:<18}"
        lines.append(f"  {names} {runs:<16} {_state(work)}")
    seconds = [work.seconds for work in plan.todo]
    known = sum(filter(math.isfinite, seconds))
    time = f"about {duration(known)}"
    if not all(map(math.isfinite, seconds)):
        time = f"{time} and the time that it takes to evaluate" if known else "the time that it takes to evaluate"
    left = sum(len(work.pending) for work in plan.work)
    head = f"{len(plan.runs)} runs in {len(plan.work)} groups, {left} to do"
    head += f"; {time} on {pipeline.device_name()}" if cluster is None else " on a Ray cluster"
    return "\n".join([head, *lines])


def _state(work: Work) -> str:
    if not work.pending:
        return "done"
    if not work.done_here:
        return "trained" if work.trained else "to be trained first"
    unknown = "to be evaluated" if work.trained else "to be trained"
    seconds = f"~{duration(work.seconds)}" if math.isfinite(work.seconds) else unknown
    return f"{seconds}, {work.bytes / 2**20:,.0f} MB"
