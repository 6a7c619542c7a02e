"""Many patched runs in one compiled program.

A sweep is a list of (group of units, pair) items. Pairs are taken in blocks and items in chunks, so memory is
bounded by `chunk` whatever the number of pairs and units. An item whose replacement equals what it replaces changes
nothing, and is not run at all: units that ReLU silences in both runs of a pair are many.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from causalvae.interventions._groups import Groups
from causalvae.interventions._runs import Patched, Run, run_rows
from causalvae.sites import Edit, patch

PyTree = Any


def sweep(
    forward: Callable,
    chunk: int,
    params: PyTree,
    patched: Patched,
    groups: Groups,
    measure: Callable[[Run, PyTree], PyTree],
    references: PyTree,
) -> PyTree:
    """Returns measure(run, references) -> pytree of [G, P, ...] with every group of units replaced, in every pair.

    Args:
      measure: a run and references of C rows -> pytree of [C, ...].
      references: pytree of [P, ...].
    """
    pairs, num_groups = patched.x.shape[0], groups.size
    total = num_groups * pairs
    items, count = _changed_items(patched, groups)
    chunk = min(chunk, total)
    items = jnp.concatenate([items, jnp.full((-total % chunk,), total, items.dtype)])

    group_of, pair_of = jnp.minimum(items // pairs, num_groups - 1), items % pairs

    def step(i, results):
        item, group, pair = (jax.lax.dynamic_slice(a, (i * chunk,), (chunk,)) for a in (items, group_of, pair_of))
        rows = _rows(patched, pair)
        edits: dict[str, tuple[Edit, ...]] = {site: (patch(value),) for site, value in rows.fixed.items()}
        for site, value in rows.replacement.items():
            edits[site] = (*edits.get(site, ()), patch(value, groups.select(site, group, rows.base(site))))
        measured = measure(run_rows(forward, params, rows.x, rows.keys, edits), _rows(references, pair))
        return jax.tree.map(lambda r, m: r.at[item].set(m, mode="drop"), results, measured)

    results = measure(patched.run, references)
    results = jax.tree.map(lambda u: jnp.tile(u, (num_groups,) + (1,) * (u.ndim - 1)), results)
    results = jax.lax.fori_loop(0, (count + chunk - 1) // chunk, step, results)
    return jax.tree.map(lambda r: r.reshape(num_groups, pairs, *r.shape[1:]), results)


def _changed_items(patched: Patched, groups: Groups) -> tuple[jax.Array, jax.Array]:
    """The (group, pair) items, numbered g P + p, whose replacement changes anything, first; and how many."""
    changed = sum(
        groups.total(site, patched.base(site), (patched.base(site) != value).astype(jnp.float32))
        for site, value in patched.replacement.items()
    )
    changed = jnp.reshape(changed, -1) > 0
    count = jnp.sum(changed)
    order = jnp.argsort(~changed, stable=True)  # a third of what jnp.nonzero costs to compile, for every site
    return jnp.where(jnp.arange(changed.size) < count, order, changed.size), count


def _rows(tree: Any, rows: jax.Array) -> Any:
    """Those rows, which exist: XLA would compute for each of them that it does."""
    return jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), tree)


def in_blocks(
    function: Callable[[Any, jax.Array], PyTree], rows: PyTree, block: int, finish: Callable[[PyTree, int], PyTree]
) -> Any:
    """Returns finish(results [blocks, ...], N) of function(rows [P, ...], valid [P]) over blocks of P = `block` rows.

    The last block is filled up with the first rows, whose `valid` is False. Outside jit the blocks are a Python loop
    over programs that `function` calls; inside jit, one of XLA's. `finish` is a module-level function.
    """
    num = jax.tree.leaves(rows)[0].shape[0]
    block = min(block, num)
    index = np.arange(-(-num // block) * block).reshape(-1, block)
    valid, index = index < num, index % num
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(rows)) and len(index) > 1:
        blocks = jnp.asarray(index), jnp.asarray(valid)
        return finish(jax.lax.map(lambda b: function(_rows(rows, b[0]), b[1]), blocks), num)
    if len(index) == 1:
        return _finish(finish, num, [function(rows, jnp.asarray(valid[0]))])
    results = [function(_rows(rows, i), jnp.asarray(v)) for i, v in zip(index, valid, strict=True)]
    return _finish(finish, num, results)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _finish(finish, num, blocks):
    return finish(jax.tree.map(lambda *results: jnp.stack(results), *blocks), num)


def keep(results: PyTree, num: int) -> PyTree:
    """A `finish` that leaves the blocks as they are."""
    return results


def merge_pairs(results: PyTree, num: int) -> Any:
    """[blocks, G, P, ...] -> [G, num, ...]: the blocks' pairs end to end, without the filling."""

    def merge(blocks):
        blocks = jnp.moveaxis(blocks, 0, 1)
        return blocks.reshape(blocks.shape[0], blocks.shape[1] * blocks.shape[2], *blocks.shape[3:])[:, :num]

    return jax.tree.map(merge, results)
