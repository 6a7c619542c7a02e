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

from causalvae.data.real import conversion, formats, locations
from causalvae.data.real.grids import check_images
from causalvae.data.records import MPI3D

DESCRIPTIONS = {
    "toy": "Simply rendered.",
    "realistic": "Realistically rendered.",
    "real": "Photographs.",
    "complex": "Photographs of more complex objects.",
}


@dataclasses.dataclass
class Mpi3dConfig(tfds.core.BuilderConfig):
    """One MPI3D file. `factor_sizes` other than the real ones are for parts of the grid of your own."""

    factor_sizes: tuple[int, ...] = MPI3D.factor_sizes


class Mpi3d(tfds.core.GeneratorBasedBuilder):
    """MPI3D (Gondal et al. 2019): a robot arm, simulated and real, in all combinations of seven factors."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        Mpi3dConfig(
            name=name,
            description=DESCRIPTIONS[name],
            factor_sizes=tuple(size for _, size in release.factors or MPI3D.factors),
        )
        for name, release in MPI3D.releases.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Needed only where the download fails: put the .npz file of the variant there. " + (
        "; ".join(f"{name}: {release.url}" for name, release in MPI3D.releases.items())
    )

    @property
    def _config(self) -> Any:
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        sizes = zip(MPI3D.factor_names, self._config.factor_sizes, strict=True)
        labels = {f"label_{name}": tfds.features.ClassLabel(num_classes=size) for name, size in sizes}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=MPI3D.image_shape), **labels}),
            homepage="https://github.com/rr-learning/disentanglement_dataset",
            description=self.__doc__,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        path = self._manual_file(dl_manager) or self._download(dl_manager)
        if locations.compare_published(path, MPI3D.checksums) == "differs":
            logging.warning("%s differs from the file that others have published a checksum of", path)
        return {"train": self._generate_examples(path)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        sizes = self._config.factor_sizes
        with formats.open_arrays(path) as arrays:
            shape = arrays.shape("images", conversion.pixels(MPI3D))
            check_images(path, shape, MPI3D.image_shape)
            conversion.mpi3d_sizes(path, shape[0], sizes)
            index = 0
            for chunk in arrays.rows("images"):
                for image in chunk:
                    classes = np.unravel_index(index, sizes)
                    labels = {f"label_{name}": int(c) for name, c in zip(MPI3D.factor_names, classes, strict=True)}
                    yield index, {"image": image, **labels}
                    index += 1

    def _manual_file(self, dl_manager: tfds.download.DownloadManager) -> Path | None:
        try:
            folder = Path(dl_manager.manual_dir)
        except AssertionError:  # TFDS' word for an absent or empty folder
            return None
        name = self._config.name
        names = MPI3D.releases[name].files if name in MPI3D.releases else (f"mpi3d_{name}.npz",)
        return next((folder / name for name in names if (folder / name).is_file()), None)

    def _download(self, dl_manager: tfds.download.DownloadManager) -> Path:
        release = MPI3D.release(self._config.name)
        try:
            return Path(dl_manager.download(release.url))
        except Exception as error:
            raise OSError(
                f"{release.url} could not be downloaded ({error}). Fetch it in another way, call it "
                f"{release.files[0]}, and put it into {Path(dl_manager.download_dir) / 'manual'}"
            ) from error
