"""Many images of one shape in little space: each stored as its difference from an earlier one, deflated.

Images that an intervention made differ little from the one that it started from, and units that do nothing make
no difference at all. Differences are rounded to multiples of STEP of 255 levels (FINE_STEP, where they are small and
looked at closely), and are taken from the earlier image as it will be decoded, so errors do not add up: every pixel is
within STEP / 2 levels. Browsers inflate the
result themselves (DecompressionStream), so a page needs no image library and no network.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

STEP, FIRST_STEP = 14, 4  # levels of 255, of differences and of images that have nothing to differ from
FINE_STEP = 8  # of differences that say so
MIDDLE = 128  # what those are differences from
LEVEL = 6  # of zlib: the next ones take many times as long for 4 % less


class Tiles:
    """A growing list of images [H, W, C] in [0, 1]; `add` gives the number by which an image is called."""

    def __init__(self, image_shape: Sequence[int]):
        self.shape = tuple(image_shape)
        self._stored: list[np.ndarray] = []  # int8 [H, W, C], in steps
        self._decoded: list[np.ndarray] = []  # int16 [H, W, C]
        self._references: list[int] = []
        self._fine: list[int] = []  # the numbers of those whose differences are in FINE_STEP

    def add(self, image: np.ndarray, reference: int | None = None, fine: bool = False) -> int:
        """Keep an image, as its difference from an earlier one where `reference` names it, in small steps where it is
        `fine`; returns its number: the reference's own where the two are the same. ValueError for an image of another
        shape."""
        if np.shape(image) != self.shape:
            raise ValueError(f"an image of shape {list(np.shape(image))} among tiles of {list(self.shape)}")
        step = FIRST_STEP if reference is None else FINE_STEP if fine else STEP
        start = MIDDLE if reference is None else self._decoded[reference]
        difference = to_levels(image) - start
        steps = (np.sign(difference) * ((np.abs(difference) + step // 2 - 1) // step)).astype(np.int8)
        if reference is not None and not steps.any():
            return reference
        self._stored.append(steps)
        self._decoded.append((start + step * steps.astype(np.int16)).astype(np.int16))
        self._references.append(-1 if reference is None else reference)
        if reference is not None and fine:
            self._fine.append(len(self._stored) - 1)
        return len(self._stored) - 1

    def pack(self) -> dict[str, Any]:
        """JSON-able: shape, references, steps, the numbers of fine images, and `pixels`: base64 of deflated int8
        [tiles, C, H, W]."""
        stored = np.stack(self._stored) if self._stored else np.zeros((0, *self.shape), np.int8)
        planes = np.ascontiguousarray(np.moveaxis(stored, -1, 1))
        return {
            "shape": list(self.shape),
            "references": list(self._references),
            "step": STEP,
            "first_step": FIRST_STEP,
            "fine_step": FINE_STEP,
            "fine": list(self._fine),
            "middle": MIDDLE,
            "pixels": base64.b64encode(zlib.compress(planes.tobytes(), LEVEL)).decode(),
        }


def to_levels(image: np.ndarray) -> np.ndarray:
    """[0, 1] -> 0 … 255, int16."""
    return np.round(255 * np.clip(image, 0, 1)).astype(np.int16)


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """The images [tiles, H, W, C] uint8 of what `Tiles.pack` gave."""
    height, width, channels = packed["shape"]
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed["pixels"])), np.int8)
    stored = np.moveaxis(planes.reshape(-1, channels, height, width), 1, -1).astype(np.int16)
    images = np.empty(stored.shape, np.int16)
    fine = set(packed.get("fine", ()))  # older pages have none
    for i, reference in enumerate(packed["references"]):
        start, step = (packed["middle"], "first_step") if reference < 0 else (images[reference], "step")
        step = "fine_step" if i in fine else step
        images[i] = start + packed[step] * stored[i]
    return np.clip(images, 0, 255).astype(np.uint8)
