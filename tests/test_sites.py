"""The hook: what is captured, edited and refused, against the network written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import causalvae as cv
from causalvae import planted, sites

MODEL = planted.MODEL
PARAMS = planted.plant("rotated", angle=0.4).params
X = jax.random.uniform(jax.random.key(0), (3, *MODEL.image_shape))
SITES = [
    "encoder/hidden",
    "latent/mean",
    "latent/log_variance",
    "latent/z",
    "decoder/hidden",
    "decoder/logits",
]


def image_of_hidden(h):
    """D from decoder/hidden [N, HIDDEN], in numpy."""
    blocks = np.asarray(h, np.float64) @ np.asarray(PARAMS["decoder"]["blocks"])
    row = 0.5 + planted.CONTRAST * np.repeat(blocks, planted.BLOCK, axis=1)
    return np.broadcast_to(row[:, None, :, None], (len(row), *MODEL.image_shape))


def test_capture_is_in_forward_order_and_by_pattern():
    _, everything = cv.run(MODEL, PARAMS, X, capture=("*",))
    assert list(everything) == SITES
    _, some = cv.run(MODEL, PARAMS, X, capture=("latent/*", "decoder/hidden"))
    assert list(some) == SITES[1:5]
    assert list(jax.jit(lambda: some)()) == SITES[1:5]
    assert cv.run(MODEL, PARAMS, X)[1] == {}


def test_edits_replace_shift_transform_and_follow_one_another():
    _, base = cv.run(MODEL, PARAMS, X, capture=("*",))
    hidden = np.asarray(base["decoder/hidden"])
    cases = {
        "set": (cv.set_unit(2, 1.5), lambda h: set_column(h, 2, 1.5)),
        "set several": (
            cv.set_units([0, 4], jnp.ones((1, planted.HIDDEN))),
            lambda h: set_column(h, [0, 4], 1.0),
        ),
        "shift": (cv.shift_unit(1, -0.5), lambda h: set_column(h, 1, h[:, 1] - 0.5)),
        "transform": (cv.transform(negated, units=jnp.array([3])), lambda h: set_column(h, 3, -h[:, 3])),
        "patch": (cv.patch(jnp.asarray(hidden[::-1])), lambda h: h[::-1]),
        "masked": (
            cv.patch(jnp.zeros(()), jnp.array([[True], [False], [False]])),
            lambda h: h * [[0], [1], [1]],
        ),
        "in order": ([cv.set_unit(2, 1.0), cv.shift_unit(2, 1.0)], lambda h: set_column(h, 2, 2.0)),
        "nothing": (cv.set_units([-1], 9.0), lambda h: h),
    }
    for name, (edit, expected) in cases.items():
        outputs, acts = cv.run(MODEL, PARAMS, X, edits={"decoder/hidden": edit}, capture=("decoder/hidden",))
        expected = expected(hidden.copy())
        np.testing.assert_allclose(acts["decoder/hidden"], expected, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(outputs.image, image_of_hidden(expected), atol=1e-5, err_msg=name)


def set_column(h, columns, value):
    h[:, columns] = value
    return h


def negated(activation, value):
    return -activation


def test_other_values_and_units_do_not_compile_again_but_another_structure_does():
    traces = []

    def forward(params, x, key=None, tap=cv.no_tap):
        traces.append(1)
        return tap("h", x * params)

    def traced(edits):
        before = len(traces)
        cv.run(forward, 2.0, jnp.ones((2, 4)), edits=edits)
        return len(traces) > before

    assert traced({"h": cv.set_unit(0, 1.0)})
    assert not traced({"h": cv.set_unit(3, -2.0)})
    assert traced({"h": cv.set_units([0, 1], jnp.ones(4))})
    assert not traced({"h": cv.set_units([2, 3], jnp.zeros(4))})


def test_edits_are_vmapped_over_units_and_values():
    def effect(unit, value):
        edits = {"latent/z": (cv.set_unit(unit, value),)}
        return sites.tapped(MODEL.forward, (), PARAMS, X, None, edits)[0].image

    units, values = jnp.array([0, 1, 2]), jnp.array([-1.0, 0.5, 2.0])
    swept = jax.vmap(effect)(units, values)
    for n in range(3):
        alone, _ = cv.run(MODEL, PARAMS, X, edits={"latent/z": cv.set_unit(int(units[n]), float(values[n]))})
        np.testing.assert_allclose(swept[n], alone.image, atol=1e-6)


def test_the_same_key_gives_the_same_noise_edited_or_not():
    key = jax.random.key(1)
    _, base = cv.run(MODEL, PARAMS, X, key=key, capture=("latent/z",))
    _, edited = cv.run(
        MODEL, PARAMS, X, key=key, edits={"encoder/hidden": cv.patch(jnp.zeros(()))}, capture=("latent/*",)
    )
    _, noiseless = cv.run(MODEL, PARAMS, X, capture=("latent/z",))
    noise = base["latent/z"] - noiseless["latent/z"]
    assert np.abs(noise).min() > 0
    np.testing.assert_allclose(edited["latent/z"] - edited["latent/mean"], noise, atol=1e-6)


@pytest.mark.parametrize(
    "edits, capture, message",
    [
        ({"decoder/hiden": cv.set_unit(0, 1.0)}, (), "no site 'decoder/hiden'.*mean 'decoder/hidden'"),
        ({}, ("encoder/none",), "no site 'encoder/none'"),
        ({"latent/z": cv.set_unit(6, 1.0)}, (), "no unit 6 at 'latent/z': it has units 0 to 5"),
        ({"latent/z": cv.set_unit(0.5, 1.0)}, (), "must be integers"),
        ({"latent/z": cv.patch(jnp.zeros((3, 5)))}, (), r"value .* has shape \[3, 5\].*activation \[3, 6\]"),
        ({"latent/z": cv.patch(jnp.zeros(()), jnp.ones((2, 6), bool))}, (), r"mask .* has shape \[2, 6\]"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_refused_by_name(edits, capture, message):
    with pytest.raises(ValueError, match=message):
        cv.run(MODEL, PARAMS, X, edits=edits, capture=capture)
