"""What an evaluation may be told, and where its randomness comes from."""

from __future__ import annotations

import fnmatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae import metrics, schema
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.sites import check_site, site_shapes

# What draws random numbers -> the number of its stream. A stream that is added takes a number of its own, so that the
# others draw what they always drew.
STREAMS = {
    "training rows": 0,
    "test rows": 1,
    "images": 2,
    "perturbations": 3,
    "factor effects": 4,
    "pairs": 5,
    "modularity": 7,
    "mediation": 8,
    "code swaps": 9,
    "total correlation": 10,
    "explorer": 11,
    "patching": 12,
}


class Settings(NamedTuple):
    """Sample sizes and choices of an evaluation; docs/settings.md says what each is for."""

    codes: int = 10_000
    test_codes: int = 5_000
    votes: int = 10_000
    images: int = 256
    pairs: int = 256
    effects: int = 1024
    active_threshold: float = 0.01
    sites: str = "*"
    metrics: str = "all"
    dci_estimator: str = "xla"
    seed: int = 0


DEFAULTS = Settings()


def random_key(seed: int, stream: str) -> jax.Array:
    """Returns the key of one of the `STREAMS` of an evaluation with this seed."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS[stream])


def check_settings(settings: Settings, model: Architecture, dataset: Dataset) -> None:
    """Checks settings before anything is computed.

    Raises:
      ValueError: for sizes below what an evaluation needs, and for sites or metrics that do not exist.
    """
    for name, field in schema.EVALUATION.items():
        schema.check_value(f"evaluation.{name}", getattr(settings, name), field)
    chosen_sites(settings, model, dataset)
    metrics.check_names(settings.metrics)


def chosen_sites(settings: Settings, model: Architecture, dataset: Dataset) -> tuple[str, ...]:
    """Returns the sites that the settings' patterns name, in forward order.

    Raises:
      ValueError: for a pattern without a site; names the sites that there are.
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    image: Any = jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32)
    shapes = site_shapes(model, params, image)
    patterns = [pattern.strip() for pattern in settings.sites.split(",")]
    for pattern in patterns:
        if not fnmatch.filter(shapes, pattern):
            check_site(pattern, shapes)
    return tuple(site for site in shapes if any(fnmatch.fnmatchcase(site, pattern) for pattern in patterns))
