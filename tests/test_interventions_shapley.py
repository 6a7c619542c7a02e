"""Shapley shares against all orders in plain numpy, closed forms and single runs; sampled orders and their errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import causalvae as cv
from causalvae import interventions as iv
from causalvae import planted

KEY = jax.random.key(0)


def by_hand(params, a, b):
    """The outcome of hidden values a [n] where x passes the hidden layer as b: products of neighbors, and both."""
    return float(np.prod(a[:2]) + params * a[1] * a[2] ** 2 + np.max(a) + b * a[0])


def outcome_of_hidden(params, x, key=None, tap=planted.no_tap):
    del key
    h = tap("hidden", x[:, :-1])
    z = h[:, 0] * h[:, 1] + params * h[:, 1] * h[:, 2] ** 2 + jnp.max(h, axis=1) + x[:, -1] * h[:, 0]
    z = tap("latent/z", z[:, None])
    return planted.Outputs(z, z, z, None)


def all_orders(base, source, groups):
    """Shares [G + 1] of one pair: every order of groups of hidden values, the last player being the input past them."""
    players, shares = len(groups) + 1, np.zeros(len(groups) + 1)
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        # Who has not joined has base's values; what no group holds follows the rest.
        for place, player in enumerate(order):
            shares[player] += value(base, source, groups, order[: place + 1]) - value(
                base, source, groups, order[:place]
            )
    return shares / len(orders)


def value(base, source, groups, joined):
    rest = len(groups) in joined
    a = np.where(rest, source, base)[:-1].copy()
    for g, group in enumerate(groups):
        a[list(group)] = (source if g in joined else base)[list(group)]
    return by_hand(0.5, a, (source if rest else base)[-1])


X, SOURCE = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("groups", [[(0, 3), (2,)], [(0,), (1,), (2,), (3,)]])
def test_shares_equal_the_mean_over_all_orders_and_add_up(groups):
    masks = np.zeros((len(groups), 4), bool)
    for mask, group in zip(masks, groups):
        mask[list(group)] = True
    found = iv.shapley_effects(
        outcome_of_hidden,
        jnp.float32(0.5),
        (X, SOURCE),
        ("hidden", {"hidden": masks}),
        outcome=iv.LatentOutcome(0),
        chunk=5,
    )
    expected = np.stack([all_orders(x, s, groups) for x, s in zip(X, SOURCE)], axis=1)
    np.testing.assert_allclose(np.concatenate([found.shares, found.rest[None]]), expected, atol=2e-5)
    np.testing.assert_allclose(found.shares.sum(0) + found.rest, found.total, atol=2e-5)
    assert found.exact and (np.asarray(found.error) == 0).all()


def test_one_mediator_has_half_of_the_interaction():
    options = dict(outcome=iv.LatentOutcome(0))
    shares = iv.shapley_effects(outcome_of_hidden, jnp.float32(0.5), (X, SOURCE), ("hidden", [1]), **options)
    effects = iv.mediate(outcome_of_hidden, jnp.float32(0.5), (X, SOURCE), "hidden", groups=[1], **options)
    np.testing.assert_allclose(shares.shares, effects.indirect + effects.interaction / 2, atol=1e-5)
    np.testing.assert_allclose(shares.rest, (effects.direct + effects.interaction / 2)[0], atol=1e-5)


def test_sampled_orders_add_up_and_their_errors_are_those_of_repetitions():
    def shares(key):
        return iv.shapley_effects(
            outcome_of_hidden, jnp.float32(0.5), (X, SOURCE), "hidden", outcome=iv.LatentOutcome(0), samples=16, key=key
        )

    exact = iv.shapley_effects(outcome_of_hidden, jnp.float32(0.5), (X, SOURCE), "hidden", outcome=iv.LatentOutcome(0))
    drawn = [shares(jax.random.key(seed)) for seed in range(25)]
    for found in drawn[:3]:
        assert not found.exact
        np.testing.assert_allclose(found.shares.sum(0) + found.rest, found.total, atol=2e-5)
    means = np.array([[*found.shares.mean(1), found.rest.mean()] for found in drawn])
    errors = np.array([found.error for found in drawn])
    truth = np.array([*exact.shares.mean(1), exact.rest.mean()])
    spread = np.sqrt(((means - truth) ** 2).mean(0))
    assert (np.abs(means.mean(0) - truth) < 4 * spread / 5 + 1e-5).all()
    known = spread > 1e-5
    assert known.sum() >= 3 and (np.abs(np.sqrt((errors**2).mean(0)) / spread - 1)[known] < 0.35).all()


def test_cut_sets_have_no_rest_and_a_planted_mediator_its_share():
    cut = iv.shapley_effects(
        outcome_of_hidden, jnp.float32(0.5), (X, SOURCE), "latent/z", outcome=iv.LatentOutcome(0), chunk=5
    )
    np.testing.assert_allclose(cut.shares[0], cut.total, atol=1e-5)
    np.testing.assert_allclose(cut.rest, 0, atol=1e-5)
    # v and m: the mediator has its indirect effect and half of the interaction, v the direct and the other half.
    model = planted.plant("mediated", seed=1)
    reads = np.asarray(model.params["encoder"]["hidden"]).any(axis=0)
    active = np.flatnonzero(reads & (np.asarray(model.params["encoder"]["mean"])[:, 0] != 0))
    pairs = iv.counterfactuals(model.dataset, KEY, "first", 200, contrast=(0, 1))
    both = iv.shapley_effects(
        model.model, model.params, pairs, ("encoder/hidden", active), outcome=iv.LatentOutcome(0), chunk=200
    )
    mediator, effects = active.tolist().index(model.truth.mediator), model.truth.effects
    for place, effect in {mediator: effects.indirect, 1 - mediator: effects.direct}.items():
        assert abs(float(both.shares[place].mean()) - effect - effects.interaction / 2) < 0.06
    np.testing.assert_allclose(both.rest, 0, atol=1e-4)


def test_summaries_and_their_tables():
    total = np.array([np.nan, 1.0, 3.0, 2.0])
    shares = np.stack([0.25 * total, 0.5 * total])
    shapley = iv.Shapley(*map(jnp.float32, (total, shares, 0.25 * total, [0.1, 0.2, 0.3])), False)
    summary: iv.ShapleySummary = iv.summarize_shapley(shapley, KEY, num=50, relative=True)
    for estimate in (summary.shares.mean, summary.shares.low, summary.shares.high):
        np.testing.assert_allclose(estimate, [0.25, 0.5], rtol=1e-5)
    np.testing.assert_allclose(summary.error, [0.05, 0.1, 0.15], rtol=1e-5)
    table = cv.frame(summary, units=["a", "b"])
    assert table.unit.tolist() == ["a", "b", "rest"] and (table.left_out == 1).all()
    np.testing.assert_allclose(table["mean"], [0.25, 0.5, 0.25], rtol=1e-5)
    absolute = iv.summarize_shapley(shapley, KEY, num=50)
    assert float(absolute.total.mean) == 2 and float(absolute.rest.mean) == 0.5
    assert len(cv.frame(shapley)) == 8 and cv.frame(shapley).query("unit == 1 and pair == 2").shares.item() == 1.5
    with pytest.raises(ValueError, match="level between 0 and 1"):
        iv.summarize_shapley(shapley, KEY, level=95)


def test_bad_mediators_are_refused():
    call = outcome_of_hidden, jnp.float32(0.5), (X, SOURCE)
    with pytest.raises(ValueError, match="two mediators hold the same value of site 'hidden'"):
        iv.shapley_effects(*call, ("hidden", {"hidden": np.ones((2, 4), bool)}), outcome=iv.LatentOutcome(0))
    model = planted.plant("mediated")
    both = {site: np.ones((1, units), bool) for site, units in (("encoder/hidden", 12), ("latent/z", 6))}
    with pytest.raises(ValueError, match="mediators of 2 sites: one may act through another"):
        x = model.dataset.sample(KEY, 2)[1]
        iv.shapley_effects(model.model, model.params, (x, x[::-1]), ("latent/z", both))
    for samples in (2, 7):
        with pytest.raises(ValueError, match=f"even and at least 4, not {samples}"):
            iv.shapley_effects(*call, "hidden", outcome=iv.LatentOutcome(0), samples=samples)
