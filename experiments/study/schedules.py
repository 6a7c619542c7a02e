"""Learning-rate schedules compared: training curves of the same models and seeds under different rates.

    run="python -m experiments.main --config=configs/vae_dsprites.py:overnight --stage=train"
    $run --workdir=runs/schedules/trapezoid
    $run --workdir=runs/schedules/constant --config.training.schedule=constant --config.training.warmup=0
    python -m experiments.study.schedules --runs=runs/schedules,runs/study   # all runs and studies below: collect, draw
    python -m experiments.study.schedules                            # draw again what was collected

The curves are training's own: means over the steps since the last point, images drawn anew, z sampled.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from causalvae import _files, plots, runs
from causalvae.progress import read_json_lines, write_text
from experiments import cli
from experiments.study import planning, records

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
STORED, FIGURE = DOCS / "records" / "schedules.json", DOCS / "figures" / "schedules.png"
CURVES = ("loss", "reconstruction", "kl", "active_latents")
EVERY = 100  # steps between the points that are kept


class Curve(NamedTuple):
    """One training run: where each of CURVES was after each of `steps`."""

    architecture: str
    dataset: str
    recipe: str
    seed: int
    steps: list[int]
    values: dict[str, list[float]]


def main(argv: list[str]) -> None:
    if flags.FLAGS.runs:
        curves = compared(collect([pathlib.Path(folder) for folder in flags.FLAGS.runs]))
        rows = [json.dumps(curve._asdict(), separators=(",", ":")) for curve in curves]
        STORED.parent.mkdir(parents=True, exist_ok=True)
        write_text(STORED, "[\n" + ",\n".join(rows) + "\n]\n")
    curves = read()
    print(table(curves))
    print(f"figure: {plots.save(draw(curves), FIGURE)}")


def read() -> list[Curve]:
    """The curves that were collected."""
    shape = {name: object for name in Curve._fields}
    return [Curve(*map(row.get, Curve._fields)) for row in _files.read_json(STORED, "list of curves", [shape])]


def collect(folders: Sequence[pathlib.Path]) -> list[Curve]:
    """The curve of every finished run, and of every evaluated run of a study, below `folders`.

    Raises:
        FileNotFoundError: where there is none.
    """
    paths = [path for folder in folders for path in sorted(folder.rglob("metrics.jsonl"))]
    curves = [curve for path in paths for curve in _curves(path)]
    if not curves:
        listed = ", ".join(map(str, folders))
        raise FileNotFoundError(f"no trained run below {listed}: `experiments.main --stage=train` makes them")
    return sorted(curves, key=lambda curve: curve[:4])


def compared(curves: Sequence[Curve]) -> list[Curve]:
    """Those of a model, data set and seed that were trained by two recipes at least."""
    recipes: dict[tuple, set[str]] = {}
    for curve in curves:
        recipes.setdefault((curve.architecture, curve.dataset, curve.seed), set()).add(curve.recipe)
    return [c for c in curves if len(recipes[c.architecture, c.dataset, c.seed]) > 1]


def _curves(path: pathlib.Path) -> list[Curve]:
    """One curve per member of a run that has reached its last step; none of one that has not."""
    lines, members = read_json_lines(path), _members(path.parent)
    if not lines or not members or lines[-1]["step"] < members[0]["training"]["steps"]:
        return []
    lines = [line for line in lines if line["step"] % EVERY == 0]
    return [
        Curve(
            config["architecture"]["name"],
            config["data"]["name"],
            f"{config['training']['schedule']} {config['training']['learning_rate']:g}",
            config["seed"],
            [line["step"] for line in lines],
            {name: [float(f"{line[name][number]:.5g}") for line in lines] for name in CURVES},
        )
        for number, config in enumerate(members)
    ]


def _members(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The configuration of every member that was trained in a folder, of a run or of a study's group; of a group with
    variants, or with runs that are not evaluated, none."""
    if folder.parent.name != "groups":
        config = runs.read_config(folder)
        return [{**config, "seed": config["seed"] + member} for member in range(config["seeds"])]
    workdir = folder.parents[1]
    names = planning.known_groups(workdir / "groups.json").get(folder.name, [])
    stored = [records.read_record(workdir, name) for name in names]
    found = [record for record in stored if record is not None and not record["variant"]]
    if len(found) < len(stored):
        return []
    return [runs.complete(record["config"]) | {"seed": record["seed"]} for record in found]


def cells(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """Every (architecture, data set) that at least two recipes were tried on."""
    found: dict[tuple[str, str], set[str]] = {}
    for curve in curves:
        found.setdefault((curve.architecture, curve.dataset), set()).add(curve.recipe)
    return [cell for cell, recipes in found.items() if len(recipes) > 1]


def table(curves: Sequence[Curve]) -> str:
    """The last point of every run of a cell, as markdown."""
    lines = ["| model, data | recipe | seed | steps | loss (nats) | reconstruction | KL | active latents |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for curve in (c for c in curves if (c.architecture, c.dataset) in cells(curves)):
        last = [f"{curve.values[name][-1]:.4g}" for name in CURVES]
        head = [f"{curve.architecture}, {curve.dataset}", curve.recipe, str(curve.seed), f"{curve.steps[-1]:,}"]
        lines.append("| " + " | ".join(head + last) + " |")
    return "\n".join(lines)


def draw(curves: Sequence[Curve]) -> Any:
    """A panel per cell: the loss against steps, a line per recipe; from the best final one to half as much again."""
    shown = cells(curves)
    recipes = sorted({curve.recipe for curve in curves})
    height = 2.9 * len(shown) + 0.6
    figure = plots.titled(7.5, height, "Learning-rate schedules", "training loss, nats per image")
    for axes, cell in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown):
        own = [curve for curve in curves if (curve.architecture, curve.dataset) == cell]
        best = min(curve.values["loss"][-1] for curve in own)
        for curve in own:
            color = plots.ACCENTS[recipes.index(curve.recipe) % len(plots.ACCENTS)]
            label = f"{curve.recipe} (seed {curve.seed})"
            axes.plot(curve.steps, curve.values["loss"], color=color, linewidth=1.4, label=label)
        axes.set_ylim(0.98 * best, 1.5 * best)
        axes.set_title(f"{cell[0]}, {cell[1]}: lowest {best:,.1f} nats", fontsize=9, loc="left", color=plots.INK)
        axes.set_xlabel("steps", fontsize=8, color=plots.MUTED)
        axes.set_ylabel("loss", fontsize=8, color=plots.MUTED)
        axes.legend(fontsize=7, frameon=False)
        plots.style(axes)
    return figure


if __name__ == "__main__":
    flags.DEFINE_list("runs", None, "Folders with runs and studies below. Without them, what was collected is drawn.")
    cli.run(main)
