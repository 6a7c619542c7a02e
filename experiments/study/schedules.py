"""Learning-rate schedules compared: training curves of the same models and seeds under different rates.

    run="python -m experiments.main --config=configs/vae_dsprites.py:overnight --stage=train"
    $run --workdir=runs/schedules/trapezoid
    $run --workdir=runs/schedules/constant --config.training.schedule=constant --config.training.warmup=0
    python -m experiments.study.schedules --runs=runs/schedules      # every run below a folder: collect, draw, print
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
        curves = collect(pathlib.Path(flags.FLAGS.runs))
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


def collect(folder: pathlib.Path) -> list[Curve]:
    """The curve of every finished run below `folder`. FileNotFoundError where there is none."""
    curves = [
        curve for path in sorted(folder.rglob("metrics.jsonl")) for curve in _curves(path.parent) if curve is not None
    ]
    if not curves:
        raise FileNotFoundError(f"no trained run below {folder}: `experiments.main --stage=train` makes them")
    return sorted(curves, key=lambda curve: curve[:4])


def _curves(workdir: pathlib.Path) -> list[Curve]:
    """One curve per member of a run that has reached its last step; none of one that has not."""
    config = runs.read_config(workdir)
    lines, training = read_json_lines(workdir / "metrics.jsonl"), config["training"]
    if not lines or lines[-1]["step"] < training["steps"]:
        return []
    lines = [line for line in lines if line["step"] % EVERY == 0]
    recipe = f"{training['schedule']} {training['learning_rate']:g}"
    return [
        Curve(
            config["architecture"]["name"],
            config["data"]["name"],
            recipe,
            config["seed"] + member,
            [line["step"] for line in lines],
            {name: [float(f"{line[name][member]:.5g}") for line in lines] for name in CURVES},
        )
        for member in range(config["seeds"])
    ]


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
    flags.DEFINE_string("runs", None, "A folder with runs below it. Without it, what was collected before is drawn.")
    cli.run(main)
