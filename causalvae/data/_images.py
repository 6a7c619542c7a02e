"""Images that a user brings: what is checked of them, and how they are resized. Host code, numpy and Pillow."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from PIL import Image

Size = int | str | tuple[int, int]  # 32, "32", "32x48" or (32, 48): height and width, px


def checked(images: Any) -> np.ndarray:
    """Returns images [N, H, W, C] as uint8, 0 to 255, or as float32 in [0, 1], as they were given.

    Args:
        images: [N, H, W, C] or [N, H, W]; C is 1 or 3. uint8, bool (black and white) or floats in [0, 1].

    Raises:
        ValueError: of another shape, layout, type or range; says what to do.
    """
    pixels = _with_channels(np.asarray(images))
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint8:
        if pixels.max() <= 1:
            raise ValueError(
                f"uint8 images are in 0 to 255, but these reach {pixels.max()} only: black and white is "
                "images.astype(bool), or images * 255"
            )
        return pixels
    if pixels.dtype.kind != "f":
        raise ValueError(f"images are {pixels.dtype}: give uint8 (0 to 255), bool, or floats in [0, 1]")
    with np.errstate(over="ignore"):  # what single precision cannot hold is infinite, and refused as that
        pixels = pixels.astype(np.float32)
    _check_range(pixels)
    return pixels


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    shape = list(pixels.shape)
    if pixels.ndim == 3 and shape[-1] in (1, 3):
        raise ValueError(f"images are {shape}, which is one image [H, W, C]: a data set is [N, H, W, C]")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or 0 in shape:
        raise ValueError(f"images are [N, H, W, C] or [N, H, W], at least one of them, not {shape}")
    if pixels.shape[3] not in (1, 3):
        hint = ""
        if shape[1] in (1, 3):
            hint = ". They have their channels first: images.transpose(0, 2, 3, 1) puts them last"
        elif shape[3] == 4:
            hint = ". The fourth is opacity: images[..., :3] leaves it out"
        raise ValueError(f"images have 1 or 3 channels, and these are {shape}{hint}")
    return pixels


def _check_range(pixels: np.ndarray) -> None:
    bad = ~np.isfinite(pixels)
    if bad.any():
        rows = np.flatnonzero(bad.any(axis=(1, 2, 3)))
        raise ValueError(
            f"{len(rows):,} of {len(pixels):,} images have pixels that are NaN or infinite: {_first(rows)}"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:
        if 0 < high < 1.5 / 255:
            raise ValueError(f"images are in [0, 1], but these reach {high:.2g} only: were they divided by 255 twice?")
        return
    if low < 0:
        mend = "(images + 1) / 2 maps -1 to 1" if low >= -1 and high <= 1 else "undo their standardization"
    else:
        mend = "divide them by 255, or give uint8" if high > 2 else "clip or rescale them"
    raise ValueError(f"float images are in [0, 1], but these are in [{low:g}, {high:g}]: {mend}")


def _first(rows: np.ndarray) -> str:
    return ", ".join(map(str, rows[:3])) + (", …" if len(rows) > 3 else "")


def parsed_size(resize: Size) -> tuple[int, int]:
    """Returns (height, width) of 32, "32", "32x48" or (32, 48); ValueError for anything else."""
    if isinstance(resize, str):
        found = re.fullmatch(r"(\d+)(?:[x×](\d+))?", resize.strip())
        sides: Any = (found[1], found[2] or found[1]) if found else ()
    else:
        sides = (resize, resize) if np.ndim(resize) == 0 else resize
    try:
        height, width = (int(side) for side in sides)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(
            f"resize is a size in px, such as 32, or height and width, (32, 48) or '32x48': not {resize!r}"
        )
    return height, width


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns images [N, *size, C] of the type of `images` [N, H, W, C]; see `filter_for`."""
    if images.shape[1:3] == size:
        return images
    height, width = size
    chosen = Image.Resampling[filter_for(images.shape[1:3], size).upper()]
    result = np.empty((len(images), height, width, images.shape[3]), images.dtype)
    for n, image in enumerate(images):
        for c in range(images.shape[3]):
            channel = Image.fromarray(np.ascontiguousarray(image[..., c]))
            result[n, ..., c] = np.asarray(channel.resize((width, height), chosen))
    return result if result.dtype == np.uint8 else np.clip(result, 0, 1)


def filter_for(shape: tuple[int, ...], size: tuple[int, int]) -> str:
    """Returns Pillow's filter for one size and another: areas ("box") where images shrink, else "bilinear"."""
    return "box" if size[0] <= shape[0] and size[1] <= shape[1] else "bilinear"
