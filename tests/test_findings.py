"""Verdicts on tables with known truth: planted, none, driven by one architecture, confounded, and their like."""

import itertools

import numpy as np
import pytest
import study_tables

from experiments.report import comparisons, findings, statistics
from experiments.report.capacity import capacity_by_factors, capacity_verdict
from experiments.report.correlations import correlation_family, correlation_verdict
from experiments.report.near_zero import SHARE_LEVEL, near_zero_verdict, vq_strength
from experiments.report.tables import DISENTANGLEMENT, EFFECT, rows_of
from experiments.report.winners import winner_verdict, winners_by_score


def correlation(table):
    return correlation_verdict(correlation_family(table, EFFECT, DISENTANGLEMENT))


def capacity(table):
    return capacity_verdict(capacity_by_factors(table))


def winner(table):
    return winner_verdict(table, winners_by_score(table))


def near_zero(table):
    return near_zero_verdict(vq_strength(table))


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
    assert "not significant" in found.reason and "its interval over architectures reaches 0" in found.reason


def test_a_confounded_correlation_is_undecided_and_says_so():
    table = study_tables.table(truth="confounded")
    rows = correlation_family(table, EFFECT, DISENTANGLEMENT)
    plain = [r for r in rows if r["stratum"] == "pooled" and not r["given"]]
    assert all(r["p_value"] < 0.05 and r["high"] < 0 for r in plain)
    found = correlation_verdict(rows)
    assert found.verdict == "undecided"
    assert "Not supported: given the covariates its interval reaches 0." in found.reason


def test_a_large_study_without_correlation_contradicts():
    assert correlation(study_tables.table(seeds=40)).verdict == "contradicted"


def test_the_family_is_every_plain_correlation():
    rows = correlation_family(study_tables.table(), EFFECT, DISENTANGLEMENT)
    plain = [r for r in rows if not r["given"]]
    assert len(plain) == 2 * 2 * (5 + 1) and len(rows) == 2 * len(plain)
    expected = comparisons.holm_sidak([r["p_value"] for r in plain])
    np.testing.assert_allclose([r["p_adjusted"] for r in plain], expected)
    assert all(np.isnan(r["p_adjusted"]) for r in rows if r["given"])
    assert {r["runs"] for r in plain if r["subset"] == "without VQ-VAE"} == {15, 75}


# --- (ii) ------------------------------------------------------------------------------------------------


def with_capacity(slope, seeds=2, noise=0.02):
    """VAE and beta-VAE with 4 to 16 latents on two data sets; the beta-VAE's capacity as a share of the VAE's changes
    by `slope` for each factor per latent."""
    rows = list(itertools.product(("dsprites", "3dshapes"), (4, 6, 8, 10, 16), ("vae", "beta"), range(seeds)))
    datasets, latents, architectures, numbers = (np.array(values) for values in zip(*rows))
    factors = np.where(datasets == "dsprites", 5, 6)
    share = np.where(architectures == "beta", 0.8 + slope * factors / latents, 1)
    rng = np.random.default_rng(0)
    capacities = {"active_latents": 10 * share, "kl": 20 * share}
    return {
        "architecture": architectures,
        "variant": np.array([f"latents={n}" if n != 10 else "" for n in latents]),
        "dataset": datasets,
        "seed": numbers,
        "num_factors": factors.astype(float),
        "latents": latents.astype(float),
        **{name: values * (1 + noise * rng.normal(size=len(rows))) for name, values in capacities.items()},
    }


@pytest.mark.parametrize("slope, expected", [(-0.4, "supported"), (0.3, "contradicted"), (0.0, "contradicted")])
def test_capacity_that_changes_with_factors_per_latent(slope, expected):
    found = capacity(with_capacity(slope))
    assert found.verdict == expected, found.reason


def test_capacity_with_noise_as_large_as_the_loss_is_undecided():
    assert capacity(with_capacity(-0.1, noise=0.3)).verdict == "undecided"


def test_capacity_trend_is_the_regression_within_data_sets():
    table = with_capacity(-0.3)
    ratios, x, which = [], [], []
    for dataset, latents in itertools.product(("dsprites", "3dshapes"), (4, 6, 8, 10, 16)):
        here = (table["dataset"] == dataset) & (table["latents"] == latents)
        beta, vae = (table["kl"][here & (table["architecture"] == name)].mean() for name in ("beta", "vae"))
        ratios.append(beta / vae)
        x.append(table["num_factors"][here][0] / latents)
        which.append(dataset == "dsprites")
    design = np.stack([x, np.array(which), ~np.array(which)], axis=1).astype(float)
    trend = capacity_by_factors(table)["trends"]["kl"]
    assert trend["value"] == pytest.approx(np.linalg.lstsq(design, np.array(ratios), rcond=None)[0][0])
    assert trend["low"] < -0.3 < trend["high"]


def test_capacity_counts_the_architectures_as_they_are_by_default():
    table = with_capacity(-0.4)
    extra = rows_of(table, (table["architecture"] == "beta") & (table["latents"] == 10))
    extra = {**extra, "variant": np.full(len(extra["seed"]), "beta=16.0"), "kl": np.full(len(extra["seed"]), 1e3)}
    both = {name: np.concatenate([table[name], extra[name]]) for name in table}
    assert repr(capacity_by_factors(both)) == repr(capacity_by_factors(table))


def test_capacity_that_has_collapsed_in_every_run_is_a_loss():
    table = with_capacity(-0.4)
    collapsed = (table["architecture"] == "beta") & (table["latents"] == 4)
    for name in ("kl", "active_latents"):
        table[name] = np.where(collapsed, 0, table[name])
    assert capacity(table).verdict == "supported"


def test_capacity_over_data_sets_alone_is_undecided():
    assert "3 numbers of latents on a data set" in capacity(study_tables.table(1)).reason


def test_capacity_is_undecided_where_factors_never_near_the_latents():
    table = with_capacity(-0.4)
    table["num_factors"] = np.full(len(table["seed"]), 2.0)
    found = capacity(table)
    assert found.verdict == "undecided" and "nowhere nears" in found.reason


def test_runs_of_other_sizes_leave_the_other_findings():
    table = study_tables.table(seeds=1)
    other = {**table, "latents": np.full(len(table["seed"]), 4.0), "ces_l2": table["ces_l2"][::-1]}
    keep = np.arange(len(table["seed"])) % 5 == 0
    both = {name: np.concatenate([table[name], other[name][keep]]) for name in table}
    assert repr(findings.study(both)["correlations"]) == repr(findings.study(table)["correlations"])


def test_variants_enter_the_correlations_and_no_finding_about_architectures():
    table = study_tables.table(seeds=2)
    varied = {**table, "dci_disentanglement": table["dci_disentanglement"] + 9, "ces_l2": 0 * table["ces_l2"] + 1}
    varied["variant"] = np.array(["x=2"] * len(table["seed"]))
    varied["label"] = np.array([f"{name} (x=2)" for name in table["architecture"]])
    keep = np.isin(table["dataset"], ("dsprites", "3dshapes")) & (table["seed"] == 0)
    both = {name: np.concatenate([table[name], varied[name][keep]]) for name in table}
    plain, found = findings.study(table), findings.study(both)
    for name in ("winners", "near_zero"):
        assert repr(found[name]) == repr(plain[name])
    assert found["verdicts"][2:] == plain["verdicts"][2:]
    assert found["design"]["runs"] == len(both["seed"]) and repr(found["correlations"]) != repr(plain["correlations"])
    alone = {name: np.concatenate([table[name][table["architecture"] != "vq"], varied[name][keep]]) for name in table}
    assert np.isfinite(findings.study(alone)["near_zero"][0]["value"]), "vq ran in variants only, and they stand for it"


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
    assert all(w["chances"][w["winner"]] == 1 and sum(w["chances"].values()) == pytest.approx(1) for w in winners)


def test_one_clear_winner_everywhere_contradicts():
    assert winner(with_winners(["betatc"] * 5)).verdict == "contradicted"


def test_different_winners_by_chance_are_undecided():
    found = winner(study_tables.table())
    assert found.verdict == "undecided" and "Not shown to be beaten anywhere" in found.reason


def test_an_architecture_that_failed_somewhere_does_not_win_everywhere():
    table = with_winners(["betatc"] * 5)
    failed = (table["dataset"] == "mpi3d") & (table["architecture"] == "betatc")
    found = winner(rows_of(table, ~failed))
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


def test_vq_strength_is_welchs_interval_of_seeds_and_architectures():
    table = study_tables.table()
    here = rows_of(table, table["dataset"] == "mpi3d")
    vq = here["ces_l2"][here["architecture"] == "vq"]
    others = np.log(here["ces_l2"][here["architecture"] != "vq"].reshape(5, 3).mean(axis=1))
    ratio = vq.mean() / np.exp(others.mean())
    parts = [vq.var(ddof=1) / 3 / vq.mean() ** 2, others.var(ddof=1) / 5]
    expected = np.exp(statistics.t_interval(np.log(ratio), parts, [2, 4], SHARE_LEVEL))
    row = next(r for r in vq_strength(table) if (r["kind"], r["dataset"]) == ("sweep", "mpi3d"))
    assert row["value"] == pytest.approx(ratio) and (row["low"], row["high"]) == pytest.approx(expected)


def test_vq_strength_of_one_seed_is_undecided():
    table = study_tables.table(seeds=1)
    vq = table["architecture"] == "vq"
    assert near_zero(study_tables.change(table, "ces_l2", "vq", 0.01 * table["ces_l2"][vq])).verdict == "undecided"


def test_vq_strength_that_differs_between_data_sets_is_undecided():
    table = study_tables.table()
    vq = table["architecture"] == "vq"
    share = np.where(table["dataset"][vq] == "mpi3d", 0.4, 0.01)
    found = near_zero(study_tables.change(table, "ces_l2", "vq", share * table["ces_l2"][vq]))
    assert found.verdict == "undecided" and "Above 10% on: mpi3d" in found.reason


# --- the table -------------------------------------------------------------------------------------------


def test_incomplete_studies_are_undecided_rather_than_wrong():
    table = study_tables.table()
    found = findings.study(rows_of(table, (table["architecture"] == "vae") & (table["dataset"] == "mpi3d")))
    assert [v["verdict"] for v in found["verdicts"]] == ["undecided"] * 4
    assert found["design"]["runs"] == 3


def test_sources_are_never_mixed():
    table = study_tables.table()
    table["source"] = np.where(table["dataset"] == "mpi3d", "real", "procedural")
    with pytest.raises(ValueError, match="one data source; this one has procedural, real"):
        findings.study(table)
    with pytest.raises(ValueError, match="no runs"):
        findings.study(rows_of(table, np.zeros(len(table["seed"]), bool)))


def test_the_same_table_gives_the_same_analysis():
    table = study_tables.table()
    assert repr(findings.study(table)) == repr(findings.study(table))
