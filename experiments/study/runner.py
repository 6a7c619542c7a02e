"""One call on a study's directory: its groups trained, its runs evaluated and stored, its table written."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import pathlib
import time
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from causalvae import checkpoints, evaluation, networks, sharding, training
from causalvae.data.base import Dataset
from causalvae.progress import Progress, duration, finite, read_json_lines, write_text
from experiments import pipeline, slices
from experiments.explorer import page, runs
from experiments.study import planning, records
from experiments.study.planning import Group, Run

PyTree = Any
LATENTS_SHOWN = 2  # whose traversals are stored: so many of the most and of the least specific
IMAGES_SHOWN = 8


def say(text: str) -> None:
    """Print, on one of the hosts."""
    if sharding.is_first_process():
        pipeline.say(text)


class Shard(NamedTuple):
    """The part of a study's groups that one of several calls does: numbers `index`, `index + count`, … from 0."""

    index: int
    count: int


def parse_shard(text: str | None) -> Shard | None:
    """'2/8' -> Shard(1, 8); None -> None. ValueError for anything else."""
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"--shard is i/n with i from 1 to n, such as 2/8, not {text!r}")
    return Shard(int(index) - 1, int(count))


class Study:
    """One call on one directory. stage and clock: see slices.py."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: pathlib.Path,
        only: str = "",
        datasets: str = "",
        retry: bool = False,
        stage: str = "all",
        clock: slices.Clock | None = None,
        shard: Shard | None = None,
    ):
        runs = planning.list_runs(config)
        names = list(dict.fromkeys(run.architecture for run in runs))
        sets = list(dict.fromkeys(run.dataset for run in runs))
        names = planning.split(only, names, "architecture of this study") if only else names
        sets = planning.split(datasets, sets, "data set of this study") if datasets else sets
        self.config, self.workdir, self.shard = config, workdir, shard
        self.stage, self.clock = stage, clock or slices.Clock()
        self.longest_evaluation = 0.0  # seconds, of this call
        self.all_runs = runs
        self.runs = [run for run in runs if run.architecture in names and run.dataset in sets]
        self.done = {run.id for run in runs if self._is_done(run, retry)}

    def _is_done(self, run: Run, retry: bool) -> bool:
        """Whether a run is stored; ValueError where it was made with other settings."""
        record = records.read_record(self.workdir, run.id)
        if record is None or (retry and record["status"] == records.FAILED):
            return False
        difference = pipeline.first_difference(dict(flat(record["config"])), dict(flat(settings_of(run))))
        if difference:
            raise ValueError(
                f"{self.workdir} holds a run {run.id} of other settings: {difference}. Choose another --workdir, "
                "or delete that run's folder."
            )
        return True

    def run(self, plan_only: bool = False) -> None:
        """Do what is left, group by group, and write the table after each."""
        first = sharding.is_first_process()
        with records.StudyLock(self.workdir, self.shard) if first else contextlib.nullcontext():
            self.plan()
            if plan_only:
                return
            started = time.monotonic()
            for group in self.groups:
                pending = [run for run in group.runs if run.id not in self.done]
                trained = self.is_trained(group)
                if not pending or (trained if self.stage == "train" else self.stage == "evaluate" and not trained):
                    continue
                began = time.monotonic()
                self.run_group(group, pending)
                self.pace.note(group, time.monotonic() - began)
                free_programs()
                self.write_table()
            self.write_table()
            self.say_end(time.monotonic() - started)

    def plan(self) -> None:
        """Group the runs, estimate them, and say so."""
        self.groups, self.estimates, sources, compiled = [], {}, {}, set()
        remembered, rest = planning.remembered_groups(self.runs, self.workdir / "groups.json")
        for name in dict.fromkeys(run.dataset for run in self.runs):
            runs = [run for run in rest if run.dataset == name]
            dataset = load_dataset(next(run for run in self.runs if run.dataset == name))
            sources[name] = dataset.source
            for run in (run for run in self.runs if run.dataset == name):
                pipeline.check_training(run.config)
                model = pipeline.create_model(run.config, dataset)
                evaluation.check_settings(evaluation.Settings(**run.config.evaluation), model, dataset)
            groups = [group for group in remembered if group.runs[0].dataset == name]
            groups += planning.group_runs(runs, dataset, self.config.members)
            pending = [group for group in groups if any(run.id not in self.done for run in group.runs)]
            speed = planning.measure_speed(pending[0], dataset) if pending else math.inf
            for group in groups:
                new = planning.programs(group, dataset) - compiled
                self.estimates[group.id] = planning.estimate(group, dataset, speed, len(new))
                compiled |= new
            self.groups += groups
        sharding.wait_for_all("plan")
        if sharding.is_first_process():
            planning.remember_groups(self.groups, self.workdir / "groups.json")
        if self.shard:
            self.groups = self.groups[self.shard.index :: self.shard.count]
            self.runs = [run for group in self.groups for run in group.runs]
        say(planning.describe(self.groups, self.estimates, self.done, sources))
        say(f"results go to {self.workdir}")
        self.pace = Pace(self.groups, self.estimates, self.done)

    # --- one group ---------------------------------------------------------------------------------------

    def run_group(self, group: Group, pending: Sequence[Run]) -> None:
        """Train a group's members together, then evaluate and store each that is not stored yet."""
        dataset = load_dataset(group.runs[0])
        began = time.monotonic()
        try:
            trained, untrained, diverged = self.train(group, dataset)
        except training.Stopped:
            raise
        except Exception as error:
            if out_of_memory(error) and len(group.runs) > 1:
                say(f"{group.id}: out of memory with {len(group.runs)} members; training them one by one")
                for run in pending:
                    self.run_group(planning.make_group([run]), [run])
            else:
                self.fail(pending, dataset, error)
            return
        if self.stage == "train":
            return
        seconds = (time.monotonic() - began) / len(group.runs)
        for run in pending[jax.process_index() :: jax.process_count()]:
            member = group.runs.index(run)
            if diverged[member] is None:
                params = (training.member(trained, member), training.member(untrained, member))
                self.evaluate(run, dataset, *params, seconds)
            else:
                self.store(run, dataset, failure(f"the loss was not finite by step {diverged[member]}"), {}, seconds)
        sharding.wait_for_all(group.id)
        self.done.update(run.id for run in pending)

    def train(self, group: Group, dataset: Dataset) -> tuple[PyTree, PyTree, list[int | None]]:
        """Train the group's members: their parameters [M, ...] after and before, and the logged step by which
        each one's loss was not finite."""
        structures = [planning.structure(run, dataset) for run in group.runs]
        folder = self.workdir / "groups" / group.id
        options, seeds = dict(group.runs[0].config.training), [run.seed for run in group.runs]
        model = structures[0][0]
        state = training.train(
            model,
            dataset,
            folder,
            seeds=seeds,
            hyper={name: np.array([hyper[name] for _, hyper in structures]) for name in structures[0][1]},
            stop_when_diverged=False,
            mesh=mesh_of(group),
            progress=functools.partial(StudyProgress, self.heading(group), self.pace),
            deadline=self.clock.deadline,
            **options,
        )
        diverged = first_not_finite(folder / "metrics.jsonl", len(group.runs))
        return state.params, training.initial_params(model, seeds), diverged

    def evaluate(self, run: Run, dataset: Dataset, params: PyTree, untrained: PyTree, training_s: float) -> None:
        """Measure one member and store it."""
        self.clock.check(self.longest_evaluation, f"evaluating {run.id}")
        say(f"  evaluating {run.id} ({len(self.done) + 1} of {len(self.all_runs)} runs, {self.pace.left()} left)")
        began = time.monotonic()
        model = pipeline.create_model(run.config, dataset)
        settings = evaluation.Settings(**run.config.evaluation)
        try:
            found = evaluation.evaluate(model, params, dataset, settings, untrained)
        except Exception as error:
            self.fail([run], dataset, error)
            return
        result = {"status": records.DONE, "reason": "", **evaluation.record(found)}
        seconds = time.monotonic() - began
        self.longest_evaluation = max(self.longest_evaluation, seconds)
        self.store(run, dataset, result, images_of(found), training_s, seconds)

    def fail(self, runs: Sequence[Run], dataset: Dataset, error: Exception) -> None:
        """Record an error as the reason of every run that it ended; its traceback goes beside the record."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        say(f"  failed: {reason}")
        for run in runs:
            folder = records.run_folder(self.workdir, run.id)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "traceback.txt").write_text("".join(traceback.format_exception(error)))
            self.store(run, dataset, failure(reason), {}, 0.0)

    def store(self, run, dataset, result, images, training_s: float, evaluation_s: float = 0.0) -> None:
        """Write the run's record and count it as done."""
        model = pipeline.create_model(run.config, dataset)
        parameters = networks.parameter_count(jax.eval_shape(model.init, jax.random.key(0)))
        record = {
            "run": run.id,
            "label": run.label,
            "variant": run.variant,
            "seed": run.seed,
            "architecture": {**dict(run.config.architecture), "latents": model.latents, "parameters": int(parameters)},
            "data": dataset.describe(),
            "training": dict(run.config.training),
            "evaluation": dict(run.config.evaluation),
            "config": settings_of(run),
            "versions": pipeline.versions(),
            "device": pipeline.device_name(),
            **result,
        }
        seconds = {"training_s": training_s, "evaluation_s": evaluation_s}
        records.write_record(self.workdir, record, images, seconds)
        self.done.add(run.id)

    # --- the whole ---------------------------------------------------------------------------------------

    def write_table(self) -> None:
        """The table of every stored run of this configuration, in the order of the plan."""
        stored = [run.id for run in self.all_runs if run.id in self.done]
        if stored and not self.shard and sharding.is_first_process():
            records.write_table(self.workdir, records.tabulate(records.read_record(self.workdir, i) for i in stored))
            records.write_times(self.workdir, stored)

    def write_explorers(self) -> None:
        """The explorer of the best run of each data set, from its group's checkpoint, where it is not there yet."""
        table = records.read_table(self.workdir)
        for run in (run for run in self.runs if run.id in page.best_runs(table)):
            path = records.run_folder(self.workdir, run.id) / page.STORED
            if path.exists():
                continue
            say(f"explorer of {run.id}")
            try:
                write_text(path, page.embedded(self.explore(run)))
            except (ValueError, OSError) as error:  # such as a checkpoint that was deleted; the report goes without
                say(f"  left out: {error}")

    def explore(self, run: Run) -> dict[str, Any]:
        """The explorer of a finished run, JSON-able."""
        groups = [group for group in self.groups if run in group.runs]
        groups.append(planning.make_group([run]))  # trained alone, where memory was short
        group = next((g for g in groups if self.checkpoints(g).is_dir()), groups[0])
        dataset = load_dataset(run)
        model = pipeline.create_model(run.config, dataset)
        seeds = [member.seed for member in group.runs]
        trained = planning.structure(group.runs[0], dataset)[0]
        state = runs.restore(trained, self.checkpoints(group).parent, seeds, run.config.training.schedule)
        params = training.member(state.params, group.runs.index(run))
        settings = evaluation.Settings(**run.config.evaluation)
        record = records.read_record(self.workdir, run.id)
        return pipeline.explore(run.config, model, dataset, settings, params, run.seed, int(state.step), record)

    def checkpoints(self, group: Group) -> pathlib.Path:
        return self.workdir / "groups" / group.id / "checkpoints"

    def is_trained(self, group: Group) -> bool:
        return checkpoints.latest_step(self.checkpoints(group)) >= group.runs[0].config.training.steps

    def heading(self, group: Group) -> str:
        labels = "+".join(dict.fromkeys(run.label for run in group.runs))
        return f"{group.runs[0].dataset} {labels} ×{len(group.runs)}"

    def say_end(self, seconds: float) -> None:
        found = {run.id: records.read_record(self.workdir, run.id) for run in self.runs if run.id in self.done}
        failed = {name: record["reason"] for name, record in found.items() if record["status"] == records.FAILED}
        trained = f", {sum(map(self.is_trained, self.groups))} of {len(self.groups)} groups trained"
        say(
            f"{len(found) - len(failed)} runs done, {len(failed)} failed{trained if self.stage != 'all' else ''}, "
            f"in {duration(seconds)}" + ("" if self.shard or self.stage == "train" else "; table: table.csv")
        )
        for name, reason in failed.items():
            say(f"  failed: {name}: {reason}")
        if failed and len(failed) == len(found):
            raise ValueError("every run failed; traceback.txt in each run's folder has the whole error")


# --- parts -----------------------------------------------------------------------------------------------


def mesh_of(group: Group):
    """The mesh that trains a group, None for a single device. ValueError where several hosts cannot share it."""
    batch_size = group.runs[0].config.training.batch_size
    mesh = sharding.make_mesh(len(group.runs), batch_size)
    if jax.process_count() > 1 and (mesh is None or mesh.size != jax.device_count()):
        raise ValueError(
            f"{group.id}: {len(group.runs)} members and batches of {batch_size} cannot be divided over "
            f"{jax.device_count()} devices; choose training.batch_size or the number of hosts to fit."
        )
    return mesh


def free_programs(limit: int | None = None) -> None:
    """Let compiled programs go before they take up half of the memory mappings that a process may hold.

    On a CPU each program takes dozens of them; XLA aborts the whole process when it gets no more. limit: how many
    there may be; None asks Linux, the only system that has such a limit.
    """
    try:
        limit = limit or int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
        with open("/proc/self/maps") as mappings:
            used = sum(1 for _ in mappings)
    except OSError:
        return
    if used > limit / 2:
        jax.clear_caches()


class Pace:
    """Time left of the study: the estimates of what is left, at the pace of what has been done."""

    def __init__(self, groups, estimates, done):
        seconds = {g.id: planning.group_seconds(g, estimates[g.id], done) for g in groups}
        self.left_s = {name: value for name, value in seconds.items() if value}
        self.expected = self.taken = 0.0
        self.began = time.monotonic()

    def note(self, group: Group, seconds: float) -> None:
        self.expected += self.left_s.pop(group.id, 0.0)
        self.taken += seconds
        self.began = time.monotonic()

    def left(self) -> str:
        if not self.left_s:
            return duration(0)
        pace = self.taken / self.expected if self.expected else 1.0
        elapsed = time.monotonic() - self.began
        overdue = elapsed / max(next(iter(self.left_s.values())), 1e-9)  # groups run in this order
        return duration(max(pace, overdue) * sum(self.left_s.values()) - elapsed)


class StudyProgress(Progress):
    """Progress of one group's training, with the study's time left."""

    def __init__(self, heading: str, pace: Pace, total: int, **options: Any):
        super().__init__(total, **options)
        self.heading, self.pace = heading, pace

    def _show(self, line: str) -> None:
        super()._show(f"{self.heading}  {line}  (study: {self.pace.left()} left)")


def load_dataset(run: Run) -> Dataset:
    """The run's data set; the last one stays loaded, others are let go."""
    return _load(json.dumps(dict(run.config.data)))


@functools.lru_cache(maxsize=1)
def _load(options: str) -> Dataset:
    return pipeline.load_dataset(ConfigDict(json.loads(options)))


def settings_of(run: Run) -> dict[str, Any]:
    """What a run's results depend on, JSON-able."""
    config = json.loads(run.config.to_json_best_effort())
    config["data"] = {"name": config["data"]["name"], "source": config["data"]["source"]}
    for name in ("log_every", "checkpoint_every"):
        config["training"].pop(name)
    return finite(config)


def flat(tree: dict[str, Any], prefix: str = ""):
    """('a.b', value) of every leaf of a nested dictionary."""
    for key, value in tree.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def failure(reason: str) -> dict[str, Any]:
    return {"status": records.FAILED, "reason": reason}


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device or the machine had no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def first_not_finite(path: pathlib.Path, members: int) -> list[int | None]:
    """For each member the first logged step whose mean loss is null, or None."""
    lines = read_json_lines(path)
    return [next((line["step"] for line in lines if line["loss"][m] is None), None) for m in range(members)]


def images_of(found: evaluation.Evaluation) -> dict[str, np.ndarray]:
    """What the report shows of a run, as uint8: a few images, their reconstructions, and the traversals of the
    most and the least specific of the active latents (to factors where known, else over outputs)."""
    specificity = np.asarray(found.latents.specificity_to_factors)
    if not np.isfinite(specificity).any():
        specificity = np.asarray(found.latents.specificity_outputs)
    usable = np.flatnonzero(np.asarray(found.latents.active) & np.isfinite(specificity))
    order = usable[np.argsort(-specificity[usable], kind="stable")]
    least = order[::-1][: min(LATENTS_SHOWN, max(0, len(order) - LATENTS_SHOWN))]
    shown = np.concatenate([order[:LATENTS_SHOWN], least]).astype(int)

    def pixels(images):
        return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)

    return {
        "images": pixels(found.images[:IMAGES_SHOWN]),
        "reconstructed": pixels(found.reconstructed[:IMAGES_SHOWN]),
        "latents": shown,
        "specificity": specificity[shown],
        "traversals": pixels(found.traversals[shown]),
    }
