"""causalvae: causal interventions on variational autoencoders, as pure functions over parameter pytrees."""

from causalvae import architectures, data, interventions, metrics, sites
from causalvae.sites import Edit, no_tap, patch, run, set_unit, set_units, shift_unit, site_shapes, transform

__version__ = "0.1.0"

__all__ = [
    "Edit", "architectures", "data", "interventions", "metrics", "no_tap", "patch", "run", "set_unit", "set_units",
    "shift_unit", "site_shapes", "sites", "transform",
]  # fmt: skip
