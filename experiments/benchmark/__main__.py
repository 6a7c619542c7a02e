"""How fast is it: medians and ratios of runs taken in turn, so that a machine's moods hit all of them alike.

    python -m experiments.benchmark                              every section, with small defaults
    python -m experiments.benchmark --only=step,ensemble,scan    training steps
    python -m experiments.benchmark --only=convolutions --members=30    how an ensemble is best computed here
    python -m experiments.benchmark --only=patch --pairs=256 --units=0    every unit of every site
    python -m experiments.benchmark --only=edges --units=0 --rounds=3    every edge of two links, 64 pairs
    python -m experiments.benchmark --only=dci --rows=10000      scikit-learn alone takes minutes here
    python -m experiments.benchmark --list                       what the sections are

Comparisons with PyTorch need it installed (pip install .[torch]); without it they are left out, and say so.
"""

from __future__ import annotations

import json
import os
import platform
from typing import Any

import jax
from absl import flags

from causalvae._words import nearest
from causalvae.progress import write_text
from experiments import cli
from experiments.benchmark.sections import SECTIONS, Settings
from experiments.benchmark.timing import show


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    device = jax.devices()[0]
    return {
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def define_flags() -> None:
    flags.DEFINE_list("only", list(SECTIONS), "Sections, separated by commas. Default: all.")
    flags.DEFINE_string("out", None, "Also write the tables to this JSON file.")
    flags.DEFINE_bool("list", False, "List the sections, and leave.")
    for name, default in Settings._field_defaults.items():
        flags.DEFINE_integer(name, default, FLAG_HELP[name], lower_bound=0 if name == "units" else 1)


FLAG_HELP = {
    "rounds": "How often the runs of a section take turns.",
    "steps": "Training steps in one timed call.",
    "batch_size": "Images in a batch.",
    "pairs": "Pairs of images in sections patch and edges.",
    "units": "Units of each site in section patch, of each sender's site in section edges; 0: all of them.",
    "members": "Members in section convolutions, and of one more ensemble in section ensemble.",
    "rows": "Training rows in section dci. The literature's number is 10,000.",
}


def main(argv: list[str]) -> None:
    values: Any = flags.FLAGS
    if values.list:
        print("\n".join(f"{name:15} {function.__doc__}" for name, function in SECTIONS.items()))
        return
    cli.check_folder_of(values.out, "out")
    chosen = list(dict.fromkeys(values.only)) or list(SECTIONS)
    for name in chosen:
        if name not in SECTIONS:
            cli.fail(f"no section {name!r}; there are: {', '.join(SECTIONS)}.{nearest(name, SECTIONS)}")
    settings = Settings(**{name: values[name].value for name in Settings._fields})
    results = {"machine": machine(), "settings": settings._asdict(), "sections": {}}
    print("  ".join(f"{key} {value}" for key, value in results["machine"].items()), flush=True)
    for name in chosen:
        table = SECTIONS[name](settings)
        print(show(name, table), flush=True)
        results["sections"][name] = {**table._asdict(), "rows": [row._asdict() for row in table.rows]}
        if values.out:
            write_text(values.out, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
