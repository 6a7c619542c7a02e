"""Factors of the benchmarks: names and sizes in storage order (row-major, last fastest)."""

from __future__ import annotations

Factors = tuple[tuple[str, int], ...]

# dSprites' sixth factor, color, is constant: it is dropped here and wherever factors are counted.
DSPRITES: Factors = (("shape", 3), ("scale", 6), ("orientation", 40), ("posX", 32), ("posY", 32))
SHAPES3D: Factors = (
    ("floor_hue", 10),
    ("wall_hue", 10),
    ("object_hue", 10),
    ("scale", 8),
    ("shape", 4),
    ("orientation", 15),
)
MPI3D: Factors = (
    ("object_color", 6),
    ("object_shape", 6),
    ("object_size", 2),
    ("camera_height", 3),
    ("background_color", 3),
    ("horizontal_axis", 40),
    ("vertical_axis", 40),
)
MPI3D_COMPLEX: Factors = (("object_color", 4), ("object_shape", 4)) + MPI3D[2:]
SMALLNORB: Factors = (("category", 5), ("elevation", 9), ("azimuth", 18), ("lighting", 6))


def names(factors: Factors) -> tuple[str, ...]:
    """The factors' names, in order."""
    return tuple(name for name, _ in factors)


def sizes(factors: Factors) -> tuple[int, ...]:
    """How many values each factor takes, in order."""
    return tuple(size for _, size in factors)
