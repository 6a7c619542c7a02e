"""Models that stay in another framework, called from ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.adapters.foreign import Foreign, Parts, assemble


def from_callback(
    encode: Callable[[np.ndarray], Any],
    decode: Callable[[np.ndarray], Any],
    *,
    image_shape: tuple[int, ...],
    latents: int,
    has_variance: bool = False,
    name: str = "callback",
) -> Foreign:
    """Returns a model of two functions of numpy arrays, which may run PyTorch or anything else; used with params None.

    Every run goes through the host, batch by batch, so it is as fast as the framework behind it. Sites are latent/z
    and decoder/image. Nothing can be differentiated: attribution patching needs `from_functions`.

    Args:
      encode: images [N, *image_shape] float32 -> posterior mean [N, latents], or (mean, log-variance).
      decode: z [N, latents] float32 -> images [N, *image_shape].
      image_shape: as images are here, (H, W, C); transpose inside the functions where PyTorch wants (C, H, W).
      latents: how many.
      has_variance: whether `encode` gives a log-variance.
      name: for titles and messages.

    Raises:
      ValueError: when it is run, where a function returns another shape.
    """

    def call(function: Callable, shapes: tuple, x: jax.Array):
        one = x.shape[1:]

        def host(x):  # [..., N, *one]: vmap puts axes in front
            flat = np.array(x, np.float32).reshape(-1, *one)  # a copy that may be written, as torch.from_numpy asks
            returned = function(flat)
            parts = returned if isinstance(returned, (tuple, list)) else (returned,)
            return tuple(
                _checked(function, part, (len(flat), *shape)).reshape(*np.shape(x)[: np.ndim(x) - len(one)], *shape)
                for part, shape in zip(parts, shapes, strict=True)
            )

        results = tuple(jax.ShapeDtypeStruct((x.shape[0], *shape), jnp.float32) for shape in shapes)
        return jax.pure_callback(host, results, x, vmap_method="expand_dims")

    def run_encode(params, x, tap):
        del params
        found = call(encode, ((latents,),) * (2 if has_variance else 1), x)
        return found if has_variance else found[0]

    def run_decode(params, z, tap):
        del params
        return tap("decoder/image", call(decode, (tuple(image_shape),), z)[0])

    return assemble(Parts(None, run_encode, run_decode, None, name))._replace(image_shape=tuple(image_shape))


def _checked(function: Callable, part: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(part.detach().cpu() if hasattr(part, "detach") else part, np.float32)
    if array.shape != shape:
        name = getattr(function, "__name__", "the function")
        raise ValueError(f"{name} returned an array {list(array.shape)}, where {list(shape)} was expected")
    return array
