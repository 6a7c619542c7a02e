"""Derivatives of an outcome along edges, for one block of pairs at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from causalvae._programs import jit
from causalvae.interventions._groups import Groups
from causalvae.interventions._runs import Run, gradients, patched_runs, run_rows, until
from causalvae.sites import Edit, patch

PyTree = Any
ALONG = ("site", "sender", "edge")


@struct.dataclass
class Between:
    """The two ends of the edges: U senders at one site, W receivers at a later one."""

    senders: Groups
    receivers: Groups
    frozen: tuple[str, ...] = struct.field(pytree_node=False, default=())  # sites that keep the base run's values


class Ends(NamedTuple):
    """A block of P pairs and their runs."""

    x: jax.Array
    keys: jax.Array | None
    base: Run
    source: Run


class Estimator(NamedTuple):
    """How edges are estimated; see `EdgeOptions`."""

    method: str
    along: str
    steps: int


class Maps(NamedTuple):
    """The network in two parts, as functions of activations of the block: what receivers hold given the senders'
    site, and the outcome [P] given the receivers' site. With the activations of base and source run at both."""

    reach: Callable[[jax.Array], jax.Array]
    measure: Callable[[jax.Array], jax.Array]
    sender: tuple[str, jax.Array, jax.Array]  # site, base, source
    receiver: tuple[str, jax.Array]  # site, base

    @property
    def change(self) -> jax.Array:
        """Source minus base at the senders' site."""
        return self.sender[2] - self.sender[1]


def maps_of(forward: Callable, params: PyTree, runs: Ends, between: Between, outcome: Callable) -> Maps:
    """Returns the network from senders to receivers and from receivers to the outcome, all else at the base run."""
    (sender,), (receiver,) = between.senders.selectors, between.receivers.selectors
    base = runs.base.activations

    def run_with(value, site, kept):
        edits: dict[str, tuple[Edit, ...]] = {s: (patch(base[s]),) for s in kept}
        return run_rows(forward, params, runs.x, runs.keys, edits | {site: (patch(value),)})

    def reach(value):
        kept = {*until(runs.base, [sender]), *between.frozen}
        return run_with(value, sender, kept).activations[receiver]

    def measure(value):
        return outcome(run_with(value, receiver, until(runs.base, [receiver])), runs.base, runs.source)

    ends = sender, base[sender], runs.source.activations[sender]
    return Maps(reach, measure, ends, (receiver, base[receiver]))


def _chosen(groups: Groups, group: jax.Array, value: jax.Array) -> jax.Array:
    """Where [1, ...] one group lies, broadcast to an activation [P, ...]."""
    (site,) = groups.selectors
    return jnp.broadcast_to(groups.select(site, group[None], value[:1]), value.shape)


def estimates(
    forward: Callable, estimator: Estimator, params: PyTree, runs: Ends, betweens: Sequence[Between], outcome: Callable
) -> list[jax.Array]:
    """Returns estimated effects [U, W, P] of all edges of several links."""
    receivers = [site for between in betweens for site in between.receivers.selectors]
    slopes = {}
    if estimator.method == "attribution":
        slopes = _slopes(forward, tuple(dict.fromkeys(receivers)), params, runs, outcome)
    return [
        _estimate(forward, estimator, params, runs, between, outcome, slopes.get(site))
        for site, between in zip(receivers, betweens, strict=True)
    ]


@jit(static=2)
def _slopes(forward, sites: tuple[str, ...], params, runs: Ends, outcome) -> dict[str, jax.Array]:
    """The gradient [P, ...] of each row's outcome at several sites of the base run, from one backward pass."""
    replaced = {site: runs.base.activations[site] for site in sites}
    return gradients(forward, params, patched_runs(runs.x, runs.keys, runs.base, replaced), outcome, runs[2:])[0]


@jit(static=2)
def _estimate(
    forward, estimator: Estimator, params, runs: Ends, between: Between, outcome, gradient: jax.Array | None = None
) -> jax.Array:
    """Estimated effects [U, W, P] of all edges; `gradient` [P, ...] is of the base run at the receivers' site."""
    maps = maps_of(forward, params, runs, between, outcome)
    undefined = jnp.where(jnp.isnan(outcome(runs.base, runs.base, runs.source)), jnp.nan, 0.0)
    if estimator.method == "attribution":
        found = _derivatives(maps, between, maps.sender[1], gradient)
    elif estimator.method == "second_order":
        found = _second_order(maps, between)
    else:
        at = (jnp.arange(estimator.steps) + 0.5) / estimator.steps  # midpoints: the error falls with the square of k
        found = {"site": _along_site, "sender": _along_sender, "edge": _along_edge}[estimator.along](maps, between, at)
    return found + undefined[None, None]


def _gradient(measure: Callable, value: jax.Array) -> jax.Array:
    """The gradient [P, ...] of each row's outcome by its own activation: rows do not mix."""
    return jax.grad(lambda v: jnp.sum(measure(v)))(value)


def _derivatives(maps: Maps, between: Between, start: jax.Array, gradient: jax.Array | None = None) -> jax.Array:
    """[U, W, P]: derivatives of the outcome along every edge, senders and receivers both at `start`.

    The derivative of the receivers by the senders is a matrix whose U W blocks are wanted: row by row (one backward
    pass for each receiver) or column by column (one forward pass for each sender), whichever are fewer.
    """
    senders, receivers, change = between.senders, between.receivers, maps.change
    (sender,), (receiver,) = senders.selectors, receivers.selectors
    if receivers.size <= senders.size:
        reached, backward = jax.vjp(maps.reach, start)
        gradient = _gradient(maps.measure, reached) if gradient is None else gradient

        def of_receiver(group):
            (slope,) = backward(jnp.where(_chosen(receivers, group, gradient), gradient, 0.0))
            return senders.total(sender, start, slope * change)

        return jnp.swapaxes(jax.lax.map(of_receiver, jnp.arange(receivers.size)), 0, 1)
    reached, forward = jax.linearize(maps.reach, start)
    gradient = _gradient(maps.measure, reached) if gradient is None else gradient

    def of_sender(group):
        slope = forward(jnp.where(_chosen(senders, group, change), change, 0.0))
        return receivers.total(receiver, reached, slope * gradient)

    return jax.lax.map(of_sender, jnp.arange(senders.size))


def _along_site(maps: Maps, between: Between, at: jax.Array) -> jax.Array:
    """Mean derivatives at points on the way of the whole site from base to source."""
    return jnp.mean(jax.lax.map(lambda a: _derivatives(maps, between, maps.sender[1] + a * maps.change), at), axis=0)


def _along_sender(maps: Maps, between: Between, at: jax.Array) -> jax.Array:
    """The same, each sender moving alone and all receivers following it."""

    def of_sender(group):
        change = jnp.where(_chosen(between.senders, group, maps.change), maps.change, 0.0)

        def at_point(a):
            reached, slope = jax.jvp(maps.reach, (maps.sender[1] + a * change,), (change,))
            return between.receivers.total(maps.receiver[0], reached, slope * _gradient(maps.measure, reached))

        return jnp.mean(jax.lax.map(at_point, at), axis=0)

    return jax.lax.map(of_sender, jnp.arange(between.senders.size))


def _along_edge(maps: Maps, between: Between, at: jax.Array) -> jax.Array:
    """The same, each sender moving alone and one receiver following it."""
    base = maps.receiver[1]

    def of_sender(group):
        change = jnp.where(_chosen(between.senders, group, maps.change), maps.change, 0.0)

        def at_point(a):
            reached, slope = jax.jvp(maps.reach, (maps.sender[1] + a * change,), (change,))

            def of_receiver(receiver):
                chosen = _chosen(between.receivers, receiver, base)
                moved = jnp.where(chosen, reached, base)
                _, derivative = jax.jvp(maps.measure, (moved,), (jnp.where(chosen, slope, 0.0),))
                return derivative

            return jax.lax.map(of_receiver, jnp.arange(between.receivers.size))

        return jnp.mean(jax.lax.map(at_point, at), axis=0)

    return jax.lax.map(of_sender, jnp.arange(between.senders.size))


def _second_order(maps: Maps, between: Between) -> jax.Array:
    """<gradient, D> + <D, Hessian D> / 2 with D [U, W, P] the exact change of receivers that are one number each."""
    receivers, (site, base) = between.receivers, maps.receiver
    gradient = _gradient(maps.measure, base)

    def of_sender(group):
        chosen = _chosen(between.senders, group, maps.sender[1])
        return receivers.total(site, base, maps.reach(jnp.where(chosen, maps.sender[2], maps.sender[1])) - base)

    def curvature(group):
        unit = _chosen(receivers, group, base).astype(base.dtype)
        _, bent = jax.jvp(functools.partial(_gradient, maps.measure), (base,), (unit,))
        return jnp.sum(unit * bent, axis=tuple(range(1, base.ndim)))

    change = jax.lax.map(of_sender, jnp.arange(between.senders.size))  # [U, W, P]
    bent = jax.lax.map(curvature, jnp.arange(receivers.size))  # [W, P]
    return change * (receivers.total(site, base, gradient)[None] + 0.5 * bent[None] * change)


@jit(static=1)
def sampled(forward, params, runs: Ends, between: Between, outcome, edges: jax.Array) -> jax.Array:
    """Exact effects [S, P] of some edges [S, 2], by two partial runs each."""
    maps = maps_of(forward, params, runs, between, outcome)
    base = maps.receiver[1]
    start = outcome(runs.base, runs.base, runs.source)

    def of_edge(edge):
        sends = _chosen(between.senders, edge[0], maps.sender[1])
        reached = maps.reach(jnp.where(sends, maps.sender[2], maps.sender[1]))
        return maps.measure(jnp.where(_chosen(between.receivers, edge[1], base), reached, base)) - start

    return jax.lax.map(of_edge, edges)
