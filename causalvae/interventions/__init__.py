"""Interventions at four levels: on the input, on latents, on activations, and mediation between them.

One calling convention: `(model, params, what it acts on, site, *, options)`.

    pairs = counterfactuals(dataset, key, factor="wall_hue", num=256)           # do(factor := v), exact pairs
    effects = factor_effects(model, params, dataset, key)                        # [K, d]
    change = perturb_latents(model, params, z, Sweep(), key)                     # do(z_i := v): [d, V, N]
    patched = patch_effects(model, params, pairs, "encoder/dense")               # [units]
    effects = summarize(mediate(model, params, pairs, "encoder/dense"), key)
"""

from causalvae.interventions._bootstrap import Estimate
from causalvae.interventions._groups import GRANULARITIES
from causalvae.interventions._runs import Outcome, Run
from causalvae.interventions.attribution import Attribution, attribution_effects
from causalvae.interventions.claims import Claims, claims
from causalvae.interventions.codes import KnockOut, knock_out, quantize
from causalvae.interventions.edges import (
    EDGE_METHODS,
    EdgeAgreement,
    EdgeEffects,
    EdgeOptions,
    edge_effects,
    link_effects,
)
from causalvae.interventions.factors import (
    AllValues,
    Pairs,
    counterfactuals,
    counterfactuals_all_values,
    factor_changes,
    factor_effects,
    in_units_of,
)
from causalvae.interventions.images import (
    Brightness,
    Noise,
    Occlude,
    Translate,
    manipulate_images,
    saliency_maps,
)
from causalvae.interventions.interaction import INTERACTION_LIMIT, InteractionShare
from causalvae.interventions.latents import (
    CodeSwap,
    Perturbation,
    Prior,
    Resample,
    Shift,
    Sweep,
    image_distance,
    perturb_latents,
)
from causalvae.interventions.mediation import (
    Mediation,
    MediationSummary,
    indirect_effects,
    mediate,
    summarize,
)
from causalvae.interventions.outcomes import FactorReadout, LatentOutcome, projected_change, unscaled_projection
from causalvae.interventions.patching import PatchEffects, patch_effects
from causalvae.interventions.paths import PathEffects, path_effects
from causalvae.interventions.shapley import Shapley, ShapleySummary, shapley_effects, summarize_shapley

__all__ = [
    "AllValues",
    "Attribution",
    "Brightness",
    "Claims",
    "CodeSwap",
    "EDGE_METHODS",
    "EdgeAgreement",
    "EdgeEffects",
    "EdgeOptions",
    "Estimate",
    "FactorReadout",
    "GRANULARITIES",
    "INTERACTION_LIMIT",
    "InteractionShare",
    "KnockOut",
    "LatentOutcome",
    "Mediation",
    "MediationSummary",
    "Noise",
    "Occlude",
    "Outcome",
    "Pairs",
    "PatchEffects",
    "PathEffects",
    "Perturbation",
    "Prior",
    "Resample",
    "Run",
    "Shapley",
    "ShapleySummary",
    "Shift",
    "Sweep",
    "Translate",
    "attribution_effects",
    "claims",
    "counterfactuals",
    "counterfactuals_all_values",
    "edge_effects",
    "factor_changes",
    "factor_effects",
    "image_distance",
    "in_units_of",
    "indirect_effects",
    "knock_out",
    "link_effects",
    "manipulate_images",
    "mediate",
    "patch_effects",
    "path_effects",
    "perturb_latents",
    "projected_change",
    "quantize",
    "saliency_maps",
    "shapley_effects",
    "summarize",
    "summarize_shapley",
    "unscaled_projection",
]
