"""The study's page: what is collected of a study, and that the page is computed from nothing else."""

import json
import re

import numpy as np
import pytest
import study_tables

from experiments.report import publish, specification
from experiments.study import records

BESIDE = {"run": "dsprites-beta-beta=16-s0", "label": "beta (beta=16)", "variant": "beta=16"}


def test_a_table_comes_back_from_its_csv():
    table = study_tables.table()
    table["ces_code_swap_l2"][0] = np.nan
    back = records.from_csv(records.to_csv(table))
    assert list(back) == list(table)
    for name, values in table.items():
        np.testing.assert_array_equal(back[name], values)


def test_endings_are_the_last_values_and_the_slope_of_the_last_fifth():
    lines = [{"step": step, "loss": [100 - step / 100, 50.0], "kl": [1.0, step]} for step in range(100, 1001, 100)]
    found = publish.endings(lines, ["one", "two"])
    assert found["one"]["slope"] == pytest.approx(-10) and found["two"]["slope"] == pytest.approx(0)
    assert found["two"] == {"steps": 1000, "slope": pytest.approx(0), "loss": 50.0, "kl": 1000.0}


def test_the_first_question_is_answered_where_there_are_both_means():
    row = dict.fromkeys(specification.DIMENSIONS, "one")
    rows = [{**row, "mean over": mean, "value": value} for mean, value in zip(specification.MEANS, (0.25, -0.5))]
    said = publish._masks({"specifications": rows, "architectures": []})
    first, second = specification.MEANS
    assert said.endswith(f"the medians are +0.25 over {first} and −0.50 over {second}.")
    assert publish._masks({"specifications": rows[:1], "architectures": []}) == ""


def test_the_page_is_drawn_from_what_was_collected(tmp_path):
    table = study_tables.table(truth="planted")
    other = (table["architecture"] == "beta") & (table["seed"] == 0) & (table["dataset"] == "dsprites")
    beside = {name: values[other].copy() for name, values in table.items()}
    beside |= {name: np.array([value]) for name, value in BESIDE.items()}
    table = {name: np.concatenate([values, beside[name]]) for name, values in table.items()}
    study_tables.write_study(tmp_path / "study", table)
    runs = records.read_table(tmp_path / "study")["run"].tolist()
    folder = tmp_path / "study" / "groups" / "all"
    folder.mkdir(parents=True)
    lines = [{"step": s, "loss": [500.0 - s] * len(runs), "kl": [9.0] * len(runs)} for s in (100, 200, 300)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "study" / "groups.json").write_text(json.dumps({"groups": {"all": runs}}))
    docs = tmp_path / "docs"
    publish.collect(tmp_path / "study", docs)
    published = {"model": "VAE_dsprites", "scores": [{"name": "mig", "value": 0.102}]}
    (docs / "records" / "published").mkdir()
    (docs / "records" / "published" / "VAE_dsprites.json").write_text(json.dumps(published))
    page = publish.publish(docs).read_text()
    assert re.search(r"Trained on .+ in [\d.]+ hours, evaluated on .+ in [\d.]+ hours \(each run's share", page)
    assert "90 of 90 runs of the design" in page and "and 1 with other hyper-parameters" in page
    assert "| dsprites | β-VAE (beta=16) | 0 |" in page and page.count("| β-VAE |") == 4 * 5
    assert "| VAE | – | – | – | 0.102 | – | – | – |" in page
    assert "| (i) | agrees |" in page and "| (ii) | does not decide |" in page
    assert "## mpi3d" in page and "(i)" in page and "specification curve" in page
    first = (table["dataset"] == "dsprites") & (table["architecture"] == "vae")
    assert f"{table['mig'][first].mean():.3f}" in page
    for picture in ("study_curve.png", "study_dsprites.png"):
        assert f"figures/{picture}" in page and (docs / "figures" / picture).stat().st_size > 1000
    again = publish.publish(docs).read_text()
    assert again == page
    study_tables.write_study(tmp_path / "failed", {n: v[:1] for n, v in table.items()}, failed=(runs[0],))
    with pytest.raises(ValueError, match="none of its 1 runs is done, all failed"):
        publish.collect(tmp_path / "failed", docs)
    assert publish.publish(docs).read_text() == page
    with pytest.raises(FileNotFoundError, match="nothing was collected"):
        publish.publish(tmp_path / "elsewhere")
