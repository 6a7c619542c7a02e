"""Anybody's model: what to intervene with when the network is not one of ours.

These functions make a model (see `causalvae.model`) of a Flax Linen module, an NNX module or a plain pair of functions,
without a change to their code, and carry weights from PyTorch into our networks.

    model = from_linen(module)                    # sites: the paths of its submodules
    outputs, acts = run(model, variables, x, edits={"encoder/Dense_0": set_unit(3, 0.0)}, capture=("*",))
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from causalvae import layers
from causalvae.architectures import Architecture
from causalvae.model import identity
from causalvae.sites import Tap, no_tap

PyTree = Any


class ForeignOutputs(NamedTuple):
    """What interventions look at in a run: the image that changes are measured on, and the latents if any."""

    image: jax.Array  # [B, ...]
    z: jax.Array | None = None  # [B, ..., d]


class Foreign(NamedTuple):
    """A model that is not ours, with as much of the contract (`causalvae.model`) as could be made of it."""

    forward: Callable  # (params, x, key, tap) -> outputs
    represent: Callable | None = None  # (params, x) -> [N, d]
    decode: Callable | None = None  # (params, z, tap) -> image
    to_image = staticmethod(identity)


# --- modules, tapped at their submodules -----------------------------------------------------------------


@functools.cache
def from_linen(module: nn.Module, outputs: Callable[[Any], Any] | None = None, rng: str | None = None) -> Foreign:
    """A Flax Linen module, tapped at the output of every submodule's `__call__`.

    Sites are module paths such as "encoder/Dense_0"; a submodule that is called again is "encoder/Dense_0:1".
    Outputs that are not one array are not tapped. params: the variables that `module.init` returns.
    outputs: what the module returned -> an array, or `ForeignOutputs(image, z)`. rng: the name of the random
    stream that the module draws from, given the run's key. The same module gives the same object, so that
    nothing compiles twice.
    """

    def forward(params, x, key=None, tap: Tap = no_tap):
        name = _call_names()

        def intercept(next_function, args, kwargs, context):
            returned = next_function(*args, **kwargs)
            path = "/".join(context.module.path)
            if context.method_name != "__call__" or not path or not _is_array(returned):
                return returned
            return tap(name(path), returned)

        streams = {rng: key} if rng is not None and key is not None else None
        with nn.intercept_methods(intercept):
            returned = module.apply(params, x, rngs=streams)
        return returned if outputs is None else outputs(returned)

    return Foreign(forward)


def from_nnx(module: nnx.Module, outputs: Callable[[Any], Any] | None = None) -> tuple[Foreign, PyTree]:
    """(model, params) of an NNX module, tapped at the output of every submodule's `__call__`.

    Sites are attribute paths such as "encoder/layers/0". The module itself is left as it is; params is its state.
    outputs: as for `from_linen`. A module that draws noise does so from its own random state, which is a part of
    params: every run starts from the same, so runs are comparable.
    """
    graph, state = nnx.split(module)

    def forward(params, x, key=None, tap: Tap = no_tap):
        merged = nnx.merge(graph, params)
        name = _call_names()
        sites = {id(part): "/".join(map(str, path)) for path, part in nnx.iter_modules(merged) if path}
        with _tapped_calls(merged, sites, lambda path, value: tap(name(path), value)):
            returned = merged(x)
        return returned if outputs is None else outputs(returned)

    return Foreign(forward), state


@contextlib.contextmanager
def _tapped_calls(module: nnx.Module, sites: Mapping[int, str], tap: Tap) -> Iterator[None]:
    """While inside, calls of the submodules in `sites` pass through the tap. Python looks `__call__` up on the
    class, so the classes' methods are replaced, and put back whatever happens."""
    parts = [part for _, part in nnx.iter_modules(module) if id(part) in sites]
    # A class that inherits its `__call__` gets a wrapper of its own, which is removed again afterwards.
    classes = {type(part) for part in parts if callable(part)}
    originals = {cls: cls.__dict__.get("__call__") for cls in classes}
    calls = {cls: cls.__call__ for cls in classes}

    def wrapped(cls):
        def call(self, *args, **kwargs):
            returned = calls[cls](self, *args, **kwargs)
            ours = type(self) is cls and id(self) in sites and _is_array(returned)
            return tap(sites[id(self)], returned) if ours else returned

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


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


def _call_names() -> Callable[[str], str]:
    """path -> site: the path, then path:1, path:2 when it is called again."""
    calls: Counter[str] = Counter()

    def name(path):
        calls[path] += 1
        return path if calls[path] == 1 else f"{path}:{calls[path] - 1}"

    return name


@functools.cache
def from_functions(encode: Callable | None = None, decode: Callable | None = None) -> Foreign:
    """Returns a model made of a plain pair of functions, with the sites latent/z and decoder/image.

    Args:
      encode: x -> z [N, d], used with params None; or (params, x) -> z, with params any pytree. None where nothing is
        to be encoded.
      decode: z -> image [N, ...], or (params, z) -> image; its results are images, whatever their range. None where
        nothing is to be decoded.

    Raises: ValueError where both are None.
    """
    if encode is None and decode is None:
        raise ValueError("from_functions needs encode, decode or both")
    first, second = (_needed(function, name) for function, name in ((encode, "encode"), (decode, "decode")))

    def represent(params, x):
        return first(x) if params is None else first(params, x)

    def image(params, z, tap: Tap = no_tap):
        return tap("decoder/image", second(z) if params is None else second(params, z))

    def forward(params, x, key=None, tap: Tap = no_tap):
        z = tap("latent/z", represent(params, x))
        return ForeignOutputs(image(params, z, tap), z)

    return Foreign(forward, represent if encode else None, image if decode else None)


def _needed(function: Callable | None, name: str) -> Callable:
    """The function, or one that says that it was not given."""

    def missing(*args):
        raise ValueError(f"this model has no {name}: give from_functions both, to run images through it")

    return missing if function is None else function


# --- weights from and to PyTorch -------------------------------------------------------------------------


def to_torch(model: Architecture, params: PyTree) -> dict[str, np.ndarray]:
    """The weights of a convolutional network as a PyTorch state dict of numpy arrays.

    Keys are our paths with dots: "encoder.conv0.weight". Layers are Conv2d(k 4, stride 2, padding 1), Linear and
    ConvTranspose2d(k 4, stride 2, padding 1); features are flattened channels first, as PyTorch does.
    Raises ValueError for other networks (residual, maps of codes).
    """
    state = {}
    for path, leaf in _leaves(params):
        state[_torch_name(path)] = np.ascontiguousarray(_to_torch_layout(model, params, path, np.asarray(leaf)))
    return state


def from_torch(model: Architecture, state_dict: Mapping[str, Any], names: Mapping[str, str] | None = None) -> PyTree:
    """Parameters of `model` from a PyTorch state dict: the inverse of `to_torch`.

    state_dict: name -> tensor or array. names: our name ("encoder.conv0.weight") -> the name there, where they
    differ. Raises ValueError naming the first weight that is missing or has another shape.
    """
    template = jax.eval_shape(model.init, jax.random.key(0))
    names = names or {}
    leaves = []
    for path, leaf in _leaves(template):
        ours = _torch_name(path)
        theirs = names.get(ours, ours)
        if theirs not in state_dict:
            have = ", ".join(state_dict)
            raise ValueError(f"the state dict has no {theirs!r} for {ours!r}; it has: {have}. `names` maps names")
        weight = state_dict[theirs]
        weight = np.asarray(weight.detach().cpu() if hasattr(weight, "detach") else weight)
        expected = _to_torch_layout(model, template, path, np.empty(leaf.shape, np.float32)).shape
        if weight.shape != expected:
            raise ValueError(f"{theirs!r} has shape {list(weight.shape)}; {ours!r} needs {list(expected)}")
        leaves.append(jnp.asarray(_from_torch_layout(model, template, path, weight), leaf.dtype))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _leaves(params: PyTree) -> list[tuple[tuple[str, ...], Any]]:
    found = jax.tree_util.tree_flatten_with_path(params)[0]
    leaves = [(tuple(key.key for key in path), leaf) for path, leaf in found]
    for path, _ in leaves:
        if len(path) != 3 or path[0] not in ("encoder", "decoder") or path[2] not in ("kernel", "bias"):
            raise ValueError(
                f"only plain convolutional encoders and decoders have a PyTorch layout here, not {'/'.join(path)}"
            )
    return leaves


def _torch_name(path: tuple[str, ...]) -> str:
    return ".".join((*path[:2], "weight" if path[2] == "kernel" else "bias"))


def _to_torch_layout(model: Architecture, params: PyTree, path: tuple[str, ...], leaf: np.ndarray) -> np.ndarray:
    part, layer, kind = path
    leaf = _permute_features(model, params, path, leaf, to_torch=True)
    if kind == "bias":
        return leaf
    if leaf.ndim == 2:
        return leaf.T
    return layers.down_kernel_to_torch(leaf) if part == "encoder" else layers.up_kernel_to_torch(leaf)


def _from_torch_layout(model: Architecture, params: PyTree, path: tuple[str, ...], weight: np.ndarray) -> np.ndarray:
    part, layer, kind = path
    if kind == "kernel" and weight.ndim == 2:
        weight = weight.T
    elif kind == "kernel":
        weight = layers.down_kernel_from_torch(weight) if part == "encoder" else layers.up_kernel_from_torch(weight)
    return _permute_features(model, params, path, weight, to_torch=False)


def _permute_features(model, params, path, leaf: np.ndarray, to_torch: bool) -> np.ndarray:
    """Reorder the axis that meets the flattened feature map: rows, columns, channels here; channels first there."""
    part, layer, kind = path
    dense = sorted(name for name in params[part] if name.startswith("dense"))
    convolutions = [name for name in params[part] if name.startswith("conv")]
    steps = len(convolutions) + (part == "decoder")
    height, width = (size // 2**steps for size in model.image_shape[:2])
    if part == "encoder" and layer == dense[0] and kind == "kernel":
        axis = 0
    elif part == "decoder" and layer == dense[-1]:
        axis = leaf.ndim - 1
    else:
        return leaf
    channels = leaf.shape[axis] // (height * width)
    order = np.arange(leaf.shape[axis]).reshape(height, width, channels).transpose(2, 0, 1).reshape(-1)
    return np.take(leaf, order if to_torch else np.argsort(order), axis=axis)
