"""The stored spread of scores between seeds: collected from runs, found for runs of the same settings only, shown."""

import json

import numpy as np
import pytest

from causalvae import evaluation
from experiments import pipeline, spread


def results(values, seeds, device="1 cpu (A)", steps=1500, **changes):
    def score(value):
        return {"name": "mig", "value": value, "standard_error": None, "null": 0.01, "ceiling": 0.9, "estimator": "e"}

    return {
        "architecture": {"name": "betatc", "beta": 6.0},
        "data": {"name": "3dshapes", "source": "procedural", "size": 480_000},
        "training": {
            "steps": steps, "batch_size": 64, "learning_rate": 1e-3, "schedule": "constant", "warmup": 0,
            "log_every": 50, "seeds": seeds,
        },
        "device": device,
        "members": [
            {
                "seed": seed,
                "scores": [score(value)],
                "latents": {"ces_l2": [1.0, 3.0, 2.0], "specificity_to_factors": [0.1, 0.7, 0.3]},
            }
            for seed, value in zip(seeds, values)
        ],
        **changes,
    }  # fmt: skip


def test_values_of_all_seeds_and_processors_are_pooled():
    runs = [results([0.1, 0.2, None], [0, 1, 2]), results([0.4, 0.5], [0, 1], "1 cpu (B)")]
    entry = spread.collect(runs)
    found = spread.spreads(entry["draws"])["mig"]
    values = np.array([0.1, 0.2, 0.4, 0.5])
    assert found == spread.Spread(values.mean(), values.std(ddof=1), 0.1, 0.5, 4)
    assert spread.spreads(entry["draws"])["strongest_specificity_to_factors"].mean == 0.7
    text = spread.table(entry)
    assert "| score | 1 cpu (A) | 1 cpu (B) | all |" in text
    assert "0.15 ± 0.071 (0.1 to 0.2, n = 2)" in text and "0.3 ± 0.18 (0.1 to 0.5, n = 4)" in text


def test_a_draw_is_of_the_device_that_trained_it():
    first, second = results([0.1], [0]), results([0.2], [1], "1 cpu (B)")
    for each in (first, second):
        each["training"]["device"] = "1 gpu (C)"
    assert {draw["device"] for draw in spread.collect([first, second])["draws"]} == {"1 gpu (C)"}


def test_runs_that_are_no_draws_of_one_spread_are_refused():
    first = results([0.1], [0])
    with pytest.raises(ValueError, match="different settings"):
        spread.collect([first, results([0.1], [1], steps=3000)])
    with pytest.raises(ValueError, match="given twice"):
        spread.collect([first, results([0.1], [0])])


def test_the_seeds_of_a_study_are_draws_of_a_spread(tmp_path):
    def store(run, results, status="done", variant=""):
        (member,) = results.pop("members")
        record = {**results, **member, "run": run, "label": run, "status": status, "variant": variant, "reason": ""}
        record["architecture"] = {"latents": 10, "parameters": 1, **record["architecture"]}
        record["data"] = {"factor_kind": "generative", "factors": {}, **record["data"]}
        record["scores"] = [{**score, "settings": {}} for score in record["scores"]]
        record |= {"evaluation": {}, "config": {}, "versions": {}}
        folder = tmp_path / "runs" / run
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record))

    store("a-s0", results([0.1], [0]))
    with pytest.raises(ValueError, match="no configuration is done with 3 seeds"):
        spread.of_study(tmp_path)
    store("a-s1", results([0.3], [1]))
    store("b-s0", results([0.9], [0], steps=3000))
    store("a-s2", results([0.5], [2]))
    store("a-s3", results([0.7], [3]), status="failed")
    store("c-s0", results([0.5], [0], architecture={"name": "betatc", "beta": 2.0}), variant="beta=2")
    store("c-s1", results([0.6], [1], architecture={"name": "betatc", "beta": 2.0}), variant="beta=2")
    store("c-s2", results([0.7], [2], architecture={"name": "betatc", "beta": 2.0}), variant="beta=2")
    first, second = spread.of_study(tmp_path)
    assert spread.spreads(first["draws"])["mig"][::4] == (pytest.approx(0.3), 3)
    assert second["name"] == "betatc (beta=2) on 3dshapes (procedural), 1500 steps"


def test_a_spread_is_shown_for_runs_of_its_settings_only(tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "STORED", tmp_path / "spreads.json")
    own = results([0.3], [7])
    assert spread.find(own) == {} and "other seeds" not in evaluation.table(own, spread.find(own))
    entry = spread.collect([results([0.1, 0.2], [0, 1])])
    (tmp_path / "spreads.json").write_text(json.dumps({entry["name"]: entry}))
    table = evaluation.table(own, spread.find(own)).splitlines()
    assert table[0].endswith("mean ± standard deviation of 2 runs of this budget; one run is one draw of them")
    assert table[2].split("  ")[0] == "score" and "other seeds" in table[2] and "0.15 ± 0.0707" in table[5]
    assert spread.find(results([0.3], [7], steps=3000)) == {}
    assert spread.find(results([0.3], [7], architecture={"name": "betatc", "beta": 4.0})) == {}


def test_the_stored_spreads_are_of_configurations_that_exist():
    for entry in spread.stored().values():
        found = spread.spreads(entry["draws"])
        least = spread.LEAST_SEEDS if entry["training"]["steps"] == 9000 else 10  # of a study, or made for the spread
        assert found["mig"].num >= least and found["mig"].low <= found["mig"].mean <= found["mig"].high
        assert all(draw["device"] and len(draw["seeds"]) == len(draw["scores"]["mig"]) for draw in entry["draws"])


def test_a_device_is_named_with_what_decides_its_last_bit(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=SSE4_2 --xla_cpu_max_isa=AVX2")
    pipeline.processor_name.cache_clear()
    assert pipeline.device_name().endswith(", at most AVX2)")
    pipeline.processor_name.cache_clear()
    monkeypatch.delenv("XLA_FLAGS")
    assert "at most" not in pipeline.device_name()
    pipeline.processor_name.cache_clear()


def test_directories_without_results_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run in .* no results.json"):
        spread.read_results(tmp_path)
