"""Handwritten digits that ship inside scikit-learn: real images without a download, and without known causes."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalvae.data import arrays
from causalvae.data.base import Dataset


def digits(resize: arrays.Resize = 32) -> Dataset:
    """Returns 1,797 images of digits; their one attribute is the digit.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI), the test part, as
    `sklearn.datasets.load_digits` has it: 8 × 8 px of 17 gray levels, here resized.

    Args:
        resize: Height and width in px; None leaves the original size.
    """
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    images = (found.images[..., None] / 16).astype(np.float32)
    plan = arrays.Plan("digits", attributes=True, resize=resize)
    return arrays.build(images, {"digit": found.target}, plan).replace(source="real")
