"""Models whose edges are known because they were planted: what every method that finds edges is held to.

Small ReLU networks between blocks of an image and blocks of its reconstruction, with weights set by construction. Which
edge carries which factor follows from the wiring; decoys have large weights or large activations and carry nothing.

    planted = plant_edges("cancelling")
    effects = edge_effects(planted.model, planted.params, pairs, "encoder/hidden", "latent/z", method="exact")
    score_edges(effects.mean, planted.edges["first"]["encoder/hidden", "latent/z"])
"""

from causalvae.planted_edges.files import Export, export, load_export
from causalvae.planted_edges.models import PLANTED_EDGES, plant_edges
from causalvae.planted_edges.network import LINKS, BlockOutcome, PlantedEdges
from causalvae.planted_edges.scores import EdgeScore, score_edges

__all__ = [
    "BlockOutcome",
    "EdgeScore",
    "Export",
    "LINKS",
    "PLANTED_EDGES",
    "PlantedEdges",
    "export",
    "load_export",
    "plant_edges",
    "score_edges",
]
