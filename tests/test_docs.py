"""The reference has an entry for every public name and for nothing else; its examples run; what pages name exists."""

import ast
import importlib
import importlib.util
import pathlib
import re

import pytest
import yaml

import causalvae

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

specification = importlib.util.spec_from_file_location("docs_api", DOCS / "api.py")
api = importlib.util.module_from_spec(specification)
specification.loader.exec_module(api)

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
    assert sorted(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == sorted(written)


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
    assert len(list(tmp_path.glob("figures/*.png"))) == 5


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in DOCS.rglob("*.md"))]
)
def test_what_a_page_names_exists(page):
    text = re.sub(r"https?://[^\s)]+", "", (ROOT / page).read_text())
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert ((ROOT / page).parent / link).exists(), link
    for module in re.findall(r"python -m ((?:experiments|causalvae)[\w.]+\w)", text):
        assert importlib.util.find_spec(module), module
    for path in re.findall(r"\b(?:causalvae|experiments|configs|tests|docs|colab)/[\w/.]*\w", text):
        if not any(path in made for made in re.findall(r"^\+\+\+ (\S+)", text, flags=re.MULTILINE)):
            assert any(ROOT.glob(f"{path}*")), path


def test_a_name_without_an_entry_is_seen():
    with pytest.raises(ValueError, match="does not define it"):
        api.find("causalvae.sites", "no_such_name")


def test_the_version_is_said_once_and_cited():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == causalvae.__version__
    assert f"## {causalvae.__version__} (" in (ROOT / "CHANGELOG.md").read_text()
