"""A data set and models small enough to train in a test: 16×16 images of a square at a place, of a brightness."""

import jax
import jax.numpy as jnp

from causalvae import architectures
from causalvae.data.base import Dataset


def render_square(arrays, factors, key):
    """A 4×4 square at (4 row, 4 column) with brightness 0.5 or 1."""
    row, column, bright = factors[0], factors[1], factors[2]
    y, x = jnp.arange(16)[:, None] // 4, jnp.arange(16)[None, :] // 4
    inside = jnp.logical_and(y == row, x == column)
    return jnp.where(inside, 0.5 + 0.5 * bright, 0.0)[:, :, None].astype(jnp.float32)


def dataset() -> Dataset:
    return Dataset(
        name="toy",
        factor_names=("row", "column", "brightness"),
        factor_sizes=(4, 4, 2),
        image_shape=(16, 16, 1),
        render_one=render_square,
    )


def model(name="vae", **options):
    return architectures.create(name, image_shape=(16, 16, 1), **{"latents": 4, "network": "small", **options})


def jittered(params, key, scale=0.3):
    """Parameters with noise added, so that no activation is degenerate (biases start at zero)."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [p + scale * jnp.std(p) * jax.random.normal(k, p.shape) + 0.01 for p, k in zip(leaves, keys)]
    return jax.tree.unflatten(tree, noisy)
