"""The explorer as HTML: one self-contained page of a run, or parts of the study's report."""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from causalvae import _files, evaluation
from causalvae.progress import write_text
from experiments import glossary
from experiments.markup import html, joined

FOLDER = pathlib.Path(__file__).parent
PAGE = pathlib.Path(__file__).parents[1] / "page_template.html"
MEANINGLESS = 1000  # training steps below which a page says that its numbers mean nothing
SCRIPTS = ("parts", "view", "moves", "patches", "circuit", "explorer")  # one module, in this order
STORED = "explorer.json"  # in the folder of a study's run
BEST_BY = ("dci_disentanglement", "mean_squared_error")
PAGE_SHAPE = {"about": {"dataset": str, "architecture": str, "seed": int}, "tiles": dict}
WARNING = '<p class="warning">Trained for {} steps only: a test of the machinery. {} mean nothing.</p>'


def describe(architecture: Mapping[str, Any], data: Mapping[str, Any], steps: int, seed: int) -> dict[str, Any]:
    """What a page says of the model that it shows."""
    name, latents = architecture["name"], architecture["latents"]
    text = (
        f"{name} on {data['name']} ({data['source']} data), {architecture['network']} network, {latents} latents, "
        f"{steps:,} training steps, seed {seed}"
    )
    return {
        "text": text,
        "architecture": name,
        "dataset": data["name"],
        "source": data["source"],
        "steps": steps,
        "seed": seed,
        "classes": dict(data.get("classes", ())),
    }


def in_words(data: Mapping[str, Any], member: Mapping[str, Any] | None) -> list[str]:
    """The sentences of `evaluation.summarize` on one member, or on a study's run; none where it was not evaluated."""
    if not member or "scores" not in member:
        return []
    return evaluation.summarize({"data": data, "members": [member]})


def listed(sentences: Sequence[str]) -> Markup:
    """Sentences as a list; nothing of none."""
    return html("<ul>{}</ul>", joined(html("<li>{}</li>", line) for line in sentences)) if sentences else Markup("")


def write(path: pathlib.Path, page: Mapping[str, Any]) -> pathlib.Path:
    """Write a page of its own; page: what `packing.as_json` gave, with `describe` as what it is about."""
    about = page["about"]
    title = f"{about['architecture']} on {about['dataset']} ({about['source']}), seed {about['seed']}"
    warning = html(WARNING, about["steps"], "The numbers below") if about["steps"] < MEANINGLESS else ""
    lead = html(
        '<p class="lead">Intervene on one trained model: set a latent, take one from another image, patch a channel '
        "from another run or a single edge between two units, and see what changes. Everything was computed when this "
        "page was written.</p>"
    )
    found = about.get("summary")
    summary = html('<section class="summary"><h2>In words</h2>{}</section>', listed(found)) if found else ""
    body = html("<h1>{}</h1>", title) + lead + warning + summary + place({"": page}, "") + code()
    write_text(path, whole(f"Explorer: {title}", body))
    return path


def write_beside(path: pathlib.Path, pages: Mapping[str, Mapping[str, Any]]) -> pathlib.Path:
    """Write a page of several models side by side, title -> page as in `write`, of one data set."""
    about = [page["about"] for page in pages.values()]
    title = f"{' beside '.join(pages)}: {about[0]['dataset']} ({about[0]['source']})"
    short = {name: page["about"]["steps"] for name, page in pages.items() if page["about"]["steps"] < MEANINGLESS}
    warning = html(WARNING, min(short.values()), f"The numbers of {', '.join(short)}") if short else ""
    lead = html(
        '<p class="lead">Intervene on several trained models side by side: the same image, the same factor, and what '
        "each of them makes of it. Everything was computed when this page was written.</p>"
    )
    found = [(name, a.get("summary")) for name, a in zip(pages, about)]
    summary = joined(
        html('<section class="summary"><h2>In words: {}</h2>{}</section>', name, listed(lines))
        for name, lines in found
        if lines
    )
    body = html("<h1>{}</h1>", title) + lead + warning + place(pages, "", beside=True) + summary + code()
    write_text(path, whole(f"Explorer: {title}", body))
    return path


def whole(title: str, body: Markup) -> Markup:
    """A page of this title and body, which is HTML already: a text would be escaped."""
    before, between, after = re.split(r"{{title}}|{{body}}", PAGE.read_text())
    return Markup(before) + title + Markup(between) + body + Markup(after)


def place(pages: Mapping[str, Mapping[str, Any]], section: str | None = None, beside: bool = False) -> Markup:
    """An explorer of several models, title -> page: one at a time, or `beside` each other. What is shown goes into
    the page's address, behind the id of the `section` that the explorer stands in ("": it has the page to itself);
    None leaves the address alone."""
    scripts = [
        html('<script type="application/json" data-title="{}">{}</script>', title, embedded(page))
        for title, page in pages.items()
    ]
    kept = "" if section is None else html(' data-address="{}"', section)
    several = Markup(" data-beside") if beside else ""
    return html('<div class="explorer"{}{}>{}</div>', kept, several, joined(scripts))


def code() -> Markup:
    """Styles and script, once in a page, behind every `place`."""
    whole = '<style>\n{}</style>\n<script type="module">\n{}\nwatch();\n</script>'
    styles, scripts = style(), script()  # files of ours
    return html(whole, Markup(styles), Markup(scripts))


def style() -> str:
    """The style sheet of an explorer."""
    return (FOLDER / "script" / "explorer.css").read_text()


def script() -> str:
    """The script of an explorer: an ES module, which a page and a notebook carry as text."""
    return "\n".join((FOLDER / "script" / f"{name}.js").read_text() for name in SCRIPTS)


def embedded(page: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script that it stands in; safe nowhere else."""
    return Markup(json.dumps(page, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


# --- of a study ------------------------------------------------------------------------------------------


def best_runs(table: Mapping[str, np.ndarray]) -> list[str]:
    """One finished run of each data set and source: the one with the highest DCI disentanglement, or, where factors
    are not known, the lowest squared error."""
    best = {}
    for i in np.flatnonzero(table["status"] == "done"):
        place = table["source"][i], table["dataset"][i]
        disentangled, error = (float(table[name][i]) if name in table else math.nan for name in BEST_BY)
        merit = (math.isfinite(disentangled), disentangled if math.isfinite(disentangled) else -error)
        if place not in best or merit > best[place][0]:
            best[place] = merit, str(table["run"][i])
    return [run for _, run in best.values()]


def stored_pages(folders: Sequence[pathlib.Path]) -> dict[str, dict[str, Any]]:
    """'3dshapes: betatc, seed 0' -> page, of the runs' folders that hold one."""
    paths = [folder / STORED for folder in folders if (folder / STORED).exists()]
    pages = [_files.read_json(path, "explorer of a run", PAGE_SHAPE, "delete it") for path in paths]
    pages = [{"words": glossary.CAUSAL} | page for page in pages]  # older ones have none
    return {f"{p['about']['dataset']}: {p['about']['architecture']}, seed {p['about']['seed']}": p for p in pages}
