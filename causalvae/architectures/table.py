"""The architectures by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from causalvae._words import nearest
from causalvae.architectures import gaussian_family, vector_quantized
from causalvae.architectures.base import Architecture

ARCHITECTURES: dict[str, Callable[..., Architecture]] = {
    "vae": gaussian_family.vae,
    "beta": gaussian_family.beta_vae,
    "factor": gaussian_family.factor_vae,
    "betatc": gaussian_family.beta_tc_vae,
    "dip1": gaussian_family.dip_vae_1,
    "dip2": gaussian_family.dip_vae_2,
    "annealed": gaussian_family.annealed_vae,
    "vq": vector_quantized.vq_vae,
}
"""name -> the function that makes it: a new architecture is one line here."""


def create(name: str, image_shape: tuple[int, int, int] = (64, 64, 3), **options: Any) -> Architecture:
    """Returns the named architecture for an image shape.

    The same arguments give the same object, and the same callables and shapes share compiled programs.

    Args:
      name: of `ARCHITECTURES`.
      image_shape: [H, W, C].
      **options: latents, network, and the architecture's own hyper-parameters.

    Raises:
      ValueError: for an unknown architecture or option; names those that exist.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}.{nearest(name, ARCHITECTURES)}"
        )
    known = list(inspect.signature(ARCHITECTURES[name]).parameters)[1:]
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}  # of JSON
    for option in options:
        if option not in known:
            has = ", ".join(known)
            raise ValueError(f"architecture {name!r} has no option {option!r}; it has: {has}.{nearest(option, known)}")
    return _create(name, tuple(image_shape), **dict(sorted(options.items())))  # in whatever order they were given


@functools.lru_cache(maxsize=256)
def _create(name, image_shape, **options):
    return ARCHITECTURES[name](image_shape, **options)
