"""Planted edges: their truth by brute force in numpy, exports that others can run, methods that find them."""

import pathlib
import re

import jax
import networkx
import numpy as np
import pytest

from causalvae import edges, planted_edges, run
from causalvae import interventions as iv
from causalvae.planted import FACTORS, all_factors
from causalvae.planted_edges import LINKS
from experiments import planted_edges as experiment

KEY = jax.random.key(0)
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "planted_edges.md"


def forward_of(folder, monkeypatch):
    """The forward pass that an export's README prints, run where the files lie."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(folder)
    namespace = {}
    exec(code, namespace)
    return namespace


@pytest.mark.parametrize("name", planted_edges.PLANTED_EDGES)
def test_exports_run_in_numpy_and_their_graphs_are_the_planted_edges(name, tmp_path, monkeypatch):
    planted = planted_edges.plant_edges(name, seed=3)
    folder = planted_edges.export(planted, tmp_path / name, KEY, num=4)
    read = forward_of(folder, monkeypatch)
    outputs, activations = run(planted.model, planted.params, read["pairs"]["x"], capture=("*",))
    np.testing.assert_allclose(read["image"], outputs.image, atol=1e-5)
    for site, values in read["activations"].items():
        np.testing.assert_allclose(values, activations[site], atol=1e-4)
    stored = planted_edges.load_export(folder)
    graph = networkx.node_link_graph(stored.graph, edges="edges")
    carrying = [e["factors"] for *_, e in graph.edges(data=True)]
    assert sum(map(len, carrying)) == sum(m.sum() for links in planted.edges.values() for m in links.values())
    assert graph.number_of_nodes() == 16 + 6 + 16 and networkx.is_directed_acyclic_graph(graph)
    for factor, links in planted.edges.items():
        for link, mask in links.items():
            np.testing.assert_array_equal(stored.edges[factor][link], mask)
            assert (planted.weights(link)[mask] != 0).all() and (planted.weights(link) != 0).sum() > mask.sum()
    assert len(stored.pairs["x"]) == 12 and stored.pairs["factor"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("name", planted_edges.PLANTED_EDGES)
def test_an_edge_carries_a_factor_if_it_changes_the_image_among_some_other_edges(name):
    """Random sets of other edges are patched, and the edge is added: it must matter in some set, or in none."""
    planted = planted_edges.plant_edges(name, seed=1)
    w = jax.tree.map(lambda a: np.asarray(a, np.float64), planted.params)
    generator, scenes = np.random.default_rng(0), all_factors()
    x = np.asarray(planted.dataset.render(scenes, KEY), np.float64).reshape(len(scenes), -1)
    layer = {k: (lambda v, k=k: v @ w[k]["weight"] + w[k]["bias"]) for k in w}
    hidden = np.maximum(layer["hidden"](layer["pixels"](x)), 0)
    z = layer["mean"](hidden)

    def rest(decoder):
        return layer["blocks"](np.maximum(decoder, 0))

    ways = {  # what each receiver gets of its senders, and what follows
        LINKS[0]: (hidden, "mean", lambda z: rest(layer["decoder"](z))),
        LINKS[1]: (z, "decoder", rest),
    }
    for k, factor in enumerate(FACTORS):
        other = np.array([np.flatnonzero((scenes == np.where(np.arange(3) == k, 1 - s, s)).all(1))[0] for s in scenes])
        for link, (values, name_of, follow) in ways.items():
            weight, bias = w[name_of]["weight"], w[name_of]["bias"]
            matters = np.zeros(weight.shape, bool)
            for draw in range(40):
                joined = generator.random(weight.shape) < (draw % 5) / 4
                for row in range(len(scenes)):
                    base, source = values[row], values[other[row]]
                    sent = np.where(joined, source[:, None], base[:, None])
                    before = follow((sent * weight).sum(0) + bias)
                    for u, v in np.argwhere(weight):
                        flipped = sent.copy()
                        flipped[u, v] = source[u] if not joined[u, v] else base[u]
                        after = follow((flipped * weight).sum(0) + bias)
                        matters[u, v] |= np.abs(after - before).max() > 1e-9
                if (matters == planted.edges[factor][link]).all():
                    break
            np.testing.assert_array_equal(matters, planted.edges[factor][link], err_msg=f"{factor} {link}")


def test_exact_effects_find_all_edges_and_gradients_miss_those_that_cancel(monkeypatch):
    rows = experiment.score_methods(KEY, {name: experiment.METHODS[name] for name in ("exact", "weights")})
    monkeypatch.setattr(experiment, "LINKS", LINKS[:1])
    by_gradients = {name: experiment.METHODS[name] for name in ("attribution", "integrated, 5")}
    for row, other in zip(rows[::2], experiment.score_methods(KEY, by_gradients), strict=True):
        row.scores.update(other.scores)
        assert all(score == (1, 1, 1) for score in row.scores["integrated, 5"].values()), row
        misses = {f for f, score in row.scores["attribution"].items() if score.recall < 1}
        assert misses == ({"first"} if row.network in ("redundant", "cancelling") else set()), row
    for row in rows:
        assert all(score == (1, 1, 1) for score in row.scores["exact"].values()), row
        assert max(score.precision for score in row.scores["weights"].values()) < 0.6
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    header = next(line for line in lines if line[:2] == ["network", "edges"])
    printed = {tuple(line[:2]): dict(zip(header, line)) for line in lines if len(line) == len(header)}
    for row in rows:
        stored = printed[row.network, f"{row.link[0]} → {row.link[1]}"]
        cells = {name: experiment._cell(list(scores.values())) for name, scores in row.scores.items()}
        assert {name: stored[name] for name in cells} == cells, "docs/planted_edges.md is out of date"
    assert experiment.table(rows[1:2]).splitlines()[-1].startswith("| linear | latent/z → decoder/hidden | 1.00 / 1.00")


def test_a_circuit_holds_what_pulls_back_and_nothing_else():
    planted = planted_edges.plant_edges("cancelling")
    sites = "encoder/hidden", "latent/z", "decoder/hidden"
    (name, pairs), *_ = experiment.pairs_of(planted, KEY).items()
    circuit = edges.find_edges(planted.model, planted.params, pairs, sites, method="exact", factor=name)
    assert circuit.faithfulness == pytest.approx(1, abs=1e-5) and circuit.found
    for link, true in planted.edges[name].items():
        chosen = np.zeros_like(true)
        chosen[tuple(circuit.edges[link].T)] = True
        np.testing.assert_array_equal(chosen, true)


def test_noise_moves_decoys_and_claims_leave_them_alone():
    found = experiment.search_nulls(simulations=6)
    assert found.found == 1 and found.threshold > 0.3 and max(found.edges, found.units) <= 1 / 6
    planted = planted_edges.plant_edges("linear")
    pairs = iv.counterfactuals(planted.dataset, KEY, "second", 4, contrast=(0, 1))
    runs = [iv.Run(run(planted.model, planted.params, x)[0], {}) for x in (pairs.x, pairs.x_source)]
    low, high = (planted_edges.BlockOutcome(1)(r, *runs) for r in runs)
    np.testing.assert_allclose(high - low, 3, atol=1e-4)


def test_scores_of_edges():
    planted = np.array([[True, True], [False, False]])
    assert planted_edges.score_edges(np.array([[-2, 0.5], [0.01, 0]]), planted) == (1, 1, 1)
    assert planted_edges.score_edges(np.array([[2, 0], [0.1, 0]]), planted) == (0.5, 0.5, pytest.approx(0.75))
    nothing = planted_edges.score_edges(np.zeros((2, 2)), planted)
    assert np.isnan(nothing.precision) and nothing.recall == 0 and nothing.average_precision == 0.5
    # Rounding decides nothing.
    assert planted_edges.score_edges(
        np.array([[1, 1 - 1e-7], [1 + 1e-7, 0]]), planted
    ).average_precision == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="3 scores for 4 edges"):
        planted_edges.score_edges(np.ones(3), planted)
    with pytest.raises(ValueError, match="a planted edge to find, and scores must be numbers"):
        planted_edges.score_edges(np.full((2, 2), np.nan), planted)
    with pytest.raises(ValueError, match="no network with planted edges 'bent'; there are: linear, gated"):
        planted_edges.plant_edges("bent")
    with pytest.raises(ValueError, match="they are not trained"):
        planted_edges.plant_edges("linear").model.loss(None, None, None, None, None)
