"""Attribution patching: every patch of a site estimated from one gradient, with its error."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae._display import as_html
from causalvae._programs import jit
from causalvae.interventions._checks import check_finite, differentiating
from causalvae.interventions._plan import make_plan
from causalvae.interventions._runs import Outcome, both_runs, exchanged, gradients
from causalvae.interventions._sweep import in_blocks, merge_pairs
from causalvae.interventions.factors import Pairs
from causalvae.interventions.mediation import indirect_effects
from causalvae.interventions.outcomes import projected_change

PyTree = Any


class Attribution(NamedTuple):
    """First-order estimates of patch effects on an outcome, per pair, with the exact effects beside them."""

    estimate: jax.Array  # [G, N] <source - base, gradient of the outcome> over the group
    exact: jax.Array | None  # [G, N] Y(x; group <- x') - Y(x)
    error: jax.Array | None  # [G] mean absolute difference over the pairs whose outcome is defined

    _repr_html_ = as_html


def attribution_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    site: str,
    *,
    groups: Any = "unit",
    outcome: Outcome = projected_change,
    exact: bool = True,
    chunk: int | None = None,
) -> Attribution:
    """Returns first-order estimates of every patch of a site, and how wrong they are.

    Source: Nanda 2023 for the estimate; exact where the network after the site is affine and the outcome linear.

    Args:
      model: anything with a `forward`, see `causalvae.model`; or such a function.
      params: any pytree.
      pairs: as in `mediate`.
      site: as in `mediate`.
      groups: as in `mediate`.
      outcome: as in `mediate`.
      exact: also patch every group, which costs what `indirect_effects` costs; False gives None.
      chunk: runs at once; bounds memory, not results.

    Raises:
      ValueError: at a site of integer codes, which have no gradient, and as `mediate` does.
    """
    plan = make_plan(model, params, pairs, site, groups, outcome, chunk)
    for name in plan.groups.selectors:
        if not jnp.issubdtype(plan.shapes[name].dtype, jnp.floating):
            raise ValueError(f"site {name!r} holds {plan.shapes[name].dtype} codes, which have no gradient")

    def block(rows, valid):
        base, source, finite = both_runs(plan.forward, params, rows)
        patched = exchanged(rows, base, source, plan.groups.selectors)
        return _estimate(plan.forward, params, patched, plan.groups, plan.outcome, (base, source)), finite

    with differentiating():
        estimate, finite = in_blocks(block, plan.rows, plan.chunk, _pairs)
    check_finite(finite)
    if not exact:
        return Attribution(estimate, None, None)
    _, found = indirect_effects(model, params, plan.pairs, site, groups=groups, outcome=outcome, chunk=chunk)
    return Attribution(estimate, found, jnp.nanmean(jnp.abs(estimate - found), axis=1))


def _pairs(blocks, num: int):
    estimate, finite = blocks
    return merge_pairs(estimate, num), finite


@jit(static=1)
def _estimate(forward, params, patched, groups, outcome, ends):
    """The first-order effect [G, P] of each group, from one gradient of the outcome; NaN where that is."""
    gradient, outcomes = gradients(forward, params, patched, outcome, ends)
    undefined = jnp.where(jnp.isnan(outcomes), jnp.nan, 0.0)[None]
    change = {site: (value - patched.base(site)) * gradient[site] for site, value in patched.replacement.items()}
    return undefined + sum(groups.total(site, patched.base(site), value) for site, value in change.items())
