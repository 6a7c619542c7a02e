"""Anybody's model: what to intervene with when the network is not one of ours.

These functions make a model (see `causalvae.model`) of a Flax Linen or NNX module, of plain functions, or of a function
that stays in another framework, without a change to its code, and carry weights from and to PyTorch. `torch_layers`
has PyTorch's layers as functions of a state dict.

    model = from_linen(module)                    # sites: the paths of its submodules
    outputs, acts = run(model, variables, x, edits={"encoder/Dense_0": set_unit(3, 0.0)}, capture="*")
"""

from causalvae.adapters import torch_layers
from causalvae.adapters.callback import from_callback
from causalvae.adapters.complete import as_architecture
from causalvae.adapters.files import load_params, save_params
from causalvae.adapters.foreign import Foreign, ForeignOutputs
from causalvae.adapters.functions import from_forward, from_functions
from causalvae.adapters.haiku import from_haiku
from causalvae.adapters.linen import from_linen
from causalvae.adapters.nnx import from_nnx
from causalvae.adapters.torch_layers import fold_batch_norm
from causalvae.adapters.torch_networks import NETWORKS, from_published
from causalvae.adapters.torch_weights import LAYOUTS, from_torch, to_torch

__all__ = [
    "Foreign",
    "ForeignOutputs",
    "LAYOUTS",
    "NETWORKS",
    "as_architecture",
    "fold_batch_norm",
    "from_callback",
    "from_forward",
    "from_functions",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "from_published",
    "from_torch",
    "load_params",
    "save_params",
    "to_torch",
    "torch_layers",
]
