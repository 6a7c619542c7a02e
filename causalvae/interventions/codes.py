"""Interventions on discrete codes (VQ-VAE): swapped at a position, knocked out of the codebook, exchanged.

Codes are int32 [N, h, w], or [N, d] where every latent has one code. In these functions each code is a
latent of its own, L = h w or d of them, numbered row by row. Exchange between two images is patching at site
"latent/codes".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from causalvae import vector_quantization
from causalvae._inputs import check_inputs
from causalvae._programs import jit
from causalvae.interventions._checks import check_chunk, check_finite, check_numbers
from causalvae.interventions._groups import Groups
from causalvae.interventions._runs import Run, base_run, patched_runs
from causalvae.interventions._sweep import in_blocks, sweep
from causalvae.interventions.patching import distance
from causalvae.model import image_of, require

PyTree = Any
SITE = "latent/codes"


def quantize(model: Any, params: PyTree, x: jax.Array) -> jax.Array:
    """Returns the codes of images x: [N, h, w] or [N, d] int32.

    `perturb_latents(model, params, quantize(model, params, x), CodeSwap(), key)` swaps each of them.

    Raises:
      ValueError: for a model without a codebook, and for images that are not what it takes.
    """
    codebook = require(model, "codebook", "quantizing images")
    check_inputs(model, params, x)
    return _quantize(model.encode, codebook.quantize, params, x)


@jit(static=2)
def _quantize(encode, quantize, params, x):
    return quantize(params, encode(params, x).mean)


class KnockOut(NamedTuple):
    """What taking one entry out of a codebook does. Entries of G codebooks of K entries, [G, K]."""

    output_change: jax.Array  # [G, K] Euclidean change of the image, mean over all images
    usage: jax.Array  # [G, K] share of images that use the entry
    per_use: jax.Array  # [G, K] output_change / usage: mean over the images that use it; NaN where none does


def knock_out(
    model: Any, params: PyTree, x: jax.Array, *, entries: Sequence[int] | None = None, chunk: int | None = None
) -> KnockOut:
    """Returns what taking out each entry of the codebook does: positions that had it take the next nearest entry.

    Source: this library. G is 1 for a map of codes, which share one codebook, else one for each latent.

    Args:
      x: [N, H, W, C] images.
      entries: numbers of the entries to take out, in every codebook; None takes all K.
      chunk: runs at once; bounds memory, not results.

    Raises:
      ValueError: for a model without a codebook, or entries that do not exist.
    """
    quantize(model, params, x[:1])
    check_inputs(model, params, x)
    groups, size, _ = params["codebook"].shape
    chosen = check_numbers("entries of the codebook", np.arange(size) if entries is None else entries, size)
    numbers = (jnp.arange(groups)[:, None] * size + chosen[None, :]).reshape(-1)
    change, used, finite = _knock_out(model.forward, check_chunk(chunk), params, jnp.asarray(x), numbers)
    check_finite(finite)
    change, used = (a.reshape(groups, -1) / x.shape[0] for a in (change, used))
    return KnockOut(change, used, change / jnp.where(used > 0, used, jnp.nan))


@struct.dataclass
class Entries(Groups):
    """Groups of codes by the codebook entry that they hold in the base run: numbers g K + k."""

    num_codes: int = struct.field(pytree_node=False, default=1)
    shared: bool = struct.field(pytree_node=False, default=True)  # one codebook for all codes

    def select(self, site: str, groups: jax.Array, base: jax.Array) -> jax.Array:
        return self.selectors[site][groups].reshape(-1, *(1,) * (base.ndim - 1)) == self.numbers(base)

    def total(self, site: str, base: jax.Array, values: jax.Array) -> jax.Array:
        held, pairs = self.numbers(base).reshape(base.shape[0], -1), jnp.arange(base.shape[0])[:, None]
        count = self.num_codes * (1 if self.shared else base.shape[1])
        totals = jnp.zeros((count, base.shape[0])).at[held, jnp.broadcast_to(pairs, held.shape)]
        return totals.add(values.reshape(held.shape))[self.selectors[site]]

    def numbers(self, codes: jax.Array) -> jax.Array:
        """The number of the entry that each code [N, ...] holds."""
        return codes if self.shared else codes + self.num_codes * jnp.arange(codes.shape[1])[None]


@jit(static=2)
def _knock_out(forward, chunk, params, x, numbers):
    num_books, num_codes, _ = params["codebook"].shape
    groups = Entries({SITE: numbers}, num_codes=num_codes, shared=num_books == 1)

    def block(x, valid):
        base, finite = base_run(forward, params, x, None)
        codes = base.activations[SITE]
        second = next_nearest(base.activations["latent/z"], codes, params["codebook"])
        patched = patched_runs(x, None, base, {SITE: second})
        change = sweep(forward, chunk, params, patched, groups, _image_change, image_of(base.outputs))
        used = groups.total(SITE, codes, jnp.ones(codes.shape)) > 0
        weight = valid.astype(change.dtype)
        return change @ weight, used.astype(change.dtype) @ weight, finite

    return in_blocks(block, x, chunk, _sums)


def _sums(blocks, num: int):
    change, used, finite = blocks
    return jnp.sum(change, axis=0), jnp.sum(used, axis=0), finite


def _image_change(run: Run, image: jax.Array) -> jax.Array:
    return distance(image_of(run.outputs), image)


def next_nearest(z: jax.Array, codes: jax.Array, codebook: jax.Array) -> jax.Array:
    """The nearest entry but the one in use, for every code: int32 shaped as `codes`.

    z: [N, h, w, D] or [N, d]; codebook [G, K, D]: G = 1, or one of numbers (D = 1) for each latent.
    """
    groups, _, dimension = codebook.shape
    in_use = codes.reshape(-1, groups)
    others = vector_quantization.nearest_codes(z.reshape(-1, groups, dimension), codebook, but=in_use)
    return others.reshape(codes.shape).astype(codes.dtype)
