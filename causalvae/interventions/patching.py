"""Activation patching: one run with some units replaced, for every unit of a site in one compiled program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae._display import as_html
from causalvae._programs import jit
from causalvae.interventions._checks import check_choice, check_chunk, check_finite, warn_of_no_change
from causalvae.interventions._groups import Groups, make_groups
from causalvae.interventions._runs import Patched, Run, base_run, both_runs, exchanged, image_change
from causalvae.interventions._sweep import in_blocks, merge_pairs, sweep
from causalvae.interventions.factors import Pairs, as_pairs
from causalvae.model import forward_of, image_of, latents_of, sites_of

PyTree = Any
MODES = ("interchange", "zero", "mean")


class PatchEffects(NamedTuple):
    """What replacing each group of units does. Means over pairs, or with an axis of N pairs after the groups."""

    output_change: jax.Array  # [G] the Euclidean norm of the image's change
    latent_change: jax.Array  # [G, d] absolute change of each latent (of its mean over positions' changes)
    recovery: jax.Array  # [G] 1 - |D(patched) - D(x_source)| / |D(x) - D(x_source)|, each summed over pairs
    left_out: jax.Array  # [G] in how many pairs x and x_source are decoded alike: recovery is of the others

    _repr_html_ = as_html


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
    pairs: Pairs | tuple[jax.Array, jax.Array] | jax.Array,
    site: str | Sequence[str],
    *,
    groups: Any = "unit",
    mode: str | Callable[[jax.Array, jax.Array], jax.Array] = "interchange",
    chunk: int | None = None,
    per_pair: bool = False,
) -> PatchEffects:
    """Returns the effect of replacing each unit (or group) of a site in the run of x, one at a time, in every pair.

    Source: the paper for the idea; distances, recovery and modes are this library's. Recovery over pairs is a ratio
    of sums, not a mean of ratios, which a pair with little to recover would rule; pairs that decode alike (up to 1e-5
    of their norms) are left out of it and counted, and it is NaN where nothing is left.

    Args:
      model: anything with a `forward`, see `causalvae.model`; or such a function.
      pairs: what `counterfactuals` gives, or (x, x_source); or images alone, for the ablations "zero" and "mean", of
        which nothing is recovered (NaN). `pairs.swap()` gives noising (the run of x_source patched with values of x),
        `pairs.resample(key)` resample ablation, `pairs.with_noise(key)` the posterior's noise, the same in all runs
        of a pair.
        The same images twice, in "interchange", are warned of: nothing is exchanged.
      site: where; several sites are replaced together with `groups="site"`.
      groups: what is replaced together. "unit" (of a site with positions also called
        "channel"): every entry of the last axis in turn, at all positions; "position"
        and "element", numbered row by row; "site": all of it; numbers of units; ("position", numbers); or masks,
        site -> bool [G, units] or [G, ...], which may name several sites.
      mode: what a unit is replaced by. "interchange": its value in the run of x_source; "zero"; "mean": its mean over
        x's rows; or a named function (activation of x, activation of x_source) -> replacement, of rows [C, ...].
      chunk: runs at once; bounds memory, not results.
      per_pair: keep the pairs: [G, N], [G, N, d], [G, N], [G, N] bool; recovery is NaN where a pair is left out.

    Raises:
      ValueError: for sites, units, groups or modes that do not exist, for x and x_source that are not pairs, and for
        activations that are not finite.
    """
    return _swept(model, params, pairs, site, groups, mode, chunk, _pairs if per_pair else _over_pairs)


def patch_with_gains(
    model: Any, params: PyTree, pairs: Pairs, site: str, *, chunk: int | None = None
) -> tuple[PatchEffects, jax.Array, jax.Array]:
    """Returns `patch_effects` of each unit of a site, and what they are means of, pair by pair.

    Returns:
      The effects [G]; how much nearer each patch brings the image to that of x_source, |D(x) - D(x_source)| -
      |D(patched) - D(x_source)| [G, N]; and the whole way, the first of these [N]. NaN where a pair is left out.
    """
    effects, measured = _swept(model, params, pairs, site, "unit", "interchange", chunk, _means_and_pairs)
    whole = jnp.where(measured.whole > 0, measured.whole, jnp.nan)
    return effects, whole - measured.remaining, whole[0]


def _swept(model: Any, params: PyTree, pairs: Any, site: Any, groups: Any, mode: Any, chunk: int | None, finish) -> Any:
    """What `finish`, one of the three below, makes of the measured blocks of pairs."""
    given, pairs, forward, chunk = pairs, as_pairs(pairs), forward_of(model), check_chunk(chunk)
    check_choice("mode", mode, MODES)
    groups = make_groups(sites_of(model, params, pairs.x, pairs.key), site, groups)
    if mode == "interchange":
        warn_of_no_change(given)
    sites = tuple(groups.selectors)
    mean = _mean_activations(forward, sites, params, pairs, chunk) if mode == "mean" else None

    def block(rows, valid):
        base, source, finite = both_runs(forward, params, rows)
        patched = exchanged(rows, base, source, sites)
        measured = _patch(forward, mode, chunk, params, patched, groups, (source.outputs, mean))
        if finish is _pairs:
            return measured, finite
        totals = _total(measured, valid)
        return ((totals, measured), finite) if finish is _means_and_pairs else (totals, finite)

    rows = pairs.x, pairs.x_source, pairs.keys
    effects, finite = in_blocks(block, rows, chunk, finish)
    check_finite(finite)
    return effects


@jit(static=3)
def _patch(forward, mode, chunk, params, patched: Patched, groups: Groups, others) -> Measured:
    """What is measured of one block of pairs: [G, P, ...]. others: (outputs of the source run, mean activations)."""
    source, mean = others
    replacement = {
        site: _replacement(mode, site, patched.base(site), value, mean) for site, value in patched.replacement.items()
    }
    base, patched = patched.run.outputs, patched._replace(replacement=replacement)
    whole = image_change(image_of(base), image_of(source))
    references = image_of(base), latents_of(base), image_of(source), whole
    image, latents, remaining = sweep(forward, chunk, params, patched, groups, _measure, references)
    whole = jnp.broadcast_to(whole, remaining.shape)
    return Measured(image, latents, remaining, whole, whole == 0)


def _measure(run: Run, references) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first three of `Measured`, of rows [C] in a run beside what the two runs of their pairs gave."""
    base_image, base_latents, source_image, whole = references
    image = image_of(run.outputs)
    remaining = jnp.where(whole > 0, distance(image, source_image), 0.0)
    change = jnp.abs(latents_of(run.outputs) - base_latents)
    change = jnp.mean(change, axis=tuple(range(1, change.ndim - 1)))
    return distance(image, base_image), change, remaining


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
    return _effects(merge_pairs(measured, num)), finite


def _means_and_pairs(blocks, num: int):
    (totals, measured), finite = blocks
    effects, finite = _over_pairs((totals, finite), num)
    return (effects, merge_pairs(measured, num)), finite


def _effects(measured: Measured) -> PatchEffects:
    recovery = 1 - measured.remaining / jnp.where(measured.whole > 0, measured.whole, jnp.nan)
    return PatchEffects(measured.output_change, measured.latent_change, recovery, measured.left_out)


# --- what units are replaced by --------------------------------------------------------------------------


def _replacement(mode: Any, site: str, base: jax.Array, source: jax.Array, mean: Mapping | None) -> jax.Array:
    """What replaces the base run's activation [P, ...] at a site."""
    if mode == "interchange":
        return source
    if mode == "zero":
        return jnp.zeros_like(base)
    if mean is not None:
        if not jnp.issubdtype(base.dtype, jnp.floating):
            raise ValueError(f"site {site!r} holds {base.dtype} codes, which have no mean; use another mode")
        return jnp.broadcast_to(mean[site][None], base.shape)
    return jnp.broadcast_to(mode(base, source), base.shape).astype(base.dtype)


def _mean_activations(forward, sites: tuple[str, ...], params, pairs: Pairs, chunk: int) -> dict[str, jax.Array]:
    """site -> activation averaged over the rows of x."""

    def block(rows, valid):
        run, _ = base_run(forward, params, *rows)
        return {s: jnp.tensordot(valid.astype(jnp.float32), run.activations[s], 1) for s in sites}

    return in_blocks(block, (pairs.x, pairs.keys), chunk, _mean_of_sums)


def _mean_of_sums(sums, num: int):
    return jax.tree.map(lambda s: jnp.sum(s, axis=0) / num, sums)


def distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the Euclidean distance [N] of rows [N, ...]."""
    return jnp.sqrt(jnp.sum(jnp.square(a - b), axis=tuple(range(1, a.ndim))))
