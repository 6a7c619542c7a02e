"""What an explorer of one trained model shows, as arrays: latents moved, codes swapped, channels patched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Detail(NamedTuple):
    """How much an explorer shows: what fills a page is pictures."""

    starts: int = 3  # images whose latents are moved
    of_map: int = 72  # pictures of patched channels of one site, over all pairs; numbers are given of every unit
    of_vector: int = 48  # the same of a site without positions
    circuits: bool = True  # whether the circuits of factors are traced and drawn

    @classmethod
    def beside(cls, count: int, circuits: bool = True) -> Detail:
        """Of each of so many models side by side: a page of two stays within 3 MB."""
        return cls(max(1, 4 // count), 48 // count, 36 // count, circuits)


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


class Circuit(NamedTuple):
    """The strongest edges of one factor, and the image of its pair when one unit or one edge alone is patched."""

    nodes: list[dict[str, Any]] = []  # units, of `edges.edge_graph`: site, unit, effect, standard_error
    edges: list[dict[str, Any]] = []  # between them, likewise: source, target, effect, standard_error
    places: dict[str, tuple[float, float]] = {}  # node -> (layer, height in [0, 1])
    pictures: np.ndarray | None = None  # [nodes + edges, H, W, C]
    moved: np.ndarray | None = None  # [nodes + edges] Euclidean distance of the picture from the base's
    missing: str = ""  # why there is none


class Circuits(NamedTuple):
    """The circuits of all factors that have a pair, in the pairs' order."""

    sites: tuple[str, ...] = ()  # that they lead through, in forward order
    sizes: Sequence[int] = ()  # edges from each site to the next, of which the strongest are kept
    num: int = 0  # pairs of each factor that effects are means over
    factors: tuple[Circuit, ...] = ()
    missing: str = ""  # why there are none


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
    circuits: Circuits = Circuits()
