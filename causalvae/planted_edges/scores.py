"""How well scores of edges find those that were planted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SMALLEST = 0.01  # of the largest score


class EdgeScore(NamedTuple):
    """How well scores of edges agree with the planted ones."""

    precision: float  # of the edges whose |score| is at least `smallest` of the largest; NaN where none has any
    recall: float
    average_precision: float  # over all thresholds: 1 where every planted edge is above every other


def score_edges(scores: np.ndarray, planted: np.ndarray, smallest: float = SMALLEST) -> EdgeScore:
    """Returns precision, recall and average precision of the sizes of scores of edges, of any method.

    Args:
      scores: [U, W], or any other shape: a number for every edge, such as its mean effect.
      planted: bool, shaped as scores: `PlantedEdges.edges[factor][link]`.
      smallest: an edge counts as found from this share of the largest |score| on.

    Raises:
      ValueError: for shapes that differ, no planted edge, or scores that are not numbers.
    """
    from sklearn.metrics import average_precision_score

    sizes, planted = np.abs(np.asarray(scores, np.float64)).ravel(), np.asarray(planted, bool).ravel()
    if sizes.size != planted.size:
        raise ValueError(f"{sizes.size} scores for {planted.size} edges: give one for each")
    if not planted.any() or not np.isfinite(sizes).all():
        raise ValueError("there must be a planted edge to find, and scores must be numbers")
    found = (sizes >= smallest * sizes.max()) & (sizes > 0)
    hits = (found & planted).sum()
    precision = float(hits / found.sum()) if found.any() else float("nan")
    # Scores that differ by rounding are equal.
    ranked = np.round(sizes / max(sizes.max(), np.finfo(float).tiny), 5)
    return EdgeScore(precision, float(hits / planted.sum()), float(average_precision_score(planted, ranked)))
