"""Factors set one at a time: their effects on latents and encoder sites; modularity of both halves of the network."""

from __future__ import annotations

import fnmatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import interventions, metrics
from causalvae._programs import cached
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.evaluation.latents import Perturbed
from causalvae.evaluation.settings import Settings
from causalvae.metrics import Score
from causalvae.metrics.circuit_modularity import SiteModularity
from causalvae.metrics.scores import finite
from causalvae.sites import site_shapes, tapped


class FactorEffects(NamedTuple):
    """What setting each factor does to latents [K, d], and to units of encoder sites, trained and untrained."""

    latents: jax.Array
    sites: dict[str, jax.Array]  # site -> [K, units]
    untrained: dict[str, jax.Array]


def factor_effects(
    model: Architecture, params: Any, untrained: Any, dataset: Dataset, settings: Settings, scale, key
) -> FactorEffects:
    """Measures do(factor := v) for every factor and value, in units of the latents' `scale` [d] and of the units'
    standard deviations."""

    sites = encoder_sites(model, params, dataset)

    def changes(params):
        measured = jax.tree_util.Partial(_latents_and_sites(model.forward, model.represent, sites), params)
        return interventions.factor_changes(measured, dataset, key, settings.effects)

    (of_latents, of_sites), (_, deviations) = changes(params)
    (_, of_untrained), (_, untrained_deviations) = changes(untrained)
    return FactorEffects(
        interventions.in_units_of(scale, of_latents),
        interventions.in_units_of(deviations, of_sites),
        interventions.in_units_of(untrained_deviations, of_untrained),
    )


def encoder_sites(model: Architecture, params: Any, dataset: Dataset) -> tuple[str, ...]:
    """Returns the pattern of the encoder's sites; of a model whose sites are called otherwise, all before latent/z."""
    image: Any = jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32)
    shapes = site_shapes(model, params, image)
    names = list(shapes)
    return ("encoder/*",) if fnmatch.filter(names, "encoder/*") else tuple(names[: names.index("latent/z")])


@cached()
def _latents_and_sites(forward, represent, sites):
    """(params, x) -> the representations, and the activations of the encoder's sites."""

    def measured(params, x):
        return represent(params, x), tapped(forward, sites, params, x, None, {})[1]

    return measured


def decoder_modularity(perturbed: Perturbed, key: jax.Array) -> Score:
    """Returns circuit modularity of decoder sites, active latents as causes."""
    found = metrics.modularity_over_sites(key, perturbed.sweep["sites"], perturbed.active, perturbed.untrained["sites"])
    return _score("circuit_modularity_decoder", found, "active latents", "fewer than two active latents")


def encoder_modularity(effects: FactorEffects, key: jax.Array) -> Score:
    """Returns circuit modularity of encoder sites, factors as causes; undefined for a model without such sites."""
    if not effects.sites:
        return Score("circuit_modularity_encoder", None, note="undefined: this model has no site before its latents")
    found = metrics.modularity_over_sites(key, effects.sites, None, effects.untrained)
    return _score("circuit_modularity_encoder", found, "factors", "fewer than two factors have effects")


def _score(name: str, found: SiteModularity, causes: str, reason: str) -> Score:
    """The mean over sites with both nulls: units permuted, and the untrained network."""
    assert found.untrained is not None
    permuted, untrained = (_defined_mean(np.stack(list(m.values()))) for m in (found.permuted, found.untrained))
    sites = {site: finite(value) for site, value in found.sites.items()}
    return metrics.score(
        name,
        found.mean,
        estimator=f"1 - mean |Pearson| between {causes}, mean over sites; null: units permuted",
        settings={"sites": sites, "null_permuted": finite(permuted), "null_untrained": finite(untrained)},
        null=finite(permuted),
        ceiling=1.0,
        note=reason if np.isnan(float(found.mean)) else "",
    )


def _defined_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is finite; NaN, without a warning, where nothing is."""
    defined = np.isfinite(values)
    count = defined.sum(axis=0)
    return np.where(defined, values, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)
