"""The whole suite in one call: codes and factors in, a list of `Score` records out.

Each score comes with its null (the same metric with the rows of the factors permuted, so that codes and
factors have nothing to do with each other) and its ceiling (the same metric on the factors themselves as
codes, which a code of that data set is read against), where these are cheap enough or known.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from causalvae.metrics import inputs
from causalvae.metrics.compactness import modularity_explicitness
from causalvae.metrics.importance import dci
from causalvae.metrics.infomec import infomec
from causalvae.metrics.irs import irs
from causalvae.metrics.mutual_information import mig
from causalvae.metrics.sap import sap
from causalvae.metrics.scores import Score, finite, score
from causalvae.metrics.voting import betavae_score, factorvae_score


class Sizes(NamedTuple):
    """Sample sizes and choices that the metrics share."""

    num_train: int | None  # rows to fit on; None: two thirds, at most 10,000
    num_test: int | None  # rows to score on; None: the rest, at most 5,000
    votes: int  # of the FactorVAE score, and points of the BetaVAE score; half as many again evaluate
    seed: int
    shuffle: bool
    dci_estimator: str

    def split(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("num_train", "num_test", "seed", "shuffle")}


class Measured(NamedTuple):
    """One number that a metric gives, before its null and ceiling are known."""

    value: float
    estimator: str
    samples: Mapping[str, int]
    settings: Mapping[str, Any] = {}
    note: str = ""  # why the value is NaN


class Metric(NamedTuple):
    """An entry of `METRICS`."""

    measure: Callable[[inputs.Inputs, Sizes], dict[str, Measured]]
    ceiling: Callable[[inputs.Inputs, Sizes], dict[str, float]]
    null: bool = True  # whether measuring once more, with permuted rows, is affordable


def evaluate_codes(
    codes: ArrayLike,
    factors: ArrayLike,
    metrics: str | Sequence[str] = "all",
    num_train: int | None = None,
    num_test: int | None = None,
    votes: int = 10_000,
    seed: int = 0,
    shuffle: bool = True,
    dci_estimator: str = "xla",
    nulls: bool = True,
) -> list[Score]:
    """Disentanglement scores of codes [N, d] for factors [N, K] (integer class ids), from any framework.

    metrics: "all", or names of `METRICS`, separated by commas or in a list. num_train, num_test: rows to fit
    on and to score on (None: two thirds and the rest, at most 10,000 and 5,000). shuffle=False: the first
    rows train, the last test. dci_estimator: see `dci`. nulls=False leaves nulls out, which halves the time.
    Constant factors are dropped, and every record says so. A metric that has no answer for these codes (too
    few rows, a single latent) gives a record without a value whose note says why.
    Raises ValueError for codes or factors that are malformed, and for names that do not exist.
    """
    names = check_names(metrics)
    checked = inputs.check(codes, factors)
    sizes = Sizes(num_train, num_test, votes, seed, shuffle, dci_estimator)
    split = inputs.split_rows(len(checked.codes), num_train, num_test, seed)  # too few rows raise here
    permuted = _permuted(checked, split, seed)
    dropped = f"constant factors {list(checked.dropped)} dropped" if checked.dropped else ""
    records = []
    for name in names:
        metric = METRICS[name]
        measured, reason = _attempt(metric.measure, checked, sizes)
        if measured is None:
            records.append(Score(name, None, estimator=name, note=f"undefined: {reason}"))
            continue
        null = (_attempt(metric.measure, permuted, sizes)[0] or {}) if nulls and metric.null else {}
        ceiling = _attempt(metric.ceiling, checked, sizes)[0] or {}
        for each, found in measured.items():
            note = "; ".join(filter(None, (found.note, dropped)))
            rest = {"null": finite(null[each].value) if each in null else None, "ceiling": ceiling.get(each)}
            fields = {"estimator": found.estimator, "samples": found.samples, "settings": found.settings}
            records.append(score(each, found.value, note=note, **fields, **rest))
    return records


def check_names(metrics: str | Sequence[str]) -> tuple[str, ...]:
    """The names of metrics that "all", a text with commas or a list stands for; ValueError names what
    exists."""
    if metrics == "all":
        return tuple(METRICS)
    names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no metric {name!r}; there are: all, {', '.join(METRICS)}.{hint}")
    return tuple(names)


def _attempt(function: Callable, *arguments: Any) -> tuple[Any, str]:
    try:
        return function(*arguments), ""
    except ValueError as error:  # the metric's own words for what it cannot answer
        return None, str(error)


def _permuted(checked: inputs.Inputs, split: inputs.Split, seed: int) -> inputs.Inputs:
    """Rows of the factors permuted: codes and factors keep their distributions and lose their relation."""
    order = np.random.default_rng((seed, len(split.train))).permutation(len(checked.factors))
    return checked._replace(factors=checked.factors[order])


# --- one function per metric -----------------------------------------------------------------------------


def _train_rows(checked: inputs.Inputs, sizes: Sizes) -> inputs.Inputs:
    rows = inputs.split_rows(len(checked.codes), sizes.num_train, sizes.num_test, sizes.seed if sizes.shuffle else None)
    return checked._replace(codes=checked.codes[rows.train], factors=checked.factors[rows.train])


def _mig(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    rows = _train_rows(checked, sizes)
    found = mig(rows.codes, rows.factors)
    return {"mig": Measured(found.score, "histogram, 20 bins", {"train": len(rows.codes)}, {"bins": 20})}


def _dci(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    return _dci_by(sizes.dci_estimator, "dci", checked, sizes)


def _dci_lasso(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    return _dci_by("lasso", "dci_lasso", checked, sizes)


def _dci_by(estimator: str, prefix: str, checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    found = dci(checked.codes, checked.factors, estimator, **sizes.split())
    how = f"boosted trees ({found.estimator})" if found.estimator in ("sklearn", "xla") else found.estimator
    samples, settings = {"train": found.num_train, "test": found.num_test}, {"estimator": found.estimator}
    note = "undefined for a single latent" if checked.codes.shape[1] == 1 else "undefined for a single factor"
    return {
        f"{prefix}_{name}": Measured(getattr(found, name), how, samples, settings, _note(getattr(found, name), note))
        for name in ("disentanglement", "completeness", "informativeness")
    }


def _sap(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    found = sap(checked.codes, checked.factors, continuous=False, **sizes.split())
    samples = {"train": found.num_train, "test": found.num_test}
    return {"sap_discrete": Measured(found.score, "linear SVM, C = 0.01", samples)}


def _sap_continuous(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    found = sap(checked.codes, checked.factors, continuous=True, **sizes.split())
    return {"sap_continuous": Measured(found.score, "squared correlation", {"train": found.num_train})}


def _modularity(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    found = modularity_explicitness(checked.codes, checked.factors, explicit=False, **sizes.split())
    counted = int(np.isfinite(found.per_latent).sum())
    settings = {"bins": 20, "latents_counted": counted}
    return {"modularity": Measured(found.modularity, "histogram, 20 bins", {"train": found.num_train}, settings)}


def _explicitness(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    found = modularity_explicitness(checked.codes, checked.factors, **sizes.split())
    samples = {"train": found.num_train, "test": found.num_test}
    note = _note(found.explicitness, "no factor has two classes in both parts")
    return {"explicitness": Measured(found.explicitness, "logistic regression, area under ROC", samples, {}, note)}


def _irs(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    rows = _train_rows(checked, sizes)
    found = irs(rows.codes, rows.factors)
    settings = {"quantile": 0.99, "bins": 20}
    return {"irs": Measured(found.score, "0.99 quantile of deviations", {"train": len(rows.codes)}, settings)}


def _betavae(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    rows = _train_rows(checked, sizes)
    found = betavae_score(rows.codes, rows.factors, sizes.votes, -(-sizes.votes // 2), seed=sizes.seed)
    samples = {"points": sizes.votes, "test points": -(-sizes.votes // 2), "rows": len(rows.codes)}
    return {"betavae": Measured(found.score, "logistic regression, batches of 64 pairs", samples)}


def _factorvae(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    rows = _train_rows(checked, sizes)
    found = factorvae_score(rows.codes, rows.factors, sizes.votes, -(-sizes.votes // 2), seed=sizes.seed)
    samples = {"votes": sizes.votes, "test votes": -(-sizes.votes // 2), "rows": len(rows.codes)}
    settings = {"prune": 0.05, "latents_voting": int(found.active.sum()), "chance": found.chance}
    return {"factorvae": Measured(found.score, "majority vote, batches of 64", samples, settings)}


def _infomec(checked: inputs.Inputs, sizes: Sizes) -> dict[str, Measured]:
    rows = _train_rows(checked, sizes)
    found = infomec(rows.codes, rows.factors, seed=sizes.seed)
    samples = {"train": len(rows.codes)}
    settings = {"prune": 0.05, "neighbors": 10, "latents_active": int(found.active.sum())}
    nearest = "nearest neighbors (10)"
    why = {
        "infom": (found.modularity, nearest, "no active latent, or a single factor"),
        "infoe": (found.explicitness, "logistic regression without penalty, in sample", ""),
        "infoc": (found.compactness, nearest, "fewer than two active latents"),
    }
    return {
        name: Measured(value, how, samples, settings, _note(value, reason))
        for name, (value, how, reason) in why.items()
    }


def _note(value: float, reason: str) -> str:
    return "" if np.isfinite(value) else reason


def _of_identity(measure: Callable) -> Callable:
    """The ceiling by measuring the factors themselves as codes."""

    def ceiling(checked: inputs.Inputs, sizes: Sizes) -> dict[str, float]:
        perfect = checked._replace(codes=checked.factors.astype(np.float64))
        return {name: found.value for name, found in measure(perfect, sizes).items()}

    return ceiling


def _known(*names: str) -> Callable:
    """A ceiling of 1, which a perfect code reaches exactly."""
    return lambda checked, sizes: dict.fromkeys(names, 1.0)


METRICS: dict[str, Metric] = {
    "mig": Metric(_mig, _of_identity(_mig)),
    "dci": Metric(_dci, _known("dci_disentanglement", "dci_completeness", "dci_informativeness")),
    "dci_lasso": Metric(
        _dci_lasso, _known("dci_lasso_disentanglement", "dci_lasso_completeness", "dci_lasso_informativeness")
    ),
    "sap_discrete": Metric(_sap, _of_identity(_sap), null=False),  # many linear machines: seconds each time
    "sap_continuous": Metric(_sap_continuous, _of_identity(_sap_continuous)),
    "modularity": Metric(_modularity, _of_identity(_modularity)),
    "explicitness": Metric(_explicitness, _of_identity(_explicitness)),
    "irs": Metric(_irs, _of_identity(_irs)),
    "infomec": Metric(_infomec, _of_identity(_infomec)),
    "betavae": Metric(_betavae, _known("betavae")),
    "factorvae": Metric(_factorvae, _known("factorvae")),
}
