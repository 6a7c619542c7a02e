"""Writers of small files in the exact format of the real ones: keys, types, headers, compression, names.

Each returns what a reader must give back. Images are noise, so that no two can be mistaken for each other.
"""

import gzip
import io
import itertools
import json
import struct
import zipfile

import h5py
import numpy as np
from PIL import Image

DSPRITES_NPZ = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
DSPRITES_HDF5 = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5"
NORB_STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
ATTRIBUTES = ("5_o_Clock_Shadow", "Bald", "Eyeglasses", "Male", "Smiling", "Young")


def grid(sizes):
    """All combinations [N, K] in row-major order."""
    return np.array(list(itertools.product(*map(range, sizes))), np.int64)


def dsprites_arrays(sizes=(3, 2, 4, 3, 2), seed=0):
    """imgs 0/1 [N, 64, 64] uint8, latents_classes [N, 6] with the constant color first, latents_values."""
    classes = np.insert(grid(sizes), 0, 0, axis=1)
    images = np.random.default_rng(seed).integers(0, 2, (len(classes), 64, 64), np.uint8)
    values = classes / np.array([1, 1, 5, 39, 31, 31]) + np.array([1.0, 1, 0.5, 0, 0, 0])
    return images, classes, values


def write_dsprites_npz(folder, sizes=(3, 2, 4, 3, 2), order=None, name=DSPRITES_NPZ):
    images, classes, values = dsprites_arrays(sizes)
    order = np.arange(len(images)) if order is None else order
    metadata = np.array({"title": "dSprites dataset", "latents_sizes": np.array([1, *sizes])}, dtype=object)
    np.savez_compressed(
        folder / name,
        imgs=images[order],
        latents_classes=classes[order],
        latents_values=values[order],
        metadata=metadata,  # pickled, as in the real file
    )
    return images.reshape(*sizes, 64, 64)


def write_dsprites_hdf5(folder, sizes=(3, 2, 4, 3, 2)):
    images, classes, values = dsprites_arrays(sizes)
    with h5py.File(folder / DSPRITES_HDF5, "w") as file:
        file.create_dataset("imgs", data=images, chunks=(7, 16, 16), compression="gzip")
        file.create_dataset("latents/classes", data=classes)
        file.create_dataset("latents/values", data=values)
    return images.reshape(*sizes, 64, 64)


def write_shapes3d(folder, sizes=(2, 3, 2, 2, 4, 3), order=None, name="3dshapes.h5"):
    """images and labels; labels are the factors' values, hues rounded as floats are."""
    classes = grid(sizes)
    scale = np.array([0.1, 0.1, 0.1, 0.5 / 7, 1, 60 / 14])
    labels = classes * scale + np.array([0, 0, 0, 0.75, 0, -30])
    images = np.random.default_rng(1).integers(0, 256, (len(classes), 64, 64, 3), np.uint8)
    order = np.arange(len(images)) if order is None else order
    chunks = (min(5, len(images)), 64, 64, 3)
    with h5py.File(folder / name, "w") as file:
        file.create_dataset("images", data=images[order], chunks=chunks, compression="gzip")
        file.create_dataset("labels", data=labels[order])
    return images.reshape(*sizes, 64, 64, 3)


def write_mpi3d(folder, name="mpi3d_toy.npz", sizes=(2, 2, 2, 1, 3, 2, 2)):
    images = np.random.default_rng(2).integers(0, 256, (int(np.prod(sizes)), 64, 64, 3), np.uint8)
    np.savez(folder / name, images=images)  # uncompressed, as published
    return images.reshape(*sizes, 64, 64, 3)


def norb_matrix(array):
    """The binary format of SmallNORB: type, number of dimensions, at least three sizes, elements."""
    magic = {np.dtype("uint8"): 0x1E3D4C55, np.dtype("int32"): 0x1E3D4C54}[array.dtype]
    sizes = list(array.shape) + [1] * (3 - array.ndim)
    return (
        struct.pack(f"<Ii{len(sizes)}i", magic, array.ndim, *sizes)
        + array.astype(array.dtype.newbyteorder("<")).tobytes()
    )


def write_smallnorb(folder, sizes=(3, 2, 3, 2), seed=3, suffix=".mat.gz"):
    """Six files. Returns {split: images [category, elevation, azimuth, lighting, instance, camera, H, W]}."""
    rng = np.random.default_rng(seed)
    written = {}
    for split, instances in (("train", (4, 6, 7)), ("test", (0, 1, 2))):
        full = (*sizes, len(instances))
        images = rng.integers(0, 256, (*full, 2, 96, 96), np.uint8)
        labels = grid(full)
        order = rng.permutation(len(labels))  # the real files are shuffled too
        info = np.column_stack([np.array(instances)[labels[:, 4]], labels[:, 1], 2 * labels[:, 2], labels[:, 3]])
        arrays = {
            "dat": images.reshape(-1, 2, 96, 96)[order],
            "cat": labels[order, 0].astype(np.int32),
            "info": info[order].astype(np.int32),
        }
        for part, array in arrays.items():
            data = norb_matrix(array)
            path = folder / f"{NORB_STEMS[split]}-{part}{suffix}"
            path.write_bytes(gzip.compress(data, 1) if suffix.endswith(".gz") else data)
        written[split] = images
    return written


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_celeba(folder, num=12, as_zip=True, csv=False):
    """Images (zip or folder) and lists. Returns (files {name: JPEG}, attributes, landmarks, partition)."""
    rng = np.random.default_rng(4)
    names = [f"{i + 1:06d}.jpg" for i in range(num)]
    coarse = rng.integers(0, 256, (num, 12, 10, 3), np.uint8)
    files = {
        name: jpeg(np.asarray(Image.fromarray(pixels).resize((178, 218))))
        for name, pixels in zip(names, coarse, strict=True)
    }
    attributes = rng.choice([-1, 1], (num, len(ATTRIBUTES)))
    landmarks = rng.integers(20, 160, (num, 10))
    partition = np.repeat([0, 1, 2], [num // 2, num // 4, num - num // 2 - num // 4])
    if as_zip:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for name in names[::-1]:
                archive.writestr(f"img_align_celeba/{name}", files[name])
    else:
        (folder / "img_align_celeba").mkdir()
        for name in names:
            (folder / "img_align_celeba" / name).write_bytes(files[name])
    points = [
        f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
    ]
    for stem, header, values in (
        ("list_attr_celeba", ATTRIBUTES, attributes),
        ("list_landmarks_align_celeba", points, landmarks),
        ("list_eval_partition", None, partition[:, None]),
    ):
        if csv:
            lines = [",".join(["image_id", *(header or ["partition"])])]
            lines += [",".join([name, *map(str, row)]) for name, row in zip(names, values, strict=True)]
        else:
            lines = [] if header is None else [str(num), " ".join(header)]
            lines += [f"{name}  " + " ".join(f"{v:2d}" for v in row) for name, row in zip(names, values, strict=True)]
        (folder / f"{stem}.{'csv' if csv else 'txt'}").write_text("\n".join(lines) + "\n")
    return files, attributes, landmarks, partition


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tfds(folder, name, version, records, shards=2):
    """An array_record folder as TensorFlow Datasets prepares it: shuffled tf.train.Example records.

    records: {split: [{feature: int or bytes}]}. Its features.json is TFDS' own, for sets that it knows.
    """
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    path = folder / name / version
    path.mkdir(parents=True)
    tfds.builder(name, data_dir=folder).info.features.save_config(path)
    splits = []
    for split, examples in records.items():
        order = np.random.default_rng(5).permutation(len(examples))
        lengths = [len(part) for part in np.array_split(order, shards)]
        for shard, part in enumerate(np.array_split(order, shards)):
            file = f"{name}-{split}.array_record-{shard:05d}-of-{shards:05d}"
            writer = array_record_module.ArrayRecordWriter(str(path / file), "group_size:1")
            for index in part:
                example = tf_example_pb2.Example()
                for feature, value in examples[index].items():
                    field = example.features.feature[feature]
                    (field.bytes_list if isinstance(value, bytes) else field.int64_list).value.append(value)
                writer.write(example.SerializeToString())
            writer.close()
        splits.append(
            {
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(length) for length in lengths],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    record = {"name": name, "version": version, "fileFormat": "array_record", "splits": splits}
    (path / "dataset_info.json").write_text(json.dumps(record))
    return path
