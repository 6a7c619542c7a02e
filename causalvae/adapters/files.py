"""Parameters of any model from and to files: safetensors, and Orbax checkpoints as users have them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from causalvae._inputs import named_leaves
from causalvae.progress import write_bytes

PyTree = Any
METADATA = "_METADATA"  # the file by which Orbax knows a folder that holds a pytree


def save_params(path: str | os.PathLike, params: PyTree) -> None:
    """Writes a pytree of arrays to a safetensors file, whole or not at all.

    Names are paths, "encoder/Dense_0/kernel"; typed PRNG keys are stored as their raw data.

    Args:
      path: of the file, "mine.safetensors".
      params: of any model, ours or not.

    Raises:
      ValueError: where something in it is no array.
    """
    arrays = {}
    for name, leaf in named_leaves(params).items():
        if not hasattr(leaf, "shape"):
            raise ValueError(f"params {name} is a {type(leaf).__name__}, not an array")
        arrays[name] = np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf, order="C")
    write_bytes(pathlib.Path(path), safetensors.numpy.save(arrays))


def load_params(path: str | os.PathLike, like: PyTree = None) -> PyTree:
    """Returns the arrays of a safetensors file or of an Orbax checkpoint.

    Args:
      path: a file, or the folder of a checkpoint: also one in which a manager keeps steps, whose latest is taken.
      like: parameters, or their shapes, of the structure to return: `jax.eval_shape(module.init, key, x)`. None returns
        nested dictionaries; of a whole training state, pick what is wanted: `load_params(path)["params"]`.

    Raises:
      FileNotFoundError: where nothing is there.
      ValueError: listing every array that `like` has and the file lacks, or has in another shape.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.is_dir():
        found = _orbax(_checkpoint(path))
    else:
        found = _nested(_safetensors(path))
    return found if like is None else fitted(named_leaves(found), like, str(path))


def fitted(arrays: Mapping[str, Any], like: PyTree, where: str) -> PyTree:
    """Returns named arrays in the structure and the dtypes of `like`; what else there is, is left out.

    Raises:
      ValueError: listing every array that is missing or has another shape.
    """
    wanted, leaves, faults = named_leaves(like), [], []
    for name, leaf in wanted.items():
        shape = jax.eval_shape(jax.random.key_data, leaf).shape if _is_key(leaf) else tuple(np.shape(leaf))
        names = name, f"{name}/value", name.removesuffix("/value")  # an NNX variable may be written either way
        array = next((arrays[name] for name in names if name in arrays), None)
        if array is None:
            faults.append(f"{name} {list(shape)} is missing")
        elif np.shape(array) != shape:
            faults.append(f"{name} {list(shape)} is {list(np.shape(array))} there")
        else:
            leaves.append(
                jax.random.wrap_key_data(array)
                if _is_key(leaf)
                else jnp.asarray(array, jax.dtypes.canonicalize_dtype(leaf.dtype))
            )
    if faults:
        have = ", ".join(f"{name} {list(np.shape(array))}" for name, array in arrays.items())
        raise ValueError(f"{len(faults)} arrays do not fit: {'; '.join(faults)}. {where} has: {have}")
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # the library's errors have no base of their own
        raise ValueError(f"{path} is not a safetensors file ({error})") from error


def _nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """'a/b' -> array as dictionaries in dictionaries."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split("/")
        here = tree
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = array
    return tree


def _checkpoint(folder: pathlib.Path) -> pathlib.Path:
    """The folder that holds a pytree: this one, or one inside, of the latest step."""
    inside = sorted(path.parent for path in folder.rglob(METADATA))
    steps = [(path.relative_to(folder).parts or ("",))[0] for path in inside]
    managed = bool(inside) and all(step.isdecimal() for step in steps)
    last = max(map(int, steps)) if managed else None
    latest = [path for path, step in zip(inside, steps, strict=True) if not managed or int(step) == last]
    if len(latest) != 1:
        listed = ", ".join(str(path) for path in latest) or "none"
        raise ValueError(f"{folder} is no Orbax checkpoint of one pytree; those inside are: {listed}. Give one of them")
    return latest[0].resolve()


def _orbax(folder: pathlib.Path) -> PyTree:
    """The pytree of a checkpoint, as numpy arrays, wherever it was written."""
    import orbax.checkpoint as ocp  # takes a second

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        metadata: Any = checkpointer.metadata(folder)
        tree = getattr(metadata, "item_metadata", metadata)
        tree = getattr(tree, "tree", tree)
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder, ocp.args.PyTreeRestore(restore_args=arguments))


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
