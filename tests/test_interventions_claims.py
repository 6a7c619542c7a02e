"""Claims: adjusted p-values against plain loops, family-wise error on nulls by simulation, intervals, refusals."""

import jax
import numpy as np
import pytest

import causalvae as cv
from causalvae import circuits, planted
from causalvae import interventions as iv
from experiments import claims as simulation

KEY = jax.random.key(0)


def signs_of(key, flips, pairs):
    return np.asarray(jax.random.rademacher(key, (flips, pairs), "int8"), float)


def step_down(effects, signs):
    """Adjusted p-values by the definition: unit by unit, the largest statistic of all that are no stronger."""

    def statistic(values):
        return abs(values.sum()) / np.sqrt((values**2).sum())

    observed = np.array([statistic(e) for e in effects])
    flipped = np.array([[statistic(s * e) for e in effects] for s in signs])
    p = np.empty(len(effects))
    for unit in range(len(effects)):
        weaker = observed <= observed[unit]
        p[unit] = (1 + (flipped[:, weaker].max(axis=1) >= observed[unit] - 1e-9).sum()) / (1 + len(signs))
    return np.array([p[observed >= o].max() for o in observed]), p


@pytest.mark.parametrize("chunk", [1, 2**24])
def test_p_values_are_those_of_the_definition(chunk, monkeypatch):
    monkeypatch.setitem(iv.claims.__globals__, "CHUNK", chunk)
    generator = np.random.default_rng(1)
    effects = generator.standard_normal((7, 12)) + np.array([2, 1, 0.5, 0, 0, 0, 0])[:, None]
    effects[6] = effects[5]  # two units that are alike
    found = iv.claims(effects, KEY, draws=99)
    expected, _ = step_down(effects, signs_of(KEY, 99, 12))
    np.testing.assert_allclose(found.p_value, expected)
    assert found.claimed.tolist() == (expected <= 0.05).tolist() and found.claimed[0] and not found.claimed[3:].any()
    assert len(set(expected)) > 3
    twice = iv.claims(effects, KEY, draws=99, families=2)
    np.testing.assert_allclose(twice.p_value, np.minimum(2 * expected, 1))
    alike = np.random.default_rng(0).standard_normal((5, 12))
    alike += 0.4 - alike.mean(axis=1, keepdims=True)
    expected, single = step_down(alike, signs_of(KEY, 99, 12))
    assert (single < expected - 0.005).any()  # no p-value is below that of a stronger unit
    np.testing.assert_allclose(iv.claims(alike, KEY, draws=99).p_value, expected)


@pytest.mark.parametrize("name", ["normal", "dependent", "heavy", "sparse"])
def test_false_claims_on_nulls_are_at_most_five_per_cent_of_searches(name):
    """200 searches; five per cent is 10, and more than 18 has a chance of 0.4 %. Without correction most fail."""
    false = uncorrected = held = 0
    for seed in range(200):
        effects = simulation.DRAWS[name](np.random.default_rng(seed), (60, 24))
        effects[:3] += 1.0
        found = iv.claims(effects, jax.random.key(seed), draws=199)
        false += found.claimed[3:].any()
        uncorrected += simulation.uncorrected(effects, KEY)[3:].any()
        truth = np.repeat([1.0, 0.0], [3, 57])
        held += ((found.low <= truth) & (truth <= found.high)).all()
    assert false <= 18 and uncorrected > (20 if name == "sparse" else 100), (false, uncorrected)
    assert held >= (150 if name in ("sparse", "heavy") else 178), held  # approximate: see docs/claims.md


def test_skewed_effects_of_mean_zero_need_the_bootstrap():
    """Exponential less its mean: 10 of 200 is five per cent."""
    false = {"flips": 0, "bootstrap": 0}
    power = 0.0
    for seed in range(200):
        effects = simulation.skewed(np.random.default_rng(seed), (20, 48))
        effects[:3] += 1.0
        for method in false:
            found = iv.claims(effects, jax.random.key(seed), method=method, draws=199)
            false[method] += found.claimed[3:].any()
        power += found.claimed[:3].mean() / 200
    assert false["flips"] > 20 and false["bootstrap"] <= 18 and power > 0.5, (false, power)


def test_the_bootstraps_statistic_is_students_of_pairs_drawn_again():
    generator = np.random.default_rng(0)
    effects = generator.exponential(size=(2, 15)) - np.array([[0.2], [1.0]])
    found = iv.claims(effects, KEY, method="bootstrap", draws=199)
    chosen = np.asarray(jax.random.randint(KEY, (199, 15), 0, 15))

    def student(values, mean):
        return (values.mean(-1) - mean) / (values.std(-1, ddof=1) / np.sqrt(15))

    observed = np.abs(student(effects, 0))
    drawn = np.abs(student(effects[:, chosen], effects.mean(1)[:, None]))  # [2, draws]
    strong = int(observed.argmax())
    expected = np.empty(2)
    expected[strong] = (1 + (drawn.max(0) >= observed[strong]).sum()) / 200
    expected[1 - strong] = max(expected[strong], (1 + (drawn[1 - strong] >= observed[1 - strong]).sum()) / 200)
    np.testing.assert_allclose(found.p_value, expected)
    critical = np.sort(drawn.max(0))[189]
    np.testing.assert_allclose((found.high - found.low) / 2, critical * effects.std(1, ddof=1) / np.sqrt(15))


def test_other_methods_and_the_tables_of_the_simulation(monkeypatch):
    monkeypatch.setattr(simulation, "DRAWN", 99)
    found = simulation.simulate(simulation.normal, simulations=4, units=30, pairs=32)
    assert all(rate <= 0.25 for name, rate in found.null.items() if name != "uncorrected")
    assert min(found.power.values()) > 0.3 and found.null["uncorrected"] > 0.4 and min(found.coverage.values()) >= 0.5
    assert simulation.page({"normal": found}).count("\n| normal | ") == 4


def test_one_unit_has_the_interval_of_students_t():
    effects = np.random.default_rng(0).normal(0.3, 1, (1, 400))
    found = iv.claims(effects, KEY, draws=4000)
    half = 1.966 * effects.std(ddof=1) / 20
    np.testing.assert_allclose([found.low[0], found.high[0]], effects.mean() + np.array([-half, half]), atol=0.01)
    several = iv.claims(np.concatenate([effects, np.random.default_rng(1).normal(size=(99, 400))]), KEY)
    assert (several.high - several.low)[0] > 1.6 * (found.high - found.low)[0]  # 3.5 for 2.0


def test_shares_of_totals_least_effects_and_pairs_left_out():
    generator = np.random.default_rng(0)
    total = generator.uniform(1, 3, 40)
    effects = np.stack([0.5 * total, 0.05 * total, -0.3 * total, 0 * total]) + 0.01 * generator.standard_normal((4, 40))
    total[3], effects[:, 3] = np.nan, np.nan
    any_effect = iv.claims(effects, KEY, total=total)
    np.testing.assert_allclose(any_effect.effect, [0.5, 0.05, -0.3, 0], atol=0.01)
    assert any_effect.claimed.tolist() == [True, True, True, False]
    assert (any_effect.pairs, any_effect.left_out) == (39, 1)
    assert (any_effect.low <= [0.5, 0.05, -0.3, 0]).all() and (any_effect.high >= [0.5, 0.05, -0.3, 0]).all()
    assert iv.claims(effects, KEY, total=total, least=0.1).claimed.tolist() == [True, False, True, False]
    assert iv.claims(effects, KEY, total=total, least=0.4).claimed.tolist() == [True, False, False, False]
    turned = iv.claims(-effects, KEY, total=-total, least=0.1)
    np.testing.assert_allclose(turned.effect, any_effect.effect)
    assert turned.claimed.tolist() == [True, False, True, False]


def test_rounding_is_no_effect_and_edges_keep_their_shape():
    effects = np.stack([np.full((3, 20), 1e-7), np.full((3, 20), 0.5), np.zeros((3, 20))])
    found = iv.claims(effects, KEY, total=np.ones(20))
    assert found.claimed.tolist() == [[False] * 3, [True] * 3, [False] * 3] and found.p_value[0, 0] == 1
    np.testing.assert_array_equal(found.low[1], found.high[1])
    table = cv.frame(found)
    assert table.query("sender == 1 and receiver == 2").claimed.item() and len(table) == 9 and (table.pairs == 20).all()
    assert cv.frame(iv.claims(effects[1], KEY), units=["a", "b", "c"]).unit.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("method", ["flips", "bootstrap"])
def test_few_pairs_give_no_bound_and_one_pair_no_claim(method):
    effects = np.array([[1.0, 1.1, 0.9, 1.2], [0, 0, 0, 0]])
    for pairs in (1, 2):
        found = iv.claims(effects[:, :pairs], jax.random.key(0), method=method)
        assert not found.claimed.any() and np.isinf(found.high).tolist() == [True, False]
    nothing = iv.claims(effects, jax.random.key(0), method=method, total=np.zeros(4))
    assert np.isnan(nothing.effect).all() and nothing.p_value[1] == 1, "no shares of nothing"


def test_units_of_several_sites_that_carry_planted_factors():
    model = planted.plant("merged")
    pairs = {
        name: iv.counterfactuals(model.dataset, jax.random.fold_in(KEY, k), name, 16)
        for k, name in enumerate(planted.FACTORS)
    }
    found = circuits.carriers(model.model, model.params, pairs, ["encoder/hidden", "latent/z"])
    for site, factors in found.items():
        for k, (name, claimed) in enumerate(factors.items()):
            shares = model.truth.fractions[site][:, k]
            assert claimed.claimed.tolist() == (np.abs(shares) > 0).tolist(), (site, name)
            np.testing.assert_allclose(claimed.effect, shares, atol=1e-4)
    table = cv.frame(found)
    assert table.groupby(["site", "factor"]).claimed.sum().to_dict()["latent/z", "first"] == 1 and len(table) == 54
    assert cv.frame(found["latent/z"], units=list("abcdef")).query("factor == 'third' and unit == 'c'").claimed.item()
    few = circuits.carriers(model.model, model.params, {"first": pairs["first"]}, "latent/z", least=1.1)
    assert not few["latent/z"]["first"].claimed.any()


def test_what_cannot_be_claimed_is_refused():
    effects = np.ones((2, 8))
    with pytest.raises(ValueError, match="no pair of which all effects are defined"):
        iv.claims(effects * np.nan, KEY)
    with pytest.raises(ValueError, match="level 0.005 .* with 99 draws"):
        iv.claims(effects, KEY, draws=99, families=10)
    with pytest.raises(ValueError, match="no method 'e'; there are: flips, bootstrap"):
        iv.claims(effects, KEY, method="e")
    with pytest.raises(ValueError, match="least is a size"):
        iv.claims(effects, KEY, least=-0.1)
    with pytest.raises(ValueError, match=r"one for each of the 8 pairs, not \[2\]"):
        iv.claims(effects, KEY, total=np.ones(2))
