"""The field's disentanglement metrics on the representations of two samples, one to fit on and one to score."""

from __future__ import annotations

import numpy as np

from causalvae import metrics
from causalvae.evaluation.representations import Encoded
from causalvae.evaluation.settings import Settings
from causalvae.metrics import Score


def disentanglement_scores(train: Encoded, test: Encoded, settings: Settings) -> list[Score]:
    """Returns the scores of the metrics that the settings name."""
    options = metrics.Options(
        num_train=len(train.factors),
        num_test=len(test.factors),
        votes=settings.votes,
        seed=settings.seed,
        shuffle=False,
        dci_estimator=settings.dci_estimator,
    )
    return metrics.evaluate_representations(
        np.concatenate([np.asarray(train.representations), np.asarray(test.representations)]),
        np.concatenate([np.asarray(train.factors), np.asarray(test.factors)]),
        settings.metrics,
        options,
    )
