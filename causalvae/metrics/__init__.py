"""Metrics on plain arrays: this framework's causal ones, and the field's disentanglement suite beside them.

Codes [N, d] and factors [N, K] (integer class ids) come from any framework. Nothing here imports the rest of
the library.
"""

from causalvae.metrics.causal import (
    active_latents,
    bootstrap_standard_error,
    causal_effect_strength,
    circuit_modularity,
    effect_distances,
    effect_strength,
    image_distance,
    intervention_specificity,
    kl_per_latent,
    mean_over,
    modularity_over_sites,
    permuted_modularity,
    unit_selectivity,
)
from causalvae.metrics.dci import dci
from causalvae.metrics.mutual_information import mig
from causalvae.metrics.scores import Score

__all__ = [
    "Score",
    "active_latents",
    "bootstrap_standard_error",
    "causal_effect_strength",
    "circuit_modularity",
    "dci",
    "effect_distances",
    "effect_strength",
    "image_distance",
    "intervention_specificity",
    "kl_per_latent",
    "mean_over",
    "mig",
    "modularity_over_sites",
    "permuted_modularity",
    "unit_selectivity",
]
