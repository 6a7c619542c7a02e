"""Pages made from other people's records: nothing of them runs, leads anywhere, or is written elsewhere."""

import ast
import html.parser
import pathlib
import re

import numpy as np
import pytest
import study_tables
from markupsafe import Markup

from causalvae import _files
from experiments import markup
from experiments.explorer import page as explorer_page
from experiments.report import page as report
from experiments.report.tables import rows_of
from experiments.study import records

ROOT = pathlib.Path(__file__).resolve().parents[2]
MADE_OF_HTML = ("report/page.py", "report/html_tables.py", "report/drawing.py", "explorer/page.py")
HOSTILE = """x"><img src=y onerror=a()><script>{0}'/../$a_{$"""


class Page(html.parser.HTMLParser):
    """Its elements, as a browser would find them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.texts.append(data)


def check_harmless(text, scripts):
    page = Page(text)
    assert len([tag for tag, _ in page.elements if tag == "script"]) == scripts
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert attributes.get("src", "data:").startswith("data:"), (tag, attributes)
        assert re.fullmatch(r"#[\w.-]+", attributes.get("href", "#x")), (tag, attributes)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {attributes["href"][1:] for tag, attributes in page.elements if tag == "a"}
    assert targets <= ids, "a link leads nowhere"
    return page


def write_one_run(folder, **changes):
    table = study_tables.table(seeds=1)
    table = rows_of(table, (table["dataset"] == "dsprites") & (table["architecture"] == "vae"))
    texts = {name: np.array([text]) for name, text in changes.items()}
    study_tables.write_study(folder, {**table, "steps": np.full(1, 4), **texts})


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # long names leave a small figure no room
def test_hostile_names_are_text_and_one_run_says_what_it_cannot_say(tmp_path):
    folder = tmp_path / "study"
    write_one_run(folder, dataset=HOSTILE, label=HOSTILE, architecture=HOSTILE)
    before = set(tmp_path.rglob("*"))
    path = report.write(folder)
    page = check_harmless(path.read_text(), scripts=2)
    words = " ".join(page.texts)
    assert HOSTILE in words and "nothing tells a difference of two architectures from one of two seeds" in words
    assert "nan" not in words.replace(HOSTILE, "").split()
    made = {p for p in set(tmp_path.rglob("*")) - before if p.is_file()}
    assert {p.parent for p in made} == {folder, folder / "figures"}, made


def test_an_explorer_shows_hostile_names_as_text(tmp_path):
    about = dict.fromkeys(("text", "architecture", "dataset", "source"), HOSTILE) | {"steps": 4, "seed": 0}
    path = explorer_page.write(tmp_path / "explorer.html", {"about": about, "tiles": {}, "latents": [HOSTILE]})
    check_harmless(path.read_text(), scripts=3)
    check_harmless(explorer_page.place({HOSTILE: {"about": about}}), scripts=1)
    script = explorer_page.script()
    assert "innerHTML" not in script and "document.write" not in script
    of_constants = re.findall(r'insertAdjacentHTML\("beforeend", (?:beside \? SEVERAL : ONE|MODEL)\)', script)
    assert len(of_constants) == script.count("insertAdjacentHTML") == 2


def test_a_page_takes_no_text_for_html():
    assert "<b>" not in explorer_page.whole("<b>", "<i>") and "<i>" not in explorer_page.whole("<b>", "<i>")
    assert markup.html("<p>{}{}</p>", "<b>", Markup("<i>")) == "<p>&lt;b&gt;<i></p>"
    assert markup.joined(["<b>", Markup("<i>")]) == "&lt;b&gt;<i>"


@pytest.mark.parametrize("name", MADE_OF_HTML)
def test_no_html_is_made_by_an_f_string(name):
    for node in ast.walk(ast.parse((ROOT / "experiments" / name).read_text())):
        if isinstance(node, ast.JoinedStr):
            constants = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            assert not re.search(r"<[/a-z]|[a-z]+=\"", constants), f"line {node.lineno}: {constants}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("html", "Markup"):
            fixed = isinstance(node.args[0], (ast.Constant, ast.Name, ast.BinOp, ast.Attribute))
            assert fixed or ast.unparse(node).startswith("Markup(json.dumps"), ast.unparse(node)


def test_what_is_gone_or_cut_is_said_with_its_file(tmp_path):
    write_one_run(tmp_path)
    run = tmp_path / "runs" / "vae_dsprites_s0"
    whole = (tmp_path / "table.npz").read_bytes()
    (tmp_path / "table.npz").write_bytes(whole[:-50])
    with pytest.raises(_files.DamagedFile, match="table.npz is not a readable table of a study .*: delete it, and"):
        report.write(tmp_path)
    (tmp_path / "table.npz").unlink()
    made = records.read_table(tmp_path)
    (tmp_path / "table.npz").write_bytes(whole)
    stored = records.read_table(tmp_path)
    assert made.keys() == stored.keys()
    for name, values in made.items():
        np.testing.assert_array_equal(values, stored[name])
    images = (run / "images.npz").read_bytes()
    (run / "images.npz").write_bytes(images[: len(images) // 2])
    with pytest.raises(_files.DamagedFile, match="s0/images.npz is not a readable file of a run's images"):
        report.write(tmp_path)
    (run / "images.npz").unlink()
    with pytest.raises(FileNotFoundError, match="s0/images.npz is missing beside its record; delete that run's folder"):
        report.write(tmp_path)
    (run / "record.json").unlink()
    with pytest.raises(FileNotFoundError, match="s0/record.json is missing, though the table lists that run"):
        report.write(tmp_path)
    (tmp_path / "table.npz").unlink()
    (tmp_path / "groups.json").write_text('{"groups": {}}')
    with pytest.raises(FileNotFoundError, match="no run of the study in .* is finished"):
        report.write(tmp_path)


def test_a_run_outside_of_the_study_is_not_read(tmp_path):
    for name in ("../x", "/etc", ""):
        with pytest.raises(_files.DamagedFile, match="cannot be the name of its folder"):
            records.read_record(tmp_path, name)
