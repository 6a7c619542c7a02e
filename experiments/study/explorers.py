"""The explorers of a study: of the best run of each data set, from its group's checkpoint."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from causalvae import evaluation
from causalvae.progress import write_text
from experiments import pipeline
from experiments.explorer import page
from experiments.study import records, trained
from experiments.study.planning import Group, Run


def write(workdir: pathlib.Path, groups: Sequence[Group]) -> None:
    """Writes explorer.json into the folder of the best run of each data set, where it is not there yet."""
    best = page.best_runs(records.read_table(workdir))
    for group in groups:
        for run in (run for run in group.runs if run.id in best):
            path = records.run_folder(workdir, run.id) / page.STORED
            if path.exists():
                continue
            pipeline.say(f"explorer of {run.id}")
            try:
                write_text(path, page.embedded(explore(workdir, group, run)))
            except (ValueError, OSError) as error:  # such as a checkpoint that was deleted; the report goes without
                pipeline.say(f"  left out: {error}")


def explore(workdir: pathlib.Path, group: Group, run: Run) -> dict[str, Any]:
    """Returns the explorer of a finished run of the group, JSON-able.

    Raises:
        FileNotFoundError: where the group has no checkpoint.
    """
    model, dataset, params, step = trained.restore(workdir, group, run)
    settings = evaluation.Settings(**run.config.evaluation)
    record = records.read_record(workdir, run.id)
    return pipeline.explore(run.config, model, dataset, settings, params, run.seed, step, record)
