"""The convolutions against jax.lax, PyTorch and finite differences, in every form."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import numpy_torch
import pytest
from jax import lax
from jax.test_util import check_grads

from causalvae import layers

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def lax_down(x, kernel):
    return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)


def lax_up(x, kernel):
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)


OPERATIONS = {  # name -> (ours, jax's, kernel size)
    "down4": (layers.downsample, lax_down, 4),
    "down2": (layers.downsample, lax_down, 2),
    "up4": (layers.upsample, lax_up, 4),
}
CHANNELS = ((3, 16), (16, 16), (16, 3))  # (in, out): few in, many of both, few out


def arrays(size, channels=3, features=5, dtype=np.float32, batch=2):
    """Images and a kernel. The images are not square, so rows and columns cannot be confused."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 6, 4, channels)).astype(dtype)
    return x, rng.normal(size=(size, size, channels, features)).astype(dtype)


def value_and_gradients(function, x, kernel):
    """The output, and the gradients of a sum in which every output weighs differently."""
    y, pullback = jax.vjp(function, x, kernel)
    weights = jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
    return y, *pullback(weights)


def assert_close(got, expected, precision=1e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=precision, atol=precision * np.abs(b).max())


# --- against jax.lax -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", layers.FORMS)
@pytest.mark.parametrize("channels, features", CHANNELS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_equals_lax_with_gradients(operation, channels, features, form):
    ours, reference, size = OPERATIONS[operation]
    x, kernel = arrays(size, channels, features)
    got = jax.jit(functools.partial(value_and_gradients, functools.partial(ours, form=form)))(x, kernel)
    assert_close(got, jax.jit(functools.partial(value_and_gradients, reference))(x, kernel))


@pytest.mark.parametrize("form", layers.FORMS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_double_precision_and_derivatives_of_both_modes_and_orders(operation, form):
    ours, reference, size = OPERATIONS[operation]
    with jax.enable_x64(True):
        x, kernel = arrays(size, dtype=np.float64)
        function = functools.partial(ours, form=form)
        assert function(x, kernel).dtype == np.float64
        assert_close(function(x, kernel), reference(x, kernel), precision=1e-13)
        check_grads(function, (x[:1, :4, :2], kernel), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("form", layers.FORMS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_under_vmap_over_parameters(operation, form):
    ours, reference, size = OPERATIONS[operation]
    x, kernel = arrays(size)
    xs, kernels = np.stack([x, 2 * x, x - 1]), np.stack([kernel, kernel + 1, -3 * kernel])
    members = jax.vmap(functools.partial(value_and_gradients, functools.partial(ours, form=form)))
    expected = [value_and_gradients(reference, *pair) for pair in zip(xs, kernels, strict=True)]
    assert_close(jax.jit(members)(xs, kernels), jax.tree.map(lambda *each: np.stack(each), *expected))
    shared = jax.vmap(functools.partial(ours, form=form), in_axes=(None, 0))(x, kernels)
    assert_close(shared, np.stack([reference(x, k) for k in kernels]))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_inside_scan(operation):
    ours, reference, size = OPERATIONS[operation]
    x, kernel = arrays(size)

    def descend(function, kernel):
        def body(kernel, x):
            loss, gradient = jax.value_and_grad(lambda k: jnp.mean(function(x, k) ** 2))(kernel)
            return kernel - 0.1 * gradient, loss

        return lax.scan(body, kernel, np.stack([x, 2 * x, -x]))

    assert_close(jax.jit(descend, static_argnums=0)(ours, kernel), descend(reference, kernel))


def test_an_impulse_upwards_paints_the_flipped_kernel():
    """The documented convention, out[o] = sum_i x[i] kernel[2i - o + 2], for one pixel at (1, 2)."""
    _, kernel = arrays(4, 1, 1)
    x = np.zeros((1, 4, 5, 1), np.float32)
    x[0, 1, 2, 0] = 1
    out = np.zeros((8, 10), np.float32)
    for row in range(8):
        for column in range(10):
            tap = 2 * 1 - row + 2, 2 * 2 - column + 2
            if all(0 <= t < 4 for t in tap):
                out[row, column] = kernel[tap][0, 0]
    for form in layers.FORMS:
        np.testing.assert_allclose(layers.upsample(x, kernel, form)[0, ..., 0], out, atol=1e-6)


# --- which form ------------------------------------------------------------------------------------------


def test_the_choice_of_form():
    assert layers.choose_form("down", 3, 32, 32, 32) == "windows"
    assert layers.choose_form("down", 32, 32, 16, 16) == "blocks"
    assert layers.choose_form("up", 32, 64, 8, 8) == "blocks"
    assert layers.choose_form("up", 3, 32, 32, 32) == "windows"


@pytest.mark.parametrize("platform, convolutions", [("cpu", False), ("cuda", False), ("tpu", True)])
def test_what_is_run_where(platform, convolutions):
    """Matrix products and nothing else on a CPU and under CUDA, convolutions on TPUs, wherever the program is made."""
    for ours, _, size in OPERATIONS.values():
        for channels, features in CHANNELS:
            step = jax.jit(functools.partial(value_and_gradients, ours))
            text = jax.export.export(step, platforms=[platform])(*arrays(size, channels, features)).mlir_module()
            assert ("stablehlo.dot_general" in text, "stablehlo.convolution" in text) == (
                not convolutions,
                convolutions,
            )


# --- layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [layers.Down(64), layers.Down(64, 2), layers.Up(64)])
def test_layers_have_glorot_kernels_and_a_bias(module):
    x = np.ones((2, 8, 4, 32), np.float32)
    params = module.init(jax.random.key(0), x)["params"]
    size = getattr(module, "kernel_size", 4)
    assert params["kernel"].shape == (size, size, 32, 64)
    bound = np.sqrt(6 / (size * size * (32 + 64)))
    assert 0.99 * bound < np.abs(params["kernel"]).max() <= bound
    np.testing.assert_allclose(np.std(params["kernel"]), bound / np.sqrt(3), rtol=0.02)  # of a uniform draw
    np.testing.assert_array_equal(params["bias"], np.zeros(64))

    reference = lax_up if isinstance(module, layers.Up) else lax_down
    bias = np.arange(64, dtype=np.float32)
    out = module.apply({"params": {"kernel": params["kernel"], "bias": bias}}, x)
    assert_close(out, reference(x, params["kernel"]) + bias.reshape(1, 1, 1, -1))


@pytest.mark.parametrize("form", layers.FORMS)
def test_layers_pass_their_form_on(form, monkeypatch):
    seen = []
    for name in ("downsample", "upsample"):
        monkeypatch.setattr(layers, name, lambda x, kernel, form: seen.append(form) or x)
    x = np.ones((1, 4, 4, 2), np.float32)
    layers.Down(2, form=form).init(jax.random.key(0), x)
    layers.Up(2, form=form).init(jax.random.key(0), x)
    assert seen == [form, form]


# --- PyTorch ---------------------------------------------------------------------------------------------


def check_kernel_mapping(operation, conv2d, conv_transpose2d):
    """Our layer against `conv2d` or `conv_transpose2d` of NCHW images with the kernel in PyTorch's layout."""
    ours, _, size = OPERATIONS[operation]
    x, kernel = arrays(size)
    up = operation == "up4"
    to_torch = layers.up_kernel_to_torch if up else layers.down_kernel_to_torch
    from_torch = layers.up_kernel_from_torch if up else layers.down_kernel_from_torch
    weight = np.ascontiguousarray(to_torch(kernel))
    images = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    function = conv_transpose2d if up else conv2d
    expected = function(images, weight, stride=2, padding=1 if size == 4 else 0)
    assert_close(ours(x, kernel), expected.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(from_torch(weight), kernel)
    np.testing.assert_array_equal(from_torch(to_torch(jnp.asarray(kernel))), kernel)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_equals_torchs_definition_through_the_kernel_mapping(operation):
    check_kernel_mapping(operation, numpy_torch.conv2d, numpy_torch.conv_transpose2d)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_equals_torch_through_the_kernel_mapping(operation):
    torch = pytest.importorskip("torch")

    def of_arrays(function):
        return lambda x, weight, **options: function(*map(torch.from_numpy, (x, weight)), **options).numpy()

    functional = torch.nn.functional
    check_kernel_mapping(operation, of_arrays(functional.conv2d), of_arrays(functional.conv_transpose2d))


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation, x, kernel, message",
    [
        ("down4", (2, 5, 4, 3), (4, 4, 3, 8), "must be even to be halved, not 5 x 4"),
        ("down2", (2, 4, 7, 3), (2, 2, 3, 8), "must be even to be halved, not 4 x 7"),
        ("down4", (4, 4, 3), (4, 4, 3, 8), r"\[batch, height, width, channels\], not of shape \[4, 4, 3\]"),
        ("down4", (2, 4, 4, 3), (3, 3, 3, 8), r"\[4, 4, in, out\] or \[2, 2, in, out\], not \[3, 3, 3, 8\]"),
        ("down4", (2, 4, 4, 3), (4, 2, 3, 8), r"not \[4, 2, 3, 8\]"),
        ("down4", (2, 4, 4, 1), (4, 4, 3, 8), r"is for 3 channels, and the images \[2, 4, 4, 1\] have 1"),
        ("up4", (2, 4, 4, 3), (2, 2, 3, 8), r"must be \[4, 4, in, out\], not \[2, 2, 3, 8\]"),
        ("up4", (2, 4, 4, 8), (4, 4, 3, 8), "is for 3 channels"),
    ],
)
def test_wrong_shapes_are_refused(operation, x, kernel, message):
    with pytest.raises(ValueError, match=message):
        OPERATIONS[operation][0](np.zeros(x, np.float32), np.zeros(kernel, np.float32))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_unknown_form_is_refused(operation):
    ours, _, size = OPERATIONS[operation]
    with pytest.raises(ValueError, match="no form 'gather'; there are: windows, blocks, conv"):
        ours(*arrays(size), form="gather")
