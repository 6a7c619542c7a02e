"""The circuit of each factor among the latents, and what their sizes, faithfulness and overlap are on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from causalvae import circuits, interventions
from causalvae.architectures import Architecture
from causalvae.evaluation.settings import Settings
from causalvae.interventions._runs import ALIKE
from causalvae.metrics import Score

THRESHOLD = 0.9  # of the total effect
ESTIMATOR = (
    f"greedy sets of latents that recover {THRESHOLD} of a factor's effect on half of the pairs, "
    "faithfulness on the other half; mean over factors"
)


def latent_circuits(
    model: Architecture, params: Any, pairs: Sequence[interventions.Pairs], factors: Sequence[str]
) -> dict[str, circuits.Circuit | None]:
    """Finds the smallest set of latents that recovers `THRESHOLD` of each factor's effect on half of its pairs.

    The other half measures it. A factor without any effect on a half has None.
    """
    found = {}
    for name, part in zip(factors, pairs, strict=True):
        try:
            found[name] = circuits.find_circuit(model, params, part, "latent/z", threshold=THRESHOLD)
        except ValueError:  # the decoded images of half of these pairs are the same: nothing to explain
            found[name] = None
    return found


def circuit_scores(found: dict[str, circuits.Circuit | None], settings: Settings) -> list[Score]:
    """Returns mean size, faithfulness (null: random sets of the same size) and overlap of the factors' circuits.

    Sizes and overlap are those of the sets that one half of the pairs chose; the other half measures faithfulness
    and its null.
    """
    served = {factor: circuit for factor, circuit in found.items() if circuit is not None}
    common = {
        "estimator": ESTIMATOR,
        "samples": {"pairs per factor": settings.pairs},
        "settings": {"factors": len(served)},
    }
    names = ("circuit_size", "circuit_faithfulness", "circuit_overlap")
    if len(served) < 2:
        note = (
            f"undefined: {len(served)} of {len(found)} factors have an effect on the decoded image (a change of more "
            f"than {ALIKE:g} of its norm, in both halves of their pairs); two are needed"
        )
        return [Score(name, None, note=note, **common) for name in names]
    jaccard = circuits.overlap(served)[np.triu_indices(len(served), 1)]
    faithfulness = np.mean([circuit.faithfulness for circuit in served.values()])
    random = np.mean([circuit.random.mean() for circuit in served.values()])
    return [
        Score(names[0], float(np.mean([len(circuit.units) for circuit in served.values()])), ceiling=1.0, **common),
        Score(names[1], float(faithfulness), null=float(random), ceiling=1.0, **common),
        Score(names[2], float(jaccard.mean()), ceiling=0.0, **common),
    ]
