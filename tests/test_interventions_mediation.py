"""Mediation against closed forms, statsmodels and single runs; bootstrap intervals against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import statsmodels.formula.api as sm
from statsmodels.stats.mediation import Mediation

from causalvae import interventions as iv
from causalvae import planted, run, set_units

KEY = jax.random.key(0)
PLANTED = planted.plant("mediated", seed=1)
MEDIATOR = PLANTED.truth.mediator


def planted_pairs(num, key=KEY, world=PLANTED.dataset):
    return iv.counterfactuals(world, key, "first", num, contrast=(0, 1))


def mediate_latent(planted_model, pairs, **options):
    units = [planted_model.truth.mediator]
    outcome = iv.LatentOutcome(0)
    return iv.mediate(
        planted_model.model, planted_model.params, pairs, "encoder/hidden", groups=units, outcome=outcome, **options
    )


@pytest.mark.parametrize("product", [0.0, 0.1])
def test_effects_agree_with_statsmodels(product):
    model = planted.plant("mediated", seed=1, product=product)
    pairs = planted_pairs(800, world=model.dataset)
    ours = jax.tree.map(lambda e: float(e.mean()), mediate_latent(model, pairs))
    rows = []
    for treated, x in ((0, pairs.x), (1, pairs.x_source)):
        outputs, acts = run(model.model, model.params, x, capture=("encoder/hidden",))
        m, y = np.asarray(acts["encoder/hidden"])[:, model.truth.mediator], np.asarray(outputs.z)[:, 0]
        rows.append(pandas.DataFrame({"x": float(treated), "m": m, "y": y}))
    data = pandas.concat(rows, ignore_index=True)
    data["y"] += np.random.default_rng(0).normal(0, 0.01, len(data))
    np.random.seed(0)
    fits = sm.ols("y ~ x * m", data), sm.ols("m ~ x", data)
    table = Mediation(*fits, "x", "m").fit(n_rep=200).summary()["Estimate"]
    assert abs(ours.indirect - table["ACME (control)"]) < 0.03
    assert abs(ours.direct - table["ADE (control)"]) < 0.03
    assert abs(ours.total - table["Total effect"]) < 0.03
    assert abs(ours.interaction - (table["ACME (treated)"] - table["ACME (control)"])) < 0.03
    assert abs(ours.interaction) < 0.01 if product == 0 else ours.interaction > 0.5


def test_planted_effects_are_covered_by_their_intervals():
    truth, covered = PLANTED.truth.effects, np.zeros(4)
    for seed in range(100):
        key = jax.random.key(seed)
        summary = iv.summarize(mediate_latent(PLANTED, planted_pairs(200, key)), jax.random.fold_in(key, 1), num=400)
        for i, name in enumerate(truth._fields):
            estimate = getattr(summary, name)
            low, high = float(estimate.low.reshape(())), float(estimate.high.reshape(()))
            covered[i] += low <= getattr(truth, name) <= high
    assert (covered >= 90).all(), dict(zip(truth._fields, covered, strict=True))


def test_outcomes_units_and_several_mediators_equal_single_runs():
    model, params = PLANTED.model, PLANTED.params
    pairs = planted_pairs(5)
    weights = jnp.arange(6.0)
    readout = iv.mediate(model, params, pairs, "encoder/hidden", outcome=iv.FactorReadout(weights, 0.5))
    assert readout.indirect.shape == (planted.HIDDEN, 5) and readout.total.shape == (5,)
    value = int(np.flatnonzero(np.asarray(params["encoder"]["hidden"])[0])[0])
    masks = {"encoder/hidden": np.eye(planted.HIDDEN, dtype=bool)[[MEDIATOR, value]]}
    masks["encoder/hidden"][0, value] = True  # both together, and one alone
    joint = iv.mediate(model, params, pairs, "encoder/hidden", groups=masks)
    np.testing.assert_allclose(joint.indirect[0], joint.total, atol=1e-4)
    np.testing.assert_allclose(joint.direct[0], 0, atol=1e-4)
    source = run(model, params, pairs.x_source, capture=("encoder/hidden",))[1]["encoder/hidden"]
    base = run(model, params, pairs.x)[0]
    crossed, _ = run(model, params, pairs.x, edits={"encoder/hidden": set_units([value], source)})
    expected = (np.asarray(crossed.z) - np.asarray(base.z)) @ np.asarray(weights)
    np.testing.assert_allclose(readout.indirect[value], expected, atol=1e-5)
    both = iv.mediate(model, params, pairs, ("encoder/hidden", "latent/z"), groups="site")
    np.testing.assert_allclose(both.indirect[0], both.total, atol=1e-4)


def hidden_outcome(run, base, source):
    return run.activations["decoder/hidden"].sum(axis=1) - base.activations["decoder/hidden"].sum(axis=1)


def test_any_function_of_the_run_is_an_outcome():
    pairs = planted_pairs(4)
    found = iv.mediate(PLANTED.model, PLANTED.params, pairs, "latent/z", outcome=hidden_outcome)
    write = np.asarray(PLANTED.params["decoder"]["hidden"]).sum(axis=1)
    ends = [np.asarray(run(PLANTED.model, PLANTED.params, x)[0].z) for x in (pairs.x, pairs.x_source)]
    np.testing.assert_allclose(found.total, (ends[1] - ends[0]) @ write, atol=1e-4)
    np.testing.assert_allclose(found.indirect, ((ends[1] - ends[0]) * write).T, atol=1e-4)


def test_another_index_or_other_pairs_do_not_compile_again():
    traces = []

    def forward(params, x, key=None, tap=lambda site, value: value):
        traces.append(1)
        return planted.forward(params, x, key, tap)

    def traced(pairs, index):
        before = len(traces)
        iv.mediate(forward, PLANTED.params, pairs, "encoder/hidden", outcome=iv.LatentOutcome(index))
        return len(traces) - before

    first = traced(planted_pairs(6), 0)
    again = [traced(planted_pairs(6, jax.random.key(5)), index) for index in (0, 3, 5)]
    assert first > 2 and again == [0, 0, 0]


def test_bootstrap_intervals_equal_numpys_and_leave_undefined_pairs_out():
    generator = np.random.default_rng(0)
    total = generator.normal(1.0, 0.5, 60)
    indirect = generator.normal(0.4, 0.3, (3, 60))
    direct = generator.normal(0.5, 0.2, (3, 60))
    total[:10] = np.nan
    arrays = total, direct, indirect, total - direct - indirect
    mediation = iv.Mediation(*map(jnp.float32, arrays))
    summary = iv.summarize(mediation, KEY, num=4000, level=0.9)
    assert int(summary.pairs) == 50
    kept = indirect[:, 10:]
    drawn = generator.integers(0, 50, (4000, 50))
    expected = np.quantile(kept[:, drawn].mean(-1), [0.05, 0.95], axis=1)
    np.testing.assert_allclose(summary.indirect.mean, kept.mean(1), atol=1e-5)
    np.testing.assert_allclose(summary.indirect.low, expected[0], atol=0.006)
    np.testing.assert_allclose(summary.indirect.high, expected[1], atol=0.006)
    np.testing.assert_allclose(summary.proportion.mean, kept.mean(1) / total[10:].mean(), atol=1e-5)
    assert int(summary.left_out) == 10
    none = iv.summarize(mediation, KEY, tolerance=5.0)
    assert np.isnan(none.proportion.mean).all() and np.isfinite(none.indirect.low).all()


def test_totals_that_cancel_have_no_proportion_mediated():
    """Totals of +-1 whose mean is 1e-5: their ratio was 7,730, with an interval of draws on both sides of zero."""
    total = np.tile([1.0, -1.0], 30) + 1e-5
    indirect = np.random.default_rng(0).normal(size=(1, 60))
    mediation = iv.Mediation(*map(jnp.float32, (total, total - indirect, indirect, 0 * indirect)))
    summary = iv.summarize(mediation, KEY)
    assert np.isnan(summary.proportion.mean).all() and np.isfinite(summary.indirect.mean).all()
    # A mean above the tolerance whose draws are not: the ratio has a value, and no interval.
    some = iv.summarize(mediation._replace(total=mediation.total + 0.1), KEY)
    assert np.isfinite(some.proportion.mean).all() and np.isnan(some.proportion.low).all()


def test_effects_in_units_of_the_total_effect_are_ratios_of_sums():
    pairs = planted_pairs(30)
    x_source = pairs.x_source.at[0].set(pairs.x[0] + 1e-2 * (pairs.x_source[0] - pairs.x[0]))
    pairs = pairs.replace(x_source=x_source.at[1].set(pairs.x[1]))  # one that is nearly alike, and one that is
    model, params = PLANTED.model, PLANTED.params
    found = iv.mediate(model, params, pairs, "encoder/hidden", outcome=iv.unscaled_projection)
    summary = iv.summarize(found, KEY, relative=True)
    assert int(summary.left_out) == 1 and int(summary.pairs) == 29
    base, end = (np.asarray(run(model, params, x)[0].image, np.float64) for x in (pairs.x, pairs.x_source))
    np.testing.assert_allclose(np.nansum(found.total), ((end - base) ** 2).sum(), rtol=1e-3)
    assert np.isnan(found.total[1]) and not np.isnan(np.delete(found.total, 1)).any()
    for name in ("direct", "indirect", "interaction"):
        effect = np.asarray(getattr(found, name), np.float64)
        expected = np.nansum(effect, axis=1) / np.nansum(found.total)
        np.testing.assert_allclose(getattr(summary, name).mean, expected, atol=1e-5)
    parts = summary.direct.mean + summary.indirect.mean + summary.interaction.mean
    np.testing.assert_allclose(parts, 1, atol=1e-5)
    np.testing.assert_allclose(summary.total.mean, 1, atol=1e-6)
    scaled = iv.mediate(model, params, pairs, "encoder/hidden")
    weight = np.nan_to_num(found.total)
    np.testing.assert_allclose(np.nan_to_num(scaled.indirect) * weight, np.nan_to_num(found.indirect), atol=1e-4)


def test_bad_outcomes_are_refused():
    pairs, model, params = planted_pairs(4), PLANTED.model, PLANTED.params
    with pytest.raises(ValueError, match="no latent 6: the model has latents 0 to 5"):
        iv.mediate(model, params, pairs, "latent/z", outcome=iv.LatentOutcome(6))
    with pytest.raises(ValueError, match=r"one weight per latent \[6\], not \[5\]"):
        iv.mediate(model, params, pairs, "latent/z", outcome=iv.FactorReadout(jnp.ones(5)))
    with pytest.raises(ValueError, match=r"one number per pair, \[4\] for 4 pairs, .* returned \[4, 6\]"):
        iv.mediate(model, params, pairs, "latent/z", outcome=lambda run, base, source: run.outputs.z)
    with pytest.raises(ValueError, match=r"returned \[\]"):
        iv.mediate(model, params, pairs, "latent/z", outcome=lambda run, base, source: run.outputs.z.sum())
    with pytest.raises(ValueError, match="level between 0 and 1"):
        iv.summarize(iv.Mediation(*(jnp.ones((1, 2)),) * 4), KEY, level=95)
