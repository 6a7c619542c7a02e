"""The interactive explorer of a finished run: move a latent, swap a code, patch a channel.

    python -m experiments.explorer --workdir=runs/betatc_3dshapes_quick

Writes <workdir>/explorer.html, one file for every trained member, from the run's config and latest checkpoint.
The page needs nothing but itself: it opens from disk, without a network. `experiments.main` writes it as well.
"""

from __future__ import annotations

import pathlib

from absl import flags

from causalvae import locks
from causalvae.runs import read_config
from experiments import cli, pipeline
from experiments.explorer import runs

WORKDIR = flags.DEFINE_string("workdir", None, "The directory of a run.")


def main(argv: list[str]) -> None:
    if WORKDIR.value is None:
        cli.fail("--workdir is needed: the directory of a run, e.g. --workdir=runs/betatc_3dshapes_quick")
    workdir = pathlib.Path(WORKDIR.value)
    read_config(workdir)  # before anything is written where there is no run
    with locks.hold(workdir):
        for path in runs.write(workdir):
            pipeline.say(f"explorer: {path} ({path.stat().st_size / 2**20:.1f} MB)")


if __name__ == "__main__":
    cli.run(main)
