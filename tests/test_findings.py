"""Verdicts on tables with known truth: planted, none, driven by one architecture, confounded, and their like."""

import numpy as np
import pytest
import study_tables

from causalvae import statistics
from experiments import findings


def correlation(table):
    return findings.correlation_verdict(
        findings.correlation_family(table, findings.EFFECT, findings.DISENTANGLEMENT)
    )


def capacity(table):
    return findings.capacity_verdict(findings.capacity_by_factors(table))


def winner(table):
    return findings.winner_verdict(table, findings.winners_by_score(table))


def near_zero(table):
    return findings.near_zero_verdict(findings.vq_strength(table))


# --- (i) -------------------------------------------------------------------------------------------------


def test_a_planted_correlation_is_supported():
    found = correlation(study_tables.table(truth="planted"))
    assert found.verdict == "supported", found.reason


def test_a_positive_correlation_contradicts():
    found = correlation(study_tables.table(truth="positive"))
    assert found.verdict == "contradicted", found.reason


@pytest.mark.parametrize("seed", range(3))
def test_no_correlation_is_not_supported(seed):
    assert correlation(study_tables.table(seed)).verdict != "supported"


def test_one_architecture_alone_does_not_make_a_finding():
    table = study_tables.table(truth="one architecture")
    naive = statistics.correlation(table["ces_l2"][:18], table["dci_disentanglement"][:18])
    assert naive < -0.8, "taken run by run, the association looks overwhelming"
    found = correlation(table)
    assert found.verdict == "undecided", found.reason
    assert "not significant" in found.reason and "architectures are drawn again" in found.reason


def test_a_confounded_correlation_is_undecided_and_says_so():
    table = study_tables.table(truth="confounded")
    rows = findings.correlation_family(table, findings.EFFECT, findings.DISENTANGLEMENT)
    plain = [r for r in rows if r["stratum"] == "pooled" and not r["given"]]
    assert all(r["p_adjusted"] < 0.05 and r["high"] < 0 for r in plain)
    found = findings.correlation_verdict(rows)
    assert found.verdict == "undecided"
    assert "Not supported: given the covariates its interval reaches 0." in found.reason


def test_a_large_study_without_correlation_contradicts():
    assert correlation(study_tables.table(seeds=40)).verdict == "contradicted"


def test_the_family_is_every_plain_correlation():
    rows = findings.correlation_family(study_tables.table(), findings.EFFECT, findings.DISENTANGLEMENT)
    plain = [r for r in rows if not r["given"]]
    assert len(plain) == 2 * 2 * (5 + 1) and len(rows) == 2 * len(plain)
    expected = statistics.holm_sidak([r["p_value"] for r in plain])
    np.testing.assert_allclose([r["p_adjusted"] for r in plain], expected)
    assert all(np.isnan(r["p_adjusted"]) for r in rows if r["given"])
    assert {r["runs"] for r in plain if r["subset"] == "without VQ-VAE"} == {15, 75}


# --- (ii) ------------------------------------------------------------------------------------------------


def with_capacity(direction):
    """The beta-VAE's capacity as a share of the VAE's 10 latents and 20 nats, falling or rising with factors."""
    table = study_tables.table()
    factors = table["num_factors"][table["architecture"] == "beta"]
    share = np.clip(1 - 0.08 * (factors - 4), 0, 1) if direction < 0 else 0.5 + 0.05 * (factors - 4)
    for name, full in (("active_latents", 10.0), ("kl", 20.0)):
        table = study_tables.change(table, name, "vae", full)
        table = study_tables.change(table, name, "beta", full * share)
    return table


@pytest.mark.parametrize("direction, expected", [(-1, "supported"), (1, "contradicted")])
def test_capacity_that_falls_with_factors(direction, expected):
    assert capacity(with_capacity(direction)).verdict == expected


def test_capacity_of_noise_is_undecided_with_the_smallest_possible_p_value():
    found = capacity(study_tables.table(1))
    assert found.verdict == "undecided" and "no p-value can be below 0.008" in found.reason


def test_capacity_is_undecided_where_no_data_set_nears_the_latents():
    table = with_capacity(-1)
    table["latents"] = np.full(len(table["seed"]), 20.0)
    found = capacity(table)
    assert found.verdict == "undecided" and "No data set's number of factors nears" in found.reason


def test_capacity_leaves_out_sets_without_known_factors():
    table = with_capacity(-1)
    table["num_factors"] = np.where(
        np.isin(table["dataset"], ["celeba", "mpi3d", "dsprites"]), np.nan, table["num_factors"]
    )
    assert "there are 2" in capacity(table).reason


def test_capacity_trend_is_the_exact_permutation_test():
    trend = findings.capacity_by_factors(with_capacity(-1))["trends"]["kl"]
    assert trend["value"] == pytest.approx(-1)
    assert trend["p_value"] == pytest.approx(1 / 120, abs=1 / 240)  # one of 5! arrangements is as extreme
    assert trend["low"] == pytest.approx(-1) and trend["high"] == pytest.approx(-1)


# --- (iii) -----------------------------------------------------------------------------------------------


def with_winners(winners):
    table = study_tables.table()
    dci = 0.3 + 0.01 * np.random.default_rng(0).normal(size=len(table["seed"]))
    for dataset, winner in zip(study_tables.DATASETS, winners):
        dci[(table["dataset"] == dataset) & (table["label"] == winner)] += 0.3
    return {**table, "dci_disentanglement": dci}


def test_different_clear_winners_support_that_none_wins_everywhere():
    found = findings.study(with_winners(["factor", "betatc", "factor", "vae", "dip2"]))
    assert found["verdicts"][2]["verdict"] == "supported"
    winners = [w for w in found["winners"] if w["score"] == "dci_disentanglement"]
    assert [w["winner"] for w in winners] == ["factor", "betatc", "factor", "vae", "dip2"]
    assert all(w["single_run_chance"] == 1 and set(w["by_seed"].values()) == {w["winner"]} for w in winners)


def test_one_clear_winner_everywhere_contradicts():
    assert winner(with_winners(["betatc"] * 5)).verdict == "contradicted"


def test_different_winners_by_chance_are_undecided():
    found = winner(study_tables.table())
    assert found.verdict == "undecided" and "Not shown to be beaten anywhere" in found.reason


def test_an_architecture_that_failed_somewhere_does_not_win_everywhere():
    table = with_winners(["betatc"] * 5)
    failed = (table["dataset"] == "mpi3d") & (table["architecture"] == "betatc")
    found = winner(findings.rows_of(table, ~failed))
    assert found.verdict == "undecided", found.reason


def test_one_seed_cannot_tell_winners_from_chance():
    found = winner(study_tables.table(seeds=1))
    assert found.verdict == "undecided" and "One seed each" in found.reason


# --- (iv) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share, expected", [(0.0, "supported"), (0.02, "supported"), (0.6, "contradicted")])
def test_vq_strength_against_a_tenth_of_the_others(share, expected):
    table = study_tables.table()
    vq = table["architecture"] == "vq"
    found = near_zero(study_tables.change(table, "ces_l2", "vq", share * table["ces_l2"][vq]))
    assert found.verdict == expected, found.reason
    assert "by code swaps 8" in found.reason, "about 4.2 / 5 of the others' resampling strength"


def test_vq_strength_that_differs_between_data_sets_is_undecided():
    table = study_tables.table()
    vq = table["architecture"] == "vq"
    share = np.where(table["dataset"][vq] == "mpi3d", 0.4, 0.01)
    found = near_zero(study_tables.change(table, "ces_l2", "vq", share * table["ces_l2"][vq]))
    assert found.verdict == "undecided" and "Above 10% on: mpi3d" in found.reason


# --- the table -------------------------------------------------------------------------------------------


def test_incomplete_studies_are_undecided_rather_than_wrong():
    table = study_tables.table()
    found = findings.study(
        findings.rows_of(table, (table["architecture"] == "vae") & (table["dataset"] == "mpi3d"))
    )
    assert [v["verdict"] for v in found["verdicts"]] == ["undecided"] * 4
    assert found["design"]["runs"] == 3


def test_sources_are_never_mixed():
    table = study_tables.table()
    table["source"] = np.where(table["dataset"] == "mpi3d", "real", "procedural")
    with pytest.raises(ValueError, match="one data source; this one has procedural, real"):
        findings.study(table)
    with pytest.raises(ValueError, match="no runs"):
        findings.study(findings.rows_of(table, np.zeros(len(table["seed"]), bool)))


def test_the_same_table_gives_the_same_analysis():
    table = study_tables.table()
    assert repr(findings.study(table)) == repr(findings.study(table))
