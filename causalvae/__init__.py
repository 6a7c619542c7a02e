"""causalvae: causal interventions on variational autoencoders, as pure functions over parameter pytrees."""

from causalvae import adapters, architectures, circuits, data, interventions, metrics, planted, pretrained, sites
from causalvae.pretrained import load_pretrained
from causalvae.sites import Edit, no_tap, patch, run, set_unit, set_units, shift_unit, site_shapes, transform

__version__ = "0.2.0"

__all__ = [
    "Edit",
    "adapters",
    "architectures",
    "circuits",
    "data",
    "interventions",
    "load_pretrained",
    "metrics",
    "no_tap",
    "patch",
    "planted",
    "pretrained",
    "run",
    "set_unit",
    "set_units",
    "shift_unit",
    "site_shapes",
    "sites",
    "transform",
]
