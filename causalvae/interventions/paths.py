"""Paths between sites, and the first-order shortcut: path-specific and attribution patching."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae.interventions import engine
from causalvae.interventions.engine import Groups, Run
from causalvae.interventions.factors import Pairs
from causalvae.interventions.mediation import (
    check_outcome,
    end_outcomes,
    indirect_effects,
    outcome_of_references,
    patched_outcomes,
    projected_change,
)
from causalvae.sites import Edit, add, patch

PyTree = Any
Outcome = Callable[[Run, Run, Run], jax.Array]
PATHS = ("any", "direct")


# --- path-specific patching ------------------------------------------------------------------------------


class PathEffects(NamedTuple):
    """Effects on the outcome, per pair, of U senders through W receivers."""

    path: jax.Array  # [U, W, N] Y(x; w <- w(x; u <- u(x'))) - Y(x): from this sender through this receiver
    through: jax.Array  # [U, N] the same through all receivers together
    interaction: jax.Array  # [U, N] through - sum over receivers of path: 0 where they act independently
    sender: jax.Array  # [U, N] Y(x; u <- u(x')) - Y(x): by all ways


def path_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    sender: str,
    receiver: str,
    outcome: Outcome = projected_change,
    senders: Sequence[int] | Mapping[str, Any] | None = None,
    receivers: Sequence[int] | Mapping[str, Any] | None = None,
    key: jax.Array | None = None,
    chunk: int | None = None,
    path: str = "any",
) -> PathEffects:
    """What each unit of one site does to the outcome through each unit of a later site.

    Run x with sender u from x', take receiver w's value from that run, run x with only w replaced by it.
    path: which ways from sender to receiver count. "any" (this library): all; the sites between them follow the
        sender. "direct" (path patching as in Wang et al. 2022): all sites between the two keep their values of x's
        run, so only what reaches the receiver past them counts; the two agree where no site lies between. After
        the receiver all follows, in both.
    Where the receiver site is a cut set, `through` of "any" equals `sender`; where it is not, the difference passes
    it by. The interaction term is this library's.
    senders, receivers: numbers of units, or masks {site: bool [groups, units]}; None takes every unit.
    Others as in `mediate`. Raises ValueError unless the sender's site comes before the receiver's, and for a path
    that does not exist.
    """
    if path not in PATHS:
        raise ValueError(f"no path {path!r}; there are: {', '.join(PATHS)}")
    x, x_source = engine.unpack(pairs)
    shapes = engine.model_sites(model, params, x)
    sending = _groups(shapes, sender, senders)
    receiving = _groups(shapes, receiver, receivers)
    order = list(shapes)
    if order.index(sender) >= order.index(receiver):
        raise ValueError(f"a path leads forward, but {receiver!r} does not come after {sender!r} in this model")
    forward, keys = getattr(model, "forward", model), engine.row_keys(key, x.shape[0])
    outcome = engine.as_pytree(outcome)
    check_outcome(forward, (), params, x, outcome)
    chunk = engine.check_chunk(chunk)
    between = order[order.index(sender) + 1 : order.index(receiver)] if path == "direct" else ()

    def block(rows, valid):
        x, x_source, keys = rows
        base, source, finite = engine.end_runs(forward, params, x, x_source, keys)
        ends = engine.captured(base, ()), engine.captured(source, ())
        at_base, _ = end_outcomes(outcome, ends)
        patched = engine.patched_runs(x, keys, base, {sender: source.activations[sender]})
        at_sender = patched_outcomes(forward, (), chunk, params, patched, sending, outcome, ends[0], ends)
        until = engine.captured(base, order[: order.index(receiver) + 1])
        frozen = engine.captured(base, between).activations
        through = _through(forward, chunk, params, patched, sending, receiving, outcome, until, frozen, ends)
        return (at_base, at_sender, *through), finite

    effects, finite = engine.in_blocks(block, (x, x_source, keys), chunk, _effects)
    engine.check_finite(finite)
    return effects


def _effects(blocks, num: int):
    (at_base, at_sender, path, together), finite = blocks
    at_base, at_sender, together = engine.merge_pairs((at_base[:, None], at_sender, together), num)
    path = jnp.moveaxis(engine.merge_pairs(jnp.moveaxis(path, 3, 2), num), 2, 1) - at_base[None]
    together, at_sender = together - at_base, at_sender - at_base
    return PathEffects(path, together, together - jnp.sum(path, axis=1), at_sender), finite


@functools.partial(jax.jit, static_argnums=(0, 1))
def _through(forward, chunk, params, patched, sending, receiving, outcome, base, frozen, ends):
    """Outcomes with receivers as each sender makes them: one at a time [U, W, P], and all together [U, P]. frozen:
    site -> the activation [P, ...] that it keeps while the sender acts."""
    (sender,), (receiver,) = sending.selectors, receiving.selectors
    measure = functools.partial(outcome_of_references, outcome)
    start = engine.captured(base, ())

    def one(group):
        mask = sending.select(sender, group[None], patched.base[sender][:1])
        mask = jnp.broadcast_to(mask, patched.base[sender].shape)
        edits = {site: (patch(value),) for site, value in (patched.fixed | frozen).items()}
        edits[sender] = (*edits[sender], patch(patched.replacement[sender], mask))
        run = engine.run_rows(forward, (receiver,), params, patched.x, patched.keys, edits)
        reached = engine.patched_runs(patched.x, patched.keys, base, run.activations)
        everything = engine.union(receiving, run.activations)
        sweep = functools.partial(engine.sweep, forward, (), chunk, params, reached)
        together = sweep(everything, measure, start, ends)[0]
        return sweep(receiving, measure, start, ends), together

    return jax.lax.map(one, jnp.arange(sending.size))


def _groups(shapes, site, units) -> Groups:
    if isinstance(units, Mapping):
        return engine.make_groups(shapes, site, units)
    return engine.make_groups(shapes, site, "unit", units)


# --- attribution patching --------------------------------------------------------------------------------


class Attribution(NamedTuple):
    """First-order estimates of patch effects on an outcome, per pair, with the exact effects beside them."""

    estimate: jax.Array  # [G, N] <source - base, gradient of the outcome> over the group
    exact: jax.Array | None  # [G, N] Y(x; group <- x') - Y(x)
    error: jax.Array | None  # [G] mean absolute difference over the pairs whose outcome is defined


def attribution_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    site: str,
    outcome: Outcome = projected_change,
    granularity: str | Mapping[str, Any] = "unit",
    key: jax.Array | None = None,
    chunk: int | None = None,
    units: Sequence[int] | None = None,
    exact: bool = True,
) -> Attribution:
    """Attribution patching: every patch of a site at once from one gradient, and how wrong that is.

    Source: Nanda 2023 for the estimate; exact where the network after the site is affine and the outcome
    linear.
    exact: also patch every group, which costs what `indirect_effects` costs; False gives None.
    Others as in `mediate`. Raises ValueError at a site of integer codes, which have no gradient.
    """
    x, x_source = engine.unpack(pairs)
    shapes = engine.model_sites(model, params, x)
    groups = engine.make_groups(shapes, site, granularity, units)
    for name in groups.selectors:
        if not jnp.issubdtype(shapes[name].dtype, jnp.floating):
            raise ValueError(f"site {name!r} holds {shapes[name].dtype} codes, which have no gradient")
    forward, keys = getattr(model, "forward", model), engine.row_keys(key, x.shape[0])
    outcome = engine.as_pytree(outcome)
    check_outcome(forward, (), params, x, outcome)
    chunk = engine.check_chunk(chunk)

    def block(rows, valid):
        x, x_source, keys = rows
        base, source, finite = engine.end_runs(forward, params, x, x_source, keys)
        patched = engine.patched_runs(x, keys, base, {s: source.activations[s] for s in groups.selectors})
        ends = engine.captured(base, ()), engine.captured(source, ())
        return _estimate(forward, params, patched, groups, outcome, ends), finite

    estimate, finite = engine.in_blocks(block, (x, x_source, keys), chunk, _pairs)
    engine.check_finite(finite)
    if not exact:
        return Attribution(estimate, None, None)
    _, found = indirect_effects(model, params, (x, x_source), site, outcome, granularity, key, chunk, units)
    return Attribution(estimate, found, jnp.nanmean(jnp.abs(estimate - found), axis=1))


def _pairs(blocks, num: int):
    estimate, finite = blocks
    return engine.merge_pairs(estimate, num), finite


@functools.partial(jax.jit, static_argnums=0)
def _estimate(forward, params, patched, groups, outcome, ends):
    """The first-order effect [G, P] of each group, from one gradient of the outcome; NaN where that is."""
    x, keys, fixed, base, replacement = patched

    def total(offsets):
        edits = {site: (patch(value),) for site, value in fixed.items()}
        for site, offset in offsets.items():
            edits[site] = (*edits.get(site, ()), Edit(offset, operation=add))
        outcomes = outcome(engine.run_rows(forward, (), params, x, keys, edits), *ends)
        return jnp.sum(outcomes), outcomes

    gradient, outcomes = jax.grad(total, has_aux=True)(jax.tree.map(jnp.zeros_like, base))
    undefined = jnp.where(jnp.isnan(outcomes), jnp.nan, 0.0)[None]
    return undefined + sum(groups.total(s, base[s], (replacement[s] - base[s]) * gradient[s]) for s in base)
