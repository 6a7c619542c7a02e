"""Models made of plain functions."""

from __future__ import annotations

from collections.abc import Callable

from causalvae._inputs import positional
from causalvae._programs import cached
from causalvae.adapters.foreign import Foreign, Parts, assemble, with_shape
from causalvae.sites import Tap, no_tap, tagging


def from_functions(
    encode: Callable | None = None, decode: Callable | None = None, *, image_shape: tuple[int, ...] | None = None
) -> Foreign:
    """Returns a model made of a plain pair of functions, with the sites latent/z and decoder/image.

    Values inside the functions become sites where they pass through `causalvae.tag("name", value)`.

    Args:
      encode: x -> the posterior mean [N, ..., d] or (mean, log-variance), used with params None; or (params, x) -> it,
        with params any pytree. None where nothing is to be encoded.
      decode: z -> image [N, ...], or (params, z) -> image; its results are images, whatever their range. None where
        nothing is to be decoded.
      image_shape: (H, W, C) of the images that it takes: then images of another shape, or with channels first, are
        refused in words, and so are values above 2. None where any will do.

    Raises:
      ValueError: where both are None.
    """
    if encode is None and decode is None:
        raise ValueError("from_functions needs encode, decode or both")
    return with_shape(_from_functions(encode, decode), image_shape)


@cached()
def _from_functions(encode: Callable | None, decode: Callable | None) -> Foreign:
    first, second = encode or _none, decode or _none

    def run_encode(params, x, tap):
        with tagging(tap):
            return first(x) if params is None else first(params, x)

    def run_decode(params, z, tap):
        with tagging(tap):
            image = second(z) if params is None else second(params, z)
        return tap("decoder/image", image)

    name = getattr(decode or encode, "__name__", "functions")
    return assemble(Parts(None, run_encode if encode else None, run_decode if decode else None, None, name))


def _none(*args):
    raise NotImplementedError  # where a function is not given, the model has no such part


def from_forward(
    function: Callable, outputs: Callable | None = None, *, image_shape: tuple[int, ...] | None = None
) -> Foreign:
    """Returns a model of one function (params, x) -> outputs.

    Its sites are the values that pass through `causalvae.tag("name", value)` inside it.

    Args:
      function: (params, x) or (params, x, key) -> an image, or whatever `outputs` makes an image of.
      outputs: what the function returned -> an image, or `ForeignOutputs(image, z)`.
      image_shape: as in `from_functions`.
    """
    return with_shape(_from_forward(function, outputs), image_shape)


@cached()
def _from_forward(function: Callable, outputs: Callable | None) -> Foreign:
    takes_key = (positional(function) or 0) >= 3

    def whole(params, x, key, tap: Tap = no_tap):
        with tagging(tap):
            return function(params, x, key) if takes_key else function(params, x)

    return assemble(Parts(whole, None, None, outputs, getattr(function, "__name__", "function")))
