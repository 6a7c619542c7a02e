"""Compiled boosted trees against scikit-learn's, and DCI where its answer is known or must be defined."""

import json

import jax
import lattice_codes
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from causalvae import metrics
from causalvae.metrics import boosting
from causalvae.metrics.dci import ESTIMATORS, disentanglement

SIZES = (3, 2, 4)
ROWS, TRAIN = 900, 600


def factors():
    return np.stack([np.random.default_rng(k).integers(0, n, ROWS) for k, n in enumerate(SIZES)], axis=1)


def varied_codes():
    """Twelve codes [900, 5] of one set of factors: one shape, so one compilation."""
    ids, generator = factors(), np.random.default_rng(7)
    noise = generator.normal(size=(ROWS, 5))
    unit = (ids - ids.mean(axis=0)) / ids.std(axis=0)
    mixed = unit @ generator.normal(size=(3, 3))
    half_turn = np.stack([unit[:, 0] + unit[:, 2], unit[:, 0] - unit[:, 2], unit[:, 1]], axis=1)

    first = unit[:, :1] + 0.1 * noise[:, :1]
    halves = np.concatenate([np.maximum(first, 0.0), np.minimum(first, 0.0)], axis=1)

    def beside(code, rest):
        return np.concatenate([code, rest], axis=1)[:, :5]

    return {
        "identity": beside(unit, np.zeros((ROWS, 2))),
        "identity and noise": beside(unit, noise),
        "a little noise": beside(unit + 0.1 * noise[:, :3], 0.01 * noise),
        "much noise": beside(unit + 0.6 * noise[:, :3], noise[:, 3:]),
        "rotated by 45 degrees": beside(half_turn + 0.1 * noise[:, :3], noise),
        "rotated": beside(mixed + 0.2 * noise[:, :3], noise[:, 3:]),
        "merged": beside(unit[:, :1] + 2 * unit[:, 1:2] + 0.3 * noise[:, :1], beside(unit[:, 2:], noise)),
        "split": beside(halves, beside(unit[:, 1:], noise)),
        "noisy copies": beside(unit + 0.3 * noise[:, :3], unit[:, :2] + 0.3 * noise[:, 3:]),
        "warped": beside(np.exp(unit + 0.2 * noise[:, :3]), np.sin(3 * noise)),
        "few values": np.round(beside(unit + 0.5 * noise[:, :3], noise)),
        "pure noise": noise,
    }


@pytest.mark.parametrize("name", varied_codes())
def test_agrees_with_scikit_learn(name):
    codes = varied_codes()[name]
    ours, theirs = (
        metrics.dci(codes, factors(), estimator, num_train=TRAIN, shuffle=False) for estimator in ("xla", "sklearn")
    )
    for field in ("disentanglement", "completeness", "informativeness"):
        assert abs(getattr(ours, field) - getattr(theirs, field)) <= 0.01, field
    if name not in ("split", "noisy copies"):  # where latents tie, chance decides between them
        np.testing.assert_allclose(ours.importance, theirs.importance, atol=0.02)
    assert ours.estimator == "xla" and ours.num_train == TRAIN and ours.num_test == ROWS - TRAIN


def test_one_tree_removes_as_much_squared_error_as_scikit_learn():
    """One round. In small nodes latents tie, so single latents may differ, but never what is removed."""
    codes, labels = varied_codes()["rotated"].astype(np.float32), factors()[:, [2]]
    layout = boosting.lay_out(codes[:TRAIN], codes[TRAIN:])
    ours = boosting.boost(jax.random.key(0), layout, labels[:TRAIN], (4,), rounds=1)
    theirs = GradientBoostingClassifier(n_estimators=1, random_state=0).fit(codes[:TRAIN], labels[:TRAIN, 0])
    removed = [tree.tree_.compute_feature_importances(normalize=False) for tree in theirs.estimators_[0]]
    importance = np.asarray(ours.importance)[:, 0]
    np.testing.assert_allclose(importance.sum(), np.sum(removed) * TRAIN, rtol=1e-5)
    np.testing.assert_allclose(importance, np.sum(removed, axis=0) * TRAIN, atol=0.02 * importance.sum())
    probability = np.asarray(jax.nn.softmax(ours.logits, axis=1))[:TRAIN]
    expected = theirs.predict_proba(codes[:TRAIN])
    assert np.mean(np.abs(probability - expected).max(axis=1) < 1e-5) > 0.9


def test_ties_are_broken_by_chance_so_that_copies_share_the_importance():
    unit = varied_codes()["identity"][:, :1]
    codes = np.concatenate([unit, unit, np.zeros((ROWS, 3))], axis=1)
    found = metrics.dci(codes, factors(), "xla", num_train=TRAIN).importance[:2, 0]
    assert found.min() > 0.1 and abs(found.sum() - 1) < 1e-5


def test_members_are_those_of_separate_runs():
    codes = varied_codes()
    members = np.stack([codes["rotated"], codes["much noise"]])
    together = metrics.dci_of_members(members, factors(), num_train=TRAIN)
    for member, found in zip(members, together, strict=True):
        alone = metrics.dci(member, factors(), "xla", num_train=TRAIN)
        np.testing.assert_allclose(found.importance, alone.importance, atol=1e-5)
        assert found.informativeness == alone.informativeness


def test_seeded_and_unchanged_by_rescaling_and_permuting_latents():
    codes = varied_codes()["rotated"]
    scaled = codes[:, ::-1] * np.array([1.0, 100.0, 0.01, 5.0, 3.0])
    one, again, other = (metrics.dci(c, factors(), "xla", num_train=TRAIN) for c in (codes, codes, scaled))
    assert np.array_equal(one.importance, again.importance)
    np.testing.assert_allclose(other.importance[::-1], one.importance, atol=5e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_perfect_codes_and_noise_with_every_estimator(estimator):
    codes = varied_codes()
    perfect = metrics.dci(codes["identity"], factors(), estimator, num_train=TRAIN)
    assert perfect.informativeness == 1.0 and np.allclose(perfect.importance.sum(axis=0), 1)
    assert perfect.disentanglement > (0.7 if estimator == "random_forest" else 0.99)
    noise = metrics.dci(codes["pure noise"], factors(), estimator, num_train=TRAIN)
    assert noise.informativeness < 0.45


def test_defined_answers():
    codes, ids = varied_codes()["identity"], factors()
    dead = metrics.dci(np.full((ROWS, 5), 2.0), ids, "xla", num_train=TRAIN)
    assert dead.disentanglement == dead.completeness == 0.0 and not dead.importance.any()
    one_factor = metrics.dci(codes, np.concatenate([ids[:, :1], 0 * ids], axis=1), "sklearn", num_train=TRAIN)
    assert np.isnan(one_factor.disentanglement) and one_factor.dropped == (1, 2, 3)
    one_latent = metrics.dci(codes[:, :1], ids, "random_forest", num_train=TRAIN)
    assert np.isnan(one_latent.completeness) and one_latent.disentanglement == pytest.approx(0, abs=1e-6)
    late = np.stack([ids[:, 0], np.arange(ROWS) >= TRAIN], axis=1).astype(int)  # one value in the training rows
    found = metrics.dci(codes, late, "random_forest", num_train=TRAIN, shuffle=False)
    assert found.accuracy.tolist() == [1.0, 0.0] and not found.importance[:, 1].any()
    unseen = ids.copy()
    unseen[TRAIN:, 0] = 3  # a class that only the test rows have is never predicted
    assert metrics.dci(codes, unseen, "random_forest", num_train=TRAIN, shuffle=False).accuracy[0] == 0.0


def test_disentanglement_is_one_less_the_weighted_entropy_of_rows():
    matrix = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert disentanglement(matrix) == pytest.approx(0.5 * (1 - np.log(2) / np.log(3)) + 0.5)
    assert disentanglement(np.eye(4)) == 1.0
    assert disentanglement(np.ones((4, 3))) == pytest.approx(0.0)


def test_bad_arguments():
    codes, ids = varied_codes()["identity"], factors()
    with pytest.raises(ValueError, match="unknown estimator 'trees'; there are sklearn, xla, random_forest, lasso"):
        metrics.dci(codes, ids, "trees")
    with pytest.raises(ValueError, match=r"representations of members must be \[members, N, d\], not \[900, 5\]"):
        metrics.dci_of_members(codes, ids)
    with pytest.raises(ValueError, match="1000 training and 300 test rows were asked for.*there are 900"):
        metrics.dci(codes, ids, num_train=1000, num_test=300)


@pytest.mark.parametrize("case", lattice_codes.DCI)
def test_scores_of_lattice_codes_are_the_references(case):
    codes, ids = lattice_codes.codes(case), lattice_codes.FACTORS
    found = metrics.dci(codes, ids, "xla", num_train=lattice_codes.TRAIN, shuffle=False)
    scores = found.disentanglement, found.completeness, found.informativeness
    np.testing.assert_allclose(scores, lattice_codes.DCI[case], atol=0.01)


@pytest.mark.parametrize("case", ["identity", "rotated_random", "merged"])
def test_reference_scores(shared_data, case):
    folder = shared_data / "metrics"
    if not folder.is_dir():
        pytest.skip(f"reference codes not found at {folder}")
    with np.load(folder / "reference_codes.npz") as arrays:
        codes, ids = arrays[f"{case}/codes"], arrays[f"{case}/factors"]
    expected = json.loads((folder / "reference_scores.json").read_text())[case]
    found = metrics.dci(codes, ids, "xla", num_train=2000, shuffle=False)
    assert abs(found.disentanglement - expected["dci_disentanglement"]) <= 0.01
    assert abs(found.completeness - expected["dci_completeness"]) <= 0.01
    assert abs(found.informativeness - expected["dci_informativeness_test"]) <= 0.01
