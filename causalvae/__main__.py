"""Commands of causalvae: `causalvae run --config=vae_dsprites:quick`, or `python -m causalvae run ...`."""

from __future__ import annotations

import importlib.util
import runpy
import sys

from causalvae import commands
from causalvae._words import nearest


def main() -> None:
    """Runs the command that the first argument names, with the rest as its own."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    commands.find()
    from experiments import streams

    streams.print_anything()
    streams.stop_at_once()
    if name in ("--help", "-h", "help"):
        try:
            print(_help(), flush=True)
        except BrokenPipeError:  # `| head` has read enough
            streams.forget_stdout()
        return
    if name == "--version":
        import causalvae

        print(causalvae.__version__)
        return
    if name not in commands.COMMANDS:
        print(
            f"error: no command {name!r}; there are: {', '.join(commands.COMMANDS)}.{nearest(name, commands.COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(1)
    del sys.argv[1]
    runpy.run_module(commands.COMMANDS[name], run_name="__main__", alter_sys=True)


def _help() -> str:
    lines = ["causalvae COMMAND --help says more of each command:", ""]
    for name, module in commands.COMMANDS.items():
        lines.append(f"  {name:<10} {_purpose(module)}")
    return "\n".join(lines)


def _purpose(module: str) -> str:
    """The first line of a command's docstring, without running it."""
    found = importlib.util.find_spec(f"{module}.__main__") if _is_package(module) else importlib.util.find_spec(module)
    with open((found.origin if found else None) or "", encoding="utf-8") as file:
        return file.readline().strip().strip('"')


def _is_package(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


if __name__ == "__main__":
    main()
