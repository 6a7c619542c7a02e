"""Output and signals of a command: text that any terminal can show, and requests to stop that leave no traceback."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import threading
import unicodedata
from typing import Any

# What our output has beyond ASCII, for terminals and files that have no more than that.
PLAIN = {"×": "x", "→": "->", "–": "-", "—": "-", "±": "+-", "…": "...", "²": "2", "β": "beta", "σ": "sd", "≥": ">="}
GO_ON = 75  # exit status of work that was stopped and goes on with the same command: EX_TEMPFAIL of sysexits.h


class Terminated(BaseException):
    """SIGTERM asked to stop."""


def print_anything() -> None:
    """Lets stdout and stderr take every character: where their encoding lacks one, its nearest in ASCII."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or _without_accents(c) for c in characters), error.end


def _without_accents(character: str) -> str:
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


def stop_at_once() -> None:
    """Makes SIGTERM and SIGINT end the process with a line, while it imports and has done nothing."""
    _handle(_leave, signal.SIGTERM, signal.SIGINT)


def stop_by_exception() -> None:
    """Makes SIGTERM raise Terminated and SIGINT KeyboardInterrupt, where nothing else is set."""
    if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, _leave):
        _handle(_terminate, signal.SIGTERM)
    if signal.getsignal(signal.SIGINT) is _leave:
        _handle(signal.default_int_handler, signal.SIGINT)
    sys.unraisablehook = _deliver_again


def stopped_by(name: str) -> str:
    """Returns what a command says when a signal ends it."""
    return f"stopped by {name}. What is stored is whole; the same command goes on from there."


def _leave(number: int, frame: Any) -> None:
    del frame
    os.write(2, f"{stopped_by(signal.Signals(number).name)}\n".encode())
    os._exit(GO_ON)


def _terminate(number: int, frame: Any) -> None:
    del number, frame
    raise Terminated


def _deliver_again(unraisable: Any) -> None:
    """Sends a signal again whose exception was raised where Python can only ignore it, as in a garbage collection.

    TensorStore's threads, which find their event loop closed after an error that has been reported, are not heard.
    """
    if str(unraisable.exc_value) == "Event loop is closed":
        return
    numbers = {Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}
    if unraisable.exc_type not in numbers:
        sys.__unraisablehook__(unraisable)
        return
    again = threading.Timer(0.02, os.kill, (os.getpid(), numbers[unraisable.exc_type]))
    again.daemon = True
    again.start()


def _handle(handler: Any, *numbers: signal.Signals) -> None:
    for number in numbers:
        with contextlib.suppress(ValueError):  # not the main thread: the caller's business
            signal.signal(number, handler)


def forget_stdout() -> None:
    """Lets nothing be written to stdout any more: nobody reads it, and Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
