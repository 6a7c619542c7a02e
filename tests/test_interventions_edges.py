"""Effects of edges on networks that are written out here, against loops of single runs and derivatives by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import Edit, data, no_tap, patch, pretrained, run
from causalvae.architectures import Outputs
from causalvae.interventions import (
    EdgeOptions,
    LatentOutcome,
    Pairs,
    attribution_effects,
    counterfactuals,
    edge_effects,
    link_effects,
    projected_change,
)
from causalvae.interventions._runs import Run
from causalvae.interventions.edges import agreement

N, U, W = 6, 3, 4


def forward(params, x, key=None, tap=no_tap):
    """Smooth: a map of channels, a site between, a dense one that both reach, and an image that is not linear."""
    h = tap("map", jnp.tanh(x @ params["map"]))  # [B, 2, 2, U]
    flat = h.reshape(h.shape[0], -1)
    m = tap("between", jnp.tanh(flat @ params["between"]))  # [B, 2]
    g = tap("dense", jnp.tanh(flat @ params["dense"] + m @ params["late"]))  # [B, W]
    z = g @ params["mean"] + 0.3 * flat @ params["skip"]
    z = tap("latent/z", z if key is None else z + jax.random.normal(key, z.shape))
    return Outputs(jax.nn.sigmoid(tap("image", z @ params["image"])), None, z, None)


SIZES = {
    "map": (2, U),
    "between": (4 * U, 2),
    "dense": (4 * U, W),
    "late": (2, W),
    "mean": (W, 2),
    "skip": (4 * U, 2),
    "image": (2, 6),
}
GENERATOR = np.random.default_rng(3)
PARAMS = {name: GENERATOR.normal(size=size, scale=0.5).astype(np.float32) for name, size in SIZES.items()}
X, SOURCE = GENERATOR.normal(size=(2, N, 2, 2, 2)).astype(np.float32)
SOURCE[-1] = X[-1]  # a pair without a change, whose outcome is undefined
SOURCE_MAP = run(forward, PARAMS, SOURCE, capture=("map",))[1]["map"]
RUNS = [Run(*run(forward, PARAMS, x)) for x in (X, SOURCE)]


def effects(method, sender="map", receiver="dense", pairs=(X, SOURCE), **options):
    return edge_effects(forward, PARAMS, pairs, sender, receiver, method=method, **({"chunk": 3} | options))


def along_one_edge(a, u, w, path="any"):
    """Y(x; w <- w(x; u <- u + a (u' - u))) by two runs."""
    _, base = run(forward, PARAMS, X, capture=("map", "between"))
    edits = {"map": Edit(base["map"] + a * (SOURCE_MAP - base["map"]), units=u[None])}
    edits |= {"between": patch(base["between"])} if path == "direct" else {}
    _, reached = run(forward, PARAMS, X, edits=edits, capture=("dense",))
    outputs, _ = run(forward, PARAMS, X, edits={"dense": Edit(reached["dense"], units=w[None])})
    return projected_change(Run(outputs, {}), *RUNS)


EDGES = [(u, w) for u in range(U) for w in range(W)]


@functools.cache
def by_hand(path):
    """Exact effects and derivatives at x, [U, W, N] each."""

    def both(edge):
        f = functools.partial(along_one_edge, u=edge[0], w=edge[1], path=path)
        return f(jnp.float32(1.0)), jax.jvp(f, (jnp.float32(0.0),), (jnp.float32(1.0),))[1]

    return [np.reshape(found, (U, W, N)) for found in jax.jit(jax.vmap(both))(jnp.array(EDGES))]


@pytest.mark.parametrize("path", ["any", "direct"])
def test_exact_effects_are_those_of_runs_and_attribution_is_the_derivative(path):
    exact, derivative = by_hand(path)
    found = effects("exact", path=path)
    np.testing.assert_allclose(found.effects, exact, atol=1e-5)
    assert found.agreement is None
    estimate = effects("attribution", path=path)
    np.testing.assert_allclose(estimate.effects, derivative, atol=1e-5)
    assert np.nanmax(np.abs(exact - derivative)) > 0.01
    assert np.isnan(estimate.effects[..., -1]).all() and np.isfinite(estimate.mean).all()
    # Where receivers are more than senders it goes forwards, and backwards where they are fewer.
    fewer = effects("attribution", receiver=("dense", [3, 1]), path=path, sample=2)
    np.testing.assert_allclose(fewer.effects, derivative[:, [3, 1]], atol=1e-5)
    compared = estimate.agreement
    assert sorted(map(tuple, compared.edges)) == EDGES  # fewer than the sample
    at, means = tuple(compared.edges.T), [np.nanmean(m, axis=2) for m in (exact, derivative)]
    np.testing.assert_allclose(compared.exact, means[0][at], atol=1e-5)
    np.testing.assert_allclose(compared.estimate, means[1][at], atol=1e-5)
    error = np.abs(means[0] - means[1]).sum() / np.abs(means[0]).sum()
    np.testing.assert_allclose(compared.error, error, rtol=1e-3)


def test_the_two_paths_differ_where_a_site_lies_between():
    assert np.nanmax(np.abs(by_hand("any")[0] - by_hand("direct")[0])) > 0.01


def test_integrated_gradients_of_an_edge_converge_to_its_effect():
    exact = by_hand("any")[0]
    errors = [np.nanmax(np.abs(effects("integrated", along="edge", steps=k).effects - exact)) for k in (1, 4, 16)]
    assert errors[1] < errors[0] / 8 and errors[2] < 1e-3  # with the square of the steps


def test_integrated_gradients_add_up_to_what_moves_together():
    together = np.stack([through([u]) for u in range(U)])
    by_sender = effects("integrated", along="sender", steps=16).effects
    np.testing.assert_allclose(by_sender.sum(axis=1), together, atol=1e-3)
    by_site = effects("integrated", steps=16).effects
    np.testing.assert_allclose(by_site.sum(axis=(0, 1)), through(range(U)), atol=1e-3)
    assert np.nanmax(np.abs(by_site - by_hand("any")[0])) > 0.02  # each alone is another thing


def through(units):
    """The effect [N] of units of the map by way of all receivers."""
    _, reached = run(
        forward, PARAMS, X, edits={"map": Edit(SOURCE_MAP, units=jnp.array([*units, -1, -1][:U]))}, capture=("dense",)
    )
    outputs, _ = run(forward, PARAMS, X, edits={"dense": patch(reached["dense"])})
    return projected_change(Run(outputs, {}), *RUNS)


def squares(run, base, source):
    """Quadratic in the latents."""
    z = run.outputs.z
    return z[:, 0] ** 2 - z[:, 0] * z[:, 1]


def test_the_second_order_is_exact_where_the_outcome_is_quadratic():
    options = {"receiver": "dense", "outcome": squares}
    exact = effects("exact", **options).effects
    np.testing.assert_allclose(effects("second_order", **options).effects, exact, atol=2e-5)
    assert np.abs(effects("attribution", **options).effects - exact).max() > 0.05
    with pytest.raises(ValueError, match="receivers that are one number each, and those of 'map' are maps"):
        edge_effects(double_map, PARAMS, (X, SOURCE), "first", "map", method="second_order")


def double_map(params, x, key=None, tap=no_tap):
    return forward(params, tap("first", x), key, tap)


def test_blocks_change_nothing_and_noise_is_the_pairs_own():
    whole, blocks = (effects("attribution", chunk=chunk) for chunk in (N, 3))
    np.testing.assert_allclose(whole.effects, blocks.effects, atol=1e-5)
    np.testing.assert_allclose(whole.agreement.exact, blocks.agreement.exact, atol=1e-5)
    noisy = Pairs(X, SOURCE).with_noise(jax.random.key(4))
    found, quiet = (effects("attribution", pairs=p, outcome=LatentOutcome(1)) for p in (noisy, (X, SOURCE)))
    np.testing.assert_allclose(found.effects, quiet.effects, atol=1e-5)  # of a latent, to which noise is added
    np.testing.assert_allclose(found.agreement.exact, quiet.agreement.exact, atol=1e-5)


@pytest.mark.parametrize("path", ["any", "direct"])
def test_links_that_share_their_runs_are_those_of_single_calls(path):
    links = [("map", ("dense", [2, 0])), (("map", [1]), "latent/z"), ("between", "dense")]
    for method in ("attribution", "integrated", "exact"):
        together = link_effects(forward, PARAMS, (X, SOURCE), links, method=method, path=path, chunk=4)
        for link, found in zip(links, together, strict=True):
            alone = effects(method, *link, path=path)
            np.testing.assert_allclose(found.effects, alone.effects, atol=1e-5)
            assert (found.agreement is None) == (method == "exact")
            if found.agreement is not None:
                np.testing.assert_allclose(found.agreement.exact, alone.agreement.exact, atol=1e-5)
    with pytest.raises(ValueError, match=r"no links: give at least one \(sender, receiver\)"):
        link_effects(forward, PARAMS, (X, SOURCE), [])


def outside(params, x, key=None, tap=no_tap):
    """A network whose middle runs on the host."""
    h = tap("map", x)
    shape = jax.ShapeDtypeStruct(h.shape, h.dtype)
    return tap("image", jax.pure_callback(np.tanh, shape, tap("dense", h), vmap_method="expand_dims"))


def test_what_runs_outside_jax_has_exact_effects_only():
    message = "this model runs outside JAX .*method='exact'"
    for estimate in ("attribution", "integrated"):
        with pytest.raises(ValueError, match=message):
            edge_effects(outside, PARAMS, (X, SOURCE), "map", "dense", method=estimate)
    with pytest.raises(ValueError, match=message):
        attribution_effects(outside, PARAMS, (X, SOURCE), "map")
    assert edge_effects(outside, PARAMS, (X, SOURCE), "map", "dense", method="exact").effects.shape == (2, 2, N)


def test_the_sample_is_drawn_by_its_key():
    keys = None, jax.random.key(0), jax.random.key(1)
    drawn = [effects("attribution", sample=6, key=key).agreement.edges for key in keys]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert len(np.unique(drawn[2], axis=0)) == 6 and (drawn[0] != drawn[2]).any()


def test_agreement_is_not_decided_by_rounding():
    exact = np.array([1.0, 0.5, 0.0, 0.0, -0.25])
    assert agreement(exact, exact) == (1.0, 1.0, 0.0)
    noise = 1e-8 * np.array([1.0, -1.0, 2.0, -3.0, 1.0])
    assert agreement(exact + noise, exact - 2 * noise)[:2] == pytest.approx((1.0, 1.0))
    rank, signs, error = agreement(np.array([1.0, 0.5, 0.0, 0.0, 0.25]), exact)
    assert rank < 1 and signs == 2 / 3 and error == pytest.approx(0.5 / 1.75)
    assert all(np.isnan(agreement(np.zeros(3), np.zeros(3))))


def coded(params, x, key=None, tap=no_tap):
    """A code of three at each of four positions, and an image of the codes."""
    h = tap("map", x @ params["map"])  # [B, 2, 2, U]
    codes = tap("codes", jnp.argmax(h, axis=-1))  # [B, 2, 2] int32
    return tap("image", jax.nn.one_hot(codes, U).reshape(-1, 4 * U) @ params["between"])


def test_codes_have_exact_edges_only():
    ends = [Run(*run(coded, PARAMS, x, capture="*")) for x in (X, SOURCE)]
    with pytest.raises(ValueError, match="'codes' holds int32 codes, which have no gradient: use method='exact'"):
        edge_effects(coded, PARAMS, (X, SOURCE), "map", "codes")
    found = edge_effects(coded, PARAMS, (X, SOURCE), "map", "codes", method="exact").effects
    assert found.shape == (U, 4, N)
    unit, place = np.unravel_index(np.nanmax(np.abs(found), axis=2).argmax(), (U, 4))
    moved = Edit(ends[1].activations["map"], units=jnp.array([unit]))
    codes = run(coded, PARAMS, X, edits={"map": moved}, capture="codes")[1]["codes"]
    at = (jnp.arange(4) == place).reshape(1, 2, 2)
    patched, _ = run(coded, PARAMS, X, edits={"codes": Edit(codes, mask=at)})
    np.testing.assert_allclose(found[unit, place], projected_change(Run(patched, {}), *ends), atol=1e-5)
    assert np.nanmax(np.abs(found[unit, place])) > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gradient"}, "no method 'gradient'; there are: attribution, second_order, integrated, exact"),
        ({"samples": 3}, "no option samples; there are: path, steps, along, sample, key, chunk"),
        ({"path": "round"}, "no path 'round'; there are: any, direct"),
        ({"along": "all"}, "no along 'all'; there are: site, sender, edge"),
        ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
        ({"sample": 1}, "sample must be an integer of at least 2, not 1"),
        ({"sender": "dense", "receiver": "map"}, "an edge leads forward, but 'map' does not come after 'dense'"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        edge_effects(forward, PARAMS, (X, SOURCE), **({"sender": "map", "receiver": "dense"} | options))
    assert set(EdgeOptions._fields) == {"path", "steps", "along", "sample", "key", "chunk"}


@pytest.mark.long
@pytest.mark.parametrize(("sender", "receiver"), [("encoder/conv2", "latent/z"), ("latent/z", "decoder/conv1")])
def test_edges_of_a_trained_model_are_those_of_runs(sender, receiver):
    model, params = pretrained.load_pretrained("betatc_3dshapes")
    pairs = counterfactuals(data.load("3dshapes", source="procedural"), jax.random.key(0), "wall_hue", 3)
    ends, units = [Run(*run(model, params, x, capture="*")) for x in (pairs.x, pairs.x_source)], [8, 4, 7]
    asked = model, params, pairs, (sender, units), (receiver, units)
    exact, estimate = (edge_effects(*asked, method=m).effects for m in ("exact", "attribution"))

    def one_edge(a, u, w):
        base, source = (end.activations[sender] for end in ends)
        edits = {sender: Edit(base + a * (source - base), units=u[None])}
        _, reached = run(model, params, pairs.x, edits=edits, capture=(receiver,))
        outputs, _ = run(model, params, pairs.x, edits={receiver: Edit(reached[receiver], units=w[None])})
        return projected_change(Run(outputs, {}), *ends)

    for i, j in np.ndindex(3, 3):
        f = functools.partial(one_edge, u=jnp.array(units[i]), w=jnp.array(units[j]))
        np.testing.assert_allclose(exact[i, j], f(jnp.float32(1)), atol=1e-5)
        _, derivative = jax.jvp(f, (jnp.float32(0),), (jnp.float32(1),))
        np.testing.assert_allclose(estimate[i, j], derivative, atol=1e-5)
    assert np.abs(exact).max() > 0.01
