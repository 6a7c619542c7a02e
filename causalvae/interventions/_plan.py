"""The plan of an effect on an outcome: its arguments, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from causalvae.interventions._checks import as_pytree, check_chunk, warn_of_no_change
from causalvae.interventions._groups import Groups, make_groups
from causalvae.interventions._runs import Outcome
from causalvae.interventions.factors import Pairs, as_pairs
from causalvae.interventions.outcomes import check_outcome
from causalvae.model import forward_of, sites_of

PyTree = Any


class Plan(NamedTuple):
    """What is patched, in which runs, and what its effect is measured on."""

    forward: Callable
    pairs: Pairs
    groups: Groups
    outcome: Callable  # a pytree
    chunk: int
    shapes: Any  # site -> shape of its activation, in forward order

    @property
    def rows(self) -> tuple:
        """(x, x_source, keys), each with a row axis."""
        return self.pairs.x, self.pairs.x_source, self.pairs.keys


def make_plan(
    model: Any,
    params: PyTree,
    pairs: Any,
    site: str | Sequence[str],
    groups: Any,
    outcome: Outcome,
    chunk: int | None,
) -> Plan:
    """Returns the plan; ValueError, in words, for whatever does not fit together."""
    given, pairs, outcome = pairs, as_pairs(pairs), as_pytree(outcome)
    shapes = sites_of(model, params, pairs.x, pairs.key)
    groups = make_groups(shapes, site, groups)
    check_outcome(forward_of(model), params, pairs, outcome)
    warn_of_no_change(given)
    return Plan(forward_of(model), pairs, groups, outcome, check_chunk(chunk), shapes)
