"""Paths between sites, and the first-order shortcut: path-specific and attribution patching."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae.interventions import engine, patching
from causalvae.interventions.engine import Groups, Run
from causalvae.interventions.input import Pairs
from causalvae.interventions.mediation import check_outcome, mediate, outcome_of_references, projected_change
from causalvae.sites import Edit, add, patch

PyTree = Any
Outcome = Callable[[Run, Run, Run], jax.Array]


# --- path-specific patching ------------------------------------------------------------------------------


class PathEffects(NamedTuple):
    """Effects on the outcome, per pair, of U senders through W receivers."""

    path: jax.Array  # [U, W, N] Y(x; w <- w(x; u <- u(x'))) - Y(x): through this receiver only
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
) -> PathEffects:
    """What each unit of one site does to the outcome through each unit of a later site.

    Source: Wang et al. 2022 for path patching; the interaction term is this library's. Run x with sender u
    from x', take receiver w's value from that run, run x with only w replaced by it. Where the receiver site
    is a cut set, `through` equals `sender`; where it is not, the difference passes it by.
    senders, receivers: numbers of units, or masks {site: bool [groups, units]}; None takes every unit.
    Others as in `mediate`. Raises ValueError unless the sender's site comes before the receiver's.
    """
    x, x_source = engine.unpack(pairs)
    shapes = engine.model_sites(model, params, x)
    sending = _groups(shapes, sender, senders)
    receiving = _groups(shapes, receiver, receivers)
    order = list(shapes)
    if order.index(sender) >= order.index(receiver):
        raise ValueError(
            f"a path leads forward, but {receiver!r} does not come after {sender!r} in this model"
        )
    forward, keys = getattr(model, "forward", model), engine.row_keys(key, x.shape[0])
    outcome = engine.as_pytree(outcome)
    check_outcome(forward, (), params, x, outcome)
    chunk = engine.check_chunk(chunk)
    effects, finite = _path_effects(forward, chunk, params, x, x_source, keys, sending, receiving, outcome)
    engine.check_finite(finite)
    return effects


def _groups(shapes, site, units) -> Groups:
    if isinstance(units, Mapping):
        return engine.make_groups(shapes, site, units)
    return engine.make_groups(shapes, site, "unit", units)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _path_effects(forward, chunk, params, x, x_source, keys, sending, receiving, outcome):
    (sender,), (receiver,) = sending.selectors, receiving.selectors
    capture = engine.sites_until(engine.model_sites(forward, params, x), (receiver,))

    def block(rows, valid):
        x, x_source, keys = rows
        base, source = patching.run_both(forward, capture, params, x, x_source, keys)
        ends = engine.captured(base, ()), engine.captured(source, ())
        at_base = outcome(ends[0], *ends)
        measure = functools.partial(outcome_of_references, outcome)
        sweep = functools.partial(engine.sweep, forward, (), params, x, keys, base)
        at_sender = sweep({sender: source.activations[sender]}, sending, measure, ends, chunk)

        def through(group):  # one sender, all its receivers: [W, P] and [P]
            mask = sending.select(sender, group[None], base.activations[sender])
            start = engine.start(base.activations, (sender,))
            edits = {site: (patch(value),) for site, value in start.items()}
            edits[sender] = (
                *edits[sender],
                patch(source.activations[sender], jnp.broadcast_to(mask, start[sender].shape)),
            )
            run = engine.run_rows(forward, (receiver,), params, x, keys, edits)
            reached = {receiver: run.activations[receiver]}
            union = engine.union(receiving, reached)
            return sweep(reached, receiving, measure, ends, chunk), sweep(
                reached, union, measure, ends, chunk
            )[0]

        path, together = jax.lax.map(through, jnp.arange(sending.size))
        path, together = path - at_base[None, None], together - at_base[None]
        effects = PathEffects(path, together, together - jnp.sum(path, axis=1), at_sender - at_base[None])
        # The pairs' axis next to the front, as `merge_blocks` wants it.
        effects = effects._replace(path=jnp.moveaxis(effects.path, 1, 2))
        return effects, engine.both(
            engine.all_finite(base.activations), engine.all_finite(source.activations)
        )

    effects, finite = engine.in_blocks(block, (x, x_source, keys), chunk)
    effects = jax.tree.map(lambda e: patching.merge_blocks(e, x.shape[0]), effects)
    return effects._replace(path=jnp.moveaxis(effects.path, 2, 1)), finite


# --- attribution patching --------------------------------------------------------------------------------


class Attribution(NamedTuple):
    """First-order estimates of patch effects on an outcome, per pair, with the exact effects beside them."""

    estimate: jax.Array  # [G, N] <source - base, gradient of the outcome> over the group
    exact: jax.Array | None  # [G, N] Y(x; group <- x') - Y(x)
    error: jax.Array | None  # [G] mean absolute difference over pairs


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
    exact: also patch every group, which costs what `mediate`'s indirect effect costs; False gives None.
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
    estimate, finite = _attribution(forward, chunk, params, x, x_source, keys, groups, outcome)
    engine.check_finite(finite)
    if not exact:
        return Attribution(estimate, None, None)
    found = mediate(model, params, (x, x_source), site, outcome, granularity, key, chunk, units).indirect
    return Attribution(estimate, found, jnp.mean(jnp.abs(estimate - found), axis=1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _attribution(forward, chunk, params, x, x_source, keys, groups, outcome):
    sites = tuple(groups.selectors)
    capture = engine.sites_until(engine.model_sites(forward, params, x), sites)

    def block(rows, valid):
        x, x_source, keys = rows
        base, source = patching.run_both(forward, capture, params, x, x_source, keys)
        ends = engine.captured(base, ()), engine.captured(source, ())

        def total(offsets):
            edits = {site: (Edit(offset, operation=add),) for site, offset in offsets.items()}
            return jnp.sum(outcome(engine.run_rows(forward, (), params, x, keys, edits), *ends))

        difference = {site: source.activations[site] - base.activations[site] for site in sites}
        gradient = jax.grad(total)(jax.tree.map(jnp.zeros_like, difference))
        estimate = sum(
            groups.total(site, base.activations[site], difference[site] * gradient[site]) for site in sites
        )
        return estimate, engine.both(
            engine.all_finite(base.activations), engine.all_finite(source.activations)
        )

    estimate, finite = engine.in_blocks(block, (x, x_source, keys), chunk)
    return patching.merge_blocks(estimate, x.shape[0]), finite
