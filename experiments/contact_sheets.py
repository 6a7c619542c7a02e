"""One sheet per data set: real frames, where a sample of them lies on disk, above procedural ones.

    python -m experiments.contact_sheets --samples=../shared/data --out=docs/figures

dSprites and 3DShapes are shown with the same factors above and below; of MPI3D's tiles the factors are not
known, so both rows are random. Sets without real samples show procedural frames only.
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from causalvae import data
from experiments import cli

SAMPLES = flags.DEFINE_string("samples", "../shared/data", "Folder of small samples of real frames.")
DRAWN = [name for name, entry in data.DATASETS.items() if entry.procedural]
DATASETS = flags.DEFINE_multi_enum("dataset", DRAWN, DRAWN, "Which; repeatable.")
OUT = flags.DEFINE_string("out", "docs/figures", "Where the sheets go, as contact_sheet_<dataset>.png.")

COLUMNS = 12
# Per set: the file in `samples`, and its row of indices into the full set, if it has one.
REAL = {
    "dsprites": ("dsprites/dsprites_genuine_subgrid_46080.npz", "imgs", "original_dataset_indices"),
    "3dshapes": ("3dshapes/3dshapes_genuine_91.npz", "images", "dataset_index"),
    "mpi3d": ("mpi3d/mpi3d_toy_gif_tiles.npz", "images", None),
}


render = jax.jit(lambda dataset, factors: dataset.render(factors, jax.random.key(0)))


def main(_: list[str]) -> None:
    """Write a sheet for every data set asked for."""
    out = pathlib.Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    for name in DATASETS.value:
        path = out / f"contact_sheet_{name}.png"
        Image.fromarray(sheet(rows(name, pathlib.Path(SAMPLES.value)))).save(path, optimize=True)
        print(path)


def rows(name: str, samples: pathlib.Path) -> list[np.ndarray]:
    """Rows of images [12, H, W, C] in [0, 1]: real and procedural ones, or two rows of procedural ones."""
    dataset = data.load(name, source="procedural")
    drawn = dataset.sample_factors(jax.random.key(0), COLUMNS)
    file, images, index = REAL.get(name, (None, None, None))
    if file is None or not (samples / file).is_file():
        more = dataset.sample_factors(jax.random.key(1), COLUMNS)
        return [np.asarray(render(dataset, drawn)), np.asarray(render(dataset, more))]
    with np.load(samples / file) as stored:
        known = np.flatnonzero(stored[index] >= 0) if index else np.arange(len(stored[images]))
        chosen = np.random.default_rng(0).choice(known, COLUMNS, replace=False)
        real = stored[images][chosen].reshape(COLUMNS, *dataset.image_shape)
        if index is None:
            return [real / 255, np.asarray(render(dataset, drawn))]
        factors = np.stack(np.unravel_index(stored[index][chosen], dataset.factor_sizes), axis=1)
    return [real / real.max(), np.asarray(render(dataset, jnp.asarray(factors, jnp.int32)))]


def sheet(rows: list[np.ndarray], gap: int = 2) -> np.ndarray:
    """Rows of images [N, H, W, C] in [0, 1] side by side on white: [height, width, 3] uint8."""
    framed = [np.pad(row, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1.0) for row in rows]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in framed])
    grid = np.broadcast_to(grid, (*grid.shape[:2], 3))
    return np.rint(255 * np.clip(grid[:-gap, :-gap], 0, 1)).astype(np.uint8)


if __name__ == "__main__":
    cli.run(main)
