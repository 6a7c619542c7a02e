"""The specification curve on planted tables: every estimate against the study's own statistics, and the joint test."""

import itertools

import numpy as np
import pytest
import study_tables

from experiments.report import correlations, figures, specification, strata, tables


def table_with_masks(seed: int = 0, slope: float = 0.0, dead: float = 0.0):
    """A study's table with means over all latents beside those over active ones. `slope` ties strength to DCI;
    `dead`: models of high DCI have dead latents, which pull the mean over all down."""
    table = study_tables.table(seed, truth="none")
    rng = np.random.default_rng([seed, 5])
    n = len(table["seed"])
    dci = rng.normal(size=n)
    effect = slope * dci + np.sqrt(1 - slope**2) * rng.normal(size=n)
    over_all = effect - dead * dci
    return {
        **table,
        "active_latents": rng.normal(size=n),
        "dci_disentanglement": dci,
        "mig": dci + 0.1 * rng.normal(size=n),
        **{f"ces{family}_l2": effect + 0.1 * rng.normal(size=n) for family in ("", "_resample")},
        **{f"ces{family}_l2_all": over_all + 0.1 * rng.normal(size=n) for family in ("", "_resample")},
    }


def test_every_combination_is_the_studys_own_correlation():
    table = table_with_masks(slope=-0.5)
    found = specification.curve(table, permutations=9)
    # Families × masks × scores × (all runs, each of six architectures left out) × three ways of correlating.
    assert len(found["specifications"]) == 2 * 2 * 2 * 7 * 3
    assert [row["value"] for row in found["specifications"]] == sorted(row["value"] for row in found["specifications"])
    columns = {"sweep ±3": "ces", "resample": "ces_resample"}
    checked = 0
    for row in found["specifications"]:
        if row["mean over"] != "all latents" or row["score"] != "MIG" or row["runs"] not in ("all runs", "without vq"):
            continue
        here = table if row["runs"] == "all runs" else tables.rows_of(table, table["architecture"] != "vq")
        partial = row["correlation"] == "partial"
        expected = strata.within_strata_correlations(
            here[f"{columns[row['family']]}_l2_all"],
            here["mig"],
            here["architecture"],
            here["dataset"],
            [here[name] for name in tables.COVARIATES] if partial else [],
            "spearman" if row["correlation"] == "Spearman" else "pearson",
            permutations=9,
        )[-1]
        np.testing.assert_allclose(
            [row["value"], row["low"], row["high"]], [expected.value, expected.low, expected.high], atol=1e-9
        )
        checked += 1
    assert checked == 2 * 2 * 3


def test_a_planted_correlation_is_in_every_combination_and_in_the_joint_test():
    found = specification.curve(table_with_masks(slope=-0.8), permutations=199)
    assert found["share_negative"] == 1 and found["median"] < -0.6 and found["p_value"] == pytest.approx(1 / 200)
    paper = found["specifications"][specification.paper_index(found)]
    assert tuple(paper[name] for name in specification.DIMENSIONS) == specification.PAPER
    rows = correlations.correlation_rows(table_with_masks(slope=-0.8), "ces_l2", "dci_disentanglement", (), 0, "all")
    pooled = next(row for row in rows if (row["stratum"], row["method"]) == ("pooled", "pearson"))
    keys = ("value", "low", "high")
    assert [paper[key] for key in keys] == pytest.approx([pooled[key] for key in keys])


def test_a_sign_that_is_a_choice_of_mask_is_seen():
    """As on published models: positive over active latents, negative over all."""
    found = specification.curve(table_with_masks(slope=0.6, dead=1.5), permutations=99)
    rows = {row["is"]: row for row in specification.shares(found) if row["choice of"] == "mean over"}
    assert rows["active latents"]["negative"] < 0.05 and rows["all latents"]["negative"] > 0.95
    assert 0.4 < found["share_negative"] < 0.6
    assert ("distance", "l2") not in specification.choices(found), "where there is one, there is no choice"
    assert "168 combinations over 90 runs" in specification.sentence(found)


def test_the_joint_test_keeps_its_level_where_architectures_differ():
    """Strength and disentanglement each differ between architectures, and have nothing to do with each other."""
    p_values = []
    for i in range(40):
        table, rng = table_with_masks(i), np.random.default_rng([i, 11])
        kinds = np.unique(table["architecture"], return_inverse=True)[1]
        shift, other = 3 * rng.normal(size=(2, 6))[:, kinds]
        table |= {name: table[name] + shift for name in table if name.startswith("ces") and "." not in name}
        table |= {name: table[name] + other for name in ("dci_disentanglement", "mig")}
        p_values.append(specification.curve(table, seed=i, permutations=99)["p_value"])
    assert np.mean(np.array(p_values) <= 0.05) < 0.12


def test_residuals_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    values, given = rng.normal(size=(4, 20)), rng.normal(size=(2, 20))
    design = np.stack([np.ones(20), *given], axis=1)
    expected = values.T - design @ np.linalg.lstsq(design, values.T, rcond=None)[0]
    np.testing.assert_allclose(specification.residuals(values, given), expected.T, atol=1e-12)
    doubled = np.stack([given[0], 2 * given[0] + 1])
    alone = specification.residuals(values, given[:1])
    np.testing.assert_allclose(specification.residuals(values, doubled), alone, atol=1e-9)
    assert np.isnan(specification.residuals(3 * given[:1] - 1, given)).all()
    constant = specification.residuals(values, np.ones((1, 20)))
    np.testing.assert_allclose(constant, values - values.mean(axis=1, keepdims=True), atol=1e-12)


def test_what_a_table_does_not_hold_is_left_out():
    table = table_with_masks()
    rare = {**table, "factorvae": np.where(np.arange(len(table["seed"])) < 30, 0.5, np.nan)}
    assert len(specification.curve(rare, permutations=9)["specifications"]) == 168
    assert specification.curve({**table, "ces_l2": np.full(len(table["seed"]), np.nan)}) is None
    one = tables.rows_of(table, (table["architecture"] == "vae") & (table["dataset"] == "mpi3d"))
    few = specification.curve(one, permutations=9)
    assert all(np.isnan([row["low"], row["high"]]).all() for row in few["specifications"])


def test_the_figure_shows_every_choice():
    found = specification.curve(table_with_masks(slope=0.6, dead=1.5), permutations=9)
    figure = figures.specification_curve(found, "procedural")
    labels = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert labels == [f"{dimension}: {choice}" for dimension, choice in specification.choices(found)]
    assert len(labels) == 2 + 2 + 2 + 7 + 3
    drawn = figure.axes[0].collections[0].get_segments()
    assert len(drawn) == len(found["specifications"])
    assert figures.specification_curve(None, "procedural") is None
    assert set(itertools.chain(*(row.keys() for row in found["specifications"]))) >= set(specification.DIMENSIONS)
