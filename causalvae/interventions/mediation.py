"""Causal mediation: how much of the effect of x -> x' on an outcome passes through given units."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causalvae._display import as_html
from causalvae.interventions._bootstrap import Estimate, bootstrap_weights, check_bootstrap, interval, means_of
from causalvae.interventions._checks import check_finite
from causalvae.interventions._plan import Plan, make_plan
from causalvae.interventions._runs import Outcome, both_runs, exchanged
from causalvae.interventions._sweep import in_blocks, merge_pairs
from causalvae.interventions.factors import Pairs
from causalvae.interventions.interaction import BINS, INTERACTION_LIMIT, InteractionShare, interaction_share
from causalvae.interventions.latents import image_distance
from causalvae.interventions.outcomes import outcome_of_ends, outcome_of_patched, projected_change

PyTree = Any


class Mediation(NamedTuple):
    """Effects of every pair: total = indirect + direct + interaction."""

    total: jax.Array  # [N] Y(x') - Y(x)
    direct: jax.Array  # [G, N] Y(x'; m <- m(x)) - Y(x)
    indirect: jax.Array  # [G, N] Y(x; m <- m(x')) - Y(x)
    interaction: jax.Array  # [G, N]
    distance: jax.Array | None = None  # [N] root mean square of x' - x, over pixels

    _repr_html_ = as_html


def mediate(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    site: str | Sequence[str],
    *,
    groups: Any = "unit",
    outcome: Outcome = projected_change,
    chunk: int | None = None,
) -> Mediation:
    """Returns total, natural direct and indirect effects and interaction, each group of units as the mediator.

    Source: Pearl 2001; the paper's own form is known only as "replacing one component's activation" (a third party's
    reimplementation takes one hidden channel from another trial: `indirect` alone).

    Args:
      model: anything with a `forward`, see `causalvae.model`; or such a function.
      params: any pytree.
      pairs: what `counterfactuals` gives, or (x, x'). `pairs.with_noise(key)` adds the posterior's noise, the same in
        all runs of a pair.
      site: the mediator's site. Several sites with `groups="site"` are one mediator together.
      groups: "unit" for each unit in turn, "position", "element", "site", numbers of units, or masks; see
        `patch_effects`. Masks over several sites are joint mediators.
      outcome: (run, base run, source run) -> one number per row: `projected_change`, `LatentOutcome(i)`,
        `FactorReadout(w)`, or any function that treats rows alike. Runs are `Run(outputs, activations)` with the
        activations of all sites. Give a module-level function: a fresh lambda compiles afresh.
      chunk: runs at once; bounds memory, not results.

    Raises:
      ValueError: for an outcome that does not return one number per pair, and as `patch_effects` does.
    """
    plan = make_plan(model, params, pairs, site, groups, outcome, chunk)
    return _mediate(plan, params, _effects)._replace(distance=_distance(plan.pairs.x, plan.pairs.x_source))


def indirect_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    site: str | Sequence[str],
    *,
    groups: Any = "unit",
    outcome: Outcome = projected_change,
    chunk: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns (total [N], indirect [G, N]) of `mediate`, at half its cost.

    Args:
      model: as in `mediate`; so are the others.
      params: any pytree.
      pairs: what `counterfactuals` gives, or (x, x').
      site: the mediator's site.
      groups: which units, each in turn or together.
      outcome: (run, base run, source run) -> one number per row.
      chunk: runs at once; bounds memory, not results.

    Raises:
      ValueError: as `mediate` does.
    """
    return _mediate(make_plan(model, params, pairs, site, groups, outcome, chunk), params, _indirect)


@jax.jit
def _distance(x: jax.Array, x_source: jax.Array) -> jax.Array:
    return image_distance(x.astype(jnp.float32), x_source.astype(jnp.float32), "rms")


def _mediate(plan: Plan, params: PyTree, finish: Callable) -> Any:
    """Outcomes of both runs and of the patched runs, block by block, and what `finish` makes of them."""

    def block(rows, valid):
        base, source, finite = both_runs(plan.forward, params, rows)
        ends = base, source

        def patched(rows, run, other):  # outcomes [G, P] of `run` with each group taken from `other`
            runs = exchanged(rows, run, other, plan.groups.selectors)
            return outcome_of_patched(plan.forward, plan.chunk, params, runs, plan.groups, plan.outcome, ends)

        outcomes = [*outcome_of_ends(plan.outcome, ends), patched(rows, base, source)]
        if finish is _effects:
            x, x_source, keys = rows
            outcomes.append(patched((x_source, x, keys), source, base))
        return outcomes, finite

    effects, finite = in_blocks(block, plan.rows, plan.chunk, finish)
    check_finite(finite)
    return effects


def _effects(blocks, num: int):
    (at_base, at_source, indirect, direct), finite = blocks
    at_base, at_source = at_base[:, None], at_source[:, None]
    at_base, at_source, indirect, direct = merge_pairs((at_base, at_source, indirect, direct), num)
    total, indirect, direct = at_source - at_base, indirect - at_base, direct - at_base
    return Mediation(total[0], direct, indirect, total - direct - indirect), finite


def _indirect(blocks, num: int):
    (at_base, at_source, indirect), finite = blocks
    at_base, at_source, indirect = merge_pairs((at_base[:, None], at_source[:, None], indirect), num)
    return ((at_source - at_base)[0], indirect - at_base), finite


# --- summaries -------------------------------------------------------------------------------------------


class MediationSummary(NamedTuple):
    """Mean effects with bootstrap intervals over pairs, per group of units; `relative`: over the mean total effect."""

    total: Estimate  # []
    direct: Estimate  # [G]
    indirect: Estimate  # [G]
    interaction: Estimate  # [G]
    proportion: Estimate  # [G] indirect / total, means over pairs; NaN where totals cancel, see `summarize`
    pairs: jax.Array  # [] how many pairs counted
    left_out: jax.Array  # [] how many did not: their total effect is NaN
    interaction_share: InteractionShare  # [G] |interaction| / |total|, and where it is too much

    _repr_html_ = as_html


def summarize(
    mediation: Mediation,
    key: jax.Array,
    num: int = 1000,
    level: float = 0.95,
    tolerance: float = 0.05,
    relative: bool = False,
    *,
    bins: int = BINS,
    limit: float = INTERACTION_LIMIT,
) -> MediationSummary:
    """Returns means over pairs with percentile bootstrap intervals.

    Pairs are drawn again `num` times, the same for all groups.
    Source: this library. Pairs whose total effect is NaN (no change to project on) are left out and counted. The
    proportion mediated is a ratio of sums, mean indirect / mean total. Interactions of both signs cancel in their
    mean; `interaction_share` is of their absolute values. A mediator of which it exceeds `limit` has no one effect
    that passes through it: what it does depends on the run that it is put into. `interaction_share.in_words()` says
    so, and at which distances.

    Args:
      mediation: what `mediate` returns.
      key: draws the pairs of the bootstrap.
      num: how often they are drawn.
      level: of the intervals.
      tolerance: the proportion is given only where |mean total| exceeds this share of mean |total|, so that pairs do
        not cancel; its interval, where all bootstrap draws do (it is unbounded otherwise).
      relative: give all effects as such ratios; total = indirect + direct + interaction = 1.
      bins: how many bins of equally many pairs, by the distance of x and x', the share of interaction is given in.
      limit: the largest share of interaction at which "the effect through" counts as well defined.

    Raises:
      ValueError: for num < 2 or a level outside (0, 1).
    """
    check_bootstrap(num, level)
    return _summarize((num, relative, bins), mediation, key, level, tolerance, limit)


@functools.partial(jax.jit, static_argnums=0)
def _summarize(sizes, mediation, key, level, tolerance, limit):
    num, relative, bins = sizes
    valid = ~jnp.isnan(mediation.total)
    effects = [jnp.where(jnp.expand_dims(valid, range(e.ndim - 1)), e, 0.0) for e in mediation[:4]]
    weights = bootstrap_weights(key, valid, num)  # [num + 1, N], the first row being the sample itself
    effects, means = Mediation(*effects), Mediation(*(means_of(weights, effect) for effect in effects))
    size = means_of(weights, jnp.abs(effects.total))
    whole = jnp.where(jnp.abs(means.total) > tolerance * size, means.total, jnp.nan)
    shares = Mediation(means.total / whole, *(m / whole[:, None] for m in means[1:4]))
    estimates = [interval(m, level) for m in (*(shares if relative else means)[:4], shares.indirect)]
    total, direct, indirect, interaction, proportion = estimates
    counts = jnp.sum(valid), jnp.sum(~valid)
    share = interaction_share(
        effects.interaction, effects.total, mediation.distance, weights, (bins, level, jnp.asarray(limit))
    )
    return MediationSummary(total, direct, indirect, interaction, proportion, *counts, share)
