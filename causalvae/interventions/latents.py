"""Latent perturbation: do(z_i := v) for all latents, all values and all rows in one compiled program.

A perturbation is a small pure object, `values(key, z) -> [V, *z.shape]`: entry [v, n, ..., i] replaces
z[n, ..., i] when latent i is intervened on. Latents are the last axis; where z has positions [N, h, w, d],
latent i is replaced at all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from causalvae._inputs import check_params, while_running
from causalvae._programs import cached, jit
from causalvae.interventions._checks import check_chunk, check_numbers
from causalvae.interventions._latent_checks import check_points, check_probabilities, check_result, draw_values, rows_of
from causalvae.interventions._sweep import in_blocks, keep
from causalvae.interventions.factors import encoder
from causalvae.model import identity, image_of, require
from causalvae.sites import Activations, tapped

PyTree = Any


# --- perturbations ---------------------------------------------------------------------------------------


class Perturbation(Protocol):
    """What latents are set to.

    Values that are those of other rows of z need a second method, `sources(key, z)`: which rows, int [V, N], or
    [L, V, N] where every latent has its own. Values in units of the latents' standard deviation need a field `scale`
    [d], None where it is to be taken of z. Standard errors ask for both: `metrics.effect_strength_with_error`.
    """

    def values(self, key: jax.Array, z: jax.Array) -> jax.Array:
        """Returns [V, *z.shape], for z [N, ..., d]."""
        ...


@dataclass(frozen=True)
class Sweep:
    """v over `num` equidistant values from `low` to `high`, whatever z is: the reported family."""

    low: float = -3.0
    high: float = 3.0
    num: int = 7

    def __post_init__(self):
        _check_num(self, self.num)
        if self.low > self.high:
            raise ValueError(f"Sweep goes from low to high, not from {self.low:g} to {self.high:g}")

    @functools.partial(jax.jit, static_argnums=0)
    def values(self, key: jax.Array, z: jax.Array) -> jax.Array:
        _check_real(self, z)
        values = jnp.linspace(self.low, self.high, self.num, dtype=z.dtype)
        return jnp.broadcast_to(values.reshape(-1, *(1,) * z.ndim), (self.num, *z.shape))


@dataclass(frozen=True)
class Shift:
    """v = z_i + k s_i: `k` standard deviations of the aggregate posterior away. `Shift(0)` has no effect."""

    k: float
    scale: jax.Array | None = None  # [d] the s_i; None: the standard deviation of z over rows and positions

    def values(self, key: jax.Array, z: jax.Array) -> jax.Array:
        _check_real(self, z)
        scale = standard_deviation(z) if self.scale is None else self.scale
        return (z + self.k * jnp.broadcast_to(scale, z.shape).astype(z.dtype))[None]


def standard_deviation(z: jax.Array) -> jax.Array:
    """Returns the standard deviation [d] of z [N, ..., d] over rows and positions."""
    return jnp.std(z.astype(jnp.float32), axis=tuple(range(z.ndim - 1)))


@dataclass(frozen=True)
class Resample:
    """v = z_i of another data point, `num` times: values stay on the aggregate posterior's marginal."""

    num: int = 7

    def __post_init__(self):
        _check_num(self, self.num)

    def values(self, key: jax.Array, z: jax.Array) -> jax.Array:
        return z[self.sources(key, z)]

    @functools.partial(jax.jit, static_argnums=0)
    def sources(self, key: jax.Array, z: jax.Array) -> jax.Array:
        """The row [V, N] that each value is taken from, the same for all latents."""
        if z.shape[0] < 2:
            raise ValueError("Resample takes values of other data points: z needs at least two rows")
        others = jax.random.randint(key, (self.num, z.shape[0]), 1, z.shape[0])
        return (jnp.arange(z.shape[0])[None, :] + others) % z.shape[0]


@dataclass(frozen=True)
class Prior:
    """v drawn from N(0, 1), `num` times."""

    num: int = 7

    def __post_init__(self):
        _check_num(self, self.num)

    def values(self, key: jax.Array, z: jax.Array) -> jax.Array:
        _check_real(self, z)
        return jax.random.normal(key, (self.num, *z.shape), z.dtype)


@dataclass(frozen=True)
class CodeSwap:
    """For integer codes: another code, drawn from the usage of codes in z, `num` times.

    Usage is pooled over rows and positions, the code itself left out: exact, whatever the codebook's size. A
    z in which only one code is in use has no other to offer, and keeps it.
    """

    num: int = 7

    def __post_init__(self):
        _check_num(self, self.num)

    def values(self, key: jax.Array, z: jax.Array) -> jax.Array:
        return z.reshape(-1)[self._chosen(key, z)]

    def sources(self, key: jax.Array, z: jax.Array) -> jax.Array:
        """The row [L, V, N] that each code is taken from; codes are numbered row by row."""
        chosen = self._chosen(key, z) // math.prod(z.shape[1:])
        return jnp.moveaxis(chosen.reshape(*chosen.shape[:2], -1), 2, 0)

    @functools.partial(jax.jit, static_argnums=0)
    def _chosen(self, key: jax.Array, z: jax.Array) -> jax.Array:
        """The place [V, *z.shape] in the flat z of the code that each code is swapped for."""
        if not jnp.issubdtype(z.dtype, jnp.integer):
            raise ValueError(f"CodeSwap swaps integer codes, not {z.dtype}: give the codes, not their embeddings")
        flat = z.reshape(-1)
        order = jnp.argsort(flat, stable=True)
        pool = flat[order]
        first, last = jnp.searchsorted(pool, z), jnp.searchsorted(pool, z, side="right")
        others = pool.size - (last - first)
        uniform = jax.random.uniform(key, (self.num, *z.shape))
        rank = jnp.minimum((uniform * others[None]).astype(jnp.int32), others[None] - 1)
        rank = jnp.where(rank < first[None], rank, rank + (last - first)[None])
        own = jnp.arange(pool.size).reshape(z.shape)
        return jnp.where(others[None] > 0, order[jnp.clip(rank, 0, pool.size - 1)], own[None])


def _check_real(perturbation: Any, z: jax.Array) -> None:
    if not jnp.issubdtype(z.dtype, jnp.floating):
        raise ValueError(
            f"{type(perturbation).__name__} sets latents to real values, but z holds {z.dtype} codes, whose numbers "
            "have no order: swap them with CodeSwap"
        )


def _check_num(perturbation: Any, num: int) -> None:
    if int(num) != num or num < 1:
        raise ValueError(f"{type(perturbation).__name__}: num must be a positive integer, not {num!r}")


# --- the sweep over latents ------------------------------------------------------------------------------


class Decoded(NamedTuple):
    """What a decoder of the library gives: D(z), and the activations of its sites."""

    image: jax.Array  # [N, H, W, C] in [0, 1]
    activations: Activations


DISTANCES = ("l2", "rms", "bernoulli_kl")
RESPONSES = (*DISTANCES, "outputs", "latents", "sites")


def perturb_latents(
    model: Any,
    params: PyTree,
    z: jax.Array,
    perturbation: Perturbation,
    key: jax.Array,
    *,
    response: str | Callable | Sequence[str | Callable] = "l2",
    latents: Sequence[int] | None = None,
    chunk: int | None = None,
) -> Any:
    """Returns what the decoder does when one latent is set: all latents, all values, all rows, in one program.

    Source: the paper for the idea, this library for the form. A mean over images with its standard error, for any
    perturbation and any response of images or rows: `metrics.effect_strength_with_error`.

    Args:
      model: anything with a `decode`, see `causalvae.model`; `adapters.from_functions` makes one of a function.
      z: [N, ..., d], or integer codes [N, ...] of a model with a codebook, each of which is then a latent, numbered
        row by row (d = L).
      perturbation: what to set; see `Sweep`, `Shift`, `Resample`, `Prior`, `CodeSwap`.
      key: for perturbations that draw.
      response: one of these, or several (one sweep, a dict by name comes back):
        "l2" (Euclidean norm over all output values), "rms" (l2 / sqrt(values)), "bernoulli_kl" (KL(D(z) || D(z'))
          summed over output values, nats, probabilities clipped to [1e-6, 1 - 1e-6]): distance of the images,
          [d, V, N];
        "outputs": mean squared change of each output value, [d, H, W, C];
        "latents": mean absolute change of every latent after decoding and encoding again, [d, d'];
        "sites": site -> mean absolute change of each unit of the decoder, [d, units];
        or a function (base, changed) -> [N, ...] of what was decoded, each with `image` and `activations` of N rows,
          kept: [d, V, N, ...].
      latents: the ones to set; None sets all.
      chunk: images decoded at once; bounds memory, not results.

    Raises:
      ValueError: for a response or a latent that does not exist, values of a wrong shape, and results that are not
        finite.
    """
    z = jnp.asarray(z)
    if z.ndim < 2 or z.shape[0] < 1:
        raise ValueError(f"z must be [N, ..., d] (at least a row, positions if any, latents), not {list(z.shape)}")
    if isinstance(perturbation, type):
        raise ValueError(f"give a perturbation, {perturbation.__name__}(), not the class {perturbation.__name__}")
    check_params(model, params)
    responses = (response,) if isinstance(response, str) or callable(response) else tuple(response)
    _check_responses(responses)
    number = _latent_numbers(z).size
    chosen = check_numbers("latents", np.arange(number) if latents is None else latents, number)
    check_points(z)
    values = draw_values(perturbation, key, z)
    decode = decoder(model, params, codes=jnp.issubdtype(z.dtype, jnp.integer))
    if "bernoulli_kl" in responses and getattr(model, "to_image", identity) is identity:
        check_probabilities(getattr(model, "name", "this model"), decode, z)
    result = _perturb(
        responses,
        check_chunk(chunk),
        decode,
        encoder(model, params) if "latents" in responses else None,
        (z, values.astype(z.dtype)),
        chosen,
    )
    check_result(result, not any(map(callable, responses)), decode, z)
    return result[0] if response is responses[0] else dict(zip(map(_name, responses), result, strict=True))


@jit(static=2)
def _perturb(responses, chunk, decode, encode, rows, chosen):
    z, values = rows
    num_values, num, number = values.shape[0], z.shape[0], _latent_numbers(z)
    latent = jnp.repeat(chosen, num_values)
    value = jnp.tile(jnp.arange(num_values), chosen.shape[0])
    prepares, compare = zip(*(_measure(name, encode) for name in responses), strict=True)

    def block(rows, valid):
        z, values = rows  # [P, ..., d], [P, V, ..., d]
        base = decode(z)
        at_once = max(1, min(chunk // z.shape[0], latent.shape[0]))
        before = [prepare(base) for prepare in prepares]

        def responses_to(changed):
            return [measure(b, c, valid) for measure, b, c in zip(compare, before, changed, strict=True)]

        def pairs(index):  # [U] (latent, value) pairs
            is_set = number[None] == latent[index].reshape(-1, *(1,) * z.ndim)
            points = jnp.where(is_set, jnp.moveaxis(values[:, value[index]], 1, 0), z[None])
            changed = decode(points.reshape(-1, *z.shape[1:]))
            changed = [prepare(changed) for prepare in prepares]
            changed = jax.tree.map(lambda a: a.reshape(-1, z.shape[0], *a.shape[1:]), changed)
            return jax.vmap(responses_to)(changed)

        padded = jnp.arange(latent.shape[0] + (-latent.shape[0]) % at_once) % latent.shape[0]
        stacked = jax.lax.map(pairs, padded.reshape(-1, at_once))
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: latent.shape[0]], stacked)

    blocks = in_blocks(block, (z, jnp.moveaxis(values, 0, 1)), chunk, keep)
    shape = (chosen.shape[0], num_values)
    return [_collect(name, result, shape, num) for name, result in zip(responses, blocks, strict=True)]


# --- responses -------------------------------------------------------------------------------------------


def _measure(name: str | Callable, encode: Any) -> tuple[Callable, Callable]:
    """(prepare, measure): prepare(decoded [B]) -> pytree [B, ...] to compare; measure(base, changed, valid) -> the
    response of rows [P], kept per row, or summed over the valid ones."""
    if callable(name):
        response = rows_of(name)
        return lambda decoded: decoded, lambda base, changed, valid: response(base, changed)
    if name in DISTANCES:
        return _image, lambda base, changed, valid: image_distance(base, changed, name)
    if name == "outputs":
        return _image, lambda base, changed, valid: _sum_rows(jnp.square(changed - base), valid)
    if name == "latents":
        return (
            lambda decoded: encode(_image(decoded)),
            lambda base, changed, valid: _sum_rows(_over_positions(jnp.abs(changed - base)), valid),
        )
    return _activations, lambda base, changed, valid: jax.tree.map(
        lambda b, c: _sum_rows(_over_positions(jnp.abs(c - b)), valid), base, changed
    )


def _collect(name: str | Callable, blocks: PyTree, shape: tuple[int, int], num: int) -> PyTree:
    """Blocks [blocks, d * V, ...] of a response -> [d, V, N, ...] where rows are kept, else means [d, ...]."""
    if callable(name) or name in DISTANCES:
        kept = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), blocks)  # [d * V, blocks, P, ...]
        return jax.tree.map(lambda a: a.reshape(*shape, -1, *a.shape[3:])[:, :, :num], kept)
    total = jax.tree.map(lambda a: jnp.sum(a, axis=0), blocks)
    return jax.tree.map(lambda a: jnp.sum(a.reshape(*shape, *a.shape[1:]), axis=1) / (shape[1] * num), total)


def image_distance(a: jax.Array, b: jax.Array, kind: str) -> jax.Array:
    """Returns the distance [N] of images [N, ...]: "l2", "rms" or "bernoulli_kl", see `perturb_latents`."""
    a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
    if kind == "bernoulli_kl":
        a, b = jnp.clip(a, 1e-6, 1 - 1e-6), jnp.clip(b, 1e-6, 1 - 1e-6)
        return jnp.sum(a * jnp.log(a / b) + (1 - a) * jnp.log((1 - a) / (1 - b)), axis=1)
    squared = jnp.sum(jnp.square(a - b), axis=1)
    return jnp.sqrt(squared / a.shape[1] if kind == "rms" else squared)


def _image(decoded: Decoded) -> jax.Array:
    return image_of(decoded)


def _activations(decoded: Decoded) -> Activations:
    return decoded.activations


def _over_positions(change: jax.Array) -> jax.Array:
    """[N, ..., units] -> mean over positions [N, units]."""
    return jnp.mean(change, axis=tuple(range(1, change.ndim - 1)))


def _sum_rows(change: jax.Array, valid: jax.Array) -> jax.Array:
    return jnp.tensordot(valid.astype(change.dtype), change, 1)


def _check_responses(responses: tuple) -> None:
    for name in responses:
        if not callable(name) and name not in RESPONSES:
            raise ValueError(f"no response {name!r}; there are: {', '.join(RESPONSES)}, or a function (base, changed)")


def _name(response: str | Callable) -> str:
    return response if isinstance(response, str) else getattr(response, "__name__", repr(response))


def _latent_numbers(z: jax.Array) -> jax.Array:
    """The latent that each value of z belongs to, broadcastable to z: the last axis's index, or, where z are
    integer codes, a number for each code."""
    if jnp.issubdtype(z.dtype, jnp.integer):
        return jnp.arange(math.prod(z.shape[1:])).reshape(1, *z.shape[1:])
    return jnp.arange(z.shape[-1]).reshape(*(1,) * (z.ndim - 1), -1)


# --- a model's decoder, parameters as arguments ----------------------------------------------------------


def decoder(model: Any, params: PyTree, codes: bool = False) -> jax.tree_util.Partial:
    """Returns z -> Decoded(image, activations) of a model. Unused activations cost nothing inside jit.

    Args:
      codes: z are integer codes, which a codebook decodes; a model that knows no codebooks decodes them itself.
    """
    if codes and hasattr(model, "codebook"):
        decode = require(model, "codebook", "decoding codes").decode
    else:
        decode = require(model, "decode", "setting its latents")
    return jax.tree_util.Partial(_decoded(decode, getattr(model, "to_image", identity)), params)


@cached()
def _decoded(decode: Callable, to_image: Callable) -> Callable:
    def decoded(params, z):
        def forward(params, z, key, tap):
            with while_running("decode", "z", z, params):
                return decode(params, z, tap)

        found, activations = tapped(forward, ("*",), params, z, None, {})
        return Decoded(to_image(found), activations)

    return decoded
