"""Models whose circuits are known because they were planted: the ground truth that every method is held to.

The world is linear: an image is a row of blocks, one for each factor, whose brightness is the factor's
value. The models are VAEs with one hidden layer each way and weights set by construction, so that latents,
effects, circuits and mediated effects have closed forms, worked out below with matrices and never by running
the model.

    planted = plant("split")
    found = circuits.find_circuits(planted.model, planted.params, pairs, "latent/z")    # to be:
    planted.truth.circuits
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import objectives
from causalvae.architectures import Architecture, Outputs, Posterior, sample_posterior
from causalvae.data.base import Dataset
from causalvae.sites import Tap, no_tap

__all__ = [
    "Effects",
    "PLANTED",
    "Planted",
    "Truth",
    "all_factors",
    "known_effects",
    "known_modularity",
    "known_strength",
    "linear_world",
    "plant",
]

PyTree = Any
FACTORS = ("first", "second", "third")
BLOCK = 4  # px: a block is BLOCK x BLOCK
VALUE = 1.5  # factors take the values -VALUE and VALUE
CONTRAST = 0.1  # of an image, per unit of a factor's value
HIDDEN, LATENTS = 12, 6
BLOCKS = len(FACTORS) + 1  # the last one shows the mediator


# --- the world -------------------------------------------------------------------------------------------


def linear_world(response: float = 0.0, noise: float = 0.0, modulation: float = 0.0) -> Dataset:
    """Returns a data set of three binary factors v = -1.5 or 1.5, each the brightness of a block: 0.5 + 0.1 v.

    A fourth block shows a mediator, m = response v_0 + u (1 + modulation v_0), with u uniform in [-noise, noise] the
    instance's own: 0 by default.

    Args:
      response: of the mediator to the first factor.
      noise: half the range of u.
      modulation: by how much the first factor scales u.
    """
    coefficients = {"response": response, "noise": noise, "modulation": modulation}
    return Dataset(
        name="linear_world",
        source="procedural",
        factor_names=FACTORS,
        factor_sizes=(2,) * len(FACTORS),
        image_shape=(BLOCK, BLOCK * BLOCKS, 1),
        render_one=render_one,
        arrays={name: jnp.float32(value) for name, value in coefficients.items()},
        deterministic=noise == 0,
        provenance=(("drawn_by", "causalvae.planted"),),
    )


def render_one(arrays: dict[str, jax.Array], factors: jax.Array, key: jax.Array) -> jax.Array:
    """Image [4, 16, 1] of factors [3]."""
    v = VALUE * (2.0 * factors - 1)
    u = jax.random.uniform(key, minval=-1.0) * arrays["noise"]
    mediator = arrays["response"] * v[0] + u * (1 + arrays["modulation"] * v[0])
    row = 0.5 + CONTRAST * jnp.repeat(jnp.concatenate([v, mediator[None]]), BLOCK)
    return jnp.broadcast_to(row[None, :, None], (BLOCK, BLOCK * BLOCKS, 1))


# --- the model -------------------------------------------------------------------------------------------


def init(key: jax.Array) -> PyTree:
    """A planted model with nothing planted: all weights zero."""
    del key
    zeros = {
        "encoder": {
            "hidden": (BLOCKS, HIDDEN),
            "mean": (HIDDEN, LATENTS),
            "product": (HIDDEN, HIDDEN, LATENTS),
        },
        "decoder": {"hidden": (LATENTS, HIDDEN), "blocks": (HIDDEN, BLOCKS)},
    }
    params = jax.tree.map(lambda shape: jnp.zeros(shape), zeros, is_leaf=lambda s: isinstance(s, tuple))
    params["encoder"]["log_variance"] = jnp.zeros((LATENTS,))
    return params


def encode(params: PyTree, x: jax.Array, tap: Tap = no_tap) -> Posterior:
    """Blocks' values, hidden units linear in them, latents linear in those and in their products."""
    weights = params["encoder"]
    blocks = (x.reshape(-1, BLOCK, BLOCKS, BLOCK).mean(axis=(1, 3)) - 0.5) / CONTRAST
    h = tap("encoder/hidden", blocks @ weights["hidden"])
    mean = tap("latent/mean", h @ weights["mean"] + jnp.einsum("bi,bj,ijd->bd", h, h, weights["product"]))
    log_variance = jnp.broadcast_to(weights["log_variance"][None], mean.shape)
    return Posterior(mean, tap("latent/log_variance", log_variance))


def decode(params: PyTree, z: jax.Array, tap: Tap = no_tap) -> jax.Array:
    """Logits [B, 4, 16, 1] of an image that is linear in z (within its range)."""
    h = tap("decoder/hidden", z @ params["decoder"]["hidden"])
    blocks = jnp.repeat(h @ params["decoder"]["blocks"], BLOCK, axis=1)
    image = jnp.clip(0.5 + CONTRAST * blocks, 1e-6, 1 - 1e-6)
    logits = (jnp.log(image) - jnp.log1p(-image))[:, None, :, None]
    return tap("decoder/logits", jnp.broadcast_to(logits, (z.shape[0], BLOCK, BLOCK * BLOCKS, 1)))


def forward(params: PyTree, x: jax.Array, key: jax.Array | None = None, tap: Tap = no_tap) -> Outputs:
    """Images x [B, 4, 16, 1] encoded and decoded; key: the posterior's noise, None for its mean."""
    posterior = encode(params, x, tap)
    z = tap("latent/z", sample_posterior(posterior, key))
    logits = decode(params, z, tap)
    return Outputs(jax.nn.sigmoid(logits), logits, z, posterior)


def represent(params: PyTree, x: jax.Array) -> jax.Array:
    """The vector [B, d] that metrics take for x: the posterior's mean."""
    return encode(params, x).mean


def activity(params: PyTree, x: jax.Array) -> jax.Array:
    """KL per latent [d] in nats, averaged over the images x: what tells active latents from dead ones."""
    return jnp.mean(objectives.kl_divergence(*encode(params, x)), axis=0)


def loss(params, images, key, hyper, step):
    """No loss: always a ValueError, for planted models are not trained."""
    raise ValueError("planted models have the weights they were given; they are not trained")


MODEL = Architecture(
    "planted",
    (BLOCK, BLOCK * BLOCKS, 1),
    LATENTS,
    {},
    init,
    forward,
    encode,
    decode,
    represent,
    activity,
    loss,
)


# --- what is planted -------------------------------------------------------------------------------------


class Effects(NamedTuple):
    """Mean effects of a planted mediator on latent 0, for the contrast of the first factor from -1.5 to 1.5."""

    total: float
    direct: float
    indirect: float
    interaction: float


class Truth(NamedTuple):
    """Closed forms. Sites: encoder/hidden, latent/z, decoder/hidden."""

    latents: np.ndarray  # [d, K]: z = latents v
    image: np.ndarray  # [BLOCKS, d]: the blocks of D(z), in units of factor values
    responses: np.ndarray  # [d, HIDDEN]: change of decoder/hidden per unit of each latent
    fractions: dict[str, np.ndarray]  # site -> [units, K]: each unit's share of a factor's effect on the image
    mediator: int | None = None  # the unit of encoder/hidden
    effects: Effects | None = None

    def circuits(self, site: str, threshold: float = 0.9) -> dict[str, set[int]]:
        """Returns factor -> the smallest set of units with `threshold` of its effect.

        Shares add up: all is linear.
        """
        return {name: smallest(self.fractions[site][:, k], threshold) for k, name in enumerate(FACTORS)}


class Planted(NamedTuple):
    """A model, its parameters, the world it lives in, and the answers."""

    name: str
    model: Architecture
    params: PyTree
    dataset: Dataset
    truth: Truth


def smallest(fractions: np.ndarray, threshold: float) -> set[int]:
    """The fewest units whose shares reach the threshold."""
    order = np.argsort(-fractions, kind="stable")
    size = int(np.argmax(np.cumsum(fractions[order]) >= threshold - 1e-6)) + 1
    return set(order[:size].tolist())


def plant(name: str, seed: int = 0, **options: float) -> Planted:
    """Returns a planted model with its world and the answers.

    Args:
      name: one of `PLANTED`.
      seed: shuffles the hidden units.
      **options: "rotated" takes `angle` (radians), "mediated" the coefficients of its equations.

    Raises:
      ValueError: for a name that does not exist.
    """
    if name not in PLANTED:
        raise ValueError(f"no planted model {name!r}; there are: {', '.join(PLANTED)}")
    return PLANTED[name](np.random.default_rng(seed), **options)


def disentangled(generator: np.random.Generator) -> Planted:
    """Latents 0, 1, 2 are the three factors; latents 3, 4, 5 are dead."""
    latents = np.zeros((LATENTS, 3))
    latents[:3] = np.eye(3)
    return _linear("disentangled", generator, latents, latents.T)


def rotated(generator: np.random.Generator, angle: float = np.pi / 4) -> Planted:
    """Latents 0 and 1 are the first two factors turned by `angle`."""
    latents = np.zeros((LATENTS, 3))
    latents[:3] = np.eye(3)
    latents[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return _linear("rotated", generator, latents, latents.T)


def merged(generator: np.random.Generator) -> Planted:
    """Latent 0 serves two factors: it is the sum of the first and second, and brightens both their blocks."""
    latents, image = np.zeros((LATENTS, 3)), np.zeros((3, LATENTS))
    latents[0, :2], latents[2, 2] = 1.0, 1.0
    image[:2, 0], image[2, 2] = 0.5, 1.0
    return _linear("merged", generator, latents, image)


def split(generator: np.random.Generator) -> Planted:
    """The first factor is split over latents 0 and 3, which are equal; the block takes half of each."""
    latents, image = np.zeros((LATENTS, 3)), np.zeros((3, LATENTS))
    latents[:3] = np.eye(3)
    latents[3, 0] = 1.0
    image[:, :3] = np.diag([0.5, 1.0, 1.0])
    image[0, 3] = 0.5
    return _linear("split", generator, latents, image)


def mediated(
    generator: np.random.Generator,
    direct: float = 0.3,
    through: float = 0.2,
    product: float = 0.1,
    response: float = 0.8,
    noise: float = 1.0,
    modulation: float = 0.4,
) -> Planted:
    """z_0 = direct v + through m + product v m, m = response v + u (1 + modulation v), v the first factor.

    The mediator m is one hidden unit, v another. Over instances E u = 0, which gives the four effects of -c
    -> c.
    """
    latents = np.zeros((LATENTS, 3))
    latents[:3] = np.eye(3)
    planted = _linear("mediated", generator, latents, latents.T)
    value, mediator = generator.permutation(HIDDEN)[:2]
    params = init(jax.random.key(0))
    hidden, mean, products = (np.zeros(p.shape) for p in (params["encoder"][k] for k in ("hidden", "mean", "product")))
    hidden[0, value] = hidden[BLOCKS - 1, mediator] = 1.0
    mean[value, 0], mean[mediator, 0], products[value, mediator, 0] = direct, through, product
    encoder = {
        "hidden": hidden,
        "mean": mean,
        "product": products,
        "log_variance": params["encoder"]["log_variance"],
    }
    params = {"encoder": jax.tree.map(jnp.float32, encoder), "decoder": planted.params["decoder"]}
    start, change = -VALUE, 2 * VALUE
    effects = Effects(
        total=(direct + through * response) * change,
        direct=(direct + product * response * start) * change,
        indirect=(through + product * start) * response * change,
        interaction=product * response * change**2,
    )
    truth = planted.truth._replace(fractions={}, mediator=int(mediator), effects=effects)
    return Planted("mediated", MODEL, params, linear_world(response, noise, modulation), truth)


PLANTED: dict[str, Callable[..., Planted]] = {
    "disentangled": disentangled,
    "rotated": rotated,
    "merged": merged,
    "split": split,
    "mediated": mediated,
}
"""name -> the function that plants it."""

# How many hidden units carry each factor in the encoder, and how many read factors to no effect.
CARRIERS, DECOYS = (2, 1, 3), 2


def _linear(name: str, generator: np.random.Generator, latents: np.ndarray, image: np.ndarray) -> Planted:
    """A model with z = latents v and blocks = image z, [d, K] and [K, d], through shuffled hidden units.

    Encoder: factor k is carried by CARRIERS[k] units in equal shares; DECOYS read factors and lead nowhere;
    the rest are dead. Decoder: latent i is carried by one or two units, the rest are dead.
    """
    encoder_order, decoder_order = generator.permutation(HIDDEN), generator.permutation(HIDDEN)
    hidden, mean = np.zeros((BLOCKS, HIDDEN)), np.zeros((HIDDEN, LATENTS))
    units = iter(encoder_order)
    for k, count in enumerate(CARRIERS):
        for unit in (next(units) for _ in range(count)):
            hidden[k, unit], mean[unit] = 1.0, latents[:, k] / count
    for k in range(DECOYS):
        hidden[k, next(units)] = 2.0
    write, blocks = np.zeros((LATENTS, HIDDEN)), np.zeros((HIDDEN, BLOCKS))
    units = iter(decoder_order)
    for i in range(LATENTS):
        for unit in (next(units) for _ in range(1 + i % 2)):
            write[i, unit], blocks[unit, :3] = 1.0, image[:, i] / (1 + i % 2)
    dead = ~latents.any(axis=1)
    writing = write * np.logical_not(dead)[:, None]
    params = {
        "encoder": {
            "hidden": hidden,
            "mean": mean,
            "product": np.zeros((HIDDEN, HIDDEN, LATENTS)),
            "log_variance": np.where(dead, 0.0, np.log(1e-4)),
        },
        "decoder": {"hidden": writing, "blocks": blocks},
    }
    truth = _linear_truth(hidden, mean, writing, blocks)
    return Planted(name, MODEL, jax.tree.map(jnp.float32, params), linear_world(), truth)


def _linear_truth(hidden: np.ndarray, mean: np.ndarray, write: np.ndarray, blocks: np.ndarray) -> Truth:
    """The answers, from weights [BLOCKS, HIDDEN], [HIDDEN, d], [d, HIDDEN] and [HIDDEN, BLOCKS]."""
    read = hidden[: len(FACTORS)]  # [K, HIDDEN]
    decoder = write @ blocks  # [d, BLOCKS]
    codes = read @ mean  # [K, d]
    layers = {
        "encoder/hidden": (read, mean @ decoder),
        "latent/z": (codes, decoder),
        "decoder/hidden": (codes @ write, blocks),
    }
    whole = codes @ decoder  # [K, BLOCKS]: the change of the image per unit of each factor

    def fractions(activation, effect):  # [K, units], [units, BLOCKS] -> [units, K]
        return activation.T * (effect @ whole.T) / (whole**2).sum(axis=1)

    shares = {site: fractions(*layer) for site, layer in layers.items()}
    return Truth(codes.T, decoder.T, write, shares)


# --- the table of answers --------------------------------------------------------------------------------


@functools.cache
def all_factors() -> np.ndarray:
    """Returns all eight combinations of factor values [8, 3], in the data set's order."""
    return np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


def known_effects(truth: Truth) -> np.ndarray:
    """Returns the `factor_effects` [K, d] with scale 1: a factor changes by 3, whatever its value."""
    return np.abs(truth.latents.T) * 2 * VALUE


def known_strength(truth: Truth, values: np.ndarray) -> np.ndarray:
    """Returns the causal effect strength [d], l2, of a sweep over `values`: |W_:i| E|v - z_i|.

    The expectation is over `values` and over all factor combinations.
    """
    z = (VALUE * (2.0 * all_factors() - 1)) @ truth.latents.T  # [8, d]
    norms = CONTRAST * BLOCK * np.linalg.norm(truth.image, axis=0)
    return norms * np.abs(values[:, None, None] - z[None]).mean(axis=(0, 1))


def known_modularity(truth: Truth) -> float:
    """Returns the circuit modularity at decoder/hidden over the latents that have any response there."""
    rows = np.abs(truth.responses[truth.responses.any(axis=1)])
    correlation = np.abs(np.corrcoef(rows))
    return 1 - correlation[np.triu_indices(len(rows), 1)].mean()
