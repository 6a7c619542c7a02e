"""Architectures: losses recomputed in numpy, what equals what, gradient isolation, codes as sites."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from causalvae import architectures, networks, objectives
from causalvae.architectures import create
from causalvae.architectures.vector_quantized import code_activity
from causalvae.sites import Edit, no_tap, patch, run, set_unit, site_shapes

SHAPE, LATENTS, BATCH = (16, 16, 1), 3, 8
OPTIMIZER = optax.adam(1e-3)
VARIANTS = {
    "vae": {},
    "beta": {},
    "factor": {"discriminator_features": (32, 32)},
    "factor, same batch": {"discriminator_features": (32, 32), "second_batch": False},
    "betatc": {"dataset_size": 480_000},
    "betatc, mss": {"estimator": "mss", "dataset_size": 480_000},
    "dip1": {},
    "dip2": {},
    "annealed": {"capacity_steps": 4},
    "vq": {"num_codes": 32},
    "vq, latent": {"codes": "latent"},
    "vq, gradient": {"codebook": "gradient", "num_codes": 32},
}


def model_of(variant):
    return create(variant.split(",")[0], SHAPE, latents=LATENTS, network="small", **VARIANTS[variant])


def images_for(model, seed=0):
    """Blobs whose place and size vary, something to learn. All models share the first batch."""
    generator = np.random.default_rng(seed)
    batches = []
    for _ in range(model.batches):
        center = generator.uniform(4, 12, size=(2, BATCH, 1, 1))
        width = generator.uniform(2, 9, size=(BATCH, 1, 1))
        rows, columns = np.mgrid[:16, :16]
        batches.append(np.exp(-((rows - center[0]) ** 2 + (columns - center[1]) ** 2) / width)[..., None])
    return jnp.asarray(np.concatenate(batches), jnp.float32)


def arrays(hyper):
    return {name: jnp.float32(value) for name, value in hyper.items()}


@functools.partial(jax.jit, static_argnums=0)
def call(function, *arguments):
    """`function` compiled as one: eager, its many small operations would compile one by one."""
    return function(*arguments)


@functools.partial(jax.jit, static_argnums=0)
def forward(function, params, x, key=None):
    return function(params, x, key, no_tap)


@functools.partial(jax.jit, static_argnums=0)
def train_step(loss, params, state, images, key, hyper, step):
    (value, info), gradients = jax.value_and_grad(loss, has_aux=True)(params, images, key, hyper, step)
    updates, state = OPTIMIZER.update(gradients, state, params)
    return {**optax.apply_updates(params, updates), **info.updates}, state, value, info.metrics, gradients


@functools.cache
def train(variant, steps, **hyper):
    """Parameters, value, metrics and gradients after `steps` steps from one seed, and all steps' metrics."""
    model = model_of(variant)
    params = call(model.init, jax.random.key(0))
    state, images, hyper = OPTIMIZER.init(params), images_for(model), arrays({**model.hyper, **hyper})
    history = []
    for i in range(steps):
        key = jax.random.fold_in(jax.random.key(1), i)
        params, state, value, metrics, gradients = train_step(
            model.loss, params, state, images, key, hyper, jnp.int32(i)
        )
        history.append(metrics)
    return params, value, metrics, gradients, history


def close(ours, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), rtol=rtol, atol=atol)


# --- what every architecture does ------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_trains_and_reports(variant):
    model = model_of(variant)
    params, value, metrics, _, history = train(variant, 20)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((params, value, metrics)))
    assert history[-1]["reconstruction"] < history[0]["reconstruction"]
    common = {"loss", "reconstruction", "mean_squared_error", "kl", "active_latents"}
    assert common <= set(metrics)
    if variant not in ("vq", "vq, gradient"):  # of a map's embedding entries none has a KL of its own
        close(jnp.sum(metrics["kl_per_latent"]), metrics["kl"])
    assert set(model.optimizers) <= set(params)
    x = images_for(model)[:BATCH]
    outputs = jax.eval_shape(functools.partial(model.forward, tap=no_tap), params, x, jax.random.key(0))
    assert outputs.image.shape == outputs.logits.shape == x.shape and outputs.z.shape[-1] == LATENTS
    assert jax.eval_shape(model.represent, params, x).shape == (BATCH, LATENTS)
    assert jax.eval_shape(model.activity, params, x).shape == (LATENTS,)
    posterior = jax.eval_shape(model.encode, params, x)
    assert posterior.mean.shape == posterior.log_variance.shape == outputs.z.shape


@pytest.mark.parametrize("variant", ["vae", "factor", "betatc", "dip1", "dip2", "annealed"])
def test_loss_is_the_numpy_sum_of_its_terms(variant):
    """From the posterior and the logits of a forward pass on, in float64 numpy."""
    model = model_of(variant)
    params, *_ = train(variant, 20)
    images, key, step = images_for(model), jax.random.key(5), 3
    hyper = {name: value + 0.5 for name, value in model.hyper.items()}  # nothing is the default
    _, _, value, metrics, _ = train_step(
        model.loss, params, OPTIMIZER.init(params), images, key, arrays(hyper), jnp.int32(step)
    )
    x = images[:BATCH]
    outputs = forward(model.forward, params, x, jax.random.fold_in(key, 0))
    mean, log_variance, logits, x64 = (np.asarray(a, np.float64) for a in (*outputs.posterior, outputs.logits, x))
    reconstruction = (np.logaddexp(0, logits) - x64 * logits).sum(axis=(1, 2, 3)).mean()
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1).mean()
    covariance = np.cov(mean, rowvar=False, bias=True)
    if variant == "vae":
        penalty = 1.5 * kl
    elif variant == "annealed":
        penalty = 1000.5 * abs(kl - 25.5 * min(1, step / 4.5))
    elif variant == "betatc":
        penalty = kl + 5.5 * metrics["minibatch_total_correlation"]
    elif variant == "factor":
        penalty = kl + 30.5 * metrics["discriminator_total_correlation"]
    else:
        if variant == "dip2":
            covariance = covariance + np.diag(np.exp(log_variance).mean(axis=0))
        squares = covariance**2
        off, diagonal = squares.sum() - np.trace(squares), ((np.diag(covariance) - 1) ** 2).sum()
        penalty = kl + hyper["lambda_offdiagonal"] * off + hyper["lambda_diagonal"] * diagonal
    close(metrics["reconstruction"], reconstruction)
    close(metrics["kl"], kl, rtol=1e-4)
    close(metrics["mean_squared_error"], np.mean((1 / (1 + np.exp(-logits)) - x64) ** 2))
    close(metrics["loss"], reconstruction + penalty)
    assert metrics["active_latents"] == np.sum(np.asarray(metrics["kl_per_latent"]) > 0.01)
    close(jnp.sum(call(model.activity, params, x)), kl, rtol=1e-4)


@pytest.mark.parametrize(
    "variant, hyper",
    [
        ("beta", {"beta": 1.0}),
        ("betatc", {"beta": 1.0}),
        ("betatc, mss", {"beta": 1.0}),
        ("factor", {"gamma": 0.0}),
        ("factor, same batch", {"gamma": 0.0}),
        ("dip1", {"lambda_offdiagonal": 0.0, "lambda_diagonal": 0.0}),
        ("dip2", {"lambda_offdiagonal": 0.0, "lambda_diagonal": 0.0}),
    ],
)
def test_without_its_term_each_is_the_vae(variant, hyper):
    """Same seed, 20 steps. Only the discriminator may differ: it learns whatever its weight."""
    expected, *_ = train("vae", 20)
    ours, *_ = train(variant, 20, **hyper)
    for name in expected:
        jax.tree.map(lambda a, b: close(a, b, rtol=0, atol=2e-6), ours[name], expected[name])


def test_the_term_itself_changes_training():
    expected, *_ = train("vae", 20)
    for variant in ("beta", "factor", "betatc", "dip2"):
        ours, *_ = train(variant, 20)
        kernels = [params["encoder"]["dense"]["kernel"] for params in (ours, expected)]
        assert np.max(np.abs(kernels[0] - kernels[1])) > 1e-4


def test_members_of_an_ensemble_differ_in_their_hyper_parameters():
    """One program under vmap over beta equals one run each."""
    model = model_of("beta")
    params, images, key = call(model.init, jax.random.key(0)), images_for(model), jax.random.key(1)

    def value(beta):
        return model.loss(params, images, key, {"beta": beta}, 0)[0]

    betas = jnp.array([1.0, 8.0])
    close(call(jax.vmap(value), betas), [call(value, beta) for beta in betas])


def test_architectures_of_one_network_share_their_functions():
    vae, beta, factor = model_of("vae"), model_of("beta"), model_of("factor")
    assert vae.forward is beta.forward is factor.forward and vae.decode is factor.decode
    assert create("vae", SHAPE, latents=LATENTS, network="small") is vae
    assert model_of("vq").forward is model_of("vq").forward


def test_whole_loss_has_the_gradient_of_finite_differences():
    """Along one random direction through all parameters of a beta-TC-VAE, which has every Gaussian part."""
    model = model_of("betatc")
    start = call(model.init, jax.random.key(0))
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), start)
        images, hyper = jnp.asarray(images_for(model), jnp.float64), {"beta": 6.0, "dataset_size": 1e4}
        leaves, tree = jax.tree.flatten(params)
        generator = np.random.default_rng(0)
        direction = tree.unflatten([jnp.asarray(generator.normal(size=a.shape)) for a in leaves])

        def along(t):
            moved = jax.tree.map(lambda p, d: p + t * d, params, direction)
            return model.loss(moved, images, jax.random.key(1), hyper, 0)[0]

        value_and_slope = jax.jit(jax.value_and_grad(along))
        numeric = (value_and_slope(1e-6)[0] - value_and_slope(-1e-6)[0]) / 2e-6
        close(value_and_slope(0.0)[1], numeric, rtol=1e-5)


# --- FactorVAE -------------------------------------------------------------------------------------------


def factor_gradients(gamma, params):
    model = model_of("factor")
    state, images, hyper = OPTIMIZER.init(params), images_for(model), arrays({"gamma": gamma})
    return train_step(model.loss, params, state, images, jax.random.key(2), hyper, jnp.int32(0))[-1]


def test_discriminator_and_autoencoder_do_not_see_each_others_loss():
    model, discriminator = model_of("factor"), networks.Discriminator((32, 32))
    params, *_ = train("factor", 20)
    images, key = images_for(model), jax.random.key(2)
    at_0, at_1, at_3 = (factor_gradients(gamma, params) for gamma in (0.0, 1.0, 3.0))

    # The discriminator's gradient is that of its own loss at constant codes, whatever gamma.
    z = forward(model.forward, params, images[:BATCH], jax.random.fold_in(key, 0)).z
    noise_key, permutation_key = jax.random.split(jax.random.fold_in(key, 1))
    others = architectures.sample_posterior(call(model.encode, params, images[BATCH:]), noise_key)
    permuted = objectives.permute_latents(permutation_key, others)
    for k in range(LATENTS):  # codes of the second batch, each latent shuffled
        close(np.sort(permuted[:, k]), np.sort(others[:, k]))

    def own_loss(p):
        logits = [discriminator.apply({"params": p}, codes) for codes in (z, permuted)]
        return jnp.mean(objectives.discriminator_loss(*logits))

    expected = jax.jit(jax.grad(own_loss))(params["discriminator"])
    for gradients in (at_0, at_3):
        jax.tree.map(functools.partial(close, rtol=1e-3, atol=1e-6), gradients["discriminator"], expected)

    # The autoencoder's is that of the VAE plus gamma times that of the logit difference, D fixed.
    def total_correlation(autoencoder):
        z = model.forward(autoencoder, images[:BATCH], jax.random.fold_in(key, 0), no_tap).z
        logits = discriminator.apply({"params": params["discriminator"]}, z)
        return jnp.mean(logits[:, 0] - logits[:, 1])

    autoencoder = {name: params[name] for name in ("encoder", "decoder")}
    of_term = jax.jit(jax.grad(total_correlation))(autoencoder)
    assert max(np.max(np.abs(g)) for g in jax.tree.leaves(of_term["encoder"])) > 1e-4
    for name in autoencoder:
        for gamma, gradients in ((1.0, at_1), (3.0, at_3)):
            difference = jax.tree.map(np.subtract, gradients[name], at_0[name])
            scaled = jax.tree.map(functools.partial(np.multiply, gamma), of_term[name])
            jax.tree.map(functools.partial(close, rtol=1e-3, atol=2e-4), difference, scaled)


def test_discriminator_learns_to_tell_dependent_latents():
    """Codes on a line: a true total correlation that it must find; its estimate rises above 0.5 nats."""
    discriminator = networks.Discriminator((64, 64))
    params = call(discriminator.init, jax.random.key(0), jnp.zeros((1, 2)))
    optimizer = optax.adam(3e-3)

    def logits_of(params, key):
        z = jax.random.normal(key, (256, 1)) + 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (256, 2))
        permuted = objectives.permute_latents(jax.random.fold_in(key, 2), z)
        return [discriminator.apply(params, codes) for codes in (z, permuted)]

    def body(i, carry):
        params, state = carry
        key = jax.random.fold_in(jax.random.key(1), i)
        gradient = jax.grad(lambda p: jnp.mean(objectives.discriminator_loss(*logits_of(p, key))))(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    trained, _ = jax.jit(lambda p: lax.fori_loop(0, 300, body, (p, optimizer.init(p))))(params)
    before, after = (call(logits_of, p, jax.random.key(7)) for p in (params, trained))
    assert objectives.discriminator_accuracy(*after) > objectives.discriminator_accuracy(*before) + 0.1
    assert jnp.mean(objectives.density_ratio(after[0])) > 0.5


# --- VQ-VAE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["vq", "vq, latent", "vq, gradient"])
def test_vq_loss_and_updates_are_the_numpy_sum_of_their_terms(variant):
    model = model_of(variant)
    params, *_ = train(variant, 20)
    images, key = images_for(model), jax.random.key(5)
    hyper = {"commitment": 0.75, "decay": 0.9, "revival_threshold": 0.2}
    _, _, value, metrics, gradients = train_step(
        model.loss, params, OPTIMIZER.init(params), images, key, arrays(hyper), jnp.int32(0)
    )
    info = call(model.loss, params, images, key, arrays(hyper), jnp.int32(0))[1]
    updates = jax.tree.map(np.asarray, info.updates)
    outputs = forward(model.forward, params, images)
    z, logits, x = (np.asarray(a, np.float64) for a in (outputs.z, outputs.logits, images))
    codebook = np.asarray(params["codebook"], np.float64)
    groups, num_codes, size = codebook.shape
    vectors = z.reshape(-1, groups, size)
    distances = ((vectors[:, :, None] - codebook[None]) ** 2).sum(axis=-1)
    codes = distances.argmin(axis=-1)
    counts = np.stack([np.bincount(column, minlength=num_codes) for column in codes.T])
    share = counts / len(codes)
    entropy = np.array([-sum(p * np.log(p) for p in row if p > 0) for row in share])

    reconstruction = (np.logaddexp(0, logits) - x * logits).sum(axis=(1, 2, 3)).mean()
    commitment = distances.min(axis=-1).sum() / BATCH
    gradient_codebook = variant == "vq, gradient"
    expected = reconstruction + 0.75 * commitment + (commitment if gradient_codebook else 0)
    close(metrics["loss"], expected, rtol=1e-4)
    close(metrics["commitment"], commitment, rtol=1e-3)
    close(metrics["kl"], entropy.sum() * len(codes) / BATCH, rtol=1e-4)
    close(metrics["perplexity"], np.exp(entropy).mean(), rtol=1e-4)
    close(metrics["codes_used"], (counts > 0).mean())

    usage = 0.9 * np.asarray(params["usage"]) + 0.1 * counts
    dead = usage < 0.2 * usage.mean(axis=1, keepdims=True)
    assert metrics["dead_codes"] == dead.sum()
    if gradient_codebook:
        assert "codebook" not in updates and model.optimizers == {"usage": "frozen"}
        close(updates["usage"], usage)
        pull = distances.min(axis=0)[dead].sum()
        close(value - metrics["loss"], pull, rtol=1e-2, atol=1e-2)
        own = np.zeros_like(codebook)
        for n, g in np.ndindex(codes.shape):
            own[g, codes[n, g]] += 2 * (codebook[g, codes[n, g]] - vectors[n, g]) / BATCH
        for g, k in zip(*np.nonzero(dead), strict=True):
            own[g, k] += 2 * (codebook[g, k] - vectors[distances[:, g, k].argmin(), g])
        close(gradients["codebook"], own, rtol=1e-2, atol=1e-3)
        return
    assert model.optimizers == {"usage": "frozen", "codebook": "frozen"}
    assert not np.any(gradients["codebook"])
    close(updates["usage"], np.where(dead, usage.mean(axis=1, keepdims=True), usage))
    for g, k in np.ndindex(dead.shape):
        own = vectors[codes[:, g] == k, g]
        if not dead[g, k]:
            total = 0.9 * np.asarray(params["usage"])[g, k] * codebook[g, k] + 0.1 * own.sum(axis=0)
            close(updates["codebook"][g, k], total / usage[g, k], rtol=1e-3, atol=1e-5)
        else:
            assert np.min(np.abs(vectors[:, g] - updates["codebook"][g, k]).max(axis=-1)) < 1e-5


def test_first_step_puts_the_codebook_on_the_data():
    """Usage starts at zero, so that every code that no vector chose restarts."""
    model = model_of("vq, latent")
    params, *_ = train("vq, latent", 1)
    start = call(model.init, jax.random.key(0))
    vectors = np.asarray(call(model.encode, start, images_for(model)).mean)
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    codebook = np.asarray(params["codebook"])[:, :, 0]
    assert np.all(codebook >= low[:, None] - 1e-6) and np.all(codebook <= high[:, None] + 1e-6)
    assert np.all(np.asarray(params["usage"]) > 0)


@pytest.mark.parametrize("variant", ["vq", "vq, latent"])
def test_codes_are_sites(variant):
    model = model_of(variant)
    params, *_ = train(variant, 20)
    x = images_for(model)
    spatial = variant == "vq"
    position = (1, 1) if spatial else (LATENTS,)
    shapes = site_shapes(model, params, x)
    latent_sites = [site for site in shapes if site.startswith("latent/")]
    assert latent_sites == ["latent/z", "latent/codes", "latent/quantized"]
    assert shapes["latent/codes"].shape == (BATCH, *position) and shapes["latent/codes"].dtype == jnp.int32

    base, activations = run(model, params, x, capture=("latent/*",))
    codebook = model.codebook
    codes, z = activations["latent/codes"], activations["latent/z"]
    assert np.array_equal(codes, call(codebook.quantize, params, z))
    close(activations["latent/quantized"], call(codebook.embed, params, codes))
    close(call(codebook.decode, params, codes), base.logits, rtol=1e-4, atol=1e-4)
    close(call(model.decode, params, z), base.logits, rtol=1e-4, atol=1e-4)

    # Setting codes is decoding those codes; setting embeddings is decoding those embeddings.
    other = (codes + 1) % codebook.num_codes
    edited, _ = run(model, params, x, edits={"latent/codes": patch(other)})
    close(edited.logits, call(codebook.decode, params, other), rtol=1e-4, atol=1e-4)
    vectors = call(codebook.embed, params, other)
    same, _ = run(model, params, x, edits={"latent/quantized": patch(vectors)})
    close(same.logits, edited.logits, rtol=1e-4, atol=1e-4)

    # A change of z within its cell does nothing at all; one into another cell acts through that code.
    jump, _ = run(model, params, x, edits={"latent/z": patch(vectors)})
    close(jump.logits, edited.logits, rtol=1e-4, atol=1e-4)
    nudged = call(codebook.embed, params, codes) + 1e-6
    still, _ = run(model, params, x, edits={"latent/z": patch(nudged)})
    close(still.logits, base.logits, rtol=1e-4, atol=1e-4)

    # Representation, usage and activity.
    functions = (model.represent, model.activity)
    representation, activity = call(lambda *a: [function(*a) for function in functions], params, x)
    share = call(codebook.usage, params, call(model.encode, params, x).mean)
    quantized = np.asarray(activations["latent/quantized"])
    close(representation, quantized.mean(axis=(1, 2)) if spatial else quantized)
    assert share.shape == ((1, 32) if spatial else (LATENTS, 16))
    share = np.asarray(share)
    rows = np.asarray(codes).reshape(-1, len(share))
    for g, row in enumerate(share):
        close(row, np.bincount(rows[:, g], minlength=codebook.num_codes) / len(rows))
    if not spatial:
        close(activity, [-sum(p * np.log(p) for p in row if p > 0) for row in share], rtol=1e-4)


def test_gradients_reach_z_through_the_quantizer_and_edits_behind_it():
    model = model_of("vq, latent")
    params = train("vq, latent", 20)[0]
    z = call(model.encode, params, images_for(model)).mean
    quantized = call(model.codebook.embed, params, call(model.codebook.quantize, params, z))

    def output(z, amount):
        def tap(site, value):
            return value + amount if site == "latent/quantized" else value

        return jnp.sum(model.decode(params, z, tap) ** 2)

    of_z, of_edit = jax.jit(jax.grad(output, (0, 1)))(z, jnp.zeros(z.shape))
    assert np.any(np.asarray(of_z)) and np.array_equal(of_z, of_edit)
    _, decoder = networks.encoder_and_decoder(SHAPE, LATENTS, "small", "vector")
    direct = jax.grad(lambda q: jnp.sum(decoder.apply({"params": params["decoder"]}, q) ** 2))
    close(of_z, call(direct, quantized), rtol=1e-3, atol=1e-3)


def test_activity_of_a_map_is_scale_free_and_finds_constant_entries():
    quantized = np.random.default_rng(0).normal(size=(50, 2, 2, 3)).astype(np.float32)
    quantized[..., 1] = 4.0
    codes = np.zeros((50, 2, 2), np.int32)
    activity = code_activity(codes, jnp.asarray(quantized), 8)
    variance = quantized.mean(axis=(1, 2)).var(axis=0)
    close(activity, variance / variance.mean())
    close(code_activity(codes, jnp.asarray(100 * quantized), 8), activity, rtol=1e-4)
    assert activity[1] == 0
    assert not np.any(code_activity(codes, jnp.ones((5, 2, 2, 3)), 8))


# --- networks --------------------------------------------------------------------------------------------


def sites_of(network, size, name="vae"):
    model = create(name, (size, size, 3), latents=5, network=network)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jnp.zeros((2, size, size, 3))
    return params, site_shapes(model, params, x)


@pytest.mark.parametrize("network, size", [*((name, 64) for name in networks.NETWORKS), ("residual", 128)])
def test_networks_halve_and_double_the_image(network, size):
    params, shapes = sites_of(network, size)
    stages = 5 if (network, size) == ("residual", 128) else 4
    for i in range(stages):
        assert shapes[f"encoder/conv{i}"].shape[1] == size // 2 ** (i + 1)
    assert shapes["decoder/logits"].shape == (2, size, size, 3)
    assert shapes[f"decoder/conv{stages - 2}"].shape[1] == size // 2
    order = [site.split("/")[0] for site in shapes]
    assert order == sorted(order, key=["encoder", "latent", "decoder"].index)
    _, with_codes = sites_of(network, size, "vq")
    assert with_codes["latent/z"].shape == (2, 4, 4, 5)
    assert with_codes["decoder/logits"].shape == (2, size, size, 3)


def test_parameter_counts_are_the_published_layers():
    standard = 3 * 16 * 32 + 32 + 32 * 16 * 32 + 32 + 32 * 16 * 64 + 64 + 64 * 16 * 64 + 64  # convolutions
    standard += 1024 * 256 + 256 + 2 * (256 * 5 + 5)
    decoder = 5 * 256 + 256 + 256 * 1024 + 1024
    decoder += 64 * 16 * 64 + 64 + 64 * 16 * 32 + 32 + 32 * 16 * 32 + 32 + 32 * 16 * 3 + 3
    params, _ = sites_of("standard", 64)
    assert [networks.parameter_count(params[k]) for k in ("encoder", "decoder")] == [standard, decoder]
    params, _ = sites_of("locatello_k2", 64)
    assert networks.parameter_count(params["encoder"]) == standard - 12 * (32 * 64 + 64 * 64)
    burgess = 3 * 16 * 32 + 32 + 3 * (32 * 16 * 32 + 32)
    burgess += 512 * 256 + 256 + 256 * 256 + 256 + 2 * (256 * 5 + 5)
    params, shapes = sites_of("burgess", 64)
    assert networks.parameter_count(params["encoder"]) == burgess
    assert {"encoder/dense0", "encoder/dense1", "decoder/dense2"} <= set(shapes)
    params = jax.eval_shape(create("factor", latents=5).init, jax.random.key(0))
    discriminator = 5 * 1000 + 1000 + 5 * (1000 * 1000 + 1000) + 1000 * 2 + 2
    assert networks.parameter_count(params["discriminator"]) == discriminator


def test_initialization_is_glorot_uniform_with_zero_biases():
    params = call(model_of("vae").init, jax.random.key(0))
    kernel = np.asarray(params["decoder"]["dense0"]["kernel"])
    limit = np.sqrt(6 / sum(kernel.shape))
    assert 0.9 * limit < np.abs(kernel).max() <= limit
    assert not np.any(params["encoder"]["conv0"]["bias"]) and not np.any(params["decoder"]["dense0"]["bias"])


def test_residual_blocks_start_as_the_identity_and_are_convolutions():
    x = jax.random.normal(jax.random.key(0), (2, 6, 4, 5))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 5, 7))
    dimensions = ("NHWC", "HWIO", "NHWC")
    reference = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
    close(networks.convolution3x3(x, kernel), reference, rtol=1e-4, atol=1e-4)
    block = networks.ResidualBlock()
    h = nn.relu(x)
    params = call(block.init, jax.random.key(2), h)
    assert np.array_equal(block.apply(params, h), h)
    params["params"]["project"]["kernel"] += 0.1
    assert not np.allclose(block.apply(params, h), h)


def test_discriminator_is_a_leaky_multilayer_perceptron():
    discriminator = networks.Discriminator((4, 5))
    z = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    params = call(discriminator.init, jax.random.key(0), z)
    h = z
    for name in ("dense0", "dense1"):
        h = h @ np.asarray(params["params"][name]["kernel"])
        h = np.where(h > 0, h, 0.2 * h)
    close(discriminator.apply(params, z), h @ np.asarray(params["params"]["logits"]["kernel"]))


# --- errors and the table --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("betavae", {}, "no architecture 'betavae'; there are: vae, beta, .*Did you mean 'beta"),
        ("beta", {"bta": 2}, "'beta' has no option 'bta'; it has: latents, network, beta.*Did you mean"),
        ("vae", {"network": "resnet"}, "no network 'resnet'; there are: standard, locatello_k2, burgess, "),
        ("vae", {"latents": 0}, "latents must be at least 1, not 0"),
        ("vae", {"image_shape": (60, 64, 3)}, r"multiples of 16, not \[60, 64, 3\]"),
        ("vae", {"image_shape": (144, 144, 3), "network": "residual"}, "multiples of 32"),
        ("betatc", {"estimator": "mis"}, "no density estimator 'mis'; there are: mws, mss, none"),
        ("vq", {"codes": "global"}, "no codes 'global'; there are: spatial, latent"),
        ("vq", {"codebook": "adam"}, "no codebook 'adam'; there are: ema, gradient"),
    ],
)
def test_errors_name_what_exists(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)


def test_adding_an_architecture_costs_a_function_and_a_line(monkeypatch):
    def free(image_shape, latents=10, network="standard", weight=2.0):
        def regularizer(terms, hyper):
            return architectures.Penalty(hyper["weight"] * jnp.sum(terms.kl))

        return architectures.gaussian("free", regularizer, {"weight": weight}, image_shape, latents, network)

    monkeypatch.setitem(architectures.ARCHITECTURES, "free", free)
    model = create("free", SHAPE, latents=LATENTS, network="small")
    params, x = call(model.init, jax.random.key(0)), images_for(model)
    value, info = jax.jit(model.loss)(params, x, jax.random.key(1), {"weight": 3.0}, 0)
    close(value, info.metrics["reconstruction"] + 3 * BATCH * info.metrics["kl"], rtol=1e-4)
    outputs, _ = run(model, params, x, edits={"latent/z": set_unit(0, 1.0), "decoder/conv0": Edit(0.0)})
    assert outputs.image.shape == x.shape
