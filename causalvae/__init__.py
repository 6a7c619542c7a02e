"""causalvae: causal interventions on variational autoencoders, as pure functions over parameter pytrees."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalvae import (
        adapters,
        architectures,
        checkpoints,
        circuits,
        data,
        discovery,
        evaluation,
        figures,
        frames,
        interventions,
        layers,
        metrics,
        model,
        networks,
        objectives,
        planted,
        plots,
        pretrained,
        progress,
        runs,
        sharding,
        sites,
        tensorboard,
        training,
        vector_quantization,
    )
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
    "checkpoints",
    "circuits",
    "data",
    "discovery",
    "evaluate",
    "evaluation",
    "figures",
    "frame",
    "frames",
    "interventions",
    "layers",
    "load",
    "load_pretrained",
    "metrics",
    "model",
    "networks",
    "no_tap",
    "objectives",
    "patch",
    "planted",
    "plots",
    "pretrained",
    "progress",
    "run",
    "runs",
    "set_unit",
    "set_units",
    "sharding",
    "shift_unit",
    "site_shapes",
    "sites",
    "tag",
    "tensorboard",
    "train",
    "training",
    "transform",
    "vector_quantization",
]

# Where a function is found; every other name of `__all__` is a module. Modules load when they are first asked for, so
# that nobody waits for what is not used.
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
    if name not in __all__:
        raise AttributeError(f"module 'causalvae' has no attribute {name!r}")
    module = importlib.import_module(f"causalvae.{_FUNCTIONS.get(name, name)}")
    return getattr(module, name) if name in _FUNCTIONS else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
