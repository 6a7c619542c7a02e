"""The study's page, docs/study.md: from a study to what is committed of it, and from that to the page.

    python -m experiments.report.publish --workdir=runs/study_overnight    # collect, then draw
    python -m experiments.report.publish                                   # draw again what was collected

A directory may hold the work of several calls: seeds, data sets, grids. All of its runs are taken.

What is committed is small: the table of the runs (docs/records/study/table.csv, numbers in full precision) and how each
training ended (training.json). Everything on the page is computed from these two.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from causalvae import _files, plots
from causalvae.progress import read_json_lines, write_json, write_text
from experiments import cli, published
from experiments.report import figures, findings, specification
from experiments.report.drawing import how_to_read
from experiments.report.figures import display
from experiments.report.html_tables import CHOICES, number, title_of
from experiments.report.tables import (
    DISENTANGLEMENT,
    EFFECT,
    Table,
    column,
    mean_of_defined,
    of_usual_size,
    rows_of,
    score_cells,
)
from experiments.report.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED
from experiments.study import planning, records, schedules

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
SCORES = {
    "Disentanglement": (
        "mig",
        "dci_disentanglement",
        "dci_completeness",
        "sap_continuous",
        "factorvae",
        "irs",
        "infom",
    ),
    "Causal effects": (
        "ces_l2",
        "ces_resample_l2",
        "ces_code_swap_l2",
        "specificity_to_factors",
        "specificity_outputs",
    ),
    "Circuits": (
        "circuit_modularity_decoder",
        "circuit_modularity_encoder",
        "circuit_size",
        "circuit_faithfulness",
    ),
}
TEXT = """# The study

What happens inside variational autoencoders when one intervenes on them? The paper (arXiv:2505.03530) trains six
architectures on five data sets and reports four findings. This page says what the same design says here, on
procedural data, at a budget of {steps} steps. It grows as runs are done; what is missing is said run by run.

**Read this first.** Data are procedural: drawn in JAX, known factor by factor, in the likeness of the published
sets but not the sets themselves (dSprites and 3DShapes agree with them nearly pixel for pixel; the others do not).
The budget is {steps} steps where the paper's field trains for 300,000: the last column of the next table says how
far from convergence a run was. So a number here is a number of a young model on drawn data, comparable to its
neighbors on this page and to nothing else. Verdicts follow rules that were written, and simulated, before any
result ([how often they are right](power.md)).

## Runs

{runs_done} of {planned} runs of the design (six architectures, five data sets, three seeds){others}. {spent}
Loss slope: nats per 1,000 steps over the last fifth of training, in which the learning rate falls to zero.

{runs}

The recipe, that of the presets `:gpu` and `:overnight`, warms up to a rate of 1e-3, stays there, and falls to zero over
the last fifth ("trapezoid"). It was chosen at 4,500 steps, against a constant rate and a cosine, each seed under both
(`python -m experiments.study.schedules`):

{recipes}

![Training loss under each schedule](figures/schedules.png)

{sets}{variants}## The four findings

{verdicts}

{curve}
## What this says of the paper

{agreement}

What cannot be said here at all: anything about photographs (CelebA's faces are drawn), about training to convergence,
and about networks of other sizes.

## Other people's models

Five VAEs that Dubois et al. trained on the real dSprites to their full budget are measured in the same way: more of
them, and how well they agree with their training logs, is on [their page](published_models.md). Over those five,
causal effect strength and DCI disentanglement correlate positively over active latents and negatively over all
latents.

{published}
## Redraw

`python -m experiments.report.publish` writes this page and its figures from [the table](records/study/table.csv)
and [how training ended](records/study/training.json), in seconds.
"""
PLANNED = 90
AGREES = {SUPPORTED: "agrees", CONTRADICTED: "does not agree", UNDECIDED: "does not decide"}
# Why this study and the paper's may say different things, apart from data and budget.
MAY_DIFFER = {
    "i": "The paper does not say over which latents, with which distance and in which range strength is taken. The "
    "curve above takes every choice, and says which of them turn the sign.",
    "ii": "The paper compares data sets, which differ in much beside their number of factors. Here the number of "
    "latents is changed on one data set.",
    "iii": "A few seeds tell large differences only; with one each, different winners are what chance gives.",
    "iv": "A sweep of ±3 standard deviations around a code changes little, for the codebook maps it back: strength by "
    "code swaps, which stay in the codebook, is the other half of the answer.",
}
BESIDE = ("reconstruction", "kl", "active_latents", "mig", "dci_disentanglement", "ces_l2", "specificity_to_factors")
VARIANTS = """## Other hyper-parameters and numbers of latents

Runs beside the design, which findings (i) and (ii) need: within the published sweeps, and with 4 to 16 latents. What is
not named is as above.

"""


def main(argv: list[str]) -> None:
    if flags.FLAGS.workdir:
        collect(pathlib.Path(flags.FLAGS.workdir))
    publish()


# --- what is committed -----------------------------------------------------------------------------------


def collect(workdir: pathlib.Path, docs: pathlib.Path = DOCS) -> None:
    """Copies what the page needs of a study into docs/records/study.

    Raises:
        ValueError: where no page can be made of the study; what was collected before stays.
    """
    found = list(records.read_records(workdir))
    sources = sorted({record["data"]["source"] for record in found if record["status"] == records.DONE})
    if len(sources) != 1:
        raise ValueError(
            f"no page can be made of {workdir}: its runs that are done have images of several sources, "
            f"{' and '.join(sources)}, and the page is of one"
            if sources
            else f"no page can be made of {workdir}: none of its {len(found)} runs is done, all failed"
        )
    table = records.tabulate(found)
    groups = planning.known_groups(workdir / "groups.json")
    ends = {}
    for group, runs in groups.items():
        path = workdir / "groups" / group / "metrics.jsonl"
        if path.exists():
            ends = endings(read_json_lines(path), runs) | ends  # a run is that of the group that had it first
    spent = {record["run"]: spent_on(record) | records.read_seconds(workdir, record["run"]) for record in found}
    done = {run: ends[run] | spent[run] for run in table["run"].tolist() if run in ends}
    folder = docs / "records" / "study"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.csv", records.to_csv(table))
    write_json(folder / "training.json", done)
    print(f"collected {len(done)} runs of {workdir} into {folder}", flush=True)


def spent_on(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns on which devices a run was trained and evaluated."""
    return {"trained_on": record["training"].get("device", record["device"]), "evaluated_on": record["device"]}


def in_words(ends: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a sentence on what the runs took, where it is known."""
    parts = []
    for what, device, name in (
        ("Trained", "trained_on", "training_s"),
        ("evaluated", "evaluated_on", "evaluation_s"),
    ):
        known = [end for end in ends.values() if name in end]
        devices = " and ".join(dict.fromkeys(end[device] for end in known))
        hours = sum(end[name] for end in known) / 3600
        parts += [f"{what} on {devices} in {hours:.1f} hours"] * bool(known)
    return f"{', '.join(parts)} (each run's share of its group's, added up)." if parts else ""


def endings(lines: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns run -> the last values of its training curves, and the slope of its loss over the last fifth."""
    if not lines:
        return {}
    last = [line for line in lines if line["step"] > 0.8 * lines[-1]["step"]]
    steps = np.array([line["step"] for line in last], float)
    found = {}
    for member, run in enumerate(runs):
        loss = np.array([_of_member(line, "loss", member) for line in last])
        known = np.isfinite(loss).all() and len(set(steps)) > 1
        slope = np.polyfit(steps / 1000, loss, 1)[0] if known else math.nan
        names = ("loss", "reconstruction", "kl", "active_latents")
        values = {name: _of_member(lines[-1], name, member) for name in names if name in lines[-1]}
        found[run] = {"steps": lines[-1]["step"], "slope": float(slope), **values}
    return found


def _of_member(line: Mapping[str, Any], name: str, member: int) -> float:
    """A member's value in a line of training curves; NaN where it was not finite, or is not there."""
    values = line.get(name, ())
    return math.nan if member >= len(values) or values[member] is None else float(values[member])


# --- the page --------------------------------------------------------------------------------------------


def publish(docs: pathlib.Path = DOCS) -> pathlib.Path:
    """Writes study.md and its figures from what was collected; returns the page's path.

    Raises:
        FileNotFoundError: nothing was collected.
    """
    folder = docs / "records" / "study"
    if not (folder / "table.csv").exists():
        raise FileNotFoundError(f"nothing was collected in {folder}: give --workdir=, a study's directory")
    with _files.reading(folder / "table.csv", "table of a study", "give --workdir=, a study's directory"):
        table = records.from_csv((folder / "table.csv").read_text())
    ends = _files.read_json(folder / "training.json", "file of endings", {...: dict})
    done = rows_of(table, table["status"] == records.DONE)
    found = findings.study(done)
    curve = specification.curve(of_usual_size(done))
    pictures = draw(done, found, curve, docs / "figures")
    steps = sorted({f"{int(value):,}" for value in done["steps"]})
    usual, others = rows_of(done, done["variant"] == ""), rows_of(done, done["variant"] != "")
    page = TEXT.format(
        steps=" to ".join(steps),
        runs_done=len(usual["run"]),
        others=f", and {len(others['run'])} with other hyper-parameters or numbers of latents"
        * bool(len(others["run"])),
        planned=PLANNED,
        spent=in_words(ends),
        recipes=schedules.table(schedules.read()),
        runs=runs_table(usual, ends),
        sets="".join(set_part(usual, name, pictures) for name in dict.fromkeys(usual["dataset"].tolist())),
        variants=VARIANTS + runs_table(others, ends, BESIDE) + "\n\n" if len(others["run"]) else "",
        verdicts=verdicts(found["verdicts"]),
        curve=curve_part(curve, pictures),
        agreement=agreement(found["verdicts"]),
        published=published_part(docs / "records" / "published"),
    )
    path = docs / "study.md"
    write_text(path, page)
    print(f"wrote {path} of {len(done['run'])} runs", flush=True)
    return path


def draw(table: Table, found: Mapping[str, Any], curve: Any, folder: pathlib.Path) -> dict[str, str]:
    """Writes the page's figures; returns name -> its path from the page. What cannot be drawn yet is left out."""
    source = str(table["source"][0])
    drawn = {"curve": figures.specification_curve(curve, source)}
    for dataset in dict.fromkeys(table["dataset"].tolist()):
        drawn[dataset] = figures.scatter(table, found["correlations"], dataset, EFFECT, DISENTANGLEMENT)
    return {
        name: f"figures/{plots.save(figure, folder / f'study_{name}.png').name}"
        for name, figure in drawn.items()
        if figure is not None
    }


def runs_table(
    table: Table,
    ends: Mapping[str, Mapping[str, float]],
    scores: Sequence[str] = ("reconstruction", "kl", "active_latents"),
) -> str:
    """Returns what was trained, cell by cell: means over the seeds that are done, and how training ended."""
    rows = []
    for dataset, label in dict.fromkeys(zip(table["dataset"].tolist(), table["label"].tolist())):
        here = rows_of(table, (table["dataset"] == dataset) & (table["label"] == label))
        trained = [ends[run] for run in here["run"].tolist() if run in ends]
        means = [number(mean_of_defined(column(here, name))) for name in scores]
        for name in ("loss", "slope"):
            means.append(number(mean_of_defined(np.array([e[name] for e in trained if e.get(name) is not None]))))
        rows.append([dataset, display(label), " ".join(str(int(seed)) for seed in here["seed"]), *means])
    units = {"reconstruction": ", nats", "kl": ", nats"}
    heads = (title_of(name) + units.get(name, "") for name in scores)
    return markdown(["data", "architecture", "seeds", *heads, "loss", "slope"], rows)


def set_part(table: Table, dataset: str, pictures: Mapping[str, str]) -> str:
    """Returns the tables of one data set, and its picture."""
    here = rows_of(table, table["dataset"] == dataset)
    text = f"## {dataset}\n\n"
    for title, names in SCORES.items():
        shown = [name for name in names if np.isfinite(column(here, name)).any()]
        if shown:
            text += f"### {title}: {dataset}\n\n{score_table(here, shown)}\n\n"
    if dataset in pictures:
        text += f"![Strength and disentanglement of the runs on {dataset}]({pictures[dataset]})\n\n"
        text += f"{how_to_read('scatter')}\n\n"
    return text


def score_table(table: Table, names: Sequence[str]) -> str:
    """Returns architectures × scores: mean ± deviation over seeds, and below it the null; ceilings in the last row."""
    cells = {name: {cell.cluster: cell for cell in score_cells(table, name)} for name in names}
    rows = []
    for label in dict.fromkeys(table["label"].tolist()):
        here = rows_of(table, table["label"] == label)
        row = [display(label)]
        for name in names:
            cell = cells[name][label]
            deviation = f" ± {number(cell.deviation)}" if math.isfinite(cell.deviation) else ""
            null = mean_of_defined(column(here, f"{name}.null"))
            row.append(number(cell.mean) + deviation + (f" (null {number(null)})" if math.isfinite(null) else ""))
        rows.append(row)
    ceilings = [mean_of_defined(column(table, f"{name}.ceiling")) for name in names]
    if any(map(math.isfinite, ceilings)):
        rows.append(["ceiling", *map(number, ceilings)])
    return markdown(["", *map(title_of, names)], rows)


def published_part(folder: pathlib.Path) -> str:
    """Returns the table of other people's models, a row each; nothing where no record is there."""
    found = [record for record in published.read(folder) if "scores" in record]
    if not found:
        return ""
    rows = [
        [record["model"].partition("_dsprites")[0] + record["model"].partition("_dsprites")[2]]
        + [number(published.value(record, name)) for name in BESIDE]
        for record in found
    ]
    return markdown(["", *map(title_of, BESIDE)], rows) + "\n\n"


def verdicts(found: Sequence[Mapping[str, str]]) -> str:
    """Returns each finding with its verdict, the reason and the rule."""
    return "\n".join(
        f"**({v['finding']}) {v['claim']}** *{v['verdict']}*. {v['reason']} Rule: {v['rule']}\n" for v in found
    )


def agreement(found: Sequence[Mapping[str, str]]) -> str:
    """Returns how each verdict stands to the paper's finding, and why the two may differ."""
    rows = [[f"({v['finding']})", AGREES[v["verdict"]], MAY_DIFFER[v["finding"]]] for v in found]
    return markdown(["finding", "this study", "why it may differ"], rows)


def curve_part(curve: Mapping[str, Any] | None, pictures: Mapping[str, str]) -> str:
    """Returns finding (i) under every defensible choice, where there are runs enough for it."""
    if curve is None:
        return ""
    rows = [[function(row) for function in CHOICES.values()] for row in specification.shares(curve)]
    picture = f"![The specification curve]({pictures['curve']})\n\n" if "curve" in pictures else ""
    picture += f"{how_to_read('specification_curve')}\n\n" if picture else ""
    return (
        "## Finding (i) under every defensible choice\n\n"
        f"{specification.sentence(curve)}{_masks(curve)}\n\n{picture}{markdown(list(CHOICES), rows)}\n\n"
    )


def _masks(curve: Mapping[str, Any]) -> str:
    """The first question: whether it matters over which latents strength is taken, as on other people's models."""
    medians = {row["is"]: row["median"] for row in specification.shares(curve) if row["choice of"] == "mean over"}
    if len(medians) < 2:
        return ""
    each = " and ".join(f"{median:+.2f} over {latents}" for latents, median in medians.items())
    return f" With strength over one set of latents or the other the medians are {each}.".replace("-", "−")


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "A study's directory, whose small records are collected first.")
    cli.run(main)
