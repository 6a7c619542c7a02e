"""Latents set one at a time: how strong each is, how specific its effects, and what its images look like."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import interventions, metrics
from causalvae._display import as_html
from causalvae._programs import jit
from causalvae.architectures import Architecture
from causalvae.evaluation.representations import Encoded, aggregate_scale, is_active
from causalvae.evaluation.settings import Settings
from causalvae.metrics import Score
from causalvae.metrics.scores import finite

SWEEP = interventions.Sweep(-3.0, 3.0, 7)
"""What latents are set to where strength is measured: the paper's family."""

RESAMPLE = interventions.Resample(7)
# What else strength is measured under, by the name that a column of a study's table has after `ces`: finding (i) is
# read under each of them, since it depends on the choice.
FAMILIES = {
    "_resample": RESAMPLE,
    "_sweep2": interventions.Sweep(-2.0, 2.0, 7),
    "_prior": interventions.Prior(7),
    "_shift1": interventions.Shift(1.0),
}
DISTANCES = ("l2", "rms", "bernoulli_kl")
Base = tuple[Any, jax.Array]  # parameters, latents of the base images [N, ..., d]
RESPONSES = (*DISTANCES, "outputs", "latents", "sites")


class Latents(NamedTuple):
    """What was measured of each latent; [d] each."""

    activity: jax.Array  # mean KL in nats; of discrete codes what stands in for it, see Architecture.activity
    active: jax.Array  # bool, activity above the threshold
    scale: jax.Array  # s_i, the aggregate posterior's standard deviation
    ces_l2: jax.Array  # Sweep
    ces_l2_error: jax.Array  # standard error over images
    ces_rms: jax.Array
    ces_resample_l2: jax.Array  # Resample
    ces_resample_l2_error: jax.Array  # standard error over images, as what is changed and as where values come from
    ces_resample_rms: jax.Array
    specificity_outputs: jax.Array  # of the latent's effects on output values; normalized, [0, 1]
    specificity_to_factors: jax.Array  # of the factors' effects on the latent
    specificity_latents: jax.Array  # of the latent's effects on all latents
    specificity_outputs_reported: jax.Array  # the paper's form, 1 / (H + eps)
    specificity_to_factors_reported: jax.Array
    specificity_latents_reported: jax.Array

    _repr_html_ = as_html


class Perturbed(NamedTuple):
    """Latent perturbations of one batch, of the trained and of the untrained network."""

    activity: jax.Array  # [d]
    active: jax.Array  # [d]
    scale: jax.Array  # [d]
    sweep: dict[str, Any]  # response -> result, see interventions.perturb_latents
    families: dict[str, dict[str, jax.Array]]  # of FAMILIES: distance -> [d, V, N]
    sources: jax.Array  # [V, N] the image that each value of RESAMPLE is taken from
    untrained: dict[str, Any]


class Families(NamedTuple):
    """The perturbations of FAMILIES, their values one after the other: one sweep measures them all."""

    shift: interventions.Shift  # in units of the aggregate posterior's standard deviation

    def values(self, key: jax.Array, z: jax.Array) -> jax.Array:
        families = {**FAMILIES, "_shift1": self.shift}
        return jnp.concatenate([family.values(key, z) for family in families.values()])

    @staticmethod
    def split(distances: jax.Array) -> dict[str, jax.Array]:
        """family -> its part of [d, V, N]."""
        counts = [getattr(family, "num", 1) for family in FAMILIES.values()]
        return dict(zip(FAMILIES, jnp.split(distances, np.cumsum(counts)[:-1], axis=1), strict=True))


def perturb(
    model: Architecture, trained: Base, untrained: Base, encoded: Encoded, settings: Settings, key: jax.Array
) -> Perturbed:
    """Sets every latent by every family, and by the sweep in the untrained network too.

    Args:
      model: an architecture.
      trained: parameters and latents of the base images.
      untrained: those of the network before training.
      encoded: the sample that scale and activity are taken from.
      settings: of the evaluation.
      key: for the families that draw values.

    Returns:
      Of the sweep the `RESPONSES`, of the other families the `DISTANCES`.
    """
    scale = aggregate_scale(encoded.mean, encoded.log_variance)

    def responses(base, perturbation, response=RESPONSES):
        params, z = base
        return interventions.perturb_latents(model, params, z, perturbation, key, response=response)

    families = Families(dataclasses.replace(FAMILIES["_shift1"], scale=scale))
    others = {name: Families.split(found) for name, found in responses(trained, families, DISTANCES).items()}
    return Perturbed(
        jnp.mean(encoded.activity, axis=0),
        is_active(encoded, settings),
        scale,
        responses(trained, SWEEP),
        {family: {name: others[name][family] for name in DISTANCES} for family in FAMILIES},
        RESAMPLE.sources(key, trained[1]),
        responses(untrained, SWEEP),
    )


def summarize_latents(perturbed: Perturbed, factor_effects: jax.Array | None) -> Latents:
    """Computes strength under sweep and resampling, and three specificities of every latent.

    Args:
      perturbed: latents set one at a time.
      factor_effects: what each factor does to each latent [K, d]; None where there are no generative factors.
    """
    sweep, resample = perturbed.sweep, perturbed.families["_resample"]
    strength = metrics.effect_strength(sweep["l2"])
    resampled = metrics.effect_strength(resample["l2"], perturbed.sources)
    undefined = jnp.full(perturbed.activity.shape, jnp.nan)

    categories = {
        "outputs": sweep["outputs"].reshape(len(strength.mean), -1),
        "to_factors": None if factor_effects is None else factor_effects.T,
        "latents": interventions.in_units_of(perturbed.scale, sweep["latents"]) if len(strength.mean) > 1 else None,
    }
    specificity = {}
    for name, effect in categories.items():
        found = (undefined, undefined) if effect is None else metrics.intervention_specificity(effect)
        specificity[f"specificity_{name}_reported"], specificity[f"specificity_{name}"] = found
    return Latents(
        activity=perturbed.activity,
        active=perturbed.active,
        scale=perturbed.scale,
        ces_l2=strength.mean,
        ces_l2_error=strength.standard_error,
        ces_rms=metrics.effect_strength(sweep["rms"]).mean,
        ces_resample_l2=resampled.mean,
        ces_resample_l2_error=resampled.standard_error,
        ces_resample_rms=metrics.effect_strength(resample["rms"]).mean,
        **specificity,
    )


def strengths(perturbed: Perturbed) -> dict[str, float | None]:
    """Returns causal effect strength under every family and distance, averaged over active and over all latents.

    The mean over active latents is None where there are none.
    """
    found = {}
    for family, distances in {"": perturbed.sweep, **perturbed.families}.items():
        for name in DISTANCES:
            each = metrics.effect_strength(distances[name]).mean
            found[f"ces{family}_{name}"] = finite(metrics.mean_over(each, perturbed.active).mean)
            found[f"ces{family}_{name}_all"] = finite(jnp.mean(each))
    return found


class LatentScore(NamedTuple):
    """How a field of `Latents` is measured, and the ceiling of its mean."""

    estimator: str
    ceiling: float | None = None


REPORTED = "1/(H + 1e-6), the paper's form, unbounded"
LATENT_SCORES = {
    "ces_l2": LatentScore("Sweep(-3, 3, 7), l2 of a whole image (the paper's distance)"),
    "ces_rms": LatentScore("Sweep(-3, 3, 7), per pixel value"),
    "ces_resample_l2": LatentScore("Resample(7), l2 of a whole image"),
    "ces_resample_rms": LatentScore("Resample(7), per pixel value"),
    "specificity_outputs": LatentScore("1 - H/log K of effects on output values", 1.0),
    "specificity_to_factors": LatentScore("1 - H/log K of the factors' effects on a latent", 1.0),
    "specificity_latents": LatentScore("1 - H/log K of effects on latents, decoded and encoded again", 1.0),
    "specificity_outputs_reported": LatentScore(REPORTED),
    "specificity_to_factors_reported": LatentScore(REPORTED),
    "specificity_latents_reported": LatentScore(REPORTED),
}


def latent_scores(model: Architecture, latents: Latents, encoded: Encoded, settings: Settings) -> list[Score]:
    """Returns the number of active latents, and the means over them of what was measured per latent."""
    active, threshold = int(np.sum(latents.active)), settings.active_threshold
    what = "KL" if model.codebook is None else "activity (see Architecture.activity)"
    samples, ceiling = {"images": len(encoded.mean)}, float(model.latents)
    scores = [Score("active_latents", float(active), None, f"{what} > {threshold}", samples, ceiling=ceiling)]
    for name, how in LATENT_SCORES.items():
        mean = metrics.mean_over(getattr(latents, name), latents.active)
        scores.append(
            metrics.score(
                name,
                mean.mean,
                estimator=f"{how.estimator}; mean over active latents",
                samples={"images": settings.images, "values": SWEEP.num},
                settings={"active_threshold": threshold, "averaged": int(mean.count), "latents": model.latents},
                ceiling=how.ceiling,
                note="" if int(mean.count) else "undefined: no active latent has a value",
            )
        )
    return scores


def traverse(model: Architecture, params: Any, z: jax.Array) -> np.ndarray:
    """Returns images [d, V, H, W, C] of one point z [1, ..., d] with each latent set to each of the sweep's values."""
    return np.asarray(_traverse(model.decode, params, z))


@jit(static=1)
def _traverse(decode, params, z):
    values = SWEEP.values(None, z)  # [V, 1, ..., d]
    d = z.shape[-1]
    is_set = jnp.eye(d, dtype=bool).reshape(d, 1, *(1,) * (z.ndim - 2), d)
    points = jnp.where(is_set, values[None, :, 0], jnp.broadcast_to(z[None], (d, len(values), *z.shape[1:])))
    images = jax.nn.sigmoid(decode(params, points.reshape(-1, *z.shape[1:])))
    return images.reshape(d, len(values), *images.shape[1:])
