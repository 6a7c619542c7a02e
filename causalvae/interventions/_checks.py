"""What all interventions check, and the defaults that they share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


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
    if chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer) or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"no {what} {chosen.tolist()}: they are 0 to {count - 1}")
    return jnp.asarray(chosen, jnp.int32)


def as_pytree(function: Callable) -> Callable:
    """Returns a callable as a pytree: arrays bound by `partial` become arguments of the compiled program."""
    if isinstance(function, jax.tree_util.Partial) or not jax.tree_util.all_leaves([function]):
        return function
    if isinstance(function, functools.partial):
        return jax.tree_util.Partial(function.func, *function.args, **function.keywords)
    return jax.tree_util.Partial(function)
