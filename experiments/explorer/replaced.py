"""Runs of one model in which row n has one unit of one site replaced: the image behind every number of an explorer."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causalvae.architectures import Architecture
from causalvae.interventions._groups import Groups, make_groups
from causalvae.model import image_of, latents_of, sites_of
from causalvae.sites import patch, tapped

PyTree = Any
ROWS = 64  # runs at once


def code_site(model: Architecture) -> str:
    """The site whose units are the latents that an explorer moves: integer codes where there are any."""
    return "latent/codes" if model.codebook else "latent/z"


class Runner:
    """Runs of one model in which one unit of one site is replaced."""

    def __init__(self, model: Architecture, params: PyTree, sites: tuple[str, ...]):
        self.model, self.params = model, params
        self.codes, self.code_site = model.codebook is not None, code_site(model)
        image: Any = jax.ShapeDtypeStruct((ROWS, *model.image_shape), jnp.float32)
        self.shapes = {site: s for site, s in sites_of(model, params, image).items() if site in sites}
        self.kinds = tuple((site, make_groups(self.shapes, site).granularity) for site in self.shapes)
        self.idle = {site: jnp.zeros(shape.shape, shape.dtype) for site, shape in self.shapes.items()}

    def __call__(
        self, x: np.ndarray, site: str | None = None, unit: Any = -1, replacement: Any = None
    ) -> tuple[Any, Any]:
        """(images [M, H, W, C], latents [M, ..., d]) of runs of x [M, H, W, C]: in row n, unit[n] of the site has
        the value that it has in replacement[n] (an activation). site None replaces nothing."""
        results = [self._block(*block) for block in self._blocks(x, site, unit, replacement)]
        images, latents = (np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*results))
        return images[: len(x)], latents[: len(x)]

    def _block(self, x, numbers, replacement):
        return _replaced_runs(self.model.forward, self.kinds, self.params, x, replacement, numbers)

    def _blocks(self, x, site, unit, replacement) -> Iterator[tuple]:
        """Blocks of ROWS rows, the last one filled up with repetitions."""
        index = np.arange(-(-len(x) // ROWS) * ROWS).reshape(-1, ROWS) % len(x)
        none = np.full(ROWS, -1, np.int32)
        for rows in index:
            numbers, values = dict.fromkeys(self.shapes, none), self.idle
            if site is not None:
                numbers = {**numbers, site: np.broadcast_to(np.asarray(unit, np.int32), (len(x),))[rows]}
                values = {**values, site: replacement[rows].astype(self.shapes[site].dtype)}
            yield np.asarray(x)[rows], numbers, values

    def latents(self, z: np.ndarray) -> np.ndarray:
        """What the explorer calls latents, [N, L]: z, the mean over positions where it has any, or its codes."""
        if self.model.codebook:
            return np.asarray(_quantize(self.model.codebook.quantize, self.params, z)).reshape(len(z), -1)
        return z.reshape(len(z), -1, z.shape[-1]).mean(axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _replaced_runs(forward, kinds, params, x, replacement, numbers):
    """Runs of x [R, ...] in whose row n the unit numbers[site][n] of each site is replaced; -1 is none."""
    edits = {}
    for site, granularity in kinds:
        groups = Groups({site: numbers[site]}, granularity)
        mask = groups.select(site, jnp.arange(x.shape[0]), replacement[site])
        edits[site] = (patch(replacement[site], mask),)
    outputs, _ = tapped(forward, (), params, x, None, edits)
    return image_of(outputs), latents_of(outputs)


@functools.partial(jax.jit, static_argnums=0)
def _quantize(quantize, params, z):
    return quantize(params, z)


def latent_names(runner: Runner) -> tuple[str, ...]:
    """'z3', or for a code of a map its row and column, 'code 1,2'."""
    shape = runner.shapes[runner.code_site].shape[1:]
    if not runner.codes:
        return tuple(f"z{i}" for i in range(shape[-1]))
    return tuple(f"code {','.join(map(str, place))}" for place in np.ndindex(*shape))
