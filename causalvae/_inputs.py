"""What is checked of a model, its parameters and its images wherever they enter: no number is wrong in silence."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causalvae._programs import cached, make_room

PyTree = Any
NOTE = "While running "


def check_inputs(model: Any, params: PyTree, x: Any) -> None:
    """ValueError for images that are not what the model takes, and for parameters that are not the model's."""
    check_params(model, params)
    check_images(model, x)


def check_images(model: Any, x: Any) -> None:
    """ValueError unless x are floats, of the shape that the model knows of its images, and not pixels of 0 to 255."""
    shape, dtype = jnp.shape(x), getattr(x, "dtype", np.asarray(x).dtype if not hasattr(x, "shape") else None)
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"images are {dtype}, but models take floats in [0, 1]: divide by 255, or convert them")
    expected = getattr(model, "image_shape", None)
    if expected is not None:
        _check_shape(model, shape, tuple(expected))
    if isinstance(x, (Tracer, jax.ShapeDtypeStruct)) or 0 in shape:
        return
    with jax.ensure_compile_time_eval():  # images that are known may be looked at while something else is traced
        smallest, largest = float(jnp.min(x)) if hasattr(model, "init") else 0.0, float(jnp.max(x))
    if largest > 2 and expected is not None:
        raise ValueError(f"images are in [0, 1], but these reach {largest:g}: divide them by 255")
    # The range of a network that is not ours nobody knows: standardized images pass, pixels of 0 to 255 do not.
    if largest > 20 and len(shape) == 4:
        raise ValueError(
            f"these images reach {largest:g}, and images are in [0, 1] here: divide them by 255, or, where the network "
            "takes such values, give the images in [0, 1] and let its encode function scale them"
        )
    if smallest < -0.5:
        raise ValueError(f"images are in [0, 1], but these go down to {smallest:g}: of [-1, 1], give (x + 1) / 2")


def _check_shape(model: Any, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if len(shape) == len(expected) + 1 and shape[1:] == expected:
        return
    hint = ""
    if shape[1:] == (expected[-1], *expected[:-1]):
        hint = " They have their channels first: x.transpose(0, 2, 3, 1) puts them last"
    elif shape == expected:
        hint = " This is one image: x[None] makes a batch of it"
    elif shape[:1] == (2,) and shape[2:] == expected:
        hint = " Two arrays, stacked? Pairs are a tuple, (x, x_source)"
    name = getattr(model, "name", "this model")
    name = "this model" if name in ("encode", "decode") else name  # of two functions, which have no other
    raise ValueError(f"{name} takes images [N, {', '.join(map(str, expected))}], not {list(shape)}.{hint}")


@contextlib.contextmanager
def while_running(part: str, name: str, array: Any, params: PyTree) -> Iterator[None]:
    """Adds to an error that the model raises what was being run, on what: the errors of a framework do not say it."""
    try:
        yield
    except Exception as error:
        if not any(note.startswith(NOTE) for note in getattr(error, "__notes__", ())):
            shape = list(jnp.shape(array))
            stacked = len(shape) > 4 and shape[0] == 2 and name == "x"
            hint = " (two arrays, stacked? Pairs are a tuple, (x, x_source))" if stacked else ""
            error.add_note(f"{NOTE}{part} on {name} {shape}{hint} with {_described(params)}")
        raise


def _described(params: PyTree) -> str:
    if params is None:
        return "params None: its functions are called without params"
    if isinstance(params, dict):
        return f"params of {', '.join(map(repr, params))}"
    return f"params, a {type(params).__name__}"


def check_params(model: Any, params: PyTree) -> None:
    """ValueError for parameters that hold something that is no array, or that are not of this model's structure."""
    make_room(params)
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    for path, leaf in leaves:
        if not hasattr(leaf, "shape") and not isinstance(leaf, (bool, int, float, complex)):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} is a {type(leaf).__name__}, not an array: give a pytree of arrays "
                "(of an equinox module, what equinox.partition leaves)"
            )
    init = getattr(model, "init", None)
    if init is None or not isinstance(params, dict):
        return
    expected = _expected(init)
    if set(params) == {"params"} and not any(path.startswith("['params']") for path in expected):
        raise ValueError('params is {"params": ...}: give what is inside, params["params"]')
    found = {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
    missing = [path for path in expected if path not in found and path.split("'")[1] in params]
    if missing or not found:
        raise ValueError(f"params have no {missing[0] if missing else 'arrays'}, which {model.name} needs")
    different = [path for path in found if path in expected and found[path] != expected[path]]
    if not different:
        return
    members = {found[path][:1] for path in found}
    if len(members) == 1 and all(found[path][1:] == expected.get(path) for path in found):
        raise ValueError(
            f"params have a leading member axis of {members.pop()[0]}: causalvae.training.member(params, 0) takes one"
        )
    path = different[0]
    raise ValueError(
        f"params{path} is {list(found[path])}, but {model.name} of this size needs {list(expected[path])}: the "
        "parameters are of another model"
    )


@cached()
def _expected(init: Callable) -> dict[str, tuple[int, ...]]:
    """path -> shape of a model's parameters."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.eval_shape(init, jax.random.key(0)))[0]
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def named_leaves(params: PyTree) -> dict[str, Any]:
    """Returns path -> leaf of a pytree, "encoder/Dense_0/kernel"."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def positional(function: Callable) -> int | None:
    """Returns how many positional arguments a function takes; None where it does not say, or takes any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of some built-in functions
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
