"""How each real file becomes one array in row-major factor order: `build(location, store) -> facts`.

Images pass through in chunks; only labels are held whole. A file that is not what it should be raises
ValueError with its path, what was found and what was expected.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from causalvae.data import factors as factor_tables
from causalvae.data.real import formats, locations
from causalvae.data.real.cache import Store
from causalvae.data.real.formats import Grid
from causalvae.data.real.locations import Location

CELEBA_SIZE = (178, 218)  # width, height, px
CELEBA_SPLITS = {"train": 0, "valid": 1, "test": 2}  # as in list_eval_partition
NORB_SHAPE = (2, 96, 96)  # cameras, height, width

Facts = dict[str, Any]


def build_dsprites(location: Location, store: Store) -> Facts:
    """From .npz, .hdf5 or TFDS; six latents, the first of which is color, or five in files without it."""
    names = ("color", *factor_tables.names(factor_tables.DSPRITES))
    with contextlib.ExitStack() as stack:
        if location.is_tfds:
            names = names[1:]
            records = _tfds_records(location)
            labels = records.labels(
                [f"label_{n}" for n in ("shape", "scale", "orientation", "x_position", "y_position")]
            )
            rows = records.images()
        else:
            arrays = stack.enter_context(formats.open_arrays(location.path))
            labels = arrays.array("latents_classes" if location.path.suffix == ".npz" else "latents/classes")
            if labels.ndim != 2 or labels.shape[1] not in (5, 6):
                raise ValueError(f"{location.path}: latent classes are {list(labels.shape)}; expected [N, 5 or 6]")
            names = names[-labels.shape[1] :]
            formats.check_images(location.path, arrays.shape("imgs"), (64, 64), len(labels))
            rows = arrays.rows("imgs")
        grid = formats.complete_grid(location.path, labels, names)
        return _write_grid(store, grid, names, (64, 64, 1), (_black_and_white(location.path, chunk) for chunk in rows))


def build_shapes3d(location: Location, store: Store) -> Facts:
    """From .h5, whose labels are the factors' values, or TFDS."""
    names = factor_tables.names(factor_tables.SHAPES3D)
    with contextlib.ExitStack() as stack:
        if location.is_tfds:
            records = _tfds_records(location)
            labels, rows = records.labels([f"label_{name}" for name in names]), records.images()
        else:
            arrays = stack.enter_context(formats.open_arrays(location.path))
            labels, rows = arrays.array("labels"), arrays.rows("images")
            if labels.ndim != 2 or labels.shape[1] != len(names):
                raise ValueError(f"{location.path}: labels are {list(labels.shape)}; expected [N, {len(names)}]")
            formats.check_images(location.path, arrays.shape("images"), (64, 64, 3), len(labels))
        grid = formats.complete_grid(location.path, labels, names)
        return _write_grid(store, grid, names, (64, 64, 3), rows)


def build_mpi3d(location: Location, store: Store, factor_sizes: Sequence[int] | None) -> Facts:
    """From .npz, which has no labels: images lie in factor order; or TFDS, where our builder adds labels."""
    names = factor_tables.names(factor_tables.MPI3D)
    if location.is_tfds:
        records = _tfds_records(location)
        grid = formats.complete_grid(location.path, records.labels([f"label_{name}" for name in names]), names)
        return _write_grid(store, grid, names, (64, 64, 3), records.images())
    with formats.open_arrays(location.path) as arrays:
        shape = arrays.shape("images")
        formats.check_images(location.path, shape, (64, 64, 3))
        sizes = mpi3d_sizes(location.path, shape[0], factor_sizes)
        return _write_grid(store, Grid(sizes, np.arange(shape[0])), names, (64, 64, 3), arrays.rows("images"))


def mpi3d_sizes(path: Path, num: int, given: Sequence[int] | None = None) -> tuple[int, ...]:
    """Factor sizes of an MPI3D file with `num` images; ValueError where they do not follow from it."""
    known = [factor_tables.sizes(table) for table in (factor_tables.MPI3D, factor_tables.MPI3D_COMPLEX)]
    for sizes in known if given is None else [tuple(int(size) for size in given)]:
        if math.prod(sizes) == num and len(sizes) == len(known[0]):
            return sizes
    complete = " or ".join(f"{math.prod(sizes):,} ({'·'.join(map(str, sizes))})" for sizes in known)
    asked = "" if given is None else f", and factor_sizes={tuple(given)} asks for {math.prod(given):,}"
    raise ValueError(
        f"{path} has {num:,} images; a complete MPI3D file has {complete}{asked}. For a part of it, pass "
        "the seven sizes that make it up: factor_sizes=…"
    )


def build_smallnorb(location: Location, store: Store, split: str, size: int, resample: str) -> Facts:
    """From .mat.gz or TFDS: the left camera. Stored with the instance as the last axis of the grid."""
    names = (*factor_tables.names(factor_tables.SMALLNORB), "instance")
    splits = tuple(locations.NORB_SPLITS) if split == "both" else (split,)
    with contextlib.ExitStack() as stack:
        if location.is_tfds:
            records = _tfds_records(location)
            labels = records.labels([*(f"label_{name}" for name in names[:-1]), "instance"], splits)
            rows = records.images(splits)
        else:
            parts = [_open_norb_split(stack, location.path, locations.NORB_SPLITS[part]) for part in splits]
            labels = np.concatenate([part_labels for part_labels, _ in parts])
            rows = itertools.chain.from_iterable(part_rows for _, part_rows in parts)
        grid = formats.complete_grid(location.path, labels, names)
        resized = (_resize_all(chunk, size, resample) for chunk in rows)
        return _write_grid(store, grid, names, (size, size, 1), resized)


def _open_norb_split(stack: contextlib.ExitStack, dat: Path, stem: str) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Labels [N, 5] (category, elevation, azimuth, lighting, instance) and the left images of one split."""
    paths = {
        part: locations.beside(dat, (f"{stem}-{part}.mat.gz", f"{stem}-{part}.mat")) for part in ("dat", "cat", "info")
    }
    shape, images = stack.enter_context(formats.open_norb(paths["dat"]))
    formats.check_images(paths["dat"], shape, NORB_SHAPE)
    category, info = formats.read_norb(paths["cat"]), formats.read_norb(paths["info"])
    if category.shape != shape[:1] or info.shape != (shape[0], 4):
        raise ValueError(
            f"{paths['dat']} has {shape[0]:,} images, {paths['cat'].name} is {list(category.shape)} and "
            f"{paths['info'].name} {list(info.shape)}; expected [N] and [N, 4]: they do not belong together"
        )
    return np.column_stack([category, info[:, 1:], info[:, 0]]), (chunk[:, 0] for chunk in images)


def _resize_all(images: np.ndarray, size: int, resample: str) -> np.ndarray:
    """Gray images [N, H, W] or [N, H, W, 1] to [N, size, size]."""
    pictures = (Image.fromarray(image) for image in images.reshape(images.shape[:3]))
    return np.stack([formats.crop_and_resize(picture, None, size, resample) for picture in pictures])


class FaceLists(NamedTuple):
    """CelebA's lists; row n of each is about image n."""

    files: tuple[str, ...]
    names: tuple[str, ...]  # of the attributes
    attributes: np.ndarray  # [N, K], positive: present
    landmarks: np.ndarray | None  # [N, 10] px: x, y of left eye, right eye, nose, left and right mouth corner
    partition: np.ndarray | None  # [N]: 0 train, 1 valid, 2 test


Encoded = tuple[bytes, str]  # a JPEG, and what to call it in an error


def build_celeba(location: Location, store: Store, crop: int | None, size: int, resample: str) -> Facts:
    """From a zip or folder of JPEGs with their lists, or TFDS. Stored in the order of the attribute list."""
    if location.is_tfds:
        records = _tfds_records(location)
        lists, lots = records.faces()
    else:
        lists = _face_lists(location.path)
        lots = (_faces_in_folder if location.path.is_dir() else _faces_in_zip)(location.path, lists.files)
    decode = functools.partial(_decode_face, crop=crop, size=size, resample=resample)
    images = store.create("images", (len(lists.attributes), size, size, 3))
    done = 0
    # Threads, since Pillow decodes and resizes without the GIL.
    with concurrent.futures.ThreadPoolExecutor() as pool, contextlib.closing(lots):
        for lot in lots:
            images[done : done + len(lot)] = list(pool.map(decode, lot))
            done += len(lot)
            store.progress(done, len(images))
    store.save("attributes", (lists.attributes > 0).astype(np.uint8))
    if lists.landmarks is not None:
        store.save("landmarks", _move_landmarks(lists.landmarks, crop, size))
    if lists.partition is not None:
        store.save("partition", lists.partition.astype(np.uint8))
    return {"attribute_names": list(lists.names)}


def _face_lists(path: Path) -> FaceLists:
    attributes_path = locations.beside(path, ("list_attr_celeba.txt", "list_attr_celeba.csv"))
    names, files, attributes = formats.read_table(attributes_path)
    others = {}
    for stem, width in (("list_landmarks_align_celeba", 10), ("list_eval_partition", 1)):
        list_path = locations.beside(path, (f"{stem}.txt", f"{stem}.csv"), required=False)
        others[stem] = None
        if list_path is not None:
            _, listed, others[stem] = formats.read_table(list_path)
            if listed != files or others[stem].shape[1] != width:
                raise ValueError(f"{list_path} and {attributes_path.name} do not list the same images")
    landmarks, partition = others.values()
    return FaceLists(files, names, attributes, landmarks, None if partition is None else partition[:, 0])


def _faces_in_zip(path: Path, files: Sequence[str]) -> Iterator[list[Encoded]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).name: name for name in archive.namelist()}
            for lot in _lots(path, files, members):
                yield [(archive.read(member), f"{path}: {member}") for member in lot]
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is not a readable zip ({error}): {formats.FETCH_AGAIN}") from error


def _faces_in_folder(path: Path, files: Sequence[str]) -> Iterator[list[Encoded]]:
    folder = path / path.name if (path / path.name).is_dir() else path  # mirrors nest it once more
    members = {member.name: member for member in folder.iterdir()}
    for lot in _lots(folder, files, members):
        yield [(member.read_bytes(), str(member)) for member in lot]


def _lots(path: Path, files: Sequence[str], members: dict[str, Any], size: int = 512) -> Iterator[list[Any]]:
    """Members for the listed files, some at a time; ValueError where there are fewer than listed."""
    missing = [name for name in files if name not in members]
    if missing:
        raise ValueError(f"{path} lacks {len(missing):,} of {len(files):,} listed images, such as {missing[0]}")
    for start in range(0, len(files), size):
        yield [members[name] for name in files[start : start + size]]


def _decode_face(encoded: Encoded, crop: int | None, size: int, resample: str) -> np.ndarray:
    data, name = encoded
    image = formats.decode_image(data, name)
    if image.size != CELEBA_SIZE:
        expected = " × ".join(map(str, CELEBA_SIZE))
        raise ValueError(f"{name} is {image.size[0]} × {image.size[1]} px; the aligned images are {expected}")
    return formats.crop_and_resize(image.convert("RGB"), crop, size, resample)


def _move_landmarks(landmarks: np.ndarray, crop: int | None, size: int) -> np.ndarray:
    """[N, 10] px of the original to [N, 5, 2] float32 px of the cropped and resized image."""
    corner = np.array(formats.crop_corner(CELEBA_SIZE, crop))
    extent = np.array(CELEBA_SIZE if crop is None else (crop, crop))
    return ((landmarks.reshape(-1, 5, 2) - corner) * (size / extent)).astype(np.float32)


def _black_and_white(path: Path, chunk: np.ndarray) -> np.ndarray:
    """dSprites' 0 and 1 as 0 and 255, so that all prepared sets have one range."""
    if chunk.max(initial=0) > 1:
        raise ValueError(f"{path} has pixels up to {chunk.max()}; dSprites' pixels are 0 and 1")
    return chunk * np.uint8(255)


def _write_grid(
    store: Store,
    grid: Grid,
    names: Sequence[str],
    image_shape: tuple[int, int, int],
    rows: Iterator[np.ndarray],
) -> Facts:
    """Write images into row-major factor order, and tell the record of their factors.

    Constant factors have no axis; "instance", where there is one, is the last axis and no factor.
    """
    sizes = dict(zip(names, grid.sizes, strict=True))
    instances = [sizes.pop("instance")] if "instance" in sizes else []
    kept = {name: size for name, size in sizes.items() if size > 1}
    images = store.create("images", (*kept.values(), *instances, *image_shape))
    flat = images.reshape(-1, *image_shape)
    done = 0
    for chunk in rows:
        if chunk.dtype != np.uint8:
            raise ValueError(f"images are {chunk.dtype}; expected uint8")
        flat[grid.positions[done : done + len(chunk)]] = chunk.reshape(-1, *image_shape)
        done += len(chunk)
        store.progress(done, len(flat))
    return {"factor_names": list(kept), "dropped_factors": [name for name in sizes if name not in kept]}


def _tfds_records(location: Location) -> Any:
    from causalvae.data.real.tfds_source import Records  # imports tensorflow_datasets: slow, and needed by few

    return Records(location.path)
