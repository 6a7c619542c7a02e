"""Penalized regressions that trace: scikit-learn's optima, by steps that a compiled program can hold."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from causalvae.metrics import inputs

HIGHEST = jax.lax.Precision.HIGHEST
SWEEPS = 1000  # of coordinate descent, at most: scikit-learn's number
STEPS = 15  # of Newton's method: one gains a factor of 2 at first and all digits at the end; forty classes need 8
SHARES = (1.0, 0.5, 0.25, 0.125)  # of a Newton step


def standardized(representations: Array, num: int | None = None) -> Array:
    """Codes [N, d] with mean 0 and deviation 1 over the first `num` rows (None: all); 0 for a latent that is
    dead there."""
    live = ~inputs.dead_latents(representations[:num])
    representations = inputs.centered(representations, num)
    representations = (
        representations / jnp.where(live, jnp.abs(representations[:num]).max(axis=0), 1)[None]
    )  # no square underflows
    return jnp.where(live[None], representations / jnp.where(live, representations[:num].std(axis=0), 1)[None], 0)


# --- lasso -----------------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="sweeps")
def lasso(gram: Array, products: Array, alpha: float, sweeps: int = SWEEPS) -> Array:
    """Weights w [d, K] that minimize |y - x w|^2 / 2N + alpha |w|_1 for every column of y [N, K].

    gram: x'x / N, [d, d]; products: x'y / N, [d, K]; x and y centered. Cyclic coordinate descent from 0
    (Friedman et al. 2010), until no weight moves by more than 1e-6: of copies the first takes all.
    """
    diagonal = jnp.diagonal(gram)

    def improve(j: Array, weights: Array) -> Array:
        explained = jnp.matmul(gram[j], weights, precision=HIGHEST) - diagonal[j] * weights[j]
        left = products[j] - explained
        shrunk = jnp.sign(left) * jnp.maximum(jnp.abs(left) - alpha, 0)
        return weights.at[j].set(jnp.where(diagonal[j] > 0, shrunk / jnp.where(diagonal[j] > 0, diagonal[j], 1), 0))

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, weights, _ = state
        moved = jax.lax.fori_loop(0, len(gram), improve, weights)
        return i + 1, moved, jnp.abs(moved - weights).max(initial=0)

    def goes_on(state: tuple[Array, Array, Array]) -> Array:
        return (state[0] < sweeps) & (state[2] > 1e-6)

    start = jnp.array(0), jnp.zeros_like(products), jnp.array(jnp.inf, products.dtype)
    return jax.lax.while_loop(goes_on, sweep, start)[1]


# --- logistic regression ---------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="steps")
def logistic(x: Array, target: Array, steps: int = STEPS) -> Array:
    """Weights [d + 1, C] of a multinomial logistic regression of one-hot targets [N, C], penalty |w|^2 / 2.

    x [N, d + 1] has a last column of ones, whose weights are not penalized. A fixed number of Newton steps,
    each of the largest share that does not raise the loss.
    """
    (num, width), size = x.shape, target.shape[1]
    seen = target.any(axis=0)
    # Two classes share one vector of weights, w / 2 and -w / 2: the penalty on both is to be that on w.
    penalty = jnp.ones(width).at[-1].set(0.0)[:, None] * jnp.where(seen.sum() == 2, 2.0, 1.0)
    classes = jnp.arange(size)

    def loss(weights: Array) -> Array:
        likelihood = jnp.sum(target * jax.nn.log_softmax(logits(x, weights, seen)))
        return 0.5 * jnp.sum(penalty * weights**2) - likelihood

    def step(weights: Array, _: None) -> tuple[Array, None]:
        p = jax.nn.softmax(logits(x, weights, seen))
        gradient = jnp.matmul(x.T, p - target, precision=HIGHEST) + penalty * weights
        scaled = (p[:, :, None] * x[:, None, :]).reshape(num, -1)  # [N, C (d + 1)]
        hessian = -jnp.matmul(scaled.T, scaled, precision=HIGHEST).reshape(size, width, size, width)
        own = jnp.einsum("nc,ni,nj->cij", p, x, x, precision=HIGHEST)
        # Adding a number to all intercepts changes no probability: the last term keeps them where they are.
        own = own + jnp.diag(penalty[:, 0] + 1e-6 * num)[None]
        hessian = hessian.at[classes, :, classes, :].add(own).reshape(size * width, -1)
        direction = jnp.linalg.solve(hessian, gradient.T.reshape(-1)).reshape(size, width).T
        losses = jax.vmap(lambda share: loss(weights - share * direction))(jnp.array(SHARES))
        good = losses <= loss(weights) * (1 + 1e-6)
        moved = weights - jnp.array(SHARES)[jnp.argmax(good)] * direction
        return jnp.where(good.any(), moved, weights), None

    return jax.lax.scan(step, jnp.zeros((width, size)), None, length=steps)[0]


def logits(x: Array, weights: Array, seen: Array) -> Array:
    """Logits [N, C] of x [N, d + 1] and weights [d + 1, C]; -1e9 for classes that no target had."""
    return jnp.where(seen[None], jnp.matmul(x, weights, precision=HIGHEST), -1e9)
