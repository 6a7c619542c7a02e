"""What an evaluation says of codes, against counts in plain numpy."""

import jax
import numpy as np
import pytest

from causalvae import architectures, data, evaluation


@pytest.mark.parametrize("kind", ["spatial", "latent"])
def test_rate_and_usage_of_discrete_codes(kind):
    """The rate is the entropy of the codes' usage, summed over what has a code."""
    dataset = data.load("dsprites", source="procedural")
    options = {"latents": 4, "network": "small", "codes": kind, "num_codes": 8}
    model = architectures.create("vq", image_shape=dataset.image_shape, **options)
    params = model.init(jax.random.key(0))
    codes = evaluation.collect_codes(model, params, dataset, jax.random.key(1), 500)
    rate = evaluation.rate_score(model, params, None, codes)

    found = np.asarray(jax.jit(model.codebook.quantise)(params, codes.mean))
    groups = found.reshape(500, -1) if kind == "latent" else found.reshape(-1, 1)
    shares = [np.bincount(group, minlength=8) / len(groups) for group in groups.T]
    np.testing.assert_allclose(evaluation.code_usage(model, params, codes), shares, atol=1e-6)
    entropies = [-sum(p * np.log(p) for p in share if p > 0) for share in shares]
    positions = found[0].size if kind == "spatial" else 1
    assert rate.value == pytest.approx(positions * sum(entropies), rel=1e-5) and rate.value > 0.01
    assert rate.settings["uniform_prior"] == pytest.approx(found[0].size * np.log(8))
    assert rate.value <= rate.settings["uniform_prior"]
