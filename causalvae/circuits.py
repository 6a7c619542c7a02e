"""Circuits: the smallest sets of units through which a factor reaches the output, and how they are wired.

A factor's circuit at a site is chosen greedily: units in the order of their natural indirect effects, up to
the first set whose joint patch recovers `threshold` of the total effect, then rid of units that it can do
without. Everything is a joint patch, so a set's effect is measured and never added up from its units'
effects. One half of the pairs chooses the set and the other half measures it: on the pairs that chose it, a set
of units that are all alike would seem faithful by chance.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import metrics
from causalvae._display import as_html
from causalvae.interventions._runs import Outcome
from causalvae.interventions.claims import Claims, claims
from causalvae.interventions.factors import Pairs, as_pairs
from causalvae.interventions.mediation import indirect_effects
from causalvae.interventions.outcomes import projected_change, unscaled_projection
from causalvae.interventions.paths import path_effects
from causalvae.metrics import ties
from causalvae.sites import check_site, site_shapes

__all__ = [
    "Circuit",
    "Motifs",
    "Selectivity",
    "Wiring",
    "as_graph",
    "carriers",
    "check_same_dataset",
    "find_circuit",
    "find_circuits",
    "motifs",
    "overlap",
    "save_graph",
    "selectivity",
    "trace",
]

PyTree = Any
RANDOM_SETS = 20  # of a circuit's size: the null of its faithfulness
TIE = 1e-5  # of the total effect: what float32 images leave uncertain of a fraction of it


# --- one factor, one site --------------------------------------------------------------------------------


class Circuit(NamedTuple):
    """A set of units of one site that serves one factor.

    Effects are fractions of the total effect, over the pairs that did not choose the units: sums over them, divided,
    so that pairs which hardly differ weigh little.
    """

    site: str
    units: np.ndarray  # [n] int, the largest effect on the choosing pairs first
    faithfulness: float  # of the circuit patched alone; below the threshold where chance had a part in the choice
    completeness: float  # 1 - that of all units but the circuit
    random: np.ndarray  # [draws] of random sets of the same size: the null of faithfulness
    effects: np.ndarray  # [units] of each unit alone
    curve: np.ndarray  # [units] of the n + 1 units together that have the largest effects on the choosing pairs
    found: bool  # whether the choosing pairs reached the threshold; if not, `units` are all of the site's

    _repr_html_ = as_html


def find_circuit(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    site: str,
    *,
    threshold: float = 0.9,
    outcome: Outcome = unscaled_projection,
    chunk: int | None = None,
    seed: int = 0,
) -> Circuit:
    """Returns the smallest set of a site's units, chosen greedily, that recovers `threshold` of the total effect.

    Source: this library, after Wang et al. 2022. Every other pair that has an effect chooses the units, and with them
    the size; the rest measure whatever is reported. Twenty random sets have the size that was chosen and are measured
    on the same pairs: where all units are alike, the circuit is one of them. Effects within 1e-5 of each other or of
    the threshold are equal, and of equal units the first is taken. Only a cut set can recover all; at another site a
    circuit may not exist (`found` is False).

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: of one factor, as `counterfactuals` gives them.
      site: whose units the circuit is made of.
      threshold: fraction of the total effect, in (0, 1].
      outcome: as in `interventions.mediate`.
      chunk: runs at once; bounds memory, not results.
      seed: of the random sets.

    Raises:
      ValueError: where either half of the pairs has no effect on the outcome to explain, for a threshold outside
        (0, 1], and at a site of integer codes.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a fraction of the total effect, in (0, 1], not {threshold}")
    num_units = _num_units(model, params, pairs, site)

    def joint(masks):  # [G, units] -> fractions of the total effect [G], of the choosing and of the other pairs
        # One shape, one program. Empty masks change nothing, and what changes nothing is not run.
        padded = np.zeros((max(num_units, RANDOM_SETS + 2), num_units), bool)
        padded[: len(masks)] = masks
        total, indirect = indirect_effects(
            model, params, pairs, site, groups={site: padded}, outcome=outcome, chunk=chunk
        )
        return [mean_fractions(total, indirect, half)[: len(masks)] for half in halves_of(np.asarray(total))]

    choosing, effects = joint(np.eye(num_units, dtype=bool))
    order = ties.descending(choosing, TIE)
    prefixes = np.zeros((num_units, num_units), bool)
    for n in range(num_units):
        prefixes[n:, order[n]] = True
    choosing, curve = joint(prefixes)
    enough = choosing >= threshold - TIE
    found = bool(enough.any())
    units = _prune(lambda masks: joint(masks)[0], prefixes[enough.argmax()], threshold) if found else prefixes[-1]
    sets = _random_sets(np.random.default_rng(seed), int(units.sum()), num_units)
    alone, rest, *random = joint(np.stack([units, ~units, *sets]))[1]
    members = np.array([unit for unit in order if units[unit]])
    return Circuit(site, members, float(alone), float(1 - rest), np.asarray(random), effects, curve, found)


def halves_of(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that choose and pairs that measure, by turns; those without an effect (NaN) are neither."""
    defined = np.flatnonzero(np.isfinite(total))
    return defined[::2], defined[1::2]


def _prune(joint: Callable, units: np.ndarray, threshold: float) -> np.ndarray:
    """A set without the units that it can do without: none of those left can go alone.

    Units are ranked by what the others recover without them, and as many of the least needed go at once as the
    threshold allows: a few rounds of two calls of `joint`, where one unit at a time would take a call for each.
    Of units that are needed alike the last go first.
    """
    while units.sum() > 1:
        members = np.flatnonzero(units)[::-1]
        remaining = joint(_without(units, list(members[:, None])))
        if remaining.max() < threshold - TIE:
            break
        ranked = members[ties.descending(remaining, TIE)]
        fewer = _without(units, [ranked[:n] for n in range(1, len(ranked))])
        enough = np.flatnonzero(joint(fewer) >= threshold - TIE)
        units = fewer[enough.max(initial=0)]  # the first alone is known to be one that can go
    return units


def _without(units: np.ndarray, left_out: Sequence[np.ndarray]) -> np.ndarray:
    """The set once for each element of `left_out`, without its units: bool [len(left_out), units]."""
    masks = np.repeat(units[None], len(left_out), axis=0)
    for mask, gone in zip(masks, left_out, strict=True):
        mask[gone] = False
    return masks


def _random_sets(generator: np.random.Generator, size: int, num_units: int) -> list[np.ndarray]:
    sets = [np.zeros(num_units, bool) for _ in range(RANDOM_SETS)]
    for mask in sets:
        mask[generator.choice(num_units, size, replace=False)] = True
    return sets


def mean_fractions(total: Any, indirect: Any, rows: np.ndarray) -> np.ndarray:
    """Mean indirect effects [G] over the mean total effect, of the pairs `rows`."""
    whole, part = np.asarray(total, np.float64)[rows], np.asarray(indirect, np.float64)[:, rows]
    if not len(rows) or abs(whole.mean()) < 1e-8:
        raise ValueError(
            "the total effect of these pairs on the outcome is zero, or that of every other one: there is no effect "
            "whose circuit could be chosen on one half and measured on the other. Look at the pairs, give more, or "
            "choose another outcome"
        )
    return part.mean(axis=1) / whole.mean()


def _num_units(model: Any, params: PyTree, pairs: Any, site: str) -> int:
    read = as_pairs(pairs)
    shapes = site_shapes(model, params, read.x, read.key)
    check_site(site, shapes)
    if not jnp.issubdtype(shapes[site].dtype, jnp.floating):
        raise ValueError(f"site {site!r} holds {shapes[site].dtype} codes; circuits are sets of real units")
    return shapes[site].shape[-1]


# --- one factor, several sites: wiring -------------------------------------------------------------------


class Wiring(NamedTuple):
    """A factor's circuits at several sites, and the paths between one and the next."""

    factor: str
    circuits: dict[str, Circuit]  # in forward order
    edges: dict[tuple[str, str], np.ndarray]  # (site, next site) -> [units, units] fractions of the total effect


def trace(
    model: Any,
    params: PyTree,
    pairs: Pairs | tuple[jax.Array, jax.Array],
    sites: Sequence[str],
    *,
    factor: str = "",
    outcome: Outcome = unscaled_projection,
    chunk: int | None = None,
    **options: Any,
) -> Wiring:
    """Returns a factor's circuit at every site of `sites`, and its edges by path patching between neighbors.

    An edge is the mean effect on the outcome of a sender through one receiver only, over the mean total
    effect, of the pairs that measure the circuits and did not choose them.

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: of one factor, as `counterfactuals` gives them.
      sites: two or more, in any order; they are taken in the order of the forward pass.
      factor: its name, for the graph.
      outcome: as in `interventions.mediate`.
      chunk: runs at once; bounds memory, not results.
      **options: of `find_circuit`.
    """
    read = as_pairs(pairs)
    shapes = site_shapes(model, params, read.x, read.key)
    for site in sites:
        check_site(site, shapes)
    sites = [site for site in shapes if site in sites]
    circuits = {
        site: find_circuit(model, params, pairs, site, outcome=outcome, chunk=chunk, **options) for site in sites
    }
    total, _ = indirect_effects(model, params, pairs, sites[0], groups="site", outcome=outcome, chunk=chunk)
    _, measuring = halves_of(np.asarray(total))
    edges = {}
    for site, following in zip(sites, sites[1:], strict=False):
        sender, receiver = ((s, circuits[s].units) for s in (site, following))
        paths = path_effects(model, params, pairs, sender, receiver, outcome=outcome, chunk=chunk).path
        fractions = mean_fractions(total, paths.reshape(-1, paths.shape[-1]), measuring)
        edges[site, following] = fractions.reshape(paths.shape[:2])
    return Wiring(factor, circuits, edges)


# --- several factors -------------------------------------------------------------------------------------


def check_same_dataset(pairs: Mapping[str, Pairs]) -> None:
    """Checks that factors can be compared: all pairs from one data set, and of one kind.

    Raises:
      ValueError: for pairs of different data sets, and for matched pairs beside counterfactual ones.
    """
    sources = sorted({p.dataset for p in pairs.values() if isinstance(p, Pairs)})
    if len(sources) > 1:
        raise ValueError(f"pairs come from different data sets ({', '.join(sources)}): compare factors of one set")
    observational = sorted(name for name, p in pairs.items() if isinstance(p, Pairs) and p.observational)
    if observational and len(observational) < len(pairs):
        raise ValueError(f"pairs of {', '.join(observational)} are matched, not counterfactual: do not mix the two")


def find_circuits(
    model: Any, params: PyTree, pairs: Mapping[str, Pairs], site: str, **options: Any
) -> dict[str, Circuit]:
    """Returns factor -> its circuit at a site.

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: factor -> pairs of one data set that differ in it.
      site: whose units the circuits are made of.
      **options: of `find_circuit`.

    Raises:
      ValueError: for pairs of different data sets, and as `find_circuit` does.
    """
    check_same_dataset(pairs)
    return {factor: find_circuit(model, params, p, site, **options) for factor, p in pairs.items()}


def overlap(circuits: Mapping[str, Circuit]) -> np.ndarray:
    """Returns the Jaccard index of the units of every two factors' circuits at one site: [K, K], 1 on the diagonal."""
    sets = [set(circuit.units.tolist()) for circuit in circuits.values()]
    return np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])


class Motifs(NamedTuple):
    """What units of one site do for the factors."""

    dedicated: dict[int, str]  # unit -> the one factor that it serves
    shared: dict[int, tuple[str, ...]]  # unit -> the factors that it serves, two or more
    split: dict[str, tuple[int, ...]]  # factor -> the units that serve it, two or more
    idle: tuple[int, ...]  # units that serve none

    @property
    def merged(self) -> dict[int, tuple[str, ...]]:
        """The same as `shared`: the word for latents."""
        return self.shared


def motifs(circuits: Mapping[str, Circuit]) -> Motifs:
    """Returns dedicated, shared (of latents: merged), split and idle units, from the factors' circuits at one site.

    Raises:
      ValueError: for circuits of different sites.
    """
    num_units = {len(circuit.effects) for circuit in circuits.values()}
    if len(num_units) != 1 or len({circuit.site for circuit in circuits.values()}) != 1:
        raise ValueError("motifs are of one site: give every factor's circuit at the same one")
    served = {
        unit: tuple(factor for factor, circuit in circuits.items() if unit in circuit.units)
        for unit in range(num_units.pop())
    }
    return Motifs(
        {unit: factors[0] for unit, factors in served.items() if len(factors) == 1},
        {unit: factors for unit, factors in served.items() if len(factors) > 1},
        {f: tuple(sorted(map(int, c.units))) for f, c in circuits.items() if len(c.units) > 1},
        tuple(unit for unit, factors in served.items() if not factors),
    )


class Selectivity(NamedTuple):
    """Which factor each unit of a site serves, and how exclusively."""

    effects: np.ndarray  # [units, K] E|NIE| over pairs that differ in the factor
    selectivity: np.ndarray  # [units] 1 - H(p) / log K; NaN where the unit does not count
    factor: np.ndarray  # [units] the factor with the largest effect
    floor: np.ndarray  # [units] the largest effect that permuted pairs give, in 95 of 100 permutations
    permuted: np.ndarray  # [units] mean selectivity of permuted pairs: what few pairs give by chance


def selectivity(
    model: Any,
    params: PyTree,
    pairs: Mapping[str, Pairs],
    site: str,
    *,
    permutations: int = 200,
    seed: int = 0,
    outcome: Outcome = projected_change,
    chunk: int | None = None,
) -> Selectivity:
    """Returns the monosemanticity of a site's units over factors, with the noise floor that permuted pairs give.

    Source: this library. p_u(k) is proportional to E|NIE_u| over pairs that differ in factor k. The floor comes from
    dealing the pairs out to factors at random; a unit counts if its largest effect exceeds it. A unit that serves all
    factors alike does not differ from chance in this sense, and does not count: see `effects`.

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: factor -> pairs of one data set that differ in it.
      site: whose units are judged.
      permutations: how often pairs are dealt out, from `seed`.
      seed: of the permutations.
      outcome: as in `interventions.mediate`.
      chunk: runs at once; bounds memory, not results.

    Raises:
      ValueError: for pairs of different data sets, and as `interventions.mediate` does.
    """
    check_same_dataset(pairs)
    effects = []
    for factor_pairs in pairs.values():
        _, indirect = indirect_effects(model, params, factor_pairs, site, outcome=outcome, chunk=chunk)
        effects.append(np.abs(np.asarray(indirect, np.float64)))
    owner = np.repeat(np.arange(len(effects)), [e.shape[1] for e in effects])
    pooled = np.concatenate(effects, axis=1)
    defined = np.isfinite(pooled).all(axis=0)
    pooled, owner = pooled[:, defined], owner[defined]
    generator, largest, chance = np.random.default_rng(seed), [], []
    for _ in range(permutations):
        permuted = _means(pooled, generator.permutation(owner), len(effects))
        largest.append(permuted.max(axis=1))
        chance.append(np.asarray(metrics.unit_selectivity(permuted).selectivity))
    means, floor = _means(pooled, owner, len(effects)), np.quantile(largest, 0.95, axis=0)
    result = metrics.unit_selectivity(means, jnp.asarray(floor))
    found = np.asarray(result.selectivity), np.asarray(result.factor)
    return Selectivity(means, *found, floor, np.mean(chance, axis=0))


def _means(effects: np.ndarray, owner: np.ndarray, num_factors: int) -> np.ndarray:
    """Mean of effects [units, pairs] over the pairs of each factor: [units, K]."""
    return np.stack([effects[:, owner == k].mean(axis=1) for k in range(num_factors)], axis=1)


def carriers(
    model: Any,
    params: PyTree,
    pairs: Mapping[str, Pairs],
    sites: str | Sequence[str],
    *,
    outcome: Outcome = projected_change,
    chunk: int | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, dict[str, Claims]]:
    """Returns site -> factor -> which units carry the factor's effect on the outcome, by their indirect effects.

    The family is the whole search: the chance of any false claim, over all units of all sites and all factors
    together, is at most the level. All pairs decide; none need be held back to measure. Effects are shares of the mean
    total effect.

    Args:
      model: as in `interventions.mediate`; so are params.
      params: any pytree.
      pairs: factor -> pairs of one data set that differ in it.
      sites: whose units are searched.
      outcome: as in `interventions.mediate`.
      chunk: runs at once; bounds memory, not results.
      seed: of the draws of `interventions.claims`.
      **options: its `method`, `least`, `level` and `draws`.

    Raises:
      ValueError: for pairs of different data sets, and as `interventions.claims` and `interventions.mediate` do.
    """
    check_same_dataset(pairs)
    sites = (sites,) if isinstance(sites, str) else tuple(sites)
    found: dict[str, dict[str, Claims]] = {site: {} for site in sites}
    for number, (factor, part) in enumerate(pairs.items()):
        total, effects = None, []
        for site in sites:
            total, indirect = indirect_effects(model, params, part, site, outcome=outcome, chunk=chunk)
            effects.append(np.asarray(indirect))
        key = jax.random.fold_in(jax.random.key(seed), number)
        family = claims(np.concatenate(effects), key, total=total, families=len(pairs), **options)
        ends = np.cumsum([len(e) for e in effects])
        for site, end, of_site in zip(sites, ends, effects):
            units = slice(end - len(of_site), end)
            parts = {name: field[units] for name, field in family._asdict().items() if np.ndim(field)}
            found[site][factor] = family._replace(**parts)
    return found


# --- as a graph ------------------------------------------------------------------------------------------


def as_graph(wiring: Wiring, smallest: float = 0.01) -> dict[str, Any]:
    """Returns nodes and edges of a factor's circuits as node-link JSON, which `networkx.node_link_graph` reads.

    Args:
      smallest: edges whose absolute effect is below it are left out.
    """
    nodes, edges = [], []
    for layer, (site, circuit) in enumerate(wiring.circuits.items()):
        for unit in circuit.units.tolist():
            effect = float(circuit.effects[unit])
            nodes.append({"id": f"{site}:{unit}", "site": site, "unit": unit, "layer": layer, "effect": effect})
    for (site, following), effects in wiring.edges.items():
        ends = wiring.circuits[site].units, wiring.circuits[following].units
        for i, j in np.argwhere(np.abs(effects) >= smallest - TIE):
            source, target = f"{site}:{ends[0][i]}", f"{following}:{ends[1][j]}"
            edges.append({"source": source, "target": target, "effect": float(effects[i, j])})
    return {
        "directed": True,
        "multigraph": False,
        "graph": {"factor": wiring.factor},
        "nodes": nodes,
        "edges": edges,
    }


def save_graph(graph: Mapping[str, Any], path: str | pathlib.Path) -> None:
    """Writes the node-link graph as a JSON file."""
    pathlib.Path(path).write_text(json.dumps(graph, indent=1))
