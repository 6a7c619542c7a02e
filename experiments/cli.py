"""What every entry point shares: flags that explain themselves, and errors that a user can act on."""

from __future__ import annotations

import difflib
import pathlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from absl import app, flags, logging

from causalvae import architectures
from causalvae.training import Stopped, TrainingError

DEBUG = flags.DEFINE_bool("debug", False, "Show the whole traceback of an error.")

# What is the user's to mend is said in one line; anything else is a bug and keeps its traceback.
Config = Any  # an ml_collections.ConfigDict, whose attributes a type checker cannot know
USER_ERRORS = (ValueError, OSError, TrainingError)
GO_ON = 75  # exit status of work that was stopped and goes on with the same command: EX_TEMPFAIL of sysexits.h


def run(main: Callable[[list[str]], None]) -> None:
    """`app.run`, with user errors as one line on stderr and exit status 1, or 75 where the work is to be continued."""

    def guarded(argv):
        logging.set_verbosity(logging.ERROR)  # orbax and jax say at INFO what only their authors need
        if argv[1:]:
            fail(f"unexpected argument {argv[1]!r}. `--help` lists the flags.")
        try:
            main(argv)
        except Stopped as stopped:
            fail(str(stopped), status=GO_ON)
        except USER_ERRORS as error:
            if DEBUG.value:
                raise
            fail(_one_sentence(str(error)) or type(error).__name__)

    app.run(guarded, flags_parser=_parse_flags)


def fail(message: str, status: int = 1) -> NoReturn:
    """Print the message to stderr, as an error where the status is 1, and leave with that exit status."""
    sys.stdout.flush()
    print(f"error: {message}" if status == 1 else message, file=sys.stderr)
    sys.exit(status)


def nearest(name: str, names: Iterable[str]) -> str:
    """' Did you mean 'x'?', or nothing where no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        fail(_one_sentence(str(error)))
    except (AttributeError, KeyError) as error:  # an override of a key that the locked config does not have
        words = re.findall(r"[A-Za-z_]\w*", re.split(r"\\n|\n", str(error))[0])
        hint = re.search(r"Did you mean .*\?", str(error))
        key = words[0] if words else str(error)
        where = " (an architecture's own are set where configs/common.py lists them)" if not hint else ""
        fail(f"the configuration has no setting {key!r}{where}. {hint[0] if hint else ''}".strip())
    except (ValueError, TypeError, OSError) as error:
        fail(_one_sentence(str(error)))


def _one_sentence(text: str) -> str:
    """The point of an error whose text may be several lines: a failed config file leaves a whole traceback."""
    missing = re.search(r"No such file or directory: '([^']+\.py)'", text)
    if missing:
        path = pathlib.Path(missing[1])
        beside = sorted(str(p) for p in path.parent.glob("*_*.py")) if path.parent.is_dir() else []
        architecture, _, dataset = path.stem.partition("_")
        plain = path.with_name(f"vae_{dataset}.py")
        if plain.exists() and architecture in architectures.ARCHITECTURES:
            return f"no config file {path}: give {plain} with --config.architecture.name={architecture}"
        return f"no config file {path}.{nearest(str(path), beside)}"
    raised = re.findall(r"^\s*(?:\w+Error): (.+)$", text, flags=re.MULTILINE)
    return raised[-1] if raised else text.strip()
