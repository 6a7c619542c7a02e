"""Runs of a model whose rows have noise and edits of their own: the base run, the source run, the patched runs.

Activations before the first patched site are those of the base run, so a patched run restarts there. Noise belongs
to a pair, not to a batch: a pair has a key, the same in all its runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae._programs import jit
from causalvae.model import image_of
from causalvae.sites import Activations, Edit, add, patch, tapped

PyTree = Any
ALIKE = 1e-5  # share of two images' norms below which their distance is no change


class Run(NamedTuple):
    """One forward pass of a batch: what an outcome sees."""

    outputs: Any  # what the model's forward returned
    activations: Activations  # of every site


Outcome = Callable[[Run, Run, Run], jax.Array]
"""(run, base run, source run) of rows [C] -> one number per row [C]."""


def run_rows(
    forward: Callable, params: PyTree, x: jax.Array, keys: jax.Array | None, edits: Mapping[str, tuple]
) -> Run:
    """Returns a run whose row n has its own noise, from keys[n]; without keys, the posterior mean.

    Every array in `edits` has a row axis as long as x's. Inside jit, activations that nobody reads cost nothing.
    """
    if keys is None:
        return Run(*tapped(forward, ("*",), params, x, None, edits))

    def one(row):
        x, key, edits = row
        edits = jax.tree.map(lambda a: a[None], edits)
        return jax.tree.map(lambda a: a[0], tapped(forward, ("*",), params, x[None], key, edits))

    return Run(*jax.vmap(one)((x, keys, edits)))


@jit(static=1)
def base_run(forward: Callable, params: PyTree, x: jax.Array, keys: jax.Array | None) -> tuple[Run, Activations]:
    """Returns the run without a patch, and site -> whether all of its activation is finite."""
    run = run_rows(forward, params, x, keys, {})
    finite = Activations((site, jnp.all(jnp.isfinite(value))) for site, value in run.activations.items())
    return run, finite


def both_runs(forward: Callable, params: PyTree, rows: tuple) -> tuple[Run, Run, Activations]:
    """Returns base run, source run and the sites that are finite in both, of rows (x, x_source, keys)."""
    x, x_source, keys = rows
    base, finite = base_run(forward, params, x, keys)
    source, source_finite = base_run(forward, params, x_source, keys)
    return base, source, Activations((site, flag & source_finite[site]) for site, flag in finite.items())


def until(run: Run, sites: Collection[str]) -> dict[str, jax.Array]:
    """Returns the activations that no patch of `sites` can change: all up to and with the first of them."""
    first = min(list(run.activations).index(site) for site in sites)
    return dict(list(run.activations.items())[: first + 1])


class Patched(NamedTuple):
    """The runs that a sweep patches, and what with. P rows, one for each pair."""

    x: jax.Array  # [P, ...]
    keys: jax.Array | None  # [P]
    run: Run  # without a patch
    fixed: dict[str, jax.Array]  # site -> [P, ...]: see `until`
    replacement: dict[str, jax.Array]  # patched site -> [P, ...]

    def base(self, site: str) -> jax.Array:
        """The activation [P, ...] that is replaced."""
        return self.run.activations[site]


def patched_runs(x: jax.Array, keys: jax.Array | None, run: Run, replacement: Mapping[str, jax.Array]) -> Patched:
    """Returns `run`, of x, with the activations of some sites to be replaced."""
    return Patched(x, keys, run, until(run, replacement), dict(replacement))


def exchanged(rows: tuple, run: Run, other: Run, sites: Collection[str]) -> Patched:
    """Returns `run`, of rows (x, x_source, keys), with the activations of `sites` to be taken from another run."""
    x, _, keys = rows
    return patched_runs(x, keys, run, {site: other.activations[site] for site in sites})


def gradients(
    forward: Callable, params: PyTree, patched: Patched, outcome: Callable, ends: tuple[Run, Run]
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Returns site -> gradient [P, ...] of each row's outcome by its own activation, and the outcomes [P].

    One backward pass of the run without a patch serves all sites that `patched` names: rows do not mix.
    """

    def total(offsets):
        edits: dict[str, tuple[Edit, ...]] = {site: (patch(value),) for site, value in patched.fixed.items()}
        for site, offset in offsets.items():
            edits[site] = (*edits.get(site, ()), Edit(offset, operation=add))
        outcomes = outcome(run_rows(forward, params, patched.x, patched.keys, edits), *ends)
        return jnp.sum(outcomes), outcomes

    base = {site: patched.base(site) for site in patched.replacement}
    return jax.grad(total, has_aux=True)(jax.tree.map(jnp.zeros_like, base))


def image_change(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the Euclidean distance [N] of images [N, ...]; 0 where they are alike: |a - b| <= 1e-5 (|a| + |b|).

    Effects are divided by this change. A pair in which it is next to nothing would outweigh all others in a mean
    of ratios, so it is left out, and counted.
    """
    axes = tuple(range(1, a.ndim))
    distance, *norms = (jnp.sqrt(jnp.sum(jnp.square(image), axis=axes)) for image in (a - b, a, b))
    return jnp.where(distance > ALIKE * sum(norms), distance, 0.0)


def change_of_runs(base: Run, source: Run) -> jax.Array:
    """Returns `image_change` [N] of what two runs decode."""
    return image_change(image_of(base.outputs), image_of(source.outputs))
