"""Circuits of planted models, found exactly; what is drawn and written of them; what is refused."""

import json

import jax
import networkx
import numpy as np
import pytest

from causalvae import circuits, planted, plots
from causalvae import interventions as iv
from causalvae.architectures import Outputs
from causalvae.sites import no_tap

SITES = ("encoder/hidden", "latent/z", "decoder/hidden")


def pairs_of(model, num=16):
    return {
        name: iv.counterfactuals(model.dataset, jax.random.key(k), name, num) for k, name in enumerate(planted.FACTORS)
    }


def found_at(model, site, **options):
    return circuits.find_circuits(model.model, model.params, pairs_of(model), site, **options)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["disentangled", "rotated", "merged", "split"])
def test_planted_circuits_are_found_exactly(name, seed):
    model = planted.plant(name, seed)
    for site in SITES:
        true = model.truth.circuits(site)
        for factor, circuit in found_at(model, site).items():
            assert set(circuit.units.tolist()) == true[factor], (site, factor)  # precision and recall 1
            assert circuit.found and circuit.faithfulness >= 0.9
            assert circuit.completeness >= 0.9
            k = planted.FACTORS.index(factor)
            np.testing.assert_allclose(circuit.effects, model.truth.fractions[site][:, k], atol=1e-4)
            np.testing.assert_allclose(np.sort(circuit.curve)[-1], 1, atol=1e-4)
            assert (circuit.random <= circuit.faithfulness + 1e-4).all() and circuit.random.mean() < 0.6


def test_the_threshold_decides_the_size():
    model = planted.plant("rotated", angle=0.4)  # cos(0.4)^2 = 0.85 of the first factor is in latent 0
    sizes = {
        threshold: len(found_at(model, "latent/z", threshold=threshold)["first"].units) for threshold in (0.8, 0.9)
    }
    assert sizes == {0.8: 1, 0.9: 2}


def test_units_that_a_set_can_do_without_are_pruned():
    calls = []

    def joint(masks):  # units 0 and 1 are worth 0.5 alone, unit 2 all of it
        calls.append(len(masks))
        return np.array([1.0 if m[2] else 0.5 * (m[0] + m[1]) * 0.8 for m in masks])

    np.testing.assert_array_equal(circuits._prune(joint, np.array([True] * 3), 0.9), [False, False, True])
    assert calls == [3, 2]  # both units that can go, at once


@pytest.mark.parametrize("seed", range(20))
def test_a_pruned_set_is_enough_and_minimal(seed):
    weights = np.random.default_rng(seed).dirichlet(np.full(12, 0.5))
    interaction = np.random.default_rng(seed + 100).uniform(-0.02, 0.02, (12, 12))

    def joint(masks):
        masks = masks.astype(float)
        return masks @ weights + np.einsum("gi,ij,gj->g", masks, interaction, 1 - masks)  # all units: 1

    units = circuits._prune(joint, np.ones(12, bool), 0.9)
    assert joint(units[None])[0] >= 0.9 and units.sum() < 12
    members = np.flatnonzero(units)
    assert all(joint(units[None] & (np.arange(12) != m))[0] < 0.9 for m in members) or len(members) == 1


def test_overlap_and_motifs_say_what_was_planted():
    merged, split = planted.plant("merged"), planted.plant("split")
    at_latents = found_at(merged, "latent/z")
    np.testing.assert_allclose(circuits.overlap(at_latents), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    found = circuits.motifs(at_latents)
    assert found.merged == {0: ("first", "second")} and found.dedicated == {2: "third"}
    assert found.split == {} and found.idle == (1, 3, 4, 5)
    found = circuits.motifs(found_at(split, "latent/z"))
    assert found.split == {"first": (0, 3)} and found.shared == {}
    assert found.dedicated == {0: "first", 1: "second", 2: "third", 3: "first"}


def test_edges_are_the_planted_paths():
    model = planted.plant("split", seed=2)
    pairs = pairs_of(model)["first"]
    wiring = circuits.trace(model.model, model.params, pairs, SITES, factor="first")
    weights = (
        model.params["encoder"]["mean"],
        model.params["decoder"]["hidden"] @ model.params["decoder"]["blocks"],
    )
    senders, receivers = wiring.circuits["encoder/hidden"].units, wiring.circuits["latent/z"].units
    # Hidden unit u moves latent i by mean[u, i], which moves the block by W[i]: fractions of one whole.
    expected = np.asarray(weights[0])[np.ix_(senders, receivers)] * np.asarray(weights[1])[receivers, 0][None]
    np.testing.assert_allclose(wiring.edges["encoder/hidden", "latent/z"], expected, atol=1e-4)
    np.testing.assert_allclose(sum(e.sum() for e in wiring.edges.values()), 2.0, atol=1e-3)


def test_a_graph_is_read_by_networkx_and_drawn(tmp_path):
    model = planted.plant("split", seed=2)
    wiring = circuits.trace(model.model, model.params, pairs_of(model)["first"], SITES[:2], factor="first")
    graph = circuits.as_graph(wiring)
    circuits.save_graph(graph, tmp_path / "graph.json")
    read = networkx.node_link_graph(json.loads((tmp_path / "graph.json").read_text()), edges="edges")
    assert read.is_directed() and set(read.nodes) == {node["id"] for node in graph["nodes"]}
    assert len(read.nodes) == 4 and read.number_of_edges() == 4
    assert networkx.is_directed_acyclic_graph(read)
    assert read.nodes["latent/z:3"]["site"] == "latent/z"
    assert len(circuits.as_graph(wiring, smallest=0.9)["edges"]) == 0
    figure = plots.circuit_graph(graph, "linear world (procedural)")
    figure.savefig(tmp_path / "circuit.png")
    (axes,) = figure.axes
    assert "first" in axes.get_title() and "procedural" in axes.get_title()
    assert len(axes.lines) == 4 and {t.get_text() for t in axes.texts} == {str(n["unit"]) for n in graph["nodes"]}


def test_selectivity_counts_units_that_serve_one_factor_and_not_noise():
    model = planted.plant("disentangled", seed=3)
    result = circuits.selectivity(model.model, model.params, pairs_of(model), "encoder/hidden", permutations=50)
    true = model.truth.fractions["encoder/hidden"]
    carriers = (true > 0.01).any(axis=1)
    np.testing.assert_allclose(result.effects, true, atol=1e-4)
    np.testing.assert_allclose(result.selectivity[carriers], 1, atol=1e-3)
    assert np.isnan(result.selectivity[~carriers]).all()
    np.testing.assert_array_equal(result.factor[carriers], true[carriers].argmax(axis=1))
    assert (result.floor[carriers] < result.effects[carriers].max(axis=1)).all()
    assert (result.permuted[carriers] < 0.5).all()


def test_bad_input_is_refused():
    model = planted.plant("merged")
    pairs = pairs_of(model)
    mixed = {**pairs, "first": pairs["first"].replace(dataset="dsprites (real)")}
    with pytest.raises(ValueError, match=r"different data sets \(dsprites \(real\), linear_world \(procedural\)\)"):
        circuits.find_circuits(model.model, model.params, mixed, "latent/z")
    matched = {**pairs, "first": pairs["first"].replace(observational=True)}
    with pytest.raises(ValueError, match="pairs of first are matched, not counterfactual"):
        circuits.selectivity(model.model, model.params, matched, "latent/z")
    same = pairs["first"].replace(x_source=pairs["first"].x)
    with pytest.raises(ValueError, match="the total effect of these pairs on the outcome is zero"):
        circuits.find_circuit(model.model, model.params, same, "latent/z")
    with pytest.raises(ValueError, match="no site 'latent/y'"):
        circuits.find_circuit(model.model, model.params, same, "latent/y")
    with pytest.raises(ValueError, match="threshold is a fraction"):
        circuits.find_circuit(model.model, model.params, same, "latent/z", threshold=90)
    two = [circuits.find_circuit(model.model, model.params, pairs["third"], site) for site in SITES[1:]]
    with pytest.raises(ValueError, match="motifs are of one site"):
        circuits.motifs({"first": two[0], "second": two[1]})


# --- chance and rounding ---------------------------------------------------------------------------------


def many_alike(params, x, key=None, tap=no_tap):
    """A model of 24 units, each one pixel of its image: over images of noise no unit differs from another."""
    hidden = tap("hidden", x.reshape(len(x), -1))
    return Outputs(hidden.reshape(x.shape), hidden.reshape(x.shape), hidden, None)


def test_a_circuit_of_units_that_are_alike_is_no_better_than_random_sets():
    """On the pairs that chose it such a circuit recovers 0.72, where random sets of its size recover 0.54."""
    gains = []
    for seed in range(12):
        pairs = tuple(np.random.default_rng(seed).normal(size=(2, 8, 4, 6, 1)).astype(np.float32))
        circuit = circuits.find_circuit(many_alike, None, pairs, "hidden", threshold=0.7, seed=seed)
        assert circuit.found and len(circuit.units) < 0.6 * 24
        gains.append([circuit.faithfulness - circuit.random.mean(), circuit.faithfulness - len(circuit.units) / 24])
    error = np.std(gains, axis=0, ddof=1) / np.sqrt(len(gains))
    assert (np.abs(np.mean(gains, axis=0)) < 3 * error).all() and (error < 0.04).all()


def test_units_are_chosen_on_every_other_pair_and_measured_on_the_rest():
    """Pairs 0, 2, ... differ in one pixel, pairs 1, 3, ... in three: each half has another circuit."""
    x = np.zeros((12, 4, 6, 1), np.float32)
    source = x.copy()
    source[::2, 0, 0], source[1::2, 0, :3] = 1.0, 1.0
    circuit = circuits.find_circuit(many_alike, None, (x, source), "hidden")
    assert circuit.found and circuit.units.tolist() == [0]
    np.testing.assert_allclose([circuit.faithfulness, circuit.completeness], 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(circuit.effects[:4], [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-5)
    with pytest.raises(ValueError, match="chosen on one half and measured on the other"):
        circuits.find_circuit(many_alike, None, (x[:1], source[:1]), "hidden")


@pytest.mark.parametrize("seed", range(4))
def test_rounding_does_not_choose_between_units_that_are_alike(seed, monkeypatch):
    """Four units carry a quarter each, and two of them make the threshold exactly."""
    x = np.zeros((4, 4, 6, 1), np.float32)
    source = x.copy()
    source[:, 0, 1:5] = 1.0
    generator, exact = np.random.default_rng(seed), circuits.indirect_effects

    def rounded(*args, **options):
        total, indirect = (np.asarray(e) for e in exact(*args, **options))
        return total, indirect * (1 + generator.choice([-1, 0, 1], indirect.shape) * 2.0**-23)

    monkeypatch.setattr(circuits, "indirect_effects", rounded)
    circuit = circuits.find_circuit(many_alike, None, (x, source), "hidden", threshold=0.5)
    assert circuit.units.tolist() == [1, 2]
