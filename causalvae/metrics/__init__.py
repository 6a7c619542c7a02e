"""Metrics on plain arrays: this framework's causal ones, and the field's disentanglement suite beside them.

Representations [N, d] and factors [N, K] (integer class ids) come from any framework.
"""

from causalvae.metrics.activity import active_latents, kl_per_latent, mean_over
from causalvae.metrics.betavae import betavae_kernel, betavae_score
from causalvae.metrics.circuit_modularity import circuit_modularity, modularity_over_sites, permuted_modularity
from causalvae.metrics.dci import dci, dci_boosting_kernel, dci_lasso_kernel, dci_of_members
from causalvae.metrics.effect_strength import (
    causal_effect_strength,
    effect_strength,
    effect_strength_with_error,
    overall_strength,
)
from causalvae.metrics.explicitness import explicitness, explicitness_kernel
from causalvae.metrics.factorvae import factorvae_kernel, factorvae_score
from causalvae.metrics.identifiability import mcc, r2
from causalvae.metrics.infomec import infomec, infomec_kernel
from causalvae.metrics.irs import irs, irs_kernel
from causalvae.metrics.mig import mig, mig_kernel
from causalvae.metrics.modularity import modularity, modularity_kernel
from causalvae.metrics.sap import sap, sap_kernel
from causalvae.metrics.scores import Score, score, table, to_csv, to_json
from causalvae.metrics.specificity import intervention_specificity, unit_selectivity
from causalvae.metrics.suite import METRICS, Metric, Options, check_names, evaluate_representations
from causalvae.metrics.udr import udr, udr_kernel

__all__ = [
    "METRICS",
    "Metric",
    "Options",
    "Score",
    "active_latents",
    "betavae_kernel",
    "betavae_score",
    "causal_effect_strength",
    "check_names",
    "circuit_modularity",
    "dci",
    "dci_boosting_kernel",
    "dci_lasso_kernel",
    "dci_of_members",
    "effect_strength",
    "effect_strength_with_error",
    "evaluate_representations",
    "explicitness",
    "explicitness_kernel",
    "factorvae_kernel",
    "factorvae_score",
    "infomec",
    "infomec_kernel",
    "intervention_specificity",
    "irs",
    "irs_kernel",
    "kl_per_latent",
    "mcc",
    "mean_over",
    "mig",
    "mig_kernel",
    "modularity",
    "modularity_kernel",
    "modularity_over_sites",
    "overall_strength",
    "permuted_modularity",
    "r2",
    "sap",
    "sap_kernel",
    "score",
    "table",
    "to_csv",
    "to_json",
    "udr",
    "udr_kernel",
    "unit_selectivity",
]
