"""The command line of a configuration: configs by name, settings checked by the schema, and the help about them."""

from __future__ import annotations

import pathlib
import re
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from absl import flags

import configs
from causalvae import architectures, commands, schema

CONFIGS = pathlib.Path(configs.__file__).parent

_options: dict[str, Any] = {}  # of the architecture, as the command line sets them


def config_names() -> list[str]:
    """Returns the names that --config takes without a path."""
    return sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("__init__", "common"))


def words() -> list[str]:
    """Returns the last words of all settings and options of a run."""
    own = [option for name in architectures.ARCHITECTURES for option in schema.options_of(name)]
    return [*(name.rpartition(".")[2] for name in schema.RUN), *own]


def prepare(argv: list[str], settings: Mapping[str, schema.Field]) -> list[str]:
    """Returns the command line as absl is to read it: the config's file in place of its name, and without options of
    architectures, which `apply` sets.

    Raises:
        ValueError: for a value that a setting does not take.
    """
    _options.clear()
    words, kept = list(argv[1:]), argv[:1]
    while words:
        word = words.pop(0)
        flag = re.fullmatch(r"--?(config(?:\.[\w.]+)?)(?:=(.*))?", word, re.DOTALL)
        if not settings or flag is None:
            kept.append(word)
            continue
        name, text = flag[1].partition(".")[2], flag[2]
        if text is None and words and not words[0].startswith("--"):
            text = words.pop(0)
        if text is None:
            kept.append(word)
        elif not name:
            kept.append(f"--config={_file(text)}")
        elif not _is_option(name, text, settings):
            kept.append(f"--config.{name}={_checked(name, text, settings)}")
    return kept


def apply(values: Any) -> None:
    """Sets the options of architectures that the command line gave. values: absl's FLAGS."""
    if not _options:
        return
    config = values["config"].value
    if config is None:
        return
    own = schema.options_of(config.architecture.name)
    with config.unlocked():
        for name, text in _options.items():
            config.architecture[name] = schema.parse(f"architecture.{name}", text, own[name]) if name in own else text


def _file(value: str) -> str:
    """The config file of a name, `configs/` before it or not; anything else as it is."""
    path, colon, preset = value.partition(":")
    if pathlib.Path(path).is_file():
        return value
    name = re.fullmatch(r"(?:configs/)?(\w+?)(?:\.py)?", path)
    if name is None:
        return value
    file = CONFIGS / f"{name[1]}.py"
    if not file.is_file() and "/" not in path and not path.endswith(".py"):
        file = pathlib.Path("configs") / file.name  # as it is called in messages
    return f"{file}{colon}{preset}" if file.is_file() or "/" not in path else value


def _is_option(name: str, text: str, settings: Mapping[str, schema.Field]) -> bool:
    """Whether it is an option of some architecture; then it is kept for `apply`."""
    section, _, option = name.partition(".")
    known = any(option in schema.options_of(each) for each in architectures.ARCHITECTURES)
    if section != "architecture" or name in settings or not known:
        return False
    if "architecture.name" not in settings:
        raise ValueError(f"a study's options of architectures are values of its grid: --config.grid='name.{option}: …'")
    _options[option] = text
    return True


def _checked(name: str, text: str, settings: Mapping[str, schema.Field]) -> str:
    """The text of a setting as absl parses it."""
    if name in settings:
        value = schema.parse(name, text, settings[name])
        return text if isinstance(value, str) else str(value)
    inside = [key for key in settings if key.startswith(f"{name}.")]
    if inside:
        raise ValueError(f"{name} is a group of settings, each of which is set by itself: {', '.join(inside)}")
    return text


def help_text(settings: Mapping[str, schema.Field]) -> str:
    """Returns what --help prints: what the command does, its flags and the settings of its --config."""
    main = sys.modules["__main__"]
    lines = [_as_called((main.__doc__ or "").strip()), "", "flags:"]
    own = flags.FLAGS.flags_by_module_dict().get(_module_of(main), [])
    shared = [flag for name in ("experiments.slices", "experiments.cli") for flag in _flags_of(name)]
    for flag in [*own, *shared]:
        if "." not in flag.name:
            lines += _entry(f"--{flag.name}", flag.help or "")
    if settings:
        lines += ["", "settings (--config.NAME=VALUE):"]
        for name, default, allowed, text in schema.rows(settings):
            lines += _entry(name, f"{text} ({allowed}; default {default or 'empty'})")
        if "architecture.name" in settings:
            lines += ["", "options of architectures (--config.architecture.OPTION=VALUE):"]
            for name, default, allowed, text in schema.architecture_rows():
                lines += _entry(name, f"{text} ({allowed}; default {default})")
    return "\n".join(lines)


def _as_called(text: str) -> str:
    """The commands in a docstring as an installed package has them; a clone has them as they stand."""
    if not commands.INSTALLED.is_dir():
        return text
    for name, module in commands.COMMANDS.items():
        text = re.sub(rf"python -m {module}\b", f"causalvae {name}", text)
    return re.sub(r"configs/(\w+)\.py", r"\1", text)


def _module_of(main: Any) -> str:
    return sys.argv[0] if main.__name__ == "__main__" else main.__name__


def _flags_of(module: str) -> list[Any]:
    return flags.FLAGS.flags_by_module_dict().get(module, [])


def _entry(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=f"  {name}: ", subsequent_indent="      ") or [f"  {name}"]
