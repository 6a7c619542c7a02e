"""Report and explorer in a real browser, where there is one: nothing foreign runs, everybody can read and use them."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import study_tables
from chromium import LATER, visit

from experiments.explorer import content, packing
from experiments.explorer import page as explorer_page
from experiments.report import page as report
from experiments.report.tables import rows_of

HOSTILE = """x"><img src=y onerror=ran()><script>ran()</script>{0}'/../$a_{$</script><script>ran()//"""
COUNT = "window.count = 0; window.ran = () => { window.count += 1 };"
SEEN = "JSON.stringify([window.count, document.querySelectorAll('img[src=y]').length, document.body.innerText])"

# How wide the page is, its background, and what axe-core finds wrong with it.
OPENED = "document.querySelectorAll('details').forEach(part => { part.open = true; });"
TABS = "document.querySelectorAll('[role=tab]').length"
WIDTH = "document.documentElement.scrollWidth"
PAPER = "getComputedStyle(document.body).backgroundColor"
WRONG = "found.violations.map(rule => [rule.id, rule.nodes.map(node => node.html.slice(0, 200))])"
CHECKED = f"found => {{ window.answer = JSON.stringify([{TABS}, {WIDTH}, {PAPER}, {WRONG}]); }}"
CHECK = f"{OPENED} (globalThis.axe?.run() ?? Promise.resolve({{violations: []}})).then({CHECKED}); '{LATER}'"
PHONE = (320, 900)


def axe():
    """The script of axe-core, from the Python package that brings it; nothing without."""
    package = importlib.util.find_spec("axe_playwright_python")
    if package is None or not package.submodule_search_locations:
        return ""
    return (pathlib.Path(package.submodule_search_locations[0]) / "axe.min.js").read_text()


def explored():
    """An explorer of noise: three latents, of which the second is the strongest, and two factors."""
    rng = np.random.default_rng(0)

    def noise(*shape):
        return rng.uniform(size=(*shape, 8, 8, 3))

    strengths = content.Strengths(*np.array([[2, 5, 1], [0.1] * 3, [0.5] * 3, [4, 6, 0.1], [1.0] * 3]))
    effect = rng.uniform(1, 5, (3, 3, 13))
    response, values = rng.uniform(size=(3, 3, 13, 3)), np.tile(np.linspace(-3, 3, 13), (3, 1))
    factors = np.array([[8, 0], [1, 1], [2, 3]])
    moves = content.Moves(
        factors,
        noise(3),
        noise(3),
        np.array([1, 0, 2]),
        np.full((3, 3), 0.2),
        values,
        noise(3, 3, 13),
        effect,
        response,
    )
    pairs = content.PairsShown((0, 1), False, np.zeros((2, 2, 2), int), noise(2, 2), noise(2, 2), np.full(2, 6.0))
    units = rng.uniform(size=(3, 2)), rng.uniform(-1, 1, (3, 2)), rng.uniform(size=(3, 2, 3))
    site = content.Site("latent/z", (3,), *units, np.array([[0, 1], [1, 2]]), noise(2, 2))
    names = ("floor_hue", "shape"), (10, 4), ("z0", "z1", "z2")
    return content.Explored(*names, False, "latent/z", strengths, moves, pairs, (site,))


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    data = {"name": "noise", "source": "drawn", "classes": (("floor_hue", tuple("abcdefgh") + ("red", "j")),)}
    about = explorer_page.describe({"name": "vae", "network": "small", "latents": 3}, data, 2000, 0)
    about |= {"summary": ["The first sentence.", "The second."]}
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    return explorer_page.write(path, packing.as_json(explored(), about))


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    pytest.importorskip("PySide6", reason="no Chromium here: pip install PySide6")
    folder, table = tmp_path_factory.mktemp("study"), study_tables.table(seeds=1)
    table = rows_of(table, (table["dataset"] == "dsprites") & (table["architecture"] == "vae"))
    names = {name: np.array([HOSTILE]) for name in ("dataset", "label", "architecture")}
    study_tables.write_study(folder, {**table, "steps": np.full(1, 4), **names})
    return report.write(folder)


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_nothing_that_a_record_holds_runs_in_a_report(hostile_report):
    result, console = visit(hostile_report, SEEN, COUNT)
    count, images, text = json.loads(result)
    assert (count, images, console) == (0, 0, []) and HOSTILE in text


def test_nothing_that_a_record_holds_runs_in_an_explorer(tmp_path):
    about = dict.fromkeys(("text", "architecture", "dataset", "source"), HOSTILE) | {"steps": 4, "seed": 0}
    about["summary"] = [HOSTILE]
    path = explorer_page.write(tmp_path / "explorer.html", {"about": about, "tiles": {}, "latents": [HOSTILE]})
    result, _ = visit(path, SEEN, COUNT)
    assert json.loads(result)[:2] == [0, 0]


TOUCHED = """
  const all = selector => [...document.querySelectorAll(selector)];
  const seen = () => ({said: all(".said p").map(line => line.textContent), text: document.body.innerText,
    difference: all(".image canvas")[3].toDataURL(), hash: location.hash, labels: all(".picker canvas").map(
      canvas => canvas.getAttribute("aria-label")), controls: all("[role=tab]").map(
      tab => document.getElementById(tab.getAttribute("aria-controls"))?.getAttribute("role"))});
  const shown = [seen()], slider = all(".row input")[1];
  slider.value = 3;
  slider.dispatchEvent(new Event("input"));
  shown.push(seen());
  all(".controls button")[0].click();
  shown.push(seen());
  location.hash = shown[1].hash;  // a link that somebody shares
  setTimeout(() => { window.answer = JSON.stringify([...shown, seen()]); }, 300);
"""


def test_an_explorer_opens_on_a_moved_latent_and_its_address_leads_back_to_what_is_shown(explorer):
    result, console = visit(explorer, f"{TOUCHED}'{LATER}'")
    first, moved, own, shared = json.loads(result)
    assert console == [] and explorer.stat().st_size < 3e6
    assert first["said"][0].startswith("do(z1 := ") and moved["said"][0].startswith("do(z0 := ")
    assert own["said"][0] == "z0 has its own value, +0.20" and "stop=own" in own["hash"]
    assert len({first["difference"], moved["difference"], own["difference"]}) == 3
    assert shared == moved
    assert "floor hue 9 of 10, red · shape 1 of 4" in first["text"] and "The first sentence." in first["text"]
    assert first["labels"][0] == "floor hue 9 of 10, red · shape 1 of 4" and len(first["labels"]) == 3
    assert first["controls"] == ["tabpanel"] * 3


LINKED = """
  const all = selector => [...document.querySelectorAll(selector)];
  const chooser = () => document.querySelector(".which select");
  const shown = () => [all(".said p")[0].textContent, chooser().selectedIndex, location.hash];
  const links = ["", "#explore-b&model=two&tab=move&latent=0&stop=0", "#explore-a&model=two&tab=move&latent=0&stop=0"];
  const found = [];
  const next = () => {
    if (found.length) location.hash = links[found.length];
    setTimeout(() => {
      found.push(shown());
      if (found.length < links.length) next(); else choose();
    }, 200);
  };
  const choose = () => {
    chooser().selectedIndex = 0;
    chooser().dispatchEvent(new Event("change"));
    setTimeout(() => { window.answer = JSON.stringify([...found, shown()]); }, 200);
  };
  next();
"""


def test_a_link_into_a_report_leads_to_the_model_and_the_move_that_it_names(tmp_path):
    page = packing.as_json(explored(), {"text": "noise"})
    body = report.section("explore-a", "Explore", explorer_page.place({"one": page, "two": page}, "explore-a"))
    (tmp_path / "report.html").write_text(explorer_page.whole("Report", body + explorer_page.code()))
    result, console = visit(tmp_path / "report.html", f"{LINKED}'{LATER}'")
    opened, elsewhere, linked, chosen = json.loads(result)
    assert console == [] and opened[0].startswith("do(z1 := ") and opened[1:] == [0, ""]
    assert elsewhere[:2] == opened[:2], "a link to another section"
    assert linked[0].startswith("do(z0 := −3.00)") and linked[1] == 1
    assert chosen[:2] == opened[:2] and chosen[2].startswith("#explore-a&model=one&tab=move")


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
@pytest.mark.parametrize("page", ["explorer", "hostile_report"])
@pytest.mark.parametrize("dark", [True, False])
def test_pages_have_no_barriers_fit_a_phone_and_are_dark_where_that_is_asked_for(page, dark, request):
    path = request.getfixturevalue(page)
    script = axe()
    result, console = visit(path, CHECK, script, size=PHONE, dark=dark)
    tabs, width, paper, wrong = json.loads(result)
    assert tabs == (3 if page == "explorer" else 0), "what is looked at is there"
    assert console == [] and wrong == [] and width <= PHONE[0]
    assert paper == ("rgb(20, 25, 31)" if dark else "rgb(255, 255, 255)")
    if not script:
        pytest.skip("no axe-core here: pip install --no-deps axe-playwright-python; all else was checked")
