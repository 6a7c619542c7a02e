"""Codebooks as pure functions: nearest codes, usage, moving averages, restarts.

A codebook is [G, K, D]: G groups of K embeddings of size D. Vectors to be quantized are [N, G, D] and codes
[N, G]: N vectors for each group. A codebook that all positions of a feature map share is one group, with the
positions among the N; one codebook for each latent is one group per latent, with D = 1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Two distances that differ by less, relative to the products they are sums of, are the same to float32.
TIE = 1e-6


def nearest_codes(vectors: jax.Array, codebook: jax.Array, but: jax.Array | None = None) -> jax.Array:
    """Returns the index [N, G] int32 of the nearest embedding; the lowest of equally near ones.

    It compares ||e||^2 / 2 - v.e, half the squared distance less what all codes have in common. Both are taken from
    the most central embedding first, so that a common offset takes no digits, and the products are of full precision
    on every device. Codes whose distances agree within `TIE` are equally near, so that the last bit, which differs
    between processors, decides nothing.

    Args:
      vectors: [N, G, D].
      codebook: [G, K, D].
      but: codes [N, G] that are not taken.
    """
    # An embedding and not the mean, which one that lies far out would draw away from all others.
    from_mean = jnp.sum((codebook - jnp.mean(codebook, axis=1, keepdims=True)) ** 2, axis=-1)
    center = codebook[jnp.arange(codebook.shape[0]), jnp.argmin(from_mean, axis=-1)]
    vectors, codebook = vectors - center[None], codebook - center[:, None]
    products = jnp.einsum("ngd,gkd->ngk", vectors, codebook, precision=jax.lax.Precision.HIGHEST)
    halves = jnp.sum(codebook**2, axis=-1)[None] / 2
    distances = halves - products
    lengths = jnp.linalg.norm(vectors, axis=-1)[..., None]
    error = TIE / 2 * (halves + lengths * jnp.sqrt(2 * halves))
    if but is not None:
        distances = jnp.where(jax.nn.one_hot(but, codebook.shape[1], dtype=bool), jnp.inf, distances)
    least = jnp.min(distances + error, axis=-1, keepdims=True)
    return jnp.argmax(distances - error <= least, axis=-1).astype(jnp.int32)


def embed(codes: jax.Array, codebook: jax.Array) -> jax.Array:
    """Returns the embeddings [N, G, D] of codes [N, G]. Indices outside the codebook are clipped to it."""
    codes = jnp.clip(codes, 0, codebook.shape[1] - 1)
    return codebook[jnp.arange(codebook.shape[0])[None], codes]


def straight_through(vectors: jax.Array, quantized: jax.Array) -> jax.Array:
    """Returns the value of `quantized` with the gradient of `vectors`; none reaches the codebook."""
    return jax.lax.stop_gradient(quantized) + (vectors - jax.lax.stop_gradient(vectors))


# --- usage -----------------------------------------------------------------------------------------------


def count_codes(codes: jax.Array, num_codes: int) -> jax.Array:
    """Returns how often each code occurs: codes [N, G] -> [G, K] float."""
    return jnp.sum(jax.nn.one_hot(codes, num_codes), axis=0)


def usage_entropy(counts: jax.Array) -> jax.Array:
    """Returns the entropy of the usage [G, K] -> [G] in nats. From n codes it is low by about (K - 1) / 2n nats.

    It is also E_x KL(q(c|x) || p(c)) of a code that x determines, with the usage as prior p.
    """
    probabilities = counts / jnp.sum(counts, axis=-1, keepdims=True)
    return jnp.sum(jax.scipy.special.entr(probabilities), axis=-1)


# --- learning the codebook -------------------------------------------------------------------------------


def moving_average(
    codebook: jax.Array, cluster_size: jax.Array, vectors: jax.Array, codes: jax.Array, decay: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the codebook [G, K, D] and cluster size [G, K] after one step of moving averages.

    van den Oord et al. 2017, appendix A.1: N <- decay N + (1 - decay) n, m <- decay m + (1 - decay) times the sum of
    the code's vectors, e = m / N. The sum m is kept as e N. A code never used keeps its embedding.

    Args:
      codebook: [G, K, D].
      cluster_size: [G, K], N.
      vectors: [N, G, D] of the batch.
      codes: [N, G] nearest to them.
      decay: of the averages.
    """
    members = jax.nn.one_hot(codes, codebook.shape[1])
    sums = jnp.einsum("ngk,ngd->gkd", members, vectors, precision=jax.lax.Precision.HIGHEST)
    size = decay * cluster_size + (1 - decay) * jnp.sum(members, axis=0)
    total = decay * codebook * cluster_size[:, :, None] + (1 - decay) * sums
    used = (size > 0)[:, :, None]
    return jnp.where(used, total / jnp.where(used, size[:, :, None], 1), codebook), size


def dead_codes(cluster_size: jax.Array, threshold: jax.Array) -> jax.Array:
    """Returns which codes [G, K] bool have less than `threshold` times the mean share of the usage. This library."""
    return cluster_size < threshold * jnp.mean(cluster_size, axis=-1, keepdims=True)


def restart(
    codebook: jax.Array, cluster_size: jax.Array, vectors: jax.Array, threshold: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns codebook and cluster size with dead codes put on vectors drawn from the batch.

    They take the mean cluster size. A fresh codebook has cluster size zero, so the first call also initializes it from
    data. Vectors are drawn without replacement where there are enough: of two equal embeddings one would stay dead.

    Args:
      codebook: [G, K, D].
      cluster_size: [G, K].
      vectors: [N, G, D] of the batch.
      threshold: see `dead_codes`.
      key: of the draws.
    """
    groups, num_codes, _ = codebook.shape
    num_vectors = vectors.shape[0]
    dead = dead_codes(cluster_size, threshold)

    def draw(key):
        return jax.random.choice(key, num_vectors, (num_codes,), replace=num_vectors < num_codes)

    rows = jax.vmap(draw)(jax.random.split(key, groups))
    drawn = vectors[rows, jnp.arange(groups)[:, None]]
    mean_size = jnp.mean(cluster_size, axis=-1, keepdims=True)
    return jnp.where(dead[:, :, None], drawn, codebook), jnp.where(dead, mean_size, cluster_size)


def restart_penalty(
    codebook: jax.Array, cluster_size: jax.Array, vectors: jax.Array, threshold: jax.Array
) -> jax.Array:
    """Returns the squared distance of each dead code to the batch's nearest vector, summed.

    Descended, it is the restart of a codebook that learns by gradient. This library.

    Args:
      codebook: [G, K, D].
      cluster_size: [G, K].
      vectors: [N, G, D] of the batch.
      threshold: see `dead_codes`.
    """
    embeddings, candidates = jnp.swapaxes(codebook, 0, 1), jnp.swapaxes(jax.lax.stop_gradient(vectors), 0, 1)
    nearest = embed(nearest_codes(embeddings, candidates), candidates)
    distances = jnp.sum((nearest - embeddings) ** 2, axis=-1).T
    return jnp.sum(jnp.where(dead_codes(cluster_size, threshold), distances, 0))
