"""Everything that is measured of one trained model: reconstruction, latents, four levels of intervention, metrics.

`evaluate` returns an `Evaluation`: scores with their circumstances, results per latent and per factor, and the
images that figures are drawn from. `record` is its JSON-able form, `table` its text, and `summarize`
says it in sentences.
"""

from causalvae.evaluation._evaluate import Evaluation, evaluate
from causalvae.evaluation.codes import CodeEffects
from causalvae.evaluation.codes import swap_codes as swap_codes
from causalvae.evaluation.latents import SWEEP, Latents
from causalvae.evaluation.mediation import Mediated
from causalvae.evaluation.patching import Patching
from causalvae.evaluation.records import record, table
from causalvae.evaluation.representations import BATCH as BATCH
from causalvae.evaluation.representations import Encoded as Encoded
from causalvae.evaluation.representations import aggregate_scale as aggregate_scale
from causalvae.evaluation.representations import encode_sample as encode_sample
from causalvae.evaluation.representations import reconstruct as reconstruct
from causalvae.evaluation.settings import Settings, check_settings, chosen_sites
from causalvae.evaluation.settings import random_key as random_key
from causalvae.evaluation.summary import summarize

__all__ = [
    "SWEEP",
    "CodeEffects",
    "Evaluation",
    "Latents",
    "Mediated",
    "Patching",
    "Settings",
    "check_settings",
    "chosen_sites",
    "evaluate",
    "record",
    "summarize",
    "table",
]
