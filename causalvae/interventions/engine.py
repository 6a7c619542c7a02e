"""The machinery that patching, mediation and perturbation share: many interventions in one compiled program.

A sweep is a list of (group of units, pair) items. Pairs are taken in blocks and items in chunks, so memory is
bounded by `chunk` whatever the number of pairs and units. Three facts make a sweep cheap:
- activations before the patched site are those of the base run, so every run restarts from the patched site;
- an item whose replacement equals what it replaces changes nothing, and is not run at all (units that ReLU
  silences in both runs of a pair are many);
- noise belongs to a pair, not to a batch: pair n has the n-th key split from `key`, in every run and any
  chunk.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from causalvae.sites import Activations, check_site, patch, site_shapes, tapped

PyTree = Any

GRANULARITIES = ("unit", "channel", "position", "element", "site")


class Run(NamedTuple):
    """One forward pass of a batch: what an outcome sees."""

    outputs: Any  # what the model's forward returned
    activations: Activations  # of the sites that were captured


# --- which units are replaced together -------------------------------------------------------------------


@struct.dataclass
class Groups:
    """G groups of units, each replaced together. A pytree; `granularity` says how `selectors` are read."""

    selectors: dict[str, jax.Array]  # site -> [G] int32 numbers, or [G, units] or [G, ...shape] bool masks
    granularity: str = struct.field(pytree_node=False, default="mask")

    @property
    def size(self) -> int:
        return next(iter(self.selectors.values())).shape[0]

    def select(self, site: str, groups: jax.Array, base: jax.Array) -> jax.Array:
        """Where [C, ...] the groups [C] lie in the base run's activations [C, ...]; broadcastable to them."""
        chosen, ndim = self.selectors[site][groups], base.ndim
        if self.granularity == "mask":
            return chosen.reshape(chosen.shape[0], *(1,) * (ndim - chosen.ndim), *chosen.shape[1:])
        chosen = chosen.reshape(-1, *(1,) * (ndim - 1))
        return chosen == _numbers(base.shape[1:], self.granularity)[None]

    def total(self, site: str, base: jax.Array, values: jax.Array) -> jax.Array:
        """[G, P]: the sum of values [P, ...] over each group, in runs with activations `base` [P, ...]."""
        del base  # other kinds of group depend on it
        selector, shape, pairs = self.selectors[site], values.shape[1:], values.shape[0]
        if self.granularity == "mask":
            if selector.ndim - 1 < len(shape):  # masks of units: over all positions
                values = values.sum(axis=tuple(range(1, len(shape))))
            flat = values.reshape(pairs, -1)
            chosen = selector.reshape(selector.shape[0], -1).astype(flat.dtype)
            return jnp.matmul(chosen, flat.T, precision=jax.lax.Precision.HIGHEST)
        axes = {"unit": range(1, len(shape)), "position": (len(shape),), "element": ()}
        reduced = values.sum(axis=tuple(axes.get(self.granularity, range(1, len(shape) + 1))))
        return reduced.reshape(pairs, -1).T[selector]


def _numbers(shape: tuple[int, ...], granularity: str) -> jax.Array:
    """The group's number of every value of an activation [...shape], broadcastable to it."""
    if granularity == "unit":
        return jnp.arange(shape[-1]).reshape(*(1,) * (len(shape) - 1), -1)
    if granularity == "position":
        return jnp.arange(math.prod(shape[:-1])).reshape(*shape[:-1], 1)
    if granularity == "element":
        return jnp.arange(math.prod(shape)).reshape(shape)
    return jnp.zeros((1,) * len(shape), jnp.int32)


def _group_count(shape: tuple[int, ...], granularity: str) -> int:
    counts = {"unit": shape[-1], "position": math.prod(shape[:-1]), "element": math.prod(shape)}
    return counts.get(granularity, 1)


def union(groups: Groups, activations: Mapping[str, jax.Array]) -> Groups:
    """One group of all units that any of the groups holds."""
    masks = {}
    for site in groups.selectors:
        everything = jnp.zeros((groups.size, *activations[site].shape[1:]), activations[site].dtype)
        chosen = groups.select(site, jnp.arange(groups.size), everything)
        masks[site] = jnp.broadcast_to(chosen, everything.shape).any(axis=0, keepdims=True)
    return Groups(masks)


def make_groups(
    shapes: Mapping[str, Any],
    sites: str | Sequence[str],
    granularity: str | Mapping[str, Any],
    units: Sequence[int] | None = None,
) -> Groups:
    """The groups that a granularity names at a site, or the ones given as masks.

    sites: one site, or several that are replaced together (granularity "site" only).
    granularity: "unit" (an index of the last axis, at all positions; "channel" is the same word for sites
        that have positions), "position" (all channels of one), "element" (one number), "site" (all of it), or
        masks: site -> bool [G, units] or [G, ...], which may name several sites.
    units: the groups to take, by number; None takes all.
    Raises ValueError naming what exists.
    """
    if isinstance(granularity, Mapping):
        return _groups_of_masks(shapes, granularity)
    sites = (sites,) if isinstance(sites, str) else tuple(sites)
    for site in sites:
        check_site(site, shapes)
    if granularity not in GRANULARITIES:
        raise ValueError(f"no granularity {granularity!r}; there are: {', '.join(GRANULARITIES)}, or masks")
    if len(sites) != 1 and granularity != "site":
        raise ValueError(f"{len(sites)} sites together need granularity='site' or masks, not {granularity!r}")
    granularity = _resolve(granularity, sites[0], shapes[sites[0]])
    shape = shapes[sites[0]].shape[1:]
    count = _group_count(shape, granularity)
    chosen = np.arange(count, dtype=np.int32) if units is None else np.atleast_1d(np.asarray(units, np.int32))
    if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(f"no {granularity} {chosen.tolist()} at {sites[0]!r}: they are 0 to {count - 1}")
    return Groups({site: jnp.asarray(chosen) for site in sites}, granularity)


def _resolve(granularity: str, site: str, activation: Any) -> str:
    """The granularity in the words of `Groups`. In a map of integer codes each code is a unit."""
    positions = len(activation.shape) - 2
    if granularity in ("channel", "position") and positions < 1:
        units = activation.shape[-1]
        raise ValueError(f"site {site!r} has no positions; use granularity='unit' for its {units} units")
    if jnp.issubdtype(activation.dtype, jnp.integer) and positions and granularity != "site":
        return "element"
    return "unit" if granularity == "channel" else granularity


def _groups_of_masks(shapes: Mapping[str, Any], masks: Mapping[str, Any]) -> Groups:
    sizes = set()
    for site, mask in masks.items():
        check_site(site, shapes)
        shape = shapes[site].shape[1:]
        if jnp.shape(mask)[1:] not in (shape, shape[-1:]):
            raise ValueError(
                f"masks for site {site!r} must be [groups, {shape[-1]}] or "
                f"[groups, {', '.join(map(str, shape))}], not {list(jnp.shape(mask))}"
            )
        sizes.add(jnp.shape(mask)[0])
    if len(sizes) != 1:
        raise ValueError(f"masks must name at least one site and have as many groups at each, not {sorted(sizes)}")
    return Groups({site: jnp.asarray(mask, bool) for site, mask in masks.items()}, "mask")


# --- runs ------------------------------------------------------------------------------------------------


def run_rows(
    forward: Callable,
    capture: tuple[str, ...],
    params: PyTree,
    x: jax.Array,
    keys: jax.Array | None,
    edits: Mapping[str, tuple],
) -> Run:
    """A run whose row n has its own noise, from keys[n]; without keys, the posterior mean.

    Every array in `edits` has a row axis as long as x's.
    """
    if keys is None:
        return Run(*tapped(forward, capture, params, x, None, edits))

    def one(row):
        x, key, edits = row
        edits = jax.tree.map(lambda a: a[None], edits)
        return jax.tree.map(lambda a: a[0], tapped(forward, capture, params, x[None], key, edits))

    return Run(*jax.vmap(one)((x, keys, edits)))


@functools.partial(jax.jit, static_argnums=0)
def end_run(forward: Callable, params: PyTree, x: jax.Array, keys: jax.Array | None) -> tuple[Run, Activations]:
    """The unpatched run with every site captured, and site -> whether all of it is finite.

    One program, which sweeps at all sites share.
    """
    run = run_rows(forward, ("*",), params, x, keys, {})
    finite = Activations((site, jnp.all(jnp.isfinite(value))) for site, value in run.activations.items())
    return run, finite


def end_runs(forward, params, x, x_source, keys) -> tuple[Run, Run, Activations]:
    """The runs of both ends of pairs, with the same noise for the two of a pair, and which sites are
    finite.
    """
    base, finite = end_run(forward, params, x, keys)
    source, source_finite = end_run(forward, params, x_source, keys)
    return base, source, Activations((site, flag & source_finite[site]) for site, flag in finite.items())


def captured(run: Run, sites: Collection[str]) -> Run:
    """The run with the activations of `sites` only."""
    return Run(run.outputs, Activations((s, a) for s, a in run.activations.items() if s in sites))


def before(run: Run, patched: Collection[str]) -> dict[str, jax.Array]:
    """The activations that no patch can change: all up to and with the first patched site."""
    first = min(list(run.activations).index(site) for site in patched)
    return dict(list(run.activations.items())[: first + 1])


# --- the sweep -------------------------------------------------------------------------------------------


class Patched(NamedTuple):
    """The runs that a sweep patches, and what with. P rows, one for each pair."""

    x: jax.Array  # [P, ...]
    keys: jax.Array | None  # [P]
    fixed: dict[str, jax.Array]  # site -> [P, ...]: see `before`
    base: dict[str, jax.Array]  # patched site -> its activation in the unpatched run [P, ...]
    replacement: dict[str, jax.Array]  # patched site -> [P, ...]


def patched_runs(x: jax.Array, keys: jax.Array | None, run: Run, replacement: Mapping[str, jax.Array]) -> Patched:
    """`run`, of x, with the activations of some sites to be replaced."""
    base = {site: run.activations[site] for site in replacement}
    return Patched(x, keys, before(run, replacement), base, dict(replacement))


def sweep(
    forward: Callable,
    capture: tuple[str, ...],
    chunk: int,
    params: PyTree,
    patched: Patched,
    groups: Groups,
    measure: Callable[[Run, PyTree], PyTree],
    unpatched: Run,
    references: PyTree,
) -> PyTree:
    """Every group of units replaced, in every pair: measure(run, references) -> pytree of [G, P, ...].

    measure: a run, with the activations that `capture` names, and references, of C rows -> pytree of [C,
        ...].
    unpatched: the run without a patch, as `measure` would see it. references: pytree of [P, ...].
    """
    pairs, num_groups = patched.x.shape[0], groups.size
    total = num_groups * pairs
    items, count = _changed_items(patched, groups)
    chunk = min(chunk, total)
    items = jnp.concatenate([items, jnp.full((-total % chunk,), total, items.dtype)])

    def step(i, results):
        item = jax.lax.dynamic_slice(items, (i * chunk,), (chunk,))
        group, pair = jnp.minimum(item // pairs, num_groups - 1), item % pairs
        x, keys, fixed, base, replacement = _rows(patched, pair)
        edits = {site: (patch(value),) for site, value in fixed.items()}
        for site, value in replacement.items():
            edits[site] = (*edits.get(site, ()), patch(value, groups.select(site, group, base[site])))
        measured = measure(run_rows(forward, capture, params, x, keys, edits), _rows(references, pair))
        return jax.tree.map(lambda r, m: r.at[item].set(m, mode="drop"), results, measured)

    results = measure(unpatched, references)
    results = jax.tree.map(lambda u: jnp.tile(u, (num_groups,) + (1,) * (u.ndim - 1)), results)
    results = jax.lax.fori_loop(0, (count + chunk - 1) // chunk, step, results)
    return jax.tree.map(lambda r: r.reshape(num_groups, pairs, *r.shape[1:]), results)


def _changed_items(patched: Patched, groups: Groups) -> tuple[jax.Array, jax.Array]:
    """The (group, pair) items, numbered g P + p, whose replacement changes anything, first; and how many."""
    changed = sum(
        groups.total(site, base, (base != patched.replacement[site]).astype(jnp.float32))
        for site, base in patched.base.items()
    )
    changed = changed.reshape(-1) > 0
    return jnp.nonzero(changed, size=changed.size, fill_value=changed.size)[0], jnp.sum(changed)


def _rows(tree: PyTree, rows: jax.Array) -> PyTree:
    return jax.tree.map(lambda a: a[rows], tree)


def in_blocks(
    function: Callable[[PyTree, jax.Array], PyTree],
    rows: PyTree,
    block: int,
    finish: Callable[[PyTree, int], PyTree],
) -> PyTree:
    """finish(results [blocks, ...], N) of function(rows [P, ...], valid [P]) over blocks of P = `block` rows.

    The last block is filled up with the first rows, whose `valid` is False. Outside jit the blocks are a
    Python loop, so that the programs which `function` calls are shared with other callers; inside jit, one
    of XLA's. `finish` is a module-level function.
    """
    num = jax.tree.leaves(rows)[0].shape[0]
    block = min(block, num)
    index = np.arange(-(-num // block) * block).reshape(-1, block)
    valid, index = index < num, index % num
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(rows)) and len(index) > 1:
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


def merge_pairs(results: PyTree, num: int) -> PyTree:
    """[blocks, G, P, ...] -> [G, num, ...]: the blocks' pairs end to end, without the filling."""

    def merge(blocks):
        blocks = jnp.moveaxis(blocks, 0, 1)
        return blocks.reshape(blocks.shape[0], -1, *blocks.shape[3:])[:, :num]

    return jax.tree.map(merge, results)


# --- small things that all share -------------------------------------------------------------------------


def default_chunk() -> int:
    """Runs at once when no chunk is given: few enough to stay in cache on a CPU, many on an accelerator."""
    return 64 if jax.default_backend() == "cpu" else 4096


def check_chunk(chunk: int | None) -> int:
    """The chunk, or the default; ValueError unless it is a positive integer."""
    chunk = default_chunk() if chunk is None else chunk
    if int(chunk) != chunk or chunk < 1:
        raise ValueError(f"chunk must be a positive integer (how many runs at once), not {chunk!r}")
    return int(chunk)


def check_pair(x: jax.Array, x_source: jax.Array) -> None:
    """ValueError unless x and x_source can be pairs: the same shape, at least one row, all finite."""
    if jnp.shape(x) != jnp.shape(x_source):
        raise ValueError(
            f"x {list(jnp.shape(x))} and x_source {list(jnp.shape(x_source))} are not pairs: their shapes "
            "differ. Both must come from the same data set, row n of one belonging to row n of the other"
        )
    if len(jnp.shape(x)) < 2 or jnp.shape(x)[0] < 1:
        raise ValueError(f"x must be a batch [N, ...] of at least one row, not {list(jnp.shape(x))}")


def unpack(pairs: Any) -> tuple[jax.Array, jax.Array]:
    """(x, x_source) of Pairs or of a tuple; ValueError unless they can be pairs."""
    x, x_source = (pairs.x, pairs.x_source) if hasattr(pairs, "x_source") else pairs
    x, x_source = jnp.asarray(x), jnp.asarray(x_source)
    check_pair(x, x_source)
    return x, x_source


def row_keys(key: jax.Array | None, num: int) -> jax.Array | None:
    """One key per pair, or None."""
    return None if key is None else jax.random.split(key, num)


def model_sites(model: Any, params: PyTree, x: jax.Array) -> Activations:
    """site -> shape of one pair's activation, in forward order; ValueError if the model has no sites."""
    shapes = site_shapes(model, params, x)
    if not shapes:
        raise ValueError("this model passes no activation through its tap: it has no site to intervene on")
    return shapes


def check_finite(finite: Mapping[str, Any]) -> None:
    """ValueError naming the first site with NaN or infinite activations (nothing is said of traced
    values).
    """
    for site, flags in finite.items():
        if not isinstance(flags, jax.core.Tracer) and not np.all(np.asarray(flags)):
            raise ValueError(
                f"activations are NaN or infinite at site {site!r} (the first one in the forward pass): "
                "look at the parameters and the images before intervening"
            )


def image_of(outputs: Any) -> jax.Array:
    """The image [B, ...] that changes are measured on: `outputs.image`, or the outputs where they are an
    array.
    """
    image = getattr(outputs, "image", outputs)
    if not hasattr(image, "shape"):
        raise ValueError(
            f"the model's forward returned {type(outputs).__name__}, which is no array and has no `.image`: "
            "wrap it with causalvae.adapters, or return a NamedTuple with `image` (and `z`)"
        )
    return image


ALIKE = 1e-5  # share of two images' norms below which their distance is no change


def image_change(a: jax.Array, b: jax.Array) -> jax.Array:
    """Euclidean distance [N] of images [N, ...]; 0 where the two are alike: |a - b| <= 1e-5 (|a| + |b|).

    Effects are divided by this change. A pair in which it is next to nothing would outweigh all others in a mean
    of ratios, so it is left out, and counted.
    """
    axes = tuple(range(1, a.ndim))
    distance, *norms = (jnp.sqrt(jnp.sum(jnp.square(image), axis=axes)) for image in (a - b, a, b))
    return jnp.where(distance > ALIKE * sum(norms), distance, 0.0)


def latent_of(outputs: Any) -> jax.Array:
    """The latents [B, d]: `outputs.z`, averaged over positions if it has any; [B, 0] where there are none."""
    z = getattr(outputs, "z", None)
    return jnp.zeros((image_of(outputs).shape[0], 0)) if z is None else z


def as_pytree(function: Callable) -> Callable:
    """A callable as a pytree: arrays bound by `partial` become arguments of the compiled program."""
    if isinstance(function, jax.tree_util.Partial) or not jax.tree_util.all_leaves([function]):
        return function
    if isinstance(function, functools.partial):
        return jax.tree_util.Partial(function.func, *function.args, **function.keywords)
    return jax.tree_util.Partial(function)
