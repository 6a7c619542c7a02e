"""Discrete codes: how much of the codebook is used, and what swapping a code does."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import interventions, metrics, vector_quantization
from causalvae._programs import jit
from causalvae.architectures import Architecture
from causalvae.evaluation.representations import BATCH, Encoded
from causalvae.evaluation.settings import Settings
from causalvae.metrics import Score

SWAP = interventions.CodeSwap(7)


class CodeEffects(NamedTuple):
    """What swapping the code of each position for another in use does, by `SWAP`; [L] each."""

    ces_l2: jax.Array
    ces_l2_error: jax.Array  # standard error over images, as what is changed and as where codes come from
    ces_rms: jax.Array
    ces_rms_error: jax.Array
    ces_l2_mean_error: jax.Array  # [], of the mean over positions
    ces_rms_mean_error: jax.Array
    specificity_outputs: jax.Array  # normalized, [0, 1]


def code_usage(model: Architecture, params: Any, encoded: Encoded) -> jax.Array:
    """Returns the share of each discrete code [groups, num_codes] over whole batches of encoded images."""
    assert model.codebook is not None
    num = len(encoded.mean) // BATCH * BATCH or len(encoded.mean)
    batches = encoded.mean[:num].reshape(-1, min(BATCH, num), *encoded.mean.shape[1:])
    return _mean_usage(model.codebook.usage, params, batches)


@jit(static=1)
def _mean_usage(usage, params, batches):
    return jnp.mean(jax.lax.map(functools.partial(usage, params), batches), axis=0)


def swap_codes(model: Architecture, params: Any, images: jax.Array, key: jax.Array) -> CodeEffects:
    """Computes causal effect strength and specificity in code space: a position's code becomes another in use.

    Strength is not zero where the continuous form is.
    """
    codes = interventions.quantize(model, params, images)
    swapped = interventions.perturb_latents(model, params, codes, SWAP, key, response=("l2", "rms", "outputs"))
    return _code_effects(swapped, SWAP.sources(key, codes))


@jax.jit
def _code_effects(swapped: dict[str, jax.Array], sources: jax.Array) -> CodeEffects:
    outputs = swapped["outputs"].reshape(len(swapped["outputs"]), -1)
    l2, rms = (metrics.effect_strength(swapped[name], sources) for name in ("l2", "rms"))
    return CodeEffects(
        ces_l2=l2.mean,
        ces_l2_error=l2.standard_error,
        ces_rms=rms.mean,
        ces_rms_error=rms.standard_error,
        ces_l2_mean_error=metrics.overall_strength(swapped["l2"], sources).standard_error,
        ces_rms_mean_error=metrics.overall_strength(swapped["rms"], sources).standard_error,
        specificity_outputs=metrics.intervention_specificity(outputs).normalized,
    )


def code_scores(usage: jax.Array, encoded: Encoded, effects: CodeEffects, settings: Settings) -> list[Score]:
    """Returns how much of the codebook is used (usage [groups, num_codes]), and the mean strength of swaps."""
    perplexity = float(jnp.mean(jnp.exp(vector_quantization.usage_entropy(usage))))
    samples, ceiling = {"images": len(encoded.mean)}, float(usage.shape[-1])
    scores = [
        Score("code_perplexity", perplexity, None, "exp entropy of usage", samples, ceiling=ceiling),
        Score("codes_used", float(jnp.mean(usage > 0)), None, "share of the codebook in use", samples, ceiling=1.0),
    ]
    samples, how = {"images": settings.images}, "CodeSwap(7) of one position's code; mean over positions"
    for name in ("l2", "rms"):
        mean, error = (np.asarray(getattr(effects, f"ces_{name}{part}")) for part in ("", "_mean_error"))
        scores.append(Score(f"ces_code_swap_{name}", float(np.mean(mean)), float(error), how, samples))
    return scores
