"""The contract of a model: what an intervention may ask of one, stated once.

A model is a bundle of pure functions over a parameter pytree. Only `forward` is needed everywhere; what needs more
says so in one sentence. `causalvae.architectures` implements the whole contract, `causalvae.adapters` makes models of
other people's networks, and any object with these attributes will do (a plain forward function, too, wherever no
other attribute is needed).

| attribute | signature | asked for by |
| --- | --- | --- |
| `forward` | `(params, x, key, tap) -> outputs` | everything |
| `represent` | `(params, x) -> [N, d]` | effects on the representation, image manipulations, causal graphs |
| `decode` | `(params, z, tap) -> decoded` | latent perturbation |
| `to_image` | `decoded -> image` in [0, 1]; the identity where it is absent | latent perturbation |
| `codebook` | `quantize`, `decode` of integer codes; absent or None for continuous latents | interventions on codes |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from causalvae._inputs import check_inputs
from causalvae.sites import Activations, Tap, site_shapes

__all__ = [
    "Decoder",
    "Encoder",
    "Model",
]

PyTree = Any


@runtime_checkable
class Model(Protocol):
    """What every intervention on images and activations needs."""

    @property
    def forward(self) -> Callable[[PyTree, jax.Array, jax.Array | None, Tap], Any]:
        """(params, x [N, ...], key, tap) -> outputs, every activation through the tap; key None: the posterior mean.

        Outputs are an image [N, ...], or an object with `image` and, where there are latents, `z` [N, ..., d].
        """
        ...


@runtime_checkable
class Encoder(Model, Protocol):
    """A model whose latents can be scored."""

    @property
    def represent(self) -> Callable[[PyTree, jax.Array], jax.Array]:
        """(params, x [N, ...]) -> [N, d], the representation that metrics score."""
        ...


@runtime_checkable
class Decoder(Model, Protocol):
    """A model whose latents can be set."""

    @property
    def decode(self) -> Callable[[PyTree, jax.Array, Tap], jax.Array]:
        """(params, z [N, ..., d], tap) -> logits, or whatever `to_image` makes an image [N, ...] of."""
        ...


def forward_of(model: Any) -> Callable:
    """Returns a model's forward function; a function stands for itself."""
    return getattr(model, "forward", model)


def require(model: Any, attribute: str, purpose: str) -> Any:
    """Returns an attribute of a model; ValueError says what it is needed for and how a model comes to have it."""
    found = getattr(model, attribute, None)
    if found is None:
        raise ValueError(
            f"model {getattr(model, 'name', type(model).__name__)!r} has no `{attribute}`, which {purpose} needs: give "
            f"a model that has one (causalvae.model says what it is; causalvae.adapters.from_functions makes one)"
        )
    return found


def identity(decoded: jax.Array) -> jax.Array:
    """The `to_image` of models whose decoder gives images."""
    return decoded


def image_of(outputs: Any) -> jax.Array:
    """Returns the image [N, ...] that changes are measured on: `outputs.image`, or the outputs if an array."""
    image = getattr(outputs, "image", outputs)
    if not hasattr(image, "shape"):
        raise ValueError(
            f"the model's forward returned {type(outputs).__name__}, which is no array and has no `.image`: "
            "wrap it with causalvae.adapters, or return a NamedTuple with `image` (and `z`)"
        )
    return image


def latents_of(outputs: Any) -> jax.Array:
    """Returns the latents [N, ..., d] of a run: `outputs.z`; [N, 0] where there are none."""
    z = getattr(outputs, "z", None)
    return jnp.zeros((image_of(outputs).shape[0], 0)) if z is None else z


def sites_of(model: Any, params: PyTree, x: jax.Array, key: jax.Array | None = None) -> Activations:
    """Returns site -> shape of its activation, in forward order; ValueError if the model has no sites."""
    check_inputs(model, params, x)
    shapes = site_shapes(model, params, x, key)
    if not shapes:
        raise ValueError("this model passes no activation through its tap: it has no site to intervene on")
    return shapes
