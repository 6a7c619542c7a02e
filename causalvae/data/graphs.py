"""Data sets with a causal graph among their factors: structural equations over grids, and a picture of them.

A factor's value is its mechanism's, a function of its parents and of its own exogenous noise u ~ U(0, 1). All
of a row's noise comes from the row's key, so that `intervene` under the key that drew the factors (with as
many rows) is a counterfactual, and under another key an interventional sample. An image is a function of all
factors: do(shadow_length) changes the shadow and leaves the pendulum, however impossible that is.

pendulum            light_angle, pendulum_angle -> shadow_position, shadow_length
confounded_shapes   background -> object_hue, pos_y (a confounder); object_hue -> scale -> pos_y (a mediator);
                    object_hue -> pos_y (a direct effect); shape and pos_x are independent of all
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.data.base import Dataset
from causalvae.data.procedural.shapes3d import hue_to_rgb

CANVAS = 64  # px
STEPS = 4096  # parts of a grid step in which mechanisms are computed


class CausalGraph(NamedTuple):
    """The true graph of a data set's factors."""

    factor_names: tuple[str, ...]
    adjacency: np.ndarray  # [K, K] bool; [i, j]: factor i is a cause of factor j in its mechanism


class Variable(NamedTuple):
    """A factor of a structural causal model. Variables are listed after their parents."""

    name: str
    size: int
    parents: tuple[str, ...] = ()
    mean: Callable[..., jax.Array] | None = None  # of the parents' values, in order; None: uniform
    spread: float = 0.0  # of the noise about the mean, in steps: see `noise`
    noise: str = "uniform"  # within `spread` of the mean; "laplace": with density exp(-|deviation| / spread)


def causal_graph(name: str) -> CausalGraph:
    """Returns the true graph among the factors of the data set `name`; ValueError if it has none."""
    if name not in MODELS:
        raise ValueError(f"{name!r} has no causal graph among its factors; these have: {', '.join(MODELS)}")
    model = MODELS[name]
    names = tuple(variable.name for variable in model)
    adjacency = np.array([[cause in variable.parents for variable in model] for cause in names])
    return CausalGraph(names, adjacency)


def pendulum() -> Dataset:
    """Returns a pendulum in the light of a sun, and the shadow that it throws: two causes, two effects."""
    return _dataset("pendulum", PENDULUM, render_pendulum, draw_pendulum, propagate_pendulum)


def confounded_shapes() -> Dataset:
    """Returns a shape whose hue acts on its height directly and through its scale, confounded by the background."""
    return _dataset("confounded_shapes", CONFOUNDED, render_confounded, draw_confounded, propagate_confounded)


def _dataset(
    name: str, model: tuple[Variable, ...], render_one: Callable, draw: Callable, propagate: Callable
) -> Dataset:
    return Dataset(
        name=name,
        source="procedural",
        factor_names=tuple(variable.name for variable in model),
        factor_sizes=tuple(variable.size for variable in model),
        image_shape=(CANVAS, CANVAS, 3),
        render_one=render_one,
        draw=draw,
        propagate=propagate,
        arrays={},
        provenance=(("drawn_by", __name__),),
    )


# The structural causal model


def sample_factors(model: tuple[Variable, ...], key: jax.Array) -> jax.Array:
    """Factors [K] of one unit, whose noise is drawn from `key`."""
    return _evaluate(model, key, {})


def propagate(model: tuple[Variable, ...], factors: jax.Array, factor: int, key: jax.Array) -> jax.Array:
    """Factors [K] after do(factor := its value in `factors`): descendants are evaluated anew, others kept."""
    changed = {model[factor].name}
    for variable in model:
        if changed.intersection(variable.parents) and variable.name != model[factor].name:
            changed.add(variable.name)
    changed.remove(model[factor].name)
    kept = {variable.name: factors[k] for k, variable in enumerate(model) if variable.name not in changed}
    return _evaluate(model, key, kept)


def _evaluate(model: tuple[Variable, ...], key: jax.Array, fixed: dict[str, jax.Array]) -> jax.Array:
    """Factors [K]: the `fixed` values, and the mechanisms' for the rest."""
    noise = jax.random.uniform(key, (len(model),))
    values: dict[str, jax.Array] = {}
    for k, variable in enumerate(model):
        parents = [values[parent] for parent in variable.parents]
        values[variable.name] = fixed.get(variable.name, _mechanism(model, variable, parents, noise[k]))
    return jnp.stack(list(values.values()))


def _mechanism(
    model: tuple[Variable, ...], variable: Variable, parents: Sequence[jax.Array], noise: jax.Array
) -> jax.Array:
    """The value of a factor on its grid, given its parents' values and its noise in [0, 1).

    In whole numbers: a mean that each compiled program rounds in its own way would sometimes fall on the other side
    of a grid line, and a factor would change under do(nothing).
    """
    if variable.mean is None:
        return jnp.floor(noise * variable.size).astype(jnp.int32)
    noise = jnp.floor(noise * STEPS).astype(jnp.int32)
    mean = jnp.asarray(_mean_table(model, variable))[tuple(parents)]
    value = mean + jnp.asarray(_deviation_table(variable))[noise] + STEPS // 2
    return jnp.clip(value // STEPS, 0, variable.size - 1)


@functools.lru_cache(maxsize=256)
def _mean_table(model: tuple[Variable, ...], variable: Variable) -> np.ndarray:
    """The mean of a factor for every combination of its parents' values, in 1/STEPS of a grid step, int32."""
    assert variable.mean is not None, "a root has no mean"
    sizes = {v.name: v.size for v in model}
    with jax.ensure_compile_time_eval():
        grid = np.indices([sizes[parent] for parent in variable.parents]).astype(np.float32)
        mean = np.asarray(variable.mean(*map(jnp.asarray, grid)), np.float64)
    return np.round(STEPS * mean).astype(np.int32)


@functools.lru_cache(maxsize=256)
def _deviation_table(variable: Variable) -> np.ndarray:
    """The deviation from the mean for each of STEPS equally likely noises, rising, in 1/STEPS of a step, int32."""
    if variable.noise == "uniform":
        return (round(variable.spread * STEPS) * (2 * np.arange(STEPS) - STEPS) // STEPS).astype(np.int32)
    centered = (2 * np.arange(STEPS) + 1 - STEPS) / STEPS  # in (-1, 1), never 0
    deviation = -np.sign(centered) * np.log1p(-np.abs(centered))
    return np.round(STEPS * variable.spread * deviation).astype(np.int32)


# The pendulum: geometry in px, y down; the sun's rays are parallel

ANGLES, POSITIONS, LENGTHS = 16, 16, 12  # grid sizes
FLOOR = 52.0
PIVOT = 16.0
ROD = 22.0
SUN_ORBIT = 42.0
MAX_TILT = np.pi / 5  # of the pendulum and of the light, either way from the vertical
SHADOW_CENTERS = (6.0, 58.0)
MAX_SHADOW = 26.0


def tilt(index: jax.Array) -> jax.Array:
    """Angle from the vertical, in radians, of a grid index: -MAX_TILT to MAX_TILT."""
    return MAX_TILT * (2 * index / (ANGLES - 1) - 1)


def shadow_ends(light: jax.Array, pendulum: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x on the floor of the shadows of pivot and bob, for angles of light and pendulum in radians."""
    slope = jnp.tan(light)
    bob_x, bob_y = CANVAS / 2 + ROD * jnp.sin(pendulum), PIVOT + ROD * jnp.cos(pendulum)
    return CANVAS / 2 + slope * (FLOOR - PIVOT), bob_x + slope * (FLOOR - bob_y)


def _mean_position(light: jax.Array, pendulum: jax.Array) -> jax.Array:
    pivot, bob = shadow_ends(tilt(light), tilt(pendulum))
    low, high = SHADOW_CENTERS
    return ((pivot + bob) / 2 - low) / (high - low) * (POSITIONS - 1)


def _mean_length(light: jax.Array, pendulum: jax.Array) -> jax.Array:
    pivot, bob = shadow_ends(tilt(light), tilt(pendulum))
    return jnp.abs(bob - pivot) / MAX_SHADOW * (LENGTHS - 1)


PENDULUM = (
    Variable("light_angle", ANGLES),
    Variable("pendulum_angle", ANGLES),
    Variable("shadow_position", POSITIONS, ("light_angle", "pendulum_angle"), _mean_position, spread=1.0),
    Variable("shadow_length", LENGTHS, ("light_angle", "pendulum_angle"), _mean_length, spread=1.0),
)


def draw_pendulum(arrays: dict, key: jax.Array) -> jax.Array:
    """Factors [4] of the pendulum."""
    del arrays
    return sample_factors(PENDULUM, key)


def propagate_pendulum(arrays: dict, factors: jax.Array, factor: int, key: jax.Array) -> jax.Array:
    """Factors [4] of the pendulum after an intervention."""
    del arrays
    return propagate(PENDULUM, factors, factor, key)


def render_pendulum(arrays: dict, factors: jax.Array, key: jax.Array) -> jax.Array:
    """Image [64, 64, 3] of factors [4]: sky, floor, sun, shadow, rod and bob."""
    del arrays, key
    light, pendulum = tilt(factors[0]), tilt(factors[1])
    low, high = SHADOW_CENTERS
    shadow = low + (high - low) * factors[2] / (POSITIONS - 1)
    half = MAX_SHADOW / 2 * factors[3] / (LENGTHS - 1)
    sun = CANVAS / 2 - SUN_ORBIT * jnp.sin(light), FLOOR - SUN_ORBIT * jnp.cos(light)
    pivot = CANVAS / 2, PIVOT
    bob = pivot[0] + ROD * jnp.sin(pendulum), PIVOT + ROD * jnp.cos(pendulum)
    y = FLOOR + 5
    everywhere = jnp.ones((CANVAS, CANVAS))
    return _composite(
        [
            (everywhere, (0.75, 0.87, 0.95)),
            (jnp.where(_pixels()[1] > FLOOR, 1.0, 0.0), (0.72, 0.68, 0.58)),
            (_segment(sun, sun, 4.0), (1.0, 0.85, 0.2)),
            (_segment((shadow - half, y), (shadow + half, y), 2.0), (0.25, 0.23, 0.2)),
            (_segment(pivot, bob, 0.8), (0.3, 0.3, 0.35)),
            (_segment(bob, bob, 4.0), (0.8, 0.2, 0.2)),
        ]
    )


# Confounded shapes


def _mean_hue(background: jax.Array) -> jax.Array:
    return background * 5 / 3


def _mean_scale(object_hue: jax.Array) -> jax.Array:
    return object_hue


def _mean_height(background: jax.Array, object_hue: jax.Array, scale: jax.Array) -> jax.Array:
    return 7 * (0.3 * background / 3 + 0.3 * object_hue / 5 + 0.4 * scale / 5)


# Hue and scale have a peak that follows their parents and tails over their whole grids. Without tails some values
# would not occur with some of their parents', and neither adjustment for the confounder nor natural effects would be
# identified; without a peak (uniform noise that wide) a hue inside the grid would say nothing of the background, and
# only its two end values would be confounded.
CONFOUNDED = (
    Variable("background", 4),
    Variable("object_hue", 6, ("background",), _mean_hue, spread=2.5, noise="laplace"),
    Variable("scale", 6, ("object_hue",), _mean_scale, spread=2.5, noise="laplace"),
    Variable("pos_y", 8, ("background", "object_hue", "scale"), _mean_height, spread=1.5),
    Variable("pos_x", 8),
    Variable("shape", 3),
)
MODELS = {"pendulum": PENDULUM, "confounded_shapes": CONFOUNDED}


def draw_confounded(arrays: dict, key: jax.Array) -> jax.Array:
    """Factors [6] of a confounded shape."""
    del arrays
    return sample_factors(CONFOUNDED, key)


def propagate_confounded(arrays: dict, factors: jax.Array, factor: int, key: jax.Array) -> jax.Array:
    """Factors [6] of a confounded shape after an intervention."""
    del arrays
    return propagate(CONFOUNDED, factors, factor, key)


def render_confounded(arrays: dict, factors: jax.Array, key: jax.Array) -> jax.Array:
    """Image [64, 64, 3] of factors [6]: a disc, a square or a triangle on a plain ground."""
    del arrays, key
    background, object_hue, scale, pos_y, pos_x, shape = factors
    size = 5.0 + 1.2 * scale
    x, y = _pixels()
    x, y = x - (16 + 32 * pos_x / 7), y - (48 - 32 * pos_y / 7)  # greater pos_y is higher up
    disc = jnp.sqrt(x**2 + y**2)
    square = jnp.maximum(jnp.abs(x), jnp.abs(y)) * 1.13  # both polygons have about the disc's area
    triangle = jnp.maximum(y, jnp.sqrt(0.75) * jnp.abs(x) - y / 2) * 1.29
    outside = jnp.select([shape == 0, shape == 1], [disc, square], triangle) - size
    gray = (0.15 + 0.2 * background) * jnp.ones(3)
    return _composite([(jnp.ones((CANVAS, CANVAS)), gray), (_edge(outside), hue_to_rgb(object_hue * 10 / 6))])


# Drawing


def _pixels() -> tuple[jax.Array, jax.Array]:
    """x and y [64, 64] of pixel centers, in px."""
    centers = jnp.arange(CANVAS) + 0.5
    x, y = jnp.meshgrid(centers, centers)
    return x, y


def _edge(outside: jax.Array) -> jax.Array:
    """Coverage of pixels [64, 64] from their centers' signed distance to an outline, in px."""
    return jnp.clip(0.5 - outside, 0.0, 1.0)


def _segment(start: tuple, end: tuple, radius: float) -> jax.Array:
    """Coverage [64, 64] of a line with round ends, of a disc where start is end."""
    x, y = _pixels()
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    square = jnp.maximum(along_x**2 + along_y**2, 1e-6)
    nearest = jnp.clip(((x - start[0]) * along_x + (y - start[1]) * along_y) / square, 0.0, 1.0)
    away_x, away_y = x - start[0] - nearest * along_x, y - start[1] - nearest * along_y
    return _edge(jnp.sqrt(away_x**2 + away_y**2) - radius)


def _composite(layers: Sequence[tuple[jax.Array, Any]]) -> jax.Array:
    """Image [64, 64, 3] of layers (coverage [64, 64], RGB), from back to front."""
    image = jnp.zeros((CANVAS, CANVAS, 3))
    for coverage, color in layers:
        # Without the barrier XLA fuses all layers into one loop that computes every coverage once per channel
        # (measured: 20 times slower on a CPU).
        coverage = jax.lax.optimization_barrier(coverage)[:, :, None]
        image = image + coverage * (jnp.asarray(color)[None, None, :] - image)
    return image
