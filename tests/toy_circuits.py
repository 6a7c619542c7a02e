"""Circuits for an explorer to show, made up: four units, three edges, and pictures of noise."""

import numpy as np

from experiments.explorer import content

SITES = ("encoder/conv2", "latent/z", "decoder/conv1")
MISSING = "The second has none."


def circuits(image_shape, sites=SITES, present=(True, False)):
    """One circuit for every factor that is `present`, and a sentence for the others."""
    found = [
        circuit(image_shape, sites, seed) if there else content.Circuit(missing=MISSING)
        for seed, there in enumerate(present)
    ]
    return content.Circuits(sites, (192, 96), 16, tuple(found))


def circuit(image_shape, sites, seed):
    units = [(sites[0], 5, 0.4), (sites[0], 2, 0.3), (sites[1], 1, 0.9), (sites[2], 7, -0.2)]
    nodes = [
        {"id": f"{site}:{unit}", "site": site, "unit": unit, "effect": effect, "standard_error": 0.05}
        for site, unit, effect in units
    ]
    names = [node["id"] for node in nodes]
    ends = (names[0], names[2], 0.31), (names[1], names[2], 0.07), (names[2], names[3], -0.12)
    edges = [{"source": a, "target": b, "effect": effect, "standard_error": 0.02} for a, b, effect in ends]
    places = dict(zip(names, [(1, 0.75), (1, 0.25), (2, 0.5), (3, 0.5)]))
    pictures = np.random.default_rng(seed).uniform(size=(7, *image_shape))
    return content.Circuit(nodes, edges, places, pictures, np.arange(1.0, 8.0))
