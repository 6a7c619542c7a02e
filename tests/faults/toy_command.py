"""Commands on toy images. A server that has imported everything forks a process for each, which saves imports."""

import functools
import hashlib
import multiprocessing
import os
import pickle
import resource
import runpy
import sys

import jax
import numpy as np
import toy

from causalvae import evaluation, runs
from experiments import pipeline, streams  # noqa: F401 (imported before the fork, as what follows)
from experiments.report import page  # noqa: F401
from experiments.study import explorers, runner  # noqa: F401


def server():
    """Returns what makes processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_command"])
    return context


def remembered(evaluate, folder, fills, model, params, dataset, settings, untrained):
    """An evaluation, which the same parameters give again: taken from the cache where it has been made. (What is tested
    here is how results are kept, not how they are found.)"""
    leaves = jax.tree.leaves((params, untrained))
    text = b"".join(np.asarray(leaf).tobytes() for leaf in leaves) + repr((model.name, settings)).encode()
    path = folder / f"{hashlib.sha256(text).hexdigest()}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())
    found = evaluate(model, params, dataset, settings, untrained)
    if fills:
        path.write_bytes(pickle.dumps(found))
    return found


def run(words, streams_folder, cache, fills_cache=False, limit=None):
    """The whole life of a process: `python -m experiments.<words>`, with its streams in files of a folder.

    cache: of compiled programs. (Killed while it writes there, a process would leave what fails all later reads.)
    limit: bytes that a file may have, at most; more is as on a full disk.
    """
    streams.stop_at_once()  # as `python -m` does it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(streams_folder / "err", os.O_WRONLY), 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_compilation_cache_max_size", -1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0 if fills_cache else 1000.0)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    runs.load_dataset = lambda config: toy.dataset()
    evaluation.evaluate = functools.partial(remembered, evaluation.evaluate, cache, fills_cache)
    sys.argv = [f"{words[0]}.py", *words[1:]]
    (streams_folder / "begun").touch()
    runpy.run_module(f"experiments.{words[0]}", run_name="__main__", alter_sys=True)
