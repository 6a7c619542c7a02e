"""Outcomes: what an effect is measured on, `(run, base run, source run)` of rows [C] -> one number per row [C]."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.core import Tracer

from causalvae._programs import jit
from causalvae.interventions._runs import Outcome, Patched, Run, change_of_runs
from causalvae.interventions._sweep import sweep
from causalvae.interventions.factors import Pairs
from causalvae.model import image_of, latents_of
from causalvae.sites import run_shapes

PyTree = Any


def projected_change(run: Run, base: Run, source: Run) -> jax.Array:
    """Returns `<D(run) - D(x), D(x') - D(x)> / |D(x') - D(x)|^2`: 0 in the run of x, 1 in that of x'.

    Source: this library. NaN for a pair whose two images are decoded alike (up to 1e-5 of their norms): there is no
    change to project on. Means over pairs are means of ratios; `unscaled_projection` gives ratios of sums.
    """
    return unscaled_projection(run, base, source) / jnp.square(change_of_runs(base, source))


def unscaled_projection(run: Run, base: Run, source: Run) -> jax.Array:
    """Returns `<D(run) - D(x), D(x') - D(x)>`: 0 in the run of x, `|D(x') - D(x)|^2` in that of x'. NaN as above.

    Source: this library. The mean effect over the mean total effect is then a ratio of sums over pairs, in which a
    pair with little change has little weight: what `summarize(..., relative=True)` and `find_circuit` report.
    """
    image, start, end = (image_of(r.outputs) for r in (run, base, source))
    projection = jnp.sum((image - start) * (end - start), axis=tuple(range(1, image.ndim)))
    return jnp.where(change_of_runs(base, source) > 0, projection, jnp.nan)


@struct.dataclass
class LatentOutcome:
    """The value of one latent (its mean over positions, where it has any). The index is an argument of the
    compiled program: another one does not recompile."""

    index: int | jax.Array

    def __call__(self, run: Run, base: Run, source: Run) -> jax.Array:
        return jnp.take(_vector(run), jnp.asarray(self.index), axis=1)

    def check(self, run: Run) -> None:
        """Checks the index, where it is concrete.

        Raises:
          ValueError: for a latent that does not exist.
        """
        num = jax.eval_shape(_vector, run).shape[1]
        if not isinstance(self.index, Tracer) and not 0 <= int(self.index) < num:
            raise ValueError(f"no latent {self.index}: the model has latents 0 to {num - 1}")


@struct.dataclass
class FactorReadout:
    """A linear readout of the latents, `<weights, z> + bias`: a factor as a fitted linear probe reads it."""

    weights: jax.Array  # [d]
    bias: float | jax.Array = 0.0

    def __call__(self, run: Run, base: Run, source: Run) -> jax.Array:
        return _vector(run) @ jnp.asarray(self.weights) + self.bias

    def check(self, run: Run) -> None:
        """Checks the weights.

        Raises:
          ValueError: unless there is one for each latent.
        """
        num = jax.eval_shape(_vector, run).shape[1]
        if jnp.shape(self.weights) != (num,):
            raise ValueError(f"a readout needs one weight per latent [{num}], not {list(jnp.shape(self.weights))}")


def _vector(run: Run) -> jax.Array:
    """The latents [C, d] of a run, averaged over positions."""
    z = latents_of(run.outputs)
    return jnp.mean(z, axis=tuple(range(1, z.ndim - 1)))


# --- outcomes of runs ------------------------------------------------------------------------------------


@jit()
def outcome_of_ends(outcome: Outcome, ends: tuple[Run, Run]) -> tuple[jax.Array, jax.Array]:
    """Returns the outcome [P] of the base run and of the source run."""
    return outcome(ends[0], *ends), outcome(ends[1], *ends)


@jit(static=2)
def outcome_of_patched(forward, chunk, params, patched: Patched, groups, outcome, ends: tuple[Run, Run]) -> jax.Array:
    """Returns the outcome [G, P] of one block of runs with each group of units replaced."""
    return sweep(forward, chunk, params, patched, groups, functools.partial(of_references, outcome), ends)


def of_references(outcome: Callable, run: Run, ends: tuple[Run, Run]) -> jax.Array:
    """Returns the outcome as the `measure` of a sweep whose references are the base run and the source run."""
    return outcome(run, *ends)


def check_outcome(forward: Callable, params: PyTree, pairs: Pairs, outcome: Any) -> None:
    """ValueError unless the outcome gives one number per row, and exists for this model."""
    x = pairs.x
    run = Run(*run_shapes(forward, params, x, pairs.key))
    if hasattr(outcome, "check"):  # in words of its own, before it fails in others
        outcome.check(run)
    value, _ = outcome_of_ends.eval_shape(outcome, (run, run))
    if getattr(value, "shape", None) != (x.shape[0],):
        shape = list(value.shape) if hasattr(value, "shape") else jax.tree.map(lambda v: list(v.shape), value)
        raise ValueError(
            f"an outcome must return one number per pair, [{x.shape[0]}] for {x.shape[0]} pairs, but this "
            f"one returned {shape}: reduce over all axes but the first, or mediate one component at a time"
        )
