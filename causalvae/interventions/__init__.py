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
    ") from causalvae.interventions.latent import (     CodeSwap", ") from
    causalvae.interventions.mediation import (     Estimate", ") from causalvae.interventions.patching
    import PatchEffects", "CodeSwap", "Decoded", "Decoded", "Estimate", "FactorReadout", "FactorReadout",
    "GRANULARITIES", "K", "LatentOutcome", "LatentOutcome", "Mediation", "Mediation", "MediationSummary",
    "MediationSummary", "N] patched = patch_effects(model", "Pairs", "Pairs", "PatchEffects",
    "Perturbation", "Perturbation", "Prior", "Prior", "Resample", "Resample", "Run", "Run from
    causalvae.interventions.input import (     AllValues", "Shift", "Shift", "Sweep", "Sweep", "Sweep()",
    "V", "counterfactuals", "counterfactuals", "counterfactuals_all_values", "counterfactuals_all_values",
    "d] change = perturb_latents(decoder(model", "decoder", "decoder", "encoder", "encoder",
    "encoder/dense")", "encoder/dense") effects = summarise(mediate(model", "factor_latent_effects",
    "factor_latent_effects", "factor_unit_effects", "factor_unit_effects", "key)             # do(z_i :=
    v): [d", "key) """  from causalvae.interventions.engine import GRANULARITIES", "mediate", "mediate",
    "pairs", "pairs.x", "pairs.x_source", "params", "params", "params)", "patch_effects", "patch_effects
    __all__ = [     "AllValues", "perturb_latents", "perturb_latents", "projected_change",
    "projected_change", "summarise", "summarise", "z",
]  # fmt: skip
