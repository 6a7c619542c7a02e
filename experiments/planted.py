"""Known answers and what the library finds, for every planted model: the table docs/planted.md.

python -m experiments.planted                     print the table
python -m experiments.planted --out=docs/planted.md
"""

from __future__ import annotations

import argparse
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import circuits, metrics, planted
from causalvae import interventions as iv
from causalvae.progress import write_text
from experiments import cli

SITES = ("encoder/hidden", "latent/z", "decoder/hidden")
VALUES = np.linspace(-3, 3, 7)
PAIRS = 16
MEDIATION_PAIRS = 400

HEADER = """# Planted models: known answers, and what is found

Weights are set by construction (`causalvae/planted.py`), so that every answer below is a closed form. Hidden
units are shuffled; two of them read a factor and lead nowhere, and some are dead. This file is written by
`python -m experiments.planted --out=docs/planted.md`, and `tests/test_planted.py` holds every row to its
tolerance.

| model | quantity | known | found | tolerance |
| --- | --- | --- | --- | --- |
"""


class Answer(NamedTuple):
    """One row. Vectors are compared by their largest difference."""

    model: str
    quantity: str
    known: np.ndarray
    found: np.ndarray
    tolerance: float

    @property
    def right(self) -> bool:
        return self.known.shape == self.found.shape and bool(np.all(np.abs(self.known - self.found) <= self.tolerance))


def answers(key: jax.Array) -> list[Answer]:
    """Every known answer with the library's."""
    rows = []
    for name in ("disentangled", "rotated", "merged", "split"):
        rows += linear_answers(planted.plant(name), key)
    return rows + mediated_answers(planted.plant("mediated"), key)


def linear_answers(model: planted.Planted, key: jax.Array) -> list[Answer]:
    """All levels and metrics on one linear planted model."""
    truth, pair = model.truth, (model.model, model.params)
    factors = jnp.asarray(planted.all_factors())
    x = model.dataset.render(factors, key)
    z = model.model.represent(model.params, x)
    effects = iv.factor_effects(*pair, model.dataset, key, num=PAIRS, scale=jnp.ones(planted.LATENTS))
    sweep = iv.perturb_latents(*pair, z, iv.Sweep(), key, response=("l2", "sites"))
    alive = truth.latents.any(axis=1)
    specificity = metrics.intervention_specificity(effects.T[alive]).normalized
    modularity = metrics.circuit_modularity(sweep["sites"]["decoder/hidden"])
    known = planted.known_effects(truth)
    rows = [
        ("effects of factors on latents, R", known, effects, 1e-5),
        (
            "causal effect strength of latents",
            planted.known_strength(truth, VALUES),
            np.mean(sweep["l2"], (1, 2)),
            1e-5,
        ),
        ("specificity of live latents to factors", _specificity(known.T[alive]), specificity, 1e-4),
        ("circuit modularity at decoder/hidden", planted.known_modularity(truth), modularity, 1e-5),
        (
            "mutual information gap",
            known_gap(model.name),
            metrics.mig(np.asarray(z), np.asarray(factors)).score,
            1e-5,
        ),
    ]
    rows += _circuit_rows(model, key)
    return [Answer(model.name, q, np.asarray(k), np.asarray(f), t) for q, k, f, t in rows]


def _circuit_rows(model: planted.Planted, key: jax.Array):
    pairs = {
        name: iv.counterfactuals(model.dataset, jax.random.fold_in(key, k), name, PAIRS)
        for k, name in enumerate(planted.FACTORS)
    }
    rows = []
    for site in SITES:
        true, found = (
            model.truth.circuits(site),
            circuits.find_circuits(model.model, model.params, pairs, site),
        )
        size = len(model.truth.fractions[site])
        member = np.array([[unit in true[name] for unit in range(size)] for name in planted.FACTORS])
        given = np.array([[unit in found[name].units for unit in range(size)] for name in planted.FACTORS])
        hits = (member & given).sum()
        rows.append(
            (
                f"circuits at {site}: precision, recall",
                [1.0, 1.0],
                [hits / given.sum(), hits / member.sum()],
                0.0,
            )
        )
        shares = np.stack([found[name].effects for name in planted.FACTORS], axis=1)
        rows.append((f"share of each factor's effect, {site}", model.truth.fractions[site], shares, 1e-4))
    return rows


def _specificity(effects: np.ndarray) -> np.ndarray:
    """1 - H(p) / log K of each row."""
    p = effects / effects.sum(axis=1, keepdims=True)
    return 1 + (p * np.log(np.where(p > 0, p, 1))).sum(axis=1) / math.log(p.shape[1])


def known_gap(name: str) -> float:
    """MIG by hand: each binary factor holds ln 2. Turned by 45 degrees, two latents know two factors equally
    well; a sum of two factors knows half of each; of two equal latents neither is ahead."""
    return {"disentangled": 1.0, "rotated": 1 / 3, "merged": (0.5 + 0.5 + 1) / 3, "split": 2 / 3}[name]


def mediated_answers(model: planted.Planted, key: jax.Array) -> list[Answer]:
    """Effects of the planted mediator; the tolerance is three standard errors of the mean over pairs."""
    pairs = iv.counterfactuals(model.dataset, key, "first", MEDIATION_PAIRS, contrast=(0, 1))
    truth: Any = model.truth  # which has a mediator and its effects
    found = iv.mediate(
        model.model, model.params, pairs, "encoder/hidden", groups=[truth.mediator], outcome=iv.LatentOutcome(0)
    )
    rows = []
    for name, known in truth.effects._asdict().items():
        effect = np.asarray(getattr(found, name)).reshape(-1)
        tolerance = 3 * effect.std() / math.sqrt(len(effect))
        rows.append(Answer("mediated", f"{name} effect", np.array(known), np.array(effect.mean()), tolerance))
    return rows


def table(rows: list[Answer]) -> str:
    """The rows as Markdown, with the header that explains them."""
    lines = [f"| {r.model} | {r.quantity} | {_text(r.known)} | {_text(r.found)} | {r.tolerance:.1g} |" for r in rows]
    return HEADER + "\n".join(lines) + "\n"


def _text(values: np.ndarray) -> str:
    """A number, a short vector, or what a matrix sums to."""
    if values.ndim == 2:
        return f"{'x'.join(map(str, values.shape))} matrix, sum {_number(values.sum())}"
    return " ".join(_number(value) for value in np.atleast_1d(values))


def _number(value: float) -> str:
    return f"{value + 0.0:.3f}".replace("-0.000", "0.000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=cli.output_file, help="write the table to this file")
    options = parser.parse_args()
    rows = answers(jax.random.key(0))
    text = table(rows)
    if options.out is None:
        print(text)
    else:
        write_text(options.out, text)
        print(f"{len(rows)} answers, {sum(r.right for r in rows)} within tolerance: {options.out}")


if __name__ == "__main__":
    main()
