"""UDR: unsupervised disentanglement ranking, the agreement of models trained alike (Duan et al. 2020)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.linear_model import Lasso

from causalvae.metrics import inputs


class UDR(NamedTuple):
    """How alike the members of an ensemble are, [0, 1]: no factors needed."""

    scores: np.ndarray  # [members], the median of a member's scores against the others
    pairwise: np.ndarray  # [members, members], NaN on the diagonal


def udr(
    codes: Sequence[ArrayLike],
    active: Sequence[ArrayLike] | None = None,
    correlation: str = "lasso",
    reference: bool = False,
) -> UDR:
    """How far two models' latents match one to one, up to order and sign. Needs no factors.

    Source: Duan et al. 2020 (arXiv:1905.12614), section 4. R[a, b] is the strength by which latent a of one
    model gives latent b of another: the weight of a lasso regression (alpha 0.1) of standardised latents, or
    Spearman's correlation, in absolute value. A pair scores the mean, over the active latents of both, of max
    R^2 / sum R along that latent's row or column; a member scores the median over the others.
    Args: codes: [members, N, d] or a list of [N, d_m] (members may differ in d), the same N inputs in each;
    active: for each member [d_m] bool, the latents with a mean KL above 0.01 nats; None: those that are not
    constant;
    correlation: "lasso" or "spearman"; reference=True averages the two models' means, as disentanglement_lib
    does, where the paper averages over all latents (the same where both have as many active latents).
    Range [0, 1]; ceiling 1 for "spearman" (copies up to order and sign), 0.9 for "lasso", whose penalty
    shrinks every weight by 0.1. Known weakness: it measures agreement, so models that all make the same
    mistake score well, and so do models with one active latent.
    Defined answers: a pair in which a model has no active latent scores 0; a latent that relates to nothing
    adds 0.
    Raises ValueError for fewer than two members, another N, and an unknown correlation.
    """
    if correlation not in CORRELATIONS:
        raise ValueError(f"unknown correlation {correlation!r}; there are {', '.join(CORRELATIONS)}")
    if len(codes) < 2:
        raise ValueError(f"UDR compares models: give at least 2 members, not {len(codes)}")
    members = [inputs.check_codes(member, f"codes of member {m}") for m, member in enumerate(codes)]
    sizes = {len(member) for member in members}
    if len(sizes) > 1:
        raise ValueError(f"members must have codes of the same inputs, but they have {sorted(sizes)} rows")
    chosen = [_active(member, None if active is None else active[m], m) for m, member in enumerate(members)]
    pairwise = np.full((len(members), len(members)), np.nan)
    for i, j in itertools.permutations(range(len(members)), 2):
        pairwise[i, j] = _agreement(CORRELATIONS[correlation](chosen[i], chosen[j]), reference)
    return UDR(np.nanmedian(pairwise, axis=0), pairwise)


def _active(codes: np.ndarray, active: ArrayLike | None, member: int) -> np.ndarray:
    """The active latents of one member, standardised; constant ones never count."""
    live = ~inputs.dead_latents(codes)
    if active is not None:
        active = np.asarray(active, bool)
        if active.shape != live.shape:
            raise ValueError(f"active of member {member} must be [{len(live)}], not {list(active.shape)}")
        live = live & active
    codes = codes[:, live].astype(np.float64)
    return (codes - codes.mean(axis=0)) / codes.std(axis=0)


def _agreement(strength: np.ndarray, reference: bool) -> float:
    """One pair's score from its strengths [d_a, d_b]."""
    if strength.size == 0:
        return 0.0
    parts = [_relative(strength), _relative(strength.T)]
    return float(np.mean([part.mean() for part in parts]) if reference else np.concatenate(parts).mean())


def _relative(strength: np.ndarray) -> np.ndarray:
    total = strength.sum(axis=1)
    return strength.max(axis=1) ** 2 / np.where(total > 0, total, 1.0)


def _lasso(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if 0 in (a.shape[1], b.shape[1]):
        return np.zeros((a.shape[1], b.shape[1]))
    return np.abs(np.atleast_2d(Lasso(alpha=0.1).fit(a, b).coef_)).T


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    ranks = [rankdata(x, axis=0) if x.shape[1] else x for x in (a, b)]
    centred = [x - x.mean(axis=0) for x in ranks]
    unit = [x / np.linalg.norm(x, axis=0) for x in centred]
    return np.abs(unit[0].T @ unit[1])


CORRELATIONS = {"lasso": _lasso, "spearman": _spearman}
