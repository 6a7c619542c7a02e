"""Compiled programs, and what is made of functions, live no longer than the functions that they are made of.

`jax.jit` keeps its static arguments, and every program that was compiled for them, until thousands of others have come.
A notebook that makes its functions afresh in a loop would keep all of them, with the arrays that they close over, and
on a CPU a program takes dozens of the memory mappings of which a process may hold some 65,000: XLA then aborts it.
"""

from __future__ import annotations

import functools
import inspect
import pathlib
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

KEPT = "__causalvae__"  # the attribute of a function that holds what is made of it
LOOK_EVERY = 64  # compilations: mappings are counted no more often
SHARE = 0.5  # of the mappings that a process may hold


# --- programs --------------------------------------------------------------------------------------------


class _Weak:
    """A function that is not kept alive: equal to itself by identity, and callable while it lives."""

    def __init__(self, function: Callable, gone: Callable | None = None):
        self.function = weakref.ref(function, gone)
        self.hash = hash(self.function)

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return self is other or (isinstance(other, _Weak) and self.function == other.function)

    def __call__(self, *args, **kwargs):
        return _strong(self)(*args, **kwargs)


def _is_function(value: Any) -> bool:
    """Whether a value is compared by identity and goes with whoever made it."""
    return isinstance(value, (types.FunctionType, functools.partial))


def _weak(value: Any, gone: Callable | None = None) -> Any:
    """A static argument with the functions in it, however deep in tuples, replaced by weak ones."""
    if isinstance(value, tuple):
        parts = [_weak(part, gone) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return _Weak(value, gone) if _is_function(value) else value


def _strong(value: Any) -> Any:
    """The inverse of `_weak`, while all functions live: whoever calls a program holds them."""
    if isinstance(value, tuple):
        parts = [_strong(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if not isinstance(value, _Weak):
        return value
    function = value.function()
    assert function is not None, "a program outlived its function"
    return function


def _lifted(value: Any, found: list[_Weak]) -> Any:
    """A dynamic argument whose static part holds its function weakly, if it is a `Partial`; notes it in `found`."""
    if isinstance(value, jax.tree_util.Partial) and _is_function(value.func):
        found.append(_Weak(value.func))
        return jax.tree_util.Partial(found[-1], *value.args, **value.keywords)
    return value


class _Program:
    """`jax.jit` of a function whose first `static` arguments are static; see `jit`."""

    def __init__(self, function: Callable, static: int, options: dict[str, Any]):
        self.function, self.static, self.options = function, static, options
        self.programs: dict[tuple, Callable] = {}
        functools.update_wrapper(self, function)

    def __call__(self, *args):
        program, dynamic = self._of(args)
        return program(*dynamic)

    def eval_shape(self, *args):
        """As that of what `jax.jit` returns."""
        program, dynamic = self._of(args)
        return program.eval_shape(*dynamic)

    def _of(self, args: tuple) -> tuple[Any, tuple]:
        found: list[_Weak] = []
        dynamic = tuple(_lifted(arg, found) for arg in args[self.static :])
        static = args[: self.static], tuple(weak.function() for weak in found)
        key = _weak(static)
        program = self.programs.get(key)
        if program is None:
            program = self._add(static)
        return program, dynamic

    def _add(self, static: tuple) -> Callable:
        def gone(_):
            self.programs.pop(key, None)

        key = _weak(static, gone)
        (arguments, _), function = _weak(static), self.function

        @functools.wraps(function)
        def traced(*dynamic):
            return function(*_strong(arguments), *dynamic)

        return self.programs.setdefault(key, jax.jit(traced, **self.options))


def jit(static: int = 0, **options: Any) -> Callable[[Callable], Any]:
    """Returns the decorator that compiles a function, as `jax.jit` does, whose first `static` arguments are static.

    Functions among them, also in tuples, and functions of `jax.tree_util.Partial`s among the others are held weakly:
    what was compiled for them goes when one of them goes. The same functions share a program. Arguments are
    positional.
    """
    return lambda function: _Program(function, static, options)


# --- what is made of functions ---------------------------------------------------------------------------


class _Key(NamedTuple):
    maker: Callable
    args: tuple


def cached(maxsize: int = 64) -> Callable[[Callable], Callable]:
    """Returns the decorator of `functools.lru_cache`, for functions of functions: what is kept lives in one of them.

    So it goes when they go, also where it refers to them, as a model made of two functions does. It lives in the one
    that is most likely to go first: a function made inside another or a lambda before one of a module, a later argument
    before an earlier one. Where there is none, it is kept as by `functools.lru_cache`.

    Args:
        maxsize: Results that one function keeps.
    """

    def decorate(function: Callable) -> Callable:
        signature, of_values = inspect.signature(function), functools.lru_cache(maxsize=256)(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            if kwargs:
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                args = bound.args
            home = _home(args)
            if home is None:
                return of_values(*args)
            kept, key = home.__dict__.setdefault(KEPT, {}), _Key(call, args)
            result = kept.pop(key) if key in kept else function(*args)
            kept[key] = result  # the last one used is the last
            if len(kept) > maxsize:
                kept.pop(next(iter(kept)))
            return result

        return call

    return decorate


def _home(args: tuple) -> Any:
    """The function among arguments, however deep in tuples, that a result lives in; None where there is none."""
    functions = [value for value in _flat(args) if _is_function(value)]
    passing = [f for f in functions if "<" in getattr(f, "__qualname__", "<partial>")]  # <locals>, <lambda>
    return (passing or functions or [None])[-1]


def _flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, tuple) else [value]


# --- memory mappings -------------------------------------------------------------------------------------

_compiled = 0


def _count(event: str, duration_secs: float, **facts: Any) -> None:
    global _compiled
    del duration_secs, facts
    _compiled += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


def make_room(*arguments: Any) -> None:
    """Calls `free_programs` now and then, if programs were compiled since: where users' calls begin.

    Args:
        *arguments: Of the call. Nothing is freed in the middle of a trace, which a Tracer among their leaves tells.
    """
    global _compiled
    if _compiled >= LOOK_EVERY and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
        _compiled = 0
        free_programs()


def free_programs(limit: int | None = None) -> None:
    """Lets compiled programs go before they take up half of the memory mappings that a process may hold.

    On a CPU each program takes dozens of them; XLA aborts the whole process when it gets no more.

    Args:
        limit: how many there may be; None asks Linux, the only system that has such a limit.
    """
    try:
        limit = limit or int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
        with open("/proc/self/maps") as mappings:
            used = sum(1 for _ in mappings)
    except OSError:
        return
    if used > SHARE * limit:
        jax.clear_caches()
