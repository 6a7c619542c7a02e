"""The convolutions against jax.lax, PyTorch and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from causalvae import layers

FORMS = ("gather", "scatter", "conv", None)
REGIMES = ((3, 32), (32, 32), (32, 3))  # (in, out): few input channels, many of both, few output channels


def lax_down(x, kernel):
    return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def lax_up(x, kernel):
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


OPERATIONS = {"down4": (layers.downsample, lax_down, 4), "down2": (layers.downsample, lax_down, 2)}
OPERATIONS["up4"] = (layers.upsample, lax_up, 4)


def arrays(size, channels, features, dtype=jnp.float32):
    x_key, kernel_key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(x_key, (2, 6, 4, channels), dtype)  # not square: rows and columns cannot be confused
    return x, jax.random.normal(kernel_key, (size, size, channels, features), dtype)


def value_and_grads(function, x, kernel):
    """The output and both gradients of a loss whose cotangent differs everywhere."""

    def loss(x, kernel):
        y = function(x, kernel)
        return jnp.sum(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape) * y), y

    grads, y = jax.grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)
    return y, *grads


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels, features", REGIMES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_equals_lax_with_gradients(operation, channels, features, form):
    ours, reference, size = OPERATIONS[operation]
    x, kernel = arrays(size, channels, features)
    got = jax.jit(lambda x, kernel: value_and_grads(lambda x, k: ours(x, k, form), x, kernel))(x, kernel)
    expected = jax.jit(lambda x, kernel: value_and_grads(reference, x, kernel))(x, kernel)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
