"""What all interventions check, and the defaults that they share."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

SHOWN = 5  # wrong numbers that a message names


def default_chunk() -> int:
    """Returns how many runs are done at once when no chunk is given: few enough for a CPU's cache, many elsewhere."""
    return 64 if jax.default_backend() == "cpu" else 4096


def check_chunk(chunk: int | None) -> int:
    """Returns the chunk, or the default; ValueError unless it is a positive integer."""
    chunk = default_chunk() if chunk is None else chunk
    if int(chunk) != chunk or chunk < 1:
        raise ValueError(f"chunk must be a positive integer (how many runs at once), not {chunk!r}")
    return int(chunk)


def check_choice(what: str, choice: Any, choices: Sequence[str]) -> None:
    """ValueError, naming what exists, unless `choice` is one of `choices` or a function."""
    if not callable(choice) and choice not in choices:
        raise ValueError(f"no {what} {choice!r}; there are: {', '.join(choices)}")


def check_finite(finite: Mapping[str, Any]) -> None:
    """ValueError naming the first site with NaN or infinite activations. Traced values cannot be looked at."""
    for site, flags in finite.items():
        if not isinstance(flags, Tracer) and not np.all(np.asarray(flags)):
            raise ValueError(
                f"activations are NaN or infinite at site {site!r} (the first one in the forward pass): "
                "look at the parameters and the images before intervening"
            )


def is_finite(tree: Any) -> bool:
    """Returns whether all floats of a pytree are finite. Traced values cannot be looked at, and pass.

    Small arrays are looked at on the host: no program is compiled for their shapes.
    """
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, Tracer) or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        here = isinstance(leaf, np.ndarray) or getattr(leaf, "is_fully_addressable", False) and leaf.size < 2**22
        with jax.ensure_compile_time_eval():
            if not (np.isfinite(np.asarray(leaf)).all() if here else bool(jnp.isfinite(leaf).all())):
                return False
    return True


def check_measured(measured: Any) -> None:
    """ValueError where what is measured of images, an array or site -> array, is not finite."""
    if is_finite(measured):
        return
    if isinstance(measured, Mapping):
        check_finite({site: np.isfinite(np.asarray(value)) for site, value in measured.items()})
    raise ValueError(
        "what is measured of the images is NaN or infinite: look at the parameters and the images before intervening"
    )


def check_key(key: Any) -> None:
    """ValueError unless this is a key of JAX, new or old (uint32)."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or (dtype == np.uint32 and key.ndim)):
        raise ValueError(f"key must be a key of JAX, such as jax.random.key(0), not {key!r}")


def warn_of_no_change(pairs: Any) -> None:
    """A warning where images are given with themselves, which have nothing to exchange. It is of arrays that a user
    pairs: what a data set draws may well be decoded, and look, alike."""
    if isinstance(pairs, (tuple, list)):
        if len(pairs) != 2 or any(isinstance(x, Tracer) for x in pairs) or jnp.shape(pairs[0]) != jnp.shape(pairs[1]):
            return
        with jax.ensure_compile_time_eval():
            alike = pairs[0] is pairs[1] or bool(jnp.array_equal(*pairs))
    else:
        alike = isinstance(pairs, (np.ndarray, jax.Array))
    if alike:
        warnings.warn(
            "x and x_source are the same images: nothing is exchanged, every effect is zero and shares of it are NaN. "
            "Give pairs that differ, (x, x_source)",
            stacklevel=4,
        )


@contextlib.contextmanager
def differentiating() -> Iterator[None]:
    """ValueError, in words, where the model inside runs outside JAX, which cannot differentiate it."""
    try:
        yield
    except ValueError as error:
        if "allbacks do not support JVP" not in str(error):
            raise
        raise ValueError(
            "this model runs outside JAX (`adapters.from_callback`), where nothing can be differentiated: patch "
            "instead of estimating (`patch_effects`, `mediate`, `edge_effects` with method='exact')"
        ) from error


def check_numbers(what: str, numbers: Any, count: int) -> jax.Array:
    """Returns numbers as int32 [n]; ValueError unless there is one at least and all are 0 to count - 1."""
    chosen = np.atleast_1d(np.asarray(numbers))
    whole = np.issubdtype(chosen.dtype, np.integer)
    wrong = chosen[(chosen < 0) | (chosen >= count)] if whole else chosen.ravel()
    if chosen.size == 0 or wrong.size:
        listed = ", ".join(map(repr, wrong[:SHOWN].tolist())) + (", …" if wrong.size > SHOWN else "")
        raise ValueError(f"no {what} [{listed}]: they are 0 to {count - 1}")
    return jnp.asarray(chosen, jnp.int32)


def as_pytree(function: Callable) -> Callable:
    """Returns a callable as a pytree: arrays bound by `partial` become arguments of the compiled program."""
    if isinstance(function, jax.tree_util.Partial) or not jax.tree_util.all_leaves([function]):
        return function
    if isinstance(function, functools.partial):
        return jax.tree_util.Partial(function.func, *function.args, **function.keywords)
    return jax.tree_util.Partial(function)
