"""The architectures: each a NamedTuple of pure functions over a parameter pytree.

They differ in their objective and in nothing else. Hyper-parameters are arguments of the loss (arrays, so that members
of one ensemble can differ in them). Functions are shared wherever they are the same.
"""

from causalvae.architectures.base import (
    Architecture,
    Codebook,
    LossInfo,
    Outputs,
    Posterior,
    inference_params,
)
from causalvae.architectures.gaussian import Penalty, Terms, gaussian, mean_kl, sample_posterior
from causalvae.architectures.table import ARCHITECTURES, create

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Codebook",
    "LossInfo",
    "Outputs",
    "Penalty",
    "Posterior",
    "Terms",
    "create",
    "gaussian",
    "inference_params",
    "mean_kl",
    "sample_posterior",
]
