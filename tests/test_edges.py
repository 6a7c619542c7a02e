"""Sets of edges, their search and their graphs, on chains written out here and on planted models."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

from causalvae import circuits, edges, interventions, no_tap, planted
from causalvae.architectures import Outputs
from causalvae.edges.circuit import joined
from causalvae.edges.outcomes import _pooled
from causalvae.interventions import LatentOutcome

SITES = ("a", "b", "latent/z")
N = 6


def chain(params, x, key=None, tap=no_tap):
    """Three sites, each a cut set, and an image that is not linear; `passing` leads past b."""
    a = tap("a", jnp.tanh(x @ params["a"]))
    b = tap("b", jnp.tanh(a @ params["b"]))
    z = tap("latent/z", jnp.tanh(b @ params["z"]) + a @ params["passing"])
    return Outputs(jax.nn.sigmoid(z @ params["image"]), None, z, None)


GENERATOR = np.random.default_rng(5)
SIZES = {"a": (3, 3), "b": (3, 4), "z": (4, 2), "image": (2, 5)}
PARAMS = {name: GENERATOR.normal(size=size).astype(np.float32) for name, size in SIZES.items()}
PARAMS["passing"] = np.zeros((3, 2), np.float32)
X, SOURCE = GENERATOR.normal(size=(2, N, 3)).astype(np.float32)


# --- sets of edges ---------------------------------------------------------------------------------------


def joint_by_hand(first, second):
    """Latent 1 [N] under one set of edges, receiver by receiver."""
    base, source = (np.tanh(x @ PARAMS["a"]) for x in (X, SOURCE))
    at_b = np.tanh(base @ PARAMS["b"])
    b = np.stack([np.tanh(np.where(first[:, w], source, base) @ PARAMS["b"][:, w]) for w in range(4)], axis=1)
    return np.tanh(np.where(second[:, 1], b, at_b) @ PARAMS["z"][:, 1]) - np.tanh(at_b @ PARAMS["z"][:, 1])


def test_a_set_of_edges_is_patched_receiver_by_receiver():
    masks = {("a", "b"): GENERATOR.random((5, 3, 4)) < 0.5, ("b", "latent/z"): GENERATOR.random((5, 4, 2)) < 0.6}
    for mask in masks.values():
        mask[3], mask[4] = True, False
    options = {"outcome": LatentOutcome(1), "chunk": 4}
    total, joint = edges.patch_edges(chain, PARAMS, (X, SOURCE), SITES[::-1], masks, **options)
    for g in range(5):
        np.testing.assert_allclose(joint[g], joint_by_hand(*(mask[g] for mask in masks.values())), atol=1e-5)
    np.testing.assert_allclose(joint[3], total, atol=1e-5)  # every site is a cut set
    np.testing.assert_array_equal(joint[4], 0)
    passing = PARAMS | {"passing": np.ones((3, 2), np.float32)}
    total, joint = edges.patch_edges(chain, passing, (X, SOURCE), SITES, masks, **options)
    past = np.tanh(SOURCE @ PARAMS["a"]).sum(axis=1) - np.tanh(X @ PARAMS["a"]).sum(axis=1)
    np.testing.assert_allclose(joint[3], total - past, atol=1e-5)  # what leads past b keeps its value


def test_one_edge_of_a_link_is_the_edge_itself():
    single = np.eye(12, dtype=bool).reshape(12, 3, 4)
    outcome = LatentOutcome(0)
    _, joint = edges.patch_edges(chain, PARAMS, (X, SOURCE), ["a", "b"], {("a", "b"): single}, outcome=outcome)
    exact = interventions.edge_effects(chain, PARAMS, (X, SOURCE), "a", "b", method="exact", outcome=outcome)
    np.testing.assert_allclose(joint.reshape(3, 4, N), exact.effects, atol=1e-5)


def test_edges_that_lead_nowhere_are_dropped():
    first, second = np.zeros((3, 4), bool), np.zeros((4, 2), bool)
    first[[0, 1], [0, 1]], second[[1, 2], [1, 0]] = True, True  # 0 > 0 ends there; 2 > 0 begins there
    for found, edge in zip(joined((first, second)), [(1, 1), (1, 1)], strict=True):
        np.testing.assert_array_equal(np.argwhere(found), [edge])


# --- the search ------------------------------------------------------------------------------------------

PLANTED = planted.plant("split")
PLANTED_SITES = ["encoder/hidden", "latent/z", "decoder/hidden"]
PAIRS = {
    factor: interventions.counterfactuals(PLANTED.dataset, jax.random.key(k), factor, num=16)
    for k, factor in enumerate(PLANTED.dataset.factor_names)
}


def planted_edges(k):
    """Of factor k: its carriers to the latents that they write, and those to the hidden units that show its block."""
    encoder, decoder = (jax.tree.map(np.asarray, PLANTED.params[part]) for part in ("encoder", "decoder"))
    carries, shows = encoder["hidden"][k] != 0, decoder["blocks"][:, k] != 0
    writes = carries[:, None] & (encoder["mean"] != 0)
    return writes, writes.any(axis=0)[:, None] & (decoder["hidden"] != 0) & shows[None]


def test_planted_edges_are_found_and_no_others():
    found = edges.find_edges(
        PLANTED.model, PLANTED.params, PAIRS["first"], PLANTED_SITES, threshold=0.99, factor="first"
    )
    masks = planted_edges(0)
    for listed, mask in zip(found.edges.values(), masks, strict=True):
        assert sorted(map(tuple, listed)) == sorted(map(tuple, np.argwhere(mask)))
    assert found.found and found.size == sum(mask.sum() for mask in masks) == 7
    assert found.faithfulness == pytest.approx(1, abs=1e-4) and found.completeness == pytest.approx(1, abs=1e-4)
    assert found.random.max() < 0.9 and len(found.random) == 20 and found.random_size > 20
    # Units hold every edge among them: 2 carriers x 2 latents, 2 latents x 3 hidden units.
    assert {site: len(units) for site, units in found.units.units.items()} == dict(zip(PLANTED_SITES, (2, 2, 3)))
    assert found.units.size == 10 and found.units.faithfulness == pytest.approx(1, abs=1e-4)
    for stable, mask in zip(found.stability.values(), masks, strict=True):
        np.testing.assert_array_equal(stable, mask)
    np.testing.assert_allclose(found.effects.edges["encoder/hidden", "latent/z"][masks[0]], 0.25, atol=1e-4)


def test_a_chain_that_is_passed_by_has_no_circuit():
    passing = PARAMS | {"passing": 3 * np.ones((3, 2), np.float32)}
    found = edges.find_edges(chain, passing, (X, SOURCE), SITES, outcome=LatentOutcome(0), threshold=1.0, chunk=N)
    assert not found.found and found.size == 3 * 4 + 4 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold is a fraction of the total effect"),
        ({"sites": ["a"]}, "edges run from site to site: give at least two, not a"),
        ({"sites": ["a", "c"]}, "no site 'c' in this model"),
        ({"step": 3}, "no option step; there are: path, steps"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        edges.find_edges(chain, PARAMS, (X, SOURCE), **({"sites": SITES} | options))
    with pytest.raises(ValueError, match=r"must be \[2, 3, 4\] \(sets, senders, receivers\), not \(2, 4, 3\)"):
        edges.patch_edges(chain, PARAMS, (X, SOURCE), SITES[:2], {("a", "b"): np.ones((2, 4, 3), bool)})
    with pytest.raises(ValueError, match=r"masks must be of \('a', 'b'\), not of \('b', 'a'\)"):
        edges.patch_edges(chain, PARAMS, (X, SOURCE), SITES[:2], {("b", "a"): np.ones((2, 4, 3), bool)})


def test_standard_errors_are_those_of_ratios_over_pairs():
    outcome = LatentOutcome(0)
    found = edges.trace_edges(chain, PARAMS, (X, SOURCE), ["a", "b"], method="exact", outcome=outcome)
    effects = interventions.edge_effects(chain, PARAMS, (X, SOURCE), "a", "b", method="exact", outcome=outcome).effects
    effects = np.asarray(effects)
    total = np.asarray(interventions.indirect_effects(chain, PARAMS, (X, SOURCE), "a", outcome=outcome)[0])
    ratio = np.mean(effects[1, 2]) / total.mean()
    left = effects[1, 2] - ratio * total
    error = left.std() / np.sqrt(N) / abs(total.mean())
    assert found.edges["a", "b"][1, 2] == pytest.approx(ratio, rel=1e-4)
    assert found.errors["a", "b"][1, 2] == pytest.approx(error, rel=1e-3)
    total, indirect = interventions.indirect_effects(chain, PARAMS, (X, SOURCE), "b", outcome=outcome)
    total, effect = np.asarray(total), np.asarray(indirect[3])
    left = effect - effect.mean() / total.mean() * total
    assert found.unit_errors["b"][3] == pytest.approx(left.std() / np.sqrt(N) / abs(total.mean()), rel=1e-3)
    nodes = {node["id"]: node for node in edges.edge_graph(found)["nodes"]}
    assert nodes["b:3"]["standard_error"] == found.unit_errors["b"][3]


# --- graphs ----------------------------------------------------------------------------------------------


def test_a_graph_leads_from_the_factor_to_the_output_and_is_drawn(tmp_path):
    found = edges.trace_edges(PLANTED.model, PLANTED.params, PAIRS["first"], PLANTED_SITES, factor="first")
    assert all(agreement.error < 1e-3 for agreement in found.agreement.values())  # all is linear
    graph = edges.edge_graph(found)
    circuits.save_graph(graph, tmp_path / "first.json")
    network = networkx.node_link_graph(graph, edges="edges")
    assert networkx.is_directed_acyclic_graph(network) and network.graph["factor"] == "first"
    assert network.number_of_edges() == 7 + 2 + 3  # the factor's, to carriers, and the output's, from hidden units
    for ends in (network.out_edges("factor:first", data="effect"), network.in_edges("output", data="effect")):
        assert sum(effect for *_, effect in ends) == pytest.approx(1, abs=1e-3)
    assert sum("standard_error" in edge for edge in edges.edge_graph(found, strongest=2)["edges"]) == 4
    figure = edges.draw_edges(graph, subtitle="planted")
    widths = sorted(line.get_linewidth() for line in figure.axes[0].lines if line.get_gid().startswith("edge"))
    assert len(widths) == 12 and widths[-1] > widths[0]
    page = edges.edge_page(figure, tmp_path / "first.html", "first <b>").read_text()
    assert "first &lt;b&gt;" in page and "http" not in page.replace("http://www.w3.org", "")
    drawing = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    told = [title.text for title in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert len(told) == 12 + network.number_of_nodes()
    assert any(text.startswith("latent/z:0 → decoder/hidden:") for text in told)


# --- all factors at once ---------------------------------------------------------------------------------


def test_shared_and_dedicated_edges_of_a_merged_latent():
    merged = planted.plant("merged")  # latent 0 serves the first two factors, through one hidden unit
    arguments = merged.model, merged.params, PAIRS, "latent/z", "decoder/hidden"
    untrained = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), merged.params)
    found = edges.edge_outcomes(*arguments, untrained=untrained, permutations=20)
    written = np.argwhere(np.asarray(merged.params["decoder"]["hidden"]) != 0)
    of_latent = {i: written[written[:, 0] == i] for i in (0, 2)}
    np.testing.assert_array_equal(found.shared, of_latent[0])
    np.testing.assert_array_equal(found.dedicated["third"], of_latent[2])
    assert not len(found.dedicated["first"]) and found.effects.shape == (3, 6, 12)
    for level in (found.edges, found.units):  # the first two factors are alike, the third is apart: (1 + 2 r) / 3
        assert 0 < level.value < 0.9 and level.permuted.mean() < level.value and level.untrained != level.value
    assert found.permuted_shared.mean() > 0.5
    flat = [np.full((2, 3), np.nan), np.ones((2, 3)), np.full((2, 3), 2.0)]
    np.testing.assert_array_equal(_pooled(flat, drop=True).means(), [[1, 1], [2, 2]])
    with pytest.raises(ValueError, match="no pair of factor number 0 has a defined outcome"):
        _pooled(flat)
    with pytest.raises(ValueError, match="edges are compared between factors"):
        edges.edge_outcomes(*arguments[:2], {"first": PAIRS["first"]}, *arguments[3:])


SHARDED = """
import jax, numpy as np, test_edges as t
from jax.sharding import NamedSharding, PartitionSpec
from causalvae import edges, interventions, sharding
assert jax.device_count() == 2
mesh = sharding.make_mesh(members=1, batch_size=t.N)
spread = [jax.device_put(x, NamedSharding(mesh, PartitionSpec(sharding.DATA))) for x in (t.X, t.SOURCE)]
params = jax.device_put(t.PARAMS, NamedSharding(mesh, PartitionSpec()))
one, two = (interventions.edge_effects(t.chain, *a, "a", "b", outcome=t.LatentOutcome(0)).effects
            for a in ((t.PARAMS, (t.X, t.SOURCE)), (params, tuple(spread))))
np.testing.assert_allclose(one, two, atol=1e-6)
assert len(two.sharding.device_set) == 2, two.sharding
masks = {("a", "b"): np.ones((1, 3, 4), bool)}
total, joint = edges.patch_edges(t.chain, params, tuple(spread), ["a", "b"], masks)
np.testing.assert_allclose(joint[0], total, atol=1e-6)
"""


def test_pairs_may_be_spread_over_devices():
    here = os.path.dirname(__file__)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join([here, os.path.dirname(here)]),
    }
    ran = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
