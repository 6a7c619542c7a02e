"""Curves of schedules: collected from finished runs only, thinned, and compared where several recipes were tried."""

import json

import pytest
import study_tables

from experiments.study import schedules


def run(folder, rate, losses, steps=400, finished=True):
    folder.mkdir(parents=True)
    config = {
        "architecture": {"name": "vae"},
        "data": {"name": "dsprites"},
        "training": {"schedule": "constant", "learning_rate": rate, "steps": steps},
        "seed": 3,
        "seeds": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = [
        {"step": 50 * (i + 1), **{name: [loss, loss + 1] for name in schedules.CURVES}} for i, loss in enumerate(losses)
    ]
    kept = lines if finished else lines[:-1]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))


def test_finished_runs_are_collected_and_compared(tmp_path):
    losses = [float(loss) for loss in range(80, 0, -10)]
    run(tmp_path / "a", 1e-3, losses)
    with pytest.raises(FileNotFoundError, match="no trained run below"):
        schedules.collect([tmp_path / "nothing"])
    (first, second) = schedules.collect([tmp_path])
    assert (first.seed, second.seed, first.recipe) == (3, 4, "constant 0.001")
    assert first.steps == [100, 200, 300, 400] and first.values["loss"] == [70.0, 50.0, 30.0, 10.0]
    assert second.values["kl"][-1] == 11.0
    assert schedules.cells([first, second]) == []  # one recipe is nothing to compare

    run(tmp_path / "b", 2e-3, losses)
    run(tmp_path / "c", 4e-3, losses, finished=False)
    curves = schedules.collect([tmp_path])
    assert schedules.compared(curves) == curves and schedules.compared(curves[:3]) == [curves[0], curves[2]]
    assert len(curves) == 4 and schedules.cells(curves) == [("vae", "dsprites")]
    rows = schedules.table(curves).splitlines()
    assert rows[2] == "| vae, dsprites | constant 0.001 | 3 | 400 | 10 | 10 | 10 | 10 |" and len(rows) == 6


def test_runs_of_a_study_are_collected_beside_them(tmp_path):
    study_tables.write_study(tmp_path / "study", study_tables.table(seeds=2))
    groups = {"a": ["vae_dsprites_s0", "vae_dsprites_s1"], "b": ["vq_dsprites_s0", "vq_dsprites_s9"]}
    (tmp_path / "study" / "groups.json").write_text(json.dumps({"groups": groups}))
    for name in groups:
        folder = tmp_path / "study" / "groups" / name
        folder.mkdir(parents=True)
        line = {"step": 300_000, **{curve: [1.0, 2.0] for curve in schedules.CURVES}}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    found = schedules.collect([tmp_path / "study"])
    assert [(c.architecture, c.dataset, c.seed, c.values["loss"]) for c in found] == [
        ("vae", "dsprites", 0, [1.0]),
        ("vae", "dsprites", 1, [2.0]),
    ], "b has a run that is not evaluated"


def test_what_was_collected_is_drawn():
    curves = schedules.read()
    shown = [curve for curve in curves if (curve.architecture, curve.dataset) in schedules.cells(curves)]
    assert shown
    figure = schedules.draw(curves)
    labels = {text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()}
    assert labels == {f"{curve.recipe} (seed {curve.seed})" for curve in shown}
