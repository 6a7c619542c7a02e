"""A program lowered for a platform that need not be there: what is in it, and what it costs at the least."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.lowering.programs import Program

PLATFORMS = ("cpu", "cuda", "tpu")
# Libraries that JAX calls for linear algebra, by the platforms' names of them. Nothing else may leave the program.
KNOWN_CALLS = (
    "LuDecomposition",
    "cusolver_getrf_ffi",
    "cu_lu_pivots_to_permutation",
    "Sharding",
    "SPMDFullToShardShape",
)


class Card(NamedTuple):
    """What a device can do at the most, of its maker's data sheet."""

    flops: float  # of float32 matrix products in JAX's default precision there, per second
    bandwidth: float  # bytes of memory per second
    precision: str  # that this is


CARDS = {
    "T4": Card(8.1e12, 320e9, "float32"),
    "A100": Card(156e12, 1.555e12, "TF32"),  # 40 GB
    "H100": Card(494e12, 3.35e12, "TF32"),  # SXM, without sparsity
    "v5e": Card(197e12, 819e9, "bfloat16"),
}
NAMED = {"v5e": ("v5 lite", "v5e")}  # what drivers call a card, where it is not its name
PLATFORM_OF = {"T4": "cuda", "A100": "cuda", "H100": "cuda", "v5e": "tpu"}


def card_of(device_kind: str) -> str | None:
    """Returns which of `CARDS` a device is, by what its driver calls it: "NVIDIA H100 80GB HBM3" is an H100."""
    return next((card for card in CARDS if any(name in device_kind for name in NAMED.get(card, (card,)))), None)


class Lowered(NamedTuple):
    """What a lowered program holds. Loops count as one turn."""

    operations: int
    calls: dict[str, int]  # name of a custom call -> how often
    doubles: int  # values in float64
    flops: float
    bytes_least: float  # arguments read and results written once
    bytes_most: float  # every operation reads and writes memory, nothing fused


def lower(program: Program, platforms: Sequence[str] = ("cuda", "tpu")) -> dict[str, Lowered]:
    """Returns what the program is on each platform, without compiling it.

    Raises:
        ValueError: for a platform that is none, and for a program that calls the host.
    """
    for platform in platforms:
        if platform not in PLATFORMS:
            raise ValueError(f"no platform {platform!r}; there are: {', '.join(PLATFORMS)}")
    traced = jax.jit(program.function).trace(*program.arguments)
    moved = sum(map(_bytes, jax.tree.leaves((program.arguments, traced.out_info))))
    return {platform: _described(traced.lower(lowering_platforms=(platform,)), moved) for platform in platforms}


def _described(lowered: Any, moved: int) -> Lowered:
    text, cost = lowered.as_text(), lowered.cost_analysis() or {}
    calls = collections.Counter(re.findall(r"stablehlo\.custom_call @(\w+)", text))
    return Lowered(
        operations=text.count("stablehlo."),
        calls=dict(calls),
        doubles=len(re.findall(r"tensor<(?:\d+x)*f64>", text)),
        flops=float(cost.get("flops", math.nan)),
        bytes_least=float(moved),
        bytes_most=float(cost.get("bytes accessed", math.nan)),
    )


def _bytes(leaf: Any) -> int:
    size = 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
    return math.prod(leaf.shape) * size


def faults(found: Lowered) -> list[str]:
    """Returns what must not be in a program for an accelerator: float64, and calls that nobody knows. (A call of the
    host's Python cannot be lowered for another platform at all.)"""
    unknown = sorted(set(found.calls) - set(KNOWN_CALLS))
    listed = [f"{found.doubles} values in float64"] * bool(found.doubles)
    return listed + [f"unknown custom calls: {', '.join(unknown)}"] * bool(unknown)


def roofline(found: Lowered, card: Card) -> tuple[float, float]:
    """Returns the seconds that the arithmetic and the traffic of a program take at the least, and those where nothing
    is fused. A measured time below the first has a fault; one far above the second has another cause."""
    arithmetic = found.flops / card.flops
    return max(arithmetic, found.bytes_least / card.bandwidth), max(arithmetic, found.bytes_most / card.bandwidth)
