"""causalvae: causal interventions on variational autoencoders, as pure functions over parameter pytrees."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalvae import (
        adapters,
        architectures,
        circuits,
        data,
        discovery,
        edges,
        evaluation,
        interventions,
        metrics,
        model,
        objectives,
        planted,
        planted_edges,
        pretrained,
        sites,
        training,
    )
    from causalvae import checkpoints as checkpoints
    from causalvae import commands as commands
    from causalvae import figures as figures
    from causalvae import frames as frames
    from causalvae import layers as layers
    from causalvae import locks as locks
    from causalvae import networks as networks
    from causalvae import plots as plots
    from causalvae import progress as progress
    from causalvae import runs as runs
    from causalvae import schema as schema
    from causalvae import sharding as sharding
    from causalvae import tensorboard as tensorboard
    from causalvae import vector_quantization as vector_quantization
    from causalvae.evaluation import evaluate
    from causalvae.frames import frame
    from causalvae.pretrained import load_pretrained
    from causalvae.runs import load, train
    from causalvae.sites import Edit, no_tap, patch, run, set_unit, set_units, shift_unit, site_shapes, tag, transform

__version__ = "0.2.0"

__all__ = [
    "Edit",
    "adapters",
    "architectures",
    "circuits",
    "data",
    "discovery",
    "edges",
    "evaluate",
    "evaluation",
    "frame",
    "interventions",
    "load",
    "load_pretrained",
    "metrics",
    "model",
    "no_tap",
    "objectives",
    "patch",
    "planted",
    "planted_edges",
    "pretrained",
    "run",
    "set_unit",
    "set_units",
    "shift_unit",
    "site_shapes",
    "sites",
    "tag",
    "train",
    "training",
    "transform",
]

# Modules load when they are first asked for, so that nobody waits for what is not used. These are reachable, too, and
# may change without notice.
_INTERNAL = (
    "checkpoints",
    "commands",
    "figures",
    "frames",
    "layers",
    "locks",
    "networks",
    "plots",
    "progress",
    "runs",
    "schema",
    "sharding",
    "tensorboard",
    "vector_quantization",
)
# Where a function is found; every other name is a module.
_FUNCTIONS = {
    "evaluate": "evaluation",
    "frame": "frames",
    "load": "runs",
    "load_pretrained": "pretrained",
    "train": "runs",
    **dict.fromkeys(
        ("Edit", "no_tap", "patch", "run", "set_unit", "set_units", "shift_unit", "site_shapes", "tag", "transform"),
        "sites",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__ and name not in _INTERNAL:
        raise AttributeError(f"module 'causalvae' has no attribute {name!r}")
    module = importlib.import_module(f"causalvae.{_FUNCTIONS.get(name, name)}")
    return getattr(module, name) if name in _FUNCTIONS else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_INTERNAL})
