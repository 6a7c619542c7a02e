"""Units of every site taken from the other run of a counterfactual pair, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from causalvae import interventions
from causalvae.data.base import Dataset
from causalvae.interventions._runs import base_run
from causalvae.interventions.latents import image_distance
from experiments.explorer.content import Detail, PairsShown, Site, Strengths
from experiments.explorer.replaced import Runner

PAIRS_SHOWN = 8  # one for each factor, up to this
PAIRS_OF_CIRCUIT = 16  # of each factor, that effects of edges are means over, up to this


def draw_pairs(runner: Runner, dataset: Dataset, key: jax.Array, num: int) -> tuple[PairsShown, list[np.ndarray]]:
    """One pair of each factor, out of `num` the one whose images differ most; and the first few of those that were
    drawn of it, both ends [N, 2, H, W, C].

    ValueError where no factor admits a pair.
    """
    found, drawn, reasons = [], [], []
    for k in range(dataset.num_factors):
        if len(found) == PAIRS_SHOWN:
            break
        try:
            pairs = interventions.counterfactuals(dataset, jax.random.fold_in(key, k), k, num)
        except ValueError as error:  # a factor with one value only, or an attribute that nearly all images share
            reasons.append(str(error))
            continue
        ends = np.stack([pairs.x, pairs.x_source], axis=1)
        assert pairs.factors is not None and pairs.factors_source is not None  # what counterfactuals gives has them
        best = int(np.argmax(np.square(ends[:, 0] - ends[:, 1]).reshape(num, -1).sum(axis=1)))
        found.append((k, np.stack([pairs.factors[best], pairs.factors_source[best]]), ends[best]))
        drawn.append(ends[:PAIRS_OF_CIRCUIT])
    if not found:
        reason = reasons[0] if reasons else "there are no factors"
        raise ValueError(f"{dataset.name} ({dataset.source}): no factor admits a pair of images: {reason}")
    factor, factors, images = zip(*found)
    images = np.stack(images)
    decoded, _ = runner(images.reshape(-1, *images.shape[2:]))
    decoded = decoded.reshape(images.shape)
    total = np.asarray(image_distance(decoded[:, 0], decoded[:, 1], "l2"))
    attributes = dataset.factor_kind == "attributes"
    return PairsShown(factor, attributes, np.stack(factors), images, decoded, total), drawn


def patch_sites(runner: Runner, shown: PairsShown, rows: int, strengths: Strengths, detail: Detail) -> Iterator[Site]:
    """Every site of the runner, with the effect of each of its units in every pair.

    rows: so many pairs are run at once, filled up with pairs of one image with itself, in which nothing changes.
    """
    model, params, num = runner.model, runner.params, len(shown.images)
    x, x_source = shown.images[:, 0], shown.images[:, 1]
    ends = (np.concatenate([end, np.repeat(x[:1], -num % rows, axis=0)]) for end in (x, x_source))
    blocks: list[Any] = list(zip(*(end.reshape(-1, rows, *end.shape[1:]) for end in ends)))
    sources = [base_run(model.forward, params, end, None)[0].activations for _, end in blocks]
    for site in runner.shapes:
        source = np.concatenate([run[site] for run in sources])
        effects = [interventions.patch_effects(model, params, pair, site, per_pair=True) for pair in blocks]
        effect, change, recovery, _ = (np.concatenate(parts, axis=1)[:, :num] for parts in zip(*effects))
        response = None if runner.codes else change / np.where(strengths.scale > 0, strengths.scale, np.nan)
        pictured = strongest_units(runner, site, effect, detail)
        pair = np.repeat(np.arange(num), pictured.shape[1])
        pictures, _ = runner(x[pair], site, pictured.reshape(-1), source[pair])
        pictures = pictures.reshape(*pictured.shape, *pictures.shape[1:])
        yield Site(site, runner.shapes[site].shape[1:], effect, recovery, response, pictured, pictures)


def strongest_units(runner: Runner, site: str, effect: np.ndarray, detail: Detail) -> np.ndarray:
    """The units [P, n] with the largest effects [U, P] in each pair: those whose pictures are kept."""
    most = detail.of_map if len(runner.shapes[site].shape) > 2 else detail.of_vector
    most = len(effect) if site == runner.code_site else max(1, most // effect.shape[1])
    return np.argsort(-effect, axis=0, kind="stable")[:most].T
