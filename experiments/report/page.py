"""The report of a study: one self-contained HTML file, and its figures as PNG and PDF."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causalvae.progress import write_json, write_text
from experiments.explorer import page as explorer_page
from experiments.explorer.page import MEANINGLESS
from experiments.report import figures, findings, run_figures, specification
from experiments.report.drawing import Drawer
from experiments.report.figures import display
from experiments.report.html_tables import CHOICES, escape, number, plain_table, score_table, title_of
from experiments.report.tables import DISENTANGLEMENT, EFFECT, Table, of_usual_size, rows_of, score_names
from experiments.study import records

TEMPLATE = pathlib.Path(__file__).parents[1] / "page_template.html"

# Which table a score belongs to, by how its name begins; what begins otherwise is a disentanglement metric.
TABLES = {
    "Disentanglement": (),
    "Circuit modularity": ("circuit_",),
    "Causal effects": ("ces_", "specificity_"),
    "Model": ("reconstruction", "mean_squared", "kl", "active_latents", "total_correlation", "code"),
}
HEAT_MAPS = {
    "dci_disentanglement": "DCI disentanglement",
    "mig": "MIG",
    "ces_rms": "CES per pixel value (rms)",
    "specificity_outputs": "Specificity over outputs",
    "circuit_modularity_decoder": "Circuit modularity (decoder)",
    "active_latents": "Active latents",
}


def write(workdir: pathlib.Path) -> pathlib.Path:
    """Write report.html, findings.json and figures/ into a study's directory; returns the report's path.

    FileNotFoundError where there is no study.
    """
    table = records.read_table(workdir)
    parts = [part(workdir, source, of_source(table, source)) for source in sources(table)]
    write_json(workdir / "findings.json", {found["source"]: found for _, found in parts if found})
    body = head(table) + navigation(workdir, table) + "".join(text for text, _ in parts) + ending(workdir, table)
    body += explorer_page.code()
    page = TEMPLATE.read_text().replace("{{title}}", "Study of causal effects in VAEs").replace("{{body}}", body)
    path = workdir / "report.html"
    write_text(path, page)
    print(f"report: {path} ({path.stat().st_size / 2**20:.1f} MB)", flush=True)
    return path


def sources(table: Table) -> list[str]:
    return sorted(set(table["source"].tolist()), key=["real", "procedural"].index)


def of_source(table: Table, source: str) -> Table:
    return rows_of(table, table["source"] == source)


def finished(table: Table) -> Table:
    return rows_of(table, table["status"] == records.DONE)


# --- the page --------------------------------------------------------------------------------------------


def head(table: Table) -> str:
    """Title, what was run on what, and a warning where the numbers mean nothing."""
    done, steps = int(np.sum(table["status"] == records.DONE)), _range(table["steps"])
    labels, datasets = (len(set(table[name].tolist())) for name in ("label", "dataset"))
    text = (
        f"{done} of {len(table['run'])} runs finished: {labels} architectures × "
        f"{datasets} data sets, seeds {_range(table['seed'])}, {steps} training steps, on "
        f"{' and '.join(sorted(set(table['device'].tolist())))}. Data: {' and '.join(sources(table))}."
    )
    warning = ""
    if table["steps"].min() < MEANINGLESS:
        warning = explorer_page.WARNING.format(steps, "The numbers and verdicts below")
    return f'<h1>Study of causal effects in variational autoencoders</h1><p class="lead">{escape(text)}</p>{warning}'


def _range(values: np.ndarray) -> str:
    low, high = int(np.min(values)), int(np.max(values))
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def navigation(workdir: pathlib.Path, table: Table) -> str:
    links = []
    for source in sources(table):
        several = f" ({source})" if len(sources(table)) > 1 else ""
        links.append((f"verdicts-{source}", f"Verdicts{several}"))
        links += [
            (f"{source}-{dataset}", f"{dataset}{several}")
            for dataset in dict.fromkeys(of_source(table, source)["dataset"].tolist())
        ]
        links += [(f"across-{source}", f"Across data sets{several}"), (f"statistics-{source}", f"Statistics{several}")]
        if explore(workdir, source, of_source(table, source)):
            links.append((f"explore-{source}", f"Explore{several}"))
    links.append(("provenance", "Provenance"))
    return "<nav>" + " ".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in links) + "</nav>"


def part(workdir: pathlib.Path, source: str, table: Table) -> tuple[str, dict[str, Any] | None]:
    """Everything of one data source: verdicts, data sets, across them, statistics."""
    done = finished(table)
    if not len(done["run"]):
        return section(f"verdicts-{source}", f"Verdicts ({source} data)", "<p>No run has finished.</p>"), None
    found: dict[str, Any] = findings.study(done) | {"specification": specification.curve(of_usual_size(done))}
    draw = Drawer(workdir / "figures", source)
    text = section(f"verdicts-{source}", f"Verdicts ({source} data)", verdicts(found["verdicts"]) + legend_of_cells())
    for dataset in dict.fromkeys(done["dataset"].tolist()):
        here = rows_of(done, done["dataset"] == dataset)
        text += section(f"{source}-{dataset}", f"{dataset} ({source})", dataset_part(workdir, here, found, draw))
    text += section(f"across-{source}", f"Across data sets ({source})", across(done, found, draw))
    text += section(f"statistics-{source}", f"Statistics ({source})", statistics_part(found), opened=False)
    return text + explore(workdir, source, done), found


def explore(workdir: pathlib.Path, source: str, table: Table) -> str:
    """The explorers of the best run of each data set; nothing where none is stored."""
    runs = explorer_page.best_runs(table)
    pages = explorer_page.stored_pages([records.run_folder(workdir, run) for run in runs])
    if not pages:
        return ""
    note = (
        '<p class="note">Intervene on one trained model of each data set: the run with the highest DCI disentanglement '
        "(where factors are not known, the lowest squared error).</p>"
    )
    return section(f"explore-{source}", f"Explore ({source})", note + explorer_page.place(pages))


def section(name: str, title: str, content: str, opened: bool = True) -> str:
    state = " open" if opened else ""
    return (
        f'<details class="section" id="{escape(name)}"{state}><summary><h2>{escape(title)}</h2></summary>'
        f"<div>{content}</div></details>"
    )


def verdicts(found: Sequence[Mapping[str, str]]) -> str:
    cards = [
        f'<div class="verdict"><span class="number">({v["finding"]})</span>'
        f'<span class="badge {v["verdict"]}">{v["verdict"]}</span><p><b>{escape(v["claim"])}</b></p>'
        f"<p>{escape(v['reason'])}</p>"
        f'<details class="more"><summary>rule</summary><p class="rule">{escape(v["rule"])}</p></details></div>'
        for v in found
    ]
    return f'<div class="verdicts">{"".join(cards)}</div>'


def legend_of_cells() -> str:
    return (
        '<p class="note">In the tables: mean ± standard deviation over seeds, below it every seed, then the null: the '
        "same score when factors are permuted (for circuit modularity, units permuted and the network untrained; for "
        "the squared error, the mean image). Last row: the ceiling that a perfect code reaches on the data set.</p>"
    )


def dataset_part(workdir: pathlib.Path, table: Table, found: Mapping[str, Any], draw: Drawer) -> str:
    """Tables and figures of one data set."""
    dataset, source = table["dataset"][0], table["source"][0]
    names = score_names(table)
    elsewhere = tuple(start for starts in TABLES.values() for start in starts)
    text = ""
    for title, starts in TABLES.items():
        chosen = [n for n in names if (n.startswith(starts) if starts else not n.startswith(elsewhere))]
        chosen = [n for n in chosen if np.isfinite(table[n]).any()]
        if chosen:
            text += f"<div><h3>{title}: {escape(dataset)} ({source})</h3>{score_table(table, chosen)}</div>"
        elif title == "Disentanglement":
            note = f"Undefined: {escape(dataset)} ({source}) has no known factors."
            text += f'<div><h3>{title}</h3><p class="note">{note}</p></div>'
    shown = table["run"][table["seed"] == np.min(table["seed"])].tolist()
    stored: list[Any] = [records.read_record(workdir, run) for run in shown]
    images = [records.read_images(workdir, run) for run in shown]
    rows = found["correlations"]
    scatter = figures.scatter(table, rows, dataset, EFFECT, DISENTANGLEMENT)
    drawn = [
        (f"scatter_{dataset}", scatter),
        (f"modularity_{dataset}", run_figures.modularity_by_site(stored, dataset)),
    ]
    broad = [
        (f"traversals_{dataset}", run_figures.traversals(stored, images, dataset)),
        (f"patching_{dataset}", run_figures.patching(stored, dataset)),
        (f"mediation_{dataset}", run_figures.mediation(stored, dataset)),
    ]
    return f'<div class="tables">{text}</div>' + draw.all(drawn) + draw.all(broad, "broad")


def across(table: Table, found: Mapping[str, Any], draw: Drawer) -> str:
    """Heat maps architecture × data set, correlations, capacity, VQ-VAE and winners."""
    source = table["source"][0]
    drawn = [
        ("correlations", figures.forest(found["correlations"], source)),
        ("capacity", figures.capacity(found["capacity"], source)),
        ("vq_strength", figures.vq_strength(found["near_zero"], source)),
        *((f"heat_{name}", figures.heat_map(table, name, title)) for name, title in HEAT_MAPS.items()),
    ]
    columns = {
        "score": lambda r: title_of(r["score"]),
        "data set": lambda r: r["dataset"],
        "winner": lambda r: display(r["winner"]),
        "mean": lambda r: number(r["mean"]),
        "second": lambda r: display(r["second"] or ""),
        "lead": lambda r: number(r["lead"]),
        "winner of each seed": lambda r: ", ".join(display(name) for name in r["by_seed"].values()),
        "chance with one seed": lambda r: f"{r['single_run_chance']:.0%}",
    }
    winners = plain_table(found["winners"], columns) + chances_table(found["winners"]) if found["winners"] else ""
    curve = found["specification"]
    broad = draw.all([("specification_curve", figures.specification_curve(curve, source))], "broad")
    if broad:
        broad = f'<p class="note">{escape(specification.sentence(curve))}</p>' + broad + choices_table(curve, source)
    heading = f"<h3>Winners and their stability over seeds ({source})</h3>"
    return draw.all(drawn) + broad + (heading + winners if winners else "")


def chances_table(winners: Sequence[Mapping[str, Any]]) -> str:
    """How often each architecture wins by each score, if one run of each is drawn, over the data sets."""
    scores = list(dict.fromkeys(row["score"] for row in winners))
    labels = list(dict.fromkeys(label for row in winners for label in row["chances"]))

    def chance(label: str, score: str) -> float:
        return float(np.mean([row["chances"].get(label, 0.0) for row in winners if row["score"] == score]))

    columns = {"architecture": lambda label: display(label)}
    for score in scores:
        columns[f"wins by {title_of(score)}"] = lambda label, score=score: f"{chance(label, score):.0%}"
    return "<h3>How often each wins, one run of each drawn, mean over data sets</h3>" + plain_table(labels, columns)


def choices_table(curve: Mapping[str, Any], source: str) -> str:
    """What each choice does to the correlation of strength and disentanglement."""
    return f"<h3>What each choice does ({source})</h3>" + plain_table(specification.shares(curve), CHOICES)


def statistics_part(found: Mapping[str, Any]) -> str:
    """Power, and every correlation."""
    design, source = found["design"], found["source"]
    differences = f"{design['detectable_difference']:.1f} standard deviations over seeds"
    if math.isfinite(design["detectable_difference_adjusted"]):
        differences += f" ({design['detectable_difference_adjusted']:.1f} after correction over data sets and rivals)"
    power = (
        f"<p>{design['runs']} runs, {design['seeds']} seeds in the smallest cell. At level {design['alpha']} and power "
        f"{design['power']} this design would have found a difference of two architectures on one data set of "
        f"{differences}, and the correlations in the column “detectable”. Runs of one architecture resemble each "
        "other; “worth” says how many independent runs they are worth. p-values exchange whole architectures, "
        f"intervals leave each out; adjusted: Holm–Šidák over {design['family']} tests.</p>"
    )
    columns = {
        "data set": lambda r: r["stratum"],
        "method": lambda r: r["method"],
        "runs counted": lambda r: r["subset"],
        "given": lambda r: ", ".join(title_of(name) for name in r["given"]) or "–",
        "correlation": lambda r: number(r["value"]),
        "95 % interval": lambda r: f"{number(r['low'])} to {number(r['high'])}",
        "p": lambda r: number(r["p_value"], 4),
        "adjusted p": lambda r: number(r.get("p_adjusted", math.nan), 4),
        "runs": lambda r: str(r["runs"]),
        "worth": lambda r: number(r["effective_runs"], 1),
        "detectable": lambda r: number(r.get("detectable", math.nan)),
    }
    main_pair = f"<h3>CES l2 and DCI-D ({source})</h3>" + plain_table(found["correlations"], columns)
    columns = {"scores": lambda r: f"{title_of(r['x'])}, {title_of(r['y'])}", **columns}
    for name in ("runs counted", "given", "adjusted p", "detectable"):
        columns.pop(name)
    heading = f"<h3>Other pairs of scores, for comparison ({source})</h3>"
    return power + main_pair + (heading + plain_table(found["sensitivity"], columns) if found["sensitivity"] else "")


def ending(workdir: pathlib.Path, table: Table) -> str:
    """Failed runs, and where everything comes from."""
    failed = rows_of(table, table["status"] != records.DONE)
    text = ""
    if len(failed["run"]):
        rows = [{"run": run, "reason": reason} for run, reason in zip(failed["run"], failed["reason"])]
        content = plain_table(rows, {"run": lambda r: r["run"], "reason": lambda r: r["reason"]}, prose=("reason",))
        text += section("failed", f"Failed runs ({len(rows)})", content)
    example = json.loads(table["config"][0])
    first_runs = dict(zip(reversed(table["dataset"].tolist()), reversed(table["run"].tolist())))
    firsts = [records.read_record(workdir, run) for run in reversed(first_runs.values())]
    facts = {
        "Versions": {k: v for text_ in sorted(set(table["versions"].tolist())) for k, v in json.loads(text_).items()},
        "Devices": sorted(set(table["device"].tolist())),
        "Data": [record["data"] for record in firsts if record],
        "Settings of training": example["training"],
        "Settings of evaluation": example["evaluation"],
    }
    blocks = [f"<h3>{title}</h3><pre>{escape(json.dumps(fact, indent=1))}</pre>" for title, fact in facts.items()]
    note = (
        '<p class="note">Every run: table.csv and runs/&lt;run&gt;/record.json beside this file. '
        "The analyses above as data: findings.json.</p>"
    )
    return text + section("provenance", "Provenance", note + "".join(blocks), opened=False)
