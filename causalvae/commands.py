"""Where the commands are: `experiments` and `configs`, beside this package in a clone, within it when installed.

    causalvae.commands.find()
    from experiments.explorer.notebook import widget

In a clone both can be imported as they are. Of an installed package they are not at the top level, where folders of
these names would get in each other's way; `find` makes them importable, whatever lies in the working directory.
"""

from __future__ import annotations

import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
INSTALLED = HERE / "_commands"
# name on the command line -> module
COMMANDS = {
    "run": "experiments.main",
    "study": "experiments.study",
    "report": "experiments.report",
    "compare": "experiments.compare",
    "explore": "experiments.explorer",
    "metrics": "experiments.metrics",
    "prepare": "experiments.prepare",
    "spread": "experiments.spread",
    "settings": "experiments.settings",
    "benchmark": "experiments.benchmark",
}


def find() -> pathlib.Path:
    """Imports `experiments` and `configs` from where this package has them; returns that folder.

    Raises:
      ImportError: where packages of these names from elsewhere have been imported before.
    """
    folder = INSTALLED if INSTALLED.is_dir() else HERE.parent
    sys.path.insert(0, str(folder))
    try:
        for name in ("configs", "experiments"):
            found = pathlib.Path(importlib.import_module(name).__file__ or "").parent
            if found != folder / name:
                raise ImportError(f"{name} was imported from {found} before; causalvae's is in {folder / name}")
    finally:
        sys.path.remove(str(folder))
    return folder
