"""Latent perturbations: the values that each family gives, and the sweep against loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import interventions as iv
from causalvae import planted
from causalvae.adapters import from_functions

KEY = jax.random.key(0)
Z = jax.random.normal(jax.random.key(1), (5, 3))
SCALE = jnp.array([0.5, 1.0, 2.0])
WEIGHTS = jax.random.normal(jax.random.key(2), (3, 7))


def decode(z):
    return jax.nn.sigmoid(z @ WEIGHTS)


MODEL = from_functions(decode=decode)


def test_values_are_what_each_family_says():
    z, s = np.asarray(Z), np.asarray(SCALE)
    sweep = iv.Sweep(-2.0, 2.0, 5).values(KEY, Z)
    np.testing.assert_allclose(sweep, np.broadcast_to(np.linspace(-2, 2, 5)[:, None, None], (5, 5, 3)), atol=1e-6)
    np.testing.assert_allclose(iv.Shift(-1.5, SCALE).values(KEY, Z)[0], z - 1.5 * s, atol=1e-6)
    resampled = np.asarray(iv.Resample(40).values(KEY, Z))
    rows = (resampled[:, :, None, :] == z[None, None]).all(-1)  # [V, N, row it came from]
    assert (rows.sum(-1) == 1).all() and not rows[:, np.arange(5), np.arange(5)].any()
    assert rows.any(axis=0).sum() == 20  # every other row is drawn
    np.testing.assert_array_equal(iv.Resample(40).sources(KEY, Z), rows.argmax(-1))
    prior = np.asarray(iv.Prior(500).values(KEY, Z))
    assert prior.shape == (500, 5, 3) and abs(prior.mean()) < 0.05 and abs(prior.std() - 1) < 0.05


def test_code_swap_draws_others_by_their_usage():
    codes = jnp.array([[0, 7, 7], [3, 3, 7], [0, 3, 7]])  # usage: 0 twice, 3 three times, 7 four times
    values = np.asarray(iv.CodeSwap(4000).values(KEY, codes))
    assert (values != np.asarray(codes)).all()
    usage = {0: 2, 3: 3, 7: 4}
    for own in usage:
        drawn = values[:, np.asarray(codes) == own]
        others = {code: n for code, n in usage.items() if code != own}
        for code, n in others.items():
            assert abs((drawn == code).mean() - n / sum(others.values())) < 0.015
    sources = np.asarray(iv.CodeSwap(4000).sources(KEY, codes))  # [L, V, N]
    drawn = np.moveaxis(values, 2, 0)
    assert (drawn[..., None] == np.asarray(codes)[sources]).any(-1).all()
    alone = jnp.full((2, 2), 5)
    np.testing.assert_array_equal(iv.CodeSwap(3).values(KEY, alone), np.full((3, 2, 2), 5))


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_every_response_equals_a_loop_whatever_the_chunk(chunk):
    def encode(x):
        return x @ WEIGHTS.T

    def top(base, changed):
        return jnp.max(jnp.abs(changed.image - base.image), axis=1)

    names = ("l2", "rms", "bernoulli_kl", "outputs", "latents", top)
    values = np.linspace(-3, 3, 4)
    model = from_functions(encode, decode)
    found = iv.perturb_latents(model, None, Z, iv.Sweep(num=4), KEY, response=names, chunk=chunk)
    assert list(found) == ["l2", "rms", "bernoulli_kl", "outputs", "latents", "top"]
    base = np.asarray(decode(Z), np.float64)
    outputs, latents = np.zeros((3, 7)), np.zeros((3, 3))
    for i in range(3):
        for v, value in enumerate(values):
            changed = np.asarray(decode(Z.at[:, i].set(value)), np.float64)
            l2 = np.linalg.norm(changed - base, axis=1)
            kl = (base * np.log(base / changed) + (1 - base) * np.log((1 - base) / (1 - changed))).sum(1)
            np.testing.assert_allclose(found["l2"][i, v], l2, atol=1e-5)
            np.testing.assert_allclose(found["rms"][i, v], l2 / np.sqrt(7), atol=1e-5)
            np.testing.assert_allclose(found["bernoulli_kl"][i, v], kl, atol=1e-4)
            np.testing.assert_allclose(found["top"][i, v], np.abs(changed - base).max(1), atol=1e-5)
            outputs[i] += ((changed - base) ** 2).mean(0) / 4
            latents[i] += np.abs((changed - base) @ np.asarray(WEIGHTS).T).mean(0) / 4
    np.testing.assert_allclose(found["outputs"], outputs, atol=1e-5)
    np.testing.assert_allclose(found["latents"], latents, atol=1e-4)


def test_a_linear_decoder_has_the_closed_form_effect():
    model, params, truth = (planted.plant("rotated", angle=0.5)[i] for i in (1, 2, 4))
    factors = jnp.asarray(planted.all_factors())
    z = model.represent(params, planted.linear_world().render(factors, KEY))
    found = iv.perturb_latents(model, params, z, iv.Sweep(), KEY, response=("l2", "sites"))
    expected = planted.known_strength(truth, np.linspace(-3, 3, 7))
    np.testing.assert_allclose(np.asarray(found["l2"]).mean((1, 2)), expected, atol=1e-5)
    moved = np.abs(np.linspace(-3, 3, 7)[:, None, None] - np.asarray(z)).mean((0, 1))  # E|v - z_i|
    responses = np.abs(truth.responses) * moved[:, None]
    np.testing.assert_allclose(found["sites"]["decoder/hidden"], responses, atol=1e-5)


def test_a_latent_that_never_moves_does_not_undo_what_is_said_of_others():
    """In units of a scale that is zero, 0 / 0 in its column made every latent's response NaN."""
    weights = jnp.array([[1.0, 2.0], [0.5, -1.0], [0.0, 0.0]])
    z = Z.at[:, 2].set(0.0)
    model = from_functions(lambda x: x @ weights.T, lambda z: z @ weights)
    found = iv.perturb_latents(model, None, z, iv.Sweep(), KEY, response="latents")
    found = iv.in_units_of(jnp.std(z, axis=0), found)
    assert np.isfinite(found).all() and (found[:2, :2] > 0).all() and (found[:, 2] == 0).all()


def test_latents_with_positions_are_set_at_all_of_them():
    z = jax.random.normal(KEY, (4, 2, 3, 5))

    def flat(z):
        return z.reshape(z.shape[0], -1) * jnp.arange(30.0)[None]

    found = iv.perturb_latents(from_functions(decode=flat), None, z, iv.Sweep(1.0, 1.0, 1), KEY)
    assert found.shape == (5, 1, 4)
    expected = np.linalg.norm(np.asarray(flat(z.at[..., 3].set(1.0)) - flat(z)), axis=1)
    np.testing.assert_allclose(found[3, 0], expected, rtol=1e-5)


def test_some_latents_only_and_other_values_without_compiling_again():
    traces = []

    def traced(params, z):
        traces.append(1)
        return jnp.tanh(z @ params)

    model = from_functions(decode=traced)

    def sweep(params, z, perturbation, **options):
        before = len(traces)
        found = iv.perturb_latents(model, params, z, perturbation, KEY, **options)
        return found, len(traces) > before

    every, compiled = sweep(WEIGHTS, Z, iv.Sweep(-1.0, 1.0, 3))
    assert compiled
    for params, z, perturbation in (
        (WEIGHTS + 1, Z, iv.Sweep(-1.0, 1.0, 3)),
        (WEIGHTS, Z * 2, iv.Sweep(-5.0, 4.0, 3)),
        (WEIGHTS, Z, iv.Resample(3)),
        (WEIGHTS, Z, iv.Prior(3)),
    ):
        assert not sweep(params, z, perturbation)[1]
    some, _ = sweep(WEIGHTS, Z, iv.Sweep(-1.0, 1.0, 3), latents=[2, 0])
    np.testing.assert_allclose(some, every[np.array([2, 0])], atol=1e-6)
    _, compiled = sweep(WEIGHTS, Z, iv.Sweep(-1.0, 1.0, 3), latents=[1, 2])
    assert not compiled


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"no latents \[3\]: they are 0 to 2"):
        iv.perturb_latents(MODEL, None, Z, iv.Sweep(), KEY, latents=[3])
    with pytest.raises(ValueError, match="no response 'l3'; there are: l2, rms"):
        iv.perturb_latents(MODEL, None, Z, iv.Sweep(), KEY, response="l3")
    with pytest.raises(ValueError, match="'decode' has no `represent`, which an effect on the representation needs"):
        iv.perturb_latents(MODEL, None, Z, iv.Sweep(), KEY, response="latents")
    with pytest.raises(ValueError, match="has no `decode`, which setting its latents needs: give a model that has one"):
        iv.perturb_latents(from_functions(encode=lambda x: x), None, Z, iv.Sweep(), KEY)
    with pytest.raises(ValueError, match=r"z must be \[N, ..., d\]"):
        iv.perturb_latents(MODEL, None, Z[0], iv.Sweep(), KEY)
    with pytest.raises(ValueError, match="chunk must be a positive integer"):
        iv.perturb_latents(MODEL, None, Z, iv.Sweep(), KEY, chunk=0)
    with pytest.raises(ValueError, match="swaps integer codes, not float32"):
        iv.perturb_latents(MODEL, None, Z, iv.CodeSwap(), KEY)
    codes = jnp.zeros((4, 3), jnp.int32)
    for perturbation in (iv.Sweep(), iv.Shift(1.0), iv.Prior()):
        name = type(perturbation).__name__
        with pytest.raises(ValueError, match=f"{name} sets latents to real values, but z holds int32 codes.*CodeSwap"):
            perturbation.values(KEY, codes)

    class Half:
        def values(self, key, z):
            return z[None] + 0.5

    with pytest.raises(ValueError, match="Half gives float32 values, but z holds int32 codes: use CodeSwap"):
        iv.perturb_latents(MODEL, None, codes, Half(), KEY)
    with pytest.raises(ValueError, match="at least two rows"):
        iv.Resample().values(KEY, Z[:1])
    with pytest.raises(ValueError, match="Prior: num must be a positive integer, not 0"):
        iv.Prior(0)

    class Wrong:
        def values(self, key, z):
            return z

    with pytest.raises(ValueError, match=r"Wrong.values must be \[V, 5, 3\], not \[5, 3\]"):
        iv.perturb_latents(MODEL, None, Z, Wrong(), KEY)
