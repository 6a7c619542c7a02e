"""Whether the images of a grid lie in the order that is taken for granted, where a file has no labels to say so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SKIP = "CAUSALVAE_CHECK_ORDER"  # an environment variable: "0" takes the files as they are
VALUES, TRIALS = 20, 500  # factors with fewer values have steps too large to tell
ENOUGH = 0.75  # share of trials; chance is 0.5, with a standard error of 0.02


def check_order(path: Path, images: np.ndarray, names: Sequence[str], ordered: Sequence[str]) -> None:
    """Checks that neighbors along ordered factors look more alike than images far apart.

    An image is compared with its neighbor and with one at least a quarter of the range away, all else the same. In
    permuted images or noise the neighbor is the nearer one in half of the trials; in the stand-in of MPI3D in all.

    Args:
        path: What to name in an error.
        images: [*grid, H, W, C] uint8.
        names: Of the grid's axes.
        ordered: Those of them whose values have an order in what is seen.

    Raises:
        ValueError: neighbors do not look alike.
    """
    if os.environ.get(SKIP) == "0":
        return
    for axis, name in enumerate(names):
        if name in ordered and images.shape[axis] >= VALUES:
            share = _neighbor_is_nearer(images, axis)
            if share < ENOUGH:
                raise ValueError(
                    f"{path}: images whose {name} is one step apart look no more alike than those far apart (nearer in "
                    f"{share:.0%} of {TRIALS} trials): its images are permuted, or damaged, and have no labels to sort "
                    f"them by. Fetch the file from its authors; {SKIP}=0 in the environment takes it as it is"
                )


def _neighbor_is_nearer(images: np.ndarray, axis: int) -> float:
    """The share of trials in which the neighbor along an axis is nearer than an image far away; ties are half."""
    generator = np.random.default_rng(0)
    grid, size = images.shape[:-3], images.shape[axis]
    nearer = 0.0
    for _ in range(TRIALS):
        position = [int(generator.integers(n)) for n in grid]
        value = position[axis]
        far = [v for v in range(size) if abs(v - value) >= size // 4]
        others = value + (1 if value + 1 < size else -1), int(generator.choice(far))
        base, near, distant = (_at(images, position, axis, v) for v in (value, *others))
        difference = np.square(base - near).sum() - np.square(base - distant).sum()
        nearer += 0.5 if difference == 0 else float(difference < 0)
    return nearer / TRIALS


def _at(images: np.ndarray, position: Sequence[int], axis: int, value: int) -> np.ndarray:
    place = (*position[:axis], value, *position[axis + 1 :])
    return images[place].astype(np.int64)
