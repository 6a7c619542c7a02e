"""The architectures: each one NamedTuple of pure functions over a parameter pytree, in the table at the end.

They differ in their objective and in nothing else. Hyper-parameters are arguments of the loss (arrays, so
that members of one ensemble can differ in them); functions are shared wherever they are the same, so that
models with the same network share their compiled interventions.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae import networks, objectives, vector_quantization
from causalvae.sites import Tap, no_tap

PyTree = Any
ACTIVE_THRESHOLD = 0.01  # of `Architecture.activity`, from which a latent is reported as active


class Posterior(NamedTuple):
    """q(z|x) = N(mean, exp(log_variance)); both [B, d]. Of a VQ-VAE a point mass: log-variance -inf, and
    [B, h, w, d] for a map of codes."""

    mean: jax.Array
    log_variance: jax.Array


class Outputs(NamedTuple):
    """What a forward pass returns."""

    image: jax.Array  # [B, H, W, C] in [0, 1]: sigmoid of the logits, the decoder's mean image
    logits: jax.Array  # [B, H, W, C]
    z: jax.Array  # [B, ..., d]: the value at site latent/z, the last axis the latents
    posterior: Posterior


class LossInfo(NamedTuple):
    """What a loss reports beside its value."""

    # Scalars in nats unless the name says otherwise; kl_per_latent [d] where latents have a KL each.
    metrics: dict[str, jax.Array]
    updates: dict[str, PyTree]  # top-level parameters that are set, not descended (moving averages)


class Codebook(NamedTuple):
    """What a model of discrete codes offers besides. Codes: int32 [B, h, w], or [B, d] if one per latent."""

    num_codes: int
    quantize: Callable  # (params, z) -> codes
    embed: Callable  # (params, codes) -> embeddings, shaped as z
    decode: Callable  # (params, codes, tap=no_tap) -> logits
    usage: Callable  # (params, z) -> share of each code [1, num_codes]; [d, num_codes] if one per latent


class Architecture(NamedTuple):
    """A model: pure functions over a parameter pytree, which is a plain dict with keys such as "encoder"."""

    name: str
    image_shape: tuple[int, int, int]
    latents: int  # size of the last axis of site latent/z
    hyper: Mapping[str, float]  # the loss's hyper-parameters with their values
    init: Callable  # (key) -> params
    forward: Callable  # (params, x, key, tap) -> Outputs; key None takes the posterior mean
    encode: Callable  # (params, x, tap=no_tap) -> Posterior
    decode: Callable  # (params, z, tap=no_tap) -> logits; z as at site latent/z
    represent: Callable  # (params, x) -> [B, d] the vector that disentanglement metrics score
    activity: Callable  # (params, x) -> [d] how much each latent carries: mean KL in nats, or what stands in
    loss: Callable  # (params, images, key, hyper, step) -> (scalar to descend, LossInfo)
    batches: int = 1  # how many batches of images one step of the loss takes, end to end
    optimizers: Mapping[str, str] = {}  # top-level parameter -> optimizer label; others are "adam"
    codebook: Codebook | None = None  # where codes are discrete
    auxiliary: tuple[str, ...] = ()  # top-level parameters that only the loss reads
    to_image = staticmethod(jax.nn.sigmoid)  # logits -> image


def inference_params(model: Architecture, params: PyTree) -> PyTree:
    """The parameters that encoding and decoding read: without those that only the loss does, architectures that
    differ in their loss alone share every compiled program of an evaluation."""
    return {name: value for name, value in params.items() if name not in model.auxiliary}


def decode_image(model: Architecture, params: PyTree, z: jax.Array) -> jax.Array:
    """D(z): the decoder's mean image [B, H, W, C] in [0, 1]."""
    return jax.nn.sigmoid(model.decode(params, z))


def reconstruction_metrics(logits: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    """The metrics that every architecture reports in the same way, averaged over the batch."""
    return {
        "reconstruction": jnp.mean(objectives.bernoulli_negative_log_likelihood(logits, images)),
        "mean_squared_error": jnp.mean(objectives.squared_error(jax.nn.sigmoid(logits), images)),
    }


# --- the Gaussian family ---------------------------------------------------------------------------------


class GaussianFunctions(NamedTuple):
    """What Gaussian architectures of one network share; fields of Architecture."""

    init: Callable
    forward: Callable
    encode: Callable
    decode: Callable
    represent: Callable
    activity: Callable


@functools.cache
def gaussian_functions(image_shape: tuple[int, int, int], latents: int, network: str) -> GaussianFunctions:
    """The functions that all Gaussian architectures with one network share (the same objects, so jit's caches
    are shared too)."""
    encoder, decoder = networks.create(image_shape, latents, network)

    def init(key):
        return {
            "encoder": encoder.init(jax.random.fold_in(key, 0), jnp.zeros((1, *image_shape)))["params"],
            "decoder": decoder.init(jax.random.fold_in(key, 1), jnp.zeros((1, latents)))["params"],
        }

    def encode(params, x, tap: Tap = no_tap):
        return Posterior(*encoder.apply({"params": params["encoder"]}, x, tap))

    def decode(params, z, tap: Tap = no_tap):
        return decoder.apply({"params": params["decoder"]}, z, tap)

    def forward(params, x, key=None, tap: Tap = no_tap):
        posterior = encode(params, x, tap)
        z = tap("latent/z", sample_posterior(posterior, key))
        logits = decode(params, z, tap)
        return Outputs(jax.nn.sigmoid(logits), logits, z, posterior)

    def represent(params, x):
        return encode(params, x).mean

    def activity(params, x):
        return jnp.mean(objectives.kl_divergence(*encode(params, x)), axis=0)

    return GaussianFunctions(init, forward, encode, decode, represent, activity)


def sample_posterior(posterior: Posterior, key: jax.Array | None) -> jax.Array:
    """z = mean + sigma * noise, or the mean where key is None."""
    if key is None:
        return posterior.mean
    noise = jax.random.normal(key, posterior.mean.shape, posterior.mean.dtype)
    return posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise


class Terms(NamedTuple):
    """What a regularizer may look at."""

    z: jax.Array  # [B, d]
    posterior: Posterior
    kl: jax.Array  # [B, d]
    step: jax.Array
    params: PyTree
    other_images: jax.Array  # [(batches - 1) B, H, W, C]: the batches after the first
    key: jax.Array  # for randomness beside the posterior's noise


class Penalty(NamedTuple):
    """What a regularizer returns."""

    value: jax.Array  # [] added to the reconstruction
    metrics: dict[str, jax.Array] = {}
    adversary: jax.Array | float = 0.0  # [] descended too, but no part of the objective: an opponent's loss


@functools.cache
def gaussian_loss(forward: Callable, regularizer: Callable, batches: int = 1) -> Callable:
    """E_x[-log p(x|z)] + regularizer(terms, hyper). The posterior's noise depends on nothing but the key
    and the first batch's shape, so that architectures can be compared step for step. Architectures whose
    arguments are the same (VAE and beta-VAE) have the same function, so they can train as one ensemble."""

    def loss(params, images, key, hyper, step):
        batch_size = images.shape[0] // batches
        images, other_images = images[:batch_size], images[batch_size:]
        outputs = forward(params, images, jax.random.fold_in(key, 0), no_tap)
        kl = objectives.kl_divergence(*outputs.posterior)
        kl_per_latent = jnp.mean(kl, axis=0)
        rest_key = jax.random.fold_in(key, 1)
        terms = Terms(outputs.z, outputs.posterior, kl, step, params, other_images, rest_key)
        penalty = regularizer(terms, hyper)
        metrics = reconstruction_metrics(outputs.logits, images)
        value = metrics["reconstruction"] + penalty.value
        metrics |= {"loss": value, "kl": jnp.sum(kl_per_latent), "kl_per_latent": kl_per_latent}
        metrics["active_latents"] = jnp.sum(kl_per_latent > ACTIVE_THRESHOLD).astype(jnp.float32)
        return value + penalty.adversary, LossInfo(metrics | penalty.metrics, {})

    return loss


def beta_regularizer(terms: Terms, hyper) -> Penalty:
    """beta * KL(q(z|x) || p(z)). Higgins et al. 2017, eq. 4. beta = 1 is the VAE of Kingma & Welling 2014."""
    return Penalty(hyper["beta"] * mean_kl(terms))


def beta_tc_regularizer(terms: Terms, hyper, estimator: str) -> Penalty:
    """KL + (beta - 1) TC. Chen et al. 2018 with alpha = gamma = 1, in disentanglement_lib's arrangement:
    the whole KL once, and its total-correlation part beta - 1 times more."""
    total_correlation = jnp.mean(
        objectives.minibatch_total_correlation(terms.z, *terms.posterior, hyper["dataset_size"], estimator)
    )
    value = mean_kl(terms) + (hyper["beta"] - 1) * total_correlation
    return Penalty(value, {"minibatch_total_correlation": total_correlation})


def dip_regularizer(terms: Terms, hyper, aggregate: bool) -> Penalty:
    """KL + the covariance penalty of Kumar et al. 2018: of Cov(z), eq. 7, or of Cov(mean), eq. 6."""
    if aggregate:
        matrix = objectives.aggregate_covariance(*terms.posterior)
    else:
        matrix = objectives.covariance(terms.posterior.mean)
    penalty = objectives.dip_penalty(matrix, hyper["lambda_offdiagonal"], hyper["lambda_diagonal"])
    return Penalty(mean_kl(terms) + penalty, {"covariance_penalty": penalty})


def annealed_regularizer(terms: Terms, hyper) -> Penalty:
    """gamma |KL - C|, the capacity C rising with the step. Burgess et al. 2018, eq. 8."""
    capacity = objectives.capacity(terms.step, hyper["final_capacity"], hyper["capacity_steps"])
    return Penalty(hyper["gamma"] * jnp.abs(mean_kl(terms) - capacity), {"capacity": capacity})


def factor_regularizer(terms: Terms, hyper, encode: Callable, discriminate: Callable) -> Penalty:
    """KL + gamma TC, the latter from a discriminator that learns beside it. Kim & Mnih 2018, eq. 2, alg. 2.

    Permuted codes come from the second batch, or from the first where there is no other. The autoencoder sees
    the discriminator's parameters as constants, and the discriminator the codes.
    """
    noise_key, permutation_key = jax.random.split(terms.key)
    z = jax.lax.stop_gradient(terms.z)
    others = z
    if terms.other_images.shape[0]:
        others = sample_posterior(encode(jax.lax.stop_gradient(terms.params), terms.other_images), noise_key)
    permuted = objectives.permute_latents(permutation_key, others)

    discriminator = terms.params["discriminator"]
    fixed_logits = discriminate({"params": jax.lax.stop_gradient(discriminator)}, terms.z)
    total_correlation = jnp.mean(objectives.density_ratio(fixed_logits))
    joint_logits = discriminate({"params": discriminator}, z)
    product_logits = discriminate({"params": discriminator}, permuted)
    adversary = jnp.mean(objectives.discriminator_loss(joint_logits, product_logits))
    metrics = {
        "discriminator_total_correlation": total_correlation,
        "discriminator_loss": adversary,
        "discriminator_accuracy": objectives.discriminator_accuracy(joint_logits, product_logits),
    }
    return Penalty(mean_kl(terms) + hyper["gamma"] * total_correlation, metrics, adversary)


def mean_kl(terms: Terms) -> jax.Array:
    """E_x KL(q(z|x) || p(z)) [] in nats."""
    return jnp.mean(jnp.sum(terms.kl, axis=1))


def gaussian(
    name: str, regularizer: Callable, hyper: Mapping[str, float], image_shape, latents, network
) -> Architecture:
    """An architecture of the Gaussian family: the shared functions and a loss with its own regularizer."""
    functions = gaussian_functions(tuple(image_shape), latents, network)
    loss = gaussian_loss(functions.forward, regularizer)
    return Architecture(name, tuple(image_shape), latents, hyper, *functions, loss)


def vae(image_shape, latents=10, network="standard") -> Architecture:
    """Kingma & Welling 2014."""
    return gaussian("vae", beta_regularizer, {"beta": 1.0}, image_shape, latents, network)


def beta_vae(image_shape, latents=10, network="standard", beta=4.0) -> Architecture:
    """Higgins et al. 2017; beta weighs the whole KL. Published sweep: 1 to 16."""
    return gaussian("beta", beta_regularizer, {"beta": beta}, image_shape, latents, network)


def factor_vae(
    image_shape,
    latents=10,
    network="standard",
    gamma=30.0,
    second_batch=True,
    discriminator_features=(1000,) * 6,
) -> Architecture:
    """Kim & Mnih 2018; gamma weighs the total correlation on top of the full KL. Published sweep: 10 to 100.

    second_batch: permuted codes come from images of their own, as in the paper; False takes them from the
    same batch, as disentanglement_lib does. discriminator_features: of its hidden layers.
    """
    functions = gaussian_functions(tuple(image_shape), latents, network)
    discriminator = networks.Discriminator(discriminator_features)

    def init(key):
        params = discriminator.init(jax.random.fold_in(key, 2), jnp.zeros((1, latents)))["params"]
        return {**functions.init(key), "discriminator": params}

    regularizer = functools.partial(factor_regularizer, encode=functions.encode, discriminate=discriminator.apply)
    batches = 2 if second_batch else 1
    model = gaussian("factor", regularizer, {"gamma": gamma}, image_shape, latents, network)
    return model._replace(
        init=init,
        loss=gaussian_loss(functions.forward, regularizer, batches),
        batches=batches,
        optimizers={"discriminator": "discriminator"},
        auxiliary=("discriminator",),
    )


def beta_tc_vae(
    image_shape, latents=10, network="standard", beta=6.0, estimator="mws", dataset_size=None
) -> Architecture:
    """Chen et al. 2018; beta - 1 weighs the total correlation on top of the full KL. Published sweep: 1-10.

    estimator: of the aggregate posterior's density, see objectives.log_importance_weights. dataset_size: images of
    the data set, which both estimators need; None leaves it to `training.train`, which knows, and is NaN until then.
    """
    objectives.log_importance_weights(2, 1.0, estimator)  # an unknown estimator raises here
    regularizer = functools.partial(beta_tc_regularizer, estimator=estimator)
    hyper = {"beta": beta, "dataset_size": float("nan" if dataset_size is None else dataset_size)}
    return gaussian("betatc", regularizer, hyper, image_shape, latents, network)


def dip_vae_1(
    image_shape, latents=10, network="standard", lambda_offdiagonal=10.0, lambda_diagonal=100.0
) -> Architecture:
    """DIP-VAE-I, Kumar et al. 2018, with lambda_d = 10 lambda_od as they and disentanglement_lib have it."""
    hyper = {"lambda_offdiagonal": lambda_offdiagonal, "lambda_diagonal": lambda_diagonal}
    regularizer = functools.partial(dip_regularizer, aggregate=False)
    return gaussian("dip1", regularizer, hyper, image_shape, latents, network)


def dip_vae_2(
    image_shape, latents=10, network="standard", lambda_offdiagonal=10.0, lambda_diagonal=10.0
) -> Architecture:
    """DIP-VAE-II, Kumar et al. 2018, with lambda_d = lambda_od. Published sweep: 1 to 50."""
    hyper = {"lambda_offdiagonal": lambda_offdiagonal, "lambda_diagonal": lambda_diagonal}
    regularizer = functools.partial(dip_regularizer, aggregate=True)
    return gaussian("dip2", regularizer, hyper, image_shape, latents, network)


def annealed_vae(
    image_shape, latents=10, network="standard", gamma=1000.0, final_capacity=25.0, capacity_steps=100_000
) -> Architecture:
    """Burgess et al. 2018. Published sweep of the final capacity: 5 to 100 nats, at gamma 1000."""
    hyper = {"gamma": gamma, "final_capacity": final_capacity, "capacity_steps": float(capacity_steps)}
    return gaussian("annealed", annealed_regularizer, hyper, image_shape, latents, network)


# --- vector quantization ---------------------------------------------------------------------------------


class VQFunctions(NamedTuple):
    """What VQ-VAEs of one network and codebook size share; fields of Architecture."""

    init: Callable
    forward: Callable
    encode: Callable
    decode: Callable
    represent: Callable
    activity: Callable
    codebook: Codebook


@functools.cache
def vq_functions(
    image_shape: tuple[int, int, int], latents: int, network: str, spatial: bool, num_codes: int
) -> VQFunctions:
    """Sites after the encoder: latent/z (continuous, before quantization), latent/codes (int32; an edit sets
    codes), latent/quantized (embeddings), then the decoder's. z is [B, h, w, d], or [B, d] if one code per
    latent. `decode` quantizes, so that a change of z acts through the codes or not at all.

    Parameters: "codebook" [G, num_codes, D] and "usage" [G, num_codes], a moving average of batches' counts.
    """
    encoder, decoder = networks.create(image_shape, latents, network, "map" if spatial else "vector")
    groups, size = (1, latents) if spatial else (latents, 1)

    def init(key):
        encoder_key, decoder_key, codebook_key = (jax.random.fold_in(key, i) for i in range(3))
        z, variables = encoder.init_with_output(encoder_key, jnp.zeros((1, *image_shape)))
        shape, limit = (groups, num_codes, size), 1 / num_codes
        return {
            "encoder": variables["params"],
            "decoder": decoder.init(decoder_key, z)["params"],
            "codebook": jax.random.uniform(codebook_key, shape, minval=-limit, maxval=limit),
            "usage": jnp.zeros(shape[:2]),
        }

    def quantize(params, z):
        codes = vector_quantization.nearest_codes(z.reshape(-1, groups, size), params["codebook"])
        return codes.reshape(z.shape[:-1] if spatial else z.shape)

    def embed(params, codes):
        embeddings = vector_quantization.embed(codes.reshape(-1, groups), params["codebook"])
        return embeddings.reshape(*codes.shape, latents) if spatial else embeddings.reshape(codes.shape)

    def encode(params, x, tap: Tap = no_tap):
        z = encoder.apply({"params": params["encoder"]}, x, tap)
        return Posterior(z, jnp.full_like(z, -jnp.inf))

    def decode(params, z, tap: Tap = no_tap):
        codes = tap("latent/codes", quantize(params, z))
        # The gradient passes to z before the tap, so that of an edit at latent/quantized reaches the edit.
        quantized = tap("latent/quantized", vector_quantization.straight_through(z, embed(params, codes)))
        return decoder.apply({"params": params["decoder"]}, quantized, tap)

    def decode_codes(params, codes, tap: Tap = no_tap):
        quantized = tap("latent/quantized", embed(params, tap("latent/codes", codes)))
        return decoder.apply({"params": params["decoder"]}, quantized, tap)

    def forward(params, x, key=None, tap: Tap = no_tap):
        posterior = encode(params, x, tap)
        z = tap("latent/z", posterior.mean)
        logits = decode(params, z, tap)
        return Outputs(jax.nn.sigmoid(logits), logits, z, posterior)

    def represent(params, x):
        return pool(embed(params, quantize(params, encode(params, x).mean)))

    def activity(params, x):
        codes = quantize(params, encode(params, x).mean)
        return code_activity(codes, embed(params, codes), num_codes)

    def usage(params, z):
        counts = vector_quantization.count_codes(quantize(params, z).reshape(-1, groups), num_codes)
        return counts / jnp.sum(counts, axis=-1, keepdims=True)

    codebook = Codebook(num_codes, quantize, embed, decode_codes, usage)
    return VQFunctions(init, forward, encode, decode, represent, activity, codebook)


def pool(quantized: jax.Array) -> jax.Array:
    """The representation [B, d]: a map of embeddings [B, h, w, d] averaged over its positions, or itself."""
    return jnp.mean(quantized, axis=(1, 2)) if quantized.ndim == 4 else quantized


def code_activity(codes: jax.Array, quantized: jax.Array, num_codes: int) -> jax.Array:
    """What stands in for a latent's KL [d]: with one code per latent the entropy of its usage in nats; for a
    map, whose embedding entries have no KL each, the pooled entry's variance relative to their mean."""
    if quantized.ndim == 2:
        return vector_quantization.usage_entropy(vector_quantization.count_codes(codes, num_codes))
    variance = jnp.var(pool(quantized), axis=0)
    total = jnp.mean(variance)
    return jnp.where(total > 0, variance / jnp.where(total > 0, total, 1), 0)


class Learning(NamedTuple):
    """What a batch teaches the codebook."""

    updates: dict[str, jax.Array]
    dead_codes: jax.Array  # [G, K] bool
    loss: jax.Array | float = 0.0  # [] summed over the batch, a part of the objective
    revival: jax.Array | float = 0.0  # [] descended too, but no part of it


def learn_by_average(params, vectors, codes, hyper, key) -> Learning:
    """Moving averages of the vectors of each code; dead codes are put on vectors drawn from the batch."""
    codebook, usage = vector_quantization.moving_average(
        params["codebook"], params["usage"], vectors, codes, hyper["decay"]
    )
    threshold = hyper["revival_threshold"]
    revived, revived_usage = vector_quantization.revive(codebook, usage, vectors, threshold, key)
    dead = vector_quantization.dead_codes(usage, threshold)
    return Learning({"codebook": revived, "usage": revived_usage}, dead)


def learn_by_gradient(params, vectors, codes, hyper, key) -> Learning:
    """||sg(z) - e||^2, van den Oord et al. 2017, eq. 3; dead codes are pulled to the nearest vectors."""
    codebook, threshold = params["codebook"], hyper["revival_threshold"]
    counts = vector_quantization.count_codes(codes, codebook.shape[1])
    usage = hyper["decay"] * params["usage"] + (1 - hyper["decay"]) * counts
    dead = vector_quantization.dead_codes(usage, threshold)
    loss = jnp.sum((vectors - vector_quantization.embed(codes, codebook)) ** 2)
    pull = vector_quantization.pull_of_dead_codes(codebook, usage, vectors, threshold)
    return Learning({"usage": usage}, dead, loss, pull)


CODEBOOKS = {"ema": learn_by_average, "gradient": learn_by_gradient}


def vq_loss(functions: VQFunctions, learn: Callable) -> Callable:
    """-log p(x|z) + commitment ||z - sg(e)||^2, and the codebook's own. van den Oord et al. 2017, eq. 3.

    Squared distances are summed over positions and embedding entries, as the reconstruction is over pixels.
    `kl` is the entropy of the batch's usage, summed over positions: the KL to the usage as prior. (To a
    uniform prior it would be the constant log num_codes for each position.)
    """

    def loss(params, images, key, hyper, step):
        outputs = functions.forward(params, images, None, no_tap)
        codes = functions.codebook.quantize(params, outputs.z)
        quantized = functions.codebook.embed(params, codes)
        commitment = jnp.sum((outputs.z - jax.lax.stop_gradient(quantized)) ** 2) / images.shape[0]

        groups, num_codes, size = params["codebook"].shape
        vectors = jax.lax.stop_gradient(outputs.z).reshape(-1, groups, size)
        learned = learn(params, vectors, codes.reshape(-1, groups), hyper, key)
        metrics = reconstruction_metrics(outputs.logits, images) | code_metrics(codes, quantized, params)
        value = metrics["reconstruction"] + hyper["commitment"] * commitment + learned.loss / images.shape[0]
        dead = jnp.sum(learned.dead_codes).astype(jnp.float32)
        metrics |= {"loss": value, "commitment": commitment, "dead_codes": dead}
        return value + learned.revival, LossInfo(metrics, learned.updates)

    return loss


def code_metrics(codes: jax.Array, quantized: jax.Array, params: PyTree) -> dict[str, jax.Array]:
    """The rate of a batch's codes in nats, and how much of each codebook they use."""
    groups, num_codes, _ = params["codebook"].shape
    counts = vector_quantization.count_codes(codes.reshape(-1, groups), num_codes)
    entropy = vector_quantization.usage_entropy(counts)
    activity = code_activity(codes, quantized, num_codes)
    metrics = {
        "kl": jnp.sum(entropy) * (codes.size / groups / codes.shape[0]),
        "active_latents": jnp.sum(activity > ACTIVE_THRESHOLD).astype(jnp.float32),
        "perplexity": jnp.mean(jnp.exp(entropy)),
        "codes_used": jnp.mean(counts > 0),
    }
    return metrics | ({"kl_per_latent": entropy} if quantized.ndim == 2 else {})


def vq_vae(
    image_shape,
    latents=64,
    network="standard",
    codes="spatial",
    num_codes=None,
    codebook="ema",
    commitment=0.25,
    decay=0.99,
    revival_threshold=0.05,
) -> Architecture:
    """van den Oord et al. 2017.

    codes: "spatial", one for each position of the encoder's last feature map, 512 x `latents` (the size of an
    embedding, 64 as published) shared by all positions; or "latent", one for each of `latents` numbers, each
    with a codebook of 16 numbers of its own (as Hsu et al. 2023 quantize). num_codes: another size.
    codebook: "ema", moving averages with `decay`, or "gradient". commitment: 0.25 as published.
    revival_threshold: share of the mean usage below which a code is dead and revived; 0 revives none.
    """
    if codes not in ("spatial", "latent"):
        raise ValueError(f"no codes {codes!r}; there are: spatial, latent")
    if codebook not in CODEBOOKS:
        raise ValueError(f"no codebook {codebook!r}; there are: {', '.join(CODEBOOKS)}")
    spatial = codes == "spatial"
    num_codes = num_codes or (512 if spatial else 16)
    functions = vq_functions(tuple(image_shape), latents, network, spatial, num_codes)
    hyper = {"commitment": commitment, "decay": decay, "revival_threshold": revival_threshold}
    return Architecture(
        "vq",
        tuple(image_shape),
        latents,
        hyper,
        *functions[:-1],
        vq_loss(functions, CODEBOOKS[codebook]),
        optimizers={"usage": "frozen"} | ({"codebook": "frozen"} if codebook == "ema" else {}),
        codebook=functions.codebook,
    )


# --- the table -------------------------------------------------------------------------------------------

ARCHITECTURES: dict[str, Callable[..., Architecture]] = {
    "vae": vae,
    "beta": beta_vae,
    "factor": factor_vae,
    "betatc": beta_tc_vae,
    "dip1": dip_vae_1,
    "dip2": dip_vae_2,
    "annealed": annealed_vae,
    "vq": vq_vae,
}


def create(name: str, image_shape: tuple[int, int, int] = (64, 64, 3), **options) -> Architecture:
    """The named architecture for an image shape. Options: latents, network, and its own hyper-parameters.

    The same arguments give the same object, and so the same compiled programs. Raises ValueError naming what
    exists for an unknown architecture or option.
    """
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}.{hint}")
    known = list(inspect.signature(ARCHITECTURES[name]).parameters)[1:]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            has = ", ".join(known)
            raise ValueError(f"architecture {name!r} has no option {option!r}; it has: {has}.{hint}")
    return _create(name, tuple(image_shape), **options)


@functools.lru_cache(maxsize=256)
def _create(name, image_shape, **options):
    return ARCHITECTURES[name](image_shape, **options)
