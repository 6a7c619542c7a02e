"""The record of a score, and the command that scores a file of codes."""

import csv
import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from causalvae.metrics import scores
from causalvae.metrics.scores import Score
from experiments import metrics as command

EXAMPLE = [
    Score("mig", 0.51234, 0.01, "histogram, 20 bins", {"train": 1000}, {"bins": 20}, ceiling=0.9, null=0.0),
    Score("dci_completeness", None, estimator="xla", note="undefined for a single latent"),
]


def test_records_survive_json_and_csv():
    assert scores.from_json(scores.to_json(EXAMPLE, data_set="dsprites")) == EXAMPLE
    assert json.loads(scores.to_json(EXAMPLE, data_set="dsprites"))["data_set"] == "dsprites"
    rows = list(csv.DictReader(io.StringIO(scores.to_csv(EXAMPLE))))
    assert [row["name"] for row in rows] == ["mig", "dci_completeness"]
    assert float(rows[0]["value"]) == 0.51234 and rows[1]["value"] == ""
    assert json.loads(rows[0]["samples"]) == {"train": 1000}


def test_the_table_shows_what_a_value_is_read_against():
    header, _, first, second = scores.table(EXAMPLE).splitlines()
    assert header.split() == ["score", "value", "null", "ceiling", "estimator", "samples", "note"]
    assert "0.512 ± 0.01 " in first and "0.9" in first and "1,000 train" in first
    assert " – " in second and second.endswith("undefined for a single latent")


def test_an_undefined_score_needs_its_reason():
    assert scores.score("mig", math.nan, note="one row").value is None
    with pytest.raises(ValueError, match="mig is nan: an undefined score needs a note"):
        scores.score("mig", math.nan)


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    factors = np.stack([np.random.default_rng(k).integers(0, n, 300) for k, n in enumerate((3, 4))], axis=1)
    path = tmp_path_factory.mktemp("codes") / "codes.npz"
    np.savez(path, codes=factors.astype(np.float32), factors=factors, factor_names=["shape", "size"])
    return path


def run(*arguments):
    result = subprocess.run(
        [sys.executable, "-m", "experiments.metrics", *map(str, arguments)], capture_output=True, text=True
    )
    assert "Traceback" not in result.stderr
    return result


def test_scores_a_file(file, tmp_path):
    out = tmp_path / "scores.json"
    result = run(
        f"--codes={file}", "--metrics=mig,modularity", f"--json={out}", f"--csv={tmp_path / 'scores.csv'}",
        "--halves=3",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "mig" in result.stdout and "modularity" in result.stdout
    written = json.loads(out.read_text())
    assert written["factor_names"] == ["shape", "size"]
    assert all(record["standard_error"] >= 0 and record["settings"]["halves"] == 3 for record in written["scores"])
    assert "mig by factor: shape " in result.stdout and "--halves" not in result.stdout
    assert (tmp_path / "scores.csv").read_text().startswith("name,value,")


def test_ceilings_are_those_of_a_data_set_with_such_factors(file):
    factors = np.load(file)["factors"]
    with pytest.raises(
        ValueError, match="--data_set=dsprites has factors of 3, 6, 40, 32, 32 values, and these have 3, 4"
    ):
        command.check_factors_of("dsprites", factors)
    drawn = np.random.default_rng(0).integers(0, [1, 3, 6, 40, 32, 32], (50, 6))
    command.check_factors_of("dsprites", drawn)  # one color
    command.check_factors_of("dsprites", drawn[:, 1:])


def test_the_table_of_the_command_says_what_is_no_better_than_chance():
    shown = [Score("infom", 0.6, 0.05, ceiling=1.0, null=0.7), Score("mig", 0.3, settings={"per_factor": [0.5, 0.1]})]
    text = command.describe(shown, None)
    assert "no better" in text.splitlines()[2] and "mig by factor: factor 0 0.5, factor 1 0.1" in text
    assert "--halves" not in text and "--halves=20 adds standard errors" in command.describe(shown[1:], ["a", "b"])


def test_a_missing_file_is_one_line_and_status_one(tmp_path):
    result = run(f"--codes={tmp_path / 'none.npz'}")
    assert result.returncode == 1 and "error: no file" in result.stderr and "numpy.savez" in result.stderr


def test_files_that_cannot_be_scored_say_why(tmp_path):
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    with pytest.raises(ValueError, match="is not a readable npz file of plain arrays"):
        command.load(text)
    partial = tmp_path / "partial.npz"
    np.savez(partial, codes=np.zeros((4, 2)), labels=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="has no factors; it holds codes, labels"):
        command.load(partial)
    misnamed = tmp_path / "misnamed.npz"
    np.savez(misnamed, codes=np.zeros((4, 2)), factors=np.zeros((4, 2), int), factor_names=["one"])
    with pytest.raises(ValueError, match="names 1 factors but has 2"):
        command.load(misnamed)
