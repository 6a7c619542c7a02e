"""The reference has an entry for every public name and for nothing else; its examples run; what pages name exists."""

import ast
import contextlib
import importlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image

import causalvae
from causalvae import architectures, schema

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def hook(name):
    """A module of docs/, which mkdocs loads by its path."""
    specification = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


api, notebooks = hook("api"), hook("notebooks")

MODULES = api.public_modules()


def example(module):
    """The Python blocks of a module's page, one after the other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / api.page_of(module)).read_text(), flags=re.DOTALL))


def pages(entries):
    """The pages that a nav lists, at every depth."""
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from pages(value) if isinstance(value, list) else [value]


def test_every_public_module_has_a_page_with_its_entries_and_every_page_a_place():
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert {api.page_of(module) for module in MODULES} == {page for page in written if page.startswith("reference/")}
    for module in MODULES:
        assert api.MARKER.findall((DOCS / api.page_of(module)).read_text()) == [module]
    made = {f"notebooks/{name}.md" for name in notebooks.names()}
    assert sorted(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == sorted(written | made)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_exists_and_says_in_a_line_what_it_is_for(module):
    namespace = importlib.import_module(module)
    assert namespace.__all__ == api.names(module)
    for entry in api.entries(module):
        assert hasattr(namespace, entry.name), entry.name
        assert 10 < len(entry.purpose) < 300 and entry.purpose[-1] in ".:)", f"{entry.path}: {entry.purpose!r}"
        prose = re.sub(r"`[^`]*`", "", entry.docstring)
        assert not re.search(r"<[a-zA-Z]+[ ,>]", prose), (
            f"{entry.path}: a page would read <...> as a tag; use backticks"
        )


@pytest.mark.parametrize("module", MODULES)
def test_an_example_uses_every_name_and_runs(module, tmp_path, monkeypatch):
    code = example(module)
    nodes = list(ast.walk(ast.parse(code)))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named = {entry.name for entry in api.entries(module) if api.page_module(entry) == module}
    assert named - used == set()
    monkeypatch.chdir(tmp_path)
    exec(compile(code, api.page_of(module), "exec"), {})


def test_the_guide_to_models_runs(tmp_path, monkeypatch):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / "your_model.md").read_text(), flags=re.DOTALL))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "your_model.md", "exec"), {})
    assert len(list(tmp_path.glob("figures/*.png"))) == 6


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in DOCS.rglob("*.md"))]
)
def test_what_a_page_names_exists(page):
    text = re.sub(r"https?://[^\s)]+", "", (ROOT / page).read_text())
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        made = re.fullmatch(r"(?:\.\./)?notebooks/(\w+)\.md", link)
        assert made and made[1] in notebooks.names() or ((ROOT / page).parent / link).exists(), link
    for module in re.findall(r"python -m ((?:experiments|causalvae)[\w.]+\w)", text):
        assert importlib.util.find_spec(module), module
    for path in re.findall(r"\b(?:causalvae|experiments|configs|tests|docs|colab)/[\w/.]*\w", text):
        if not any(path in made for made in re.findall(r"^\+\+\+ (\S+)", text, flags=re.MULTILINE)):
            assert any(ROOT.glob(f"{path}*")), path


# --- guides ----------------------------------------------------------------------------------------------

# Pages whose blocks run in seconds; `-m long` runs the others.
QUICK = {
    "sweep.md",
    "your_data.md",
    "your_metric.md",
    "metrics/circuit_modularity.md",
    "metrics/intervention_specificity.md",
    "metrics/mcc.md",
    "metrics/r2.md",
    "metrics/sap_discrete.md",
}
ELSEWHERE = {"your_model.md": "a test of its own", "published_models.md": "weights that others trained"}
SMALLER = {  # what takes long for its size
    "runs.md": {
        '"training": {"steps": 1500}': '"training": {"steps": 2, "batch_size": 4}',
        '{"name": "vae"}': '{"name": "vae", "network": "small", "latents": 4}',
        "run.dataset)": "run.dataset, cv.evaluation.Settings(100, 50, 50, 8, 4, 8, sites='latent/z', metrics='mig'))",
        "cv.frame(run)": "cv.frame(found)",  # results.json is the command's to write
        "run.results": "{**record, 'members': [{'seed': 0, **cv.evaluation.record(found)}]}",
    }
}


def python_pages():
    """The guides that have Python blocks, each with its mark."""
    for path in sorted(DOCS.rglob("*.md")):
        page = path.relative_to(DOCS).as_posix()
        if "```python" in path.read_text() and not page.startswith("reference/") and page not in ELSEWHERE:
            yield pytest.param(page, marks=[] if page in QUICK else pytest.mark.long)


def make_files():
    """What the guide to images takes from the working directory."""
    images, factors = np.zeros((8, 32, 32, 1), np.float32), np.array(list(np.ndindex(2, 2, 2)))
    images[np.arange(8), 4 * factors[:, 1], 4 * factors[:, 2]] = 1 + factors[:, :1]
    images /= 2
    np.savez("mine.npz", images=images, factors=factors, names=["shape", "x", "y"])
    os.mkdir("photographs")
    lines = ["file,shape,x,y"]
    for number, (image, row) in enumerate(zip(images, factors)):
        Image.fromarray(np.uint8(255 * image[..., 0])).save(f"photographs/{number}.png")
        lines.append(f"{number}.png,{','.join(map(str, row))}")
    pathlib.Path("photographs/labels.csv").write_text("\n".join(lines))
    return {"images": images, "factors": factors, "np": np}


@pytest.mark.parametrize("page", list(python_pages()))
def test_the_blocks_of_a_guide_run_and_print_what_stands_below_them(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(causalvae.metrics.suite, "METRICS", dict(causalvae.metrics.METRICS))
    monkeypatch.setattr(causalvae.metrics, "METRICS", causalvae.metrics.suite.METRICS)
    namespace = make_files() if page == "your_data.md" else {}
    if page == "runs.md":
        namespace["record"] = {"architecture": {"name": "vae"}, "data": {"factors": {}}, "training": {"steps": 2}}
    for code, below in re.findall(
        r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", (DOCS / page).read_text(), flags=re.DOTALL
    ):
        for said, smaller in SMALLER.get(page, {}).items():
            code = code.replace(said, smaller)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), namespace)
        assert not below or printed.getvalue() == below


def templates():
    """Every text in the source, with … in place of what is filled in."""
    found = set()
    for folder in ("causalvae", "experiments", "configs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                    found.add(" ".join("".join(parts).split()))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(" ".join(node.value.split()))
    return found


def test_every_message_of_the_page_of_errors_exists():
    quoted = re.findall(r"^> (.*)", (DOCS / "errors.md").read_text(), flags=re.MULTILINE)
    assert len(quoted) > 30
    written = templates()
    assert [message for message in quoted if message not in written] == []


def test_every_flag_that_a_page_gives_exists():
    options = {f"architecture.{name}" for kind in architectures.ARCHITECTURES for name in schema.options_of(kind)}
    settings = {*schema.RUN, *schema.STUDY, *options}
    shared = "".join((ROOT / "experiments" / name).read_text() for name in ("cli.py", "slices.py"))
    for path in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        text = path.read_text().replace("\\\n", " ")
        for command, rest in re.findall(r"python -m experiments\.([a-z_]+)([^\n`|]*)", text):
            source = ROOT / "experiments" / command
            sources = sorted(source.glob("*.py")) if source.is_dir() else [source.with_suffix(".py")]
            code = "".join(each.read_text() for each in sources) + shared
            for flag in re.findall(r"(?<= )--([a-z_]+(?:\.[\w.]+)?)", rest.partition("#")[0]):
                setting = flag.partition("config.")[2]
                known = setting in settings if setting else f'"{flag}"' in code or f"--{flag}" in code or flag == "help"
                assert known, f"{path.name}: {command} --{flag}"


def test_every_metric_has_a_page():
    named = {*causalvae.metrics.METRICS, "udr", "causal_effect_strength", "intervention_specificity"}
    assert {path.stem for path in (DOCS / "metrics").glob("*.md")} == named | {"circuit_modularity"}


@pytest.mark.long
def test_the_tables_of_six_codes_are_what_the_metrics_say():
    from experiments import metrics_figure

    for name in causalvae.metrics.METRICS:
        assert (DOCS / "metrics" / f"{name}.md").read_text().endswith(f"\n{metrics_figure.table_of(name)}\n"), name


# --- the site --------------------------------------------------------------------------------------------


def test_a_notebook_becomes_a_page_with_its_pictures(tmp_path, monkeypatch):
    pytest.importorskip("nbconvert", reason="the extra docs is not installed")
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    note = nbformat.v4.new_markdown_cell("# Why?\n\n[![Open in Colab](https://a/b.svg)](https://c/d.ipynb)")
    installs = nbformat.v4.new_code_cell("# Installs causalvae where it is absent")
    cell = nbformat.v4.new_code_cell("draw()")
    source = nbformat.v4.new_notebook(cells=[note, installs, cell])
    for folder in ("SOURCE", "EXECUTED"):
        monkeypatch.setattr(notebooks, folder, tmp_path / folder)
        (tmp_path / folder).mkdir()
    nbformat.write(source, tmp_path / "SOURCE" / "why.ipynb")
    markdown, pictures = notebooks.page("why")
    assert "[Open in Colab](https://c/d.ipynb)" in markdown and "b.svg" not in markdown and "Installs" not in markdown
    assert notebooks.NO_OUTPUTS in markdown and "draw()" in markdown and pictures == {}

    cell.outputs = [
        nbformat.v4.new_output("display_data", {"image/png": pixel}),
        nbformat.v4.new_output("display_data", {notebooks.WIDGET: {}, "text/plain": "Explorer(...)"}),
        nbformat.v4.new_output("stream", name="stderr", text="step 1"),
    ]
    nbformat.write(source, tmp_path / "EXECUTED" / "why.ipynb")
    markdown, pictures = notebooks.page("why")
    ((path, data),) = pictures.items()
    assert path.startswith("why/") and data.startswith(b"\x89PNG") and f"]({path})" in markdown
    assert notebooks.EXPLORER in markdown and "Explorer(" not in markdown and "step 1" not in markdown
    assert notebooks.NO_OUTPUTS not in markdown

    source.cells[2].source = "draw_something_else()"  # outputs are of another notebook then
    nbformat.write(source, tmp_path / "SOURCE" / "why.ipynb")
    assert notebooks.NO_OUTPUTS in notebooks.page("why")[0]


@pytest.mark.long
def test_the_site_builds_and_its_search_finds_every_page(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings_handlers", "nbconvert"):
        pytest.importorskip(package, reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    found = {
        entry["location"].partition("#")[0]
        for entry in json.loads((tmp_path / "search/search_index.json").read_text())["docs"]
    }
    for page in pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]):
        assert re.sub(r"(index)?\.md$", "", page) in {place.rstrip("/") for place in found} | {"reference/"}, page
    shutil.rmtree(tmp_path)


def test_a_name_without_an_entry_is_seen():
    with pytest.raises(ValueError, match="does not define it"):
        api.find("causalvae.sites", "no_such_name")


def test_the_version_is_said_once_and_cited():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == causalvae.__version__
    assert f"## {causalvae.__version__} (" in (ROOT / "CHANGELOG.md").read_text()
