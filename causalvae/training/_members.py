"""How the members of an ensemble are computed: one after the other, or side by side, and their convolutions by what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from causalvae import layers, sharding

PyTree = Any


class Ensemble(NamedTuple):
    """A way to compute members, all with the same values but for rounding."""

    side_by_side: bool | None  # under vmap, or else by lax.map; None: as is best where the program will run
    form: str | None  # of convolutions, see layers.preferring; None: likewise


# Under vmap over parameters a convolution becomes one with feature groups, for which a device may have no fast kernel;
# a product of windows becomes a batched product, of more numbers. Which wins is the device's affair:
# `python -m experiments.benchmark --only=convolutions` measures it.
ENSEMBLES = {
    "auto": Ensemble(None, None),
    "grouped": Ensemble(True, "conv"),
    "products": Ensemble(True, "products"),
    "in_turn": Ensemble(False, None),
}


def map_members(function: Callable, mesh: Mesh | None, *arguments: PyTree, ensemble: str = "auto") -> PyTree:
    """Returns `function` over the leading member axis of every argument.

    By "auto", on a CPU members run one after the other: a batched matrix product gains nothing there, and one member at
    a time stays in cache. On accelerators they run side by side, and on a mesh each device has its share.

    Args:
        function: Of one member's arguments.
        mesh: Of the devices that members are spread over, or None.
        *arguments: With a leading member axis.
        ensemble: A name of `ENSEMBLES`.

    Raises:
        ValueError: for another name; and for "in_turn" on a mesh, whose devices would wait for each other.
    """
    if ensemble not in ENSEMBLES:
        raise ValueError(f"no training.ensemble {ensemble!r}; there are: {', '.join(ENSEMBLES)}")
    side_by_side, form = ENSEMBLES[ensemble]
    if mesh is not None and side_by_side is False:
        raise ValueError(
            f"training.ensemble is 'in_turn', and {mesh.size} devices share the members: choose another, or one device"
        )
    with layers.preferring(form):
        return _mapped(function, mesh, arguments, side_by_side)


def _mapped(function: Callable, mesh: Mesh | None, arguments: tuple[PyTree, ...], side_by_side: bool | None) -> PyTree:
    if mesh is not None:
        return jax.vmap(function, spmd_axis_name=sharding.MEMBER)(*arguments)
    members = jax.tree.leaves(arguments)[0].shape[0]
    if members == 1:
        squeezed = jax.tree.map(lambda leaf: leaf[0], arguments)
        return jax.tree.map(lambda leaf: leaf[None], function(*squeezed))

    def in_turn(*arguments):
        return jax.lax.map(lambda row: function(*row), arguments)

    if side_by_side is not None:
        return (jax.vmap(function) if side_by_side else in_turn)(*arguments)
    return jax.lax.platform_dependent(*arguments, cpu=in_turn, default=jax.vmap(function))
