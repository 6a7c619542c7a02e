"""The report of a synthetic study: self-contained, complete, and true to its table."""

import base64
import csv
import html.parser
import io
import json
import re

import numpy as np
import pytest
import study_tables
from markupsafe import escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from causalvae import figures, plots
from causalvae.metrics.scores import short
from experiments import glossary
from experiments.report import figures as study_figures
from experiments.report import html_tables, in_words, run_figures
from experiments.report import page as report
from experiments.report.drawing import Drawer
from experiments.report.tables import rows_of
from experiments.study import records

FAILED = "betatc_3dshapes_s1"


class Page(html.parser.HTMLParser):
    """What the tests look at: links, images, scripts, headings, and tables as lists of rows of cell texts."""

    def __init__(self, text):
        super().__init__()
        self.resources, self.images, self.ids, self.targets, self.tables = [], [], [], [], {}
        self.heading, self.capture = "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img" and "src" in attributes:
            self.images.append(attributes)
        if tag in ("link", "script", "iframe") or "src" in attributes:
            self.resources.append((tag, attributes.get("src") or attributes.get("href") or ""))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.targets.append(attributes["href"])
        if tag in ("h2", "h3"):
            self.heading, self.capture = "", "heading"
        if tag == "table":
            self.tables[self.heading] = []
        if tag == "tr":
            self.tables[self.heading].append([])
        if tag in ("td", "th"):
            self.tables[self.heading][-1].append("")
            self.capture = "cell"
        if tag == "small" and self.capture == "cell":
            self.tables[self.heading][-1][-1] += " | "

    def handle_endtag(self, tag):
        if tag in ("h2", "h3", "td", "th"):
            self.capture = None

    def handle_data(self, data):
        if self.capture == "heading":
            self.heading += data
        if self.capture == "cell":
            self.tables[self.heading][-1][-1] += data


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three architectures on two procedural sets and one real set with attributes; one run failed."""
    workdir = tmp_path_factory.mktemp("study")
    table = study_tables.table()
    keep = np.isin(table["dataset"], ["dsprites", "3dshapes", "celeba"]) & np.isin(
        table["architecture"], ["vae", "betatc", "vq"]
    )
    study_tables.write_study(workdir, rows_of(table, keep), real=("celeba",), failed=(FAILED,))
    report.write(workdir)
    return workdir


@pytest.fixture(scope="module")
def page(study):
    return Page((study / "report.html").read_text())


def test_the_page_needs_nothing_but_itself(study, page):
    text = (study / "report.html").read_text()
    kept = re.sub(r"data:image/png;base64,[^\"]*", "", text).replace('"http://www.w3.org/2000/svg"', "")  # a mere name
    assert not re.search(r"(?:https?:)?//[a-z]", kept)
    assert all(
        tag == "script" and not source or source.startswith("data:image/png;base64,") for tag, source in page.resources
    )
    assert all(target[1:] in page.ids for target in page.targets), "every link leads to a section"
    assert "{{" not in text


def test_every_figure_is_embedded_and_written_as_png_and_pdf(study, page):
    stems = {path.stem for path in (study / "figures").glob("*.png")}
    assert stems == {path.stem for path in (study / "figures").glob("*.pdf")} and len(stems) == len(page.images)
    for wanted in (
        "scatter_dsprites",
        "traversals_3dshapes",
        "patching_dsprites",
        "mediation_dsprites",
        "correlations",
        "specification_curve",
    ):
        assert f"{wanted}_procedural" in stems
    assert "heat_active_latents_real" in stems and "scatter_celeba_real" not in stems
    for image in page.images:
        pixels = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))
        assert min(pixels.size) > 100 and (int(image["width"]), int(image["height"])) == pixels.size
        assert "(real data)" in image["alt"] or "(procedural data)" in image["alt"]


def test_the_specification_curve_is_the_findings(study, page):
    found = json.loads((study / "findings.json").read_text())
    curve = found["procedural"]["specification"]
    # Sweep and resample, DCI-D and MIG, three ways of correlating; of three architectures none can be left out.
    assert len(curve["specifications"]) == 2 * 2 * 3 and found["real"]["specification"] is None
    rows = page.tables["What each choice does (procedural)"]
    assert [row[1] for row in rows[1:3]] == ["sweep ±3", "resample"] and {row[2] for row in rows[1:3]} == {"6"}
    chances = page.tables["How often each wins, one run of each drawn, mean over data sets"]
    assert [row[0] for row in chances[1:]] == ["VAE", "β-TCVAE", "VQ-VAE"]
    assert sum(float(row[1].rstrip("%")) for row in chances[1:]) == pytest.approx(100, abs=2)


def test_variants_are_hollow_and_other_sizes_are_not_drawn():
    table = study_tables.table()
    varied = table["run"] == "vae_dsprites_s0"
    table |= {"variant": np.where(varied, "x=2", ""), "label": np.where(varied, "vae (x=2)", table["label"])}
    table["latents"][table["run"] == "beta_dsprites_s1"] = 4.0
    figure = study_figures.scatter(table, [], "dsprites", "ces_l2", "dci_disentanglement")
    (axes,) = figure.axes
    points = sum(len(drawn.get_offsets()) for drawn in axes.collections)
    assert points == len(study_tables.ARCHITECTURES) * 3 - 1
    assert [len(drawn.get_facecolor()) for drawn in axes.collections].count(0) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*map(study_figures.display, study_tables.ARCHITECTURES), "other hyper-parameters"]


def test_tables_show_means_deviations_seeds_nulls_and_ceilings(study, page):
    rows = page.tables["Disentanglement: dsprites (procedural)"]
    assert rows[0] == ["architecture", "DCI-D", "MIG"]
    assert [row[0] for row in rows[1:]] == ["VAE", "β-TCVAE", "VQ-VAE", "ceiling"]
    assert rows[-1][1:] == ["1.00", "0.900"]
    with (study / "table.csv").open() as file:
        stored = [r for r in csv.DictReader(file) if (r["dataset"], r["architecture"]) == ("dsprites", "betatc")]
    values = [float(row["mig"]) for row in stored]
    seeds = " ".join(f"{value:.3f}" for value in values)
    expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} | {seeds} | null 0.010"
    assert rows[2][2] == expected
    modularity = page.tables["Circuit modularity: dsprites (procedural)"]
    assert all("untrained 0.600 · permuted 0.800" in row[1] for row in modularity[1:-1])


def test_sources_never_share_a_table(page):
    titles = [
        title for title in page.tables if re.search("Disentanglement|modularity|effects|Model|Winners|CES", title)
    ]
    assert titles and all(("(real)" in title) != ("(procedural)" in title) for title in titles)
    assert not any("celeba (procedural)" in title or "dsprites (real)" in title for title in page.tables)
    assert "Disentanglement: celeba (real)" not in page.tables, "attributes are not generative factors"
    assert "celeba" not in json.dumps(page.tables["CES l2 and DCI-D (procedural)"])


def test_verdicts_are_those_of_the_findings(study):
    text, stored = (study / "report.html").read_text(), json.loads((study / "findings.json").read_text())
    assert list(stored) == ["real", "procedural"]
    shown = re.findall(r'<span class="badge \w+">(\w+)</span>', text)
    assert shown == [v["verdict"] for source in stored.values() for v in source["verdicts"]]
    for verdict in stored["procedural"]["verdicts"]:
        assert escape(verdict["reason"]) in text and escape(verdict["rule"]) in text


def test_failed_runs_are_listed_with_their_reason(page):
    assert page.tables["Failed runs (1)"][1:] == [[FAILED, "the loss was not finite by step 20"]]


def test_numeric_columns_carry_what_sorting_needs(study):
    cell = html_tables.plain_table([{"a": "−0.50"}, {"a": "–"}], {"a": lambda row: row["a"]})
    assert 'data-value="-0.5"' in cell and 'data-value=""' in cell and '<th tabindex="0" class="">' in cell
    words = html_tables.plain_table([{"a": "vae"}], {"a": lambda row: row["a"]})
    assert '<th tabindex="0" class="text">' in words


def test_untrusted_text_is_escaped():
    table = html_tables.plain_table([{"reason": "<b>&"}], {"reason": lambda row: row["reason"]}, prose=("reason",))
    assert "&lt;b&gt;&amp;" in table and "<b>" not in table


@pytest.mark.parametrize(
    "value, text",
    [
        (0.12345, "0.123"),
        (-0.5, "−0.500"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (float("nan"), "–"),
        (1.0, "1.00"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert html_tables.number(value) == text


def test_a_short_or_unfinished_study_says_so(tmp_path):
    table = study_tables.table(seeds=1)
    table = rows_of(table, np.isin(table["dataset"], ["dsprites"]) & (table["architecture"] == "vae"))
    table["steps"] = np.full(1, 4)
    study_tables.write_study(tmp_path, table, failed=("vae_dsprites_s0",))
    text = report.write(tmp_path).read_text()
    assert "0 of 1 runs finished" in text and "No run has finished." in text
    assert "Trained for 4 steps only" in text and "mean nothing" in text


@pytest.mark.long
def test_images_of_ones_own_have_parts_of_their_own(tmp_path):
    table = study_tables.table(seeds=1)
    sources = {"dsprites": "procedural", "mpi3d": "arrays", "celeba": "arrays, observational"}
    table = rows_of(table, np.isin(table["dataset"], list(sources)) & np.isin(table["architecture"], ["vae", "beta"]))
    table["source"] = np.array([sources[name] for name in table["dataset"]])
    study_tables.write_study(tmp_path, table, real=("celeba",))
    page = Page(report.write(tmp_path).read_text())
    assert {"verdicts-procedural", "verdicts-arrays", "arrays-mpi3d", "arrays_observational-celeba"} <= set(page.ids)
    assert all(target[1:] in page.ids for target in page.targets) and len(set(page.ids)) == len(page.ids)
    assert (tmp_path / "figures" / "heat_active_latents_arrays_observational.png").exists()
    assert list(json.loads((tmp_path / "findings.json").read_text())) == list(sources.values())


def test_sources_stand_in_a_known_order_and_have_names_for_sections_and_files(tmp_path):
    listed = ["arrays, observational", "procedural", "arrays", "real"]
    assert report.sources({"source": np.array(listed)}) == ["real", "procedural", "arrays", "arrays, observational"]
    assert report.anchor("across-arrays, observational") == "across-arrays_observational"
    drawn = Drawer(tmp_path, "arrays, observational").one("heat", plots.titled(2.0, 2.0, "Heat", ""))
    assert "Heat (arrays, observational data)" in drawn and (tmp_path / "heat_arrays_observational.png").exists()


def test_a_directory_without_a_study_says_what_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no study in .*no table.npz. `python -m causalvae study` makes one"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_csv_and_the_arrays_hold_the_same(study):
    table = records.read_table(study)
    with (study / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(table["run"]) == 27
    for name, values in table.items():
        for row, value in zip(rows, values, strict=True):
            if name in records.TEXT:
                assert row[name] == value
            else:
                assert (row[name] == "" and np.isnan(value)) or float(row[name]) == value


def test_every_run_is_told_in_sentences_beside_the_other_seeds_of_its_kind(study):
    text, table = (study / "report.html").read_text(), records.read_table(study)
    rows = (table["label"] == "vae") & (table["dataset"] == "dsprites")
    for run in np.flatnonzero(rows):
        values = table["mig"][rows & (np.arange(len(rows)) != run)]
        others = f"other seeds {short(values.mean())} ± {short(values.std(ddof=1))}."
        assert f"<li>MIG is {short(table['mig'][run])} ± 0.01 (null 0.01, 0.9 at best); {others}</li>" in text
        assert f"<h3>VAE, seed {int(table['seed'][run])}</h3>" in text
    assert text.count("What each run found, in sentences") == 3, "data sets"
    assert not in_words.other_seeds(rows_of(table, np.flatnonzero(rows)[:2]), 0), "one other seed has no deviation"


def test_scores_are_explained_where_they_stand_and_at_the_head(page, study):
    text = (study / "report.html").read_text()
    for word, meaning in html_tables.WORDS.items():
        assert f"<dt>{word}</dt><dd>{escape(meaning)}</dd>" in text
    assert f'<abbr title="{escape(glossary.CAUSAL["CES"])}">CES</abbr> l2</th>' in text
    assert glossary.explained("<R²", html_tables.WORDS) == "&lt;R²"


def test_a_sentence_under_every_figure_says_how_to_read_it(page, study):
    text = (study / "report.html").read_text()
    captions = re.findall(r"<figcaption>(.+?)</figcaption>", text)
    assert len(captions) == len(page.images)
    for name in ("patching", "mediation"):
        assert escape(figures.how_to_read(name)) in captions, "the words of a run's figures"


def test_names_of_sites_do_not_overlap_and_what_may_be_chance_has_no_color():
    sites = ["decoder/dense0", "decoder/dense1", "decoder/conv0", "decoder/conv1", "decoder/conv2", "decoder/logits"]
    settings = {"sites": dict.fromkeys([*sites, "latent/quantized"], 0.3), "null_untrained": 0.2}
    about = {"label": "vae", "seed": 0, "data": {"source": "procedural", "factors": {"size": 3, "hue": 5}}}
    record = about | {"scores": [{"name": "circuit_modularity_decoder", "settings": settings}]}
    figure = run_figures.modularity_by_site([record], "made up")
    FigureCanvasAgg(figure).draw()
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["latent/quantized", *sites]
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:]))
    estimate = [[[0.5], [0.1]], [[-0.2], [0.3]]]
    tested = {"effects": ["indirect"], "estimate": estimate, "carries": [[True, False], [True, True]]}
    earlier = {"effects": ["indirect"], "estimate": estimate, "low": [[[0.4], [0.05]], [[-0.3], [-0.1]]]}
    for mediation, colored in ((tested, [[1, 0], [0, 1]]), (earlier, [[1, 0], [1, 0]])):
        figure = run_figures.mediation([about | {"mediation": mediation}], "made up")
        shown = figure.axes[0].images[0].get_array()
        assert (~np.ma.getmaskarray(shown)).astype(int).tolist() == colored, "latents in rows"
