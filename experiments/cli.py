"""What every entry point shares: flags that explain themselves, and errors that a user can act on."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from absl import app, flags, logging

from causalvae import architectures, schema
from causalvae._words import nearest
from causalvae.training import Stopped, TrainingError
from experiments import overrides, streams
from experiments.streams import GO_ON

DEBUG = flags.DEFINE_bool("debug", False, "Show the whole traceback of an error.")

# What is the user's to mend is said in one line; anything else is a bug and keeps its traceback.
Config = Any  # an ml_collections.ConfigDict, whose attributes a type checker cannot know
USER_ERRORS = (ValueError, OSError, TrainingError)
SMALLER = "choose a smaller training.batch_size, architecture.latents or seeds, or smaller sizes of the evaluation"


def run(main: Callable[[list[str]], None], settings: Mapping[str, schema.Field] | None = None) -> None:
    """`app.run`, with user errors as one line on stderr and exit status 1, or 75 where the work is to be continued.

    settings: what the command's --config holds, where it has one.
    """
    streams.print_anything()
    settings = settings or {}

    def guarded(argv):
        logging.set_verbosity(logging.FATAL)  # orbax says what only its authors need; its errors reach us as exceptions
        if argv[1:]:
            fail(f"unexpected argument {argv[1]!r}. `--help` lists the flags.")
        overrides.apply(flags.FLAGS)
        with _one_line():
            main(argv)

    def parse(argv: list[str]) -> list[str]:
        if any(word in ("--help", "-help", "-h", "--helpshort") for word in argv[1:]):
            print(overrides.help_text(settings), flush=True)
            sys.exit(0)
        with _one_line():
            argv = overrides.prepare(argv, settings)
        sys.argv[1:] = argv[1:]  # where ml_collections looks for overrides
        return _parse_flags(argv)

    with _one_line():
        app.run(guarded, flags_parser=parse)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Ends the process with one line for whatever a user can mend, and for a request to stop."""
    streams.stop_by_exception()
    try:
        yield
    except Stopped as stopped:
        fail(str(stopped), status=GO_ON)
    except (KeyboardInterrupt, streams.Terminated) as error:
        name = "SIGTERM" if isinstance(error, streams.Terminated) else "SIGINT"
        fail(streams.stopped_by(name), status=GO_ON)
    except BrokenPipeError:  # whoever read the output has gone, as `| head` does
        streams.forget_stdout()
        sys.exit(128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1)
    except USER_ERRORS as error:
        _unless_debugging()
        fail(_one_sentence(str(error)) or type(error).__name__)
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)):
            raise
        _unless_debugging()
        fail(f"out of memory ({' '.join(str(error).split())[:150] or type(error).__name__}): {SMALLER}")


def _unless_debugging() -> None:
    """Raises the error that is handled again, with its traceback, where --debug asks for it."""
    if flags.FLAGS.is_parsed() and DEBUG.value:
        raise


def fail(message: str, status: int = 1) -> NoReturn:
    """Print the message to stderr, as an error where the status is 1, and leave with that exit status."""
    try:
        sys.stdout.flush()
    except OSError:  # a full disk; Python would complain at its end again
        streams.forget_stdout()
    with contextlib.suppress(OSError):
        print(f"error: {message}" if status == 1 else message, file=sys.stderr, flush=True)
    sys.exit(status)


def check_folder_of(path: str | None, flag: str) -> None:
    """ValueError, before anything is computed, where a file cannot be put at `path`; None is fine."""
    if path is None:
        return
    folder = pathlib.Path(path).parent
    if not folder.is_dir():
        raise ValueError(f"--{flag}={path}: there is no folder {folder}")
    if pathlib.Path(path).is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--{flag}={path} is a folder, or lies in one that cannot be written: choose a file's name")


def output_file(path: str) -> pathlib.Path:
    """A file to write, as the type of an argparse argument; one that cannot be put there is refused at once."""
    try:
        check_folder_of(path, "out")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return pathlib.Path(path)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        fail(_one_sentence(str(error)))
    except (AttributeError, KeyError) as error:  # an override of a key that the locked config does not have
        words = re.findall(r"[A-Za-z_]\w*", re.split(r"\\n|\n", str(error))[0])
        hint = re.search(r"Did you mean .*?\?", str(error).replace('"', "'"))
        key = words[0] if words else str(error)
        near = f" {hint[0]}" if hint else nearest(key, overrides.words())
        fail(f"the configuration has no setting {key!r}.{near} (`--help` lists them.)")
    except (ValueError, TypeError, OSError) as error:
        fail(_one_sentence(str(error)))


def _one_sentence(text: str) -> str:
    """The point of an error whose text may be several lines: a failed config file leaves a whole traceback."""
    missing = re.search(r"No such file or directory: '([^']+\.py)'", text)
    if missing:
        path = pathlib.Path(missing[1])
        beside = [str(p) for p in path.parent.glob("[!_]*.py")] if path.parent.is_dir() else []
        beside += [f"configs/{name}.py" for name in overrides.config_names()]
        architecture, _, dataset = path.stem.partition("_")
        plain = overrides.CONFIGS / f"vae_{dataset}.py"
        if plain.exists() and architecture in architectures.ARCHITECTURES:
            return f"no config file {path}: give vae_{dataset} with --config.architecture.name={architecture}"
        return f"no config file {path}.{nearest(str(path), beside)}"
    raised = re.findall(r"^\s*(?:\w+Error): (.+)$", text, flags=re.MULTILINE)
    return raised[-1] if raised else " ".join(text.split())
