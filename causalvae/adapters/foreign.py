"""A model that is not ours, in the terms of the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae._inputs import while_running
from causalvae.model import identity
from causalvae.sites import Tap, no_tap

PyTree = Any


class ForeignOutputs(NamedTuple):
    """What interventions look at in a run: the image that changes are measured on, and the latents if any."""

    image: jax.Array  # [N, ...]
    z: jax.Array | None = None  # [N, ..., d]


class Foreign(NamedTuple):
    """A model that is not ours, with as much of the contract (`causalvae.model`) as could be made of it."""

    forward: Callable  # (params, x, key, tap) -> outputs
    represent: Callable | None = None  # (params, x) -> [N, d]
    encode: Callable | None = None  # (params, x, tap) -> (mean, log-variance or None)
    decode: Callable | None = None  # (params, z, tap) -> image
    name: str = "foreign"
    image_shape: tuple[int, ...] | None = None  # (H, W, C) where it is known: images are checked against it then
    to_image = staticmethod(identity)


class Parts(NamedTuple):
    """How the parts of a foreign network are run; None where it is not known how."""

    whole: Any = None  # (params, x, key, tap) -> what the network returns
    encode: Any = None  # (params, x, tap) -> mean, or (mean, log-variance)
    decode: Any = None  # (params, z, tap) -> image
    outputs: Any = None  # what `whole` returned -> an image, or ForeignOutputs
    name: str = "foreign"


def assemble(parts: Parts) -> Foreign:
    """Returns a model of its parts. Where it is known how to encode and how to decode, the forward pass is made of the
    two, with the posterior's noise at site "latent/z" from the run's key; else it is the network's own."""
    composed = parts.encode is not None and parts.decode is not None

    def encode(params, x, tap: Tap = no_tap):
        with while_running("encode", "x", x, params):
            return split(parts.encode(params, x, tap))

    def represent(params, x):
        mean = encode(params, x)[0]
        return jnp.mean(mean, axis=tuple(range(1, mean.ndim - 1)))  # over the positions of a map

    def decode(params, z, tap: Tap = no_tap):
        with while_running("decode", "z", z, params):
            return parts.decode(params, z, tap)

    def forward(params, x, key=None, tap: Tap = no_tap):
        if composed:
            z = tap("latent/z", sample(*encode(params, x, tap), key))
            return ForeignOutputs(decode(params, z, tap), z)
        if parts.whole is None:
            missing = "encode" if parts.encode is None else "decode"
            raise ValueError(f"model {parts.name!r} has no {missing}: give both, to run images through it")
        with while_running(parts.name, "x", x, params):
            returned = parts.whole(params, x, key, tap)
        return returned if parts.outputs is None else parts.outputs(returned)

    return Foreign(
        forward,
        represent if parts.encode else None,
        encode if parts.encode else None,
        decode if parts.decode else None,
        parts.name,
    )


def with_shape(model: Foreign, image_shape: tuple[int, ...] | None) -> Foreign:
    """Returns the model, which checks images against their shape (H, W, C) from then on; None: as it is."""
    return model if image_shape is None else model._replace(image_shape=tuple(image_shape))


def split(encoded: Any) -> tuple[jax.Array, jax.Array | None]:
    """Returns (mean, log-variance or None) of what an encoder returned: a mean, or a pair.

    Raises:
      ValueError: for anything else.
    """
    mean: Any
    log_variance: Any
    mean, log_variance = encoded if isinstance(encoded, (tuple, list)) and len(encoded) == 2 else (encoded, None)
    if not hasattr(mean, "shape") or (log_variance is not None and jnp.shape(log_variance) != jnp.shape(mean)):
        raise ValueError(
            "an encoder returns the posterior mean [N, ..., d], or (mean, log-variance) of one shape; this one "
            f"returned {describe(encoded)}. Give encode= a function that picks them"
        )
    return mean, log_variance


def sample(mean: jax.Array, log_variance: jax.Array | None, key: jax.Array | None) -> jax.Array:
    """Returns mean + sigma * noise; the mean where key is None or there is no variance."""
    if key is None or log_variance is None:
        return mean
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype)


def describe(value: Any) -> str:
    """Returns a short description of a pytree for a message."""
    if hasattr(value, "shape"):
        return f"an array {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {', '.join(map(describe, value))}"
    return f"a {type(value).__name__}"


def call_names() -> Callable[[str], str]:
    """Returns a function path -> site: the path, then path:1, path:2 when it is called again."""
    calls: dict[str, int] = {}

    def name(path):
        calls[path] = calls.get(path, -1) + 1
        return path if calls[path] == 0 else f"{path}:{calls[path]}"

    return name


def tap_returned(tap: Tap, site: str, returned: Any) -> Any:
    """Returns what a submodule returned, passed through the tap: an array at `site`, the arrays of a tuple or a list
    at `site.0`, `site.1`, ..., those of a dict at `site.name`."""
    if isinstance(returned, (jax.Array,)) or hasattr(returned, "__array__"):
        return tap(site, returned)
    if isinstance(returned, dict):
        return type(returned)((k, tap_returned(tap, f"{site}.{k}", v)) for k, v in returned.items())
    fields = getattr(returned, "_fields", None)
    if fields is not None:  # a NamedTuple: by the names of its fields
        return type(returned)(*(tap_returned(tap, f"{site}.{k}", v) for k, v in zip(fields, returned)))
    if isinstance(returned, (tuple, list)):
        return type(returned)(tap_returned(tap, f"{site}.{i}", v) for i, v in enumerate(returned))
    return returned
