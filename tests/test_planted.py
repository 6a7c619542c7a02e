"""Planted models: every known answer is found, and the closed forms themselves are checked by other means."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae import discovery, metrics, planted, run
from causalvae import interventions as iv
from causalvae.adapters import from_functions
from causalvae.data import graphs
from experiments import planted as experiment

KEY = jax.random.key(0)


def test_every_known_answer_is_found():
    rows = experiment.answers(KEY)
    wrong = [row for row in rows if not row.right]
    assert not wrong, "\n".join(f"{r.model}, {r.quantity}: {r.known} known, {r.found} found" for r in wrong)
    assert len(rows) == 4 * 11 + 4
    page = (pathlib.Path(__file__).parents[1] / "docs" / "planted.md").read_text()
    assert [line.split("|")[1:4] for line in experiment.table(rows).splitlines()] == [
        line.split("|")[1:4] for line in page.splitlines()
    ], "docs/planted.md is out of date: python -m experiments.planted --out=docs/planted.md"


def test_a_wrong_answer_is_noticed():
    assert not experiment.Answer("", "", np.ones(2), np.array([1.0, 1.1]), 0.05).right
    assert not experiment.Answer("", "", np.ones(2), np.ones(3), 0.05).right
    assert not experiment.Answer("", "", np.ones(1), np.array([np.nan]), 0.05).right


@pytest.mark.parametrize("name", ["disentangled", "rotated", "merged", "split"])
def test_latents_and_images_are_linear_as_the_truth_says(name):
    model = planted.plant(name, seed=4)
    factors = jnp.asarray(planted.all_factors())
    v = 1.5 * (2.0 * planted.all_factors() - 1)
    outputs, _ = run(model.model, model.params, model.dataset.render(factors, KEY))
    z = v @ model.truth.latents.T
    np.testing.assert_allclose(outputs.z, z, atol=1e-5)
    blocks = (np.asarray(outputs.image)[:, 0, :: planted.BLOCK, 0] - 0.5) / planted.CONTRAST
    np.testing.assert_allclose(blocks, z @ model.truth.image.T, atol=1e-4)
    if name != "merged":
        np.testing.assert_allclose(blocks[:, :3], v, atol=1e-4)
    kl = model.model.activity(model.params, model.dataset.render(factors, KEY))
    np.testing.assert_array_equal(np.asarray(kl) > 0.01, model.truth.latents.any(axis=1))


def test_specificity_orders_models_by_their_angle():
    angles, scores = np.linspace(0, np.pi / 4, 5), []
    for angle in angles:
        model = planted.plant("rotated", angle=float(angle))
        model_and_params = model.model, model.params
        effects = iv.factor_effects(*model_and_params, model.dataset, KEY, num=8, scale=jnp.ones(planted.LATENTS))
        scores.append(float(metrics.intervention_specificity(effects.T[:2]).normalized.mean()))
        # The angle itself, from the effects of one factor on the two latents.
        assert abs(np.arctan2(effects[0, 1], effects[0, 0]) - angle) < 1e-4
    assert (np.diff(scores) < -0.01).all() and scores[0] == pytest.approx(1, abs=1e-3)
    assert scores[-1] == pytest.approx(1 - np.log(2) / np.log(3), abs=1e-4)


@pytest.mark.parametrize("graph", ["confounded_shapes", "pendulum"])
def test_the_graph_of_a_world_with_mechanisms_is_recovered(graph):
    names, adjacency = graphs.causal_graph(graph)
    source = getattr(graphs, graph)()
    world = source.replace(render_one=render_bars, image_shape=(1, len(names), 1))
    # Latents are the factors, out of order and one of them twice as large, with two that follow none.
    order = np.random.default_rng(0).permutation(len(names))
    weights = np.zeros((len(names), len(names) + 2), np.float32)
    weights[order, np.arange(len(names))] = 1.0
    weights[:, 0] *= 2
    found = discovery.recover_graph(from_functions(read_bars), jnp.asarray(weights), world, KEY, num=64)
    assert discovery.structural_hamming_distance(found.adjacency, adjacency) == 0
    np.testing.assert_array_equal(found.latents, np.argsort(order))


def test_rounding_decides_neither_the_matching_of_latents_nor_an_edge():
    match = np.array([[1.0, 0.2, 1.0, 0.0], [0.3, 0.7, 0.3, 0.7]])  # latents 0 and 2, 1 and 3 are alike
    for noise in np.random.default_rng(0).choice([-1, 0, 1], (20, *match.shape)) * 2.0**-23:
        assert discovery._assign(match * (1 + noise)).tolist() == [0, 1]
    world = graphs.pendulum().replace(render_one=render_bars, image_shape=(1, 4, 1))
    model = from_functions(lambda x: read_bars(jnp.eye(4), x))
    effects = discovery.recover_graph(model, None, world, KEY, num=64).effects
    smallest = effects[effects > 0].min()
    for threshold in (np.nextafter(smallest, 0), smallest, np.nextafter(smallest, 1)):
        found = discovery.recover_graph(model, None, world, KEY, num=64, threshold=threshold)
        np.testing.assert_array_equal(found.adjacency, effects > 0)


def render_bars(arrays, factors, key):
    return factors.astype(jnp.float32)[None, :, None] / 16


def read_bars(weights, x):
    return x[:, 0, :, 0] @ weights


def test_a_model_that_misses_a_factor_misses_its_edges():
    names, adjacency = graphs.causal_graph("confounded_shapes")
    world = graphs.confounded_shapes().replace(render_one=render_bars, image_shape=(1, len(names), 1))
    weights = np.eye(len(names), dtype=np.float32)
    blind = names.index("pos_y")
    weights[blind, blind] = 0
    found = discovery.recover_graph(from_functions(read_bars), jnp.asarray(weights), world, KEY, num=64)
    missed = adjacency[:, blind].sum()
    assert missed == 3
    assert discovery.structural_hamming_distance(found.adjacency, adjacency) == missed


def test_structural_hamming_distance_counts_pairs():
    true = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    assert discovery.structural_hamming_distance(true, true) == 0
    assert discovery.structural_hamming_distance(true.T, true) == 3  # reversed edges count once
    assert discovery.structural_hamming_distance(np.zeros((3, 3)), true) == 3
    extra = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]])
    assert discovery.structural_hamming_distance(extra, true) == 1
    with pytest.raises(ValueError, match=r"both be \[K, K\]"):
        discovery.structural_hamming_distance(true[:2], true)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no planted model 'bent'; there are: disentangled"):
        planted.plant("bent")
    with pytest.raises(ValueError, match="has no causal graph among its factors"):
        discovery.recover_graph(from_functions(lambda x: x), None, planted.linear_world(), KEY)
    with pytest.raises(ValueError, match="2 latents cannot stand for 4 factors"):
        discovery.recover_graph(from_functions(first_two), None, graphs.pendulum(), KEY, num=4)
    with pytest.raises(ValueError, match="they are not trained"):
        planted.MODEL.loss(None, None, None, None, None)


def first_two(x):
    return x[:, 0, :2, 0]
