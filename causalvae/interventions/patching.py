"""Activation patching: one run with some units replaced, for every unit of a site in one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae.interventions import engine
from causalvae.interventions.engine import Groups, Run

PyTree = Any
MODES = ("interchange", "zero", "mean", "resample")
DIRECTIONS = ("denoising", "noising")


class PatchEffects(NamedTuple):
    """What replacing each group of units does. Means over pairs, or with an axis of N pairs after the
    groups.
    """

    output_change: jax.Array  # [G] the Euclidean norm of the image's change
    latent_change: jax.Array  # [G, d] absolute change of each latent (of its mean over positions' changes)
    recovery: jax.Array  # [G] 1 - |D(patched) - D(x_source)| / |D(x) - D(x_source)|; NaN where that is 0/0


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

    Source: the paper for the idea; distances, recovery and modes are this library's.
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
    per_pair: keep the pairs: [G, N], [G, N, d], [G, N].

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
    effects, finite = _patch_effects(forward, mode, chunk, per_pair, params, x, x_source, keys, groups)
    engine.check_finite(finite)
    return effects


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _patch_effects(forward, mode, chunk, per_pair, params, x, x_source, keys, groups: Groups):
    sites = tuple(groups.selectors)
    capture = engine.sites_until(engine.model_sites(forward, params, x), sites)
    mean = mean_activations(forward, sites, params, x, keys, chunk) if mode == "mean" else None

    def block(rows, valid):
        x, x_source, keys = rows
        base, source = run_both(forward, capture, params, x, x_source, keys)
        replacements = {
            s: replacement(mode, s, base.activations[s], source.activations[s], mean) for s in sites
        }
        references = tuple((engine.image_of(r.outputs), engine.latent_of(r.outputs)) for r in (base, source))
        effects = engine.sweep(
            forward, (), params, x, keys, base, replacements, groups, _measure, references, chunk
        )
        finite = engine.both(engine.all_finite(base.activations), engine.all_finite(source.activations))
        return (effects if per_pair else _total(effects, valid)), finite

    effects, finite = engine.in_blocks(block, (x, x_source, keys), chunk)
    if per_pair:
        return jax.tree.map(lambda e: merge_blocks(e, x.shape[0]), effects), finite
    sums, counts = jax.tree.map(lambda e: jnp.sum(e, axis=0), effects)
    means = jax.tree.map(lambda s, c: s / jnp.where(c > 0, c, jnp.nan), sums, counts)
    return means, finite


def _measure(run: Run, references) -> PatchEffects:
    """Patch effects of rows [C], in a run, with the (image, latents) of the base and of the source beside
    it.
    """
    (base_image, base_latent), (source_image, _) = references
    image, latent = engine.image_of(run.outputs), engine.latent_of(run.outputs)
    remaining, whole = distance(image, source_image), distance(base_image, source_image)
    recovery = 1 - remaining / jnp.where(whole > 0, whole, jnp.nan)
    change = jnp.abs(latent - base_latent)
    return PatchEffects(
        distance(image, base_image), jnp.mean(change, axis=tuple(range(1, change.ndim - 1))), recovery
    )


def _total(effects: PatchEffects, valid: jax.Array) -> tuple[PatchEffects, PatchEffects]:
    """Sums over the valid pairs of a block, and how many pairs each is a sum of (undefined ones left out)."""

    def total(effect):
        counted = jnp.expand_dims(valid, [0, *range(2, effect.ndim)]) & ~jnp.isnan(effect)
        return jnp.sum(jnp.where(counted, effect, 0.0), axis=1), jnp.sum(counted, axis=1)

    pairs = [total(effect) for effect in effects]
    return PatchEffects(*(s for s, _ in pairs)), PatchEffects(*(c for _, c in pairs))


# --- pieces shared with mediation and circuits -----------------------------------------------------------


def run_both(forward, capture, params, x, x_source, keys) -> tuple[Run, Run]:
    """The runs of x and of x_source as one batch, with the same noise for the two of a pair."""
    both_keys = None if keys is None else jnp.concatenate([keys, keys])
    both = engine.run_rows(forward, capture, params, jnp.concatenate([x, x_source]), both_keys, {})
    num = x.shape[0]
    return jax.tree.map(lambda a: a[:num], both), jax.tree.map(lambda a: a[num:], both)


def replacement(mode, site: str, base: jax.Array, source: jax.Array, mean: Mapping | None) -> jax.Array:
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


def mean_activations(forward, sites: tuple[str, ...], params, x, keys, chunk: int) -> dict[str, jax.Array]:
    """site -> activation averaged over the rows of x."""

    def block(rows, valid):
        x, keys = rows
        activations = engine.run_rows(forward, sites, params, x, keys, {}).activations
        return {s: jnp.tensordot(valid.astype(a.dtype), a, 1) for s, a in activations.items()}

    return {s: jnp.sum(t, axis=0) / x.shape[0] for s, t in engine.in_blocks(block, (x, keys), chunk).items()}


def merge_blocks(effects: jax.Array, num: int) -> jax.Array:
    """[blocks, G, P, ...] -> [G, num, ...]."""
    merged = jnp.moveaxis(effects, 0, 1)
    return merged.reshape(merged.shape[0], -1, *merged.shape[3:])[:, :num]


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
