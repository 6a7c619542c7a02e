"""The explorer's numbers against plain numpy on single runs, its page, its command, its script and its widget."""

import base64
import json
import pathlib
import re
import shutil
import subprocess
import sys
import types
import zlib
from urllib.parse import parse_qsl

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import study_tables
import toy
import toy_circuits
from toy_study import settings

from causalvae import architectures, evaluation, patch, planted, run, training
from causalvae import interventions as iv
from causalvae.data.base import Dataset
from causalvae.progress import finite
from causalvae.runs import claim_workdir
from configs.common import ARCHITECTURES, config_for
from experiments import pipeline, slices
from experiments.explorer import circuits, content, notebook, packing, patches, runs, tiles
from experiments.explorer import moves as moving
from experiments.explorer import page as explorer_page
from experiments.explorer.explore import explore
from experiments.explorer.replaced import Runner
from experiments.report import page as report
from experiments.report.tables import rows_of
from experiments.study import explorers, planning, records, worker
from experiments.study.estimates import Pace

KEY = jax.random.key(0)
TESTS = pathlib.Path(__file__).parent
SITES = "encoder/dense,decoder/conv0"


def render_colored(arrays, factors, key):
    """The toy square in one of three colors."""
    square = toy.render_square(arrays, jnp.stack([factors[0], factors[1], jnp.int32(1)]), key)
    return square * (jnp.arange(3) == factors[2]).reshape(1, 1, 3) * 0.8 + 0.1


COLORED = Dataset(
    name="colored",
    factor_names=("row", "column", "color"),
    factor_sizes=(4, 4, 3),
    image_shape=(16, 16, 3),
    render_one=render_colored,
)


def trained(model, dataset):
    """Parameters that no activation is degenerate at, and a codebook that has more than one code in use."""
    params = training.member(training.initial_params(model, [7]), 0)
    params = jax.jit(toy.jittered)(params, jax.random.key(8), 0.5)
    if model.codebook:
        images = dataset.sample(jax.random.key(9), 64)[1]
        z = np.asarray(encode(model, params, images).mean)
        groups, num, size = params["codebook"].shape
        params["codebook"] = jnp.asarray(np.moveaxis(z.reshape(-1, groups, size), 1, 0)[:, :num])
    return params


def colored_model(name, **options):
    return architectures.create(name, image_shape=(16, 16, 3), latents=4, network="small", **options)


@pytest.fixture(scope="module")
def gaussian():
    """(model, params, dataset, explored) of a Gaussian model of color images."""
    model = colored_model("betatc")
    params = trained(model, COLORED)
    with pytest.MonkeyPatch.context() as patch:
        give_circuits(patch)
        return model, params, COLORED, explore(model, params, COLORED, KEY, SITES, pairs=4)


def give_circuits(patch):
    """Has explorers show circuits that are made up; those that are measured have tests of their own."""
    made_up = toy_circuits.circuits((16, 16, 3), ("encoder/dense", "latent/z", "decoder/conv0"), (True,) * 3)
    patch.setattr("experiments.explorer.explore.trace_circuits", lambda *arguments: made_up)


@pytest.fixture(scope="module")
def discrete():
    """The same of a VQ-VAE of gray images, whose map has one position only for 16 pixels: so of 32."""
    model = architectures.create("vq", image_shape=(32, 32, 1), latents=4, network="small", num_codes=16)
    dataset = toy.dataset().replace(name="large", image_shape=(32, 32, 1), render_one=render_large)
    params = trained(model, dataset)
    return model, params, dataset, explore(model, params, dataset, KEY, "latent/codes", pairs=4)


def render_large(arrays, factors, key):
    return jnp.repeat(jnp.repeat(toy.render_square(arrays, factors, key), 2, axis=0), 2, axis=1)


def encode(model, params, x):
    return jax.jit(model.encode)(params, x)


def decode(model, params, z):
    return jax.nn.sigmoid(jax.jit(model.decode)(params, z))


def norm(images):
    """Euclidean norms of images [..., H, W, C]."""
    return np.sqrt(np.square(np.asarray(images, np.float64)).sum(axis=(-3, -2, -1)))


# --- latents moved ---------------------------------------------------------------------------------------


def test_every_move_is_the_decoded_image_of_the_changed_latents(gaussian):
    model, params, _, explored = gaussian
    moves, scale = explored.moves, explored.strengths.scale
    z = np.asarray(encode(model, params, moves.images).mean)
    np.testing.assert_allclose(moves.own, z[:, moves.latents], atol=1e-5)
    values = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(moves.values, np.tile(values, (4, 1)), atol=1e-6)
    before = np.asarray(encode(model, params, moves.decoded).mean)
    for s, m, v in [(0, 0, 0), (1, 2, 12), (2, 3, 5), (0, 1, 7)]:
        changed = z[s : s + 1].copy()
        changed[0, moves.latents[m]] = values[v]
        image = np.asarray(decode(model, params, changed))
        np.testing.assert_allclose(moves.pictures[s, m, v], image[0], atol=1e-5)
        assert moves.effect[s, m, v] == pytest.approx(norm(image[0] - moves.decoded[s]), abs=1e-4)
        after = np.asarray(encode(model, params, image).mean)
        np.testing.assert_allclose(moves.response[s, m, v], np.abs(after[0] - before[s]) / scale, atol=1e-3)


def test_moves_average_to_the_librarys_sweep_and_strengths_are_its_metrics(gaussian):
    model, params, dataset, explored = gaussian
    moves, found = explored.moves, explored.strengths
    z = encode(model, params, moves.images).mean
    library = iv.perturb_latents(model, params, z, moving.SWEEP, KEY, response=("l2", "latents"))
    library["latents"] = iv.in_units_of(found.scale, library["latents"])
    strength, response = library["l2"].mean(axis=(1, 2))[moves.latents], library["latents"][moves.latents]
    np.testing.assert_allclose(moves.effect.mean(axis=(0, 2)), strength, rtol=1e-4)
    np.testing.assert_allclose(moves.response.mean(axis=(0, 2)), response, rtol=1e-3, atol=1e-4)
    assert (np.diff(found.ces[moves.latents]) <= 0).all(), "strongest first"
    images = dataset.sample(jax.random.split(KEY, 3)[0], moving.STRENGTH_IMAGES)[1]
    mean, log_variance = (np.asarray(a) for a in encode(model, params, images))
    np.testing.assert_allclose(found.scale**2, mean.var(axis=0) + np.exp(log_variance).mean(axis=0), rtol=1e-3)
    base, distances, squares = np.asarray(decode(model, params, mean)), [], []
    for value in range(-3, 4):
        changed = mean.copy()
        changed[:, 1] = value
        change = np.asarray(decode(model, params, changed)) - base
        distances.append(norm(change))
        squares.append(np.square(change).mean(axis=0))
    assert found.ces[1] == pytest.approx(np.mean(distances), rel=1e-4)
    error = np.std(np.mean(distances, axis=0), ddof=1) / np.sqrt(len(mean))
    assert found.ces_error[1] == pytest.approx(error, rel=1e-3)
    p = np.mean(squares, axis=0).reshape(-1)
    p = p / p.sum()
    assert found.specificity[1] == pytest.approx(1 + np.sum(p * np.log(p)) / np.log(p.size), rel=1e-3)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "vq"])  # that one: below
def test_every_architecture_is_explored(name):
    dataset, model = toy.dataset(), toy.model(name)
    config = config_for(name, "dsprites", "smoke")
    params = trained(model, dataset)
    explored = explore(model, params, dataset, KEY, config.evaluation.sites, config.evaluation.pairs)
    assert explored.moves.pictures.shape == (3, 4, 13, 16, 16, 1) and np.isfinite(explored.moves.effect).all()
    assert [site.name for site in explored.sites] == ["latent/z", "decoder/conv1"] and not explored.codes
    assert explored.circuits.missing.startswith("No circuit is drawn of this model. It leads through a layer before")
    page = json.loads(explorer_page.embedded(packing.as_json(explored)))
    assert page["latents"] == ["z0", "z1", "z2", "z3"] and len(page["pairs"]) == 3


# --- codes -----------------------------------------------------------------------------------------------


def test_codes_of_a_map_are_moved_and_swapped(discrete):
    model, params, _, explored = discrete
    moves, book = explored.moves, model.codebook
    assert explored.codes and explored.code_site == "latent/codes" and explored.sites[0].response is None
    assert explored.latent_names == ("code 0,0", "code 0,1", "code 1,0", "code 1,1")
    codes = np.asarray(book.quantize(params, encode(model, params, moves.images).mean))  # [S, 2, 2]
    np.testing.assert_array_equal(moves.own, codes.reshape(3, 4)[:, moves.latents])
    before = np.asarray(book.quantize(params, encode(model, params, moves.decoded).mean)).reshape(3, -1)
    for s, m, v in [(0, 0, 0), (1, 2, 3), (2, 3, 11)]:
        changed = codes[s].copy()
        changed[np.unravel_index(moves.latents[m], (2, 2))] = moves.values[m, v]
        image = np.asarray(jax.nn.sigmoid(book.decode(params, changed[None])))
        np.testing.assert_allclose(moves.pictures[s, m, v], image[0], atol=1e-5)
        assert moves.effect[s, m, v] == pytest.approx(norm(image[0] - moves.decoded[s]), abs=1e-4)
        after = np.asarray(book.quantize(params, encode(model, params, image).mean)).reshape(-1)
        np.testing.assert_array_equal(moves.response[s, m, v], after != before[s])
    site = next(site for site in explored.sites if site.name == "latent/codes")
    ends = [np.asarray(book.quantize(params, encode(model, params, explored.pairs.images[:, e]).mean)) for e in (0, 1)]
    for p in range(3):
        changed = ends[0][p].copy()
        changed[1, 0] = ends[1][p, 1, 0]
        image = np.asarray(jax.nn.sigmoid(book.decode(params, changed[None])))[0]
        assert site.effect[2, p] == pytest.approx(norm(image - explored.pairs.decoded[p, 0]), abs=1e-4)


def test_strengths_of_codes_are_those_in_code_space(discrete):
    model, params, dataset, explored = discrete
    key = jax.random.split(KEY, 3)[0]
    images = dataset.sample(key, moving.STRENGTH_IMAGES)[1]
    distances = iv.perturb_latents(model, params, iv.quantize(model, params, images), iv.CodeSwap(), key)
    np.testing.assert_allclose(explored.strengths.ces, distances.mean(axis=(1, 2)), rtol=1e-4)


def test_strengths_of_codes_are_taken_from_an_evaluation(discrete):
    model, params, dataset, _ = discrete
    images = dataset.sample(KEY, 12)[1]
    found = {"code_effects": evaluation.swap_codes(model, params, images, KEY)}
    strengths = moving.evaluated_strengths(finite(found), codes=True)  # as results.json has them
    distances = np.asarray(iv.perturb_latents(model, params, iv.quantize(model, params, images), iv.CodeSwap(), KEY))
    np.testing.assert_allclose(strengths.ces, distances.mean(axis=(1, 2)), rtol=1e-4)
    assert np.ptp(strengths.ces) > 0 and (strengths.scale == 1).all() and np.isnan(strengths.activity).all()
    assert strengths.specificity.shape == strengths.ces_error.shape == strengths.ces.shape
    assert moving.evaluated_strengths({"latents": {}}, codes=True) is None


def test_codes_with_codebooks_of_their_own_are_offered_in_the_order_of_their_numbers():
    model = toy.model("vq", codes="latent", num_codes=5)
    params = {"codebook": jnp.asarray([[[3.0], [1.0], [2.0], [5.0], [4.0]]] * 2)}
    codes = np.array([[0, 4], [0, 4], [1, 4], [3, 2]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "CODES_SHOWN", 3)
        found = moving.most_used(model, params, codes)
    np.testing.assert_array_equal(found, [[1, 0, 3], [2, 0, 4]])  # values 1, 3, 5; and 2, 3 (unused), 4


# --- channels patched ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, unit", [(0, 40), (1, 1), (2, 9)])
def test_every_patch_is_a_run_with_one_unit_of_the_source(gaussian, number, unit):
    model, params, _, explored = gaussian
    site, pairs = explored.sites[number], explored.pairs
    assert site.name == ["encoder/dense", "latent/z", "decoder/conv0"][number]
    assert site.effect.shape == (site.shape[-1], 3)
    scale = explored.strengths.scale
    for p in range(3):
        base, source = pairs.images[p, :1], pairs.images[p, 1:]
        values = np.asarray(run(model, params, source, capture=(site.name,))[1][site.name])
        original = np.array(run(model, params, base, capture=(site.name,))[1][site.name])
        unit = unit % site.shape[-1]
        original[..., unit] = values[..., unit]
        outputs = run(model, params, base, edits={site.name: patch(original)})[0]
        image, plain = np.asarray(outputs.image[0]), pairs.decoded[p]
        assert site.effect[unit, p] == pytest.approx(norm(image - plain[0]), abs=1e-4)
        recovery = 1 - norm(image - plain[1]) / norm(plain[0] - plain[1])
        assert site.recovery[unit, p] == pytest.approx(recovery, abs=1e-3)
        change = np.abs(np.asarray(outputs.z[0]) - np.asarray(encode(model, params, base).mean[0])) / scale
        np.testing.assert_allclose(site.response[unit, p], change, atol=1e-3)
        if unit in site.pictured[p]:
            place = site.pictured[p].tolist().index(unit)
            np.testing.assert_allclose(site.pictures[p, place], image, atol=1e-5)


def test_pairs_differ_in_their_factor_and_are_the_most_different_ones(gaussian):
    _, _, dataset, explored = gaussian
    pairs = explored.pairs
    assert pairs.factor == (0, 1, 2) and not pairs.observational
    for p, factor in enumerate(pairs.factor):
        differs = pairs.factors[p, 0] != pairs.factors[p, 1]
        assert np.flatnonzero(differs).tolist() == [factor]
        drawn = iv.counterfactuals(dataset, jax.random.fold_in(jax.random.split(KEY, 3)[2], p), p, 4)
        assert norm(pairs.images[p, 0] - pairs.images[p, 1]) == pytest.approx(norm(drawn.x - drawn.x_source).max())
    np.testing.assert_allclose(pairs.total, norm(pairs.decoded[:, 0] - pairs.decoded[:, 1]), rtol=1e-5)


def test_only_the_strongest_units_of_a_wide_site_have_pictures(gaussian):
    dense = gaussian[3].sites[0]
    kept = content.Detail().of_vector // 3
    assert dense.effect.shape[0] == 64 and dense.pictured.shape == (3, kept)
    for p in range(3):
        assert sorted(dense.effect[dense.pictured[p], p]) == sorted(np.sort(dense.effect[:, p])[-kept:])


# --- circuits --------------------------------------------------------------------------------------------


PLANTED = planted.plant("mediated")  # matrices, and one product of two hidden units
LAYERS = ("encoder/hidden", "latent/z", "decoder/hidden")


@pytest.fixture(scope="module")
def traced():
    """(pairs that are shown, pairs that are drawn, circuits) of a planted model."""
    runner = Runner(PLANTED.model, PLANTED.params, LAYERS)
    shown, drawn = patches.draw_pairs(runner, PLANTED.dataset, KEY, 6)
    return shown, drawn, circuits.trace_circuits(runner, shown, drawn, PLANTED.dataset.factor_names)


def onward(site, values):
    """What the next layer holds, [N, units]; behind the last one, the values of the image's blocks."""
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PLANTED.params)
    if site == "encoder/hidden":
        products = np.einsum("bi,bj,ijd->bd", values, values, weights["encoder"]["product"])
        return values @ weights["encoder"]["mean"] + products
    return values @ weights["decoder"]["hidden" if site == "latent/z" else "blocks"]


def held(images):
    """What every layer holds in runs of images [N, 4, 16, 1]."""
    blocks = (np.asarray(images, np.float64).reshape(-1, 4, 4, 4).mean(axis=(1, 3)) - 0.5) / 0.1
    layers = {LAYERS[0]: blocks @ np.asarray(PLANTED.params["encoder"]["hidden"], np.float64)}
    for site, following in zip(LAYERS, LAYERS[1:]):
        layers[following] = onward(site, layers[site])
    return layers


def blocks_of(pairs, part=None, which=0):
    """The blocks of decoded images of pairs [N, 2, ...]: of the base where an edge or a unit alone has its value of
    the source run; of a run without any change where there is no part."""
    low, high = held(pairs[:, 0]), held(pairs[:, 1])
    site, values = LAYERS[0], [low, high][which][LAYERS[0]]
    if part is not None:
        site, unit = split(part.get("source", part.get("id")))
        values = low[site].copy()
        values[:, unit] = high[site][:, unit]
    if part is not None and "target" in part:
        reached, (site, unit) = onward(site, values), split(part["target"])
        values = low[site].copy()
        values[:, unit] = reached[:, unit]
    for layer in LAYERS[LAYERS.index(site) :]:
        values = onward(layer, values)
    return values


def split(name):
    site, _, unit = name.rpartition(":")
    return site, int(unit)


def test_every_edge_and_unit_of_a_circuit_is_measured_alone_in_all_pairs(traced):
    shown, drawn, found = traced
    for p, circuit in enumerate(found.factors):
        base, way = blocks_of(drawn[p]), blocks_of(drawn[p], which=1) - blocks_of(drawn[p])
        total, here = np.square(way).sum(axis=1), shown.images[p : p + 1]
        for number, part in enumerate((*circuit.nodes, *circuit.edges)):
            effects = ((blocks_of(drawn[p], part) - base) * way).sum(axis=1)
            ratio = effects.mean() / total.mean()
            assert part["effect"] == pytest.approx(ratio, abs=1e-4)
            error = np.sqrt(np.mean((effects - ratio * total) ** 2) / len(effects)) / total.mean()
            assert part["standard_error"] == pytest.approx(error, abs=1e-4)
            change = 0.1 * (blocks_of(here, part) - blocks_of(here))
            seen = (circuit.pictures[number] - shown.decoded[p, 0]).reshape(4, 4, 4).mean(axis=(0, 2))
            np.testing.assert_allclose(seen, change[0], atol=1e-5)
            assert circuit.moved[number] == pytest.approx(4 * np.linalg.norm(change), abs=1e-4)


def test_a_circuit_leads_from_the_encoder_by_the_latents_to_the_decoder(traced):
    found = traced[2]
    assert found.sites == LAYERS and found.num == 6 and not found.missing and found.sizes == [12 * 6, 6 * 12]
    first = found.factors[0]
    links = [(split(edge["source"])[0], split(edge["target"])[0]) for edge in first.edges]
    assert set(links) == set(zip(LAYERS, LAYERS[1:])) and max(map(links.count, links)) <= circuits.STRONGEST
    assert max(edge["standard_error"] for edge in first.edges) > 0.01
    ends = {edge[end] for edge in first.edges for end in ("source", "target")}
    assert ends == {node["id"] for node in first.nodes} <= set(first.places)
    assert len(first.pictures) == len(first.nodes) + len(first.edges)


def test_where_there_is_no_chain_a_sentence_says_so(discrete):
    assert "integer codes" in discrete[3].circuits.missing and "method='exact'" in discrete[3].circuits.missing

    def chain(**widths):
        shapes = {site.replace("_", "/"): jax.ShapeDtypeStruct((1, *shape), float) for site, shape in widths.items()}
        return circuits.chain_of(types.SimpleNamespace(codes=False, code_site="latent/z", shapes=shapes))

    assert "encoder/wide, latent/z, decoder/out" in chain(encoder_wide=(257,), latent_z=(5,), decoder_out=(8, 8, 3))
    three = {"encoder_a": (8, 8, 4), "encoder_b": (4, 4, 8), "encoder_dense": (9,), "latent_mean": (5,)}
    after = {"latent_z": (5,), "decoder_dense": (9,), "decoder_c": (4, 4, 8), "decoder_d": (8, 8, 4)}
    assert chain(**three, **after) == ("encoder/a", "latent/z", "decoder/d")
    assert chain(encoder_dense=(9,), latent_z=(5,), decoder_c=(8, 8, 4)) == ("encoder/dense", "latent/z", "decoder/c")


# --- images in little space ------------------------------------------------------------------------------


def test_tiles_are_within_half_a_step_and_equal_ones_are_kept_once():
    rng = np.random.default_rng(0)
    images = np.clip(0.5 + 0.1 * rng.normal(size=(6, 8, 8, 3)).cumsum(axis=0), 0, 1)
    stored = tiles.Tiles((8, 8, 3))
    numbers = [stored.add(images[0])]
    for image in images[1:]:
        numbers.append(stored.add(image, numbers[-1]))
    assert numbers == list(range(6)) and stored.add(images[5], 5) == 5
    unpacked = tiles.unpack(json.loads(json.dumps(stored.pack())))
    errors = np.abs(unpacked - 255 * images).reshape(6, -1).max(axis=1)
    assert errors[0] <= tiles.FIRST_STEP / 2 + 0.5 and (errors <= tiles.STEP / 2 + 0.5).all()
    fine = stored.add(np.clip(images[2] + 0.3, 0, 1), 1, fine=True)
    error = np.abs(tiles.unpack(stored.pack())[fine] - 255 * np.clip(images[2] + 0.3, 0, 1)).max()
    assert error <= tiles.FINE_STEP / 2 + 0.5
    with pytest.raises(ValueError, match=r"\[8, 8, 1\] among tiles of \[8, 8, 3\]"):
        stored.add(images[0, :, :, :1])


# --- the page --------------------------------------------------------------------------------------------


def about():
    data = {"name": "colored", "source": "procedural"}
    return explorer_page.describe({"name": "betatc", "network": "small", "latents": 4}, data, 1500, 3)


@pytest.fixture(scope="module")
def page(gaussian, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    return explorer_page.write(path, packing.as_json(gaussian[3], about())).read_text()


def data_of(text):
    """The JSON of every explorer in a page."""
    return [json.loads(t) for t in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)]


def test_the_page_is_one_file_that_says_what_it_shows(page):
    assert "{{" not in page and not re.search(r"""(?:src|href)=["'](?!data:)[^#"']""", page)
    assert not re.search(r"https?://", page.replace("http://www.w3.org/2000/svg", ""))
    assert "betatc on colored (procedural), seed 3" in page and "mean nothing" not in page
    (data,) = data_of(page)
    for word in ("betatc", "colored", "procedural data", "1,500 training steps", "seed 3"):
        assert word in data["about"]["text"]


def test_the_page_holds_every_number_and_every_image(gaussian, page):
    explored, (data,) = gaussian[3], data_of(page)
    images = tiles.unpack(data["tiles"])
    planes = np.frombuffer(zlib.decompress(base64.b64decode(data["tiles"]["pixels"])), np.int8)
    assert planes.size == images.size and images.shape[1:] == (16, 16, 3)

    def same(tile, image, step=tiles.STEP):
        np.testing.assert_allclose(images[tile], 255 * np.clip(image, 0, 1), atol=step / 2 + 0.5)

    moves = explored.moves
    for s, start in enumerate(data["moves"]["starts"]):
        same(start["image"], moves.images[s], tiles.FIRST_STEP)
        same(start["decoded"], moves.decoded[s], tiles.FIRST_STEP)
        np.testing.assert_allclose(start["effect"], moves.effect[s], rtol=1e-3)
        np.testing.assert_allclose(start["response"], moves.response[s], rtol=1e-2)
        for m, v in np.ndindex(4, 13):
            same(start["pictures"][m][v], moves.pictures[s, m, v])
    for site, shown in zip(data["sites"], explored.sites, strict=True):
        np.testing.assert_allclose(site["effect"], shown.effect.T, rtol=1e-3)
        np.testing.assert_allclose(np.array(site["recovery"], float), shown.recovery.T, rtol=1e-3)
        for p, i in np.ndindex(*shown.pictured.shape):
            same(site["pictures"][p][i], shown.pictures[p, i])
        encoder = shown.name.startswith(("encoder", "latent"))
        assert (site["response"] is not None) == encoder, "behind the latents nothing moves them"
    assert len(data["strengths"]["ces"]) == len(data["latents"]) == 4
    for circuit, shown in zip(data["circuits"]["factors"], explored.circuits.factors, strict=True):
        parts = circuit["units"] + circuit["edges"]
        for part, picture, moved in zip(parts, shown.pictures, shown.moved, strict=True):
            same(part["picture"], picture, tiles.FINE_STEP)
            assert part["moved"] == pytest.approx(float(moved), rel=1e-3)
        edge, (sender, receiver) = shown.edges[0], circuit["edges"][0]["ends"]
        ends = [f"{circuit['units'][u]['site']}:{circuit['units'][u]['unit']}" for u in (sender, receiver)]
        assert ends == [edge["source"], edge["target"]]
        assert circuit["edges"][0]["error"] == pytest.approx(edge["standard_error"], rel=1e-3)


def test_undefined_numbers_are_null_and_others_keep_their_digits():
    found = packing._numbers(np.array([[np.nan, 0.0, 12345.678], [np.inf, -0.00123456, 1e-30]]))
    assert found == [[None, 0.0, 12350.0], [None, -0.001235, 1e-30]]


def test_a_run_is_told_in_words_at_the_head_of_its_page(gaussian, tmp_path):
    scores = [{"name": "mig", "value": 0.4, "null": 0.1, "ceiling": 0.9}]
    member = {"scores": scores, "latents": {"active": [True, False], "ces_l2": [2.0, 0.1]}}
    lines = explorer_page.in_words({"factors": {"row": 4}}, member)
    assert lines[-1] == "MIG is 0.4 (null 0.1, 0.9 at best)." and len(lines) == 3
    page = packing.as_json(gaussian[3], about() | {"summary": [*lines, "<b>"]})
    text = explorer_page.write(tmp_path / "explorer.html", page).read_text()
    assert f"<h2>In words</h2><ul><li>{lines[0]}</li>" in text and "<li>&lt;b&gt;</li></ul>" in text
    assert explorer_page.in_words({"factors": {}}, None) == explorer_page.in_words({}, {"latents": {}}) == []


def test_a_short_training_is_said_to_mean_nothing(gaussian, tmp_path):
    text = explorer_page.write(tmp_path / "e.html", packing.as_json(gaussian[3], {**about(), "steps": 4})).read_text()
    assert "Trained for 4 steps only" in text
    script = explorer_page.embedded({"text": "</script><b>"})
    assert "<" not in script and json.loads(script)["text"] == "</script><b>"


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def toy_images(monkeypatch):
    monkeypatch.setattr(pipeline, "load_dataset", lambda options: toy.dataset())


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory):
    """(folder of a run with two members, their parameters, the model)"""
    folder = tmp_path_factory.mktemp("runs") / "one"
    config = config_for("vae", "dsprites", "smoke")
    config.update_from_flattened_dict({"seeds": 2, "architecture.latents": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "load_dataset", lambda options: toy.dataset())
        model, dataset, _ = pipeline.prepare(config)
    claim_workdir(folder, config.to_dict(), dataset)
    older = json.loads((folder / "config.json").read_text())
    older.pop("pretrained")
    older["training"].pop("schedule")
    (folder / "config.json").write_text(json.dumps(older))  # of a time when these settings did not exist
    return folder, pipeline.train(config, model, dataset, folder).params, model


def test_the_command_writes_a_page_for_every_member_of_a_run(toy_images, run_of_two):
    folder, trained_params, model = run_of_two
    paths = runs.write(folder)
    assert [path.name for path in paths] == ["explorer_seed0.html", "explorer_seed1.html"]
    (data,) = data_of(paths[1].read_text())
    assert data["about"]["seed"] == 1 and data["about"]["steps"] == 4 and data["about"]["dataset"] == "toy"
    images = tiles.unpack(data["tiles"])
    start = data["moves"]["starts"][0]
    params = jax.tree.map(lambda leaf: leaf[1], trained_params)
    decoded = model.forward(params, images[start["image"]][None] / 255.0, None, lambda site, value: value).image
    np.testing.assert_allclose(images[start["decoded"]], 255 * np.asarray(decoded[0]), atol=3.0)


def test_runs_on_one_data_set_stand_side_by_side_with_the_same_images(toy_images, run_of_two, tmp_path):
    one, other = run_of_two[0], tmp_path / "other"
    shutil.copytree(one, other)
    stored = json.loads((other / "config.json").read_text())
    stored["evaluation"] |= {"pairs": 6, "seed": 3}  # the first run's decide what is drawn
    (other / "config.json").write_text(json.dumps(stored))
    path = runs.write_beside([one, other])
    text = path.read_text()
    assert path == one / "explorer_beside_other.html" and " data-beside>" in text
    assert "<h1>vae, seed 0 (one) beside vae, seed 0 (other): toy (procedural)</h1>" in text
    assert "The numbers of vae, seed 0 (one), vae, seed 0 (other) mean nothing" in text
    first, second = data_of(text)
    assert len(first["moves"]["starts"]) == content.Detail.beside(2).starts < content.Detail().starts
    for a, b in zip(
        first["moves"]["starts"] + first["pairs"], second["moves"]["starts"] + second["pairs"], strict=True
    ):
        assert a.get("factors") == b.get("factors") and a.get("values") == b.get("values")
    assert first["tiles"] == second["tiles"], "the same parameters"


def test_runs_on_two_data_sets_do_not_stand_side_by_side():
    described = {"a": {"name": "dsprites", "source": "procedural"}, "b": {"name": "3dshapes", "source": "real"}}
    with pytest.raises(
        ValueError, match=r"a is a run on dsprites \(procedural\), b one on 3dshapes \(real\): models side"
    ):
        runs.check_same_data(described)
    same = {"name": "own", "source": "real"}
    with pytest.raises(ValueError, match=r"own \(real\) \(image_shape is \[8\] there and \[4\] here\): models"):
        runs.check_same_data({"a": same | {"image_shape": [4]}, "b": same | {"image_shape": [8]}})
    runs.check_same_data({"a": same, "b": same})


@pytest.mark.parametrize(
    "content, error, message",
    [
        (None, FileNotFoundError, "no run in .*no config.json. `python -m causalvae run` makes one"),
        ("{", ValueError, "config.json is not a (readable )?configuration of a run"),
        ("{}", ValueError, "config.json is not a (readable )?configuration of a run"),
        ("config", FileNotFoundError, "no checkpoint in .*it has not been trained"),
    ],
)
def test_a_directory_without_a_trained_run_is_refused(toy_images, tmp_path, content, error, message):
    if content == "config":
        content = config_for("vae", "dsprites", "smoke").to_json_best_effort()
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(error, match=message):
        runs.write(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_the_command_ends_with_status_1_and_one_line(tmp_path):
    arguments = [sys.executable, "-m", "experiments.explorer", f"--workdir={tmp_path}"]
    ran = subprocess.run(arguments, cwd=pathlib.Path(__file__).parents[1], capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.startswith(f"error: no run in {tmp_path}") and ran.stderr.count("\n") == 1


# --- in a study's report ---------------------------------------------------------------------------------


def test_the_report_shows_the_explorer_of_the_best_run_of_each_data_set(gaussian, tmp_path):
    table = study_tables.table()
    table = rows_of(table, np.isin(table["dataset"], ["dsprites", "celeba"]))
    table = study_tables.change(table, "dci_disentanglement", "dip2", [0.2, 0.9, 0.3, np.nan, np.nan, np.nan])
    table["dci_disentanglement"][table["dataset"] == "celeba"] = np.nan
    table |= {
        "status": np.array(["done"] * len(table["run"])),
        "mean_squared_error": np.linspace(0.1, 0.2, len(table["run"])),
    }
    table["mean_squared_error"][np.flatnonzero(table["run"] == "vq_celeba_s2")] = 0.01
    best = explorer_page.best_runs(table)
    assert best == ["dip2_dsprites_s1", "vq_celeba_s2"]
    table["status"][table["run"] == "dip2_dsprites_s1"] = "failed"
    assert "dip2_dsprites_s1" not in explorer_page.best_runs(table)
    table["status"][table["run"] == "dip2_dsprites_s1"] = "done"

    assert report.explore(tmp_path, "procedural", table) == ""
    folder = records.run_folder(tmp_path, best[0])
    folder.mkdir(parents=True)
    (folder / explorer_page.STORED).write_text(explorer_page.embedded(packing.as_json(gaussian[3], about())))
    text = report.explore(tmp_path, "procedural", table)
    assert 'id="explore-procedural"' in text and 'data-title="colored: betatc, seed 3"' in text
    assert len(data_of(text)) == 1 and 'data-address="explore-procedural"' in text
    assert 'href="#explore-procedural"' in report.navigation(tmp_path, table)


def test_a_studys_run_is_explored_from_its_groups_checkpoint(toy_images, tmp_path, monkeypatch):
    planning._load.cache_clear()
    runs_ = planning.list_runs(settings(architectures="vae", datasets="dsprites", seeds=2, latents=4))
    (group,) = planning.group_runs(runs_, toy.dataset(), 0)
    trained_params, *_ = worker.train(group, toy.dataset(), tmp_path, Pace({}), slices.Clock())
    run_ = runs_[1]
    latents = {name: np.arange(4.0) for name in ("ces_l2", "ces_l2_error", "specificity_outputs", "activity", "scale")}
    monkeypatch.setattr(records, "read_record", lambda workdir, run_id: {"latents": latents})
    page = explorers.explore(tmp_path, group, run_)
    assert page["about"]["seed"] == 1 and page["strengths"]["ces"] == [0.0, 1.0, 2.0, 3.0]
    images, start = tiles.unpack(page["tiles"]), page["moves"]["starts"][0]
    params = jax.tree.map(lambda leaf: leaf[1], trained_params)
    model = pipeline.create_model(run_.config, toy.dataset())
    decoded = model.forward(params, images[start["image"]][None] / 255.0, None, lambda site, value: value).image
    np.testing.assert_allclose(images[start["decoded"]], 255 * np.asarray(decoded[0]), atol=3.0)


# --- the front end ---------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("node") is None, reason="the explorer's script is run by node")
@pytest.mark.parametrize("front", ["page", "widget"])
def test_the_script_shows_what_is_touched(gaussian, tmp_path, front):
    explored, page = gaussian[3], packing.as_json(gaussian[3], about())
    shown = touched(page, tmp_path, front)
    first, moved, swapped, patched, next_unit, *followed = shown
    images = tiles.unpack(page["tiles"])

    def number(value):
        return f"{value:.2f}".replace("-", "−")

    def assert_shown(seen, tile):
        pixels = np.array(seen["changed"]).reshape(16, 16, 4)
        np.testing.assert_array_equal(pixels[..., :3], images[tile])

    start, (strongest, latent, *_) = page["moves"]["starts"][0], page["moves"]["latents"]
    assert "seed 3" in first["about"] and first["said"][0].startswith(f"do(z{strongest} := ")
    assert first["captions"][3] == "difference ×4"
    assert_shown(first, start["pictures"][0][int(np.argmax(start["effect"][0]))])  # already moved, as far as it goes
    assert moved["said"][0].startswith(f"do(z{latent} := −3.00), from ")
    assert f"by {number(start['effect'][1][0])} (l2)" in moved["said"][1]
    assert_shown(moved, start["pictures"][1][0])
    assert ("latent" in moved["hash"]) == (front == "page"), "a page's address keeps what is shown"

    sites = {site["name"]: site for site in page["sites"]}
    pair, effects = page["pairs"][0], sites["latent/z"]["effect"][0]
    assert swapped["captions"][:3] == ["base", "source", "swapped"] and "Base and source" in swapped["question"]
    assert swapped["said"][0] == f"z{int(np.argmax(effects))} of latent/z, from the source"
    assert f"by {number(max(effects))} (l2)" in swapped["said"][1] and number(pair["total"]) in swapped["said"][1]
    site, last = page["sites"][0], len(page["pairs"]) - 1
    unit = int(np.argmax(site["effect"][0]))  # the strongest of the first pair stays chosen
    assert patched["said"][0] == f"unit {unit} of {explored.sites[0].name}, from the source"
    kept = dict(zip(site["pictured"][last], site["pictures"][last]))
    assert_shown(patched, kept.get(unit, page["pairs"][last]["decoded"][0]))
    assert f"by {number(site['effect'][last][unit])} (l2)" in patched["said"][1]
    assert next_unit["chosen"] == unit + 1 and f"unit {unit + 1} of" in next_unit["said"][0]

    def share(part):
        return f"{100 * part['effect']:.1f}\u00a0%".replace("-", "−"), f"{100 * part['error']:.1f}\u00a0%"

    circuit = page["circuits"]["factors"][last]
    edges, units = (sorted(circuit[kind], key=lambda part: -abs(part["effect"])) for kind in ("edges", "units"))
    (effect, error), sender = share(edges[0]), circuit["units"][edges[0]["ends"][0]]
    edge, unit, weakest, pointed = followed
    assert effect in edge["rows"][0] and len(edge["rows"]) == 1 and edge["stops"] == 1
    assert edge["drawn"] == len(edges) and f"carries {effect} ± {error} of the effect of color" in edge["said"][1]
    assert f"moves the image by {number(edges[0]['moved'])} (l2)" in edge["said"][2]
    assert edge["captions"][2] == "edge patched" and " → " in edge["chosen"][-1]
    assert_shown(edge, edges[0]["picture"])
    place = f"{sender['unit']} of {sender['site']}"
    assert place in unit["said"][0] and place in unit["chosen"][-1] and unit["stops"] == 1
    assert share(sender)[0] in unit["rows"][0] and unit["captions"][2] == "unit patched"
    assert_shown(unit, sender["picture"])
    assert_shown(weakest, units[-1]["picture"])
    assert ("part=" in unit["hash"]) == (front == "page")
    assert_shown(pointed, edges[1]["picture"])
    assert pointed["rows"] == weakest["rows"] and pointed["hash"] == weakest["hash"], "pointing chooses nothing"


def touched(page, folder, front):
    """What the script showed after each touch of tests/explorer_dom.mjs."""
    (folder / "page.json").write_text(explorer_page.embedded(page))
    (folder / "explorer.mjs").write_text(explorer_page.script())
    command = ["node", str(TESTS / "explorer_dom.mjs"), str(folder / "explorer.mjs"), str(folder / "page.json"), front]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.skipif(shutil.which("node") is None, reason="the explorer's script is run by node")
@pytest.mark.parametrize("front", ["beside", "widgets"])
def test_models_side_by_side_share_the_image_and_have_latents_of_their_own(gaussian, tmp_path, front):
    page = packing.as_json(gaussian[3], about())
    first, moved, other_image, circuit = touched(page, tmp_path, front)
    assert first["said"][0] == first["said"][1] and first["changed"][0] == first["changed"][1]
    assert moved["said"][0] == first["said"][0] and moved["said"][1].startswith(
        f"do(z{page['moves']['latents'][1]} := −3"
    )
    images, (start, second, _) = tiles.unpack(page["tiles"]), page["moves"]["starts"]

    def pixels(changed):
        return np.array(changed).reshape(16, 16, 4)[..., :3]

    assert moved["changed"][0] == first["changed"][0]
    np.testing.assert_array_equal(pixels(moved["changed"][1]), images[start["pictures"][1][0]])
    farthest = int(np.argmax(second["effect"][1]))
    np.testing.assert_array_equal(pixels(other_image["changed"][1]), images[second["pictures"][1][farthest]])
    assert other_image["said"][0] != other_image["said"][1], "each has kept its latent"
    assert circuit["said"][0] == circuit["said"][1] and " → " in circuit["said"][0]
    if front == "widgets":
        assert moved["hash"] == circuit["hash"] == ""
        return
    state = dict(parse_qsl(moved["hash"][1:]))
    latents = [str(latent) for latent in page["moves"]["latents"]]
    assert [state["latent"], state["latent.2"], state["stop.2"]] == [latents[0], latents[1], "0"]
    assert "start.2" not in state and "model" not in state
    assert "start=1" in other_image["hash"] and "tab=circuit" in circuit["hash"]


def test_the_widget_shows_the_page_of_its_model(gaussian, monkeypatch):
    pytest.importorskip("anywidget")
    give_circuits(monkeypatch)
    model, params, dataset, explored = gaussian
    shown = notebook.widget(model, params, dataset, KEY, SITES, pairs=4)
    expected = packing.as_json(explored, {"text": "betatc on colored (procedural data)"})
    assert shown.page == json.loads(json.dumps(expected))
    assert "export default" in shown._esm and ".explorer" in shown._css


def test_the_widget_of_several_models_has_the_page_of_each(gaussian, monkeypatch):
    pytest.importorskip("anywidget")
    model, params, dataset, explored = gaussian
    asked = []
    monkeypatch.setattr(notebook, "explore", lambda *arguments, detail: asked.append((arguments, detail)) or explored)
    shown = notebook.beside({"one": (model, params), "other": (model, params)}, dataset, None, SITES, 4)
    expected = packing.as_json(explored, {"text": "betatc on colored (procedural data)"})
    assert shown.pages == json.loads(json.dumps([["one", expected], ["other", expected]])) and shown.page == {}
    assert [arguments[-2:] for arguments, _ in asked] == [(SITES, 4)] * 2
    assert [detail for _, detail in asked] == [content.Detail.beside(2)] * 2
    with pytest.raises(ValueError, match="1 models cannot stand side by side"):
        notebook.beside({"one": (model, params)}, dataset)
    with pytest.raises(ValueError, match=r"other takes images \[16, 16, 3\], and those of toy are \[16, 16, 1\]"):
        notebook.beside({"other": (model, params), "more": (model, params)}, toy.dataset())


def test_the_widget_says_how_to_install_what_it_needs(gaussian, monkeypatch):
    model, params, dataset, _ = gaussian
    monkeypatch.setitem(sys.modules, "anywidget", None)
    notebook._kind.cache_clear()
    with pytest.raises(ImportError, match="pip install anywidget"):
        notebook.widget(model, params, dataset)
