"""Effects of edges: what every unit of one site does to an outcome through every unit of a later site.

An edge (u, w) has the effect Y(x; w <- w(x; u <- u(x'))) - Y(x): the sender takes its value of x', only the receiver
sees it, and all else starts from x. The receiver's change runs on to the output. `path_effects` measures it by runs;
here it is also estimated for all edges at once by gradients, and every estimate comes with its agreement with exact
effects on a sample of edges.

With f(a) = Y(x; w <- w(x; u <- u + a (u' - u))) the exact effect is f(1) - f(0), and

    attribution     f'(0) = <gradient of Y at w, derivative of w along u' - u>: two caches serve all edges
    second_order    <gradient, D> + <D, Hessian D> / 2, D the whole change of w: where w is one number
    integrated      the mean of such derivatives at k points on the way from x's activations to those of x'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae._display import as_html
from causalvae.interventions import _edges
from causalvae.interventions._checks import check_choice, check_finite, differentiating
from causalvae.interventions._groups import make_groups
from causalvae.interventions._plan import Plan, make_plan
from causalvae.interventions._runs import Outcome, both_runs
from causalvae.interventions._sweep import in_blocks, merge_pairs
from causalvae.interventions.factors import Pairs
from causalvae.interventions.outcomes import projected_change
from causalvae.interventions.paths import PATHS, path_effects, site_and_groups

PyTree = Any
EDGE_METHODS = ("attribution", "second_order", "integrated", "exact")
"""How the effects of edges can be found."""
TIE = 1e-5  # of the largest effect: what float32 leaves uncertain


class EdgeOptions(NamedTuple):
    """Options of `edge_effects`, which takes them as keywords."""

    path: str = "any"
    """Which ways from sender to receiver count: "any", or "direct", past the sites between; see `path_effects`."""
    steps: int = 5
    """Points of "integrated" on the way from x's activations to those of x'."""
    along: str = "site"
    """What moves along that way: "site", all senders, and all receivers follow (one pair of caches per point);
    "sender", each in turn, and all receivers follow; "edge", each sender, and only the receiver follows: the one that
    converges to the exact effect whatever the network, and costs more than it."""
    sample: int = 64
    """Edges that are also measured exactly, beside an estimate; all of them where there are fewer."""
    key: jax.Array | None = None
    """Draws them; None is `jax.random.key(0)`."""
    chunk: int | None = None
    """Runs at once; bounds memory, not results."""


class EdgeAgreement(NamedTuple):
    """How far estimates and exact effects agree on a random sample of S edges; means over the same pairs."""

    edges: np.ndarray  # [S, 2] (sender, receiver), numbered as in the effects
    estimate: np.ndarray  # [S]
    exact: np.ndarray  # [S]
    rank_correlation: float  # Spearman; NaN where either side does not vary
    sign_agreement: float  # share with the same sign, of the edges that have an effect
    error: float  # sum of |estimate - exact| over sum of |exact|


class EdgeEffects(NamedTuple):
    """Effects of U x W edges on an outcome, per pair."""

    effects: jax.Array  # [U, W, N] NaN where the outcome is undefined
    agreement: EdgeAgreement | None  # of an estimate; None where the effects are exact

    _repr_html_ = as_html

    @property
    def mean(self) -> np.ndarray:
        """[U, W]: means over the pairs whose outcome is defined, in float64."""
        return _mean(self.effects)


def edge_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    sender: str | tuple[str, Any],
    receiver: str | tuple[str, Any],
    *,
    method: str = "attribution",
    outcome: Outcome = projected_change,
    **options: Any,
) -> EdgeEffects:
    """Returns the effect of every edge between the units of two sites, measured or estimated for all at once.

    Source: Wang et al. 2022 for the path patch, Syed et al. 2023 for attribution, Hanna et al. 2024 for integrated
    gradients ("site"); their form between the units of any two sites, "sender", "edge" and the second-order form are
    this library's. An edge's integrated gradients along "site" add up over all edges to what the senders do together
    through the receivers; one edge's own differ from its effect where edges interact.

    Args:
      model: anything with a `forward`, see `causalvae.model`; or such a function.
      params: any pytree.
      pairs: as in `mediate`.
      sender: a site, for all its units in turn; or (site, groups), with groups as in `patch_effects`.
      receiver: a later site, or (site, groups), likewise.
      method: "exact", by U W partial runs per pair; "attribution", by one gradient and min(U, W) derivatives between
        the sites; "second_order" (U runs between them, W second derivatives), where a receiver is one number;
        "integrated", of `steps` points.
      outcome: as in `mediate`.
      **options: of `EdgeOptions`: path, steps, along, sample, key, chunk.

    Raises:
      ValueError: for a method or an option that does not exist; unless the sender's site comes before the receiver's;
        for estimates at sites of integer codes, which have no gradient; for "second_order" where receivers are maps.
    """
    links = [(sender, receiver)]
    return link_effects(model, params, pairs, links, method=method, outcome=outcome, **options)[0]


End = str | tuple[str, Any]


def link_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    links: Sequence[tuple[End, End]],
    *,
    method: str = "attribution",
    outcome: Outcome = projected_change,
    **options: Any,
) -> list[EdgeEffects]:
    """Returns `edge_effects` of several links, a (sender, receiver) each, in their order.

    All links are of the same base runs and source runs, and "attribution" takes the gradients at all receivers from one
    backward pass, which makes it several times as fast as a call for each link.

    Args:
      model: as in `edge_effects`; so are params and pairs.
      params: any pytree.
      pairs: as there.
      links: (sender, receiver) each, with senders and receivers as there.
      method: as there; so are outcome and options.
      outcome: as there.
      **options: of `EdgeOptions`.

    Raises:
      ValueError: for no link at all, and as `edge_effects` does.
    """
    chosen = edge_options(options)
    if method not in EDGE_METHODS:
        raise ValueError(f"no method {method!r}; there are: {', '.join(EDGE_METHODS)}")
    if not links:
        raise ValueError("no links: give at least one (sender, receiver)")
    if method == "exact":
        same = {"path": chosen.path, "outcome": outcome, "chunk": chosen.chunk}
        measured = [path_effects(model, params, pairs, sender, receiver, **same) for sender, receiver in links]
        return [EdgeEffects(effects.path, None) for effects in measured]
    ends = [(site_and_groups(sender), site_and_groups(receiver)) for sender, receiver in links]
    plan = make_plan(model, params, pairs, *ends[0][0], outcome, chosen.chunk)
    betweens = [_between(plan, sender, receiver, chosen.path) for sender, receiver in ends]
    for between in betweens:
        _check_differentiable(plan, between, method)
    samples = [_drawn(chosen, between) for between in betweens]
    estimator = _edges.Estimator(method, chosen.along, chosen.steps)

    def block(rows, valid):
        base, source, finite = both_runs(plan.forward, params, rows)
        runs = _edges.Ends(rows[0], rows[2], base, source)
        estimates = _edges.estimates(plan.forward, estimator, params, runs, betweens, plan.outcome)
        exact = [
            _edges.sampled(plan.forward, params, runs, between, plan.outcome, jnp.asarray(sample))
            for between, sample in zip(betweens, samples, strict=True)
        ]
        return (estimates, exact), finite

    with differentiating():
        (effects, exact), finite = in_blocks(block, plan.rows, plan.chunk, _pairs)
    check_finite(finite)
    found = zip(effects, samples, exact, strict=True)
    return [EdgeEffects(e, _agreement(sample, e, measured)) for e, sample, measured in found]


def _between(plan: Plan, sender: tuple[str, Any], receiver: tuple[str, Any], path: str) -> _edges.Between:
    senders, receivers = (make_groups(plan.shapes, *end) for end in (sender, receiver))
    return _edges.Between(senders, receivers, sites_between(plan, sender[0], receiver[0], path))


def edge_options(options: dict[str, Any]) -> EdgeOptions:
    """Returns the options by name; ValueError for what does not exist."""
    unknown = sorted(set(options) - set(EdgeOptions._fields))
    if unknown:
        raise ValueError(f"no option {', '.join(unknown)}; there are: {', '.join(EdgeOptions._fields)}")
    chosen = EdgeOptions(**options)
    check_choice("path", chosen.path, PATHS)
    check_choice("along", chosen.along, _edges.ALONG)
    for name, least in (("steps", 1), ("sample", 2)):
        value = getattr(chosen, name)
        if int(value) != value or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")
    return chosen


def sites_between(plan: Plan, sender: str, receiver: str, path: str) -> tuple[str, ...]:
    """Returns the sites that keep x's values while a sender acts; ValueError for a path that leads back."""
    order = list(plan.shapes)
    if order.index(sender) >= order.index(receiver):
        raise ValueError(f"an edge leads forward, but {receiver!r} does not come after {sender!r} in this model")
    return tuple(order[order.index(sender) + 1 : order.index(receiver)]) if path == "direct" else ()


def _check_differentiable(plan: Plan, between: _edges.Between, method: str) -> None:
    (sender,), (receiver,) = between.senders.selectors, between.receivers.selectors
    for site in (sender, receiver):
        if not jnp.issubdtype(plan.shapes[site].dtype, jnp.floating):
            raise ValueError(
                f"site {site!r} holds {plan.shapes[site].dtype} codes, which have no gradient: use method='exact'"
            )
    granularity = between.receivers.granularity
    single = granularity == "element" or (granularity == "unit" and len(plan.shapes[receiver].shape) == 2)
    if method == "second_order" and not single:
        raise ValueError(
            f"the second-order correction is of receivers that are one number each, and those of {receiver!r} are "
            "maps, where it would cost more than the exact effects: use method='exact' or 'integrated'"
        )


def _drawn(chosen: EdgeOptions, between: _edges.Between) -> np.ndarray:
    """[S, 2]: a random sample of edges, without repeats."""
    shape = between.senders.size, between.receivers.size
    key = jax.random.key(0) if chosen.key is None else chosen.key
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint32))
    numbers = np.sort(generator.choice(shape[0] * shape[1], min(chosen.sample, shape[0] * shape[1]), replace=False))
    return np.stack(np.unravel_index(numbers, shape), axis=1).astype(np.int32)


def _pairs(blocks, num: int):
    (estimates, exact), finite = blocks
    estimates = [jnp.moveaxis(merge_pairs(jnp.moveaxis(e, 3, 2), num), 2, 1) for e in estimates]
    return (estimates, merge_pairs(exact, num)), finite


def _agreement(edges: np.ndarray, effects: jax.Array, exact: jax.Array) -> EdgeAgreement:
    estimate, measured = _mean(effects[edges[:, 0], edges[:, 1]]), _mean(exact)
    return EdgeAgreement(edges, estimate, measured, *agreement(estimate, measured))


def agreement(estimate: np.ndarray, exact: np.ndarray) -> tuple[float, float, float]:
    """Returns rank correlation, sign agreement and relative error of estimates [S]; rounding decides none of them."""
    from scipy.stats import spearmanr  # takes a second

    scale = np.abs(exact).max()
    acts = np.abs(exact) > TIE * scale
    ranked = [np.round(e / max(np.abs(e).max(), np.finfo(np.float64).tiny) / TIE) for e in (estimate, exact)]
    varies = all(np.ptp(r) > 0 for r in ranked)
    rank = float(spearmanr(*ranked)[0]) if varies else np.nan  # pyright: ignore[reportArgumentType]
    signs = float(np.mean(np.sign(estimate[acts]) == np.sign(exact[acts]))) if acts.any() else np.nan
    total = np.abs(exact).sum()
    return rank, signs, float(np.abs(estimate - exact).sum() / total) if total > 0 else np.nan


def _mean(effects: Any) -> np.ndarray:
    """Means [...] over the pairs of effects [..., N] that are defined."""
    values = np.asarray(effects, np.float64)
    defined = np.isfinite(values).all(axis=tuple(range(values.ndim - 1)))
    if not defined.any():
        return np.full(values.shape[:-1], np.nan)
    return values[..., defined].mean(axis=-1)
