"""Every notebook runs from top to bottom with the smoke budget, warns of nothing, shows its figures whatever the back
end, and is committed without output."""

import os
import pathlib
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


FIGURES = {  # how many each shows
    "metrics_that_lie": 2,
    "quickstart": 3,
    "study": 2,
    "vq_codes": 3,
    "which_channels": 3,
    "your_own_model": 5,
}
IN_SUITE = ("vq_codes",)  # `-m long` runs the others


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem in IN_SUITE else pytest.mark.long) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
@pytest.mark.filterwarnings("ignore")  # of the notebook machinery in this process; the notebook's own are checked
def test_notebook_runs_without_warnings(path, tmp_path, monkeypatch):
    if path.stem == "your_own_model":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setenv("CAUSALVAE_PRESET", "smoke")
    monkeypatch.setenv("MPLBACKEND", "agg")  # as where a notebook runs without a front end
    monkeypatch.setenv("CAUSALVAE_WORKDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [text for text in printed if "Warning" in text or "Traceback" in text]
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in data for data in shown) >= FIGURES[path.stem]
    assert not [data for data in shown if "<Figure" in data.get("text/plain", "") and "image/png" not in data]


def test_six_notebooks_are_committed_without_output():
    assert [path.stem for path in NOTEBOOKS] == sorted(FIGURES)
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None
        text = path.read_text()
        assert "colab-badge.svg" in text and "REPOSITORY" in text


# --- the cell that installs ------------------------------------------------------------------------------

INSTALL = FOLDER / "install.py"


def test_all_notebooks_install_by_the_same_cell_and_ask_for_no_accelerator():
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        assert first.source + "\n" == INSTALL.read_text(), f"copy colab/install.py into {path.name}"
        assert "accelerator" not in notebook.metadata  # shipped models: none trains for long


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """The cell's names after it has run where causalvae is there, and a pip whose calls and answers are kept."""
    monkeypatch.chdir(tmp_path)
    calls, answers = [], []

    def run(command, **options):
        calls.append((command[-1], pathlib.Path(command[command.index("-c") + 1]).read_text()))
        code, said = answers.pop(0) if answers else (0, "")
        return subprocess.CompletedProcess(command, code, "", said)

    monkeypatch.setattr(sys, "path", [str(FOLDER.parent), *sys.path])
    names: dict = {}
    exec(compile(INSTALL.read_text(), INSTALL, "exec"), names)
    monkeypatch.setattr(subprocess, "run", run)
    names["accelerator"] = lambda: "tpu"
    return names, calls, answers


def test_what_is_here_is_not_installed_again_and_the_device_is_said(cell, capsys):
    names, calls, _ = cell
    exec(compile(INSTALL.read_text(), INSTALL, "exec"), {})
    assert calls == [] and capsys.readouterr().out.startswith(f"jax {names['jax'].__version__} on cpu: ")


def test_an_installation_keeps_jax_and_takes_what_was_uploaded(cell, tmp_path):
    names, calls, _ = cell
    names["install"]()
    requirement, kept = calls[-1]
    assert requirement == "causalvae[colab] @ git+https://github.com/causalvae/causalvae"
    assert f"jax=={names['jax'].__version__}\n" in kept and "jaxlib==" in kept and "numpy" not in kept
    (tmp_path / "causalvae-main.zip").touch()
    names["install"]()
    assert calls[-1][0] == f"causalvae[colab] @ {(tmp_path / 'causalvae-main.zip').as_uri()}"
    names["SOURCE"] = "/content/drive/MyDrive/causalvae"  # said goes before found
    names["install"]()
    assert calls[-1][0] == "causalvae[colab] @ file:///content/drive/MyDrive/causalvae"


def test_another_jax_takes_the_place_of_one_that_does_not_do(cell, capsys):
    names, calls, answers = cell
    answers += [(1, "ERROR: ResolutionImpossible: for help visit")]
    names["install"]()
    assert calls[-1] == ("causalvae[colab,tpu] @ git+https://github.com/causalvae/causalvae", "")
    assert "one for this device takes its place" in capsys.readouterr().out


def test_an_installation_that_fails_says_what_else_there_is(cell):
    names, _, answers = cell
    answers += [(1, "ERROR: Could not resolve host")]
    with pytest.raises(RuntimeError, match="Could not resolve host\nUpload a wheel or a zip of the repository"):
        names["install"]()
