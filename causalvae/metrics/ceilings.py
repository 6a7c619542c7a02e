"""What a perfect, axis-aligned representation scores on each data set, and what a little noise does to it.

No metric reaches 1 on every data set: MIG cannot where a factor has more classes than there are bins, one
linear threshold cannot tell forty classes apart (SAP), grouping forty classes into twenty caps IRS, and a
binary factor that has 1/39 of the range of another is pruned (InfoC of MPI3D). So a score is read against its
ceiling. `CEILINGS` is stored; `python -m causalvae.metrics.ceilings` computes it
again.

Factors are drawn independently and uniformly, 15,000 rows (10,000 train, 5,000 test), seed 0. The identity
representation is the class ids themselves; the noisy one is the standardized class ids with Gaussian noise of standard
deviation 0.1, and three latents of noise of standard deviation 0.01 beside them (nearly dead).

The discrete SAP has no such ceiling: its support vector machine is penalized, so it depends on the scale of the
representation and on the number of rows. `SAP_OF_3000_ROWS` says what class ids score on 2,000 training and 1,000 test
rows, over twelve draws of them (`sap_by_rows`); `CEILINGS` has the standard number of rows.
"""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

import numpy as np

from causalvae.data import DATASETS
from causalvae.metrics.sap import sap
from causalvae.metrics.suite import Options, evaluate_representations

# Without constant factors: dSprites has one color.
FACTOR_SIZES = {name: entry.real.factor_sizes for name, entry in DATASETS.items() if entry.real and entry.real.factors}
NUM_ROWS = 15_000


class PerfectRepresentations(NamedTuple):
    """The factors themselves as a representation, bare and with noise and idle latents: what metrics can reach."""

    factors: np.ndarray  # [N, K] class ids
    identity: np.ndarray  # [N, K]
    noisy: np.ndarray  # [N, K + 3]


def perfect_representations(sizes: tuple[int, ...], num: int = NUM_ROWS, seed: int = 0) -> PerfectRepresentations:
    """Factors of these sizes, drawn independently, as they are and with noise."""
    generator = np.random.default_rng(seed)
    factors = np.stack([generator.integers(0, size, num) for size in sizes], axis=1)
    standardized = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    noisy = standardized + 0.1 * generator.normal(size=factors.shape)
    near_dead = 0.01 * generator.normal(size=(num, 3))
    return PerfectRepresentations(factors, factors.astype(np.float64), np.concatenate([noisy, near_dead], axis=1))


def compute_ceilings(sizes: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Every metric of the suite on both: {"identity": {metric: value}, "noisy": {metric: value}}."""
    perfect, options = perfect_representations(sizes), Options(shuffle=False)
    scores = {
        name: evaluate_representations(z, perfect.factors, options=options, nulls=False)
        for name, z in (("identity", perfect.identity), ("noisy", perfect.noisy))
    }
    return {name: {s.name: round(s.value or 0.0, 4) for s in found} for name, found in scores.items()}


def sap_by_rows(sizes: tuple[int, ...], num_train: int, num_test: int, draws: int = 12) -> np.ndarray:
    """The discrete SAP [draws] of the class ids themselves, for other draws of `num_train` + `num_test` rows."""
    perfect = [perfect_representations(sizes, num_train + num_test, seed) for seed in range(draws)]
    return np.array([
        sap(c.identity, c.factors, num_train=num_train, num_test=num_test, shuffle=False).score for c in perfect
    ])  # fmt: skip


# (mean, standard deviation over draws)
SAP_OF_3000_ROWS = {
    "dsprites": (0.295, 0.015),
    "3dshapes": (0.242, 0.009),
    "mpi3d": (0.414, 0.011),
    "smallnorb": (0.268, 0.019),
}

# fmt: off
CEILINGS: dict[str, dict[str, dict[str, float]]] = {
    "dsprites": {
        "identity": {
            "mig": 0.8966, "dci_disentanglement": 1.0, "dci_completeness": 1.0,
            "dci_informativeness": 1.0, "sap_discrete": 0.2316, "sap_continuous": 0.9996,
            "dci_lasso_disentanglement": 1.0, "dci_lasso_completeness": 1.0,
            "dci_lasso_informativeness": 1.0,
            "modularity": 1.0, "explicitness": 0.9866, "irs": 0.979, "infom": 0.9971,
            "infoe": 0.9998, "infoc": 0.9971, "betavae": 1.0, "factorvae": 1.0,
            "mcc_pearson": 1.0, "mcc_spearman": 1.0,
            "mcc_pearson_linear": 1.0, "mcc_spearman_linear": 1.0, "r2": 1.0,
        },
        "noisy": {
            "mig": 0.7393, "dci_disentanglement": 0.7765, "dci_completeness": 0.7459,
            "dci_informativeness": 0.6155, "sap_discrete": 0.2397, "sap_continuous": 0.9896,
            "dci_lasso_disentanglement": 1.0, "dci_lasso_completeness": 1.0,
            "dci_lasso_informativeness": 0.6326,
            "modularity": 0.8769, "explicitness": 0.9734, "irs": 0.8535, "infom": 0.9951,
            "infoe": 0.7719, "infoc": 0.9953, "betavae": 1.0, "factorvae": 1.0,
            "mcc_pearson": 0.995, "mcc_spearman": 0.9829,
            "mcc_pearson_linear": 0.995, "mcc_spearman_linear": 0.9829, "r2": 0.9901,
        },
    },
    "3dshapes": {
        "identity": {
            "mig": 0.9971, "dci_disentanglement": 1.0, "dci_completeness": 1.0,
            "dci_informativeness": 1.0, "sap_discrete": 0.2851, "sap_continuous": 0.9996,
            "dci_lasso_disentanglement": 1.0, "dci_lasso_completeness": 1.0,
            "dci_lasso_informativeness": 1.0,
            "modularity": 1.0, "explicitness": 1.0, "irs": 1.0, "infom": 0.9952, "infoe": 0.9998,
            "infoc": 0.9952, "betavae": 1.0, "factorvae": 1.0,
            "mcc_pearson": 1.0, "mcc_spearman": 1.0,
            "mcc_pearson_linear": 1.0, "mcc_spearman_linear": 1.0, "r2": 1.0,
        },
        "noisy": {
            "mig": 0.8837, "dci_disentanglement": 0.9517, "dci_completeness": 0.9439,
            "dci_informativeness": 0.9135, "sap_discrete": 0.2493, "sap_continuous": 0.9897,
            "dci_lasso_disentanglement": 1.0, "dci_lasso_completeness": 1.0,
            "dci_lasso_informativeness": 0.9111,
            "modularity": 0.8963, "explicitness": 0.9957, "irs": 0.8597, "infom": 0.995,
            "infoe": 0.9212, "infoc": 0.9949, "betavae": 1.0, "factorvae": 1.0,
            "mcc_pearson": 0.995, "mcc_spearman": 0.9897,
            "mcc_pearson_linear": 0.995, "mcc_spearman_linear": 0.9897, "r2": 0.99,
        },
    },
    "mpi3d": {
        "identity": {
            "mig": 0.9418, "dci_disentanglement": 1.0, "dci_completeness": 1.0,
            "dci_informativeness": 1.0, "sap_discrete": 0.3658, "sap_continuous": 0.9995,
            "dci_lasso_disentanglement": 1.0, "dci_lasso_completeness": 1.0,
            "dci_lasso_informativeness": 1.0,
            "modularity": 1.0, "explicitness": 0.9916, "irs": 0.9778, "infom": 0.9939,
            "infoe": 0.9998, "infoc": 0.9175, "betavae": 1.0, "factorvae": 1.0,
            "mcc_pearson": 1.0, "mcc_spearman": 1.0,
            "mcc_pearson_linear": 1.0, "mcc_spearman_linear": 1.0, "r2": 1.0,
        },
        "noisy": {
            "mig": 0.8651, "dci_disentanglement": 0.8765, "dci_completeness": 0.8597,
            "dci_informativeness": 0.7999, "sap_discrete": 0.3983, "sap_continuous": 0.9896,
            "dci_lasso_disentanglement": 1.0, "dci_lasso_completeness": 1.0,
            "dci_lasso_informativeness": 0.8096,
            "modularity": 0.9578, "explicitness": 0.9858, "irs": 0.8444, "infom": 0.9957,
            "infoe": 0.8834, "infoc": 0.996, "betavae": 1.0, "factorvae": 1.0,
            "mcc_pearson": 0.995, "mcc_spearman": 0.9591,
            "mcc_pearson_linear": 0.995, "mcc_spearman_linear": 0.9591, "r2": 0.99,
        },
    },
    "smallnorb": {
        "identity": {
            "mig": 0.9975, "dci_disentanglement": 1.0, "dci_completeness": 1.0,
            "dci_informativeness": 1.0, "sap_discrete": 0.3906, "sap_continuous": 0.9998,
            "dci_lasso_disentanglement": 1.0, "dci_lasso_completeness": 1.0,
            "dci_lasso_informativeness": 1.0,
            "modularity": 1.0, "explicitness": 0.9997, "irs": 1.0, "infom": 0.9958,
            "infoe": 0.9998, "infoc": 0.9958, "betavae": 1.0, "factorvae": 1.0,
            "mcc_pearson": 1.0, "mcc_spearman": 1.0,
            "mcc_pearson_linear": 1.0, "mcc_spearman_linear": 1.0, "r2": 1.0,
        },
        "noisy": {
            "mig": 0.9004, "dci_disentanglement": 0.9542, "dci_completeness": 0.9414,
            "dci_informativeness": 0.9002, "sap_discrete": 0.3361, "sap_continuous": 0.9898,
            "dci_lasso_disentanglement": 1.0, "dci_lasso_completeness": 1.0,
            "dci_lasso_informativeness": 0.9022,
            "modularity": 0.9467, "explicitness": 0.9939, "irs": 0.8558, "infom": 0.9983,
            "infoe": 0.9244, "infoc": 0.9986, "betavae": 1.0, "factorvae": 1.0,
            "mcc_pearson": 0.995, "mcc_spearman": 0.9886,
            "mcc_pearson_linear": 0.995, "mcc_spearman_linear": 0.9886, "r2": 0.9901,
        },
    },
}
# fmt: on


if __name__ == "__main__":
    for data_set in sys.argv[1:] or FACTOR_SIZES:
        print(json.dumps({data_set: compute_ceilings(FACTOR_SIZES[data_set])}), flush=True)
