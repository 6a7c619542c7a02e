"""Every notebook runs from top to bottom with the smoke budget, warns of nothing, and is committed without output."""

import os
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


IN_SUITE = ("quickstart", "your_own_model")  # `-m long` runs the others


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem in IN_SUITE else pytest.mark.long) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
@pytest.mark.filterwarnings("ignore")  # of the notebook machinery in this process; the notebook's own are checked
def test_notebook_runs_without_warnings(path, tmp_path, monkeypatch):
    monkeypatch.setenv("CAUSALVAE_PRESET", "smoke")
    monkeypatch.setenv("CAUSALVAE_WORKDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [text for text in printed if "Warning" in text or "Traceback" in text]


def test_four_notebooks_are_committed_without_output():
    assert [path.stem for path in NOTEBOOKS] == ["metrics_that_lie", "quickstart", "study", "your_own_model"]
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None
        text = path.read_text()
        assert "colab-badge.svg" in text and "REPOSITORY" in text
