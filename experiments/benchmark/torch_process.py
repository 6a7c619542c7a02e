"""PyTorch in a process of its own, so that it has its own threads and allocator, on the device that JAX uses."""

from __future__ import annotations

import concurrent.futures
import importlib
import importlib.util
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

NO_TORCH = "PyTorch is not installed, so there is nothing to compare with: pip install .[torch]"


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def on_gpu() -> bool:
    """Whether JAX computes on a GPU; PyTorch is to use the same."""
    return jax.default_backend() == "gpu"


class torch_process:  # noqa: N801 - used as a function in a with statement
    """`call(name, *arguments)` runs a function of torch_side.py in a process of its own."""

    def __init__(self, params: Any, images: np.ndarray):
        self.pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.arguments = (len(os.sched_getaffinity(0)), params, images, on_gpu())

    def __enter__(self) -> Callable[..., Any]:
        self.call("prepare", *self.arguments)
        return self.call

    def __exit__(self, *exception: Any) -> None:
        self.pool.shutdown()

    def call(self, name: str, *arguments: Any) -> Any:
        return self.pool.submit(_call_torch, name, arguments).result()


def _call_torch(name: str, arguments: tuple) -> Any:
    return getattr(importlib.import_module("experiments.benchmark.torch_side"), name)(*arguments)
