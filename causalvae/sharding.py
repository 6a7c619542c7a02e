"""Ensembles on several devices and hosts: members along one axis of a mesh, each member's batch along another.

The program is the same as on one device; the compiler splits it. Losses that look at a whole batch (total
correlation, DIP) therefore stay what they are, whatever the number of devices.

    mesh = sharding.make_mesh(members=6, batch_size=64)      # None on a single device
    state = sharding.shard_members(state, mesh)

On several hosts, call `jax.distributed.initialize` first; every process then makes the same calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

PyTree = Any
MEMBER, DATA = "member", "data"


def make_mesh(members: int, batch_size: int, devices: Sequence[Any] | None = None) -> Mesh | None:
    """Returns a mesh (member, data) over devices, or None where one device is left.

    As many devices as divide the members evenly go to members, as many of the rest as divide the batch to that.

    Args:
        members: Of the ensemble.
        batch_size: Of one member.
        devices: By default all, of all hosts.
    """
    devices = jax.devices() if devices is None else devices
    member = math.gcd(members, len(devices))
    data = math.gcd(batch_size, len(devices) // member)
    if member * data == 1:
        return None
    grid = np.asarray(devices[: member * data]).reshape(member, data)
    return Mesh(grid, (MEMBER, DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def shard_members(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Returns leaves with a leading member axis spread over the mesh; scalars, and all for None, as they are.

    On several hosts every process passes the same values.
    """
    return _place(tree, mesh, lambda leaf: PartitionSpec(MEMBER) if np.ndim(leaf) else PartitionSpec())


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Returns the same leaves on every device of the mesh, e.g. a data set's."""
    return _place(tree, mesh, lambda leaf: PartitionSpec())


def _place(tree: PyTree, mesh: Mesh | None, spec) -> PyTree:
    if mesh is None:
        return tree
    return jax.tree.map(lambda leaf: _put(leaf, NamedSharding(mesh, spec(leaf))), tree)


def _put(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    # An array that is committed to a device here cannot be spread over other hosts' devices; its values can.
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding))
    return jax.device_put(np.asarray(leaf), sharding)


def shard_batch(images: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Returns a batch [B, ...] inside a compiled program, spread over the mesh's data axis."""
    if mesh is None:
        return images
    return jax.lax.with_sharding_constraint(images, NamedSharding(mesh, PartitionSpec(DATA)))


def place_batches(
    shape: tuple[int, ...], read: Callable[[tuple[slice, ...]], np.ndarray], mesh: Mesh | None
) -> jax.Array:
    """Returns an array [S, M, B, ...] spread over members and batch, of which each host reads what its devices need.

    Args:
        shape: Of the whole.
        read: From slices of the first three axes to what lies there.
        mesh: None puts the whole on the default device.
    """
    if mesh is None:
        return jnp.asarray(read((slice(None),) * 3))
    spread = NamedSharding(mesh, PartitionSpec(None, MEMBER, DATA))
    return jax.make_array_from_callback(shape, spread, lambda part: read(tuple(part or ())[:3]))


def fetch(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Returns the whole of every leaf on this host's first device, whichever devices and hosts hold it.

    Every process must call it. A mesh of None returns the tree itself.
    """
    return tree if mesh is None else jax.tree.map(_whole, tree)


def _whole(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_whole(jax.random.key_data(leaf)))
    if leaf.is_fully_addressable:
        return jax.device_put(np.asarray(leaf))
    return jax.device_put(multihost_utils.process_allgather(leaf, tiled=True))


def is_first_process() -> bool:
    """Returns whether this process is the one that writes what all of them know."""
    return jax.process_index() == 0


def on_any_process(flag: bool) -> bool:
    """Returns whether `flag` is true on any host; every process must call it."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
