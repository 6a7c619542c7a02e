"""Interventions at four levels: on the input, on latents, on activations, and mediation between them.

pairs = counterfactuals(dataset, key, factor="wall_hue", num=256)        # do(factor := v), exact pairs
effects = factor_latent_effects(encoder(model, params), dataset, key, 64)     # [K, d]
change = perturb_latents(decoder(model, params), z, Sweep(), key)             # do(z_i := v): [d, V, N]
patched = patch_effects(model, params, pairs.x, pairs.x_source, "encoder/dense")
effects = summarize(mediate(model, params, pairs, "encoder/dense"), key)
"""

from causalvae.interventions.codes import KnockOut, code_swap_distances, knock_out, quantize
from causalvae.interventions.engine import GRANULARITIES, Run
from causalvae.interventions.factors import (
    AllValues,
    Pairs,
    counterfactuals,
    counterfactuals_all_values,
    encoder,
    factor_changes,
    factor_latent_effects,
    factor_unit_effects,
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
from causalvae.interventions.latents import (
    CodeSwap,
    Decoded,
    Perturbation,
    Prior,
    Resample,
    Shift,
    Sweep,
    code_decoder,
    decoder,
    perturb_latents,
)
from causalvae.interventions.mediation import (
    Estimate,
    FactorReadout,
    LatentOutcome,
    Mediation,
    MediationSummary,
    indirect_effects,
    mediate,
    projected_change,
    summarize,
    unscaled_projection,
)
from causalvae.interventions.patching import PatchEffects, patch_effects
from causalvae.interventions.paths import Attribution, PathEffects, attribution_effects, path_effects

__all__ = [
    "AllValues", "Attribution", "Brightness", "CodeSwap", "Decoded", "Estimate", "FactorReadout",
    "GRANULARITIES", "KnockOut", "LatentOutcome", "Mediation", "MediationSummary", "Noise", "Occlude",
    "Pairs", "PatchEffects", "PathEffects", "Perturbation", "Prior", "Resample", "Run", "Shift",
    "Sweep", "Translate", "attribution_effects", "code_decoder", "code_swap_distances",
    "counterfactuals", "counterfactuals_all_values", "decoder", "encoder", "factor_changes",
    "factor_latent_effects", "factor_unit_effects", "in_units_of", "indirect_effects", "knock_out",
    "manipulate_images", "mediate", "patch_effects", "path_effects", "perturb_latents",
    "projected_change", "quantize", "saliency_maps", "summarize", "unscaled_projection",
]  # fmt: skip
