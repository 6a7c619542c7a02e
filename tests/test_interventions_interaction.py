"""Interaction beside effects: shares against numpy and closed forms, by distance, in words, tables and reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import causalvae as cv
from causalvae import evaluation, planted
from causalvae import interventions as iv
from experiments.report import interaction as report

KEY = jax.random.key(0)


def product_of_two(params, x, key=None, tap=planted.no_tap):
    """z = a + strength a b for inputs a and b."""
    del key
    h = tap("hidden", x)
    z = tap("latent/z", h[:, :1] + params * h[:, :1] * h[:, 1:])
    return planted.Outputs(z, z, z, None)


def test_shares_of_a_product_are_its_closed_form_and_grow_with_the_distance():
    step = np.linspace(0.1, 2, 80, dtype=np.float32)[:, None]
    x = np.ones((80, 2), np.float32)
    pairs = x, x + step
    found = iv.mediate(product_of_two, jnp.float32(0.5), pairs, "hidden", outcome=iv.LatentOutcome(0))
    interaction, total = 0.5 * step[:, 0] ** 2, step[:, 0] * 2 + 0.5 * step[:, 0] ** 2
    np.testing.assert_allclose(found.interaction, np.stack([interaction] * 2), atol=1e-5)
    np.testing.assert_allclose(found.distance, step[:, 0], rtol=1e-5)
    summary = iv.summarize(found, KEY, num=20, limit=0.2)
    share = summary.interaction_share
    np.testing.assert_allclose(share.share.mean, [interaction.sum() / total.sum()] * 2, rtol=1e-4)
    assert (share.share.low <= share.share.mean).all() and (share.share.mean <= share.share.high).all()
    expected = [(interaction[i : i + 20].sum() / total[i : i + 20].sum()) for i in range(0, 80, 20)]
    np.testing.assert_allclose(share.binned, [expected] * 2, rtol=1e-4)
    np.testing.assert_allclose(share.distance, step[:, 0].reshape(4, 20).mean(1), rtol=1e-5)
    assert share.pairs.tolist() == [20] * 4 and not share.well_defined.any()
    (text, _) = share.in_words(["z0", "z1"])
    assert text.startswith("the effect through z0 is not well defined: its interaction with the rest is 25%")
    assert text.endswith("it is at distances around 0.328, 0.809") and expected[1] < 0.2 < expected[2]
    some = iv.summarize(found, KEY, num=20, limit=0.29).interaction_share
    assert some.well_defined.all() and "not well defined at distances around 1.77: " in some.in_words()[0]
    assert iv.summarize(found, KEY, num=20, limit=0.4).interaction_share.in_words() == []
    affine = iv.mediate(product_of_two, jnp.float32(0), pairs, "hidden", outcome=iv.LatentOutcome(0))
    np.testing.assert_allclose(iv.summarize(affine, KEY, num=20).interaction_share.share.high, 0, atol=1e-6)


def test_interactions_that_cancel_in_the_mean_count_and_pairs_left_out_do_not():
    total, interaction = np.ones(8), np.array([[0.5, -0.5] * 4])
    total[:2] = np.nan
    mediation = iv.Mediation(*map(jnp.float32, (total, 1 - interaction, 0 * interaction, interaction)))
    summary = iv.summarize(mediation._replace(distance=jnp.arange(8.0)), KEY, num=20, bins=2)
    assert abs(float(summary.interaction.mean[0])) < 1e-6
    np.testing.assert_allclose(summary.interaction_share.share.mean, 0.5, rtol=1e-6)
    assert summary.interaction_share.pairs.tolist() == [3, 3]
    np.testing.assert_allclose(summary.interaction_share.distance, [3, 6])
    without = iv.summarize(mediation, KEY, num=20).interaction_share
    assert without.binned.shape == (1, 0) and "50% of the total effect, and the limit is 10%" in without.in_words()[0]


@pytest.mark.parametrize("noise", [-1, 0, 1])
def test_rounding_does_not_deal_equal_distances_to_bins(noise):
    distance = jnp.float32(np.repeat([1.0, 2.0, 4.0], 4) * (1 + noise * 2.0**-23 * np.tile([1, -1], 6)))
    ones = jnp.ones((1, 12))
    mediation = iv.Mediation(ones[0], ones, ones, 0 * ones, distance)
    assert iv.summarize(mediation, KEY, num=20, bins=4).interaction_share.pairs.tolist() == [0, 4, 4, 4]


def test_tables_and_figures_of_interaction():
    mediation = iv.Mediation(*map(jnp.float32, (np.ones(4), np.ones((2, 4)), np.ones((2, 4)), -np.ones((2, 4)))))
    summary = iv.summarize(mediation._replace(distance=jnp.arange(4.0)), KEY, num=20, bins=2)
    table = cv.frame(summary, units=["a", "b"])
    assert table.query("effect == 'indirect'").interaction_share.tolist() == [1, 1]
    assert not table.query("unit == 'a'").well_defined.any() and len(table) == 9
    bins = cv.frame(summary.interaction_share, units=["a", "b"])
    assert len(bins) == 4 and bins.query("unit == 'b' and bin == 1")[["binned", "distance"]].values.tolist() == [
        [1, 2.5]
    ]
    assert cv.frame(mediation._replace(distance=jnp.arange(4.0))).query("pair == 3").distance.tolist() == [3, 3]
    estimate = np.ones((2, 3, 3))
    found = evaluation.Mediated(("indirect", "direct", "interaction"), estimate, estimate, estimate, np.zeros(2))
    sound = np.array([[True, False, True]] * 2)
    marked = found._replace(interaction_share=0.3 * ~sound, well_defined=sound, limit=0.1)
    assert cv.frame(marked).query("latent == 'z1'").well_defined.sum() == 0
    assert "well_defined" not in cv.frame(found).columns
    drawn = [cv.figures.mediation_effects(m, ("a", "b"), "made up") for m in (found, marked)]
    hatches = [[bar.get_hatch() or "" for bar in figure.axes[0].patches] for figure in drawn]
    assert set(hatches[0]) == {""} and [bool(hatch) for hatch in hatches[1][:3]] == [False, True, False]
    assert ["hatched: " in " ".join(text.get_text() for text in figure.texts) for figure in drawn] == [False, True]


def test_the_words_of_a_report():
    share = np.array([[0.3, 0.02], [0.0, 0.5]])
    mediation = {
        "effects": ["indirect", "direct", "interaction"],
        "estimate": np.stack([[[0.6, 0.4], [0.0, 0.02]]] * 3, axis=-1).tolist(),
    }
    record = {"label": "vae", "data": {"factors": {"shape": 3, "scale": 6}}, "mediation": mediation}
    assert report.sentence(record) == "" and report.lines([record, None]) == []  # of an earlier version
    mediation |= {
        "interaction_share": share.tolist(),
        "limit": 0.1,
        "share_by_distance": np.stack([share] * 2, -1) * [0.5, 2],
    }
    text = report.sentence(record)
    assert "not well defined for 1 of 2 latents that carry at least 5%" in text and "(shape through z0 30%)" in text
    assert text.endswith("In the median it is 8% between near images and 32% between far ones.")
    assert report.lines([record]) == [f"VAE: {text}"]
    mediation["limit"] = 0.4
    assert report.sentence(record).startswith("“the effect through” is well defined for all 2 latents")
    mediation["estimate"] = [[[0.0] * 3] * 2, [[None] * 3] * 2]
    assert report.sentence(record).startswith("no latents that carry")
