"""Activation patching: one run with some units replaced, for every unit of a site in one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae.interventions import engine
from causalvae.interventions.engine import Groups, Run
from causalvae.sites import Activations

PyTree = Any
MODES = ("interchange", "zero", "mean", "resample")
DIRECTIONS = ("denoising", "noising")


class PatchEffects(NamedTuple):
    """What replacing each group of units does. Means over pairs, or with an axis of N pairs after the
    groups.
    """

    output_change: jax.Array  # [G] the Euclidean norm of the image's change
    latent_change: jax.Array  # [G, d] absolute change of each latent (of its mean over positions' changes)
    recovery: jax.Array  # [G] 1 - |D(patched) - D(x_source)| / |D(x) - D(x_source)|, each summed over pairs
    left_out: jax.Array  # [G] in how many pairs x and x_source are decoded alike: recovery is of the others


class Measured(NamedTuple):
    """What patch effects are made of: of rows [C], of pairs [G, N], or sums over pairs [G]."""

    output_change: jax.Array
    latent_change: jax.Array  # [..., d]
    remaining: jax.Array  # |D(patched) - D(x_source)|, 0 where the pair is left out
    whole: jax.Array  # |D(x) - D(x_source)|, 0 where the pair is left out
    left_out: jax.Array


def patch_effects(
    model: Any,
    params: PyTree,
    x: jax.Array,
    x_source: jax.Array | None,
    site: str | Sequence[str],
    granularity: str | Mapping[str, Any] = "unit",
    key: jax.Array | None = None,
    mode: str | Callable[[jax.Array, jax.Array], jax.Array] = "interchange",
    direction: str = "denoising",
    chunk: int | None = None,
    units: Sequence[int] | None = None,
    per_pair: bool = False,
) -> PatchEffects:
    """The effect of replacing each unit (or group) of a site, one at a time, in every pair.

    Source: the paper for the idea; distances, recovery and modes are this library's. Recovery over pairs is a ratio
    of sums, not a mean of ratios, which a pair with little to recover would rule; pairs that decode alike (see
    `engine.image_change`) are left out of it and counted, and NaN where nothing is left.
    x, x_source: images [N, ...], row n of one paired with row n of the other. `x_source` None: x itself; then
        recovery is undefined (NaN), and "interchange" does nothing.
    site, granularity, units: see `engine.make_groups`. "unit" is an entry of the last axis; "position" and
        "element" are numbered row by row. Masks, site -> bool [G, units], patch any sets, over several sites.
    key: noise of the posterior, the same in all runs of a pair (None: the posterior mean), and the draws of
        "resample".
    mode: what a unit is replaced by. "interchange": its value in the source run; "zero"; "mean": its mean
        over x's rows; "resample": its value in another row of x_source, towards which recovery is then
        measured; or a named function (activation of x, activation of x_source) -> replacement, of rows [C,
        ...].
    direction: "denoising" patches the run of x with values of x_source; "noising" the run of x_source with
        values of x: what is said of x and x_source then holds with the two exchanged.
    chunk: runs at once; bounds memory, not results.
    per_pair: keep the pairs: [G, N], [G, N, d], [G, N], [G, N] bool; recovery is NaN where a pair is left out.

    Raises ValueError for sites, units, granularities or modes that do not exist, for x and x_source that are
    not pairs, and for activations that are not finite.
    """
    x = jnp.asarray(x)
    x_source = x if x_source is None else jnp.asarray(x_source)
    engine.check_pair(x, x_source)
    _check_choice("mode", mode, MODES)
    _check_choice("direction", direction, DIRECTIONS)
    groups = engine.make_groups(engine.model_sites(model, params, x), site, granularity, units)
    if direction == "noising":
        x, x_source = x_source, x
    if mode == "resample":
        x_source = x_source[_another_row(key, x.shape[0])]
    forward, keys = getattr(model, "forward", model), engine.row_keys(key, x.shape[0])
    chunk = engine.check_chunk(chunk)
    mode = "interchange" if mode == "resample" else mode
    mean = _mean_activations(forward, tuple(groups.selectors), params, x, keys, chunk) if mode == "mean" else None

    def block(rows, valid):
        x, x_source, keys = rows
        base, source, finite = engine.end_runs(forward, params, x, x_source, keys)
        patched = engine.patched_runs(x, keys, base, {s: source.activations[s] for s in groups.selectors})
        outputs = base.outputs, source.outputs
        measured = _patch(forward, mode, chunk, params, patched, groups, mean, outputs)
        return measured if per_pair else _total(measured, valid), finite

    finish = _pairs if per_pair else _over_pairs
    effects, finite = engine.in_blocks(block, (x, x_source, keys), chunk, finish)
    engine.check_finite(finite)
    return effects


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _patch(forward, mode, chunk, params, patched, groups: Groups, mean, outputs) -> Measured:
    """What is measured of one block of pairs: [G, P, ...]."""
    replacement = {
        site: _replacement(mode, site, patched.base[site], value, mean) for site, value in patched.replacement.items()
    }
    references = tuple((engine.image_of(o), engine.latent_of(o)) for o in outputs)
    patched = patched._replace(replacement=replacement)
    unpatched = Run(outputs[0], Activations())
    return engine.sweep(forward, (), chunk, params, patched, groups, _measure, unpatched, references)


def _measure(run: Run, references) -> Measured:
    """Of rows [C], in a run, with the (image, latents) of the base and of the source beside it."""
    (base_image, base_latent), (source_image, _) = references
    image, latent = engine.image_of(run.outputs), engine.latent_of(run.outputs)
    whole = engine.image_change(base_image, source_image)
    remaining = jnp.where(whole > 0, distance(image, source_image), 0.0)
    change = jnp.abs(latent - base_latent)
    change = jnp.mean(change, axis=tuple(range(1, change.ndim - 1)))
    return Measured(distance(image, base_image), change, remaining, whole, whole == 0)


@jax.jit
def _total(measured: Measured, valid: jax.Array) -> Measured:
    """Sums [G, ...] over the valid pairs of a block."""
    return jax.tree.map(lambda a: jnp.sum(a, axis=1, where=jnp.expand_dims(valid, [0, *range(2, a.ndim)])), measured)


def _over_pairs(blocks, num: int):
    sums, finite = blocks
    sums = jax.tree.map(lambda a: jnp.sum(a, axis=0), sums)
    effects = _effects(sums)
    return effects._replace(output_change=sums.output_change / num, latent_change=sums.latent_change / num), finite


def _pairs(blocks, num: int):
    measured, finite = blocks
    return _effects(engine.merge_pairs(measured, num)), finite


def _effects(measured: Measured) -> PatchEffects:
    recovery = 1 - measured.remaining / jnp.where(measured.whole > 0, measured.whole, jnp.nan)
    return PatchEffects(measured.output_change, measured.latent_change, recovery, measured.left_out)


# --- what units are replaced by --------------------------------------------------------------------------


def _replacement(mode, site: str, base: jax.Array, source: jax.Array, mean: Mapping | None) -> jax.Array:
    """What replaces the base run's activation [P, ...] at a site."""
    if mode == "interchange":
        return source
    if mode == "zero":
        return jnp.zeros_like(base)
    if mode == "mean":
        if not jnp.issubdtype(base.dtype, jnp.floating):
            raise ValueError(f"site {site!r} holds {base.dtype} codes, which have no mean; use another mode")
        return jnp.broadcast_to(mean[site][None], base.shape)
    return jnp.broadcast_to(mode(base, source), base.shape).astype(base.dtype)


def _mean_activations(forward, sites: tuple[str, ...], params, x, keys, chunk: int) -> dict[str, jax.Array]:
    """site -> activation averaged over the rows of x."""

    def block(rows, valid):
        run, _ = engine.end_run(forward, params, *rows)
        return {s: jnp.tensordot(valid.astype(jnp.float32), run.activations[s], 1) for s in sites}

    return engine.in_blocks(block, (x, keys), chunk, _mean_of_sums)


def _mean_of_sums(sums, num: int):
    return jax.tree.map(lambda s: jnp.sum(s, axis=0) / num, sums)


def distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Euclidean distance [N] of rows [N, ...]."""
    return jnp.sqrt(jnp.sum(jnp.square(a - b), axis=tuple(range(1, a.ndim))))


def _another_row(key: jax.Array | None, num: int) -> jax.Array:
    """For each of `num` rows another one, uniformly."""
    if key is None:
        raise ValueError("mode='resample' draws: give a key")
    if num < 2:
        raise ValueError("mode='resample' needs at least two rows")
    return (jnp.arange(num) + jax.random.randint(jax.random.fold_in(key, num), (num,), 1, num)) % num


def _check_choice(what: str, choice: Any, choices: Sequence[str]) -> None:
    if not callable(choice) and choice not in choices:
        raise ValueError(f"no {what} {choice!r}; there are: {', '.join(choices)}")
