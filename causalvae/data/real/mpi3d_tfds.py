"""MPI3D for TensorFlow Datasets, which has none. Importing this module registers it:

    import causalvae.data.real.mpi3d_tfds
    builder = tfds.builder("mpi3d/toy")          # or /realistic, /real, /complex
    tfds.load("mpi3d/toy", split="train")        # downloads 12.7 GB, unless the file is in the manual folder

No sha256 of these files has been published, so TFDS has none to validate a download with: it records the one
it finds. The md5 that others have published for toy and realistic are compared, and a difference is logged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from causalvae.data import factors as factor_tables
from causalvae.data.real import conversion, formats, locations

NAMES = factor_tables.names(factor_tables.MPI3D)


@dataclasses.dataclass
class Mpi3dConfig(tfds.core.BuilderConfig):
    """One MPI3D file. `factor_sizes` other than the real ones are for parts of the grid of your own."""

    factor_sizes: tuple[int, ...] = factor_tables.sizes(factor_tables.MPI3D)


class Mpi3d(tfds.core.GeneratorBasedBuilder):
    """MPI3D (Gondal et al. 2019): a robot arm, simulated and real, in all combinations of seven factors."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        Mpi3dConfig(name="toy", description="Simply rendered."),
        Mpi3dConfig(name="realistic", description="Realistically rendered."),
        Mpi3dConfig(name="real", description="Photographs."),
        Mpi3dConfig(
            name="complex",
            description="Photographs of more complex objects.",
            factor_sizes=factor_tables.sizes(factor_tables.MPI3D_COMPLEX),
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Needed only where the download fails: put the .npz file of the variant there. " + (
        "; ".join(f"{name}: {locations.origin('mpi3d', name).url}" for name in locations.MPI3D_FILES)
    )

    def _info(self) -> tfds.core.DatasetInfo:
        sizes = zip(NAMES, self.builder_config.factor_sizes, strict=True)
        labels = {f"label_{name}": tfds.features.ClassLabel(num_classes=size) for name, size in sizes}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(64, 64, 3)), **labels}),
            homepage="https://github.com/rr-learning/disentanglement_dataset",
            description=self.__doc__,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        path = self._manual_file(dl_manager) or self._download(dl_manager)
        if locations.compare_published(path) == "differs":
            logging.warning("%s differs from the file that others have published a checksum of", path)
        return {"train": self._generate_examples(path)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        sizes = self.builder_config.factor_sizes
        with formats.open_arrays(path) as arrays:
            shape = arrays.shape("images")
            formats.check_images(path, shape, (64, 64, 3))
            conversion.mpi3d_sizes(path, shape[0], sizes)
            index = 0
            for chunk in arrays.rows("images"):
                for image in chunk:
                    classes = np.unravel_index(index, sizes)
                    labels = {f"label_{name}": int(c) for name, c in zip(NAMES, classes, strict=True)}
                    yield index, {"image": image, **labels}
                    index += 1

    def _manual_file(self, dl_manager: tfds.download.DownloadManager) -> Path | None:
        try:
            folder = Path(dl_manager.manual_dir)
        except AssertionError:  # TFDS' word for an absent or empty folder
            return None
        names = locations.MPI3D_FILES.get(self.builder_config.name, (f"mpi3d_{self.builder_config.name}.npz",))
        return next((folder / name for name in names if (folder / name).is_file()), None)

    def _download(self, dl_manager: tfds.download.DownloadManager) -> Path:
        origin = locations.origin("mpi3d", self.builder_config.name)
        try:
            return Path(dl_manager.download(origin.url))
        except Exception as error:
            raise OSError(
                f"{origin.url} could not be downloaded ({error}). Fetch it in another way, call it "
                f"{origin.files[0]}, and put it into {Path(dl_manager.download_dir) / 'manual'}"
            ) from error
