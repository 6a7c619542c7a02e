"""BetaVAE and FactorVAE scores: which factor was held fixed, guessed from how codes vary.

Both were defined on a simulator that draws images with one factor fixed. Here they are computed on plain
arrays: rows that share the factor's value are drawn (with replacement) from the rows given, so that neither a
full grid nor a simulator is needed. With many rows per value the two are the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression

from causalvae.metrics import inputs

CHUNK = 500  # batches drawn at once: bounds memory


class BetaVAEScore(NamedTuple):
    """The BetaVAE score, an accuracy to compare with `chance`."""

    score: float  # test accuracy
    train_accuracy: float
    chance: float  # 1 / K
    dropped: tuple[int, ...]  # constant factors, by position in the factors as given


class FactorVAEScore(NamedTuple):
    """The FactorVAE score, an accuracy to compare with `chance`, and the votes behind it."""

    score: float  # accuracy of the majority vote on evaluation votes
    train_accuracy: float
    chance: float  # share of the most voted factor: what a constant guess reaches
    votes: np.ndarray  # [d, K] training votes: latent of least relative variance, by fixed factor
    active: np.ndarray  # [d] bool, latents that were not pruned
    dropped: tuple[int, ...]


def betavae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
    seed: int = 0,
) -> BetaVAEScore:
    """Accuracy of a linear classifier that guesses the factor shared by a batch of pairs.

    Source: Higgins et al. 2017, section 3, in Locatello et al. 2019's form: features are the mean over a
    batch of |z_1 - z_2| for pairs that share one factor's value; logistic regression names the factor.
    Args: codes [N, d], factors [N, K] class ids; num_train, num_test: points of the classifier.
    Range [0, 1], chance 1/K, ceiling 1. Known weakness: it saturates at 1 for codes that are far from
    disentangled, and a linear classifier forgives any rotation that leaves one direction still.
    Defined answers: dead latents are constant features, ignored; a single factor gives 1 (nothing to guess);
    pure noise gives about chance. Rescaling a latent changes it only through the classifier's regulariser.
    """
    checked = inputs.check(codes, factors)
    groups = _Groups(checked)
    generator = np.random.default_rng(seed)
    num_factors = checked.factors.shape[1]
    if num_factors == 1:
        return BetaVAEScore(1.0, 1.0, 1.0, checked.dropped)
    train, test = (_pair_features(groups, generator, num, batch) for num in (num_train, num_test))
    classifier = LogisticRegression(max_iter=1000).fit(*train)
    accuracies = (float(classifier.score(*part)) for part in (test, train))
    return BetaVAEScore(*accuracies, 1 / num_factors, checked.dropped)


def factorvae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    num_train: int = 10_000,
    num_test: int = 5_000,
    batch: int = 64,
    prune: float = 0.05,
    seed: int = 0,
) -> FactorVAEScore:
    """Accuracy of a majority vote that guesses the fixed factor from the latent that varies least.

    Source: Kim & Mnih 2018, section 4; sizes and pruning of Locatello et al. 2019. Each vote draws a factor,
    a value of it and a batch of rows with that value; the latent with the least variance, relative to its
    variance over all rows, votes. Latents with a standard deviation below `prune` do not take part.
    Range [0, 1], ceiling 1; the `chance` of a constant guess comes with it. Known weakness: `prune` is
    absolute, so rescaling a latent below it removes the latent; a code with several latents for one factor
    still scores 1.
    Defined answers: dead latents are pruned (prune=0 keeps all but constant ones); if every latent is pruned
    the score is 0; pure noise gives about 1/K. Values with fewer than two rows are not drawn: they have no
    variance.
    """
    checked = inputs.check(codes, factors)
    variances = checked.codes.astype(np.float64).var(axis=0, ddof=1)
    active = (np.sqrt(variances) >= prune) & ~inputs.dead_latents(checked.codes)
    num_latents, num_factors = checked.codes.shape[1], checked.factors.shape[1]
    if not active.any():
        return FactorVAEScore(
            0.0, 0.0, 1 / num_factors, np.zeros((num_latents, num_factors), int), active, checked.dropped
        )
    groups = _Groups(checked)
    generator = np.random.default_rng(seed)
    train, test = (_votes(groups, generator, num, batch, variances, active) for num in (num_train, num_test))
    majority = train.argmax(axis=1)
    correct = (votes[np.arange(num_latents), majority].sum() / votes.sum() for votes in (test, train))
    return FactorVAEScore(
        *map(float, correct), float(test.sum(axis=0).max() / test.sum()), train, active, checked.dropped
    )


class _Groups:
    """Rows by the value of each factor: draws rows that share one."""

    def __init__(self, checked: inputs.Inputs):
        self.codes, self.factors = checked.codes, checked.factors
        self.order = np.argsort(self.factors, axis=0, kind="stable")  # [N, K]
        self.counts = [
            np.bincount(column, minlength=n) for column, n in zip(self.factors.T, checked.sizes, strict=True)
        ]
        self.starts = [np.concatenate([[0], np.cumsum(count)[:-1]]) for count in self.counts]

    def rows(self, factor: int, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """For each of `values` of a factor, a row that has it."""
        place = generator.integers(0, self.counts[factor][values])
        return self.order[self.starts[factor][values] + place, factor]


def _pair_features(groups: _Groups, generator, num: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """(features [num, d], factor [num]): mean |z_1 - z_2| over a batch of pairs that share the factor."""
    num_rows, num_factors = groups.factors.shape
    labels = generator.integers(0, num_factors, num)
    features = np.empty((num, groups.codes.shape[1]), np.float32)
    for factor in range(num_factors):
        for points in _chunks(np.flatnonzero(labels == factor)):
            first = generator.integers(0, num_rows, (len(points), batch))
            second = groups.rows(factor, groups.factors[first, factor], generator)
            features[points] = np.abs(groups.codes[first] - groups.codes[second]).mean(axis=1)
    return features, labels


def _votes(groups: _Groups, generator, num: int, batch: int, variances, active) -> np.ndarray:
    """Votes [d, K]: how often each latent varied least (relative to `variances`) with each factor fixed."""
    num_rows, num_factors = groups.factors.shape
    labels = generator.integers(0, num_factors, num)
    votes = np.zeros((len(variances), num_factors), np.int64)
    latents = np.flatnonzero(active)
    for factor in range(num_factors):
        usable = np.flatnonzero(groups.counts[factor][groups.factors[:, factor]] > 1)
        if not len(usable):
            raise ValueError(
                f"no value of factor {factor} has two rows: {num_rows} rows are too few to fix it"
            )
        for points in _chunks(np.flatnonzero(labels == factor)):
            values = groups.factors[generator.choice(usable, len(points)), factor]
            rows = groups.rows(factor, np.repeat(values[:, None], batch, axis=1), generator)
            local = groups.codes[rows][:, :, latents].astype(np.float64).var(axis=1, ddof=1)
            least = latents[np.argmin(local / variances[latents], axis=1)]
            votes[:, factor] += np.bincount(least, minlength=len(variances))
    return votes


def _chunks(points: np.ndarray) -> list[np.ndarray]:
    return np.array_split(points, -(-len(points) // CHUNK)) if len(points) else []
