"""What differs between two evaluated runs: every score with its error, as a table and as a figure.

    python -m experiments.compare runs/vae runs/betatc
    python -m experiments.compare runs/vae runs/betatc --csv=differences.csv --figure=differences.png

Of several seeds a score is their mean, and its error that of the mean, from the deviation between seeds. Of one seed
the error is the evaluation's own (more images would shrink it), and says nothing of what another seed would give: a
difference of two seeds is not one of two methods.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from causalvae import frames, plots, runs
from causalvae.metrics.scores import short
from experiments import cli, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("architecture", "data", "training", "evaluation", "versions", "device")  # what is compared beside scores
ACROSS = 5  # panels in a row of the figure
BOUND = 1.96  # standard errors of a 95 % interval


class Difference(NamedTuple):
    """A score of two runs. Errors are standard errors; NaN where there is none, or no value."""

    name: str
    first: float
    first_error: float
    second: float
    second_error: float
    difference: float  # second - first
    error: float
    errors_of: str  # "seeds", "evaluation", or of each run, "seeds, evaluation"


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Returns the differences of all scores that either run has.

    Args:
      first: what results.json of a run holds.
      second: likewise; differences are second - first.
    """
    names = dict.fromkeys(score["name"] for run in (first, second) for score in run["members"][0]["scores"])
    found = []
    for name in names:
        (a, error_a, of_a), (b, error_b, of_b) = _estimate(first, name), _estimate(second, name)
        kinds = of_a if of_a == of_b else f"{of_a}, {of_b}"
        found.append(Difference(name, a, error_a, b, error_b, b - a, math.hypot(error_a, error_b), kinds))
    return found


def _estimate(results: Mapping[str, Any], name: str) -> tuple[float, float, str]:
    """A score's mean over members, its standard error, and what the error is of."""
    scores = [score for member in results["members"] for score in member["scores"] if score["name"] == name]
    scores = [score for score in scores if score["value"] is not None]
    values = np.array([score["value"] for score in scores], float)
    if len(values) > 1:
        return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), "seeds"
    if not len(values):
        return math.nan, math.nan, "evaluation"
    error = scores[0]["standard_error"]
    return float(values[0]), math.nan if error is None else float(error), "evaluation"


def settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Returns 'training.steps: 4 | 8' for everything in which the runs differ beside their scores."""
    flat = [runs.flatten({name: run[name] for name in SHOWN if name in run}) for run in (first, second)]
    names = dict.fromkeys(key for run in flat for key in run)
    return [
        f"{key}: {_said(flat[0], key)} | {_said(flat[1], key)}" for key in names if flat[0].get(key) != flat[1].get(key)
    ]


def _said(flat: Mapping[str, Any], key: str) -> str:
    return str(flat.get(key, "–"))


def table(found: Sequence[Difference], names: tuple[str, str]) -> str:
    """Returns the differences as a Markdown table; a star marks those of more than 1.96 errors."""
    lines = [f"| score | {names[0]} | {names[1]} | difference | errors of |", "| --- | ---: | ---: | ---: | --- |"]
    for row in found:
        star = " *" if abs(row.difference) > BOUND * row.error else ""
        cells = (
            _cell(row.first, row.first_error),
            _cell(row.second, row.second_error),
            _cell(row.difference, row.error),
        )
        lines.append(f"| {row.name} | {' | '.join(cells)}{star} | {row.errors_of} |")
    return "\n".join(lines)


def _cell(value: float, error: float) -> str:
    if not math.isfinite(value):
        return "–"
    return short(value) if not math.isfinite(error) else f"{short(value)} ± {short(error)}"


def figure(found: Sequence[Difference], names: tuple[str, str]) -> Figure:
    """Returns a panel for each score, on a scale of its own, with the two runs and their 95 % intervals."""
    shown = [row for row in found if math.isfinite(row.first) and math.isfinite(row.second)]
    if not shown:
        raise ValueError("the two runs have no score in common that is defined")
    down = -(-len(shown) // ACROSS)
    subtitle = f"left {names[0]}, right {names[1]}; bars: 95 % intervals, where errors are known; scales differ"
    drawn = plots.titled(2.3 * ACROSS, 0.9 + 1.7 * down, "Two runs compared", subtitle)
    grid = drawn.subplots(down, ACROSS, squeeze=False)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    for axes, row in zip(grid.flat, shown, strict=False):
        plots.style(axes)
        axes.set_title(row.name, fontsize=7.5, loc="left", color=plots.INK)
        for place, value, error in ((0, row.first, row.first_error), (1, row.second, row.second_error)):
            bar = BOUND * error if math.isfinite(error) else 0.0
            axes.errorbar([place], [value], yerr=[bar], fmt="o", color=plots.ACCENTS[place], markersize=5, capsize=3)
        axes.set_xlim(-0.6, 1.6)
        axes.set_xticks([])
        axes.margins(y=0.25)
        axes.tick_params(labelsize=6.5)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=pathlib.Path, metavar="RUN", help="folders of evaluated runs")
    parser.add_argument("--csv", type=pathlib.Path, help="write the differences there, too")
    parser.add_argument("--figure", type=pathlib.Path, help="where the figure goes; default: the second run's figures/")
    options = parser.parse_args(arguments)
    first, second = options.runs
    try:
        results = spread.read_results(first), spread.read_results(second)
        found, names = compare(*results), _names(first, second)
        path = options.figure or second / "figures" / f"compared_with_{first.resolve().name}.png"
        plots.save(figure(found, names), path)
        if options.csv:
            frames.frame(found).to_csv(options.csv, index=False)
    except cli.USER_ERRORS as error:
        cli.fail(str(error))
    print("\n".join([*settings(*results), "", table(found, names), "", f"figure: {path}"]))


def _names(first: pathlib.Path, second: pathlib.Path) -> tuple[str, str]:
    """What the runs are called: their folders' names, or, where they share one, their paths."""
    one, other = first.resolve(), second.resolve()
    return (str(first), str(second)) if one.name == other.name else (one.name, other.name)


if __name__ == "__main__":
    main(sys.argv[1:])
