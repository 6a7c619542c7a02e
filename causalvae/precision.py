"""In which type networks compute while they train: float32, or bfloat16 with parameters and losses in float32.

Under bfloat16, in `bfloat16` are the operands of every matrix product and convolution within encoders and decoders
(dense layers, halving and doubling convolutions, residual blocks), forwards and backwards: parameters are rounded where
a layer reads them, and a layer's input where it enters, so that what is kept for the backward pass has half the size.

In `float32` stay: the parameters, their gradients and the optimizer's state; biases and activation functions, hence
whatever `tap` sees; the layers that give mean, log-variance and z, on which the losses depend without a decoder to
even out what was rounded; sampling; FactorVAE's discriminator and the codebook of a VQ-VAE; every loss and regularizer,
whose sums over pixels bfloat16 could not hold (its numbers have 8 bits); and all that is computed after training. No
scaling of the loss is needed: bfloat16 has float32's range.

    with precision.computing("bfloat16"):
        value, gradients = jax.value_and_grad(loss)(params, ...)

It holds for what is traced within the block, as `jax.default_matmul_precision` does.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

PRECISIONS = ("float32", "bfloat16")


class _Rounding:
    """That layers round, and whether one did."""

    used = False


_rounding: contextvars.ContextVar[_Rounding | None] = contextvars.ContextVar("rounding", default=None)


@contextlib.contextmanager
def computing(precision: str) -> Iterator[None]:
    """Lets the layers that are traced within the block compute in a type.

    Args:
      precision: a name of `PRECISIONS`. "float32" is what layers do without the block, to the bit.

    Raises:
      ValueError: for another name; and at the end of a block in bfloat16 in which no layer of this library was traced,
        so that it would have changed nothing.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"no training.precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    rounding = _Rounding() if precision == "bfloat16" else None
    token = _rounding.set(rounding)
    try:
        yield
    finally:
        _rounding.reset(token)
    if rounding is not None and not rounding.used:
        raise ValueError(
            "bfloat16 is for networks of causalvae.layers and causalvae.networks, and this model has none: "
            "use precision='float32', and let the model round by itself"
        )


def operands(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns a product's operands in the type that it is to be computed in."""
    rounding = _rounding.get()
    if rounding is None:
        return x, kernel
    rounding.used = True
    return x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)


def for_dense() -> dict[str, Any]:
    """Returns what `flax.linen.Dense` takes so that its product, and not its bias, is in that type."""
    return {} if _rounding.get() is None else {"promote_dtype": _promote}


def _promote(x: jax.Array, kernel: jax.Array, bias: jax.Array, **_: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    return *operands(x, kernel), bias
