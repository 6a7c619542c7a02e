"""The VQ-VAE: discrete codes, one for each position of a feature map or for each latent."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from causalvae import networks, vector_quantization
from causalvae.architectures.base import (
    ACTIVE_THRESHOLD,
    Architecture,
    Codebook,
    LossInfo,
    Outputs,
    Posterior,
    PyTree,
    reconstruction_metrics,
)
from causalvae.sites import Tap, no_tap


class VQFunctions(NamedTuple):
    """What VQ-VAEs of one network and codebook size share; fields of Architecture."""

    init: Callable
    forward: Callable
    encode: Callable
    decode: Callable
    represent: Callable
    activity: Callable
    codebook: Codebook


@functools.lru_cache(maxsize=256)
def vq_functions(
    image_shape: tuple[int, int, int], latents: int, network: str, spatial: bool, num_codes: int
) -> VQFunctions:
    """Returns the functions that all VQ-VAEs with one network and codebook size share: the same objects.

    Sites after the encoder: latent/z (continuous, before quantization), latent/codes (int32; an edit sets codes),
    latent/quantized (embeddings), then the decoder's. z is [B, h, w, d], or [B, d] if there is one code per latent.
    `decode` quantizes, so that a change of z acts through the codes or not at all.
    Parameters: "codebook" [G, num_codes, D] and "usage" [G, num_codes], a moving average of batches' counts.

    Args:
      image_shape: [H, W, C].
      latents: size of an embedding, or how many latents have a code each.
      network: a name of `networks.NETWORKS`.
      spatial: True for one code per position.
      num_codes: of each codebook.
    """
    encoder, decoder = networks.encoder_and_decoder(image_shape, latents, network, "map" if spatial else "vector")
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
    """Returns the representation [B, d]: a map of embeddings [B, h, w, d] averaged over its positions, or itself."""
    return jnp.mean(quantized, axis=(1, 2)) if quantized.ndim == 4 else quantized


def code_activity(codes: jax.Array, quantized: jax.Array, num_codes: int) -> jax.Array:
    """Returns what stands in for a latent's KL [d].

    With one code per latent it is the entropy of its usage in nats. The embedding entries of a map have no KL each:
    there it is the pooled entry's variance relative to their mean.
    """
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
    restart: jax.Array | float = 0.0  # [] descended too, but no part of it


def learn_by_average(params, vectors, codes, hyper, key) -> Learning:
    """Learns moving averages of the vectors of each code; dead codes restart on vectors drawn from the batch."""
    codebook, usage = vector_quantization.moving_average(
        params["codebook"], params["usage"], vectors, codes, hyper["decay"]
    )
    threshold = hyper["revival_threshold"]
    dead = vector_quantization.dead_codes(usage, threshold)
    codebook, usage = vector_quantization.restart(codebook, usage, vectors, threshold, key)
    return Learning({"codebook": codebook, "usage": usage}, dead)


def learn_by_gradient(params, vectors, codes, hyper, key) -> Learning:
    """Learns by ||sg(z) - e||^2, van den Oord et al. 2017, eq. 3.

    Dead codes restart by a penalty that draws them to the nearest vectors.
    """
    codebook, threshold = params["codebook"], hyper["revival_threshold"]
    counts = vector_quantization.count_codes(codes, codebook.shape[1])
    usage = hyper["decay"] * params["usage"] + (1 - hyper["decay"]) * counts
    dead = vector_quantization.dead_codes(usage, threshold)
    loss = jnp.sum((vectors - vector_quantization.embed(codes, codebook)) ** 2)
    restart = vector_quantization.restart_penalty(codebook, usage, vectors, threshold)
    return Learning({"usage": usage}, dead, loss, restart)


CODEBOOKS = {"ema": learn_by_average, "gradient": learn_by_gradient}


def vq_loss(functions: VQFunctions, learn: Callable) -> Callable:
    """Returns the loss -log p(x|z) + commitment ||z - sg(e)||^2, and the codebook's own.

    Source: van den Oord et al. 2017, eq. 3.
    Squared distances are summed over positions and embedding entries, as the reconstruction is over pixels. `kl` is
    the entropy of the batch's usage, summed over positions: the KL to the usage as prior. (To a uniform prior it would
    be the constant log num_codes for each position.)
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
        return value + learned.restart, LossInfo(metrics, learned.updates)

    return loss


def code_metrics(codes: jax.Array, quantized: jax.Array, params: PyTree) -> dict[str, jax.Array]:
    """Returns the rate of a batch's codes in nats, and how much of each codebook they use."""
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
    """Returns the VQ-VAE of van den Oord et al. 2017.

    Args:
      image_shape: [H, W, C].
      latents: size of an embedding (64 as published), or how many latents have a code each.
      network: a name of `networks.NETWORKS`.
      codes: "spatial", one for each position of the encoder's last feature map, from one codebook; or "latent", one for
        each latent, from a codebook of numbers of its own (as Hsu et al. 2023 quantize).
      num_codes: of each codebook; None for 512 (spatial) or 16.
      codebook: "ema" learns it by moving averages, "gradient" by descent.
      commitment: weighs the encoder's distance to its codes; 0.25 as published.
      decay: of moving averages.
      revival_threshold: share of the mean usage below which a code is dead and restarts; 0 restarts none.

    Raises:
      ValueError: for codes or a codebook that do not exist.
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
