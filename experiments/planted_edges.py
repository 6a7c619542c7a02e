"""Precision and recall of every method that finds edges, on networks whose edges are known: docs/planted_edges.md.

python -m experiments.planted_edges                                   print the tables
python -m experiments.planted_edges --out=docs/planted_edges.md
python -m experiments.planted_edges --export=planted                  write the networks, graphs and pairs to folders
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from causalvae import edges, planted_edges, run
from causalvae import interventions as iv
from causalvae.planted import FACTORS
from causalvae.planted_edges import LINKS, EdgeScore, PlantedEdges
from causalvae.progress import write_text
from experiments import cli

PAIRS = 32
ROUNDING = 1e-5  # of the total effect
SIMULATIONS, SEARCHED = 200, 64  # searches over nulls, and their pairs

Link = tuple[str, str]
Method = Callable[[PlantedEdges, iv.Pairs, Link], np.ndarray]


# --- methods: the score [U, W] of every edge -------------------------------------------------------------


def effects(method: str, **options: Any) -> Method:
    """Mean effects of the edges on the image, projected on the counterfactual's change."""

    def scores(planted: PlantedEdges, pairs: iv.Pairs, link: Link) -> np.ndarray:
        mean = iv.edge_effects(planted.model, planted.params, pairs, *link, method=method, **options).mean
        return np.where(np.abs(mean) > ROUNDING, mean, 0.0)

    return scores


def weights(planted: PlantedEdges, pairs: iv.Pairs, link: Link) -> np.ndarray:
    """The size of each weight, whatever flows through it."""
    return np.abs(planted.weights(link))


def activations(planted: PlantedEdges, pairs: iv.Pairs, link: Link) -> np.ndarray:
    """The product of the mean sizes of both units' activations."""
    _, found = run(planted.model, planted.params, pairs.x, capture=link)
    sender, receiver = (np.abs(np.asarray(found[site])).mean(axis=0) for site in link)
    return sender[:, None] * receiver[None]


def at_random(planted: PlantedEdges, pairs: iv.Pairs, link: Link) -> np.ndarray:
    """A number between 0 and 1 for every edge."""
    return np.random.default_rng(pairs.factor).uniform(size=planted.weights(link).shape)


METHODS: dict[str, Method] = {
    "exact": effects("exact"),
    "attribution": effects("attribution"),
    "second order": effects("second_order"),
    "integrated, 5": effects("integrated", steps=5),
    "integrated, 20": effects("integrated", steps=20),
    "weights": weights,
    "activations": activations,
    "random": at_random,
}


# --- noiseless: every method -----------------------------------------------------------------------------


class Row(NamedTuple):
    """One network and link: a score per factor and method."""

    network: str
    link: Link
    scores: dict[str, dict[str, EdgeScore]]  # method -> factor -> score


def pairs_of(planted: PlantedEdges, key: jax.Array, num: int = PAIRS) -> dict[str, iv.Pairs]:
    return {f: iv.counterfactuals(planted.dataset, jax.random.fold_in(key, k), f, num) for k, f in enumerate(FACTORS)}


def score_methods(key: jax.Array, methods: Mapping[str, Method] = METHODS) -> list[Row]:
    """Every method on every network."""
    rows = []
    for name in planted_edges.PLANTED_EDGES:
        planted = planted_edges.plant_edges(name)
        pairs = pairs_of(planted, key)
        for link in LINKS:
            scores = {
                title: {
                    f: planted_edges.score_edges(method(planted, pairs[f], link), planted.edges[f][link])
                    for f in FACTORS
                }
                for title, method in methods.items()
            }
            rows.append(Row(name, link, scores))
    return rows


class Search(NamedTuple):
    """What `find_edges` finds of one factor of one network, in both links together."""

    network: str
    factor: str
    precision: float
    recall: float
    faithfulness: float
    size: int


def search(key: jax.Array, method: str = "exact") -> list[Search]:
    """The smallest set of edges by effects of a method, against all edges that carry the factor."""
    found = []
    for name in planted_edges.PLANTED_EDGES:
        planted = planted_edges.plant_edges(name)
        sites = (LINKS[0][0], *(link[1] for link in LINKS))
        for factor, pairs in pairs_of(planted, key).items():
            circuit = edges.find_edges(planted.model, planted.params, pairs, sites, method=method, factor=factor)
            chosen = [np.zeros_like(mask) for mask in planted.edges[factor].values()]
            for mask, listed in zip(chosen, circuit.edges.values(), strict=True):
                mask[tuple(np.asarray(listed).reshape(-1, 2).T)] = True
            true = np.concatenate([mask.ravel() for mask in planted.edges[factor].values()])
            given = np.concatenate([mask.ravel() for mask in chosen])
            hits = (true & given).sum()
            score = float(hits / given.sum()), float(hits / true.sum())
            found.append(Search(name, factor, *score, circuit.faithfulness, int(given.sum())))
    return found


# --- nulls: a search with noise --------------------------------------------------------------------------


class Nulls(NamedTuple):
    """Searches of one network with noise: over simulations, of edges, and of the units that send them."""

    threshold: float  # share of searches in which an edge that carries nothing exceeds 1 % of the largest
    edges: float  # share in which one is claimed
    units: float
    found: float  # share of the planted edges that are claimed


def search_nulls(simulations: int = SIMULATIONS, noise: float = 1.0) -> Nulls:
    """Fresh pairs in every search; the outcome is the brightness of the first factor's block."""
    planted, link = planted_edges.plant_edges("linear", noise=noise), LINKS[0]
    true, outcome = planted.edges["first"][link], planted_edges.BlockOutcome(0)
    model, params = planted.model, planted.params
    counts = np.zeros(4)
    for seed in range(simulations):
        key, flips = jax.random.split(jax.random.key(seed))
        pairs = iv.counterfactuals(planted.dataset, key, "first", SEARCHED, contrast=(0, 1))
        found = iv.path_effects(model, params, pairs, *link, outcome=outcome)
        exact = np.asarray(found.path)
        claimed = iv.claims(exact, flips, draws=999).claimed
        units = iv.claims(found.sender, flips, draws=999).claimed
        size = np.abs(exact.mean(axis=-1))
        beyond = size >= 0.01 * size.max()
        false = (beyond & ~true).any(), (claimed & ~true).any(), (units & ~true.any(axis=1)).any()
        counts += [*false, claimed[true].mean()]
    return Nulls(*(counts / simulations).tolist())


# --- the page --------------------------------------------------------------------------------------------

HEADER = """# Planted edges: what every method finds

Small ReLU networks whose edges are known by construction (`causalvae/planted_edges`). In `linear`, effects are shares;
in `gated`, a factor passes only while another is high; in `redundant`, either of two latents is enough; in
`cancelling`, two ways cancel to first order at both values of a factor, and others pull against each other. All have
decoys: large weights of units that are off or do not change, and edges with large weights and activations that lead
nowhere.

Precision / recall of the edges whose |mean effect| is at least 1 % of the largest, and below them the average
precision, which needs no threshold; means over three factors, {pairs} pairs each. "Exact" to "integrated" are methods
of `interventions.edge_effects`; "weights" is the size of the weight, "activations" the product of both units' mean
activations. This file is written by `python -m experiments.planted_edges --out=docs/planted_edges.md`; with
`--export=DIR` it writes the networks, their graphs and pairs in open formats, for methods of any framework.
`planted_edges.score_edges` takes their scores.

"""

SEARCHES = """
Where a factor's ways cancel to first order at both of its values, or either of two is enough, gradients at x are zero:
attribution and its second-order form miss every edge of the first factor into the latents (recall 0 of that factor,
0.67 of three). Gradients on the way from x to x' see them.

## The smallest set

`edges.find_edges` chooses, by exact effects, the fewest edges of both links whose joint patch keeps 90 to 110 % of
the total effect. Edges that pull back belong to them. With all of a factor's edges planted, fewer may be enough:
weak ones are left out.

| network | factor | precision | recall | edges | faithfulness |
| --- | --- | --- | --- | --- | --- |
"""

WITH_NOISE = """
## With noise

In `linear` with a nuisance, two decoys act: which way, chance decides. In {simulations} searches of 96 edges with
{pairs} pairs each, a threshold of 1 % finds an edge that carries nothing in {threshold:.0%} of searches.
`interventions.claims` (family-wise error 5 %) claims such an edge in {edges:.1%} of them, and a unit that carries
nothing in {units:.1%}. Of the planted edges it claims {found:.0%}.
"""


def table(rows: list[Row]) -> str:
    """Precision / recall, and average precision, of every method."""
    methods = list(rows[0].scores)
    lines = [f"| network | edges | {' | '.join(methods)} |", "| --- " * (2 + len(methods)) + "|"]
    for row in rows:
        cells = [_cell(list(scores.values())) for scores in row.scores.values()]
        lines.append(f"| {row.network} | {row.link[0]} → {row.link[1]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(scores: list[EdgeScore]) -> str:
    precision = [score.precision for score in scores if np.isfinite(score.precision)]
    first = f"{np.mean(precision):.2f}" if precision else "–"
    recall, average = (np.mean([getattr(s, name) for s in scores]) for name in ("recall", "average_precision"))
    return f"{first} / {recall:.2f}<br>{average:.2f}"


def page(key: jax.Array) -> str:
    """The whole page."""
    text = HEADER.format(pairs=PAIRS) + table(score_methods(key)) + SEARCHES
    for found in search(key):
        scores = f"{found.precision:.2f} | {found.recall:.2f} | {found.size} | {found.faithfulness:.2f}"
        text += f"| {found.network} | {found.factor} | {scores} |\n"
    return text + WITH_NOISE.format(simulations=SIMULATIONS, pairs=SEARCHED, **search_nulls()._asdict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=cli.output_file, help="write the tables to this file")
    parser.add_argument("--export", type=pathlib.Path, help="write every network to a folder of its own in this one")
    options = parser.parse_args()
    key = jax.random.key(0)
    if options.export is not None:
        for name in planted_edges.PLANTED_EDGES:
            print(planted_edges.export(planted_edges.plant_edges(name), options.export / name, key))
        return
    text = page(key)
    if options.out is None:
        print(text)
    else:
        write_text(options.out, text)


if __name__ == "__main__":
    main()
