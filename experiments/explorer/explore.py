"""The explorer of one trained model, computed.

    explored = explore(model, params, dataset, jax.random.key(0))     # arrays, see content.py
    page = packing.as_json(explored)                                  # for explorer.js, on a page or in a notebook

Numbers are those of `perturb_latents`, `patch_effects` and `edge_effects`; what is added here is the image behind every
number. The explorer of a model with discrete codes moves and swaps its codes, that of any other its latents.
"""

from __future__ import annotations

from typing import Any

import jax

from causalvae import evaluation
from causalvae.architectures import Architecture, inference_params
from causalvae.data.base import Dataset
from causalvae.interventions._checks import default_chunk
from experiments.explorer.circuits import LEFT_OUT, trace_circuits
from experiments.explorer.content import Circuits, Detail, Explored, Strengths
from experiments.explorer.moves import draw_images, measure_strengths, move_latents
from experiments.explorer.patches import draw_pairs, patch_sites
from experiments.explorer.replaced import ROWS, Runner, code_site, latent_names

PyTree = Any
WHOLE = Detail()


def explore(
    model: Architecture,
    params: PyTree,
    dataset: Dataset,
    key: jax.Array,
    sites: str = "*",
    pairs: int = 16,
    strengths: Strengths | None = None,
    detail: Detail = WHOLE,
) -> Explored:
    """Computes everything that the explorer of one trained model shows.

    Args:
        model: the architecture, and `params` its parameters.
        dataset: where images and counterfactual pairs come from.
        key: of what is drawn.
        sites: patterns separated by commas, the sites to patch; the one that holds the latents is always there.
        pairs: counterfactual pairs drawn of each factor, of which the one whose two images differ most is shown.
        strengths: of the latents, where they are known (`moves.evaluated_strengths`); None measures them.
        detail: how many pictures there are, and whether the circuits of factors are.

    Raises:
        ValueError: for sites that do not exist, and where the data set admits no pair.
    """
    keys, params = jax.random.split(key, 3), inference_params(model, params)
    if strengths is None:
        strengths = measure_strengths(model, params, dataset, keys[0])
    runner = Runner(model, params, patched_sites(model, dataset, sites))
    factors, images = draw_images(dataset, keys[1], ROWS if runner.codes else detail.starts, at_once=pairs)
    moves = move_latents(runner, factors, images, strengths, detail.starts)
    shown, drawn = draw_pairs(runner, dataset, keys[2], pairs)
    rows = min(pairs, default_chunk())
    return Explored(
        dataset.factor_names,
        dataset.factor_sizes,
        latent_names(runner),
        runner.codes,
        runner.code_site,
        strengths,
        moves,
        shown,
        tuple(patch_sites(runner, shown, rows, strengths, detail)),
        trace_circuits(runner, shown, drawn, dataset.factor_names) if detail.circuits else Circuits(missing=LEFT_OUT),
    )


def patched_sites(model: Architecture, dataset: Dataset, sites: str) -> tuple[str, ...]:
    """The sites that the patterns name and the one that holds the codes, in forward order."""
    settings = evaluation.Settings(sites=f"{sites},{code_site(model)}")
    return evaluation.chosen_sites(settings, model, dataset)
