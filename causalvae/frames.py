"""Results as tidy tables: one row for each thing measured, one named column for each thing known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    import pandas

# Class of a result -> field -> its axes. Arrays with fewer axes have the first of them. An axis after a bar becomes
# columns, one for each entry. Fields that are not listed are left out.
AXES: dict[str, dict[str, str]] = {
    "Latents": {},  # every field, by latent
    "CodeEffects": {},
    "EffectStrength": {},
    "PatchEffects": {
        "output_change": "unit pair",
        "recovery": "unit pair",
        "left_out": "unit pair",
        "latent_change": "unit pair | latent",
    },
    "Mediation": {
        "total": "pair",
        "direct": "unit pair",
        "indirect": "unit pair",
        "interaction": "unit pair",
        "distance": "pair",
    },
    "InteractionShare": {"binned": "unit bin", "distance": "bin", "pairs": "bin", "well_defined": "unit"},
    "Shapley": {"total": "pair", "rest": "pair", "shares": "unit pair"},
    "PathEffects": {
        "path": "sender receiver pair",
        "through": "sender pair",
        "interaction": "sender pair",
        "sender": "sender pair",
    },
    "Attribution": {"estimate": "unit pair", "exact": "unit pair"},
    "KnockOut": {"output_change": "codebook entry", "usage": "codebook entry", "per_use": "codebook entry"},
    "Selectivity": {"selectivity": "unit", "floor": "unit", "permuted": "unit", "effects": "unit | factor"},
    "Patching": {
        "largest": "site factor",
        "concentration": "site factor",
        "left_out": "factor",
        "unit": "site factor",
        "restores": "site factor",
        "p_value": "site factor",
    },
    "Mediated": {
        "estimate": "factor latent effect",
        "low": "factor latent effect",
        "high": "factor latent effect",
        "left_out": "factor",
        "interaction_share": "factor latent",
        "well_defined": "factor latent",
        "carries": "factor latent",
        "p_value": "factor latent",
    },
}
ARRAYS = {1: ("value", "latent"), 2: ("effect", "factor latent"), 3: ("distance", "latent value row")}


def frame(
    result: Any,
    *,
    factors: Sequence[str] | None = None,
    latents: Sequence[str] | None = None,
    units: Sequence[Any] | None = None,
    axes: str | None = None,
) -> pandas.DataFrame:
    """Returns a result as a tidy table.

    It takes the results of `interventions` (patching, mediation, its summary and interactions, Shapley shares, claims,
    paths, edges, attribution, knock-outs) and of `metrics.effect_strength`; circuits, one or a mapping from factors;
    scores, one or a list, and differences of two runs' (`experiments.compare`); what `evaluate` returns and each of its
    parts; a run that `load` returns or its results; and the table of a study. Of arrays it takes what factors do to
    latents [K, d] (or site -> [K, units]), distances of latent perturbations [d, V, N] (or distance -> [d, V, N]), and
    one number for each latent [d]. Other arrays, and those that mean something else, have their axes named: what
    setting a latent does to latents, outputs or sites is `axes="set latent"`, `"latent row column channel"`, `"latent
    unit"`.

    Args:
      result: any of these.
      factors: names of factors, such as `dataset.factor_names`. None numbers them.
      latents: names of latents; None for z0, z1, …
      units: names of units. None numbers them.
      axes: names of an array's axes, a word for each, "set latent"; of every array of a mapping from sites. None: as
        above.

    Returns:
      A pandas.DataFrame with named columns and a plain index.

    Raises:
      ValueError: for anything else, and for a number of names that is not that of what they name.
    """
    names = {"factor": factors, "latent": latents, "unit": units}
    kind = type(result).__name__
    if axes is not None:
        return _of_arrays(result, axes, names)
    if kind in AXES:
        return _of_fields(result, kind, names)
    if kind in SPECIAL:
        return SPECIAL[kind](result, names)
    if isinstance(result, Mapping):
        return _of_mapping(result, names)
    if isinstance(result, (list, tuple)) and result and type(result[0]).__name__ in ("Score", "Difference"):
        return _of_scores(result, names)
    if isinstance(result, (np.ndarray, jax.Array)) and result.ndim in ARRAYS:
        name, axes = ARRAYS[result.ndim]
        return _spread({name: (axes, result)}, names)
    if isinstance(result, (np.ndarray, jax.Array)):
        raise ValueError(
            f"no table is known of an array {list(result.shape)} by itself: name its axes, "
            "frame(result, axes='latent row column channel')"
        )
    raise ValueError(f"no table is known of a {kind}; see causalvae.frame for what it takes")


def _of_arrays(result: Any, axes: str, names: Mapping[str, Any]) -> pandas.DataFrame:
    """A row for each entry of an array, or of every array of a mapping from sites, whose axes the caller names."""
    import pandas

    if isinstance(result, Mapping):
        tables = [_of_arrays(part, axes, names) for part in result.values()]
        for site, table in zip(result, tables):
            table.insert(0, "site", site)
        return pandas.concat(tables, ignore_index=True)
    words = axes.split()
    if np.ndim(result) != len(words) or len(set(words)) < len(words):
        raise ValueError(f"axes {axes!r} do not name the axes of an array {list(np.shape(result))}, a word for each")
    return _spread({"effect": (axes, result)}, {**names, "set": names["latent"]})


def _spread(fields: Mapping[str, tuple[str, Any]], names: Mapping[str, Any]) -> pandas.DataFrame:
    """A row for each place along all axes of the fields (name -> axes, array), which are broadcast to it."""
    import pandas

    arrays = {}
    for name, (axes, value) in fields.items():
        rows, _, columns = axes.partition(" | ")
        value = np.asarray(value)
        axis = tuple(rows.split()[: value.ndim - bool(columns)])
        if columns:
            labels = _labels(columns, value.shape[-1], names)
            arrays |= {f"{name}_{label}": (axis, value[..., i]) for i, label in enumerate(labels)}
        else:
            arrays[name] = axis, value
    # The field with most axes says their order.
    sizes = {
        a: n for axis, value in sorted(arrays.values(), key=lambda f: -len(f[0])) for a, n in zip(axis, value.shape)
    }
    shape, table = tuple(sizes.values()), {}

    def column(axis: tuple[str, ...], value: np.ndarray) -> np.ndarray:
        missing = [place for place, other in enumerate(sizes) if other not in axis]
        return np.broadcast_to(np.expand_dims(value, missing), shape).ravel()

    for axis, size in sizes.items():
        table[axis] = column((axis,), np.asarray(_labels(axis, size, names)))
    for name, (axis, value) in arrays.items():
        table[name if name not in sizes else f"{name}_effect"] = column(axis, value)
    return pandas.DataFrame(table)


def _labels(axis: str, size: int, names: Mapping[str, Any]) -> Sequence[Any]:
    given = names.get(axis)
    if given is None:
        return [f"z{i}" for i in range(size)] if axis in ("latent", "set") else range(size)
    if len(given) != size:
        raise ValueError(f"{len(given)} names of {axis}s were given, and there are {size}")
    return list(given)


def _of_fields(result: Any, kind: str, names: Mapping[str, Any]) -> pandas.DataFrame:
    axes = AXES[kind] or {name: "latent" for name in result._fields if np.ndim(getattr(result, name)) == 1}
    own = {"site": getattr(result, "sites", None), "effect": getattr(result, "effects", None)}
    fields = {name: (axis, getattr(result, name)) for name, axis in axes.items()}
    return _spread({n: f for n, f in fields.items() if f[1] is not None}, {**own, **names})


def _of_summary(result: Any, names: Mapping[str, Any]) -> pandas.DataFrame:
    """Effects of groups of units with their intervals; the total, which is no unit's, has a row of its own."""
    import pandas

    tables = []
    for effect in ("total", "direct", "indirect", "interaction", "proportion"):
        table = _spread({field: ("unit", np.atleast_1d(v)) for field, v in getattr(result, effect)._asdict().items()},
                        {} if effect == "total" else names)  # fmt: skip
        table.insert(1, "effect", effect)
        if effect == "total":
            tables.append(table.assign(unit=None))
        else:
            share = result.interaction_share
            tables.append(table.assign(interaction_share=share.share.mean, well_defined=share.well_defined))
    table = pandas.concat([part.astype({"unit": object}) for part in tables], ignore_index=True)
    return table.assign(pairs=int(result.pairs), left_out=int(result.left_out))


def _of_claims(result: Any, names: Mapping[str, Any]) -> pandas.DataFrame:
    """A row for each unit, or for each edge of claims [senders, receivers]."""
    axes = {1: "unit", 2: "sender receiver"}[np.ndim(result.effect)]
    fields = ("claimed", "p_value", "effect", "low", "high")
    table = _spread({field: (axes, getattr(result, field)) for field in fields}, names)
    return table.assign(pairs=result.pairs, left_out=result.left_out)


def _of_shapley(result: Any, names: Mapping[str, Any]) -> pandas.DataFrame:
    """A row for each mediator, and one for the rest, whose unit is "rest"."""
    import pandas

    shares = _spread({field: ("unit", value) for field, value in result.shares._asdict().items()}, names)
    rest = pandas.DataFrame({"unit": ["rest"], **{field: [float(v)] for field, v in result.rest._asdict().items()}})
    table = pandas.concat([part.astype({"unit": object}) for part in (shares, rest)], ignore_index=True)
    total = float(result.total.mean)
    return table.assign(error=result.error, total=total, pairs=int(result.pairs), left_out=int(result.left_out))


def _of_circuit(result: Any, names: Mapping[str, Any]) -> pandas.DataFrame:
    """A row for each unit of the site, in the circuit or not."""
    rank = {int(unit): place for place, unit in enumerate(result.units)}
    places = range(len(result.effects))
    labels = {"unit": names["latent"]} if names["unit"] is None and result.site.startswith("latent/") else names
    table = _spread({"effect": ("unit", result.effects)}, labels)
    table.insert(0, "site", result.site)
    return table.assign(
        rank=[rank.get(unit, np.nan) for unit in places],
        in_circuit=[unit in rank for unit in places],
        faithfulness=float(result.faithfulness),
        random=float(np.mean(result.random)),
        completeness=float(result.completeness),
    )


def _of_scores(scores: Sequence[Any], names: Mapping[str, Any]) -> pandas.DataFrame:
    import pandas

    rows = [score if isinstance(score, Mapping) else score._asdict() for score in scores]
    return pandas.DataFrame(rows).rename(columns={"name": "score"})


def _of_results(results: Mapping[str, Any], names: Mapping[str, Any]) -> pandas.DataFrame:
    """The scores of every member of a run."""
    import pandas

    tables = []
    for member in results["members"]:
        table = _of_scores(member["scores"], names)
        table.insert(0, "seed", member["seed"])
        tables.append(table)
    table = pandas.concat(tables, ignore_index=True)
    for place, (column, value) in enumerate([
        ("architecture", results["architecture"]["name"]),
        ("dataset", results["data"]["name"]),
        ("source", results["data"]["source"]),
        ("steps", results["training"]["steps"]),
    ]):  # fmt: skip
        table.insert(place, column, value)
    return table


def _of_mapping(result: Mapping[str, Any], names: Mapping[str, Any]) -> pandas.DataFrame:
    import pandas

    if "members" in result:
        return _of_results(result, names)
    kinds = {type(value).__name__ for value in result.values()}
    if "Circuit" in kinds:
        found = {factor: circuit for factor, circuit in result.items() if circuit is not None}
        tables = [_of_circuit(circuit, names) for circuit in found.values()]
        for factor, table in zip(found, tables):
            table.insert(0, "factor", factor)
        return pandas.concat(tables, ignore_index=True)
    if "Claims" in kinds:
        tables = [_of_claims(claims, names) for claims in result.values()]
        for factor, table in zip(result, tables):
            table.insert(0, "factor", factor)
        return pandas.concat(tables, ignore_index=True)
    if kinds == {"dict"}:  # site -> factor -> claims
        tables = [_of_mapping(part, names) for part in result.values()]
        for site, table in zip(result, tables):
            table.insert(0, "site", site)
        return pandas.concat(tables, ignore_index=True)
    axes = {np.ndim(value) for value in result.values()}
    if axes == {1}:  # the columns of a study
        return pandas.DataFrame(dict(result))
    if axes == {2}:
        tables = [_spread({"effect": ("factor unit", value)}, names) for value in result.values()]
        for site, table in zip(result, tables):
            table.insert(0, "site", site)
        return pandas.concat(tables, ignore_index=True)
    if axes == {3}:
        return _spread({name: ("latent value row", value) for name, value in result.items()}, names)
    raise ValueError(f"no table is known of a mapping of {', '.join(sorted(kinds))}; see causalvae.frame")


def _of_edges(result: Any, names: Mapping[str, Any]) -> pandas.DataFrame:
    """A row for each edge, with its mean over the pairs that count."""
    table = _spread({"effect": ("sender receiver", result.mean)}, names)
    values = np.asarray(result.effects, float)
    return table.assign(pairs=int(np.isfinite(values).all(axis=tuple(range(values.ndim - 1))).sum()))


SPECIAL = {
    "EdgeEffects": _of_edges,
    "Claims": _of_claims,
    "MediationSummary": _of_summary,
    "ShapleySummary": _of_shapley,
    "Circuit": _of_circuit,
    "Score": lambda result, names: _of_scores([result], names),
    "Evaluation": lambda result, names: _of_scores(result.scores, names),
    "Trained": lambda result, names: _of_results(_evaluated(result), names),
}


def _evaluated(run: Any) -> Mapping[str, Any]:
    if getattr(run, "results", None) is None:
        raise ValueError("this run has no results: it has not been evaluated")
    return run.results
