"""How the files of each factorial set become one array in row-major factor order.

A converter is `(location, store, *, options) -> facts`: it writes arrays into the store and returns what the record
should say of them. Its keyword-only parameters are the set's own options of preparation. Images pass through in
chunks; only labels are held whole. A file that is not what it should be raises ValueError with its path, what was
found and what was expected.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from causalvae._files import DamagedFile
from causalvae._npz import Wanted
from causalvae.data.real import formats, locations
from causalvae.data.real.cache import Store
from causalvae.data.real.grids import Grid, check_images, complete_grid, write_grid
from causalvae.data.real.locations import Location
from causalvae.data.real.order import check_order
from causalvae.data.records import DSPRITES, MPI3D, SHAPES3D, SMALLNORB, Record

Facts = dict[str, Any]
NORB_INSTANCES = 5  # of a category, in either split


def dsprites(location: Location, store: Store) -> Facts:
    """Converts dSprites from .npz, .hdf5 or TFDS; six latents, the first of which is color, or five without it.

    Factor sizes come from the labels, so that a complete sub-grid will do.
    """
    path, names = location.original, (*DSPRITES.constant, *DSPRITES.factor_names)
    with contextlib.ExitStack() as stack:
        if location.is_tfds:
            records, names = tfds_records(path), DSPRITES.factor_names
            features = ("shape", "scale", "orientation", "x_position", "y_position")
            labels, rows = records.labels([f"label_{feature}" for feature in features]), records.images()
        else:
            arrays = stack.enter_context(formats.open_arrays(path))
            key = "latents_classes" if path.suffix == ".npz" else "latents/classes"
            shape = arrays.shape(key, Wanted("iuf", (None, None), math.prod(DSPRITES.factor_sizes)))
            if shape[1] not in (5, 6):
                raise DamagedFile(f"{path}: latent classes are {list(shape)}; expected [N, 5 or 6]")
            names = names[-shape[1] :]
            images = arrays.shape("imgs", pixels(DSPRITES, "bu"))
            check_images(path, images, DSPRITES.image_shape, shape[0])
            labels = arrays.array(key)
            rows = arrays.rows("imgs")
        grid = complete_grid(path, labels, names)
        return write_grid(store, grid, (64, 64, 1), (_black_and_white(path, chunk) for chunk in rows))


def pixels(record: Record, kinds: str = "u") -> Wanted:
    """What images must be before anything of them is read: bytes, and no more than were ever published."""
    sizes = [release.factors or record.factors for release in record.releases.values()]
    most = max(math.prod(size for _, size in factors) for factors in sizes)
    return Wanted(kinds, None, most, itemsize=1)


def _black_and_white(path: Path, chunk: np.ndarray) -> np.ndarray:
    """dSprites' 0 and 1 as 0 and 255, so that all prepared sets have one range."""
    if chunk.max(initial=0) > 1:
        raise DamagedFile(f"{path} has pixels up to {chunk.max()}; dSprites' pixels are 0 and 1")
    return chunk * np.uint8(255)


def shapes3d(location: Location, store: Store) -> Facts:
    """Converts 3DShapes from .h5, whose labels are the factors' values, or TFDS; a complete sub-grid will do."""
    path, names = location.original, SHAPES3D.factor_names
    with contextlib.ExitStack() as stack:
        if location.is_tfds:
            records = tfds_records(path)
            labels, rows = records.labels([f"label_{name}" for name in names]), records.images()
        else:
            arrays = stack.enter_context(formats.open_arrays(path))
            shape = arrays.shape("labels", Wanted("iuf", (None, len(names)), math.prod(SHAPES3D.factor_sizes)))
            check_images(path, arrays.shape("images", pixels(SHAPES3D)), SHAPES3D.image_shape, shape[0])
            labels, rows = arrays.array("labels"), arrays.rows("images")
        return write_grid(store, complete_grid(path, labels, names), SHAPES3D.image_shape, rows)


def mpi3d(location: Location, store: Store, *, factor_sizes: Sequence[int] = ()) -> Facts:
    """Converts MPI3D from .npz, which has no labels: images lie in factor order; or TFDS, where our builder adds them.

    Factor sizes follow from the number of images (1,036,800: 6·6·2·3·3·40·40; 460,800: 4·4·2·3·3·40·40). The
    order of the images is checked along the two axes of the arm, see order.py.

    Args:
        location: Where the file is.
        store: What to write into.
        factor_sizes: Of a file with another number of images, a part of the grid of your own.
    """
    path, names = location.original, MPI3D.factor_names
    if location.is_tfds:
        records = tfds_records(path)
        grid = complete_grid(path, records.labels([f"label_{name}" for name in names]), names)
        return write_grid(store, grid, MPI3D.image_shape, records.images())
    with formats.open_arrays(path) as arrays:
        shape = arrays.shape("images", pixels(MPI3D))
        check_images(path, shape, MPI3D.image_shape)
        grid = Grid(names, mpi3d_sizes(path, shape[0], factor_sizes), np.arange(shape[0]))
        facts = write_grid(store, grid, MPI3D.image_shape, arrays.rows("images"))
        check_order(path, store.open("images"), facts["factor_names"], MPI3D.ordered)
        return facts


def mpi3d_sizes(path: Path, num: int, given: Sequence[int] = ()) -> tuple[int, ...]:
    """Returns the factor sizes of an MPI3D file with `num` images; ValueError where they do not follow from it."""
    releases = MPI3D.releases.values()
    known = list(dict.fromkeys(tuple(n for _, n in release.factors or MPI3D.factors) for release in releases))
    for sizes in [tuple(int(size) for size in given)] if given else known:
        if math.prod(sizes) == num and len(sizes) == len(known[0]):
            return sizes
    complete = " or ".join(f"{math.prod(sizes):,} ({'·'.join(map(str, sizes))})" for sizes in known)
    asked = f", and factor_sizes={tuple(given)} asks for {math.prod(given):,}" if given else ""
    raise ValueError(
        f"{path} has {num:,} images; a complete MPI3D file has {complete}{asked}. For a part of it, pass "
        "the seven sizes that make it up: factor_sizes=…"
    )


def smallnorb(
    location: Location, store: Store, *, split: str = "both", size: int = 64, resample: str = "lanczos"
) -> Facts:
    """Converts SmallNORB from its six .mat.gz (or .mat) files or TFDS: the left camera's images, resized.

    The instance, which of a category's objects is seen, is no factor: it is drawn from the key, and counterfactuals
    keep it (same key, same instance).

    Args:
        location: Where the first file is.
        store: What to write into.
        split: "train" and "test" have five instances of each category, "both" all ten.
        size: px.
        resample: A filter of Pillow's ("lanczos" is disentanglement_lib's).
    """
    path, names = location.original, SMALLNORB.factor_names
    splits = tuple(SMALLNORB.splits) if split == "both" else (split,)
    with contextlib.ExitStack() as stack:
        if location.is_tfds:
            records = tfds_records(path)
            labels = records.labels([*(f"label_{name}" for name in names), "instance"], splits)
            rows: Iterable[np.ndarray] = records.images(splits)
        else:
            parts = [_open_norb_split(stack, path, SMALLNORB.splits[part]) for part in splits]
            labels = np.concatenate([part_labels for part_labels, _ in parts])
            rows = itertools.chain.from_iterable(part_rows for _, part_rows in parts)
        grid = complete_grid(path, labels, (*names, "instance"))
        resized = (_resize_all(chunk, size, resample) for chunk in rows)
        return write_grid(store, grid, (size, size, 1), resized, instance="instance")


def _open_norb_split(stack: contextlib.ExitStack, dat: Path, stem: str) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Labels [N, 5] (category, elevation, azimuth, lighting, instance) and the left images of one split."""
    paths = {
        part: locations.beside(dat, (f"{stem}-{part}.mat.gz", f"{stem}-{part}.mat")) for part in ("dat", "cat", "info")
    }
    most = NORB_INSTANCES * math.prod(SMALLNORB.factor_sizes)
    shape, images = stack.enter_context(formats.open_norb(paths["dat"], Wanted("u", None, most)))
    check_images(paths["dat"], shape, SMALLNORB.image_shape)
    category = formats.read_norb(paths["cat"], Wanted("i", (None,), most))
    info = formats.read_norb(paths["info"], Wanted("i", (None, 4), most))
    if category.shape != shape[:1] or info.shape != (shape[0], 4):
        raise DamagedFile(
            f"{paths['dat']} has {shape[0]:,} images, {paths['cat'].name} is {list(category.shape)} and "
            f"{paths['info'].name} {list(info.shape)}; expected [N] and [N, 4]: they do not belong together"
        )
    return np.column_stack([category, info[:, 1:], info[:, 0]]), (chunk[:, 0] for chunk in images)


def _resize_all(images: np.ndarray, size: int, resample: str) -> np.ndarray:
    """Gray images [N, H, W] or [N, H, W, 1] to [N, size, size]."""
    pictures = (Image.fromarray(image) for image in images.reshape(images.shape[:3]))
    return np.stack([formats.crop_and_resize(picture, None, size, resample) for picture in pictures])


def tfds_records(path: Path) -> Any:
    """Returns the records of a folder that TensorFlow Datasets prepared, see tfds_source.py."""
    from causalvae.data.real.tfds_source import Records  # imports tensorflow_datasets: slow, and needed by few

    return Records(path)
