"""The suite against disentanglement_lib's own scores, plain loops, and codes whose answers are known."""

import json

import jax.numpy as jnp
import lattice_codes
import numpy as np
import pytest

from causalvae import metrics
from causalvae.metrics import scores, suite

CASES = ["identity", "noisy_plus_near_dead", "rotated_45_two", "rotated_random"]
CASES += ["exactly_dead", "duplicated", "pure_noise", "merged"]
SPLIT = dict(num_train=2000, num_test=1000, shuffle=False)
SIZES = (3, 6, 10, 8)


@pytest.fixture(scope="module")
def reference(shared_data):
    folder = shared_data / "metrics"
    if not folder.is_dir():
        pytest.skip(f"reference codes not found at {folder}")
    with np.load(folder / "reference_codes.npz") as arrays:
        codes = {case: (arrays[f"{case}/codes"], arrays[f"{case}/factors"]) for case in CASES}
    return codes, json.loads((folder / "reference_scores.json").read_text())


@pytest.fixture(scope="module")
def grid():
    """Factors [N, 4] drawn independently, and the codes that equal them up to scale."""
    factors = np.stack([np.random.default_rng(k).integers(0, n, 3000) for k, n in enumerate(SIZES)], axis=1)
    return factors.astype(np.float32) / np.array(SIZES, np.float32), factors


@pytest.mark.parametrize("case", CASES)
def test_parity_with_the_reference_functions(reference, case):
    (codes, factors), scores = reference[0][case], reference[1][case]
    # One value in 8,000 of this code lies 2.3e-7 of its latent's range below the edge of a bin: on it, here.
    histogram = 3e-5 if case == "rotated_random" else 1e-6
    assert abs(metrics.mig(codes[:2000], factors[:2000]).score - scores["mig"]) < histogram
    modularity = metrics.modularity(codes, factors, reference=True, **SPLIT).score
    assert abs(modularity - scores["modularity"]) < histogram
    assert abs(metrics.sap(codes, factors, **SPLIT).score - scores["sap_discrete"]) < 1e-6
    assert abs(metrics.sap(codes, factors, continuous=True, **SPLIT).score - scores["sap_continuous"]) < 1e-6
    # The stored score of dead latents is that of compute_irs's inner helper; compute_irs drops them first.
    robustness = 0.8583705 if scores["irs"] is None else scores["irs"]
    assert abs(metrics.irs(codes, factors).score - robustness) < 1e-6


def test_dead_latents_change_nothing_unless_the_reference_is_asked_for(reference):
    codes, factors = reference[0]["exactly_dead"]
    live = codes[:, np.ptp(codes, axis=0) > 0]
    assert live.shape[1] == codes.shape[1] - 2
    assert metrics.irs(codes, factors).score == metrics.irs(live, factors).score
    with_dead, without = (metrics.modularity(c, factors, **SPLIT).score for c in (codes, live))
    assert abs(with_dead - without) < 1e-6 and without > 0.85
    for dead_or_not in (codes, live):
        assert metrics.factorvae_score(dead_or_not, factors, 500, 300).score == 1.0


@pytest.mark.parametrize("case", lattice_codes.SCORES)
def test_scores_of_lattice_codes_are_the_references(case):
    codes, factors, train = lattice_codes.codes(case), lattice_codes.FACTORS, lattice_codes.TRAIN
    split = dict(num_train=train, num_test=len(codes) - train, shuffle=False)
    expected = lattice_codes.SCORES[case]
    found = {
        "mig": metrics.mig(codes[:train], factors[:train]).score,
        "sap_continuous": metrics.sap(codes, factors, continuous=True, **split).score,
        "modularity": metrics.modularity(codes, factors, reference=True, **split).score,
        "irs": metrics.irs(codes, factors).score,
    }
    for name, value in found.items():
        assert abs(value - expected[name]) < 2e-6, name
    assert abs(metrics.sap(codes, factors, **split).score - expected["sap_discrete"]) < 0.01
    assert abs(metrics.explicitness(codes, factors, **split).score - lattice_codes.EXPLICITNESS[case]) < 1e-3


def test_dead_latents_of_lattice_codes_change_nothing():
    codes, factors = lattice_codes.codes("dead"), lattice_codes.FACTORS
    live = codes[:, :3]
    assert metrics.irs(codes, factors).score == metrics.irs(live, factors).score
    split = dict(num_train=lattice_codes.TRAIN, shuffle=False)
    with_dead, without = (metrics.modularity(c, factors, **split).score for c in (codes, live))
    assert abs(with_dead - without) < 1e-6 and without > 0.99
    for dead_or_not in (codes, live):
        assert metrics.factorvae_score(dead_or_not, factors, 500, 300).score == 1.0


# --- plain recomputations --------------------------------------------------------------------------------


def test_modularity_is_the_formula_of_its_source(grid):
    codes = np.concatenate([grid[0], grid[0][:, :1] + grid[0][:, 1:2]], axis=1)
    factors = grid[1]
    found = metrics.modularity(codes, factors, **SPLIT)
    expected = []
    for column in codes[:2000].T:
        binned = np.digitize(column, np.histogram(column, 20)[1][:-1])
        information = [_mutual_information(binned, f) for f in factors[:2000].T]
        best = max(information)
        expected.append(1 - (sum(i**2 for i in information) - best**2) / (best**2 * (len(information) - 1)))
    np.testing.assert_allclose(found.per_latent, expected, atol=1e-5)


def _mutual_information(a, b):
    total = 0.0
    for x in np.unique(a):
        for y in np.unique(b):
            joint = np.mean((a == x) & (b == y))
            if joint > 0:
                total += joint * np.log(joint / (np.mean(a == x) * np.mean(b == y)))
    return total


def test_irs_is_the_formula_of_its_source(grid):
    codes = grid[0].astype(np.float64) @ np.array([[1, 0.5], [0, 1], [0, 0], [0.2, 0]])
    found = metrics.irs(codes, grid[1])
    for i in range(2):
        largest = max(abs(codes[:, i] - codes[:, i].mean()))
        ratios = []
        for k, size in enumerate(SIZES):
            groups = [codes[grid[1][:, k] == v, i] for v in range(size)]
            ratios.append(np.mean([np.quantile(abs(g - g.mean()), 0.99) for g in groups]) / largest)
        np.testing.assert_allclose(found.matrix[i], 1 - np.array(ratios), atol=1e-6)


def test_factorvae_votes_are_those_of_a_plain_loop(grid):
    """The same definition with a loop per vote: the shares of votes agree within sampling error."""
    codes, factors = grid[0] @ np.random.default_rng(5).normal(size=(4, 4)).astype(np.float32), grid[1]
    found = metrics.factorvae_score(codes, factors, 3000, 1500, seed=1)
    generator, votes = np.random.default_rng(2), np.zeros((4, 4))
    variances = codes.var(axis=0, ddof=1)
    for _ in range(3000):
        k = generator.integers(4)
        rows = np.flatnonzero(factors[:, k] == factors[generator.integers(len(factors)), k])
        local = codes[generator.choice(rows, 64)].var(axis=0, ddof=1) / variances
        votes[local.argmin(), k] += 1
    np.testing.assert_allclose(found.votes / 3000, votes / 3000, atol=0.03)
    assert abs(found.score - votes.max(axis=1).sum() / 3000) < 0.03


def test_a_pair_of_the_betavae_score_shares_its_factor_and_nothing_else(grid):
    """Identity codes: the feature of the shared factor is exactly 0, so a linear classifier is always
    right."""
    found = metrics.betavae_score(*grid, 500, 300)
    assert found.score == found.train_accuracy == 1.0
    noise = np.random.default_rng(0).normal(size=grid[0].shape)
    assert metrics.betavae_score(noise, grid[1], 1000, 1000).score < 0.32


def test_explicitness_is_one_for_a_readable_code_and_a_half_for_noise(grid):
    # A linear classifier can read every class off a one-hot code.
    one_hot = np.concatenate([np.eye(n)[f] for n, f in zip(SIZES, grid[1].T, strict=True)], axis=1)
    assert metrics.explicitness(one_hot, grid[1]).score > 0.9999
    noise = np.random.default_rng(0).normal(size=grid[0].shape)
    assert abs(metrics.explicitness(noise, grid[1]).score - 0.5) < 0.03


# --- defined answers -------------------------------------------------------------------------------------

ANSWERS = {
    # codes -> what each score must lie between
    "identity": dict(mig=(0.98, 1), sap_continuous=(0.98, 1), modularity=(0.99, 1), irs=(0.99, 1), factorvae=(1, 1)),
    "noise": dict(mig=(0, 0.02), sap_continuous=(0, 0.02), modularity=(0.4, 0.9), irs=(0, 0.4), factorvae=(0.2, 0.4)),
    "duplicated": dict(mig=(0, 0.01), sap_continuous=(0, 0.01), modularity=(0.99, 1), irs=(0.99, 1), factorvae=(1, 1)),
    "all dead": dict(mig=(0, 0), sap_continuous=(0, 0), modularity=(0, 0), irs=(0, 0), factorvae=(0, 0)),
    "one latent": dict(mig=(0.2, 0.26), sap_continuous=(0.2, 0.26), modularity=(0.99, 1), irs=(0.99, 1)),
}


def instructive(name, codes):
    return {
        "identity": codes,
        "noise": np.random.default_rng(0).normal(size=codes.shape),
        "duplicated": np.concatenate([codes, codes], axis=1),
        "all dead": np.full_like(codes, 0.3),
        "one latent": codes[:, :1],
    }[name]


@pytest.mark.parametrize("name", ANSWERS)
def test_instructive_codes_have_their_documented_answers(grid, name):
    names = [metric for metric in metrics.METRICS if metric not in ("dci", "sap_discrete", "infomec")]
    options = metrics.Options(votes=400, **SPLIT)
    records = metrics.evaluate_representations(instructive(name, grid[0]), grid[1], names, options)
    values = {record.name: record.value for record in records}
    for score, (low, high) in ANSWERS[name].items():
        assert low <= values[score] <= high, (score, values[score])
    for record in records:
        assert record.estimator and (record.value is not None or record.note)
        assert record.ceiling is not None and record.samples
        low, high = next(m for name, m in metrics.METRICS.items() if record.name.startswith(name)).range
        assert record.value is None or low <= record.value <= high


def test_constant_factors_are_dropped_and_said_so(grid):
    factors = np.concatenate([np.zeros((3000, 1), int), grid[1]], axis=1)
    (record,) = metrics.evaluate_representations(grid[0], factors, "mig")
    (without,) = metrics.evaluate_representations(grid[0], grid[1], "mig")
    assert record.value == without.value and "constant factors [0] dropped" in record.note


def test_permuting_latents_changes_no_score(grid):
    noisy = grid[0] + 0.1 * np.random.default_rng(0).normal(size=grid[0].shape)
    names = "mig,sap_continuous,modularity,irs,explicitness"
    one, other = (metrics.evaluate_representations(c, grid[1], names, nulls=False) for c in (noisy, noisy[:, ::-1]))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.value, b.value, atol=1e-4)


def test_nulls_are_those_of_unrelated_codes(grid):
    options = metrics.Options(votes=600)
    (record,) = metrics.evaluate_representations(*grid, "factorvae", options)
    assert record.value == 1.0 and 0.15 < record.null < 0.4
    (bare,) = metrics.evaluate_representations(*grid, "factorvae", options, nulls=False)
    assert bare.null is None


@pytest.mark.parametrize(
    "codes, factors, message",
    [
        (np.zeros((5, 2, 1)), np.zeros((5, 1), int), r"representations must be \[N, d\]"),
        (np.zeros((5, 2)), np.zeros((4, 1), int), "representations have 5 rows but factors have 4"),
        (np.zeros((5, 2)), np.zeros((5, 1)), "factors must be integer class ids, not float64"),
        (np.full((5, 2), np.nan), np.arange(5)[:, None], "NaN or infinite"),
        (np.full((5, 2), 1e300), np.arange(5)[:, None], r"as large as 1e\+300, in latents \[0, 1\]: beyond 1e\+15"),
        (np.full((5, 2), 1e30, np.float32), np.arange(5)[:, None], "divide the representations by a constant"),
        (np.full((5, 2), "a"), np.arange(5)[:, None], "real numbers"),
        (np.zeros((5, 2)), np.arange(-1, 4)[:, None], "negative class ids"),
        (np.zeros((5, 2)), np.ones((5, 1), int), "constant"),
    ],
)
def test_malformed_codes_and_factors_are_refused(codes, factors, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate_representations(codes, factors)


def test_half_precision_is_scored_as_the_numbers_that_it_holds(grid):
    for dtype in (jnp.bfloat16, jnp.float16):
        half = jnp.asarray(grid[0], dtype)
        records = metrics.evaluate_representations(half, grid[1], "mig,irs", nulls=False)
        assert records == metrics.evaluate_representations(
            np.asarray(half, np.float32), grid[1], "mig,irs", nulls=False
        )


def test_ceilings_are_measured_and_no_score_of_the_class_ids_exceeds_them(grid):
    """Class ids in 20 bins, in one line, among neighbors: none of these is 1."""
    records = metrics.evaluate_representations(grid[1], grid[1], "explicitness,infomec", nulls=False)
    assert [r.name for r in records] == ["explicitness", "infom", "infoe", "infoc"]
    for record in records:
        assert record.ceiling == record.value and 0.9 < record.ceiling < 1


def test_unknown_names_are_refused(grid):
    with pytest.raises(ValueError, match="no metric 'migg'.*Did you mean 'mig'"):
        metrics.evaluate_representations(*grid, "migg")


def test_too_few_rows_for_a_metric_is_an_undefined_record_with_its_reason():
    codes, factors = np.arange(8.0)[:, None], np.arange(8)[:, None]  # every value once
    (record,) = metrics.evaluate_representations(codes, factors, "factorvae", metrics.Options(votes=10))
    assert record.value is None and "no value of factor 0 has two rows" in record.note


# --- errors, notes, words --------------------------------------------------------------------------------


def noisy(seed, rows=1500):
    draw = np.random.default_rng(seed)
    factors = draw.integers(0, [3, 5, 6], (rows, 3))
    return factors[:, :2] @ np.array([[1.0, 0.3], [-0.2, 1.0]]) + draw.normal(size=(rows, 2)), factors


def test_the_deviation_over_halves_is_that_of_fresh_draws():
    def score(seed, halves=0):
        options = metrics.Options(num_train=1000, halves=halves)
        return metrics.evaluate_representations(*noisy(seed), "mig,sap_continuous", options, nulls=bool(halves))

    found, fresh = score(0, halves=40), np.array([[s.value for s in score(seed)] for seed in range(1, 41)])
    for record, deviation in zip(found, fresh.std(axis=0, ddof=1), strict=True):
        assert deviation / 1.6 < record.standard_error < 1.6 * deviation, record.name
        assert record.settings["halves"] == 40 and 0 < record.settings["null_deviation"] < record.standard_error
    assert [record.value for record in found] == [record.value for record in score(0)], "all rows give the value"
    with pytest.raises(ValueError, match="halves must be 0, or 2 and more, .* not 1"):
        score(0, halves=1)


def test_a_metric_without_an_answer_on_a_half_takes_no_other_ones_place(monkeypatch):
    measure, calls = suite.METRICS["dci_lasso"].measure, []

    def sometimes(checked, options):
        calls.append(len(checked.factors))
        if len(calls) == 4:  # of the second half: before it came all rows and the first
            raise ValueError("no answer")
        return measure(checked, options)

    def score():
        return metrics.evaluate_representations(*noisy(0, 400), "dci_lasso,mig", metrics.Options(halves=3), nulls=False)

    whole = score()
    monkeypatch.setitem(suite.METRICS, "dci_lasso", suite.METRICS["dci_lasso"]._replace(measure=sometimes))
    calls[:] = [0]
    part = score()
    assert calls[1:] == [400, 200, 200, 200]
    assert [record.name for record in part] == [record.name for record in whole]
    assert part[-1] == whole[-1] and part[-1].settings["halves"] == 3, "MIG is as it is"
    assert all(record.settings["halves"] == 2 and record.standard_error is not None for record in part[:-1])


def test_the_deviation_of_a_null_counts_against_a_score():
    shown = metrics.Score("infom", 0.60, 0.05, ceiling=1.0, null=0.45)
    assert not scores.no_better_than_chance(shown)
    assert scores.no_better_than_chance(shown._replace(settings={"null_deviation": 0.06}))


def test_notes_say_what_a_reader_must_know():
    (few,) = metrics.evaluate_representations(*noisy(0, rows=60), "mig")
    assert few.note == "only 60 rows: such scores are mostly chance" and len(few.settings["per_factor"]) == 3
    (slow,) = metrics.evaluate_representations(*noisy(0, rows=200), "sap_discrete")
    assert slow.null is None and slow.note == "its null takes too long"
    codes, factors = noisy(0, rows=200)
    for name in ("r2", "sap_continuous"):  # whole numbers that are stored as real ones are both to these
        as_real = metrics.evaluate_representations(codes, factors.astype(float), name)
        assert all(record.value is not None for record in as_real)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MIG", "'mig'"),
        ("sap", "'sap_discrete' or 'sap_continuous'"),
        ("dci_disentanglement", "'dci'"),
        ("infom", "'infomec'"),
    ],
)
def test_a_wrong_name_of_a_metric_says_which_may_be_meant(name, near):
    with pytest.raises(ValueError, match=f"no metric '{name}'; .* Did you mean {near}"):
        metrics.check_names(name)
    with pytest.raises(ValueError, match="no metric is named; there are: all, mig"):
        metrics.check_names([])


def test_factors_that_are_no_class_ids_say_what_to_do():
    codes, factors = noisy(0, rows=200)
    with pytest.raises(ValueError, match="not float64: cast ids that are stored as floats"):
        metrics.evaluate_representations(codes, factors.astype(float), "mig")
    with pytest.raises(ValueError, match="not <U21: number the classes of each factor, as numpy.unique"):
        metrics.evaluate_representations(codes, factors.astype(str), "mig")
    codes[17, 1] = np.nan
    with pytest.raises(ValueError, match=r"in latents \[1\], first in row 17: drop those rows"):
        metrics.evaluate_representations(codes, factors, "mig")
