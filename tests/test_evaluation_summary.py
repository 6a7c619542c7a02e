"""Sentences made of numbers by rules, and the table in groups."""

import numpy as np
import pytest

from causalvae import evaluation
from causalvae.evaluation.summary import summarize
from causalvae.metrics import Score
from causalvae.metrics.scores import no_better_than_chance

FACTORS = {"floor_hue": 10, "scale": 8, "shape": 4}
SHARE = np.array([[0.7, 0.2, 0.01, 0.0], [0.3, 0.28, 0.25, 0.0], [0.04, 0.03, 0.05, 0.0]])
CARRIES = np.array([[True, True, False, False], [True, True, True, False], [False, False, False, False]])


def results(carries=CARRIES, share=SHARE, well_defined=None, **scores):
    effects = np.stack([share, 1 - share, 0 * share], axis=-1)
    mediation = {
        "effects": ["indirect", "direct", "interaction"],
        "estimate": effects.tolist(),
        "low": (effects - 0.05).tolist(),
        "high": (effects + 0.05).tolist(),
        "carries": carries.tolist(),
        "well_defined": np.ones(share.shape, bool).tolist() if well_defined is None else well_defined.tolist(),
    }
    member = {
        "seed": 0,
        "scores": [Score(name, **fields)._asdict() for name, fields in scores.items()],
        "latents": {"active": [True, True, True, False], "ces_l2": [3.0, 30.0, 12.5, 0.1]},
        "mediation": mediation,
    }
    about = {"data": {"name": "toy", "source": "procedural", "factors": FACTORS}, "architecture": {"name": "vae"}}
    return {**about, "training": {"steps": 10}, "members": [member]}


def test_factors_are_carried_split_or_not_found():
    text = summarize(results())
    assert text[:3] == [
        "floor hue: z0 carries it (70 % of its effect on the image, 95 % interval 65 % to 75 %; next best z1 20 %).",
        "scale: is split over z0 30 %, z1 28 % and z2 25 %.",
        "shape: no latent carries it beyond chance (5 % for any false claim among all); the largest share is z2 5 %.",
    ]
    wide = results()
    wide["members"][0]["mediation"]["low"][0][0][0] = 0.45
    assert summarize(wide)[0].startswith("floor hue: z0 has the largest share (70 % of its effect")
    unsure = summarize(results(carries=np.eye(3, 4, dtype=bool)))
    assert unsure[0].endswith("; next best z1 20 %, which may be chance).")
    assert unsure[1] == "scale: passes through z1 28 % (z0 30 % and z2 25 % may be chance)."
    alone = np.array([[0.9, 0.01, 0, 0], [0.01, 0.02, 0, 0.01], [0, 0, 0.9, 0]])
    text = summarize(results(share=alone, carries=np.ones((3, 4), bool)))
    assert text[0].endswith("; no other has 5 %); less than 5 % through z1, z2 and z3.")
    assert text[1] == "scale: no latent carries it beyond chance (5 % for any false claim among all)."


def test_an_interaction_takes_the_share_back():
    well_defined = np.ones((3, 4), bool)
    well_defined[0, 0] = False
    text = summarize(results(well_defined=well_defined))
    assert text[0].endswith("; what passes through z0 depends on the other latents.") and "depends" not in text[1]


def test_latents_that_are_strong_idle_or_serve_no_factor():
    found = results(carries=np.array([[True, False, False, False]] * 3))
    text = summarize(found)
    assert "Swept from −3 to 3, z1 (30), z2 (12.5) and z0 (3) move the image most (mean l2 distance)." in text

    assert "z3 is idle (its KL is below the threshold of activity)." in text
    nothing = "Nothing is shown to pass through z1 and z2; the largest share, 28 % through z1, may be chance."
    assert nothing in text
    member = found["members"][0]["latents"]
    member |= {"ces_l2_error": [0.5, 2.0, None, 0.1], "activity": [1.0, 0.123, 2.0, 0.0]}
    text = summarize(found)
    assert "Swept from −3 to 3, z1 (30 ± 2), z2 (12.5) and z0 (3 ± 0.5) move the image most (mean l2 distance)." in text
    assert nothing.replace("z1 and z2;", "z1 (0.123 nats) and z2 (2 nats);") in text


def test_a_factor_without_an_effect_and_results_of_earlier_versions():
    share = SHARE.copy()
    share[2] = np.nan
    assert summarize(results(share=share))[2] == "shape: has no effect on the image in the pairs that were measured."
    old = results()
    old["members"][0]["mediation"].pop("carries")
    assert not any("hue" in sentence for sentence in summarize(old))
    old["members"][0]["mediation"] = None  # as of a set with attributes only
    assert summarize(old)


def test_scores_beside_null_ceiling_and_other_seeds():
    scores = {
        "mean_squared_error": {"value": 0.01, "null": 0.1, "ceiling": 0.0},
        "mig": {"value": 0.25, "null": 0.001, "ceiling": 0.99, "standard_error": 0.01},
        "circuit_modularity_decoder": {"value": 0.35, "null": 0.8, "ceiling": 1.0},
        "factorvae": {"value": None, "note": "undefined"},
    }
    spread = {"mig": type("Spread", (), {"mean": 0.2, "deviation": 0.1})}
    text = summarize(results(**scores), spread)
    assert text[0] == "The model redraws its images with 90.0 % of their variance explained (MSE 0.01)."
    worse = summarize(results(mean_squared_error={"value": 0.2, "null": 0.1, "ceiling": 0.0}))
    assert worse[0] == "The model redraws its images no better than by their mean (MSE 0.2, that of the mean 0.1)."
    assert "MIG is 0.25 ± 0.01 (null 0.001, 0.99 at best); other seeds 0.2 ± 0.1." in text
    assert text[-1] == "Circuit modularity of the decoder is 0.35: no better than the 0.8 of its null."


@pytest.mark.parametrize(
    "value, null, ceiling, error, expected",
    [
        (0.50, 0.10, 1.0, None, False),
        (0.105, 0.10, 1.0, None, True),  # 1 % of the way
        (0.05, 0.10, 1.0, None, True),
        (0.30, 0.10, 1.0, 0.15, True),  # two standard errors
        (0.01, 0.12, 0.0, None, False),  # where less is better
        (0.13, 0.12, 0.0, None, True),
        (0.5, None, 1.0, None, False),
        (None, 0.1, 1.0, None, False),
    ],
)
def test_what_is_no_better_than_chance(value, null, ceiling, error, expected):
    assert no_better_than_chance(Score("x", value, error, null=null, ceiling=ceiling)) is expected


def test_the_table_has_groups_and_marks_and_the_rest_on_demand():
    scores = {
        "dci_disentanglement": {"value": 0.2, "null": 0.1, "ceiling": 1.0, "estimator": "trees " * 20},
        "kl": {"value": 20.0},
        "infom": {"value": 0.4, "null": 0.5, "ceiling": 1.0},
        "total_correlation": {"value": 0.2},
    }
    table = evaluation.table(results(**scores)).splitlines()
    assert [line for line in table if line.endswith(":")] == ["Images:", "Disentanglement:"]
    assert [line.split()[0] for line in table if line.startswith("  ")] == ["kl", "dci_disentanglement", "infom"]
    assert "no better" in next(line for line in table if "infom" in line)
    assert next(line for line in table if "dci" in line).endswith("…") and table[-1].startswith(
        "1 more in results.json"
    )
    whole = evaluation.table(results(**scores), scores="all")
    assert "Others:\n  total_correlation" in whole and "…" not in whole and "more in" not in whole
    with pytest.raises(ValueError, match="no choice of scores 'most'; there are: main, all"):
        evaluation.table(results(**scores), scores="most")
