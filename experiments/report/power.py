"""How often the study's verdicts are right: the rules of findings.py on simulated tables, before any result.

    python -m experiments.report.power                                   print the table
    python -m experiments.report.power --num=400 --out=docs/power.md     write it, some ten minutes

For every finding and design there are worlds in which it is true, false or absent, and worlds at the boundary
of a rule, where a verdict one way or the other is wrong. Spreads are guesses of this library.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from causalvae.progress import write_text
from experiments import cli
from experiments.report.capacity import capacity_by_factors, capacity_verdict
from experiments.report.correlations import correlation_family, correlation_verdict
from experiments.report.near_zero import near_zero_verdict, vq_strength
from experiments.report.tables import DISENTANGLEMENT, EFFECT, Table
from experiments.report.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED
from experiments.report.winners import winner_verdict, winners_by_score

ARCHITECTURES = ("vae", "beta", "factor", "betatc", "dip2", "vq")
DATASETS = ("dsprites", "3dshapes", "mpi3d", "smallnorb", "celeba")
# Beside each architecture's default, one seed each, within the published sweeps.
GRID = {"beta": (1, 2, 8, 16), "factor": (10, 100), "betatc": (2, 10), "dip2": (1, 20), "vq": (0.1, 1.0)}
SIZES = (4, 6, 8, 10, 16)
FACTORS = {"dsprites": 5, "3dshapes": 6}

HEADER = """# How often the verdicts are right

The rules by which `experiments/report/findings.py` calls a finding supported, contradicted or
undecided, on {num} simulated tables of each world: written and simulated before the study's results. Where a verdict
would be wrong it stands in **bold**: at most 2.5 % is promised at the boundary of a rule, and a verdict of
"undecided" is never wrong. Simulation knows a share of 2.5 % to about ±{error:.1f} %. Written by
`python -m experiments.report.power --num={num} --out=docs/power.md`.

"""


class World(NamedTuple):
    """What is simulated, and which verdicts it makes wrong."""

    finding: str
    design: str
    name: str
    table: Callable[[np.random.Generator], Table]
    wrong: tuple[str, ...]


def columns(rows: Sequence[tuple[str, str, str, int]]) -> dict[str, np.ndarray]:
    """The columns that name runs, of (data set, architecture, variant, seed)."""
    datasets, architectures, variants, seeds = (np.array(values) for values in zip(*rows))
    labels = [f"{a} ({v})" if v else a for _, a, v, _ in rows]
    return {
        "dataset": datasets,
        "architecture": architectures,
        "variant": variants,
        "label": np.array(labels),
        "seed": seeds,
    }


# --- (i) a correlation -----------------------------------------------------------------------------------


def study_runs(datasets: Sequence[str], seeds: int, grid: bool) -> list[tuple[str, str, str, int]]:
    """The study's runs; with the grid, one seed more of each of its variants."""
    rows = [(d, a, "", s) for d in datasets for a in ARCHITECTURES for s in range(seeds)]
    variants = [(a, f"x={value}") for a, values in GRID.items() for value in values]
    return rows + [(d, a, v, 0) for d in datasets for a, v in variants if grid]


def correlated(rng: np.random.Generator, rows, rho: float, confounded: bool = False) -> Table:
    """CES and DCI that correlate by `rho` between architectures, variants, their runs on each data set, and seeds;
    or, confounded, both follow the reconstruction and nothing else."""
    table = columns(rows)
    mixing = np.linalg.cholesky([[1, rho], [rho, 1]]) if abs(rho) < 1 else np.array([[1, 0], [rho, 0]])
    cells = np.char.add(table["label"], table["dataset"])
    levels = (table["architecture"], 1.0), (table["label"], 0.7), (cells, 0.5), (np.arange(len(rows)), 0.4)

    def effects(num):
        """[num, runs] of unrelated variables with those components."""
        total = np.zeros((num, len(rows)))
        for names, spread in levels:
            members = np.unique(names, return_inverse=True)[1]
            total += spread * rng.normal(size=(num, members.max() + 1))[:, members]
        return total

    effect, dci = mixing @ effects(2)
    reconstruction, active = effects(2)
    if confounded:
        effect, dci = reconstruction + 0.3 * effect, -reconstruction + 0.3 * dci
    return table | {
        EFFECT: effect,
        DISENTANGLEMENT: dci,
        "reconstruction": reconstruction,
        "active_latents": active,
    }


def correlation_worlds() -> Iterator[World]:
    designs = {
        "6 architectures × 3 seeds × 5 data sets": study_runs(DATASETS, 3, False),
        "6 architectures × 3 seeds × 2 data sets": study_runs(DATASETS[:2], 3, False),
        "6 architectures × 3 seeds × 2 data sets, and the grid": study_runs(DATASETS[:2], 3, True),
    }
    worlds = {
        "true: ρ = −0.9 at every level": (-0.9, False, (CONTRADICTED,)),
        "true: ρ = −0.6 at every level": (-0.6, False, (CONTRADICTED,)),
        "boundary: ρ = −0.1": (-0.1, False, (CONTRADICTED,)),
        "absent: ρ = 0": (0.0, False, (SUPPORTED,)),
        "confounded by reconstruction": (0.0, True, (SUPPORTED,)),
        "false: ρ = 0.6 at every level": (0.6, False, (SUPPORTED,)),
    }
    for (design, rows), (name, (rho, confounded, wrong)) in itertools.product(designs.items(), worlds.items()):
        make = functools.partial(correlated, rows=rows, rho=rho, confounded=confounded)
        yield World("i", design, name, make, wrong)


# --- (ii) capacity ---------------------------------------------------------------------------------------


def capacities(rng: np.random.Generator, seeds: int, slope: float) -> Table:
    """VAE and beta-VAE of every size on two data sets; the beta-VAE's capacity relative to the VAE's changes by `slope`
    for each factor per latent. Active latents are whole numbers, uncertain by half of one; KL is uncertain by 3 %."""
    runs = itertools.product(FACTORS, ("vae", "beta"), SIZES, range(seeds))
    rows = [(dataset, architecture, f"latents={size}", seed) for dataset, architecture, size, seed in runs]
    table = columns(rows)
    latents = np.array([float(variant.partition("=")[2]) for variant in table["variant"]])
    factors = np.array([float(FACTORS[dataset]) for dataset in table["dataset"]])
    share = np.where(table["architecture"] == "beta", 0.75 + slope * (factors / latents - 0.7), 1)
    active = np.minimum(latents, 8) * share + 0.5 * rng.normal(size=len(rows))
    kl = (12 + latents) * share * (1 + 0.03 * rng.normal(size=len(rows)))
    return table | {
        "latents": latents,
        "num_factors": factors,
        "active_latents": np.clip(np.round(active), 0, latents),
        "kl": kl,
    }


def capacity_worlds() -> Iterator[World]:
    worlds = {
        "true: slope −0.4": (-0.4, (CONTRADICTED,)),
        "true: slope −0.2": (-0.2, (CONTRADICTED,)),
        "boundary: slope −0.1": (-0.1, (CONTRADICTED,)),
        "absent: slope 0": (0.0, (SUPPORTED,)),
        "false: slope 0.2": (0.2, (SUPPORTED,)),
    }
    for seeds, (name, (slope, wrong)) in itertools.product((2, 3), worlds.items()):
        design = f"5 sizes × VAE, β-VAE × 2 data sets × {seeds} seeds"
        yield World("ii", design, name, functools.partial(capacities, seeds=seeds, slope=slope), wrong)


# --- (iii) winners ---------------------------------------------------------------------------------------


def scored(rng: np.random.Generator, seeds: int, leads: np.ndarray) -> Table:
    """DCI with the architectures' means `leads` [data sets, architectures] in standard deviations over seeds, of which
    VQ-VAE's and FactorVAE's are twice the others'."""
    rows = [(d, a, "", s) for d in DATASETS for a in ARCHITECTURES for s in range(seeds)]
    table = columns(rows)
    spread = np.where(np.isin(table["architecture"], ["vq", "factor"]), 2, 1)
    values = np.repeat(leads.ravel(), seeds) + spread * rng.normal(size=len(rows))
    return table | {DISENTANGLEMENT: values}


def winner_worlds() -> Iterator[World]:
    each = np.eye(5, 6)  # another architecture is ahead on each data set
    first = np.eye(6)[[0] * 5]
    tied = first + np.roll(each, 1, axis=1)  # the first is ahead of all but one, another on each data set
    nearly = first.copy()
    nearly[0, 1] = 1  # the first is ahead of all but one, on one data set
    worlds = {
        "true: another 20 deviations ahead on each": (20 * each - 20 * np.eye(5, 6, 1), (CONTRADICTED,)),
        "true: another 5 deviations ahead on each": (5 * each - 5 * np.eye(5, 6, 1), (CONTRADICTED,)),
        "absent: all alike": (0 * each, (SUPPORTED, CONTRADICTED)),
        "boundary: one beaten nowhere, tied on each": (20 * tied, (SUPPORTED,)),
        "boundary: one best everywhere, tied on one": (20 * nearly, (SUPPORTED, CONTRADICTED)),
        "false: one 5 deviations ahead everywhere": (5 * first, (SUPPORTED,)),
        "false: one 20 deviations ahead everywhere": (20 * first, (SUPPORTED,)),
    }
    for seeds, (name, (leads, wrong)) in itertools.product((3, 10), worlds.items()):
        design = f"6 architectures × {seeds} seeds × 5 data sets"
        yield World("iii", design, name, functools.partial(scored, seeds=seeds, leads=leads), wrong)


# --- (iv) VQ-VAE -----------------------------------------------------------------------------------------


def strengths(rng: np.random.Generator, seeds: int, share: float) -> Table:
    """CES; VQ-VAE's is `share` of the others' geometric mean. Architectures differ by 40 %, half of it the same on all
    data sets; seeds by 10 %, VQ-VAE's by 20 %."""
    rows = [(d, a, "", s) for d in DATASETS for a in ARCHITECTURES for s in range(seeds)]
    table = columns(rows)
    shape = (len(DATASETS), len(ARCHITECTURES), seeds)
    common, own = rng.normal(size=(1, *shape[1:2], 1)), rng.normal(size=(*shape[:2], 1))
    logs = 0.4 * np.sqrt(0.5) * (common + own)
    logs[:, -1] = np.log(share)
    spread = np.array([0.1] * 5 + [0.2])[:, None]  # of seeds, whose mean is the architecture's strength
    logs = logs + spread * rng.normal(size=shape) - spread**2 / 2
    return table | {EFFECT: np.exp(logs).ravel()}


def strength_worlds() -> Iterator[World]:
    worlds = {
        "true: 2 %": (0.02, (CONTRADICTED,)),
        "true: 7 %": (0.07, (CONTRADICTED,)),
        "boundary: 10 %": (0.1, (SUPPORTED, CONTRADICTED)),
        "false: 15 %": (0.15, (SUPPORTED,)),
        "absent: as strong as the others": (1.0, (SUPPORTED,)),
    }
    for name, (share, wrong) in worlds.items():
        design = "6 architectures × 3 seeds × 5 data sets"
        yield World("iv", design, name, functools.partial(strengths, seeds=3, share=share), wrong)


# --- the simulation --------------------------------------------------------------------------------------


def worlds() -> list[World]:
    """Every finding's designs and worlds."""
    return [*correlation_worlds(), *capacity_worlds(), *winner_worlds(), *strength_worlds()]


def judge(finding: str, table: Table) -> str:
    """The verdict of one finding on one table, by the study's own rules."""
    if finding == "i":
        pairs = correlation_family(table, EFFECT, DISENTANGLEMENT)
        return correlation_verdict(pairs).verdict
    if finding == "ii":
        return capacity_verdict(capacity_by_factors(table)).verdict
    if finding == "iii":
        return winner_verdict(table, winners_by_score(table)).verdict
    return near_zero_verdict(vq_strength(table)).verdict


def simulate(world: World, num: int, seed: int = 0) -> dict[str, float]:
    """Verdict -> how often it is given, over `num` tables of a world."""
    verdicts = [judge(world.finding, world.table(np.random.default_rng([seed, i]))) for i in range(num)]
    return {v: verdicts.count(v) / num for v in (SUPPORTED, CONTRADICTED, UNDECIDED)}


def markdown(results: Sequence[tuple[World, dict[str, float]]], num: int) -> str:
    """The page: a row for each world, wrong verdicts in bold."""
    lines = [
        "| finding | design | world | supported | contradicted | undecided |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for world, shares in results:
        cells = [f"**{s:.1%}**" if verdict in world.wrong else f"{s:.1%}" for verdict, s in shares.items()]
        lines.append(f"| ({world.finding}) | {world.design} | {world.name} | " + " | ".join(cells) + " |")
    error = 196 * np.sqrt(0.025 * 0.975 / num)  # of a share of 2.5 %, in per cent
    return HEADER.format(num=num, error=error) + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=100, help="tables of each world")
    parser.add_argument("--out", type=cli.output_file, help="write the page to this file")
    options = parser.parse_args()
    results = []
    for world in worlds():
        results.append((world, simulate(world, options.num)))
        print(f"({world.finding}) {world.design}; {world.name}: {results[-1][1]}", flush=True)
    if options.out:
        write_text(options.out, markdown(results, options.num))
    else:
        print(markdown(results, options.num))


if __name__ == "__main__":
    main()
