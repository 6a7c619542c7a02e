"""Flax Linen modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jax.extend.core import get_opaque_trace_state

from causalvae._programs import cached
from causalvae.adapters.foreign import Foreign, Parts, assemble, call_names, tap_returned, with_shape
from causalvae.sites import Tap

PyTree = Any


def from_linen(
    module: nn.Module,
    outputs: Callable[[Any], Any] | None = None,
    *,
    call: Callable | None = None,
    encode: Callable | None = None,
    decode: Callable | None = None,
    rng: str | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> Foreign:
    """Returns a model of a Flax Linen module, tapped at the output of every submodule's `__call__`.

    Sites are module paths such as "encoder/Dense_0"; a submodule that is called again is "encoder/Dense_0:1", and the
    parts of a tuple are "encoder.0", "encoder.1". params are the variables that `module.init` returns. Dropout and
    BatchNorm are run as in evaluation, so that no row depends on its companions. What is inside `nn.remat`, `nn.jit`
    or `nn.scan` is no site: its values exist in another trace.

    Args:
      module: unbound, as `module.init` has it.
      outputs: what the module returned -> an image, or `ForeignOutputs(image, z)`.
      call: (module, x, key) -> what it returns, where `module(x)` will not do: `lambda m, x, key: m(x, key)`.
      encode: (module, x) -> posterior mean, or (mean, log-variance): `lambda m, x: m.encoder(x)`. With `decode` the
        model has latents that can be set, scored and drawn, and a posterior mean: without, noise is the module's own.
      decode: (module, z) -> image: `lambda m, z: nn.sigmoid(m.decoder(z))`.
      rng: the name of the random stream that the module draws from, given the run's key.
      image_shape: (H, W, C) of the images that it takes, as in `from_functions`.

    Raises:
      ValueError: when it is run, for a module that insists on training mode.
    """
    arguments = module, outputs, call, encode, decode, rng
    try:
        return with_shape(_cached(*arguments), image_shape)
    except TypeError:  # a module with a list among its fields has no hash: it compiles anew in each of its models
        return with_shape(_from_linen(*arguments), image_shape)


def _from_linen(module, outputs, call, encode, decode, rng) -> Foreign:
    def apply(method: Callable, params, tap: Tap, args: tuple, key=None):
        name, trace = call_names(), get_opaque_trace_state(convention="flax")

        def intercept(next_function, args, kwargs, context):
            evaluating = _evaluating(context)  # is said in place of whatever the caller says
            returned = next_function(*(args[:1] if evaluating else args), **{**kwargs, **evaluating})
            path = "/".join(context.module.path)
            inside = get_opaque_trace_state(convention="flax") != trace
            if context.method_name != "__call__" or not path or inside:
                return returned
            return tap_returned(tap, name(path), returned)

        if not isinstance(params, dict) or "params" not in params:
            params = {"params": params}
        streams = {rng: key} if rng is not None and key is not None else None
        with nn.intercept_methods(intercept):
            return module.apply(params, *args, rngs=streams, method=method)

    def whole(params, x, key, tap):
        if call is None:
            return apply(lambda m, x: m(x), params, tap, (x,), key)
        return apply(lambda m, x: call(m, x, key), params, tap, (x,), key)

    def run_encode(params, x, tap):
        return apply(encode, params, tap, (x,))

    def run_decode(params, z, tap):
        return apply(decode, params, tap, (z,))

    parts = Parts(whole, encode and run_encode, decode and run_decode, outputs, type(module).__name__)
    return assemble(parts)


_cached = cached()(_from_linen)


def _evaluating(context: nn.module.InterceptorContext) -> dict[str, bool]:
    """The arguments that make a module run as in evaluation; ValueError where its own say otherwise."""
    module = context.module
    if context.method_name != "__call__":
        return {}
    for kind, option in ((nn.Dropout, "deterministic"), (nn.BatchNorm, "use_running_average")):
        if isinstance(module, kind):
            if getattr(module, option) is False:
                raise ValueError(
                    f"{'/'.join(module.path)} is a {kind.__name__} that was made with {option}=False, for training: "
                    f"rows would depend on noise or on their companions. Make it with {option}=True or None"
                )
            return {option: True} if getattr(module, option) is None else {}
    return {}
