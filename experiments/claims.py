"""How often a search over units claims what is not there: family-wise error, coverage and power by simulation.

python -m experiments.claims                     print the tables
python -m experiments.claims --out=docs/claims.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import scipy.special

from causalvae import interventions as iv
from causalvae.progress import write_text
from experiments import cli

SIMULATIONS, UNITS, PAIRS, DRAWN, LEVEL = 1000, 200, 64, 499, 0.05
CARRIERS, SIZE = 20, 0.7  # units with an effect, in standard deviations

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


# --- effects without a mean ------------------------------------------------------------------------------


def normal(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Independent units."""
    return generator.standard_normal(shape)


def dependent(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Ten causes in common, which make up nine tenths of every unit's variance."""
    common = generator.standard_normal((10, shape[1]))
    loadings = generator.standard_normal((shape[0], 10)) / np.sqrt(10)
    return np.sqrt(0.9) * loadings @ common + np.sqrt(0.1) * generator.standard_normal(shape)


def heavy(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Student's t with 2 degrees of freedom: no variance."""
    return generator.standard_t(2, shape)


def sparse(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Nine of ten pairs have no effect, as where ReLU silences a unit."""
    return generator.standard_normal(shape) * (generator.random(shape) < 0.1)


def skewed(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Exponential, less its mean: not symmetric, so that nothing is exact."""
    return generator.exponential(size=shape) - 1


DRAWS: dict[str, Draw] = {f.__name__: f for f in (normal, dependent, heavy, sparse, skewed)}


# --- methods ---------------------------------------------------------------------------------------------


def flips(effects: np.ndarray, key: jax.Array) -> np.ndarray:
    return iv.claims(effects, key, level=LEVEL, draws=DRAWN).claimed


def bootstrap(effects: np.ndarray, key: jax.Array) -> np.ndarray:
    return iv.claims(effects, key, method="bootstrap", level=LEVEL, draws=DRAWN).claimed


def holm(effects: np.ndarray, key: jax.Array) -> np.ndarray:
    """Holm's method over t-tests."""
    p = t_tests(effects)
    order = np.argsort(p)
    passed = np.cumprod(p[order] <= LEVEL / (len(p) - np.arange(len(p)))).astype(bool)
    claimed = np.zeros(len(p), bool)
    claimed[order[passed]] = True
    return claimed


def e_values(effects: np.ndarray, key: jax.Array) -> np.ndarray:
    """Products of exp(l x) / cosh(l x), whose mean is 1 for a symmetric x, averaged over bets l, of either sign."""
    scale = np.sqrt((effects**2).sum(axis=1, keepdims=True))
    logs = []
    for bet in (2.0, 4.0, 6.0):
        x = bet * effects / np.where(scale > 0, scale, 1.0)
        log_cosh = np.logaddexp(x, -x) - np.log(2)
        logs += [(sign * x - log_cosh).sum(axis=1) for sign in (1, -1)]
    e = np.exp(logs).mean(axis=0)
    return e >= len(e) / LEVEL


def uncorrected(effects: np.ndarray, key: jax.Array) -> np.ndarray:
    return t_tests(effects) <= LEVEL


def t_tests(effects: np.ndarray) -> np.ndarray:
    """Two-sided p-values [units] of Student's t; 1 where no pair has an effect."""
    num, error = effects.shape[1], effects.std(axis=1, ddof=1)
    t = effects.mean(axis=1) * np.sqrt(num) / np.where(error > 0, error, np.inf)
    return 2 * scipy.special.stdtr(num - 1, -np.abs(t))


METHODS = {"flips": flips, "bootstrap": bootstrap, "Holm": holm, "e-values": e_values, "uncorrected": uncorrected}


class Simulated(NamedTuple):
    """Rates over simulations, per method; null: no unit has an effect; some: CARRIERS units do."""

    null: dict[str, float]  # any claim
    some: dict[str, float]  # any claim of a unit that has none
    power: dict[str, float]  # claimed, of the units that have
    coverage: dict[str, float]  # all intervals of `claims` hold, with the carriers


def simulate(draw: Draw, simulations: int = SIMULATIONS, units: int = UNITS, pairs: int = PAIRS) -> Simulated:
    """Searches of `units` units over `pairs` pairs, of which none and CARRIERS have an effect."""
    null, some, power = ({name: 0.0 for name in METHODS} for _ in range(3))
    covered, truth = {"flips": 0.0, "bootstrap": 0.0}, np.zeros(units)
    truth[:CARRIERS] = SIZE
    for seed in range(simulations):
        generator, key = np.random.default_rng(seed), jax.random.key(seed)
        effects = draw(generator, (units, pairs))
        shifted = effects + truth[:, None]
        for name, method in METHODS.items():
            null[name] += method(effects, key).any() / simulations
            claimed = method(shifted, key)
            some[name] += claimed[CARRIERS:].any() / simulations
            power[name] += claimed[:CARRIERS].mean() / simulations
        for name in covered:
            found = iv.claims(shifted, key, method=name, level=LEVEL, draws=DRAWN)
            covered[name] += bool(((found.low <= truth) & (truth <= found.high)).all()) / simulations
    return Simulated(null, some, power, covered)


HEADER = f"""# Claims: how often a search finds what is not there

`interventions.claims` says which of many units or edges carry an effect, so that the chance of any false claim in the
whole search is at most {LEVEL:.0%}. Simulated: {SIMULATIONS:,} searches of {UNITS} units over {PAIRS} pairs.
"Flips" and "bootstrap" are the library's; Holm's method over t-tests, e-values (products of exp(λx) / cosh(λx), over
six bets λ) and single tests without correction stand beside them. With {SIMULATIONS:,} simulations a rate of
{LEVEL:.0%} is known to ± 1.4 %. This file is written by `python -m experiments.claims --out=docs/claims.md`; edges and
units of planted networks are in [Planted edges](planted_edges.md).

"""

CHOICE = """
"Flips" is the default. It is exact where an effect that is not there is symmetric, dependent or not, whatever the
tails, and so needs no probability of 1 in 4,000 of any single test; Holm's method does, and claims less under
dependence and heavy tails. E-values are valid at any time one stops, and claim less. What sign flips cannot take is an
effect that is skewed and yet has a mean of exactly zero: they see that it is not symmetric, and claim it. Where that
is to be feared (a histogram of a claimed unit's effects shows it), `method="bootstrap"` holds, at the price of power
where tails are heavy or most pairs have no effect at all; `least` asks for effects of a size that skewness does not
make.
"""


def table(title: str, rates: dict[str, dict[str, float]], note: str) -> str:
    """A row for each kind of effect, a column for each method."""
    columns = list(next(iter(rates.values())))
    lines = [f"\n## {title}\n", note, "", f"| effects | {' | '.join(columns)} |", "| --- " * (1 + len(columns)) + "|"]
    lines += [
        f"| {name} | {' | '.join(f'{100 * rate:.1f} %' for rate in row.values())} |" for name, row in rates.items()
    ]
    return "\n".join(lines) + "\n"


def page(found: dict[str, Simulated]) -> str:
    """All tables."""
    kinds = "\n".join(f"- {name}: {(draw.__doc__ or '').rstrip('.').lower()}" for name, draw in DRAWS.items())
    parts = [
        ("False claims, no unit has an effect", "null", "Share of searches with any claim."),
        (
            f"False claims, {CARRIERS} units have an effect",
            "some",
            f"Of {SIZE} (the scale of the others is about 1). Share of searches with a claim of any other unit.",
        ),
        ("Power", "power", f"Share of the {CARRIERS} units that are claimed; worth nothing where false claims abound."),
        ("Intervals", "coverage", "Share of searches in which the intervals of all units hold."),
    ]
    tables = [
        table(title, {name: getattr(rates, field) for name, rates in found.items()}, note)
        for title, field, note in parts
    ]
    return HEADER + kinds + "\n" + "".join(tables) + CHOICE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=cli.output_file, help="write the tables to this file")
    options = parser.parse_args()
    text = page({name: simulate(draw) for name, draw in DRAWS.items()})
    if options.out is None:
        print(text)
    else:
        write_text(options.out, text)


if __name__ == "__main__":
    main()
