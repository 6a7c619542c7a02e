"""The whole suite in one call: representations and factors in, a list of `Score` records out.

Each score comes with its null (the same metric with the rows of the factors permuted, so that representations and
factors have nothing to do with each other) and its ceiling (the same metric on the factors themselves as
representations), where these are cheap enough or known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from causalvae import schema
from causalvae._words import nearest
from causalvae.metrics import inputs
from causalvae.metrics.betavae import betavae_score
from causalvae.metrics.dci import dci
from causalvae.metrics.explicitness import explicitness
from causalvae.metrics.factorvae import factorvae_score
from causalvae.metrics.identifiability import mcc, r2
from causalvae.metrics.infomec import infomec
from causalvae.metrics.irs import irs
from causalvae.metrics.mig import mig
from causalvae.metrics.modularity import modularity
from causalvae.metrics.sap import sap
from causalvae.metrics.scores import Score, finite, score

FEW_ROWS = 100  # below, the best of several latents informs of a factor by chance alone


class Options(NamedTuple):
    """Sample sizes and choices that the metrics share."""

    num_train: int | None = None  # rows to fit on; None: two thirds, at most 10,000
    num_test: int | None = None  # rows to score on; None: the rest, at most 5,000
    votes: int = 10_000  # of the FactorVAE score, and points of the BetaVAE score; half as many again evaluate
    seed: int = 0
    shuffle: bool = True  # False: the first rows train, the last test
    dci_estimator: str = "xla"  # see `dci`
    halves: int = 0  # random halves of the rows that give scores their standard errors; 0: none

    def split(self) -> dict[str, Any]:
        """Returns the options that say which rows are fitted and scored."""
        return {name: getattr(self, name) for name in ("num_train", "num_test", "seed", "shuffle")}


class Measured(NamedTuple):
    """One number that a metric gives, before its null and ceiling are known."""

    value: Any  # a number; NaN where the metric has no answer
    samples: Mapping[str, int]
    settings: Mapping[str, Any] = {}
    note: str = ""  # why the value is NaN


class Metric(NamedTuple):
    """An entry of `METRICS`.

    `measure` returns what it measured, or name -> what it measured where a metric gives several scores; `estimator` may
    then be a mapping from those names. A value that is not finite says why in its `note`.
    """

    measure: Callable[[inputs.Inputs, Options], Measured | dict[str, Measured]]
    estimator: str | Mapping[str, str] | Callable[[Options], str]  # how a value is computed
    ceiling: float | None = 1.0  # what perfect representations reach; None: what the factors themselves score
    range: tuple[float, float] = (0.0, 1.0)
    null: bool = True  # whether measuring once more, with permuted rows, is affordable
    continuous: bool = False  # whether it takes continuous factors as they are


def evaluate_representations(
    representations: ArrayLike,
    factors: ArrayLike,
    metrics: str | Sequence[str] = "all",
    options: Options = Options(),  # noqa: B008 (immutable)
    nulls: bool = True,
) -> list[Score]:
    """Computes disentanglement scores of representations from any framework.

    Constant factors are dropped, and every record says so. A metric that has no answer for these representations (too
    few rows, a single latent) gives a record without a value whose note says why.

    Args:
      representations: latents [N, d].
      factors: integer class ids [N, K]; or real numbers, for the metrics that take them: `mcc`, `r2`, `sap_continuous`
        and `dci_lasso`, whose informativeness is R² then. The others say that they are undefined.
      metrics: "all", or names of `METRICS`, separated by commas or in a list.
      options: sample sizes and choices. `halves` of 10 or more give every score a standard error, its deviation over
        random halves of the rows (a delete-half jackknife; it holds the luck of splits and seeds, too), and say how
        much the null varies (`settings["null_deviation"]`); they take half as long each.
      nulls: False leaves nulls out, which halves the time.

    Returns:
      One record for each score.

    Raises:
      ValueError: for representations or factors that are malformed, and for names that do not exist.
    """
    names = check_names(metrics)
    for name in ("dci_estimator", "seed"):
        schema.check_value(name, getattr(options, name), schema.EVALUATION[name])
    if options.halves < 0 or options.halves == 1:
        raise ValueError(f"halves must be 0, or 2 and more, of which a deviation is taken, not {options.halves}")
    real = all(METRICS[name].continuous for name in names) and np.asarray(factors).dtype.kind == "f"
    check = inputs.check_continuous if real or inputs.is_continuous(factors) else inputs.check
    checked = check(representations, factors)
    records = _records(names, checked, options, nulls)
    if not options.halves:
        return records
    rng, rows = np.random.default_rng((options.seed, options.halves)), len(checked.factors)
    halves = []
    for number in range(options.halves):
        chosen = np.sort(rng.choice(rows, rows // 2, replace=False))
        half = check(np.asarray(representations)[chosen], np.asarray(factors)[chosen])
        sizes = {n: size and max(1, size // 2) for n, size in options.split().items() if n.startswith("num_")}
        found = _records(names, half, options._replace(seed=options.seed + 1 + number, **sizes), nulls, False)
        halves.append({record.name: record for record in found})  # a metric without an answer gives one record only
    return [_with_error(record, [half[record.name] for half in halves if record.name in half]) for record in records]


def _with_error(record: Score, halves: Sequence[Score]) -> Score:
    """The record with its deviation over halves of the rows, and the null's."""
    error, null = (_deviation([getattr(half, field) for half in halves]) for field in ("value", "null"))
    settings = {**record.settings, "halves": len(halves)}  # of which a metric had an answer
    settings |= {"null_deviation": null} if null is not None and record.null is not None else {}
    return record._replace(standard_error=error if record.value is not None else None, settings=settings)


def _deviation(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else None


def _records(
    names: Sequence[str], checked: inputs.Inputs, options: Options, nulls: bool, ceilings: bool = True
) -> list[Score]:
    # Too few rows raise here.
    split = inputs.split_rows(len(checked.factors), options.num_train, options.num_test, options.seed)
    permuted = _permuted(checked, split, options.seed)
    perfect = checked._replace(representations=checked.factors.astype(np.float64))
    rows = len(checked.factors)
    notes = [f"only {rows} rows: such scores are mostly chance"] if rows < FEW_ROWS else []
    notes += [f"constant factors {list(checked.dropped)} dropped"] if checked.dropped else []
    records = []
    for name in names:
        metric = METRICS[name]
        measured, reason = _measure(name, checked, options)
        if not measured:
            records.append(Score(name, None, estimator=name, note=f"undefined: {reason}"))
            continue
        null = _measure(name, permuted, options)[0] if nulls and metric.null else {}
        ceiling = _measure(name, perfect, options)[0] if metric.ceiling is None and ceilings else {}
        without = ["its null takes too long"] if nulls and not metric.null else []
        for each, found in measured.items():
            undefined = "" if found.note or finite(found.value) is not None else f"undefined: {name} gave {found.value}"
            records.append(
                score(
                    each,
                    found.value,
                    estimator=_estimator(metric, each, options),
                    samples=found.samples,
                    settings=found.settings,
                    ceiling=finite(ceiling[each].value) if each in ceiling else metric.ceiling,
                    null=finite(null[each].value) if each in null else None,
                    note="; ".join(filter(None, (found.note, undefined, *without, *notes))),
                )
            )
    return records


def check_names(metrics: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of metrics that "all", a text with commas or a list stands for.

    Raises:
      ValueError: for a name that does not exist; says what does.
    """
    if metrics == "all":
        return tuple(METRICS)
    names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    names = list(dict.fromkeys(names))  # a metric that is named twice is one
    if not names:
        raise ValueError(f"no metric is named; there are: all, {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            raise ValueError(f"no metric {name!r}; there are: all, {', '.join(METRICS)}.{_meant(name)}")
    return tuple(names)


def _meant(name: str) -> str:
    """Which metrics a wrong name may mean: in other letters, a part of a name, or a score of theirs."""
    name = name.lower()
    near = [metric for metric in METRICS if metric == name or metric.startswith(f"{name}_")]
    near = near or [metric for metric in METRICS if name.startswith(f"{metric}_")][-1:]
    near = near or [metric for metric in METRICS if name in getattr(METRICS[metric].estimator, "keys", tuple)()]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else nearest(name, METRICS)


def _measure(name: str, checked: inputs.Inputs, options: Options) -> tuple[dict[str, Measured], str]:
    """(score -> what was measured, ""), or ({}, the metric's own words for what it cannot answer)."""
    if not checked.sizes and not METRICS[name].continuous:
        return {}, "factors are continuous, and it takes classes: bin them first"
    try:
        measured = METRICS[name].measure(checked, options)
    except ValueError as error:
        return {}, str(error)
    return ({name: measured} if isinstance(measured, Measured) else measured), ""


def _estimator(metric: Metric, name: str, options: Options) -> str:
    if callable(metric.estimator):
        return metric.estimator(options)
    return metric.estimator if isinstance(metric.estimator, str) else metric.estimator[name]


def _permuted(checked: inputs.Inputs, split: inputs.Split, seed: int) -> inputs.Inputs:
    """Rows of the factors permuted: both sides keep their distributions and lose their relation."""
    order = np.random.default_rng((seed, len(split.train))).permutation(len(checked.factors))
    return checked._replace(factors=checked.factors[order])


# --- one function per metric -----------------------------------------------------------------------------


def _train_rows(checked: inputs.Inputs, options: Options) -> inputs.Inputs:
    seed = options.seed if options.shuffle else None
    rows = inputs.split_rows(len(checked.factors), options.num_train, options.num_test, seed).train
    return checked._replace(representations=checked.representations[rows], factors=checked.factors[rows])


def _mig(checked: inputs.Inputs, options: Options) -> Measured:
    rows = _train_rows(checked, options)
    found = mig(rows.representations, rows.factors)
    gaps = [float(f"{gap:.6g}") for gap in found.per_factor]
    return Measured(found.score, {"train": len(rows.factors)}, {"bins": 20, "per_factor": gaps})


def _dci(checked: inputs.Inputs, options: Options) -> dict[str, Measured]:
    return _dci_by(options.dci_estimator, "dci", checked, options)


def _dci_lasso(checked: inputs.Inputs, options: Options) -> dict[str, Measured]:
    return _dci_by("lasso", "dci_lasso", checked, options)


def _dci_by(estimator: str, prefix: str, checked: inputs.Inputs, options: Options) -> dict[str, Measured]:
    found = dci(checked.representations, checked.factors, estimator, **options.split())
    samples, settings = {"train": found.num_train, "test": found.num_test}, {"estimator": found.estimator}
    single = checked.representations.shape[1] == 1
    note = "undefined for a single latent" if single else "undefined for a single factor"
    values = {name: getattr(found, name) for name in ("disentanglement", "completeness", "informativeness")}
    return {f"{prefix}_{name}": Measured(v, samples, settings, _note(v, note)) for name, v in values.items()}


def _trees(options: Options) -> str:
    trees = options.dci_estimator in ("sklearn", "xla")
    return f"boosted trees ({options.dci_estimator})" if trees else options.dci_estimator


def _sap(checked: inputs.Inputs, options: Options) -> Measured:
    found = sap(checked.representations, checked.factors, continuous=False, **options.split())
    return Measured(found.score, {"train": found.num_train, "test": found.num_test})


def _sap_continuous(checked: inputs.Inputs, options: Options) -> Measured:
    found = sap(checked.representations, checked.factors, continuous=True, **options.split())
    return Measured(found.score, {"train": found.num_train})


def _modularity(checked: inputs.Inputs, options: Options) -> Measured:
    found = modularity(checked.representations, checked.factors, **options.split())
    settings = {"bins": 20, "latents_counted": int(np.isfinite(found.per_latent).sum())}
    return Measured(found.score, {"train": found.num_train}, settings)


def _explicitness(checked: inputs.Inputs, options: Options) -> Measured:
    found = explicitness(checked.representations, checked.factors, **options.split())
    note = _note(found.score, "no factor has two classes in both parts")
    return Measured(found.score, {"train": found.num_train, "test": found.num_test}, note=note)


def _irs(checked: inputs.Inputs, options: Options) -> Measured:
    rows = _train_rows(checked, options)
    found = irs(rows.representations, rows.factors)
    return Measured(found.score, {"train": len(rows.factors)}, {"quantile": 0.99, "bins": 20})


def _infomec(checked: inputs.Inputs, options: Options) -> dict[str, Measured]:
    rows = _train_rows(checked, options)
    found = infomec(rows.representations, rows.factors, seed=options.seed)
    samples = {"train": len(rows.factors)}
    settings = {"prune": 0.05, "neighbors": 10, "latents_active": int(found.active.sum())}
    why = {
        "infom": (found.modularity, "no active latent, or a single factor"),
        "infoe": (found.explicitness, ""),
        "infoc": (found.compactness, "fewer than two active latents"),
    }
    return {name: Measured(v, samples, settings, _note(v, reason)) for name, (v, reason) in why.items()}


def _betavae(checked: inputs.Inputs, options: Options) -> Measured:
    rows, test = _train_rows(checked, options), -(-options.votes // 2)
    found = betavae_score(rows.representations, rows.factors, options.votes, test, seed=options.seed)
    return Measured(found.score, {"points": options.votes, "test points": test, "rows": len(rows.factors)})


def _factorvae(checked: inputs.Inputs, options: Options) -> Measured:
    rows, test = _train_rows(checked, options), -(-options.votes // 2)
    found = factorvae_score(rows.representations, rows.factors, options.votes, test, seed=options.seed)
    samples = {"votes": options.votes, "test votes": test, "rows": len(rows.factors)}
    settings = {"prune": 0.05, "latents_voting": int(found.active.sum()), "chance": found.chance}
    return Measured(found.score, samples, settings)


def _mcc(checked: inputs.Inputs, options: Options) -> dict[str, Measured]:
    found = mcc(checked.representations, checked.factors, **options.split())
    samples = {"train": found.num_train, "test": found.num_test}
    return {name: Measured(getattr(found, name.removeprefix("mcc_")), samples) for name in MCC}


def _r2(checked: inputs.Inputs, options: Options) -> Measured:
    found = r2(checked.representations, checked.factors, **options.split())
    return Measured(found.score, {"train": found.num_train, "test": found.num_test})


def _note(value: float, reason: str) -> str:
    return "" if np.isfinite(value) else reason


INFOMEC = {
    "infom": "nearest neighbors (10)",
    "infoe": "logistic regression without penalty, in sample",
    "infoc": "nearest neighbors (10)",
}
MCC = {
    "mcc_pearson": "|Pearson|, one latent for each factor",
    "mcc_spearman": "|Spearman|, one latent for each factor",
    "mcc_pearson_linear": "|Pearson| after linear regression",
    "mcc_spearman_linear": "|Spearman| after linear regression",
}
METRICS: dict[str, Metric] = {
    "mig": Metric(_mig, "histogram, 20 bins", ceiling=None),
    "dci": Metric(_dci, _trees),
    "dci_lasso": Metric(_dci_lasso, "lasso", continuous=True),
    "sap_discrete": Metric(_sap, "linear SVM, C = 0.01", ceiling=None, null=False),  # seconds each time
    "sap_continuous": Metric(_sap_continuous, "squared correlation", ceiling=None, continuous=True),
    "modularity": Metric(_modularity, "histogram, 20 bins", ceiling=None),
    "explicitness": Metric(_explicitness, "logistic regression, area under ROC", ceiling=None),
    "irs": Metric(_irs, "0.99 quantile of deviations", ceiling=None),
    "infomec": Metric(_infomec, INFOMEC, ceiling=None, range=(-np.inf, 1.0)),  # InfoE is negative until it converges
    "betavae": Metric(_betavae, "logistic regression, batches of 64 pairs"),
    "factorvae": Metric(_factorvae, "majority vote, batches of 64"),
    "mcc": Metric(_mcc, MCC, continuous=True),
    "r2": Metric(_r2, "linear regression", range=(-np.inf, 1.0), continuous=True),
}
"""name -> metric: a new one is one line here."""
