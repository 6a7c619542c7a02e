"""Identities that hold of interventions on any model, trained or not, each recomputed by another route."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causalvae import architectures, metrics, run, site_shapes
from causalvae import patch as patched_with
from causalvae.interventions import LatentOutcome, Pairs, Shift, Sweep, mediate, patch_effects, perturb_latents

PAIRS = 4
NAMES = ("vae", "beta", "factor", "betatc", "dip2", "vq", "trained")
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}


@functools.cache
def case(name):
    """(model, params, x, x_source); parameters jittered, so that nothing is degenerate."""
    options = {"codes": "spatial", "num_codes": 8} if name == "vq" else {}
    shape = (32, 32, 1) if name == "vq" else (16, 16, 1)
    architecture = "vae" if name == "trained" else name
    model = architectures.create(architecture, shape, network="small", latents=4, **options)
    params = model.init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(sum(map(ord, name))), len(leaves))
    leaves = [leaf + 0.2 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(tree, leaves)
    params.pop("discriminator", None)  # no part of the forward pass; without it all share their programs
    x, x_source = jax.random.uniform(jax.random.key(2), (2, PAIRS, *shape))
    if name == "vq":  # entries where the images are, so that every image has codes of its own
        z = model.encode(params, jnp.concatenate([x, x_source])).mean
        params["codebook"] = z[:, 0, 0][None]
    if name == "trained":
        params = train(model, params, jnp.concatenate([x, x_source]))
    return model, params, x, x_source


def train(model, params, images, steps=20):
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(carry, i):
        params, state = carry
        loss = lambda p: model.loss(p, images, jax.random.key(3), model.hyper, i)[0]  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    assert losses[-1] < losses[0]
    return params


def sites_of(name):
    model, params, x, _ = case(name)
    return site_shapes(model, params, x)


def edited(name, x, edits=None):
    """(outputs, activations) with site -> (value, mask); one program, in which every site has an edit."""
    model, params, *_ = case(name)
    everywhere = {}
    for site, shape in sites_of(name).items():
        value, mask = (edits or {}).get(site, (jnp.zeros(shape.shape, shape.dtype), False))
        everywhere[site] = patched_with(value, jnp.broadcast_to(mask, shape.shape))
    return run(model, params, x, edits=everywhere, capture=("*",))


def ends(name):
    """The unedited runs of x and of x_source, with all activations."""
    return [edited(name, x) for x in case(name)[2:]]


def unit(index, size):
    return jnp.arange(size) == index


@pytest.mark.parametrize("name", NAMES)
def test_patching_a_cut_set_gives_the_source_run(name):
    model, params, x, x_source = case(name)
    _, (source, acts) = ends(name)
    for site in ("encoder/conv0", "latent/z", "decoder/conv0"):
        outputs, _ = edited(name, x, {site: (acts[site], True)})
        np.testing.assert_allclose(outputs.image, source.image, **TOLERANCE)
    effects = patch_effects(model, params, (x, x_source), "latent/z", groups="site", per_pair=True)
    np.testing.assert_allclose(effects.recovery, np.ones((1, PAIRS)), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_patching_nothing_or_own_values_changes_nothing(name):
    model, params, x, x_source = case(name)
    plain, _ = run(model, params, x)
    (_, own), (_, other) = ends(name)
    for edits in (
        {site: (value, True) for site, value in own.items()},
        {site: (value, False) for site, value in other.items()},
    ):
        outputs, _ = edited(name, x, edits)
        np.testing.assert_allclose(outputs.image, plain.image, **TOLERANCE)
    nothing = {"encoder/conv1": np.zeros((2, own["encoder/conv1"].shape[-1]), bool)}
    effects = patch_effects(model, params, (x, x_source), "encoder/conv1", groups=nothing)
    np.testing.assert_array_equal(effects.output_change, 0)
    np.testing.assert_array_equal(effects.latent_change, 0)


@pytest.mark.parametrize("name", NAMES)
def test_no_site_upstream_of_a_patch_changes(name):
    x, sites = case(name)[2], list(sites_of(name))
    (_, base), (_, source) = ends(name)
    for site in (sites[1], "latent/z", sites[-2]):
        _, acts = edited(name, x, {site: (source[site], True)})
        assert list(acts) == sites
        for before in sites[: sites.index(site)]:
            np.testing.assert_allclose(acts[before], base[before], **TOLERANCE)
        assert np.abs(acts[site] - base[site]).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("site", ["encoder/conv0", "encoder/dense", "latent/z"])
def test_a_cut_set_mediates_everything(name, site):
    if site not in sites_of(name):
        pytest.skip(f"{name} has no {site}")
    model, params, x, x_source = case(name)
    noise = jax.random.key(5) if name == "trained" else None  # the same in all runs of a pair
    pairs = Pairs(x, x_source) if noise is None else Pairs(x, x_source).with_noise(noise)
    effects = mediate(model, params, pairs, site, groups="site")
    np.testing.assert_allclose(effects.total, 1, atol=1e-5)
    np.testing.assert_allclose(effects.indirect[0], effects.total, atol=1e-4)
    np.testing.assert_allclose(effects.direct[0], 0, atol=1e-4)
    np.testing.assert_allclose(effects.interaction[0], 0, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_effects_add_up_and_equal_four_separate_runs(name):
    model, params, x, x_source = case(name)
    site, units = "encoder/conv1", [0, 3]
    effects = mediate(model, params, (x, x_source), site, groups=units)
    (base, base_acts), (source, source_acts) = ends(name)
    change = np.asarray(source.image - base.image).reshape(PAIRS, -1)

    def outcome(x, donor, mask):
        image = edited(name, x, {site: (donor[site], mask)})[0].image
        return (np.asarray(image - base.image).reshape(PAIRS, -1) * change).sum(1) / (change**2).sum(1)

    for g, index in enumerate(units):
        mask = unit(index, base_acts[site].shape[-1])
        indirect, direct = outcome(x, source_acts, mask), outcome(x_source, base_acts, mask)
        np.testing.assert_allclose(effects.indirect[g], indirect, **TOLERANCE)
        np.testing.assert_allclose(effects.direct[g], direct, **TOLERANCE)
        np.testing.assert_allclose(effects.interaction[g], 1 - indirect - direct, **TOLERANCE)
    total = effects.direct + effects.indirect + effects.interaction
    np.testing.assert_allclose(total, np.broadcast_to(effects.total, total.shape), **TOLERANCE)


@pytest.mark.parametrize("name", ["vae", "factor", "trained"])
def test_no_interaction_where_the_rest_of_the_network_is_affine(name):
    model, params, x, x_source = case(name)
    # A latent's mean is affine in the dense layer before it; the image is not.
    effects = mediate(model, params, (x, x_source), "encoder/dense", outcome=LatentOutcome(1))
    np.testing.assert_allclose(effects.interaction, 0, atol=1e-5)
    assert np.abs(effects.indirect).max() > 1e-2
    on_image = mediate(model, params, (x, x_source), "encoder/dense")
    assert np.abs(on_image.interaction).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_of_patches_equals_a_loop(name):
    model, params, x, x_source = case(name)
    site = "encoder/conv2"
    effects = patch_effects(model, params, (x, x_source), site, chunk=3, per_pair=True)
    (base, _), (source, acts) = ends(name)

    def norm(difference):
        return np.linalg.norm(np.asarray(difference).reshape(PAIRS, -1), axis=1)

    size = acts[site].shape[-1]
    for index in range(0, size, 3):
        outputs, _ = edited(name, x, {site: (acts[site], unit(index, size))})
        np.testing.assert_allclose(effects.output_change[index], norm(outputs.image - base.image), **TOLERANCE)
        change = np.abs(outputs.z - base.z).reshape(PAIRS, -1, 4).mean(1)
        np.testing.assert_allclose(effects.latent_change[index], change, **TOLERANCE)
        recovery = 1 - norm(outputs.image - source.image) / norm(base.image - source.image)
        np.testing.assert_allclose(effects.recovery[index], recovery, **TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_of_latents_equals_a_loop_and_shift_zero_does_nothing(name):
    model, params, x, _ = case(name)
    z = model.encode(params, x).mean
    sweep = perturb_latents(model, params, z, Sweep(-2.0, 2.0, 3), jax.random.key(0), chunk=5)
    assert sweep.shape == (4, 3, PAIRS)

    def decode(z):
        return np.asarray(edited(name, x, {"latent/z": (z, True)})[0].image)

    base = decode(z)
    for i in range(4):
        for v, value in enumerate((-2.0, 0.0, 2.0)):
            change = decode(z.at[..., i].set(value)) - base
            expected = np.linalg.norm(change.reshape(PAIRS, -1), axis=1)
            np.testing.assert_allclose(sweep[i, v], expected, **TOLERANCE)
    nothing = perturb_latents(model, params, z, Shift(0.0), jax.random.key(0), chunk=5)
    np.testing.assert_allclose(nothing, 0, atol=1e-5)


@pytest.mark.parametrize("name", ["vae", "vq"])
def test_permuting_latents_permutes_results_and_keeps_scalars(name):
    model, params, x, _ = case(name)
    order = np.array([2, 0, 3, 1])
    inverse = np.argsort(order)
    z, key = model.encode(params, x).mean, jax.random.key(0)
    names = ("l2", "outputs", "latents", "sites")

    permuted_model = model._replace(
        decode=lambda params, z, tap: model.decode(params, z[..., inverse], tap),
        represent=lambda params, x: model.represent(params, x)[:, order],
    )
    plain = perturb_latents(model, params, z, Sweep(), key, response=names)
    permuted = perturb_latents(permuted_model, params, z[..., order], Sweep(), key, response=names)
    np.testing.assert_allclose(permuted["l2"], plain["l2"][order], **TOLERANCE)
    np.testing.assert_allclose(permuted["outputs"], plain["outputs"][order], **TOLERANCE)
    np.testing.assert_allclose(permuted["latents"], plain["latents"][order][:, order], **TOLERANCE)
    for site, responses in plain["sites"].items():
        np.testing.assert_allclose(permuted["sites"][site], responses[order], **TOLERANCE)
        modularity = [metrics.circuit_modularity(r) for r in (responses, permuted["sites"][site])]
        np.testing.assert_allclose(*modularity, **TOLERANCE)
