"""Two runs compared: differences with their errors, what else differs, and the command."""

import math

import numpy as np
import pytest
from PIL import Image

import causalvae as cv
from causalvae.progress import write_json
from experiments import compare


def results(members, steps=8, name="vae"):
    """members: seed -> score -> (value, standard error)."""
    return {
        "architecture": {"name": name, "latents": 3},
        "data": {"name": "dsprites", "source": "procedural", "factors": {"x": 4}},
        "training": {"steps": steps},
        "evaluation": {"codes": 10},
        "versions": {"jax": "0"},
        "device": "1 cpu",
        "members": [
            {
                "seed": seed,
                "scores": [{"name": n, "value": v, "standard_error": e} for n, (v, e) in scores.items()],
            }
            for seed, scores in members.items()
        ],
    }


ONE = results({0: {"mig": (0.1, 0.01), "kl": (20.0, None), "irs": (0.5, 0.1)}})
OTHER = results({0: {"mig": (0.2, 0.02), "kl": (25.0, None), "dci": (0.3, None)}}, steps=4, name="beta")
SEEDS = results({s: {"mig": (v, 0.5), "kl": (20.0 + s, None)} for s, v in enumerate((0.1, 0.2, 0.6))})


def test_of_one_seed_errors_are_the_evaluations_and_of_several_the_seeds():
    rows = {row.name: row for row in compare.compare(ONE, OTHER)}
    assert list(rows) == ["mig", "kl", "irs", "dci"]
    assert rows["mig"].difference == pytest.approx(0.1) and rows["mig"].errors_of == "evaluation"
    assert rows["mig"].error == pytest.approx(math.hypot(0.01, 0.02))
    assert rows["kl"].difference == 5.0 and math.isnan(rows["kl"].error)
    assert math.isnan(rows["irs"].second) and math.isnan(rows["dci"].difference)
    row = compare.compare(ONE, SEEDS)[0]
    values = np.array([0.1, 0.2, 0.6])
    assert row.second == pytest.approx(0.3) and row.second_error == pytest.approx(values.std(ddof=1) / math.sqrt(3))
    assert row.errors_of == "evaluation, seeds"
    table = cv.frame(compare.compare(ONE, OTHER))
    assert table.score.tolist() == ["mig", "kl", "irs", "dci"] and table.difference[1] == 5.0


def test_the_table_marks_what_is_beyond_errors_and_settings_say_what_else_differs():
    lines = compare.table(compare.compare(ONE, OTHER), ("a", "b")).splitlines()
    assert lines[2] == "| mig | 0.1 ± 0.01 | 0.2 ± 0.02 | 0.1 ± 0.0224 * | evaluation |"
    assert lines[3] == "| kl | 20 | 25 | 5 | evaluation |"
    assert lines[4] == "| irs | 0.5 ± 0.1 | – | – | evaluation |"
    near = results({0: {"mig": (0.12, 0.01)}})
    assert "*" not in compare.table(compare.compare(ONE, near), ("a", "b"))
    assert compare.settings(ONE, OTHER) == ["architecture.name: vae | beta", "training.steps: 8 | 4"]


def test_the_command_prints_the_table_and_writes_the_figure(tmp_path, capsys):
    for name, run in (("a", ONE), ("b", OTHER)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", run)
    folders = [str(tmp_path / name) for name in "ab"]
    compare.main([*folders, f"--csv={tmp_path / 'c.csv'}"])
    printed = capsys.readouterr().out
    assert printed.startswith("architecture.name: vae | beta\n") and "| mig | 0.1 ± 0.01 |" in printed
    assert np.asarray(Image.open(tmp_path / "b" / "figures" / "compared_with_a.png")).std() > 10
    assert (tmp_path / "c.csv").read_text().splitlines()[0].startswith("score,first,first_error,second")
    with pytest.raises(SystemExit):
        compare.main([folders[0], str(tmp_path / "none")])
    assert "error: no finished run in" in capsys.readouterr().err
