"""The interactive explorer of a finished run: move a latent, swap a code, patch a channel, follow a circuit.

    python -m experiments.explorer --workdir=runs/betatc_3dshapes_quick
    python -m experiments.explorer --workdir=runs/betatc_3dshapes_quick --workdir=runs/vae_3dshapes_quick

Writes <workdir>/explorer.html, one file for every trained member, from the run's config and latest checkpoint.
The page needs nothing but itself: it opens from disk, without a network. `experiments.main` writes it as well.
Of several runs on one data set it writes one page, their first members side by side, into the first one's folder.
"""

from __future__ import annotations

import pathlib

from absl import flags

from causalvae import locks
from causalvae.runs import read_config
from experiments import cli, pipeline
from experiments.explorer import runs
from experiments.explorer.explore import WHOLE

WORKDIR = flags.DEFINE_multi_string("workdir", None, "The directory of a run; several stand side by side on one page.")
CIRCUITS = flags.DEFINE_bool("circuits", True, "Trace and draw the circuit of every factor.")


def main(argv: list[str]) -> None:
    if WORKDIR.value is None:
        cli.fail("--workdir is needed: the directory of a run, e.g. --workdir=runs/betatc_3dshapes_quick")
    workdirs = [pathlib.Path(workdir) for workdir in WORKDIR.value]
    for workdir in workdirs:
        read_config(workdir)  # before anything is written where there is no run
    with locks.hold(workdirs[0]):
        if len(workdirs) > 1:
            paths = [runs.write_beside(workdirs, CIRCUITS.value)]
        else:
            paths = runs.write(workdirs[0], WHOLE._replace(circuits=CIRCUITS.value))
        for path in paths:
            pipeline.say(f"explorer: {path} ({path.stat().st_size / 2**20:.1f} MB)")


if __name__ == "__main__":
    cli.run(main)
