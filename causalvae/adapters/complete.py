"""A foreign model with the whole of our contract, so that evaluation, figures and the explorer take it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import objectives
from causalvae._programs import cached
from causalvae.adapters.foreign import Foreign, sample
from causalvae.architectures import Architecture, Outputs, Posterior
from causalvae.model import require
from causalvae.sites import Tap, no_tap

PyTree = Any
EDGE = 1e-6  # images are kept so far from 0 and 1, where logits are infinite


def as_architecture(model: Any, params: PyTree, image_shape: tuple[int, ...]) -> Architecture:
    """Returns a model that is not ours with everything that an evaluation, figures and the explorer ask for.

    What is ours alone is stood in for. Logits are those of the decoded image, which must lie in [0, 1]. A latent's
    activity is its mean KL where the encoder gives a log-variance; where it gives a mean alone, it is
    `0.5 log(1 + Var mean)`, the nats of a channel with unit noise. `init`, the untrained network that circuit
    modularity is compared with, draws every array anew from a normal distribution with the mean and the deviation of
    its trained values.

    Args:
      model: made by an adapter with `encode` and `decode`; one of ours is returned as it is.
      params: its trained parameters.
      image_shape: (H, W, C).

    Raises:
      ValueError: for a model that does not say how it encodes and decodes, or whose images are of another shape or
        outside [0, 1].
    """
    if isinstance(model, Architecture):
        return model
    for attribute in ("encode", "decode"):
        require(model, attribute, "an evaluation, a figure or an explorer")
    functions = _functions(model)
    x = jnp.full((1, *image_shape), 0.5)
    outputs = jax.jit(lambda params, x: model.forward(params, x, None, no_tap))(params, x)
    if outputs.image.shape != x.shape:
        raise ValueError(f"{model.name} decodes images {list(outputs.image.shape[1:])}, not {list(image_shape)}")
    if float(outputs.image.min()) < 0 or float(outputs.image.max()) > 1:
        raise ValueError(
            f"{model.name} decodes values from {float(outputs.image.min()):.3g} to {float(outputs.image.max()):.3g}: "
            "images are in [0, 1]. Let decode= end in a sigmoid, or scale them"
        )
    return Architecture(
        name=model.name,
        image_shape=tuple(image_shape),  # pyright: ignore[reportArgumentType]  # three numbers, by the check above
        latents=int(outputs.z.shape[-1]),
        hyper={},
        init=_redrawn(params),
        loss=_no_loss,
        **functions._asdict(),
    )


class Functions(NamedTuple):
    """Fields of Architecture that depend on the model alone: the same objects, so that nothing compiles twice."""

    forward: Any
    encode: Any
    decode: Any
    represent: Any
    activity: Any


@cached()
def _functions(model: Foreign) -> Functions:
    def encode(params, x, tap: Tap = no_tap):
        mean, log_variance = model.encode(params, x, tap)  # pyright: ignore[reportOptionalCall]
        return Posterior(mean, jnp.full_like(mean, -jnp.inf) if log_variance is None else log_variance)

    def decode(params, z, tap: Tap = no_tap):
        image = jnp.clip(model.decode(params, z, tap), EDGE, 1 - EDGE)  # pyright: ignore[reportOptionalCall]
        return jnp.log(image) - jnp.log1p(-image)

    def forward(params, x, key=None, tap: Tap = no_tap):
        posterior = encode(params, x, tap)
        z = tap("latent/z", sample(*posterior, key))
        logits = decode(params, z, tap)
        return Outputs(jax.nn.sigmoid(logits), logits, z, posterior)

    def activity(params, x):
        mean, log_variance = model.encode(params, x, no_tap)  # pyright: ignore[reportOptionalCall]
        rows = tuple(range(mean.ndim - 1))
        if log_variance is None:
            return 0.5 * jnp.log1p(jnp.var(mean, axis=rows))
        kl = objectives.kl_divergence(mean, log_variance)
        return jnp.mean(jnp.sum(kl, axis=rows[1:]), axis=0) if len(rows) > 1 else jnp.mean(kl, axis=0)

    return Functions(forward, encode, decode, model.represent, activity)


def _redrawn(params: PyTree):
    """(key) -> parameters drawn anew, array by array, with the mean and the deviation of the trained ones; where none
    of an array's values is negative, absolute values, for a variance has no sign to lose."""
    leaves, tree = jax.tree.flatten(params)
    moments = [_moments(leaf) for leaf in leaves]

    def init(key):
        drawn = []
        for number, (leaf, found) in enumerate(zip(leaves, moments, strict=True)):
            if found is None:
                drawn.append(leaf)
                continue
            mean, deviation, positive = found
            array = mean + deviation * jax.random.normal(jax.random.fold_in(key, number), jnp.shape(leaf))
            drawn.append((jnp.abs(array) if positive else array).astype(jnp.result_type(leaf)))
        return jax.tree.unflatten(tree, drawn)

    return init


def _moments(leaf: Any) -> tuple[float, float, bool] | None:
    """Mean, deviation and whether none is negative, as of variances; None of what is no weight: a key, a count."""
    if not jnp.issubdtype(getattr(leaf, "dtype", jnp.result_type(leaf)), jnp.floating):
        return None
    array = np.asarray(leaf)
    return float(np.mean(array)), float(np.std(array)), bool(array.min(initial=0.0) >= 0)


def _no_loss(*args):
    raise ValueError("a model that is not ours has no loss here: it is trained where it comes from")
