"""What the encoder says of a sample of images: representations, reconstruction, rate, total correlation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import metrics, objectives, vector_quantization
from causalvae._programs import jit
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.evaluation.settings import Settings
from causalvae.metrics import Score
from causalvae.metrics.ties import exceeds
from causalvae.sites import no_tap

BATCH = 250  # images encoded at once; divides the published sample sizes
TC_POINTS = 512  # samples at which the densities of the total correlation's bounds are compared


class Encoded(NamedTuple):
    """What the encoder says of a sample of images, one row per image."""

    factors: jax.Array  # [N, K]
    representations: jax.Array  # [N, d] the vector that disentanglement metrics score
    mean: jax.Array  # [N, ..., d] at site latent/z
    log_variance: jax.Array  # [N, ..., d]; -inf for a point mass
    activity: jax.Array  # [N, d] of the image's batch: KL in nats, or what stands in (Architecture.activity)
    negative_log_likelihood: jax.Array  # [N] nats, decoded from the posterior mean
    squared_error: jax.Array  # [N] mean over pixels
    image_mean: jax.Array  # [batches, H, W, C] of each batch
    image_square: jax.Array  # [batches, H, W, C] mean of the squared pixels of each batch


def encode_sample(model: Architecture, params: Any, dataset: Dataset, key: jax.Array, num: int) -> Encoded:
    """Draws `num` images, encodes them and decodes them from their posterior means, `BATCH` at a time."""
    batch = min(BATCH, num)
    batches = -(-num // batch)
    functions = model.forward, model.represent, model.activity
    return _encode_sample(functions, (batch, batches, num), params, dataset, key)


@jit(static=2)
def _encode_sample(functions, sizes, params, dataset, key):
    (forward, represent, activity), (batch, batches, num) = functions, sizes

    def one(i):
        factors, images = dataset.sample(jax.random.fold_in(key, i), batch)
        outputs = forward(params, images, None, no_tap)
        return Encoded(
            factors=factors,
            representations=represent(params, images),
            mean=outputs.posterior.mean,
            log_variance=outputs.posterior.log_variance,
            activity=jnp.broadcast_to(activity(params, images), (batch, outputs.z.shape[-1])),
            negative_log_likelihood=objectives.bernoulli_negative_log_likelihood(outputs.logits, images),
            squared_error=objectives.squared_error(outputs.image, images),
            image_mean=jnp.mean(images, axis=0),
            image_square=jnp.mean(images**2, axis=0),
        )

    encoded = jax.lax.map(one, jnp.arange(batches))
    rows = {name: value for name, value in encoded._asdict().items() if not name.startswith("image")}
    return encoded._replace(**jax.tree.map(lambda a: a.reshape(batch * batches, *a.shape[2:])[:num], rows))


@jit(static=1)
def reconstruct(forward, params, images):
    """Returns the forward pass from posterior means."""
    return forward(params, images, None, no_tap)


@jax.jit
def aggregate_scale(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Returns s_i [d] of [N, ..., d]: s_i^2 = Var mean_i + E variance_i, the aggregate posterior's deviation."""
    rows = tuple(range(mean.ndim - 1))
    return jnp.sqrt(jnp.var(mean, axis=rows) + jnp.mean(jnp.exp(log_variance), axis=rows))


def is_active(encoded: Encoded, settings: Settings) -> jax.Array:
    """Returns which latents [d] bool are active; one whose activity equals the threshold but for rounding is not."""
    return exceeds(jnp.mean(encoded.activity, axis=0), settings.active_threshold)


def reconstruction_scores(encoded: Encoded) -> list[Score]:
    """Returns reconstruction in nats and mean squared error, with the mean image's error as its null."""
    samples = {"images": len(encoded.mean)}
    baseline = float(mean_image_error(encoded))
    likelihood, error = np.asarray(encoded.negative_log_likelihood), np.asarray(encoded.squared_error)
    return [
        metrics.score("reconstruction", np.mean(likelihood), standard_error=_error(likelihood),
                      estimator="Bernoulli nats per image, from posterior means", samples=samples),
        metrics.score("mean_squared_error", np.mean(error), standard_error=_error(error), null=baseline, ceiling=0.0,
                      estimator="per pixel, from posterior means; null: the mean image", samples=samples),
    ]  # fmt: skip


@jax.jit
def mean_image_error(encoded: Encoded) -> jax.Array:
    """Returns the error per pixel of always answering the mean image: the variance of pixels over images."""
    mean = jnp.mean(encoded.image_mean, axis=0)
    return jnp.mean(jnp.mean(encoded.image_square, axis=0) - mean**2)


def _error(values: np.ndarray) -> float | None:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def rate_score(encoded: Encoded, usage: jax.Array | None) -> Score:
    """Returns the rate E_x KL(q(z|x) || p(z)).

    Of discrete codes, which an image determines, it is taken with their usage as the prior.

    Args:
      encoded: the sample.
      usage: share of each discrete code [groups, num_codes]; None where latents are continuous.
    """
    samples = {"images": len(encoded.mean)}
    if usage is None:
        rate = jnp.sum(jnp.mean(encoded.activity, axis=0))
        return metrics.score("kl", rate, estimator="nats per image, summed over latents", samples=samples)
    positions = encoded.mean[0, ..., 0].size if encoded.mean.ndim > 2 else 1  # of a map of codes that share a codebook
    groups, num_codes = usage.shape
    return Score(
        "kl",
        float(positions * jnp.sum(vector_quantization.usage_entropy(usage))),
        estimator="nats per image, entropy of the codes' usage, summed over positions",
        samples=samples,
        settings={"uniform_prior": positions * groups * float(np.log(num_codes))},
    )


def total_correlation_score(model: Architecture, encoded: Encoded, key: jax.Array) -> Score:
    """Returns the total correlation of the aggregate posterior, a Gaussian estimate with density bounds beside it."""
    name, estimator = "total_correlation", "Gaussian, nats, from Cov(mean) + E[variance]"
    if model.codebook is not None:
        return Score(name, None, estimator=estimator, note="undefined: discrete codes have no density")
    if encoded.mean.ndim > 2:
        return Score(
            name, None, estimator=estimator, note="undefined: latents are a map, whose positions are no sample"
        )
    found = _total_correlation(encoded.mean, encoded.log_variance, key)
    bounds = {"density_lower": float(found.lower), "density_upper": float(found.upper)}
    samples = {"images": len(encoded.mean), "points": min(TC_POINTS, len(encoded.mean))}
    return metrics.score(name, found.gaussian, estimator=estimator, samples=samples, settings=bounds)


@jax.jit
def _total_correlation(mean, log_variance, key):
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    return objectives.total_correlation(z[:TC_POINTS], mean, log_variance)
