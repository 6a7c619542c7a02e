"""Makes pages of the notebooks in colab/: their text and code, and what they print and draw where they have been run.

    python docs/notebooks.py             # runs all of them into build/notebooks: some minutes on two cores
    python docs/notebooks.py quickstart

Outputs are not committed. mkdocs calls `on_files`, which takes them from build/notebooks where the notebook there has
the cells of the one in colab/; else the page has no outputs and says so. So the site builds as fast without.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
import tempfile
import time
from typing import Any

import nbformat

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCE, EXECUTED = ROOT / "colab", ROOT / "build" / "notebooks"
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_OUTPUTS = "*This page was built without outputs: `python docs/notebooks.py` makes them.*"
EXPLORER = "*In a live notebook the explorer stands here; every run writes the same as a page, `explorer.html`.*"
INSTALLS = "*(The first cell, left out here, installs causalvae where it is absent.)*"


def names() -> list[str]:
    """The notebooks, by their files."""
    return sorted(path.stem for path in SOURCE.glob("*.ipynb"))


# --- running them ----------------------------------------------------------------------------------------


def execute(name: str) -> float:
    """Runs a notebook into build/notebooks, whatever matplotlib's back end is; returns the seconds that it took."""
    from nbclient import NotebookClient

    notebook = nbformat.read(SOURCE / f"{name}.ipynb", as_version=4)
    environment = {**os.environ, "MPLBACKEND": "agg"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:  # where no earlier run has left a study to go on from
        environment["CAUSALVAE_WORKDIR"] = folder
        NotebookClient(notebook, timeout=1800, kernel_name="python3").execute(env=environment)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, EXECUTED / f"{name}.ipynb")
    return time.monotonic() - start


# --- pages -----------------------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs: adds a page for each notebook, and its pictures."""
    from mkdocs.structure.files import File

    for name in names():
        markdown, pictures = page(name)
        files.append(File.generated(config, f"notebooks/{name}.md", content=markdown))
        for path, data in pictures.items():
            files.append(File.generated(config, f"notebooks/{path}", content=data))
    return files


def page(name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by their paths beside the page."""
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(SOURCE / f"{name}.ipynb", as_version=4)
    path, note = EXECUTED / f"{name}.ipynb", NO_OUTPUTS
    if path.exists():
        executed = nbformat.read(path, as_version=4)
        if [cell.source for cell in executed.cells] == [cell.source for cell in notebook.cells]:
            notebook, note = executed, ""
    prepare(notebook, note)
    body, resources = MarkdownExporter().from_notebook_node(notebook, {"unique_key": name, "output_files_dir": name})
    return body, resources.get("outputs", {})


def prepare(notebook: Any, note: str) -> None:
    """Leaves out what a page has no use for: the cell that installs, the badge's picture, widgets, progress."""
    title = notebook.cells[0]
    links = BADGE.sub(r"[Open in Colab](\1)", title.source)
    title.source = "\n\n".join(filter(None, (links, INSTALLS, note)))
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("# Installs causalvae")]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/markdown": EXPLORER}


if __name__ == "__main__":
    for chosen in sys.argv[1:] or names():
        print(f"{chosen}: {execute(chosen):.0f} s", flush=True)
