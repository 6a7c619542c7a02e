"""Sets that TensorFlow Datasets prepared as array_record, read without TensorFlow.

Its records are shuffled, and hold an encoded image beside the labels. Labels are read first, without decoding
the images; they say where in the grid each image belongs.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from causalvae._files import DamagedFile, one_line, reading
from causalvae.data.real import formats
from causalvae.data.real.formats import Encoded

_example: Any = getattr(tf_example_pb2, "Example")  # noqa: B009  (made at import: unknown to type checkers)
FOLDER, AGAIN = "folder that TensorFlow Datasets prepared", "prepare it again"
LOT = 1024  # records read at a time


class Records:
    """The records of one prepared folder, <data_dir>/<name>/<version>."""

    def __init__(self, path: Path):
        self.path = path
        with reading(path, FOLDER, AGAIN):
            self.builder: Any = tfds.builder_from_directory(path)
            self.info = self.builder.info
            file_format = self.info.file_format.value
        if file_format != "array_record":
            raise ValueError(
                f"{path} was prepared as {file_format}, which needs TensorFlow to be read. Prepare it as "
                "array_record (`python -m causalvae prepare` in another folder), or convert it: `tfds "
                f"convert_format --dataset_dir={path} --out_file_format=array_record --out_path=…`"
            )

    def labels(self, features: Sequence[str], splits: Sequence[str] = ("train",)) -> np.ndarray:
        """Returns integer features [N, K] int64 of every record, in the order of `images`."""
        with reading(self.path, FOLDER, AGAIN):
            lots = self._lots(splits)
            return np.array([[record[f].int64_list.value[0] for f in features] for lot in lots for record in lot])

    def images(self, splits: Sequence[str] = ("train",)) -> Iterator[np.ndarray]:
        """Yields decoded images [n, H, W, C], some at a time."""
        with concurrent.futures.ThreadPoolExecutor() as pool:  # Pillow decodes without the GIL
            for lot in self.encoded(splits):
                with formats.refusing_bombs():
                    images = list(pool.map(lambda encoded: np.asarray(formats.decode_image(*encoded)), lot))
                if len({image.shape for image in images}) > 1:
                    raise DamagedFile(f"{self.path} holds images of several sizes: {AGAIN}")
                yield np.stack(images)

    def encoded(self, splits: Sequence[str]) -> Iterator[list[Encoded]]:
        """Yields images as they are stored, some at a time."""
        done = 0
        for lot in self._lots(splits):
            with reading(self.path, FOLDER, AGAIN):
                images = [record["image"].bytes_list.value[0] for record in lot]
            yield [(image, f"{self.path}: the image of record {done + i}") for i, image in enumerate(images)]
            done += len(lot)

    def _lots(self, splits: Sequence[str]) -> Iterator[list[Any]]:
        """Records as maps from a feature's name to its tf.train.Feature."""
        for split in splits:
            try:
                source = self.builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
                for start in range(0, len(source), LOT):
                    records = source.__getitems__(range(start, min(start + LOT, len(source))))
                    yield [_example.FromString(record).features.feature for record in records]
            except Exception as error:  # array_record raises whatever its C++ side met
                raise DamagedFile(
                    f"{self.path}: split {split!r} cannot be read ({one_line(error)}); {AGAIN}"
                ) from error
