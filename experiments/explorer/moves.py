"""Latents of a few images moved: how strong each one is, and what every move does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import evaluation, interventions, metrics
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.interventions.latents import image_distance
from experiments.explorer.content import Moves, Strengths
from experiments.explorer.replaced import Runner

PyTree = Any
LATENTS_SHOWN = 16  # the strongest
CODES_SHOWN = 12  # of a codebook: the ones most in use
SWEEP = interventions.Sweep(-3.0, 3.0, 13)  # the family of evaluation.SWEEP, in half steps
STRENGTH_IMAGES = 16


def evaluated_strengths(found: evaluation.Evaluation | Mapping[str, Any], codes: bool) -> Strengths | None:
    """The strengths of latents, or of codes, that an evaluation found. found: it, or what results.json holds of it;
    None where that does not say."""
    measured = _as_mapping(found).get("code_effects" if codes else "latents")
    return None if measured is None else _strengths_of(measured)


def _strengths_of(measured: Any) -> Strengths:
    names = ("ces_l2", "ces_l2_error", "specificity_outputs", "activity", "scale")
    whole = {"activity": np.nan, "scale": 1.0} | dict(_as_mapping(measured))  # which of these codes have none
    return Strengths(*np.broadcast_arrays(*(np.array(whole[name], np.float64) for name in names)))


def _as_mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else found._asdict()


def measure_strengths(
    model: Architecture, params: PyTree, dataset: Dataset, key: jax.Array, num: int = STRENGTH_IMAGES
) -> Strengths:
    """Causal effect strength and specificity of every latent, or of every code, over `num` images."""
    _, images = dataset.sample(key, num)
    if model.codebook:
        return _strengths_of(evaluation.swap_codes(model, params, images, key))
    outputs = evaluation.reconstruct(model.forward, params, images)
    scale, activity = evaluation.aggregate_scale(*outputs.posterior), model.activity(params, images)
    responses = ("l2", "outputs")
    found = interventions.perturb_latents(model, params, outputs.z, evaluation.SWEEP, key, response=responses)
    strength = metrics.effect_strength(found["l2"])
    outputs = found["outputs"].reshape(len(strength.mean), -1)
    specificity = metrics.intervention_specificity(outputs).normalized
    return Strengths(*(np.asarray(a, np.float64) for a in (*strength, specificity, activity, scale)))


def draw_images(dataset: Dataset, key: jax.Array, num: int, at_once: int) -> tuple[np.ndarray, np.ndarray]:
    """(factors [num, K], images [num, H, W, C]), drawn `at_once` many at a time."""
    drawn = [dataset.sample(jax.random.fold_in(key, i), at_once) for i in range(-(-num // at_once))]
    factors, images = (np.concatenate([np.asarray(part) for part in parts])[:num] for parts in zip(*drawn))
    return factors, images


def move_latents(runner: Runner, factors: np.ndarray, images: np.ndarray, strengths: Strengths, starts: int) -> Moves:
    """The strongest latents of the first `starts` images, each set to every value in turn. Codes are set to those in
    use in any of the images."""
    decoded, z = runner(images)
    chosen = np.argsort(-np.nan_to_num(strengths.ces), kind="stable")[:LATENTS_SHOWN]
    values, replacement = offered_values(runner, z, chosen, starts)  # [M, V], [S, M, V, ...]
    own = runner.latents(z)[:starts][:, chosen]
    shape = (starts, *values.shape)
    row = np.repeat(np.arange(starts), values.size)
    unit = np.broadcast_to(chosen[None, :, None], shape).reshape(-1)
    pictures, _ = runner(images[row], runner.code_site, unit, replacement.reshape(-1, *replacement.shape[3:]))
    effect = np.asarray(image_distance(decoded[row], pictures, "l2")).reshape(shape)
    before, after = (runner.latents(runner(x)[1]) for x in (decoded[:starts], pictures))
    if runner.codes:
        response = (after != before[row]).astype(np.float64)
    else:
        response = np.abs(after - before[row]) / np.where(strengths.scale > 0, strengths.scale, np.nan)
    return Moves(
        factors[:starts],
        images[:starts],
        decoded[:starts],
        chosen,
        own,
        values,
        pictures.reshape(*shape, *pictures.shape[1:]),
        effect,
        response.reshape(*shape, -1),
    )


def offered_values(runner: Runner, z: np.ndarray, chosen: np.ndarray, starts: int) -> tuple[np.ndarray, np.ndarray]:
    """What latents are set to: values [M, V], and the activations [S, M, V, ...] that hold them.

    Latents take the values of SWEEP; codes the ones that are most in use in the images of z.
    """
    count = len(chosen)
    if not runner.codes:
        values = np.asarray(SWEEP.values(None, jnp.asarray(z[:starts])))  # [V, S, ..., d]
        replacement = np.broadcast_to(values.swapaxes(0, 1)[:, None], (starts, count, *values.shape[:1], *z.shape[1:]))
        return np.tile(np.linspace(SWEEP.low, SWEEP.high, SWEEP.num), (count, 1)), replacement
    values = most_used(runner.model, runner.params, runner.latents(z))[chosen]
    codes = runner.shapes[runner.code_site].shape[1:]
    filled = np.broadcast_to(values[None, :, :, *(None,) * len(codes)], (starts, *values.shape, *codes))
    return values, filled


def most_used(model: Architecture, params: PyTree, codes: np.ndarray) -> np.ndarray:
    """The codes [L, V] that are most in use in codes [N, L]: one list where all share a codebook, by usage; else
    one for each, in the order of the numbers that they stand for."""
    groups, size, _ = params["codebook"].shape
    num = min(CODES_SHOWN, size)
    if groups == 1:
        usage = np.bincount(codes.reshape(-1), minlength=size)
        return np.tile(np.argsort(-usage, kind="stable")[:num], (codes.shape[1], 1))
    lists = []
    for i in range(codes.shape[1]):
        usage = np.bincount(codes[:, i], minlength=size)
        used = np.argsort(-usage, kind="stable")[:num]
        lists.append(used[np.argsort(np.asarray(params["codebook"][i, used, 0]))])
    return np.stack(lists)
