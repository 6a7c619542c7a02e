"""Haiku modules, by their transformed functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from causalvae.adapters.foreign import Foreign, Parts, assemble, call_names, tap_returned, with_shape
from causalvae.sites import Tap


def from_haiku(
    apply: Callable | None = None,
    outputs: Callable[[Any], Any] | None = None,
    *,
    encode: Callable | None = None,
    decode: Callable | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> Foreign:
    """Returns a model of functions that `haiku.transform` or `haiku.multi_transform` made.

    It is tapped at the output of every submodule's `__call__`. Sites are module names such as
    "vae/~/encoder/linear". params are what `init` returns.

    Args:
      apply: (params, rng, x) -> what the network returns; the run's key is the rng.
      outputs: what it returned -> an image, or `ForeignOutputs(image, z)`.
      encode: (params, rng, x) -> posterior mean, or (mean, log-variance).
      decode: (params, rng, z) -> image.
      image_shape: (H, W, C) of the images that it takes, as in `from_functions`.
    """
    import haiku as hk  # an optional peer

    def tapped(function: Callable, tap: Tap, *args):
        name = call_names()

        def intercept(method, args, kwargs, context):
            returned = method(*args, **kwargs)
            if context.method_name != "__call__":
                return returned
            return tap_returned(tap, name(context.module.module_name), returned)

        with hk.intercept_methods(intercept):  # pyright: ignore[reportAttributeAccessIssue]  # it reads this file
            return function(*args)

    def whole(params, x, key, tap):
        return tapped(apply, tap, params, key, x)  # pyright: ignore[reportArgumentType]

    def run_encode(params, x, tap):
        return tapped(encode, tap, params, None, x)  # pyright: ignore[reportArgumentType]

    def run_decode(params, z, tap):
        return tapped(decode, tap, params, None, z)  # pyright: ignore[reportArgumentType]

    parts = Parts(apply and whole, encode and run_encode, decode and run_decode, outputs, "haiku")
    return with_shape(assemble(parts), image_shape)
