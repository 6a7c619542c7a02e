"""Memory over many calls with functions made afresh: what was compiled for them, and what they close over, goes."""

import gc
import os
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import causalvae as cv
from causalvae import _programs, adapters
from causalvae import interventions as iv
from causalvae.architectures.gaussian import Penalty, gaussian_loss

SHORT, LONG = 3, 200  # calls
QUICK = ("run, transform", "run, from_functions", "from_functions", "perturb_latents", "gaussian_loss")
CLOSED_OVER = 2**18  # floats: 1 MiB
X = jnp.linspace(0, 1, 2 * 16).reshape(2, 4, 4, 1)
PAIRS = (X, X[::-1])


def forward(params, x, key, tap):
    z = tap("latent/z", x.reshape(len(x), -1)[:, :3] * params)
    return tap("decoder/image", jnp.tanh(z @ jnp.ones((3, 16))).reshape(-1, 4, 4, 1))


def decode(z):
    return jnp.tanh(z @ jnp.ones((3, 16))).reshape(-1, 4, 4, 1)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(16)(x.reshape(len(x), -1)).reshape(x.shape)


NET = Net()
VARIABLES = NET.init(jax.random.key(0), X)


def fresh(make):
    """A function that closes over 1 MiB, and a weak reference to it."""
    array = np.full(CLOSED_OVER, 2.0, np.float32)
    function = make(array)
    return function, weakref.ref(function)


def edit(array):
    return lambda activation, value: activation * jnp.asarray(array)[0]


def encode(array):
    return lambda x: x.reshape(len(x), -1)[:, :3] * jnp.asarray(array)[0]


def outcome(array):
    return lambda run, base, source: jnp.sum(run.outputs, axis=(1, 2, 3)) * jnp.asarray(array)[0]


def response(array):
    return lambda base, changed: (changed.image - base.image).sum(axis=(1, 2, 3)) * jnp.asarray(array)[0]


CALLS = {
    "run, transform": (edit, lambda f: cv.run(forward, 1.0, X, edits={"latent/z": cv.transform(f)})),
    "run, from_functions": (encode, lambda f: cv.run(adapters.from_functions(f, decode), None, X)),
    "from_functions": (encode, lambda f: adapters.from_functions(encode=f)),
    "from_linen": (
        lambda array: lambda m, x: m(x) * array[0],
        lambda f: cv.run(adapters.from_linen(NET, call=lambda m, x, key: f(m, x)), VARIABLES, X),
    ),
    "as_architecture": (
        encode,
        lambda f: adapters.as_architecture(
            adapters.from_functions(f, lambda z: jax.nn.sigmoid(decode(z))), None, (4, 4, 1)
        ),
    ),
    "perturb_latents": (
        response,
        lambda f: iv.perturb_latents(
            adapters.from_functions(None, decode), None, X.reshape(2, -1)[:, :3], iv.Sweep(-1, 1, 2), KEY, response=f
        ),
    ),
    "patch_effects": (encode, lambda f: iv.patch_effects(adapters.from_functions(f, decode), None, PAIRS, "latent/z")),
    "mediate": (outcome, lambda f: iv.mediate(forward, 1.0, PAIRS, "latent/z", outcome=f)),
    "gaussian_loss": (lambda array: lambda terms, hyper: Penalty(array[0]), lambda f: gaussian_loss(forward, f)),
}
KEY = jax.random.key(0)


def grown(name, calls):
    """Functions that live on after so many calls, and by how many mappings the process grew after the first."""
    make, call = CALLS[name]
    call(fresh(make)[0])
    gc.collect()
    before, alive = mappings(), []
    for _ in range(calls):
        function, alone = fresh(make)
        jax.block_until_ready(jax.tree.leaves(call(function)))
        alive.append(alone)
        del function
    gc.collect()
    return sum(reference() is not None for reference in alive), mappings() - before


def mappings():
    if not os.path.exists("/proc/self/maps"):
        return 0
    with open("/proc/self/maps") as lines:
        return sum(1 for _ in lines)


@pytest.mark.parametrize("name", QUICK)
def test_functions_and_programs_go_when_they_are_let_go(name):
    alive, more = grown(name, SHORT)
    assert alive <= 1 and more < 20 * SHORT, (alive, more)


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_many_functions_and_programs_go_when_they_are_let_go(name):
    alive, more = grown(name, LONG)
    assert alive <= 1 and more < 400, (alive, more)


def test_the_same_function_compiles_once_however_it_comes():
    def double(activation, value):
        return 2 * activation

    def halve(x):
        return x.reshape(len(x), -1)[:, :3] / 2

    def calls():
        cv.run(forward, 1.0, X, edits={"latent/z": cv.transform(double)})
        return cv.run(adapters.from_functions(halve, decode), None, X)[0].image

    first = calls()
    compiled = _programs._compiled
    np.testing.assert_array_equal(calls(), first)
    assert _programs._compiled == compiled
    assert adapters.from_functions(halve, decode=decode) is adapters.from_functions(halve, decode)


def test_edits_in_another_order_are_the_same_program():
    one, other = cv.set_unit(0, 1.0), cv.patch(jnp.zeros((1, 1, 1, 1)))
    cv.run(forward, 1.0, X, edits={"latent/z": one, "decoder/image": other})
    compiled = _programs._compiled
    cv.run(forward, 1.0, X, edits={"decoder/image": other, "latent/z": one})
    assert _programs._compiled == compiled


def test_room_is_made_where_calls_begin_and_not_within_a_trace(monkeypatch):
    freed = []
    monkeypatch.setattr(_programs, "free_programs", lambda: freed.append(True))
    monkeypatch.setattr(_programs, "_compiled", _programs.LOOK_EVERY)
    jax.jit(lambda params: cv.run(forward, params, X)[0]).lower(1.0)
    assert not freed
    cv.run(forward, 1.0, X)
    assert freed and _programs._compiled < _programs.LOOK_EVERY
    freed.clear()
    cv.run(forward, 1.0, X)
    assert not freed, "mappings are not counted at every call"


def test_what_is_kept_in_a_function_is_bounded():
    made = []

    @_programs.cached(maxsize=2)
    def of(function, number):
        made.append(number)
        return number

    def home():
        pass

    assert [of(home, 1), of(home, 2), of(home, number=1), of(home, 3), of(home, 1), of(home, 2)] == [1, 2, 1, 3, 1, 2]
    assert made == [1, 2, 3, 2], "the one that was used last is kept"
    assert of(None, 5) == of(None, 5) == 5 and made[4:] == [5]
