"""Everything that is measured of one trained model: reconstruction, latents, four levels of intervention, metrics.

`evaluate` returns an `Evaluation`: scores with their circumstances, results per latent and per factor, and the
images that figures are drawn from. `record` is its JSON-able form, `table` its text.
"""

from causalvae.evaluation._evaluate import Evaluation, evaluate
from causalvae.evaluation.codes import CodeEffects, swap_codes
from causalvae.evaluation.latents import SWEEP, Latents
from causalvae.evaluation.mediation import Mediated
from causalvae.evaluation.patching import Patching
from causalvae.evaluation.records import record, table
from causalvae.evaluation.representations import BATCH, Encoded, aggregate_scale, encode_sample, reconstruct
from causalvae.evaluation.settings import Settings, check_settings, chosen_sites, random_key

__all__ = [
    "BATCH",
    "SWEEP",
    "CodeEffects",
    "Encoded",
    "Evaluation",
    "Latents",
    "Mediated",
    "Patching",
    "Settings",
    "aggregate_scale",
    "check_settings",
    "chosen_sites",
    "encode_sample",
    "evaluate",
    "random_key",
    "reconstruct",
    "record",
    "swap_codes",
    "table",
]
