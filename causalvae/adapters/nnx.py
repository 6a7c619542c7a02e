"""Flax NNX modules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from flax import nnx
from jax.extend.core import get_opaque_trace_state

from causalvae.adapters.foreign import Foreign, Parts, assemble, call_names, tap_returned, with_shape
from causalvae.sites import Tap

PyTree = Any


def from_nnx(
    module: nnx.Module,
    outputs: Callable[[Any], Any] | None = None,
    *,
    encode: Any = None,
    decode: Any = None,
    image_shape: tuple[int, ...] | None = None,
) -> tuple[Foreign, PyTree]:
    """Returns (model, params) of an NNX module, tapped at the output of every submodule's `__call__`.

    Sites are attribute paths such as "encoder/layers/0"; the parts of a tuple are "encoder.0", "encoder.1". The module
    itself is left as it is; params is its state in evaluation mode (no dropout, running averages), so that no row
    depends on its companions. A module that draws noise takes it from the run's key: without one it is refused, since
    its rows would have noise by their place in the batch. Give `encode` and `decode` to have its posterior mean.

    Args:
      outputs: what the module returned -> an image, or `ForeignOutputs(image, z)`.
      encode: (module, x) -> posterior mean, or (mean, log-variance): `lambda m, x: m.encoder(x)`.
      decode: (module, z) -> image: `lambda m, z: nnx.sigmoid(m.decoder(z))`.
      image_shape: (H, W, C) of the images that it takes, as in `from_functions`.
    """
    copy = nnx.clone(module)
    copy.eval()
    graph, state = nnx.split(copy)

    def apply(method: Callable, params, tap: Tap, args: tuple, key=None):
        merged = nnx.merge(graph, params, copy=True)
        streams = [part for _, part in nnx.iter_graph(merged) if isinstance(part, nnx.RngStream)]
        if key is not None:
            for number, stream in enumerate(streams):
                stream.key[...] = jax.random.fold_in(key, number)
                stream.count[...] = jax.numpy.zeros_like(stream.count[...])
        counts = [stream.count[...] for stream in streams]
        name = call_names()
        sites = {id(part): "/".join(map(str, path)) for path, part in nnx.iter_modules(merged) if path}
        with _tapped_calls(merged, sites, lambda path, value: tap_returned(tap, name(path), value)):
            returned = method(merged, *args)
        drew = any(stream.count[...] is not before for stream, before in zip(streams, counts))
        if drew and key is None:
            raise ValueError(
                f"{type(module).__name__} draws noise of its own, which belongs to a run's key: run it with key=, give "
                "pairs.with_noise(key), or name its parts with from_nnx(module, encode=..., decode=...)"
            )
        return returned

    def whole(params, x, key, tap):
        return apply(lambda m, x: m(x), params, tap, (x,), key)

    def run_encode(params, x, tap):
        return apply(encode, params, tap, (x,))

    def run_decode(params, z, tap):
        return apply(decode, params, tap, (z,))

    parts = Parts(whole, encode and run_encode, decode and run_decode, outputs, type(module).__name__)
    return with_shape(assemble(parts), image_shape), state


@contextlib.contextmanager
def _tapped_calls(module: nnx.Module, sites: Mapping[int, str], tap: Tap) -> Iterator[None]:
    """While inside, calls of the submodules in `sites` pass through the tap. Python looks `__call__` up on the
    class, so the classes' methods are replaced, and put back whatever happens."""
    parts = [part for _, part in nnx.iter_modules(module) if id(part) in sites]
    # A class that inherits its `__call__` gets a wrapper of its own, which is removed again afterwards.
    classes = {type(part) for part in parts if callable(part)}
    originals = {cls: cls.__dict__.get("__call__") for cls in classes}
    calls = {cls: _without_jit(cls.__call__) for cls in classes}
    trace = get_opaque_trace_state(convention="nnx")

    def wrapped(cls):
        def call(self, *args, **kwargs):
            returned = calls[cls](self, *args, **kwargs)
            ours = type(self) is cls and id(self) in sites
            outside = get_opaque_trace_state(convention="nnx") == trace  # of nnx.remat, nnx.scan and the like
            return tap(sites[id(self)], returned) if ours and outside else returned

        return call

    try:
        for cls in classes:
            cls.__call__ = wrapped(cls)
        yield
    finally:
        for cls, original in originals.items():
            if original is None:
                del cls.__call__
            else:
                cls.__call__ = original


def _without_jit(call: Any) -> Callable:
    """A method without `nnx.jit` around it, inside which submodules would be copies that nobody taps."""
    while hasattr(call, "jitted_fn") and hasattr(call, "fun"):
        call = call.fun
    return call
