"""The explored as explorer.js wants it: JSON, with the images packed as tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from causalvae.progress import finite
from experiments import glossary
from experiments.explorer.content import Circuit, Circuits, Explored, Moves, Site
from experiments.explorer.tiles import Tiles


def as_json(explored: Explored, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The explored as JSON-able data, images packed as `tiles`; about: what the page says of the model."""
    tiles = Tiles(explored.moves.images.shape[1:])
    page = {
        "about": dict(about or {}),
        "words": glossary.CAUSAL | glossary.EDGES,
        "codes": explored.codes,
        "code_site": explored.code_site,
        "factors": [{"name": n, "size": s} for n, s in zip(explored.factor_names, explored.factor_sizes)],
        "latents": list(explored.latent_names),
        "strengths": {name: _numbers(value) for name, value in explored.strengths._asdict().items()},
        "moves": _moves_as_json(explored.moves, tiles),
    }
    pairs = _pairs_as_json(explored, tiles)
    page |= {"pairs": pairs, "sites": [_site_as_json(site, pairs, tiles) for site in explored.sites]}
    page["circuits"] = _circuits_as_json(explored.circuits, pairs, tiles)
    return page | {"tiles": tiles.pack()}


def _moves_as_json(moves: Moves, tiles: Tiles) -> dict[str, Any]:
    starts = []
    for s in range(len(moves.images)):
        base = tiles.add(moves.decoded[s])
        starts.append(
            {
                "image": tiles.add(moves.images[s]),
                "decoded": base,
                "factors": moves.factors[s].tolist(),
                "own": _numbers(moves.own[s]),
                "pictures": [_chain(tiles, pictures, base) for pictures in moves.pictures[s]],
                "effect": _numbers(moves.effect[s]),
                "response": _numbers(moves.response[s], 3),
            }
        )
    return {"latents": moves.latents.tolist(), "values": _numbers(moves.values), "starts": starts}


def _chain(tiles: Tiles, pictures: np.ndarray, base: int) -> list[int]:
    """Pictures as differences each from the one before, the first from `base`."""
    numbers = []
    for picture in pictures:
        numbers.append(tiles.add(picture, numbers[-1] if numbers else base))
    return numbers


def _pairs_as_json(explored: Explored, tiles: Tiles) -> list[dict[str, Any]]:
    shown = explored.pairs
    return [
        {
            "factor": explored.factor_names[factor],
            "observational": shown.observational,
            "values": [int(v) for v in shown.factors[p, :, factor]],
            "images": [tiles.add(image) for image in shown.images[p]],
            "decoded": [tiles.add(image) for image in shown.decoded[p]],
            "total": _numbers(shown.total[p]),
        }
        for p, factor in enumerate(shown.factor)
    ]


def _site_as_json(site: Site, pairs: list[dict[str, Any]], tiles: Tiles) -> dict[str, Any]:
    """Effects of all units [P][U]; units with a picture, and of those, in the encoder, the latents' responses."""
    pictures = [[tiles.add(x, pair["decoded"][0]) for x in site.pictures[p]] for p, pair in enumerate(pairs)]
    response = None
    if site.response is not None and np.nansum(site.response):
        response = [_numbers(site.response[units, p], 3) for p, units in enumerate(site.pictured)]
    return {
        "name": site.name,
        "shape": list(site.shape),
        "effect": _numbers(site.effect.T),
        "recovery": _numbers(site.recovery.T),
        "pictured": site.pictured.tolist(),
        "pictures": pictures,
        "response": response,
    }


def _circuits_as_json(circuits: Circuits, pairs: list[dict[str, Any]], tiles: Tiles) -> dict[str, Any]:
    found = [_circuit_as_json(circuit, pair, tiles) for circuit, pair in zip(circuits.factors, pairs)]
    about = {"sites": list(circuits.sites), "sizes": list(circuits.sizes), "num": circuits.num}
    return about | {"missing": circuits.missing, "factors": found}


def _circuit_as_json(circuit: Circuit, pair: Mapping[str, Any], tiles: Tiles) -> dict[str, Any]:
    """Units and edges, each with its effect and its picture; an edge's ends are numbers of units."""
    if circuit.pictures is None or circuit.moved is None:
        return {"missing": circuit.missing, "units": [], "edges": []}
    base, number = pair["decoded"][0], {node["id"]: i for i, node in enumerate(circuit.nodes)}
    parts = [
        {"effect": part["effect"], "error": part["standard_error"], "moved": float(moved), "picture": picture}
        for part, moved, picture in zip(
            (*circuit.nodes, *circuit.edges), circuit.moved, (tiles.add(x, base, fine=True) for x in circuit.pictures)
        )
    ]
    parts = [{name: value if name == "picture" else _numbers(value) for name, value in part.items()} for part in parts]
    units = [
        {"site": node["site"], "unit": node["unit"], "height": _numbers(circuit.places[node["id"]][1]), **part}
        for node, part in zip(circuit.nodes, parts)
    ]
    edges = [
        {"ends": [number[edge["source"]], number[edge["target"]]], **part}
        for edge, part in zip(circuit.edges, parts[len(units) :])
    ]
    return {"missing": "", "units": units, "edges": edges}


def _numbers(values: Any, digits: int = 4) -> Any:
    """Numbers with so many significant digits, nested as the array is; None where undefined."""
    values = np.asarray(values, np.float64)
    rounded = [float(f"{value:.{digits}g}") for value in values.ravel()]
    return finite(np.reshape(rounded, values.shape).tolist())
