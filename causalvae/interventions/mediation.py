"""Causal mediation: how much of the effect of x -> x' on an outcome passes through given units."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from causalvae.interventions import engine
from causalvae.interventions.engine import Run
from causalvae.interventions.factors import Pairs
from causalvae.sites import check_site, run_shapes

PyTree = Any


# --- outcomes: functions (run, base, source) of rows [C] -> [C] ------------------------------------------


def projected_change(run: Run, base: Run, source: Run) -> jax.Array:
    """<D(run) - D(x), D(x') - D(x)> / |D(x') - D(x)|^2: 0 in the run of x, 1 in that of x'.

    Source: this library. NaN for a pair whose two images are decoded alike (`engine.image_change`): there is no
    change to project on. Means over pairs are means of ratios; `unscaled_projection` gives ratios of sums.
    """
    start, end = (engine.image_of(r.outputs) for r in (base, source))
    return unscaled_projection(run, base, source) / jnp.square(engine.image_change(start, end))


def unscaled_projection(run: Run, base: Run, source: Run) -> jax.Array:
    """<D(run) - D(x), D(x') - D(x)>: 0 in the run of x, |D(x') - D(x)|^2 in that of x'. NaN as above.

    Source: this library. The mean effect over the mean total effect is then a ratio of sums over pairs, in which a
    pair with little change has little weight: what `summarize(..., relative=True)` and `find_circuit` report.
    """
    image, start, end = (engine.image_of(r.outputs) for r in (run, base, source))
    projection = jnp.sum((image - start) * (end - start), axis=tuple(range(1, image.ndim)))
    return jnp.where(engine.image_change(start, end) > 0, projection, jnp.nan)


@struct.dataclass
class LatentOutcome:
    """The value of one latent (its mean over positions, where it has any). The index is an argument of the
    compiled program: another one does not recompile."""

    index: int | jax.Array

    def __call__(self, run: Run, base: Run, source: Run) -> jax.Array:
        return jnp.take(_vector(run), self.index, axis=1)

    def check(self, run: Run) -> None:
        """ValueError if a concrete index is out of range."""
        num = jax.eval_shape(_vector, run).shape[1]
        if not isinstance(self.index, jax.core.Tracer) and not 0 <= int(self.index) < num:
            raise ValueError(f"no latent {self.index}: the model has latents 0 to {num - 1}")


@struct.dataclass
class FactorReadout:
    """A linear readout of the latents, <weights, z> + bias: a factor as a fitted linear probe reads it."""

    weights: jax.Array  # [d]
    bias: float | jax.Array = 0.0

    def __call__(self, run: Run, base: Run, source: Run) -> jax.Array:
        return _vector(run) @ jnp.asarray(self.weights) + self.bias

    def check(self, run: Run) -> None:
        """ValueError unless there is one weight for each latent."""
        num = jax.eval_shape(_vector, run).shape[1]
        if jnp.shape(self.weights) != (num,):
            raise ValueError(f"a readout needs one weight per latent [{num}], not {list(jnp.shape(self.weights))}")


def _vector(run: Run) -> jax.Array:
    """The latents [C, d] of a run, averaged over positions."""
    z = engine.latent_of(run.outputs)
    return jnp.mean(z, axis=tuple(range(1, z.ndim - 1)))


# --- mediation -------------------------------------------------------------------------------------------


class Mediation(NamedTuple):
    """Effects of every pair: total = indirect + direct + interaction."""

    total: jax.Array  # [N] Y(x') - Y(x)
    direct: jax.Array  # [G, N] Y(x'; m <- m(x)) - Y(x)
    indirect: jax.Array  # [G, N] Y(x; m <- m(x')) - Y(x)
    interaction: jax.Array  # [G, N]


def mediate(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    site: str | Sequence[str],
    outcome: Callable[[Run, Run, Run], jax.Array] = projected_change,
    granularity: str | Mapping[str, Any] = "unit",
    key: jax.Array | None = None,
    chunk: int | None = None,
    units: Sequence[int] | None = None,
    capture: str | Sequence[str] = (),
) -> Mediation:
    """Total effect, natural direct and indirect effects and interaction, each group of units as the mediator.

    Source: Pearl 2001; the paper's own form is known only as "replacing one component's activation" (a third party's
    reimplementation takes one hidden channel from another trial: `indirect` alone). pairs: what `counterfactuals`
    gives, or (x, x').
    site, granularity, units: one site's units one at a time (or its positions, or the whole of it); several
        sites with "site" are one mediator together; masks, site -> bool [G, units], are any joint mediators.
    outcome: (run, base, source) -> one number per row: `projected_change`, `LatentOutcome(i)`,
        `FactorReadout(w)`, or any function that treats rows alike; run, base (x) and source (x') are
        `Run(outputs, activations)`, with the activations that `capture` names. Give a module-level function:
        a fresh lambda compiles afresh.
    key: the posterior's noise, the same in all runs of a pair; None takes the posterior mean.
    chunk: runs at once; bounds memory, not results.

    Raises ValueError for an outcome that does not return one number per pair, and as `patch_effects` does.
    """
    return _mediate(_effects, model, params, pairs, site, outcome, granularity, key, chunk, units, capture)


def indirect_effects(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    site: str | Sequence[str],
    outcome: Callable[[Run, Run, Run], jax.Array] = projected_change,
    granularity: str | Mapping[str, Any] = "unit",
    key: jax.Array | None = None,
    chunk: int | None = None,
    units: Sequence[int] | None = None,
    capture: str | Sequence[str] = (),
) -> tuple[jax.Array, jax.Array]:
    """(total [N], indirect [G, N]) of `mediate`, at half its cost."""
    return _mediate(_indirect, model, params, pairs, site, outcome, granularity, key, chunk, units, capture)


def _mediate(finish, model, params, pairs, site, outcome, granularity, key, chunk, units, capture):
    """Outcomes of the ends and of the patched runs, block by block, and what `finish` makes of them."""
    x, x_source = engine.unpack(pairs)
    shapes = engine.model_sites(model, params, x)
    groups = engine.make_groups(shapes, site, granularity, units)
    capture = (capture,) if isinstance(capture, str) else tuple(capture)
    for name in capture:
        check_site(name, shapes)
    forward, keys = getattr(model, "forward", model), engine.row_keys(key, x.shape[0])
    outcome, chunk = engine.as_pytree(outcome), engine.check_chunk(chunk)
    check_outcome(forward, capture, params, x, outcome)

    def block(rows, valid):
        x, x_source, keys = rows
        base, source, finite = engine.end_runs(forward, params, x, x_source, keys)
        ends = engine.captured(base, capture), engine.captured(source, capture)

        def patched(x, run, other):  # outcomes [G, P] of `run` with each group taken from `other`
            runs = engine.patched_runs(x, keys, run, {s: other.activations[s] for s in groups.selectors})
            start = engine.captured(run, capture)
            return patched_outcomes(forward, capture, chunk, params, runs, groups, outcome, start, ends)

        outcomes = [*end_outcomes(outcome, ends), patched(x, base, source)]
        if finish is _effects:
            outcomes.append(patched(x_source, source, base))
        return outcomes, finite

    effects, finite = engine.in_blocks(block, (x, x_source, keys), chunk, finish)
    engine.check_finite(finite)
    return effects


def _effects(blocks, num: int):
    (at_base, at_source, indirect, direct), finite = blocks
    at_base, at_source = at_base[:, None], at_source[:, None]
    at_base, at_source, indirect, direct = engine.merge_pairs((at_base, at_source, indirect, direct), num)
    total, indirect, direct = at_source - at_base, indirect - at_base, direct - at_base
    return Mediation(total[0], direct, indirect, total - direct - indirect), finite


def _indirect(blocks, num: int):
    (at_base, at_source, indirect), finite = blocks
    at_base, at_source, indirect = engine.merge_pairs((at_base[:, None], at_source[:, None], indirect), num)
    return ((at_source - at_base)[0], indirect - at_base), finite


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def patched_outcomes(forward, capture, chunk, params, patched, groups, outcome, unpatched, ends) -> jax.Array:
    """The outcome [G, P] of one block of runs with each group of units replaced. ends: the runs of x and
    x'.
    """
    measure = functools.partial(outcome_of_references, outcome)
    return engine.sweep(forward, capture, chunk, params, patched, groups, measure, unpatched, ends)


@jax.jit
def end_outcomes(outcome, ends: tuple[Run, Run]) -> tuple[jax.Array, jax.Array]:
    """The outcome [P] of the runs of x and of x'."""
    return outcome(ends[0], *ends), outcome(ends[1], *ends)


def outcome_of_references(outcome: Callable, run: Run, ends: tuple[Run, Run]) -> jax.Array:
    """The outcome as the `measure` of a sweep whose references are the runs of x and of x'."""
    return outcome(run, *ends)


def check_outcome(forward, capture, params, x, outcome) -> None:
    """ValueError unless the outcome gives one number per row, and exists for this model."""
    run = engine.captured(Run(*run_shapes(forward, params, x)), capture)
    if hasattr(outcome, "check"):  # in words of its own, before it fails in others
        outcome.check(run)
    value, _ = end_outcomes.eval_shape(outcome, (run, run))
    if getattr(value, "shape", None) != (x.shape[0],):
        shape = list(value.shape) if hasattr(value, "shape") else jax.tree.map(lambda v: list(v.shape), value)
        raise ValueError(
            f"an outcome must return one number per pair, [{x.shape[0]}] for {x.shape[0]} pairs, but this "
            f"one returned {shape}: reduce over all axes but the first, or mediate one component at a time"
        )


# --- summaries -------------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A mean over pairs with its bootstrap interval; all of one shape."""

    mean: jax.Array
    low: jax.Array
    high: jax.Array


class MediationSummary(NamedTuple):
    """Mean effects with bootstrap intervals over pairs, per group of units; `relative`: over the mean total effect."""

    total: Estimate  # []
    direct: Estimate  # [G]
    indirect: Estimate  # [G]
    interaction: Estimate  # [G]
    proportion: Estimate  # [G] indirect / total, means over pairs; NaN where totals cancel, see `summarize`
    pairs: jax.Array  # [] how many pairs counted
    left_out: jax.Array  # [] how many did not: their total effect is NaN


def summarize(
    mediation: Mediation,
    key: jax.Array,
    num: int = 1000,
    level: float = 0.95,
    tolerance: float = 0.05,
    relative: bool = False,
) -> MediationSummary:
    """Means over pairs with percentile bootstrap intervals: pairs are drawn again `num` times, the same for
    all groups.

    Pairs whose total effect is NaN (no change to project on) are left out and counted. The proportion mediated is
    a ratio of sums, mean indirect / mean total. tolerance: it is given only where |mean total| exceeds this share
    of mean |total|, so that pairs do not cancel; its interval, where all bootstrap draws do (it is unbounded
    otherwise). relative: give all effects as such ratios; total = indirect + direct + interaction = 1.
    Source: this library. Raises ValueError for num < 2 or a level outside (0, 1).
    """
    if num < 2 or not 0 < level < 1:
        raise ValueError(f"num must be at least 2 and level between 0 and 1, not {num} and {level}")
    return _summarize(num, relative, mediation, key, level, tolerance)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _summarize(num, relative, mediation, key, level, tolerance):
    valid = ~jnp.isnan(mediation.total)
    effects = jax.tree.map(lambda e: jnp.where(jnp.expand_dims(valid, range(e.ndim - 1)), e, 0.0), mediation)
    counts = _bootstrap_counts(key, valid, num)  # [num + 1, N], the first row being the sample itself
    weights = counts / jnp.sum(counts, axis=1, keepdims=True)

    def mean(effect):  # [..., N] -> [num + 1, ...]
        return jnp.matmul(weights, effect.T, precision=jax.lax.Precision.HIGHEST)

    means, size = jax.tree.map(mean, effects), mean(jnp.abs(effects.total))
    whole = jnp.where(jnp.abs(means.total) > tolerance * size, means.total, jnp.nan)
    shares = Mediation(means.total / whole, *(m / whole[:, None] for m in means[1:]))
    estimates = [_estimate(m, level) for m in (*(shares if relative else means), shares.indirect)]
    return MediationSummary(*estimates, jnp.sum(valid), jnp.sum(~valid))


def _bootstrap_counts(key: jax.Array, valid: jax.Array, num: int) -> jax.Array:
    """How often each valid pair [N] is drawn, in the sample itself and in `num` bootstrap draws: [num + 1,
    N].
    """
    size, count = valid.shape[0], jnp.sum(valid)
    order = jnp.argsort(~valid, stable=True)  # the valid pairs first
    drawn = jax.random.uniform(key, (num, size)) * count
    drawn = order[jnp.minimum(drawn.astype(jnp.int32), jnp.maximum(count - 1, 0))]
    # Draws beyond the number of valid pairs do not count: a resample is as large as the sample.
    counted = (jnp.arange(size) < count).astype(jnp.float32)
    rows = jnp.broadcast_to(jnp.arange(num)[:, None], drawn.shape)
    counts = jnp.zeros((num, size)).at[rows, drawn].add(jnp.broadcast_to(counted, drawn.shape))
    return jnp.concatenate([valid[None].astype(jnp.float32), counts])


def _estimate(means: jax.Array, level: float) -> Estimate:
    """The first row's value, with the percentile interval of the other rows."""
    tail = (1 - level) / 2
    low, high = jnp.quantile(means[1:], jnp.stack([tail, 1 - tail]), axis=0)
    return Estimate(means[0], low, high)
