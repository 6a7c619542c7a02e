"""Results of every level as tables: rows, names, and values against the arrays that they are of."""

import types

import jax
import numpy as np
import pytest

import causalvae as cv
from causalvae import circuits, evaluation
from causalvae import interventions as iv
from causalvae.metrics import Score

FACTORS = ("shape", "scale", "color")


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_effects_of_factors_and_distances_of_latents():
    effects = cv.frame(numbers(3, 2), factors=FACTORS)
    assert list(effects.columns) == ["factor", "latent", "effect"] and len(effects) == 6
    assert effects.query("factor == 'scale' and latent == 'z1'").effect.item() == 3
    distances = cv.frame({"l2": numbers(2, 3, 4), "rms": 2 * numbers(2, 3, 4)})
    assert list(distances.columns) == ["latent", "value", "row", "l2", "rms"]
    row = distances.query("latent == 'z1' and value == 2 and row == 3")
    assert row.l2.item() == 23 and row.rms.item() == 46
    assert cv.frame(jax.numpy.asarray(numbers(2, 3, 4))).distance.sum() == distances.l2.sum()
    sites = cv.frame({"encoder/conv0": numbers(3, 5), "latent/z": numbers(3, 2)}, factors=FACTORS)
    assert len(sites) == 21 and sites.query("site == 'latent/z' and factor == 'color' and unit == 1").effect.item() == 5
    strengths = cv.frame(cv.metrics.effect_strength(jax.numpy.asarray(numbers(2, 3, 4))))
    assert list(strengths.columns) == ["latent", "mean", "standard_error"] and strengths.mean(numeric_only=True)["mean"]


def test_patches_with_and_without_pairs():
    effects = iv.PatchEffects(numbers(4), numbers(4, 2), numbers(4) / 4, np.zeros(4, int))
    table = cv.frame(effects, units=list("abcd"))
    assert list(table.columns) == [
        "unit", "output_change", "recovery", "left_out", "latent_change_z0", "latent_change_z1"
    ]  # fmt: skip
    assert table.set_index("unit").loc["c", "latent_change_z1"] == 5
    effects = iv.PatchEffects(numbers(4, 3), numbers(4, 3, 2), numbers(4, 3), np.zeros((4, 3), bool))
    table = cv.frame(effects)
    assert len(table) == 12 and table.query("unit == 2 and pair == 1").latent_change_z0.item() == 14


def test_mediation_and_its_summary():
    mediation = iv.Mediation(numbers(4), numbers(2, 4), 2 * numbers(2, 4), 3 * numbers(2, 4))
    table = cv.frame(mediation)
    assert set(table.columns) == {"unit", "pair", "total", "direct", "indirect", "interaction"} and len(table) == 8
    assert table.query("unit == 1 and pair == 2")[["total", "indirect"]].values.tolist() == [[2, 12]]
    summary = iv.summarize(mediation, jax.random.key(0))
    table = cv.frame(summary, units=["z0", "z1"])
    assert len(table) == 1 + 4 * 2 and (table.pairs == 4).all()
    row = table.query("effect == 'indirect' and unit == 'z1'")
    np.testing.assert_allclose(row["mean"], summary.indirect.mean[1])
    assert (row.low <= row.high).all() and table.query("effect == 'total'").unit.isna().all()


def test_paths_and_circuits():
    paths = cv.frame(iv.PathEffects(numbers(2, 3, 4), numbers(2, 4), numbers(2, 4), 5 + numbers(2, 4)))
    assert len(paths) == 24
    row = paths.query("sender == 1 and receiver == 2 and pair == 3")
    assert row.path.item() == 23 and row.through.item() == 7 and row.sender_effect.item() == 12
    circuit = circuits.Circuit(
        "latent/z", np.array([2, 0]), 0.95, 0.9, np.array([0.2, 0.4]), numbers(3), numbers(3), True
    )
    table = cv.frame({"shape": circuit, "color": None}, latents=["a", "b", "c"])
    assert table.unit.tolist() == ["a", "b", "c"] and table.in_circuit.tolist() == [True, False, True]
    assert table["rank"].tolist()[2] == 0 and table.factor.unique().tolist() == ["shape"]
    assert table.random.iloc[0] == pytest.approx(0.3) and table.effect.tolist() == [0, 1, 2]


def test_parts_of_an_evaluation():
    patching = evaluation.Patching(("latent/z", "decoder/conv0"), numbers(2, 3), numbers(2, 3), np.array([0, 1, 2]))
    table = cv.frame(patching, factors=FACTORS)
    row = table.query("site == 'decoder/conv0' and factor == 'color'")
    assert row.largest.item() == 5 and row.left_out.item() == 2
    estimate = numbers(3, 4, 3)
    mediated = evaluation.Mediated(
        ("indirect", "direct", "interaction"), estimate, estimate - 1, estimate + 1, numbers(3)
    )
    table = cv.frame(mediated, factors=FACTORS)
    row = table.query("factor == 'scale' and latent == 'z2' and effect == 'direct'")
    assert len(table) == 36 and row[["estimate", "low", "high"]].values.tolist() == [[19, 18, 20]]
    latents = evaluation.Latents(*[numbers(4)] * len(evaluation.Latents._fields))
    assert cv.frame(latents).set_index("latent").loc["z3", "ces_l2"] == 3


def test_scores_runs_and_studies():
    scores = [Score("mig", 0.5, null=0.1), Score("sap", None, note="undefined")]
    table = cv.frame(scores)
    assert table.score.tolist() == ["mig", "sap"] and np.isnan(table.value[1]) and table.equals(cv.frame(scores))
    results = {
        "architecture": {"name": "vae"},
        "data": {"name": "dsprites", "source": "procedural"},
        "training": {"steps": 4},
        "members": [{"seed": seed, "scores": [score._asdict() for score in scores]} for seed in (3, 4)],
    }
    table = cv.frame(results)
    assert table.seed.tolist() == [3, 3, 4, 4] and (table.dataset == "dsprites").all()
    trained = cv.runs.Trained(None, None, None, {}, results)
    assert cv.frame(trained).equals(table)
    with pytest.raises(ValueError, match="has not been evaluated"):
        cv.frame(trained._replace(results=None))
    study = cv.frame({"architecture": np.array(["vae", "beta"]), "mig": np.array([0.1, 0.2])})
    assert study.shape == (2, 2) and study.mig.sum() == pytest.approx(0.3)


def test_what_has_no_table_is_refused():
    with pytest.raises(ValueError, match="no table is known of a SimpleNamespace"):
        cv.frame(types.SimpleNamespace())
    with pytest.raises(ValueError, match="2 names of factors were given, and there are 3"):
        cv.frame(numbers(3, 2), factors=("a", "b"))
