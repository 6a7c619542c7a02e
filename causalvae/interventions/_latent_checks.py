"""What is checked of latents that are set: values, keys, what a decoder makes of them, and what came out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causalvae._programs import jit
from causalvae.interventions._checks import check_finite, check_key, is_finite

PyTree = Any
LOOKED_AT = 64  # points that are decoded to see in what range images are


def check_points(z: jax.Array) -> None:
    """ValueError, saying in which rows, where z [N, ..., d] is NaN or infinite: a decoder may well hide it."""
    if is_finite(z):
        return
    points = np.asarray(z)
    bad = ~np.isfinite(points).reshape(len(points), -1).all(axis=1)
    raise ValueError(
        f"z is NaN or infinite in {bad.sum()} of {len(points)} points, the first of them in row {bad.argmax()}: "
        "look at the encoder's parameters and at the images"
    )


def draw_values(perturbation: Any, key: Any, z: jax.Array) -> jax.Array:
    """Returns the perturbation's values; ValueError, in words, for no key where it draws, and for values that do not
    fit z: of another shape, real ones for integer codes (cut to integers, they would be other codes), or not finite."""
    try:
        values = perturbation.values(key, z)
    except (TypeError, ValueError, AttributeError):
        check_key(key)
        raise
    name = type(perturbation).__name__
    if values.shape[1:] != z.shape:
        raise ValueError(f"{name}.values must be [V, {', '.join(map(str, z.shape))}], not {list(values.shape)}")
    if jnp.issubdtype(z.dtype, jnp.integer) and not jnp.issubdtype(values.dtype, jnp.integer):
        raise ValueError(f"{name} gives {values.dtype} values, but z holds {z.dtype} codes: use CodeSwap or Resample")
    if not is_finite(values):
        raise ValueError(f"values of {name}, which latents are to be set to, are NaN or infinite")
    return values


def check_probabilities(name: str, decode: Callable, z: jax.Array) -> None:
    """ValueError where a decoder gives values outside [0, 1], of which "bernoulli_kl" knows no distance."""
    low, high = _range(decode, z[:LOOKED_AT])
    if isinstance(low, Tracer):
        return
    low, high = float(low), float(high)
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            f"{name} decodes values from {low:.3g} to {high:.3g}, and bernoulli_kl is a distance of probabilities: let "
            "decode= end in a sigmoid, or take l2 or rms"
        )


@jit()
def _range(decode, z):
    image = decode(z).image
    return jnp.min(image), jnp.max(image)


def check_result(result: Any, known: bool, decode: Callable, z: jax.Array) -> None:
    """ValueError, saying where it begins, where what came of setting latents is NaN or infinite.

    Args:
      result: what came out.
      known: whether all of it are responses of this library; a user's function may give NaN of finite images.
      decode: z -> Decoded.
      z: [N, ..., d].
    """
    if is_finite(result):
        return
    for start in range(0, len(z), LOOKED_AT):
        decoded = decode(z[start : start + LOOKED_AT])
        sites = {**decoded.activations, "the decoded image": decoded.image}
        check_finite({site: jnp.isfinite(value).all() for site, value in sites.items()})
    if known:
        raise ValueError(
            "where latents are set, what is decoded is NaN or infinite, or too large to measure, though as they are it "
            "is not: set them to values nearer to theirs, or look at the decoder"
        )


def rows_of(response: Callable) -> Callable:
    """Returns a user's response with its results checked: ValueError unless each has a row for every point."""

    def checked(base, changed):
        found = response(base, changed)
        num = base.image.shape[0]
        for leaf in jax.tree.leaves(found):
            if jnp.shape(leaf)[:1] != (num,):
                name = getattr(response, "__name__", "response")
                raise ValueError(
                    f"{name}(base, changed) must return a value for each of its {num} rows, [N, ...], not "
                    f"{list(jnp.shape(leaf))}: do not average over the first axis"
                )
        return found

    return checked
