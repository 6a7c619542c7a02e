"""Functions of users that are told every line of metrics: how any logger is fed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Callback = Callable[[int, Mapping[str, float]], Any]
WHERE = "training.callbacks"


class Callbacks:
    """Calls each of them, and keeps what they raise from ending a run: it is said once, and how often at the end."""

    def __init__(self, callbacks: Sequence[Callback], say: Callable[[str], None]):
        self._callbacks, self._say = callbacks, say
        self._failed = [0] * len(callbacks)
        self._calls = 0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tells all of them; each gets a copy, so that none changes what another sees."""
        self._calls += bool(self._callbacks)
        for i, callback in enumerate(self._callbacks):
            try:
                callback(step, dict(metrics))
            except Exception as error:
                self._failed[i] += 1
                if self._failed[i] == 1:
                    said = " ".join(str(error).split())
                    self._say(
                        f"callback {_name(callback)} failed at step {step:,} ({type(error).__name__}: {said}). "
                        "Training goes on, metrics.jsonl has the line, and the next line is told again."
                    )

    def close(self) -> None:
        """Says of those that failed more than once how often."""
        for callback, failed in zip(self._callbacks, self._failed):
            if failed > 1:
                self._say(f"callback {_name(callback)} failed {failed} times of {self._calls}")


def resolve_callbacks(callbacks: str | Sequence[Callback]) -> list[Callback]:
    """Returns the functions that are meant by "module:function, …"; functions are left as they are.

    Raises:
      ValueError: for a text of another form, for what cannot be imported, and for what cannot be called.
    """
    if isinstance(callbacks, str):
        return [_imported(name.strip()) for name in callbacks.split(",") if name.strip()]
    if callable(callbacks):
        raise ValueError(f"callbacks are several: write [{_name(callbacks)}], with brackets")
    for callback in callbacks:
        if not callable(callback):
            raise ValueError(f"a callback is a function (step, metrics), not {callback!r}")
    return list(callbacks)


def _imported(name: str) -> Callback:
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"{WHERE} is module:function, such as my_logging:log, not {name!r}")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a module of the user's raises
        raise ValueError(
            f"{WHERE}: {name} cannot be imported ({type(error).__name__}: {error}); its folder must be on PYTHONPATH"
        ) from error
    if not callable(found):
        raise ValueError(f"{WHERE}: {name} is no function (step, metrics)")
    return found


def _name(callback: Any) -> str:
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__
