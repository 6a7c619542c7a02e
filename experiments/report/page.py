"""The report of a study: one self-contained HTML file, and its figures as PNG and PDF."""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from causalvae.progress import write_json, write_text
from experiments import glossary
from experiments.explorer import page as explorer_page
from experiments.explorer.page import MEANINGLESS
from experiments.markup import html, joined
from experiments.report import figures, findings, in_words, interaction, run_figures, specification
from experiments.report.drawing import Drawer
from experiments.report.figures import display
from experiments.report.html_tables import CHOICES, number, plain_table, score_table, title_of
from experiments.report.tables import DISENTANGLEMENT, EFFECT, Table, of_usual_size, rows_of, score_names
from experiments.study import records

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
    body = head(table) + navigation(workdir, table) + joined(text for text, _ in parts) + ending(workdir, table)
    path = workdir / "report.html"
    write_text(path, explorer_page.whole("Study of causal effects in VAEs", body + explorer_page.code()))
    print(f"report: {path} ({path.stat().st_size / 2**20:.1f} MB)", flush=True)
    return path


def sources(table: Table) -> list[str]:
    """The sources of the data, real ones first, then what is drawn, then images of one's own."""
    return sorted(
        set(table["source"].tolist()),
        key=lambda source: (source not in ("real", "procedural"), source != "real", source),
    )


def of_source(table: Table, source: str) -> Table:
    return rows_of(table, table["source"] == source)


def finished(table: Table) -> Table:
    return rows_of(table, table["status"] == records.DONE)


# --- the page --------------------------------------------------------------------------------------------


def head(table: Table) -> Markup:
    """Title, what was run on what, and a warning where the numbers mean nothing."""
    done, steps = int(np.sum(table["status"] == records.DONE)), _range(table["steps"])
    labels, datasets = (len(set(table[name].tolist())) for name in ("label", "dataset"))
    text = (
        f"{done} of {len(table['run'])} runs finished: {labels} architectures × "
        f"{datasets} data sets, seeds {_range(table['seed'])}, {steps} training steps, on "
        f"{' and '.join(sorted(set(table['device'].tolist())))}. Data: {' and '.join(sources(table))}."
    )
    warning = Markup("")
    if table["steps"].min() < MEANINGLESS:
        warning = html(explorer_page.WARNING, steps, "The numbers and verdicts below")
    title = "<h1>Study of causal effects in variational autoencoders</h1>"
    words = glossary.details(glossary.CAUSAL | glossary.SCORES)
    return html(title + '<p class="lead">{}</p>{}{}', text, warning, words)


def _range(values: np.ndarray) -> str:
    low, high = int(np.min(values)), int(np.max(values))
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def navigation(workdir: pathlib.Path, table: Table) -> Markup:
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
    return html("<nav>{}</nav>", Markup(" ").join(html('<a href="#{}">{}</a>', anchor(n), text) for n, text in links))


def anchor(name: str) -> str:
    """The id of a section, which is also where its link points: the name without what an address gives a meaning."""
    return re.sub(r"[^\w.-]+", "_", name)


def part(workdir: pathlib.Path, source: str, table: Table) -> tuple[Markup, dict[str, Any] | None]:
    """Everything of one data source: verdicts, data sets, across them, statistics."""
    done = finished(table)
    if not len(done["run"]):
        return section(f"verdicts-{source}", f"Verdicts ({source} data)", Markup("<p>No run has finished.</p>")), None
    found: dict[str, Any] = findings.study(done) | {"specification": specification.curve(of_usual_size(done))}
    draw = Drawer(workdir / "figures", source)
    text = section(f"verdicts-{source}", f"Verdicts ({source} data)", verdicts(found["verdicts"]) + legend_of_cells())
    for dataset in dict.fromkeys(done["dataset"].tolist()):
        here = rows_of(done, done["dataset"] == dataset)
        text += section(f"{source}-{dataset}", f"{dataset} ({source})", dataset_part(workdir, here, found, draw))
    text += section(f"across-{source}", f"Across data sets ({source})", across(done, found, draw))
    text += section(f"statistics-{source}", f"Statistics ({source})", statistics_part(found), opened=False)
    return text + explore(workdir, source, done), found


def explore(workdir: pathlib.Path, source: str, table: Table) -> Markup:
    """The explorers of the best run of each data set; nothing where none is stored."""
    runs = explorer_page.best_runs(table)
    pages = explorer_page.stored_pages([records.run_folder(workdir, run) for run in runs])
    if not pages:
        return Markup("")
    note = html(
        '<p class="note">Intervene on one trained model of each data set: the run with the highest DCI disentanglement '
        "(where factors are not known, the lowest squared error).</p>"
    )
    name = f"explore-{source}"
    return section(name, f"Explore ({source})", note + explorer_page.place(pages, anchor(name)))


SECTION = """<details class="section" id="{}"{}><summary><h2>{}</h2></summary><div>{}</div></details>"""
VERDICT = (
    '<div class="verdict"><span class="number">({finding})</span>'
    '<span class="badge {verdict}">{verdict}</span><p><b>{claim}</b></p><p>{reason}</p>'
    '<details class="more"><summary>rule</summary><p class="rule">{rule}</p></details></div>'
)


def section(name: str, title: str, content: Markup, opened: bool = True) -> Markup:
    return html(SECTION, anchor(name), " open" if opened else "", title, content)


def verdicts(found: Sequence[Mapping[str, str]]) -> Markup:
    return html('<div class="verdicts">{}</div>', joined(html(VERDICT, **verdict) for verdict in found))


def legend_of_cells() -> Markup:
    return html(
        '<p class="note">In the tables: mean ± standard deviation over seeds, below it every seed, then the null: the '
        "same score when factors are permuted (for circuit modularity, units permuted and the network untrained; for "
        "the squared error, the mean image). Last row: the ceiling that a perfect code reaches on the data set.</p>"
    )


def dataset_part(workdir: pathlib.Path, table: Table, found: Mapping[str, Any], draw: Drawer) -> Markup:
    """Tables and figures of one data set."""
    dataset, source = table["dataset"][0], table["source"][0]
    names = score_names(table)
    elsewhere = tuple(start for starts in TABLES.values() for start in starts)
    text = Markup("")
    for title, starts in TABLES.items():
        chosen = [n for n in names if (n.startswith(starts) if starts else not n.startswith(elsewhere))]
        chosen = [n for n in chosen if np.isfinite(table[n]).any()]
        if chosen:
            heading = f"{title}: {dataset} ({source})"
            text += html("<div><h3>{}</h3>{}</div>", heading, score_table(table, chosen))
        elif title == "Disentanglement":
            note = f"Undefined: {dataset} ({source}) has no known factors."
            text += html('<div><h3>{}</h3><p class="note">{}</p></div>', title, note)
    shown = table["run"][table["seed"] == np.min(table["seed"])].tolist()
    stored: list[Any] = [records.stored_record(workdir, run) for run in shown]
    images = [records.read_images(workdir, run) for run in shown]
    rows = found["correlations"]
    scatter = figures.scatter(table, rows, dataset, EFFECT, DISENTANGLEMENT)
    drawn = [
        (f"scatter_{dataset}", scatter),
        (f"modularity_{dataset}", run_figures.modularity_by_site(stored, dataset)),
        (f"traversals_{dataset}", run_figures.traversals(stored, images, dataset)),
        (f"patching_{dataset}", run_figures.patching(stored, dataset)),
        (f"mediation_{dataset}", run_figures.mediation(stored, dataset)),
    ]
    words = joined(html('<p class="note">{}</p>', line) for line in interaction.lines(stored))
    whole = in_words.runs_in_words(workdir, table) + html('<div class="tables">{}</div>', text)
    return whole + draw.all(drawn) + words


def across(table: Table, found: Mapping[str, Any], draw: Drawer) -> Markup:
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
    winners = Markup("")
    if found["winners"]:
        heading = html("<h3>Winners and their stability over seeds ({})</h3>", source)
        winners = heading + plain_table(found["winners"], columns) + chances_table(found["winners"])
    curve = found["specification"]
    broad = draw.all([("specification_curve", figures.specification_curve(curve, source))], "broad")
    if broad:
        note = html('<p class="note">{}</p>', specification.sentence(curve))
        broad = note + broad + choices_table(curve, source)
    return draw.all(drawn) + broad + winners


def chances_table(winners: Sequence[Mapping[str, Any]]) -> Markup:
    """How often each architecture wins by each score, if one run of each is drawn, over the data sets."""
    scores = list(dict.fromkeys(row["score"] for row in winners))
    labels = list(dict.fromkeys(label for row in winners for label in row["chances"]))

    def chance(label: str, score: str) -> float:
        return float(np.mean([row["chances"].get(label, 0.0) for row in winners if row["score"] == score]))

    columns = {"architecture": lambda label: display(label)}
    for score in scores:
        columns[f"wins by {title_of(score)}"] = lambda label, score=score: f"{chance(label, score):.0%}"
    heading = html("<h3>How often each wins, one run of each drawn, mean over data sets</h3>")
    return heading + plain_table(labels, columns)


def choices_table(curve: Mapping[str, Any], source: str) -> Markup:
    """What each choice does to the correlation of strength and disentanglement."""
    return html("<h3>What each choice does ({})</h3>", source) + plain_table(specification.shares(curve), CHOICES)


def power_of(design: Mapping[str, Any]) -> str:
    """What a study of this size could have found, in sentences."""
    text = f"{design['runs']} runs, {design['seeds']} seeds in the smallest cell."
    if not math.isfinite(design["detectable_difference"]):
        return text + (
            " With a single seed nothing tells a difference of two architectures from one of two seeds: no difference "
            "could have been found. "
        )
    differences = f"{design['detectable_difference']:.1f} standard deviations over seeds"
    if math.isfinite(design["detectable_difference_adjusted"]):
        differences += f" ({design['detectable_difference_adjusted']:.1f} after correction over data sets and rivals)"
    return text + (
        f" At level {design['alpha']} and power {design['power']} this design would have found a difference of two "
        f"architectures on one data set of {differences}, and the correlations in the column “detectable”. "
    )


def statistics_part(found: Mapping[str, Any]) -> Markup:
    """Power, and every correlation."""
    design, source = found["design"], found["source"]
    text = (
        f"{power_of(design)}Runs of one architecture resemble each other; “worth” says how many independent runs they "
        "are worth. p-values exchange whole architectures, intervals leave each out; adjusted: Holm–Šidák over "
        f"{design['family']} tests."
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
    power = html("<p>{}</p><h3>CES l2 and DCI-D ({})</h3>", text, source)
    main_pair = power + plain_table(found["correlations"], columns)
    columns = {"scores": lambda r: f"{title_of(r['x'])}, {title_of(r['y'])}", **columns}
    for name in ("runs counted", "given", "adjusted p", "detectable"):
        columns.pop(name)
    if not found["sensitivity"]:
        return main_pair
    heading = html("<h3>Other pairs of scores, for comparison ({})</h3>", source)
    return main_pair + heading + plain_table(found["sensitivity"], columns)


def ending(workdir: pathlib.Path, table: Table) -> Markup:
    """Failed runs, and where everything comes from."""
    failed = rows_of(table, table["status"] != records.DONE)
    text = Markup("")
    if len(failed["run"]):
        rows = [{"run": run, "reason": reason} for run, reason in zip(failed["run"], failed["reason"])]
        content = plain_table(rows, {"run": lambda r: r["run"], "reason": lambda r: r["reason"]}, prose=("reason",))
        text += section("failed", f"Failed runs ({len(rows)})", content)
    example = json.loads(table["config"][0])
    first_runs = dict(zip(reversed(table["dataset"].tolist()), reversed(table["run"].tolist())))
    firsts = [records.stored_record(workdir, run) for run in reversed(first_runs.values())]
    facts = {
        "Versions": {k: v for text_ in sorted(set(table["versions"].tolist())) for k, v in json.loads(text_).items()},
        "Devices": sorted(set(table["device"].tolist())),
        "Data": [record["data"] for record in firsts],
        "Settings of training": example.get("training"),
        "Settings of evaluation": example.get("evaluation"),
    }
    blocks = [html("<h3>{}</h3><pre>{}</pre>", title, json.dumps(fact, indent=1)) for title, fact in facts.items()]
    note = html(
        '<p class="note">Every run: table.csv and runs/&lt;run&gt;/record.json beside this file. '
        "The analyses above as data: findings.json.</p>"
    )
    return text + section("provenance", "Provenance", note + joined(blocks), opened=False)
