"""What an evaluation says of codes, against counts in plain numpy."""

import itertools

import jax
import numpy as np
import pytest

from causalvae import architectures, data, evaluation, figures, interventions, metrics, planted
from causalvae.evaluation import latents, representations
from causalvae.evaluation.codes import code_usage


@pytest.mark.parametrize("kind", ["spatial", "latent"])
def test_rate_and_usage_of_discrete_codes(kind):
    """The rate is the entropy of the codes' usage, summed over what has a code."""
    dataset = data.load("dsprites", source="procedural")
    options = {"latents": 4, "network": "small", "codes": kind, "num_codes": 8}
    model = architectures.create("vq", image_shape=dataset.image_shape, **options)
    params = model.init(jax.random.key(0))
    encoded = evaluation.encode_sample(model, params, dataset, jax.random.key(1), 500)
    usage = code_usage(model, params, encoded)
    rate = representations.rate_score(encoded, usage)

    found = np.asarray(jax.jit(model.codebook.quantize)(params, encoded.mean))
    groups = found.reshape(500, -1) if kind == "latent" else found.reshape(-1, 1)
    shares = [np.bincount(group, minlength=8) / len(groups) for group in groups.T]
    np.testing.assert_allclose(usage, shares, atol=1e-6)
    entropies = [-sum(p * np.log(p) for p in share if p > 0) for share in shares]
    positions = found[0].size if kind == "spatial" else 1
    assert rate.value == pytest.approx(positions * sum(entropies), rel=1e-5) and rate.value > 0.01
    assert rate.settings["uniform_prior"] == pytest.approx(found[0].size * np.log(8))
    assert rate.value <= rate.settings["uniform_prior"]


def test_the_error_of_resampled_strengths_is_that_of_both_indices():
    """Of a planted linear model, against a jackknife that leaves out each image with all values taken from it."""
    model = planted.plant("rotated")
    settings = evaluation.Settings(codes=20, images=40)
    encoded = evaluation.encode_sample(model.model, model.params, model.dataset, jax.random.key(0), 20)
    # The world has eight images; latents of their own make distances differ.
    z = jax.random.normal(jax.random.key(1), (40, planted.LATENTS)) * 0.3
    pair = (model.params, z)
    found = latents.perturb(model.model, pair, pair, encoded, settings, jax.random.key(2))
    summary = latents.summarize_latents(found, None)
    distances, sources = np.asarray(found.families["_resample"]["l2"], np.float64), np.asarray(found.sources)
    values = latents.RESAMPLE.values(jax.random.key(2), z)
    np.testing.assert_array_equal(values, np.asarray(z)[sources])
    without = []
    for n in range(40):
        kept = sources != n
        rows = np.where(kept, distances, 0).sum(axis=1) / kept.sum(axis=0)
        without.append(np.delete(rows, n, axis=1).mean(axis=1))
    jackknife = np.sqrt(39 / 40 * ((without - np.mean(without, axis=0)) ** 2).sum(axis=0))
    alive = model.truth.latents.any(axis=1)
    error, jackknife = np.asarray(summary.ces_resample_l2_error)[alive], jackknife[alive]
    assert (error < jackknife).all() and (error > 0.8 * jackknife).all()  # the jackknife errs on the safe side
    naive = metrics.effect_strength(found.families["_resample"]["l2"]).standard_error
    assert (error > 1.3 * np.asarray(naive)[alive]).all()
    assert np.isnan(summary.specificity_to_factors).all() and np.isfinite(summary.specificity_outputs[alive]).all()


def test_strength_under_each_family_and_distance_is_that_of_the_metric():
    """The evaluation sweeps all families at once; the metric takes one at a time."""
    model = planted.plant("rotated")
    settings = evaluation.Settings(codes=20, images=40)
    encoded = evaluation.encode_sample(model.model, model.params, model.dataset, jax.random.key(0), 20)
    z = jax.random.normal(jax.random.key(1), (40, planted.LATENTS)) * 0.3
    pair, key = (model.params, z), jax.random.key(2)
    perturbed = latents.perturb(model.model, pair, pair, encoded, settings, key)
    found, active = latents.strengths(perturbed), np.asarray(perturbed.active)
    assert 0 < active.sum() < len(active)
    pair_of = model.model, model.params
    families = {"": evaluation.SWEEP, **latents.FAMILIES, "_shift1": interventions.Shift(1.0, perturbed.scale)}
    assert len(found) == 2 * len(families) * len(latents.DISTANCES)
    for (suffix, family), distance in itertools.product(families.items(), latents.DISTANCES):
        each = metrics.causal_effect_strength(*pair_of, z, family, key, distance=distance)
        name = f"ces{suffix}_{distance}"
        np.testing.assert_allclose(found[name], np.mean(np.asarray(each)[active]), rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(found[name + "_all"], np.mean(each), rtol=1e-4, err_msg=name)


def test_what_equals_the_threshold_but_for_a_last_bit_is_not_active():
    encoded = evaluation.Encoded(*[None] * 4, np.full((4, 3), 0.01, np.float32), *[None] * 4)
    last_bit = np.full((4, 3), np.nextafter(np.float32(0.01), np.float32(1)))
    assert not representations.is_active(encoded, evaluation.Settings()).any()
    assert not representations.is_active(encoded._replace(activity=last_bit), evaluation.Settings()).any()
    assert representations.is_active(encoded, evaluation.Settings(active_threshold=0.0099)).all()


def test_the_latents_of_a_figure_do_not_depend_on_last_bits():
    """Twelve latents that are alike, ten of them shown; one factor has no effect, and no say."""
    rounding = np.random.default_rng(0).choice([-1, 0, 1], (2, 12)) * 6e-8
    for bits in (0 * rounding, rounding):
        estimate = np.repeat((0.5 + bits)[..., None], 3, axis=-1)
        estimate[1] = np.nan
        mediated = evaluation.Mediated(("indirect", "direct", "interaction"), *[estimate] * 3, np.array([0, 5]))
        figure = figures.mediation(mediated, ("a", "b"), "made up")
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert names == [f"z{i}" for i in range(10)]
        assert "5 pairs that decode alike left out" in " ".join(figure.texts[1].get_text().split())


def test_a_set_without_generative_factors_has_no_results_by_factor():
    dataset = data.load("dsprites", source="procedural").replace(factor_kind="attributes")
    model = architectures.create("vae", image_shape=dataset.image_shape, latents=3, network="small")
    params = model.init(jax.random.key(0))
    settings = evaluation.Settings(codes=40, test_codes=20, images=4, pairs=4, effects=4)
    found = evaluation.evaluate(model, params, dataset, settings, untrained=params)
    assert found.factor_effects is found.patching is found.mediation is found.circuits is None
    names = [score.name for score in found.scores]
    assert names[-2:] == ["circuit_modularity_decoder", "disentanglement"] and "circuit_size" not in names
    assert found.scores[-1].note == "undefined: dsprites (procedural) has attributes, not generative factors"
    assert np.isnan(found.latents.specificity_to_factors).all()
