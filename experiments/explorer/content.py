"""What an explorer of one trained model shows, as arrays: latents moved, codes swapped, channels patched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Strengths(NamedTuple):
    """What is said of each latent (or code) as a whole, [L] each; NaN where undefined."""

    ces: np.ndarray  # causal effect strength, l2: Sweep(-3, 3, 7), or CodeSwap(7) of codes
    ces_error: np.ndarray  # its standard error over images
    specificity: np.ndarray  # over output values, normalized
    activity: np.ndarray  # KL in nats
    scale: np.ndarray  # s_i, the aggregate posterior's standard deviation; 1 of codes


class Moves(NamedTuple):
    """A few images, and each latent of each set to a range of values: do(z_i := v)."""

    factors: np.ndarray  # [S, K]
    images: np.ndarray  # [S, H, W, C] the data set's
    decoded: np.ndarray  # [S, H, W, C] D(z)
    latents: np.ndarray  # [M] int, strongest first
    own: np.ndarray  # [S, M] what they are in each image
    values: np.ndarray  # [M, V] what they are set to
    pictures: np.ndarray  # [S, M, V, H, W, C]
    effect: np.ndarray  # [S, M, V] Euclidean norm of the image's change
    # [S, M, V, L] change of every latent, in standard deviations, after decoding and encoding again; of codes,
    # whether the code is another
    response: np.ndarray


class PairsShown(NamedTuple):
    """One counterfactual pair of each factor, P in all."""

    factor: tuple[int, ...]  # that differs
    observational: bool  # matched on attributes, not counterfactual
    factors: np.ndarray  # [P, 2, K] of the base and of the source
    images: np.ndarray  # [P, 2, H, W, C]
    decoded: np.ndarray  # [P, 2, H, W, C]
    total: np.ndarray  # [P] Euclidean distance of the two decoded images


class Site(NamedTuple):
    """Every unit of a site taken from the source run, one at a time, in each pair."""

    name: str
    shape: tuple[int, ...]
    effect: np.ndarray  # [U, P] PatchEffects.output_change
    recovery: np.ndarray  # [U, P] NaN where the pair decodes alike
    response: np.ndarray | None  # [U, P, L] change of every latent in standard deviations; None of codes
    pictured: np.ndarray  # [P, n] the units with the largest effects
    pictures: np.ndarray  # [P, n, H, W, C]


class Explored(NamedTuple):
    """Everything that the explorer of one model shows."""

    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    latent_names: tuple[str, ...]  # [L]
    codes: bool  # whether latents are discrete codes
    code_site: str  # the site that latents are set and swapped at
    strengths: Strengths
    moves: Moves
    pairs: PairsShown
    sites: tuple[Site, ...]  # in forward order
