"""UDR: unsupervised disentanglement ranking, the agreement of models trained alike (Duan et al. 2020)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from causalvae.metrics import inputs, regression
from causalvae.metrics.ties import TIE

CORRELATIONS = ("lasso", "spearman")
PENALTY = 0.1  # of the lasso: the paper's


class UDR(NamedTuple):
    """How alike the members of an ensemble are, [0, 1]: no factors needed."""

    scores: np.ndarray  # [members], the median of a member's scores against the others
    pairwise: np.ndarray  # [members, members], NaN on the diagonal


def udr(
    representations: Sequence[ArrayLike],
    active: Sequence[ArrayLike] | None = None,
    correlation: str = "lasso",
    reference: bool = False,
) -> UDR:
    """Computes how far two models' latents match one to one, up to order and sign. It needs no factors.

    R[a, b] is the strength by which latent a of one model gives latent b of another: the weight of a lasso regression
    (alpha 0.1) of standardized latents, or Spearman's correlation, in absolute value. A pair scores the mean, over the
    active latents of both, of max R^2 / sum R along that latent's row or column. A member scores the median over the
    others.
    Source: Duan et al. 2020 (arXiv:1905.12614), section 4.
    Range [0, 1]. The ceiling is 1 for "spearman" (copies up to order and sign) and 0.9 for "lasso", whose penalty
    shrinks every weight by 0.1. Known weakness: it measures agreement, so models that all make the same mistake score
    well, and so do models with one active latent.

    A pair in which a model has no active latent scores 0. A latent that relates to nothing adds 0. Values of a latent
    closer than 1e-6 of its range tie. Compiled: `udr_kernel`.

    Args:
      representations: [members, N, d], or a list of [N, d_m]: members may differ in d, and all have the same N inputs.
      active: for each member [d_m] bool, the latents with a mean KL above 0.01 nats; None for those that are not
        constant.
      correlation: "lasso" or "spearman".
      reference: True averages the two models' means, as disentanglement_lib does, where the paper averages over all
        latents (the same where both have as many active latents).

    Returns:
      The members' scores, and those of every pair.

    Raises:
      ValueError: for fewer than two members, members with other N, and an unknown correlation.
    """
    if correlation not in CORRELATIONS:
        raise ValueError(f"unknown correlation {correlation!r}; there are {', '.join(CORRELATIONS)}")
    if len(representations) < 2:
        raise ValueError(f"UDR compares models: give at least 2 members, not {len(representations)}")
    members = [
        inputs.check_representations(member, f"representations of member {m}")
        for m, member in enumerate(representations)
    ]
    sizes = {len(member) for member in members}
    if len(sizes) > 1:
        raise ValueError(f"members must have representations of the same inputs, but they have {sorted(sizes)} rows")
    live = [_active(member, None if active is None else active[m], m) for m, member in enumerate(members)]
    width = max(member.shape[1] for member in members)

    def stacked(parts: list[np.ndarray]) -> np.ndarray:  # latents that a member does not have are inactive
        pads = [(*[(0, 0)] * (part.ndim - 1), (0, width - part.shape[-1])) for part in parts]
        return np.stack([np.pad(part, pad) for part, pad in zip(parts, pads, strict=True)])

    found = udr_kernel(stacked([inputs.for_kernel(m) for m in members]), stacked(live), correlation, reference)
    return UDR(*map(np.asarray, found))


def _active(representations: np.ndarray, active: ArrayLike | None, member: int) -> np.ndarray:
    """The active latents [d] bool of one member; constant ones never count."""
    live = ~inputs.dead_latents(representations)
    if active is None:
        return live
    active = np.asarray(active, bool)
    if active.shape != live.shape:
        raise ValueError(f"active of member {member} must be [{len(live)}], not {list(active.shape)}")
    return live & active


@functools.partial(jax.jit, static_argnames=("correlation", "reference"))
def udr_kernel(
    representations: Array, active: Array, correlation: str = "lasso", reference: bool = False
) -> tuple[Array, Array]:
    """Computes `udr` under `jax.jit` and `jax.vmap`.

    It needs memory for N values for each latent of each member.

    Args:
      representations: [members, N, d] float32.
      active: [members, d] bool.
      correlation: "lasso" or "spearman".
      reference: see `udr`.

    Returns:
      Scores [members] and pairwise scores [members, members].
    """
    prepare = regression.standardized if correlation == "lasso" else _standard_ranks
    active = active & ~jax.vmap(inputs.dead_latents)(representations)
    x = jnp.where(active[:, None], jax.vmap(prepare)(representations), 0)
    products = jnp.einsum("ina,jnb->ijab", x, x, precision=regression.HIGHEST) / representations.shape[1]
    strength = jnp.abs(products)
    if correlation == "lasso":
        gram = jnp.einsum("iiab->iab", products)
        fit = functools.partial(regression.lasso, alpha=PENALTY)
        strength = jnp.abs(jax.vmap(jax.vmap(fit, in_axes=(None, 0)))(gram, products))
    agree = jax.vmap(jax.vmap(functools.partial(_agreement, reference=reference), (0, None, 0)), (0, 0, None))
    pairwise = jnp.where(jnp.eye(len(representations), dtype=bool), jnp.nan, agree(strength, active, active))
    return jnp.nanmedian(pairwise, axis=0), pairwise


def _standard_ranks(representations: Array) -> Array:
    """Ranks of representations [N, d] with mean 0 and deviation 1; values closer than 1e-6 of a latent's range tie, and
    take the mean of their ranks."""
    num = len(representations)

    def ranks(column: Array) -> Array:
        order = jnp.argsort(column)
        ordered, place = column[order], jnp.arange(num)
        starts = jnp.append(True, jnp.diff(ordered) > TIE * (ordered[-1] - ordered[0]))
        first = jax.lax.cummax(jnp.where(starts, place, 0))
        last = jax.lax.cummin(jnp.where(jnp.append(starts[1:], True), place, num), reverse=True)
        return jnp.zeros(num).at[order].set((first + last - (num - 1)) / 2)

    return regression.standardized(jax.vmap(ranks, 1, 1)(representations))


def _agreement(strength: Array, rows: Array, columns: Array, reference: bool) -> Array:
    """One pair's score [] from its strengths [a, b], which are 0 where a latent of `rows` [a] or `columns` [b]
    is inactive."""
    parts = _relative(strength), _relative(strength.T)
    totals = jnp.stack([part.sum() for part in parts])
    counts = jnp.stack([live.sum() for live in (rows, columns)])
    score = jnp.mean(totals / jnp.maximum(counts, 1)) if reference else totals.sum() / jnp.maximum(counts.sum(), 1)
    return jnp.where(counts.all(), score, 0.0)


def _relative(strength: Array) -> Array:
    total = strength.sum(axis=1)
    return strength.max(axis=1) ** 2 / jnp.where(total > 0, total, 1.0)
