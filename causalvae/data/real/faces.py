"""How CelebA becomes one array of faces, and one for each of its lists: attributes, landmarks, partition."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from causalvae._files import DamagedFile, check_regular, reading
from causalvae.data.real import formats, locations
from causalvae.data.real.cache import Store
from causalvae.data.real.conversion import Facts, tfds_records
from causalvae.data.real.formats import Encoded
from causalvae.data.real.locations import Location
from causalvae.data.records import CELEBA

SIZE = CELEBA.image_shape[1], CELEBA.image_shape[0]  # width, height, px
LARGEST_FILE = 8 * SIZE[0] * SIZE[1] * 3  # bytes: an image takes less in any format, but for what is written beside it
POINTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")


class FaceLists(NamedTuple):
    """CelebA's lists; row n of each is about image n."""

    names: tuple[str, ...]  # of the attributes
    attributes: np.ndarray  # [N, K], positive: present
    landmarks: np.ndarray | None  # [N, 10] px: x, y of each of POINTS
    partition: np.ndarray | None  # [N]: 0 train, 1 valid, 2 test


def celeba(
    location: Location, store: Store, *, crop: int | None = None, size: int = 64, resample: str = "bicubic"
) -> Facts:
    """Converts aligned CelebA from a zip or folder of JPEGs with its lists (as released, or CSV), or TFDS.

    Images are in the order of the list of attributes. Landmarks are optional, and so is the partition, which is
    needed for a split.

    Args:
        location: Where the images are.
        store: What to write into.
        crop: Side of the central square that is kept, px (148 in many papers; None: all of 178 × 218).
        size: px after resizing.
        resample: A filter of Pillow's.
    """
    path = location.original
    lists, lots = _faces_of_tfds(path) if location.is_tfds else _faces_of_files(path)
    decode = functools.partial(_decode_face, crop=crop, size=size, resample=resample)
    images = store.create("images", (len(lists.attributes), size, size, 3))
    done = 0
    # Threads, since Pillow decodes and resizes without the GIL.
    pool = concurrent.futures.ThreadPoolExecutor()
    with pool, contextlib.closing(lots), formats.refusing_bombs():
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


Lots = Any  # a generator of lists of encoded images, to be closed


def _faces_of_tfds(path: Path) -> tuple[FaceLists, Lots]:
    records = tfds_records(path)
    splits = [split for split in ("train", "validation", "test") if split in records.info.splits]
    names = sorted(records.info.features["attributes"])
    counts = [records.info.splits[split].num_examples for split in splits]
    partition = np.repeat([CELEBA.splits[split.removesuffix("ation")] for split in splits], counts)
    attributes = records.labels([f"attributes/{name}" for name in names], splits)
    landmarks = records.labels([f"landmarks/{point}_{axis}" for point in POINTS for axis in "xy"], splits)
    return FaceLists(tuple(names), attributes, landmarks, partition), records.encoded(splits)


def _faces_of_files(path: Path) -> tuple[FaceLists, Lots]:
    release = CELEBA.release()
    attributes_path = locations.beside(path, release.beside[0])
    names, files, attributes = formats.read_table(attributes_path)

    def optional(which: int, width: int) -> np.ndarray | None:
        list_path = locations.find_beside(path, release.beside[which])
        if list_path is None:
            return None
        _, listed, values = formats.read_table(list_path)
        if listed != files or values.shape[1] != width:
            raise DamagedFile(f"{list_path} and {attributes_path.name} do not list the same images")
        return values

    landmarks, partition = optional(1, 2 * len(POINTS)), optional(2, 1)
    if not np.isin(attributes, (-1, 0, 1)).all() or len(set(names)) != attributes.shape[1]:
        raise DamagedFile(f"{attributes_path}: attributes are -1 or 1, each under a name of its own")
    if partition is not None and not np.isin(partition, list(CELEBA.splits.values())).all():
        raise DamagedFile(f"{locations.find_beside(path, release.beside[2])}: a partition is 0, 1 or 2")
    lists = FaceLists(names, attributes, landmarks, None if partition is None else partition[:, 0])
    read: Callable[[Path, Sequence[str]], Lots] = _faces_in_folder if path.is_dir() else _faces_in_zip
    return lists, read(path, files)


def _faces_in_zip(path: Path, files: Sequence[str]) -> Iterator[list[Encoded]]:
    with reading(path, "zip"), zipfile.ZipFile(path) as archive:
        members = {Path(info.filename).name: info for info in archive.infolist()}
        for lot in _lots(path, files, members):
            for member in lot:
                _check_size(f"{path}: {member.filename}", member.file_size)
            yield [(archive.read(member), f"{path}: {member.filename}") for member in lot]


def _faces_in_folder(path: Path, files: Sequence[str]) -> Iterator[list[Encoded]]:
    folder = path / path.name if (path / path.name).is_dir() else path  # mirrors nest it once more
    members = {member.name: member for member in folder.iterdir()}
    for lot in _lots(folder, files, members):
        for member in lot:
            check_regular(member, "image", LARGEST_FILE)
        yield [(member.read_bytes(), str(member)) for member in lot]


def _check_size(name: str, size: int) -> None:
    if size > LARGEST_FILE:
        raise DamagedFile(f"{name} has {size:,} bytes; an aligned image has at most {LARGEST_FILE:,}")


def _lots(path: Path, files: Sequence[str], members: dict[str, Any], size: int = 512) -> Iterator[list[Any]]:
    """Members for the listed files, some at a time; ValueError where there are fewer than listed."""
    missing = [name for name in files if name not in members]
    if missing:
        raise DamagedFile(f"{path} lacks {len(missing):,} of {len(files):,} listed images, such as {missing[0]}")
    for start in range(0, len(files), size):
        yield [members[name] for name in files[start : start + size]]


def _decode_face(encoded: Encoded, crop: int | None, size: int, resample: str) -> np.ndarray:
    data, name = encoded
    image = formats.decode_image(data, name)
    if image.size != SIZE:
        expected = " × ".join(map(str, SIZE))
        raise DamagedFile(f"{name} is {image.size[0]} × {image.size[1]} px; the aligned images are {expected}")
    return formats.crop_and_resize(image.convert("RGB"), crop, size, resample)


def _move_landmarks(landmarks: np.ndarray, crop: int | None, size: int) -> np.ndarray:
    """[N, 10] px of the original to [N, 5, 2] float32 px of the cropped and resized image."""
    corner = np.array(formats.crop_corner(SIZE, crop))
    extent = np.array(SIZE if crop is None else (crop, crop))
    return ((landmarks.reshape(-1, len(POINTS), 2) - corner) * (size / extent)).astype(np.float32)
