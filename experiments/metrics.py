"""Disentanglement scores of codes from any framework: an .npz file in, a table (and CSV, JSON) out.

The file holds `codes` [N, d] (real numbers), `factors` [N, K] (integer class ids, or real numbers for the metrics that
take continuous factors: mcc, r2, dci_lasso, sap_continuous) and, if it likes, `factor_names` [K]. From PyTorch:

    numpy.savez("codes.npz", codes=mu.cpu().numpy(), factors=labels.cpu().numpy())

Then

    python -m experiments.metrics --codes=codes.npz
    python -m experiments.metrics --codes=codes.npz --metrics=mig,dci --halves=20    # with standard errors
    python -m experiments.metrics --codes=codes.npz --metrics=mig,dci --dci_estimator=sklearn
    python -m experiments.metrics --codes=codes.npz --csv=scores.csv --json=scores.json --data_set=dsprites
    python -m experiments.metrics --list
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from causalvae import metrics, schema
from causalvae._files import DamagedFile
from causalvae._npz import Wanted, open_npz
from causalvae._words import nearest
from causalvae.metrics.ceilings import CEILINGS, FACTOR_SIZES
from causalvae.metrics.scores import Score, no_better_than_chance, short
from causalvae.progress import write_text
from experiments import cli

HELD = {"codes": Wanted("buifc"), "factors": Wanted("buifc"), "factor_names": Wanted("US", (None,), itemsize=4096)}
CODES = flags.DEFINE_string("codes", None, "The .npz file with `codes` and `factors`.")
METRICS = flags.DEFINE_string("metrics", "all", "Names of metrics separated by commas, or all.")
NUM_TRAIN = flags.DEFINE_integer("num_train", None, "Rows to fit on; default two thirds, at most 10,000.")
NUM_TEST = flags.DEFINE_integer("num_test", None, "Rows to score on; default the rest, at most 5,000.")
VOTES = flags.DEFINE_integer("votes", 10_000, "Votes (points) of the FactorVAE and BetaVAE scores.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the shuffle, the nulls and the estimators.", lower_bound=0)
SHUFFLE = flags.DEFINE_bool("shuffle", True, "Shuffle the rows; without it, the first train and the last test.")
ESTIMATOR = flags.DEFINE_string("dci_estimator", "xla", "xla, sklearn, random_forest or lasso.")
NULLS = flags.DEFINE_bool("nulls", True, "Compute each score's null too: twice the time.")
HALVES = flags.DEFINE_integer("halves", 0, "Random halves of the rows that give standard errors; 20, say.", 0)
DATA_SET = flags.DEFINE_string("data_set", None, "Take ceilings from the stored table of this data set.")
CSV = flags.DEFINE_string("csv", None, "Write the scores to this CSV file.")
JSON = flags.DEFINE_string("json", None, "Write the scores to this JSON file.")
LIST = flags.DEFINE_bool("list", False, "List the metrics and leave.")


def main(argv: list[str]) -> None:
    del argv
    if LIST.value:
        print("\n".join(metrics.METRICS))
        return
    if CODES.value is None:
        raise ValueError("--codes is missing: the .npz file with `codes` [N, d] and `factors` [N, K]")
    if DATA_SET.value is not None and DATA_SET.value not in CEILINGS:
        near = nearest(DATA_SET.value, CEILINGS)
        raise ValueError(f"no ceilings of {DATA_SET.value!r}; there are: {', '.join(CEILINGS)}.{near}")
    metrics.check_names(METRICS.value)
    schema.check_value("dci_estimator", ESTIMATOR.value, schema.EVALUATION["dci_estimator"])
    schema.check_value("seed", SEED.value, schema.EVALUATION["seed"])
    cli.check_folder_of(CSV.value, "csv")
    cli.check_folder_of(JSON.value, "json")
    codes, factors, names = load(pathlib.Path(CODES.value))
    options = metrics.Options(
        num_train=NUM_TRAIN.value,
        num_test=NUM_TEST.value,
        votes=VOTES.value,
        seed=SEED.value,
        shuffle=SHUFFLE.value,
        dci_estimator=ESTIMATOR.value,
        halves=HALVES.value,
    )
    if DATA_SET.value is not None:
        check_factors_of(DATA_SET.value, factors)
    scores = metrics.evaluate_representations(codes, factors, METRICS.value, options, NULLS.value)
    if DATA_SET.value is not None:
        ceilings = CEILINGS[DATA_SET.value]["identity"]
        scores = [s._replace(ceiling=ceilings.get(s.name, s.ceiling)) for s in scores]
    print(describe(scores, names))
    if CSV.value:
        write_text(CSV.value, metrics.to_csv(scores))
    if JSON.value:
        provenance = {"codes": CODES.value, "factor_names": names, "data_set": DATA_SET.value}
        write_text(JSON.value, metrics.to_json(scores, **provenance) + "\n")


def describe(scores: Sequence[Score], names: Sequence[str] | None) -> str:
    """The table, with what is no better than chance marked, MIG's gap of each factor, and how errors are had."""
    chance = {score.name: "no better" for score in scores if no_better_than_chance(score)}
    columns = ("null", "ceiling", "estimator", "samples", "note")
    lines = [metrics.table({"value": scores}, columns, {"chance": chance})]
    for gaps in (score.settings["per_factor"] for score in scores if "per_factor" in score.settings):
        known = names if names is not None and len(names) == len(gaps) else [f"factor {k}" for k in range(len(gaps))]
        lines.append("mig by factor: " + ", ".join(f"{n} {short(gap)}" for n, gap in zip(known, gaps, strict=True)))
    if all(score.standard_error is None for score in scores):
        lines.append("--halves=20 adds standard errors: deviations over random halves of the rows")
    return "\n".join(lines)


def check_factors_of(data_set: str, factors: np.ndarray) -> None:
    """ValueError where factors [N, K] cannot be those of a data set, whose ceilings would say nothing of them."""
    sizes = FACTOR_SIZES[data_set]
    counts = [len(np.unique(column)) for column in factors.T] if factors.ndim == 2 else []
    varying, expected = ([n for n in numbers if n > 1] for numbers in (counts, sizes))
    if len(varying) != len(expected) or any(n > size for n, size in zip(varying, expected, strict=True)):
        raise ValueError(
            f"--data_set={data_set} has factors of {', '.join(map(str, expected))} values, and these have "
            f"{', '.join(map(str, varying)) or 'none'}: its ceilings are not theirs; without it they are computed"
        )


def load(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Codes, factors and factor names of an .npz file; FileNotFoundError or ValueError where it has none."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: make it with numpy.savez({path.name!r}, codes=…, factors=…)")
    with open_npz(path, "npz file of plain arrays", "write it as numpy.savez does") as archive:
        missing = [name for name in ("codes", "factors") if name not in archive.names]
        if missing:
            held = ", ".join(sorted(archive.names)) or "nothing"
            raise DamagedFile(f"{path} has no {' and no '.join(missing)}; it holds {held}")
        arrays = {name: archive.array(name, wanted) for name, wanted in HELD.items() if name in archive.names}
    names = [str(name) for name in arrays["factor_names"]] if "factor_names" in arrays else None
    number = arrays["factors"].shape[-1] if arrays["factors"].ndim else 0
    if names is not None and len(names) != number:
        raise DamagedFile(f"{path} names {len(names)} factors but has {number}")
    return arrays["codes"], arrays["factors"], names


if __name__ == "__main__":
    cli.run(main)
