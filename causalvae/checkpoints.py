"""Save and restore: Orbax, atomic, the latest step kept plus the best.

A checkpoint is one pytree of arrays (training.TrainState). Two functions and the manager they share; typed
PRNG keys are stored as their raw data.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import _files
from causalvae.progress import write_json, writing

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

PyTree = Any
DIGESTS = "digests.json"  # in the folder of a step: what its files were when they were saved
METRIC = "loss"  # what "best" means: the lowest training loss, averaged since the last report


class _LatestAndBest:
    """Orbax's rule of what to keep: the latest step, and the one with the lowest loss as its folder says. (Orbax
    forgets losses when its process ends, and would keep every step of the one before.)"""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        losses = {info.step: _stored_loss(self.directory / str(info.step)) for info in checkpoints}
        kept = {max(losses, default=0)}
        if any(math.isfinite(loss) for loss in losses.values()):
            kept.add(min(losses, key=lambda step: (losses[step], step)))
        return [info.step in kept for info in checkpoints]


def _stored_loss(folder: pathlib.Path) -> float:
    """The loss that a checkpoint was saved with; infinite where it says none, and so never the best."""
    try:
        value = json.loads((folder / "_CHECKPOINT_METADATA").read_text())["custom_metadata"][METRIC]
        return float(value) if math.isfinite(value) else math.inf
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def manager(directory: str | pathlib.Path) -> ocp.CheckpointManager:
    """Returns the checkpoint manager of a run: it keeps the latest step and the best one, also over interruptions."""
    import orbax.checkpoint as ocp  # takes a second

    directory = pathlib.Path(directory).resolve()
    policy: Any = _LatestAndBest(directory)
    options = ocp.CheckpointManagerOptions(preservation_policy=policy, create=True, enable_async_checkpointing=False)
    handlers = {"state": ocp.StandardCheckpointHandler()}
    try:
        with _quiet(), writing(directory):
            return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)
    except (OSError, _files.DamagedFile):
        raise
    except Exception as error:  # it reads what is kept beside each state
        where = f"what {directory} holds cannot be listed ({_files.one_line(error)})"
        raise _files.DamagedFile(f"{where}: delete the folder of the step that is damaged to go on") from error


def latest_step(directory: pathlib.Path) -> int:
    """Returns the last step that is saved whole in a manager's directory, 0 where none is."""
    return max((int(path.name) for path in directory.glob("[0-9]*") if path.name.isdigit()), default=0)


def save(checkpoints: ocp.CheckpointManager, step: int, state: PyTree, loss: float) -> None:
    """Writes `state` as the checkpoint of `step`. Atomic: a killed process leaves the previous one whole.

    loss: by which the best is chosen; infinite for a checkpoint that is to go as soon as there is a later one.
    """
    if step in checkpoints.all_steps():
        return
    import orbax.checkpoint as ocp

    # Values, not device arrays: of several hosts each has all of them, and Orbax lets the first one write.
    arrays = ocp.args.StandardSave(jax.tree.map(np.asarray, _without_key_types(state)))
    own = {METRIC: float(loss)} if math.isfinite(loss) else {}
    folder = pathlib.Path(checkpoints.directory) / str(step)
    with writing(folder):
        _check_room(pathlib.Path(checkpoints.directory), arrays.item)
        try:
            checkpoints.save(step, args=ocp.args.Composite(state=arrays), custom_metadata=own, force=True)
            checkpoints.wait_until_finished()
        except ValueError as error:  # TensorStore's errors are no OSErrors
            if "No space left" in str(error) or "File too large" in str(error):
                raise OSError(0, "no space left on the disk") from error
            raise
        if jax.process_index() == 0:
            write_json(folder / DIGESTS, _digests(folder))


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """File -> sha256 of every file of a step. Orbax reads a flipped bit of an array without a word."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != DIGESTS:
            with open(path, "rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _check_digests(folder: pathlib.Path) -> None:
    """DamagedFile naming the first file that is not as it was saved. Older checkpoints have no digests."""
    path = folder / DIGESTS
    if not path.exists():
        return
    mend = "delete that step's folder to go on"
    expected = _files.read_json(path, "list of a checkpoint's files", {...: str}, mend)
    with _files.reading(folder, "checkpoint", mend):
        found = _digests(folder)
    different = sorted(name for name in expected if found.get(name) != expected[name])
    if different:
        where = f"the checkpoint of step {folder.name} is damaged: {folder / different[0]}"
        raise _files.DamagedFile(f"{where} is not as it was saved; {mend}")


def _check_room(directory: pathlib.Path, state: PyTree) -> None:
    """OSError where the disk cannot hold a state: Orbax would find that out in many threads at once."""
    if shutil.disk_usage(directory).free < sum(leaf.nbytes for leaf in jax.tree.leaves(state)):
        raise OSError(errno.ENOSPC, "no space left on the disk")


def restore(checkpoints: ocp.CheckpointManager, template: PyTree, step: int | None = None) -> PyTree | None:
    """Returns the state saved at a step, or None where nothing has been saved yet.

    Args:
      checkpoints: the run's manager.
      template: a pytree of arrays or ShapeDtypeStructs of the same structure, shapes and dtypes.
      step: None for the latest.

    Raises:
      ValueError: names the first difference if the checkpoint is of another model, or says that it cannot be read.
    """
    import orbax.checkpoint as ocp

    step = checkpoints.latest_step() if step is None else step
    if step is None:
        return None
    where = f"the checkpoint of step {step} in {checkpoints.directory}"
    wanted = jax.eval_shape(_without_key_types, template)
    _check_digests(pathlib.Path(checkpoints.directory) / str(step))
    try:
        with _quiet():
            metadata: Any = checkpoints.item_metadata(step)
        found = metadata.state
    except Exception as error:  # orbax raises many types for a damaged directory
        raise _damaged(f"{where} cannot be read", error) from error
    _check_same(found, wanted, where)
    try:
        with _quiet():
            restored: Any = checkpoints.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted)))
    except Exception as error:
        raise _damaged(f"{where} is damaged", error) from error
    return jax.tree.map(_with_key_type, template, restored.state)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Around what Orbax reads: what it logs of a damaged file is said by our error, in one line."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _damaged(what: str, error: Exception) -> _files.DamagedFile:
    return _files.DamagedFile(f"{what} ({_files.one_line(error)}); delete that step's folder to go on")


def _check_same(found: PyTree, wanted: PyTree, where: str) -> None:
    if found is None:
        raise ValueError(f"{where} holds no training state; delete that step's folder to go on")
    found = {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in _leaves(getattr(found, "tree", found))}
    wanted = {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in _leaves(wanted)}
    # Orbax names the fields of tuples by their index, so compare shapes as a multiset, then name a difference.
    if sorted(found.values()) != sorted(wanted.values()):
        missing = next((f"{k} {v}" for k, v in wanted.items() if v not in found.values()), "the number of arrays")
        raise ValueError(
            f"{where} is of another model: it holds {len(found)} arrays where {len(wanted)} are wanted, and "
            f"differs at {missing}. Choose another --workdir, or the configuration that wrote it."
        )


def _leaves(tree: PyTree):
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))[0]


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_key_types(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _with_key_type(template, leaf):
    return jax.random.wrap_key_data(leaf) if _is_key(template) else leaf
