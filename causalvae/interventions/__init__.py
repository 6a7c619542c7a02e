"""Interventions at four levels: on the input, on latents, on activations, and mediation between them.

pairs = counterfactuals(dataset, key, factor="wall_hue", num=256)        # do(factor := v), exact pairs
effects = factor_latent_effects(encoder(model, params), dataset, key, 64)     # [K, d]
change = perturb_latents(decoder(model, params), z, Sweep(), key)             # do(z_i := v): [d, V, N]
patched = patch_effects(model, params, pairs.x, pairs.x_source, "encoder/dense")
effects = summarise(mediate(model, params, pairs, "encoder/dense"), key)
"""

from causalvae.interventions.engine import GRANULARITIES, Run
from causalvae.interventions.input import (
    AllValues,
    Pairs,
    counterfactuals,
    counterfactuals_all_values,
    encoder,
    factor_latent_effects,
    factor_unit_effects,
)
from causalvae.interventions.latent import (
    CodeSwap,
    Decoded,
    Perturbation,
    Prior,
    Resample,
    Shift,
    Sweep,
    decoder,
    perturb_latents,
)
from causalvae.interventions.mediation import (
    Estimate,
    FactorReadout,
    LatentOutcome,
    Mediation,
    MediationSummary,
    mediate,
    projected_change,
    summarise,
)
from causalvae.interventions.patching import PatchEffects, patch_effects

__all__ = [
    "AllValues", "CodeSwap", "Decoded", "Estimate", "FactorReadout", "GRANULARITIES", "LatentOutcome",
    "Mediation", "MediationSummary", "Pairs", "PatchEffects", "Perturbation", "Prior", "Resample", "Run",
    "Shift", "Sweep", "counterfactuals", "counterfactuals_all_values", "decoder", "encoder",
    "factor_latent_effects", "factor_unit_effects", "mediate", "patch_effects", "perturb_latents",
    "projected_change", "summarise",
]  # fmt: skip
