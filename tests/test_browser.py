"""Report and explorer in a real browser, where there is one: nothing foreign runs, everybody can read and use them."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import study_tables
import toy_circuits
from chromium import LATER, visit

from experiments import markup
from experiments.explorer import content, packing
from experiments.explorer import page as explorer_page
from experiments.report import page as report
from experiments.report.tables import rows_of

HOSTILE = """x"><img src=y onerror=ran()><script>ran()</script>{0}'/../$a_{$</script><script>ran()//"""
COUNT = "window.count = 0; window.ran = () => { window.count += 1 };"
SEEN = "JSON.stringify([window.count, document.querySelectorAll('img[src=y]').length, document.body.innerText])"

# How wide the page is, its background, and what axe-core finds wrong with it.
OPENED = "document.querySelectorAll('details').forEach(part => { part.open = true; });"
TABS = "document.querySelectorAll('[role=tab]')"
WIDTH = "document.documentElement.scrollWidth"
PAPER = "getComputedStyle(document.body).backgroundColor"
WRONG = "found.violations.map(rule => [rule.id, rule.nodes.map(node => node.html.slice(0, 200))])"
CHECK = f"""(async () => {{
  const wrong = [], widths = [];
  for (const name of [null, "circuit"]) {{
    document.querySelectorAll(`[data-tab=${{name}}]`).forEach(tab => tab.click());
    {OPENED}
    const found = await (globalThis.axe?.run() ?? {{violations: []}});
    wrong.push(...{WRONG});
    widths.push({WIDTH});
  }}
  window.answer = JSON.stringify([{TABS}.length, Math.max(...widths), {PAPER}, wrong]);
}})(); '{LATER}'"""
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
    return content.Explored(
        *names, False, "latent/z", strengths, moves, pairs, (site,), toy_circuits.circuits((8, 8, 3))
    )


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    data = {"name": "noise", "source": "drawn", "classes": (("floor_hue", tuple("abcdefgh") + ("red", "j")),)}
    about = explorer_page.describe({"name": "vae", "network": "small", "latents": 3}, data, 2000, 0)
    about |= {"summary": ["The first sentence.", "The second."]}
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    return explorer_page.write(path, packing.as_json(explored(), about))


@pytest.fixture(scope="module")
def explorers(tmp_path_factory):
    """One explorer of one model, and one of two models side by side, whose address is kept."""
    page, path = packing.as_json(explored(), {"text": "noise"}), tmp_path_factory.mktemp("explorers") / "explorers.html"
    beside = explorer_page.place({"one": page, "two": page}, "", beside=True)
    body = markup.joined([markup.html("<h1>Two</h1>"), explorer_page.place({"": page}), beside, explorer_page.code()])
    path.write_text(explorer_page.whole("Two", body))
    return path


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
    assert first["controls"] == ["tabpanel"] * 4


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


FOLLOWED = """
  const [alone, beside] = document.querySelectorAll(".explorer");
  const models = [...beside.querySelectorAll(".model")];
  const said = root => [...root.querySelectorAll(".said")].map(said => said.innerText.split("\\n")[0]);
  const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const step = () => [document.activeElement.getAttribute("aria-label"), said(alone)[0],
    alone.querySelectorAll(".image canvas")[3].toDataURL().length];
  alone.querySelector("[data-tab=circuit]").click();
  alone.querySelector(".circuit [tabindex='0']").focus();
  const walked = [step()];
  for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft"]) { press(key); walked.push(step()); }
  alone.querySelectorAll(".picker button")[1].click();
  const none = alone.querySelector(".body").innerText;
  const slider = models[1].querySelectorAll(".row input")[1];
  slider.value = 3;
  slider.dispatchEvent(new Event("input"));
  beside.querySelectorAll(".picker button")[2].click();
  const moved = said(beside), hash = location.hash;
  beside.querySelector("[data-tab=swap]").click();
  location.hash = hash;
  setTimeout(() => { window.answer = JSON.stringify({walked, none, moved, hash, shared: said(beside)}); }, 300);
"""


def test_a_circuit_is_walked_by_keys_and_a_link_keeps_the_states_of_models_side_by_side(explorers):
    result, console = visit(explorers, f"{FOLLOWED}'{LATER}'")
    found = json.loads(result)
    assert console == [] and found["none"] == toy_circuits.MISSING
    labels, said, differences = zip(*found["walked"])
    assert labels[0] == "unit 5 → z1 (encoder/conv2 → latent/z): 31.0\xa0% ± 2.0\xa0% of the effect"
    assert labels[1] == "z1 of latent/z: 90.0\xa0% ± 5.0\xa0% of the effect"
    assert labels[2].startswith("z1 → unit 7 (latent/z → decoder/conv1): −12.0") and labels[3] == labels[1]
    assert [line.split(",")[0] for line in said[:2]] == [
        "unit 5 → z1 (encoder/conv2 → latent/z)",
        "z1 of latent/z alone",
    ]
    assert len(set(differences)) == 3
    one, two = found["moved"]
    assert one.startswith("do(z1 := ") and two.startswith("do(z0 := ") and found["shared"] == found["moved"]
    assert "start=2" in found["hash"] and "latent.2=0" in found["hash"] and "latent=1" in found["hash"]


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
@pytest.mark.parametrize("page", ["explorers", "hostile_report"])
@pytest.mark.parametrize("dark", [True, False])
def test_pages_have_no_barriers_fit_a_phone_and_are_dark_where_that_is_asked_for(page, dark, request):
    path = request.getfixturevalue(page)
    script = axe()
    result, console = visit(path, CHECK, script, size=PHONE, dark=dark)
    tabs, width, paper, wrong = json.loads(result)
    assert tabs == (8 if page == "explorers" else 0), "what is looked at is there"
    assert console == [] and wrong == [] and width <= PHONE[0]
    assert paper == ("rgb(20, 25, 31)" if dark else "rgb(255, 255, 255)")
    if not script:
        pytest.skip("no axe-core here: pip install --no-deps axe-playwright-python; all else was checked")
