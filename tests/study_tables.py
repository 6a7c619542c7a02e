"""Synthetic study tables with known truth, for the tests of the study's statistics and of its report."""

import itertools
import math

import numpy as np

from experiments.study import records

ARCHITECTURES = ("vae", "beta", "factor", "betatc", "dip2", "vq")
DATASETS = {"dsprites": 5, "3dshapes": 6, "mpi3d": 7, "smallnorb": 4, "celeba": 9}  # name -> factors
SCORES = (
    "reconstruction",
    "kl",
    "active_latents",
    "ces_l2",
    "ces_resample_l2",
    "ces_code_swap_l2",
    "dci_disentanglement",
    "mig",
    "circuit_modularity_decoder",
)


def table(seed: int = 0, seeds: int = 3, truth: str = "none", slope: float = 0.9) -> dict[str, np.ndarray]:
    """A complete table of pure noise in which one thing is true of CES and DCI within data sets.

    truth: "none"; "planted", they correlate by -slope over runs; "positive"; "one architecture", beta-TC alone
    has low CES and high DCI; "confounded", both follow the reconstruction and nothing else.
    """
    rng = np.random.default_rng([seed, 42])
    rows = list(itertools.product(DATASETS, ARCHITECTURES, range(seeds)))
    n = len(rows)
    noise = {name: rng.normal(size=n) for name in SCORES}
    effect, dci, reconstruction = noise["ces_l2"], noise["dci_disentanglement"], noise["reconstruction"]
    if truth in ("planted", "positive"):
        sign = -1 if truth == "planted" else 1
        dci = sign * slope * effect + math.sqrt(1 - slope**2) * dci
    elif truth == "one architecture":
        driver = np.array([architecture == "betatc" for _, architecture, _ in rows])
        effect, dci = effect - 8 * driver, dci + 8 * driver
    elif truth == "confounded":
        effect, dci = reconstruction + 0.3 * effect, -reconstruction + 0.3 * dci
    elif truth != "none":
        raise ValueError(truth)
    scale = np.array([1 + 3 * list(DATASETS).index(dataset) for dataset, _, _ in rows], float)
    values = {
        **{name: np.abs(value) for name, value in noise.items()},
        "reconstruction": 100 * scale + 5 * reconstruction,
        "kl": 15 + noise["kl"],
        "active_latents": np.clip(np.round(7 + noise["active_latents"]), 1, 10),
        "ces_l2": scale * (10 + effect),
        "ces_resample_l2": scale * (5 + 0.5 * effect),
        "ces_code_swap_l2": scale * (4 + 0.3 * noise["ces_code_swap_l2"]),
        "dci_disentanglement": 0.4 + 0.05 * dci,
        "mig": 0.2 + 0.05 * noise["mig"],
    }
    is_vq = np.array([architecture == "vq" for _, architecture, _ in rows])
    values["ces_code_swap_l2"] = np.where(is_vq, values["ces_code_swap_l2"], np.nan)
    return {
        "run": np.array([f"{a}_{d}_s{s}" for d, a, s in rows]),
        "architecture": np.array([a for _, a, _ in rows]),
        "variant": np.array([""] * n),
        "label": np.array([a for _, a, _ in rows]),
        "dataset": np.array([d for d, _, _ in rows]),
        "source": np.array(["procedural"] * n),
        "seed": np.array([s for _, _, s in rows]),
        "steps": np.full(n, 1000),
        "num_factors": np.array([DATASETS[d] for d, _, _ in rows], float),
        "latents": np.full(n, 10.0),
        **{name: values[name] for name in SCORES},
        **{f"{name}.null": np.full(n, np.nan) for name in SCORES},
        **{f"{name}.ceiling": np.full(n, np.nan) for name in SCORES},
    }


def change(table: dict, name: str, architecture: str, values) -> dict:
    """The table with one architecture's column set to `values` (a number, or [its rows])."""
    changed = table[name].copy()
    changed[table["architecture"] == architecture] = values
    return {**table, name: changed}


# --- the same as a study's directory ---------------------------------------------------------------------


def write_study(workdir, table, real: tuple[str, ...] = (), failed: tuple[str, ...] = ()) -> None:
    """Records and images of every row, and the table. `real`: data sets with attributes only, real where the table
    says that they are procedural. `failed`: runs that are recorded as failed."""
    stored = []
    for i in range(len(table["run"])):
        row = {name: values[i].item() for name, values in table.items()}
        record = make_record(row, row["dataset"] in real)
        if row["run"] in failed:
            record |= {"status": "failed", "reason": "the loss was not finite by step 20"}
            record.pop("scores")
        images = {} if row["run"] in failed else make_images(i)
        records.write_record(workdir, record, images, {"training_s": 1.0, "evaluation_s": 2.0})
        stored.append(records.read_record(workdir, row["run"]))
    records.write_table(workdir, records.tabulate(stored))
    records.write_times(workdir, table["run"].tolist())


def make_record(row: dict, real: bool) -> dict:
    factors = {f"factor_{k}": 4 for k in range(int(row["num_factors"]))}
    rng = np.random.default_rng([row["seed"], len(row["label"])])
    sites = ("encoder/conv0", "encoder/conv1", "latent/z", "decoder/dense0", "decoder/conv0")
    decoder = {f"decoder/{name}": float(rng.uniform(0.4, 0.9)) for name in ("dense0", "dense1", "conv0", "conv1")}
    nulls = {"sites": decoder, "null_permuted": 0.8, "null_untrained": 0.6}
    left_out = ("dci_disentanglement", "mig") if real else ()
    beside = {"dci_disentanglement": (0.05, 1.0), "mig": (0.01, 0.9), "circuit_modularity_decoder": (0.8, 1.0)}
    scores = [
        {
            "name": name,
            "value": None if math.isnan(row[name]) else min(row[name], 1.0) if "modularity" in name else row[name],
            "standard_error": 0.01,
            "null": beside.get(name, (None, None))[0],
            "ceiling": beside.get(name, (None, None))[1],
            "settings": nulls if name == "circuit_modularity_decoder" else {},
        }
        for name in SCORES
        if name not in left_out
    ]
    return {
        "run": row["run"],
        "label": row["label"],
        "variant": row["variant"],
        "seed": row["seed"],
        "status": "done",
        "reason": "",
        "architecture": {"name": row["architecture"], "latents": int(row["latents"]), "parameters": 12345},
        "data": {
            "name": row["dataset"],
            "source": "real" if real and row["source"] == "procedural" else row["source"],
            "factors": factors,
            "factor_kind": "attributes" if real else "generative",
        },
        "training": {"steps": int(row["steps"])},
        "evaluation": {"codes": 100},
        "config": {},
        "versions": {"jax": "0.10.2"},
        "device": "1 cpu (cpu)",
        "scores": scores,
        "patching": None if real else {"sites": sites, "largest": rng.random((len(sites), len(factors)))},
        "mediation": None
        if real
        else {"effects": ["indirect", "direct"], "estimate": rng.random((len(factors), 10, 2))},
        "latents": {"active": [True] * 9 + [False], "ces_l2": rng.random(10)},
    }


def make_images(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 255, (2, 16, 16, 1), np.uint8),
        "reconstructed": rng.integers(0, 255, (2, 16, 16, 1), np.uint8),
        "latents": np.array([3, 1, 0]),
        "specificity": np.array([0.9, 0.5, 0.1]),
        "traversals": rng.integers(0, 255, (3, 7, 16, 16, 1), np.uint8),
    }
