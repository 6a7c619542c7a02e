"""Patching, paths and attribution on a network that is written out here, against loops of single runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import Edit, no_tap, patch, run
from causalvae.architectures import Outputs
from causalvae.interventions import LatentOutcome, Pairs, attribution_effects, patch_effects, path_effects

N = 6
SHAPE = (4, 4, 2)


def forward(params, x, key=None, tap=no_tap):
    """A site with positions, a dense one, a skip past it, noise, and a nonlinear image."""
    h = tap("map", jax.nn.relu(x @ params["map"]))  # [B, 4, 4, 3]
    flat = h.reshape(h.shape[0], -1)
    g = tap("dense", jax.nn.relu(flat @ params["dense"]))  # [B, 5]
    z = g @ params["mean"] + 0.3 * flat @ params["skip"]
    z = z if key is None else z + jax.random.normal(key, z.shape)
    z = tap("latent/z", z)
    return Outputs(jax.nn.sigmoid(tap("image", z @ params["image"])), None, z, None)


def make_params():
    sizes = {"map": (2, 3), "dense": (48, 5), "mean": (5, 2), "skip": (48, 2), "image": (2, 9)}
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return {name: jax.random.normal(k, size) for (name, size), k in zip(sizes.items(), keys, strict=True)}


PARAMS = make_params()
X, SOURCE = jax.random.normal(jax.random.key(1), (2, N, *SHAPE))


def one_patch(site, mask, value, x=X, source=SOURCE):
    """(output change, latent change, recovery) [N] of one patch, by a single run."""
    base, other = run(forward, PARAMS, x)[0], run(forward, PARAMS, source)[0]
    outputs, _ = run(forward, PARAMS, x, edits={site: Edit(value=value, mask=mask)})
    norm = lambda a: np.linalg.norm(np.asarray(a).reshape(N, -1), axis=1)  # noqa: E731
    recovery = 1 - norm(outputs.image - other.image) / norm(base.image - other.image)
    return norm(outputs.image - base.image), np.abs(outputs.z - base.z), recovery


def activations(x, site):
    return run(forward, PARAMS, x, capture=(site,))[1][site]


def masks_of(granularity, shape):
    """One boolean mask [1, ...shape] for each group, written out."""
    size = int(np.prod(shape))
    groups = {
        "unit": np.arange(shape[-1]) * np.ones(shape),
        "position": np.arange(size // shape[-1]).reshape(*shape[:-1], 1) * np.ones(shape),
        "element": np.arange(size).reshape(shape),
        "site": np.zeros(shape),
    }[granularity]
    return [jnp.asarray(groups == g)[None] for g in range(int(groups.max()) + 1)]


@pytest.mark.parametrize(
    "site, granularity",
    [("map", "unit"), ("map", "position"), ("map", "element"), ("map", "site"), ("dense", "unit")],
)
def test_every_granularity_equals_a_loop(site, granularity):
    found = patch_effects(forward, PARAMS, (X, SOURCE), site, groups=granularity, chunk=4, per_pair=True)
    source = activations(SOURCE, site)
    masks = masks_of(granularity, source.shape[1:])
    assert found.output_change.shape == (len(masks), N)
    for g in range(0, len(masks), 5):
        for effect, expected in zip(found[:3], one_patch(site, masks[g], source), strict=True):
            np.testing.assert_allclose(effect[g], expected, atol=1e-5, err_msg=f"{site} {granularity} {g}")
    means = patch_effects(forward, PARAMS, (X, SOURCE), site, groups=granularity, chunk=100)
    for effect, every in zip(means[:2], found[:2], strict=True):
        np.testing.assert_allclose(effect, np.asarray(every).mean(axis=1), atol=1e-5)
    whole = np.linalg.norm(ends_of(X) - ends_of(SOURCE), axis=1)  # recovery is a ratio of sums
    np.testing.assert_allclose(means.recovery, np.asarray(found.recovery) @ whole / whole.sum(), atol=1e-5)
    assert not means.left_out.any() and not found.left_out.any()


def ends_of(x):
    return np.asarray(run(forward, PARAMS, x)[0].image)


def test_a_pair_that_decodes_nearly_alike_does_not_rule_the_recovery():
    """One such pair in six made the means of ratios -10,000 to -220,000; a ratio of sums hardly feels it."""
    others = patch_effects(forward, PARAMS, (X[1:], SOURCE[1:]), "dense")
    for step, left_out in ((1e-6, 1), (1e-2, 0)):
        near = SOURCE.at[0].set(X[0] + step * (SOURCE[0] - X[0]))
        pairs = patch_effects(forward, PARAMS, (X, near), "map", mode="zero", per_pair=True)
        means = patch_effects(forward, PARAMS, (X, near), "map", mode="zero")
        assert np.asarray(pairs.left_out).sum(axis=1).tolist() == [left_out] * 3 == means.left_out.tolist()
        assert np.isnan(pairs.recovery[:, 0]).all() == bool(left_out) and not np.isnan(pairs.recovery[:, 1:]).any()
        image = [np.linalg.norm(zeroed(u) - ends_of(near), axis=1)[left_out:].sum() for u in range(3)]
        whole = np.linalg.norm(ends_of(X) - ends_of(near), axis=1)[left_out:].sum()
        np.testing.assert_allclose(means.recovery, 1 - np.array(image) / whole, rtol=1e-4)
        interchange = patch_effects(forward, PARAMS, (X, near), "dense")
        np.testing.assert_allclose(interchange.recovery, others.recovery, atol=0.05)
    first = np.asarray(pairs.recovery)[:, 0]
    assert first.min() < -10 < np.asarray(means.recovery).min()


def zeroed(unit):
    value = jnp.zeros((N, *SHAPE[:2], 3))
    return np.asarray(run(forward, PARAMS, X, edits={"map": Edit(value=value, units=jnp.array([unit]))})[0].image)


def doubled(base, source):
    return 2 * base + source


@pytest.mark.parametrize("mode", ["zero", "mean", doubled])
def test_every_replacement_equals_a_loop(mode):
    found = patch_effects(forward, PARAMS, (X, SOURCE), "map", mode=mode, chunk=4, per_pair=True)
    base, source = activations(X, "map"), activations(SOURCE, "map")
    value = {
        "zero": np.zeros_like(base),
        "mean": np.broadcast_to(np.asarray(base).mean(0), base.shape),
        doubled: 2 * base + source,
    }[mode]
    mask = masks_of("unit", base.shape[1:])[1]
    for effect, expected in zip(found[:3], one_patch("map", mask, jnp.asarray(value)), strict=True):
        np.testing.assert_allclose(effect[1], expected, atol=1e-5)


def test_resampling_takes_other_rows_and_recovers_towards_them():
    pairs = Pairs(X, X).resample(jax.random.key(3))
    assert (np.asarray(pairs.x_source) != np.asarray(X)).any(axis=(1, 2, 3)).all()
    found = patch_effects(forward, PARAMS, pairs, "latent/z", groups="site")
    np.testing.assert_allclose(found.recovery, 1, atol=1e-5)
    assert found.output_change[0] > 1e-3
    with pytest.raises(ValueError, match="needs at least two"):
        Pairs(X[:1], X[:1]).resample(jax.random.key(0))


def test_noising_is_denoising_with_the_two_exchanged():
    one = patch_effects(forward, PARAMS, Pairs(X, SOURCE).swap(), "map")
    other = patch_effects(forward, PARAMS, (SOURCE, X), "map")
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_without_a_source_recovery_is_undefined_and_the_rest_is_not():
    found = patch_effects(forward, PARAMS, X, "map", mode="zero")
    assert np.isnan(found.recovery).all() and (np.asarray(found.output_change) > 0).all()


def test_sets_of_units_over_several_sites_are_patched_together():
    masks = {
        "map": np.array([[True, False, True], [False] * 3]),
        "dense": np.array([[False] * 5, [True] * 5]),
    }
    found = patch_effects(forward, PARAMS, (X, SOURCE), "map", groups=masks, per_pair=True)
    for g in range(2):
        edits = {site: Edit(value=activations(SOURCE, site), mask=jnp.asarray(mask[g])) for site, mask in masks.items()}
        outputs, base = run(forward, PARAMS, X, edits=edits)[0], run(forward, PARAMS, X)[0]
        np.testing.assert_allclose(
            found.output_change[g], np.linalg.norm(np.asarray(outputs.image - base.image), axis=1), atol=1e-5
        )
    together = patch_effects(forward, PARAMS, (X, SOURCE), ("map", "dense"), groups="site")
    np.testing.assert_allclose(together.recovery, 1, atol=1e-5)


def test_noise_belongs_to_the_pair_whatever_the_chunk():
    key = jax.random.key(9)
    noisy = Pairs(X, SOURCE).with_noise(key)
    small, large = (patch_effects(forward, PARAMS, noisy, "map", chunk=chunk, per_pair=True) for chunk in (2, 100))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), small, large)
    keys = jax.random.split(key, N)
    base, source = (jax.vmap(lambda x, k: forward(PARAMS, x[None], k).image[0])(end, keys) for end in (X, SOURCE))
    whole = patch_effects(forward, PARAMS, noisy, "latent/z", groups="site", per_pair=True)
    change = np.linalg.norm(np.asarray(source - base), axis=1)
    np.testing.assert_allclose(whole.output_change[0], change, atol=1e-5)


def test_values_do_not_compile_again_and_memory_does_not_grow_with_pairs():
    traces = []

    def counted(params, x, key=None, tap=no_tap):
        traces.append(x.shape[0])
        return forward(params, x, key, tap)

    def traced(params, x, source, **options):
        before = len(traces)
        patch_effects(counted, params, (x, source), "dense", chunk=3, **options)
        return len(traces) > before

    assert traced(PARAMS, X, SOURCE)
    assert not traced(jax.tree.map(lambda p: p + 1, PARAMS), SOURCE, X)
    assert not traced(PARAMS, X * 2, SOURCE)
    assert not traced(PARAMS, SOURCE, X)
    assert traced(PARAMS, X, SOURCE, groups=[0, 1])
    assert not traced(PARAMS, X, SOURCE, groups=[4, 2])
    # More pairs are more blocks of the same programs; only shapes are looked at afresh.
    del traces[:]
    many = [jnp.concatenate([a] * 8) for a in (X, SOURCE)]
    traced(PARAMS, *many)
    assert traces in ([], [8 * N])


# --- paths and attribution -------------------------------------------------------------------------------


def outcome_of(image):
    base, source = (np.asarray(run(forward, PARAMS, end)[0].image) for end in (X, SOURCE))
    change = source - base
    return ((np.asarray(image) - base) * change).sum(1) / (change**2).sum(1)


def test_paths_equal_two_runs_each_and_leave_the_skip_out():
    found = path_effects(forward, PARAMS, (X, SOURCE), "map", "dense", chunk=5)
    assert found.path.shape == (3, 5, N)
    source = activations(SOURCE, "map")
    sent = []
    for u in range(3):
        edit = {"map": Edit(value=source, units=jnp.array([u]))}
        outputs, reached = run(forward, PARAMS, X, edits=edit, capture=("dense",))
        sent.append(outcome_of(outputs.image))
        for w in range(0, 5, 2):
            received, _ = run(forward, PARAMS, X, edits={"dense": Edit(reached["dense"], jnp.array([w]))})
            np.testing.assert_allclose(found.path[u, w], outcome_of(received.image), atol=1e-5)
        together, _ = run(forward, PARAMS, X, edits={"dense": patch(reached["dense"])})
        np.testing.assert_allclose(found.through[u], outcome_of(together.image), atol=1e-5)
    np.testing.assert_allclose(found.sender, np.stack(sent), atol=1e-5)
    np.testing.assert_allclose(found.interaction, found.through - found.path.sum(1), atol=1e-5)
    assert np.abs(found.through - found.sender).max() > 1e-3  # the skip passes the receivers by
    cut = path_effects(forward, PARAMS, (X, SOURCE), "dense", "latent/z")
    np.testing.assert_allclose(cut.through, cut.sender, atol=1e-5)
    some = path_effects(forward, PARAMS, (X, SOURCE), ("map", [2]), ("dense", [4, 0]))
    np.testing.assert_allclose(some.path[0], found.path[2, np.array([4, 0])], atol=1e-5)


def two_routes(params, x, key=None, tap=no_tap):
    """z = (b + a c) u, linear: c takes u to the site between, a from there to the receiver, b leads past it."""
    u = tap("sender", x[:, :2])
    m = tap("between", u @ params["c"])  # [B, 3]
    z = tap("receiver", m @ params["a"] + u @ params["b"])
    return Outputs(tap("image", z @ params["image"]), None, z, None)


def test_the_direct_path_leaves_out_what_goes_through_the_sites_between():
    generator = np.random.default_rng(0)
    sizes = {"c": (2, 3), "a": (3, 2), "b": (2, 2), "image": (2, 4)}
    params = {name: generator.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    x, source = generator.normal(size=(2, 5, 2)).astype(np.float32)
    ways = {"direct": params["b"], "any": params["b"] + params["c"] @ params["a"]}
    for path, way in ways.items():
        for w in range(2):
            found = path_effects(
                two_routes, params, (x, source), "sender", "receiver", outcome=LatentOutcome(w), path=path, chunk=3
            )
            expected = np.zeros((2, 2, 5))  # only the receiver that is the outcome itself
            expected[:, w] = way[:, w, None] * (source - x).T
            np.testing.assert_allclose(found.path, expected, atol=1e-5)
            np.testing.assert_allclose(found.through, expected.sum(1), atol=1e-5)
    assert np.abs(ways["any"] - ways["direct"]).min() > 0.1
    near = [path_effects(two_routes, params, (x, source), "sender", "between", path=path).path for path in ways]
    np.testing.assert_allclose(*near, atol=1e-5)  # no site lies between
    with pytest.raises(ValueError, match="no path 'indirect'; there are: any, direct"):
        path_effects(two_routes, params, (x, source), "sender", "receiver", path="indirect")


def test_receivers_and_senders_at_several_sites_act_together():
    generator = np.random.default_rng(0)
    sizes = {"c": (2, 3), "a": (3, 2), "b": (2, 2), "image": (2, 4)}
    params = {name: generator.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    x, source = generator.normal(size=(2, 5, 2)).astype(np.float32)
    change = source - x
    past, through = change @ params["b"], change @ params["c"] @ params["a"]
    masks = {"receiver": np.array([[0, 0], [1, 0], [1, 1]], bool), "between": np.ones((3, 3), bool)}
    for path, of_receiver in {"direct": past, "any": past + through}.items():
        # What is replaced at the receiver has the value that the sender gave it; the rest follows the site between.
        expected = [through, np.stack([of_receiver[:, 0], through[:, 1]], axis=1), of_receiver]
        for w in range(2):
            found = path_effects(
                two_routes, params, (x, source), ("sender", "site"), ("", masks), outcome=LatentOutcome(w), path=path
            )
            np.testing.assert_allclose(found.path[0], np.stack(expected)[:, :, w], atol=1e-5)
            np.testing.assert_allclose(found.through[0], of_receiver[:, w], atol=1e-5)
    outcome = LatentOutcome(0)
    both = path_effects(
        two_routes, params, (x, source), (("sender", "between"), "site"), "receiver", path="direct", outcome=outcome
    )
    np.testing.assert_allclose(both.through[0], (past + through)[:, 0], atol=1e-5)
    np.testing.assert_allclose(both.sender[0], (past + through)[:, 0], atol=1e-5)
    with pytest.raises(ValueError, match="'between' does not come after 'receiver'"):
        path_effects(two_routes, params, (x, source), (("sender", "receiver"), "site"), "between")


def test_attribution_is_the_gradient_and_exact_only_where_all_is_linear():
    found = attribution_effects(forward, PARAMS, (X, SOURCE), "dense", chunk=4)
    base, source = activations(X, "dense"), activations(SOURCE, "dense")
    ends = [run(forward, PARAMS, end)[0].image for end in (X, SOURCE)]
    flat = activations(X, "map").reshape(N, -1)

    def total(g):
        z = g @ PARAMS["mean"] + 0.3 * flat @ PARAMS["skip"]
        change = ends[1] - ends[0]
        projected = (jax.nn.sigmoid(z @ PARAMS["image"]) - ends[0]) * change
        return jnp.sum(projected.sum(1) / jnp.sum(change**2, axis=1))

    expected = ((source - base) * jax.grad(total)(base)).T
    np.testing.assert_allclose(found.estimate, expected, atol=1e-4)
    np.testing.assert_allclose(found.error, np.abs(found.estimate - found.exact).mean(1), atol=1e-6)
    assert found.error.max() > 1e-3
    linear = attribution_effects(forward, PARAMS, (X, SOURCE), "dense", outcome=LatentOutcome(1))
    np.testing.assert_allclose(linear.estimate, linear.exact, atol=1e-4)
    assert np.abs(linear.exact).max() > 1e-2
    cheap = attribution_effects(forward, PARAMS, (X, SOURCE), "dense", exact=False)
    assert cheap.exact is None and cheap.error is None


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"site": "dens"}, "no site 'dens' in this model. Did you mean 'dense'"),
        ({"groups": "neuron"}, "no groups 'neuron'; there are: unit, channel"),
        ({"groups": "channel"}, "'dense' has no positions; use groups='unit' for its 5 units"),
        ({"groups": [5]}, r"no unit of site 'dense' \[5\]: they are 0 to 4"),
        ({"groups": range(900)}, r"no unit of site 'dense' \[5, 6, 7, 8, 9, …\]: they are 0 to 4"),
        ({"mode": "ablate"}, "no mode 'ablate'; there are: interchange, zero"),
        ({"site": ("map", "dense")}, "2 sites together need groups='site'"),
        ({"groups": {"dense": np.ones((2, 4), bool)}}, r"masks for site 'dense' must be \[groups, 5\]"),
        ({"groups": {}}, "masks must name at least one site"),
        ({"chunk": 2.5}, "chunk must be a positive integer"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        patch_effects(forward, PARAMS, (X, SOURCE), **{"site": "dense", **options})


def test_pairs_that_are_none_and_activations_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="are not pairs: their shapes differ. Both must come from the same data"):
        patch_effects(forward, PARAMS, (X, SOURCE[:, :2]), "dense")
    broken = {**PARAMS, "dense": PARAMS["dense"].at[0, 0].set(jnp.nan)}
    with pytest.raises(ValueError, match="NaN or infinite at site 'dense'"):
        patch_effects(forward, broken, (X, SOURCE), "map")
    with pytest.raises(ValueError, match="'map' does not come after 'dense'"):
        path_effects(forward, PARAMS, (X, SOURCE), "dense", "map")

    def silent(params, x, key=None, tap=no_tap):
        return x

    with pytest.raises(ValueError, match="no site to intervene on"):
        patch_effects(silent, PARAMS, (X, SOURCE), "dense")

    def odd(params, x, key=None, tap=no_tap):
        return {"picture": tap("dense", x)}

    with pytest.raises(ValueError, match="returned dict, which is no array and has no `.image`"):
        patch_effects(odd, PARAMS, (X, SOURCE), "dense")
