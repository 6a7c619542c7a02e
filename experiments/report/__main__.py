"""One self-contained HTML file from a study's directory, and its figures as PNG and PDF.

    python -m experiments.report --workdir=runs/study_quick

Reads the stored results only: nothing is trained or measured again. Works on a study that is still running or
that has failed runs. Data of different sources (real, procedural) stand in different parts, never in one table.
"""

from __future__ import annotations

import pathlib

from absl import flags

from causalvae import locks
from experiments import cli
from experiments.report import page
from experiments.study import records

WORKDIR = flags.DEFINE_string("workdir", None, "The directory of a study.")


def main(argv: list[str]) -> None:
    if WORKDIR.value is None:
        cli.fail("--workdir is needed: the directory of a study, e.g. --workdir=runs/study_quick")
    workdir = pathlib.Path(WORKDIR.value)
    records.read_table(workdir)  # before anything is written where there is no study
    with locks.hold(workdir, "report", sweep=False):  # a study may be at work beside
        locks.remove_left_overs(workdir / "figures")
        page.write(workdir)


if __name__ == "__main__":
    cli.run(main)
