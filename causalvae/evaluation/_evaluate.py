"""All levels, one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae import interventions
from causalvae._display import as_html
from causalvae.adapters.complete import as_architecture
from causalvae.architectures import Architecture, inference_params
from causalvae.circuits import Circuit
from causalvae.data.base import Dataset
from causalvae.evaluation.circuits import circuit_scores, latent_circuits
from causalvae.evaluation.codes import CodeEffects, code_scores, code_usage, swap_codes
from causalvae.evaluation.disentanglement import disentanglement_scores
from causalvae.evaluation.factors import decoder_modularity, encoder_modularity, factor_effects
from causalvae.evaluation.latents import Latents, latent_scores, perturb, strengths, summarize_latents, traverse
from causalvae.evaluation.mediation import Mediated, mediate_latents
from causalvae.evaluation.patching import Patching, patch_sites
from causalvae.evaluation.representations import (
    Encoded,
    encode_sample,
    rate_score,
    reconstruct,
    reconstruction_scores,
    total_correlation_score,
)
from causalvae.evaluation.settings import DEFAULTS, Settings, chosen_sites, random_key
from causalvae.metrics import Score

SHOWN = 16  # images in the figure of reconstructions
Said = Callable[[str], None]


class Evaluation(NamedTuple):
    """Everything measured of one trained model.

    What is measured by setting factors is None where the data set's factors are not generative.
    """

    scores: list[Score]
    latents: Latents
    code_effects: CodeEffects | None  # of discrete codes
    strengths: dict[str, float | None]  # `ces[_<family>]_<distance>[_all]`: means over active, or over all latents
    factor_effects: np.ndarray | None  # R [K, d]
    patching: Patching | None
    mediation: Mediated | None
    circuits: dict[str, Circuit | None] | None  # factor -> its smallest set of latents; None: no effect
    images: np.ndarray  # [up to SHOWN, H, W, C]
    reconstructed: np.ndarray  # of these images
    traversals: np.ndarray  # [d, V, H, W, C] of one image

    _repr_html_ = as_html


class _Causes(NamedTuple):
    """What is measured by setting factors, or against them."""

    scores: list[Score]
    factor_effects: jax.Array | None = None
    patching: Patching | None = None
    mediation: Mediated | None = None
    circuits: dict[str, Circuit | None] | None = None


def evaluate(
    model: Any,
    params: Any,
    dataset: Dataset,
    settings: Settings = DEFAULTS,
    untrained: Any = None,
    progress: Said = lambda step: None,
) -> Evaluation:
    """Returns everything that is measured of a trained model, at all levels.

    All randomness comes from the settings' seed, so that the same parameters always give the same results.

    Args:
      model: an architecture, or a model that an adapter made with `encode` and `decode`.
      params: its parameters, without a member axis.
      dataset: what it was trained on, or another set with images of the same shape.
      settings: sample sizes and choices.
      untrained: the parameters before training, which circuit modularity is compared with. None: drawn from the
        settings' seed.
      progress: told what begins, in a few words, such as "perturbing latents".

    Returns:
      Scores, results per latent and per factor, and images.
    """
    key = functools.partial(random_key, settings.seed)
    model = as_architecture(model, params, dataset.image_shape)
    if untrained is None:
        untrained = jax.jit(model.init)(jax.random.key(settings.seed))
    params, untrained = inference_params(model, params), inference_params(model, untrained)
    progress("encoding images")
    train = encode_sample(model, params, dataset, key("training rows"), settings.codes)
    test = encode_sample(model, params, dataset, key("test rows"), settings.test_codes)
    _, images = dataset.sample(key("images"), settings.images)
    outputs = reconstruct(model.forward, params, images)
    bases = (params, outputs.z), (untrained, reconstruct(model.forward, untrained, images).z)
    progress("perturbing latents")
    perturbed = perturb(model, *bases, train, settings, key("perturbations"))
    if dataset.factor_kind == "generative":
        causes = _set_factors(model, (params, untrained), dataset, settings, perturbed.scale, (train, test), progress)
    else:
        reason = f"undefined: {dataset.name} ({dataset.source}) has attributes, not generative factors"
        causes = _Causes([Score("disentanglement", None, note=reason)])
    latents = summarize_latents(perturbed, causes.factor_effects)
    usage, swapped, of_codes = None, None, []
    if model.codebook is not None:
        usage, swapped = code_usage(model, params, train), swap_codes(model, params, images, key("code swaps"))
        of_codes = code_scores(usage, train, swapped, settings)
    return Evaluation(
        scores=[
            *reconstruction_scores(train),
            rate_score(train, usage),
            *latent_scores(model, latents, train, settings),
            *of_codes,
            total_correlation_score(model, train, key("total correlation")),
            decoder_modularity(perturbed, key("modularity")),
            *causes.scores,
        ],
        latents=latents,
        code_effects=swapped,
        strengths=strengths(perturbed),
        factor_effects=None if causes.factor_effects is None else np.asarray(causes.factor_effects),
        patching=causes.patching,
        mediation=causes.mediation,
        circuits=causes.circuits,
        images=np.asarray(images[:SHOWN]),
        reconstructed=np.asarray(outputs.image[:SHOWN]),
        traversals=traverse(model, params, outputs.z[:1]),
    )


def _set_factors(
    model: Architecture,
    params: tuple[Any, Any],
    dataset: Dataset,
    settings: Settings,
    scale: jax.Array,
    encoded: tuple[Encoded, Encoded],
    progress: Said,
) -> _Causes:
    """params: trained, untrained. scale: of the latents [d]. encoded: rows to fit metrics on, rows to score."""
    key = functools.partial(random_key, settings.seed)
    progress("setting factors")
    effects = factor_effects(model, *params, dataset, settings, scale, key("factor effects"))
    pairs = [  # of each factor; what is done with them is done factor by factor
        interventions.counterfactuals(dataset, jax.random.fold_in(key("pairs"), k), k, settings.pairs)
        for k in range(dataset.num_factors)
    ]
    progress("finding circuits")
    circuits = latent_circuits(model, params[0], pairs, dataset.factor_names)
    progress("scoring disentanglement")
    disentanglement = disentanglement_scores(*encoded, settings)
    progress("patching activations")
    patching = patch_sites(model, params[0], pairs, chosen_sites(settings, model, dataset), key("patching"))
    progress("mediating by latents")
    mediation = mediate_latents(model, params[0], pairs, key("mediation"))
    return _Causes(
        [encoder_modularity(effects, key("modularity")), *circuit_scores(circuits, settings), *disentanglement],
        effects.latents,
        patching,
        mediation,
        circuits,
    )
