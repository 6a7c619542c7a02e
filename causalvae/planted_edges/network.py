"""The network that edges are planted in: five linear maps with ReLU after two of them, and which edges carry what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from causalvae import objectives
from causalvae.architectures import Architecture, Outputs, Posterior, sample_posterior
from causalvae.data.base import Dataset
from causalvae.interventions._runs import Run
from causalvae.model import image_of
from causalvae.planted import BLOCK, BLOCKS, CONTRAST, FACTORS, linear_world
from causalvae.sites import Tap, no_tap

PyTree = Any
HIDDEN, LATENTS = 16, 6
SHAPE = (BLOCK, BLOCK * BLOCKS, 1)
LINKS = (("encoder/hidden", "latent/z"), ("latent/z", "decoder/hidden"))
"""The pairs of sites between which edges are planted."""
MODULATION = 0.4  # by how much the first factor scales the nuisance


# --- forward ---------------------------------------------------------------------------------------------


def linear(params: PyTree, x: jax.Array) -> jax.Array:
    """Returns x weight + bias [B, out]."""
    return x @ params["weight"] + params["bias"][None]


def encode(params: PyTree, x: jax.Array, tap: Tap = no_tap) -> Posterior:
    """Pixels to blocks to hidden units to latents; the posterior is narrow."""
    blocks = linear(params["pixels"], x.reshape(x.shape[0], -1))
    h = tap("encoder/hidden", jax.nn.relu(linear(params["hidden"], blocks)))
    mean = tap("latent/mean", linear(params["mean"], h))
    return Posterior(mean, tap("latent/log_variance", jnp.full_like(mean, np.log(1e-4))))


def to_image(params: PyTree, z: jax.Array, tap: Tap = no_tap) -> jax.Array:
    """Latents to hidden units to blocks to pixels."""
    g = tap("decoder/hidden", jax.nn.relu(linear(params["decoder"], z)))
    return linear(params["image"], linear(params["blocks"], g)).reshape(z.shape[0], *SHAPE)


def decode(params: PyTree, z: jax.Array, tap: Tap = no_tap) -> jax.Array:
    """Logits of the image, which lies within (0, 1)."""
    image = jnp.clip(to_image(params, z, tap), 1e-6, 1 - 1e-6)
    return jnp.log(image) - jnp.log1p(-image)


def forward(params: PyTree, x: jax.Array, key: jax.Array | None = None, tap: Tap = no_tap) -> Outputs:
    """Images x [B, 4, 16, 1]; the output is the image itself, so that it is as linear as the network."""
    posterior = encode(params, x, tap)
    z = tap("latent/z", sample_posterior(posterior, key))
    image = tap("decoder/image", to_image(params, z, tap))
    return Outputs(image, image, z, posterior)


def represent(params: PyTree, x: jax.Array) -> jax.Array:
    """Returns the posterior mean [B, d] of images."""
    return encode(params, x).mean


def activity(params: PyTree, x: jax.Array) -> jax.Array:
    """Returns the mean KL of each latent [d] over images, in nats."""
    return jnp.mean(objectives.kl_divergence(*encode(params, x)), axis=0)


def init(key: jax.Array) -> PyTree:
    """A network with nothing planted: all weights zero."""
    del key
    pixels = BLOCK * BLOCK * BLOCKS
    sizes = {
        "pixels": (pixels, BLOCKS),
        "hidden": (BLOCKS, HIDDEN),
        "mean": (HIDDEN, LATENTS),
        "decoder": (LATENTS, HIDDEN),
        "blocks": (HIDDEN, BLOCKS),
        "image": (BLOCKS, pixels),
    }
    return {name: {"weight": jnp.zeros(size), "bias": jnp.zeros(size[1])} for name, size in sizes.items()}


def loss(params, images, key, hyper, step):
    """No loss: always a ValueError, for planted models are not trained."""
    raise ValueError("planted models have the weights they were given; they are not trained")


MODEL = Architecture(
    "planted_edges", SHAPE, LATENTS, {}, init, forward, encode, decode, represent, activity, loss
)  # fmt: skip


@struct.dataclass
class BlockOutcome:
    """The brightness of one block of the decoded image, in units of factor values: an outcome that is the same
    linear function of every image, so that an effect without a direction has a mean of zero."""

    block: int | jax.Array

    def __call__(self, run: Run, base: Run, source: Run) -> jax.Array:
        image = image_of(run.outputs).reshape(-1, BLOCK, BLOCKS, BLOCK)
        return (jnp.take(image.mean(axis=(1, 3)), jnp.asarray(self.block), axis=1) - 0.5) / CONTRAST


# --- what is planted -------------------------------------------------------------------------------------


class PlantedEdges(NamedTuple):
    """A network, its parameters, the world it lives in, and the edges that carry each factor."""

    name: str
    model: Architecture
    params: PyTree
    dataset: Dataset
    edges: dict[str, dict[tuple[str, str], np.ndarray]]  # factor -> link -> bool [U, W]

    def weights(self, link: tuple[str, str]) -> np.ndarray:
        """The weights [U, W] of all edges of a link, of those that carry something and of decoys.

        Args:
          link: one of `LINKS`.
        """
        return np.asarray(self.params[{LINKS[0]: "mean", LINKS[1]: "decoder"}[link]]["weight"])


class Unit(NamedTuple):
    """A hidden unit, or a latent: what it reads, by name, and its bias."""

    reads: Mapping[str, float]
    bias: float = 0.0
    acts: bool = True  # False: its ReLU is off whatever it reads


class Wiring(NamedTuple):
    """Units by name. Hidden units read blocks, latents hidden units, decoder units latents, blocks decoder units."""

    hidden: Mapping[str, Unit]
    latents: Mapping[str, Unit]
    decoder: Mapping[str, Unit]
    blocks: Mapping[str, Unit]


def build(name: str, wiring: Wiring, generator: np.random.Generator, noise: float) -> PlantedEdges:
    """Returns the network, its units shuffled, and the edges by which each factor can reach the image."""
    inputs = {block: i for i, block in enumerate((*FACTORS, "nuisance"))}
    sizes = (BLOCKS, HIDDEN, LATENTS, HIDDEN, BLOCKS)
    places = [inputs]
    for units, size in zip(wiring[:3], sizes[1:4], strict=True):
        places.append(dict(zip(units, generator.permutation(size)[: len(units)].tolist(), strict=True)))
    places.append(inputs)
    params = {"pixels": _read_pixels(), "image": _write_pixels()}
    for number, layer in enumerate(("hidden", "mean", "decoder", "blocks")):
        weight, bias = np.zeros(sizes[number : number + 2]), np.zeros(sizes[number + 1])
        for unit, (reads, offset, _) in wiring[number].items():
            bias[places[number + 1][unit]] = offset
            for sender, strength in reads.items():
                weight[places[number][sender], places[number + 1][unit]] = strength
        params[layer] = {"weight": weight, "bias": bias}
    world = linear_world(noise=noise, modulation=MODULATION)
    return PlantedEdges(name, MODEL, jax.tree.map(jnp.float32, params), world, _carrying(wiring, places))


def _read_pixels() -> dict[str, np.ndarray]:
    """Blocks' values from pixels: (their mean - 0.5) / CONTRAST."""
    block = np.tile(np.repeat(np.arange(BLOCKS), BLOCK), BLOCK)
    weight = np.eye(BLOCKS)[block] / (BLOCK * BLOCK * CONTRAST)
    return {"weight": weight, "bias": np.full(BLOCKS, -0.5 / CONTRAST)}


def _write_pixels() -> dict[str, np.ndarray]:
    """Pixels from blocks' values: 0.5 + CONTRAST times the value."""
    block = np.tile(np.repeat(np.arange(BLOCKS), BLOCK), BLOCK)
    return {"weight": CONTRAST * np.eye(BLOCKS)[block].T, "bias": np.full(len(block), 0.5)}


def _carrying(wiring: Wiring, places: Sequence[Mapping[str, int]]) -> dict[str, dict[tuple[str, str], np.ndarray]]:
    """Factor -> link -> edges: their sender changes with the factor, and their receiver leads to the image."""
    writes = {g for unit in wiring.blocks.values() for g, w in unit.reads.items() if w and wiring.decoder[g].acts}
    leads = {z for g in writes for z, w in wiring.decoder[g].reads.items() if w}
    found = {}
    for factor in FACTORS:
        hidden = {h for h, unit in wiring.hidden.items() if unit.acts and unit.reads.get(factor)}
        latents = {z for z, unit in wiring.latents.items() if any(unit.reads.get(h) for h in hidden)}
        masks = []
        for number, senders, receivers in ((1, hidden, leads), (2, latents, writes)):
            mask = np.zeros(((HIDDEN, LATENTS), (LATENTS, HIDDEN))[number - 1], bool)
            for receiver in receivers:
                for sender in senders & set(wiring[number][receiver].reads):
                    mask[places[number][sender], places[number + 1][receiver]] = True
            masks.append(mask)
        found[factor] = dict(zip(LINKS, masks, strict=True))
    return found
