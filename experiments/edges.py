"""Edges of a shipped model: how far estimates agree with exact effects, and one circuit and one graph per factor.

    python -m experiments.edges --out=runs/edges                         the figures of docs/edges.md, half an hour
    python -m experiments.edges --out=runs/edges --only=graphs --pairs=16

Writes a table per part, and for every factor its graph over the whole network and its circuit: JSON, PNG and HTML.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from causalvae import circuits, data, edges, plots, pretrained
from causalvae import interventions as iv
from causalvae._words import nearest
from causalvae.data.base import Dataset
from experiments import cli

ENCODER = ("encoder/conv0", "encoder/conv1", "encoder/conv2", "encoder/conv3", "encoder/dense")
DECODER = ("decoder/dense0", "decoder/dense1", "decoder/conv0", "decoder/conv1", "decoder/conv2")
WHOLE = (*ENCODER, "latent/z", *DECODER)
CHAIN = ("encoder/conv2", "latent/z", "decoder/conv1")
LINKS = (
    ("encoder/conv0", "encoder/conv1"),
    ("encoder/conv1", "encoder/conv2"),
    ("encoder/conv2", "encoder/conv3"),
    ("encoder/conv3", "encoder/dense"),
    ("encoder/dense", "latent/z"),
    ("encoder/conv2", "latent/z"),
    ("latent/z", "decoder/dense0"),
    ("latent/z", "decoder/conv1"),
    ("decoder/conv0", "decoder/conv1"),
    ("decoder/conv1", "decoder/conv2"),
)
METHODS: dict[str, dict[str, Any]] = {
    "attribution": {"method": "attribution"},
    "second order": {"method": "second_order"},
    "EAP-IG, k = 5": {"method": "integrated", "steps": 5},
    "EAP-IG, k = 20": {"method": "integrated", "steps": 20},
    "each sender's own, k = 5": {"method": "integrated", "steps": 5, "along": "sender"},
}


class Model(NamedTuple):
    """What is looked at."""

    model: Any
    params: Any
    dataset: Dataset
    folder: pathlib.Path
    num_pairs: int

    def pairs(self, factor: str, num: int | None = None) -> iv.Pairs:
        key = jax.random.fold_in(jax.random.key(0), self.dataset.factor_index(factor))
        return iv.counterfactuals(self.dataset, key, factor, num or self.num_pairs)


def agreement(this: Model) -> str:
    """Rank correlation, sign agreement and error of every estimate, per pair of sites, on a sample of edges."""
    factors = this.dataset.factor_names
    each = [this.pairs(factor, -(-this.num_pairs // len(factors))) for factor in factors]
    pairs = jnp.concatenate([p.x for p in each]), jnp.concatenate([p.x_source for p in each])
    lines = [
        "| sender | receiver | edges | " + " | ".join(METHODS) + " |",
        "| --- | --- | --- |" + " --- |" * len(METHODS),
    ]
    for sender, receiver in LINKS:
        cells, size = [], 0
        for options in METHODS.values():
            try:
                found = iv.edge_effects(this.model, this.params, pairs, sender, receiver, **options, sample=96)
            except ValueError:  # receivers that are maps have no second order
                cells.append("")
                continue
            size = int(np.prod(found.effects.shape[:2]))
            compared = found.agreement
            assert compared is not None
            cells.append(f"{compared.rank_correlation:.2f}, {compared.sign_agreement:.2f}, {compared.error:.2f}")
        lines.append(f"| {sender} | {receiver} | {size} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def circuits_of_factors(this: Model) -> str:
    """A circuit of edges per factor, against the best set of units and sets of the same form."""
    columns = "ranked by | τ | edges | kept | completeness | same form | in random order | unit circuit | kept"
    lines = [f"| factor | {columns} |", "| --- |" + " --- |" * 9]
    for factor in this.dataset.factor_names:
        for method, threshold in (("integrated", 0.9), ("integrated", 0.95), ("attribution", 0.9)):
            asked = {"factor": factor, "method": method, "threshold": threshold, "sample": 32}
            found = edges.find_edges(this.model, this.params, this.pairs(factor), CHAIN, **asked)
            units = " + ".join(str(len(units)) for units in found.units.units.values())
            lines.append(
                f"| {factor} | {method} | {threshold} | {found.size} | {found.faithfulness:.2f} | "
                f"{found.completeness:.2f} | {found.random.mean():.2f}, at most {found.random.max():.2f} | "
                f"{found.random_size} | {found.units.size} edges among {units} units | {found.units.faithfulness:.2f} |"
            )
            print(lines[-1], flush=True)
            if (method, threshold) == ("integrated", 0.9):
                _write(this, edges.edge_graph(found), f"circuit_{factor}", edges.edge_graph(found, 40))
    return "\n".join(lines)


def graphs(this: Model) -> str:
    """The strongest edges of the whole network, per factor."""
    lines = []
    for factor in this.dataset.factor_names:
        start = time.perf_counter()
        asked = {"factor": factor, "method": "integrated", "sample": 16}
        found = edges.trace_edges(this.model, this.params, this.pairs(factor), WHOLE, **asked)
        lines.append(
            f"{factor}: {sum(e.size for e in found.edges.values()):,} edges in {time.perf_counter() - start:.0f} s"
        )
        print(lines[-1], flush=True)
        _write(this, edges.edge_graph(found, 16), f"network_{factor}")
    return "\n".join(lines)


def outcomes(this: Model) -> str:
    """Which edges serve one factor and which several, and their modularity beside its nulls."""
    pairs = {factor: this.pairs(factor) for factor in this.dataset.factor_names}
    untrained = this.model.init(jax.random.key(0))
    lines = [
        "| sender | receiver | serve one | serve several | edges: M, permuted, untrained | units |",
        "| --- |" + " --- |" * 5,
    ]
    for sender, receiver in (CHAIN[:2], CHAIN[1:]):
        asked = {"untrained": untrained, "outcome": iv.unscaled_projection, "method": "attribution", "sample": 16}
        found = edges.edge_outcomes(this.model, this.params, pairs, sender, receiver, **asked)
        one = sum(map(len, found.dedicated.values()))
        cells = [
            f"{level.value:.3f}, {level.permuted.mean():.3f}, {level.untrained:.3f}"
            for level in (found.edges, found.units)
        ]
        lines.append(f"| {sender} | {receiver} | {one} | {len(found.shared)} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def _write(this: Model, graph: dict[str, Any], name: str, drawn: dict[str, Any] | None = None) -> None:
    circuits.save_graph(graph, this.folder / f"{name}.json")
    shown = drawn or graph
    between = sum("factor:" not in e["source"] and e["target"] != "output" for e in shown["edges"])
    about = f"{this.model.name} on {this.dataset.name}"
    subtitle = f"{about}; the {between} strongest edges; widths: |fraction of the total effect|"
    figure = edges.draw_edges(shown, f"{name.replace('_', ': ', 1)}", subtitle)
    plots.save(figure, this.folder / f"{name}.png")
    edges.edge_page(figure, this.folder / f"{name}.html", name)


PARTS: dict[str, Callable[[Model], str]] = {
    "agreement": agreement,
    "circuits": circuits_of_factors,
    "graphs": graphs,
    "outcomes": outcomes,
}


def main(argv: list[str]) -> None:
    values: Any = flags.FLAGS
    for part in values.only:
        if part not in PARTS:
            cli.fail(f"no part {part!r}; there are: {', '.join(PARTS)}.{nearest(part, PARTS)}")
    model, params = pretrained.load_pretrained(values.model)
    folder = pathlib.Path(values.out)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = data.load(pretrained.card(values.model)["data"]["name"], source="procedural")
    this = Model(model, params, dataset, folder, values.pairs)
    for part in values.only:
        text = PARTS[part](this)
        (folder / f"{part}.md").write_text(f"{PARTS[part].__doc__} {values.pairs} pairs.\n\n{text}\n", encoding="utf-8")


def define_flags() -> None:
    flags.DEFINE_string("model", "betatc_3dshapes", "A model that ships with the library, of the standard network.")
    flags.DEFINE_string("out", None, "Folder to write to.", required=True)
    flags.DEFINE_list("only", list(PARTS), f"Parts, separated by commas: {', '.join(PARTS)}.")
    flags.DEFINE_integer("pairs", 64, "Pairs of images per factor (of all factors together in part agreement).", 4)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
