"""Path-specific patching: what units of one site do through units of a later one."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae._display import as_html
from causalvae._programs import jit
from causalvae.interventions._checks import check_choice, check_finite
from causalvae.interventions._groups import Groups, make_groups, union
from causalvae.interventions._plan import make_plan
from causalvae.interventions._runs import Outcome, Patched, Run, both_runs, exchanged, patched_runs, run_rows
from causalvae.interventions._sweep import in_blocks, merge_pairs, sweep
from causalvae.interventions.factors import Pairs
from causalvae.interventions.outcomes import of_references, outcome_of_ends, outcome_of_patched, projected_change
from causalvae.sites import Edit, patch

PyTree = Any
PATHS = ("any", "direct")


class PathEffects(NamedTuple):
    """Effects on the outcome, per pair, of U senders through W receivers."""

    path: jax.Array  # [U, W, N] Y(x; w <- w(x; u <- u(x'))) - Y(x): from this sender through this receiver
    through: jax.Array  # [U, N] the same through all receivers together
    interaction: jax.Array  # [U, N] through - sum over receivers of path: 0 where they act independently
    sender: jax.Array  # [U, N] Y(x; u <- u(x')) - Y(x): by all ways

    _repr_html_ = as_html


def path_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    sender: str | tuple[Any, Any],
    receiver: str | tuple[Any, Any],
    *,
    path: str = "any",
    outcome: Outcome = projected_change,
    chunk: int | None = None,
) -> PathEffects:
    """Returns what each unit of one site does to the outcome through each unit of a later site.

    Run x with sender u from x', take receiver w's value from that run, run x with only w replaced by it. Where the
    receiver site is a cut set, `through` of "any" equals `sender`; where it is not, the difference passes it by. The
    interaction term is this library's.

    Args:
      model: anything with a `forward`, see `causalvae.model`; or such a function.
      params: any pytree.
      pairs: as in `mediate`.
      sender: a site, for all its units in turn; or (site, groups), with groups as in `patch_effects`:
        `("encoder/conv2", [3, 5])`. Several sites, `((site, another), "site")` or masks, act together.
      receiver: a later site, or (site, groups), likewise. Receivers at several sites are replaced together; in the
        "direct" form each takes the value that the sender gives it past all others.
      path: which ways from sender to receiver count. "any" (this library): all; the sites between them follow the
        sender. "direct" (path patching as in Wang et al. 2022): all sites between the two keep their values of x's
        run, so only what reaches the receiver past them counts; the two agree where no site lies between. After the
        receiver all follows, in both.
      outcome: as in `mediate`.
      chunk: runs at once; bounds memory, not results.

    Raises:
      ValueError: unless the sender's site comes before the receiver's, and for a path that does not exist.
    """
    check_choice("path", path, PATHS)
    sending, receiving = (site_and_groups(end) for end in (sender, receiver))
    plan = make_plan(model, params, pairs, *sending, outcome, chunk)
    receiving = make_groups(plan.shapes, *receiving)
    between = _between(list(plan.shapes), tuple(plan.groups.selectors), tuple(receiving.selectors), path)

    def block(rows, valid):
        base, source, finite = both_runs(plan.forward, params, rows)
        ends = base, source
        at_base, _ = outcome_of_ends(plan.outcome, ends)
        frozen = {site: {s: base.activations[s] for s in passed} for site, passed in between.items()}
        sending = Sending(exchanged(rows, base, source, plan.groups.selectors), plan.groups, frozen)
        at_sender = outcome_of_patched(
            plan.forward, plan.chunk, params, sending.patched, plan.groups, plan.outcome, ends
        )
        through = _through(plan.forward, plan.chunk, params, sending, receiving, plan.outcome, ends)
        return (at_base, at_sender, *through), finite

    effects, finite = in_blocks(block, plan.rows, plan.chunk, _effects)
    check_finite(finite)
    return effects


def site_and_groups(end: str | tuple[Any, Any]) -> tuple[Any, Any]:
    """Returns (site or sites, groups) of one end of a path."""
    return (end, "unit") if isinstance(end, str) else end


def _between(
    order: list[str], senders: tuple[str, ...], receivers: tuple[str, ...], path: str
) -> dict[str, tuple[str, ...]]:
    """Site of receivers -> the sites that keep x's values while a sender acts on it; ValueError for a way back."""
    sender, last, receiver = (
        *(pick(senders, key=order.index) for pick in (min, max)),
        min(receivers, key=order.index),
    )
    if order.index(last) >= order.index(receiver):
        raise ValueError(f"a path leads forward, but {receiver!r} does not come after {last!r} in this model")
    start = order.index(sender) + 1
    return {site: tuple(order[start : order.index(site)]) if path == "direct" else () for site in receivers}


def _effects(blocks, num: int):
    (at_base, at_sender, path, together), finite = blocks
    at_base, at_sender, together = merge_pairs((at_base[:, None], at_sender, together), num)
    path = jnp.moveaxis(merge_pairs(jnp.moveaxis(path, 3, 2), num), 2, 1) - at_base[None]
    together, at_sender = together - at_base, at_sender - at_base
    return PathEffects(path, together, together - jnp.sum(path, axis=1), at_sender), finite


class Sending(NamedTuple):
    """The senders of a block of pairs."""

    patched: Patched
    groups: Groups
    # Site of receivers -> site -> the activation [P, ...] that it keeps while a sender acts.
    frozen: dict[str, dict[str, jax.Array]]


@jit(static=2)
def _through(forward, chunk, params, sending: Sending, receiving: Groups, outcome, ends: tuple[Run, Run]):
    """Outcomes with receivers as each sender makes them: one at a time [U, W, P], and all together [U, P]."""
    patched = sending.patched
    measure = functools.partial(of_references, outcome)

    def one(group):
        runs, values = {}, {}  # receivers past which nothing is held share a run
        for site in receiving.selectors:
            held = tuple(sending.frozen[site])
            runs[held] = runs.get(held) or _sent(forward, params, sending, site, group)
            values[site] = runs[held].activations[site]
        reached = patched_runs(patched.x, patched.keys, patched.run, values)
        everything = union(receiving, reached.replacement)
        together = sweep(forward, chunk, params, reached, everything, measure, ends)[0]
        return sweep(forward, chunk, params, reached, receiving, measure, ends), together

    return jax.lax.map(one, jnp.arange(sending.groups.size))


def _sent(forward, params, sending: Sending, receiver: str, group: jax.Array) -> Run:
    """The run in which one group of senders acts on a site of receivers."""
    patched, groups, frozen = sending
    kept = patched.fixed | frozen[receiver]
    edits: dict[str, tuple[Edit, ...]] = {site: (patch(value),) for site, value in kept.items()}
    for site, value in patched.replacement.items():
        mask = jnp.broadcast_to(groups.select(site, group[None], patched.base(site)[:1]), value.shape)
        edits[site] = (*edits.get(site, ()), patch(value, mask))
    return run_rows(forward, params, patched.x, patched.keys, edits)
