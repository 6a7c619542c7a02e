"""Codes made by integer arithmetic, the same on every machine, and the scores that disentanglement_lib gives them.

Levels 0 to 19 of a latent are the 20 bins of the histogram: values keep 0.2 bins away from their edges. The scores are
of disentanglement_lib's own functions (commit 86a644d, scikit-learn 1.9.1): MIG, modularity and SAP fitted on the first
`TRAIN` rows, IRS at the 0.99 quantile on all rows, explicitness and DCI's informativeness on the rows after `TRAIN`.
"""

import numpy as np

SCORES = {
    "aligned": dict(mig=0.974345, sap_discrete=0.502222, sap_continuous=0.994811, modularity=0.865898, irs=0.597885),
    "noisy": dict(mig=0.713856, sap_discrete=0.345556, sap_continuous=0.756085, modularity=0.864025, irs=0.349445),
    "rotated": dict(mig=0.266773, sap_discrete=0.146667, sap_continuous=0.237845, modularity=0.794409, irs=0.291463),
    "merged": dict(mig=0.904311, sap_discrete=0.288889, sap_continuous=0.631193, modularity=0.696642, irs=0.272632),
    "duplicated": dict(mig=0.459306, sap_discrete=0.235556, sap_continuous=0.488026, modularity=0.921545, irs=0.509567),
    "dead": dict(mig=0.71675, sap_discrete=0.35, sap_continuous=0.75609, modularity=0.598126, irs=0.56595),
    "noise": dict(mig=0.000341, sap_discrete=0.013333, sap_continuous=0.000526, modularity=0.540463, irs=0.02662),
}
EXPLICITNESS = {
    "aligned": 1.0,
    "noisy": 0.948797,
    "rotated": 0.991837,
    "merged": 0.895079,
    "duplicated": 0.958498,
    "dead": 0.949532,  # without the dead latents, whose deviation disentanglement_lib would divide by
    "noise": 0.459546,
}
DCI = {  # disentanglement, completeness, informativeness; those on which numpy's seeds 0, 1 and 2 agree to 0.003
    "aligned": (0.9951, 0.9934, 1.0),
    "noisy": (0.7115, 0.7058, 0.7867),
    "rotated": (0.5187, 0.6477, 0.9611),
    "merged": (0.5687, 0.9227, 0.9344),
    "dead": (0.6718, 0.7771, 0.7822),
}

SIZES = (3, 2, 4)
ROWS, TRAIN = 900, 600
INDEX = np.arange(ROWS)
FACTORS = np.stack(np.unravel_index(7 * INDEX % 24, SIZES), axis=1)


def scatter(latent, levels):
    """Levels [ROWS], below `levels`, that have nothing to do with the factors."""
    return (INDEX + 17 * latent + 3) ** 3 // 97 % levels


def codes(case):
    """[ROWS, 5] float32."""
    a, b, c = FACTORS.T
    noise = [scatter(latent, 20) for latent in range(5)]
    noisy = [6 * a + scatter(0, 8), 9 * b + scatter(1, 11), 4 * c + scatter(2, 8)]
    levels = {
        "aligned": [9 * a, 19 * b, 6 * c, *noise[3:]],
        "noisy": [*noisy, *noise[3:]],
        "rotated": [4 * a + 3 * c + scatter(0, 3), 8 - 4 * a + 3 * c + scatter(1, 3), noisy[1], *noise[3:]],
        "merged": [3 * a + 10 * b + scatter(0, 4), 5 * c + scatter(1, 5), *noise[2:]],
        "duplicated": [7 * a + scatter(0, 6), 7 * a + scatter(3, 6), noisy[1], noisy[2], noise[4]],
        "dead": [*noisy, 0 * a, 0 * a],
        "noise": noise,
    }[case]
    values = [level + 0.5 + 0.3 * np.sin((latent + 1) * INDEX) for latent, level in enumerate(levels)]
    values = np.stack(values, axis=1)
    values[0], values[1] = 0, 20  # so that bins are whole numbers
    if case == "dead":
        values[:, 3:] = 7
    return values.astype(np.float32)
