"""Prepare a real data set: convert the files that lie in a folder, or download them first.

    python -m experiments.prepare --dataset=3dshapes --data_dir=data/3dshapes
    python -m experiments.prepare --dataset=mpi3d --variant=real --data_dir=data/mpi3d
    python -m experiments.prepare --dataset=celeba --crop=148 --data_dir=data/celeba

Files on disk (the original ones, or a folder that TensorFlow Datasets prepared as array_record) are converted
without TensorFlow. Downloading goes through TensorFlow Datasets and needs the extra `tensorflow`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from absl import flags

from causalvae import data, locks
from causalvae._words import nearest
from causalvae.data.real import locations
from causalvae.data.records import MPI3D, Record, Release
from experiments import cli

DATASET = flags.DEFINE_string("dataset", None, "Which: dsprites, 3dshapes, mpi3d, smallnorb or celeba.", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the files. Default: $CAUSALVAE_DATA, or ./data/<dataset>.")
CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where to put the prepared array. Default: beside the files.")
REBUILD = flags.DEFINE_bool("rebuild", False, "Prepare again what lies prepared, a damaged cache for one.")
VERIFY = flags.DEFINE_bool("verify", False, "Check the sha256 of what lies prepared, however large.")
FILE = flags.DEFINE_string("file", None, "Which file, where the folder holds several.")
VARIANT = flags.DEFINE_enum("variant", None, tuple(MPI3D.releases), "Of mpi3d. Default: toy.")
SPLIT = flags.DEFINE_string("split", None, "Of smallnorb: both, train or test. Default: both.")
CROP = flags.DEFINE_integer("crop", None, "Of celeba: side of the central square to keep, px. Default: everything.", 1)
SIZE = flags.DEFINE_integer("size", None, "Of celeba and smallnorb: px after resizing. Default: 64.", 1)
RESAMPLE = flags.DEFINE_string("resample", None, "Of celeba and smallnorb: Pillow's filter. Default: bicubic, lanczos.")

OPTIONS = (CACHE_DIR, REBUILD, VERIFY, FILE, VARIANT, SPLIT, CROP, SIZE, RESAMPLE)


def main(_: list[str]) -> None:
    """Prepares what the flags ask for, and say what it is."""
    options = {option.name: option.value for option in OPTIONS if option.value not in (None, False, "")}
    print(describe(prepare(DATASET.value, DATA_DIR.value, options)))


def prepare(name: str, data_dir: str | None, options: dict[str, Any]) -> data.Dataset:
    """Returns the real set `name`, converted if it was not, downloaded if its files are not there."""
    real = {known: entry.real for known, entry in data.DATASETS.items() if entry.real}
    if name not in real:
        raise ValueError(f"no real data set {name!r}.{nearest(name, real)} There are: {', '.join(real)}")
    folder = Path(data_dir).expanduser() if data_dir else locations.default_data_dir(name)
    if not locations.prepared(real[name], folder, **options):
        if options.get("file"):  # no download has a file of this name: say that it is missing
            which = (options.get(option) for option in ("file", "cache_dir", real[name].choice))
            locations.locate(real[name], folder, *which)
        release = real[name].release(options.get(real[name].choice))
        _check_download(real[name], folder, release)
        with locks.hold(folder, "prepare", wait=True, sweep=False):  # one download at a time
            if not locations.prepared(real[name], folder, **options):
                download(real[name], folder, release)
    # Prepared sets are opened, not loaded onto a device: nothing is computed here.
    return data.load(name, source="real", data_dir=str(folder), residency="stream", **options)


def _check_download(record: Record, folder: Path, release: Release) -> None:
    """OSError where there is no TensorFlow to download with."""
    if importlib.util.find_spec("tensorflow") is None:
        raise OSError(
            f"{folder} has no files of {record.name}, and downloading them needs TensorFlow "
            f"(pip install 'causalvae[tensorflow]'). {_by_hand(record, folder, release)}"
        )


def _by_hand(record: Record, folder: Path, release: Release) -> str:
    files = record.by_hand or " or ".join(file for file in release.files if "*" not in file)
    return f"Fetch {files} from {release.url} by hand and put it into {folder}."


def download(record: Record, folder: Path, release: Release) -> None:
    """Downloads and prepares with TensorFlow Datasets, as array_record, into `folder`.

    Raises:
        OSError: that fails, for any reason; the message says which files to fetch by hand, from where and whereto.
    """
    _check_download(record, folder, release)
    import tensorflow_datasets as tfds

    import causalvae.data.real.mpi3d_tfds  # noqa: F401 (registers mpi3d)

    print(f"{record.name}: downloading {release.tfds} with TensorFlow Datasets into {folder}", flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        builder = tfds.builder(release.tfds, data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # downloads fail in as many ways as there are hosts
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        by_hand = _by_hand(record, folder, release)
        raise OSError(f"{release.tfds} could not be downloaded and prepared: {first_line}\n{by_hand}") from error


def describe(dataset: data.Dataset) -> str:
    """Returns what was prepared, from which files, and whether their checksums are the published ones."""
    record, about = dataset.describe(), data.DATASETS[dataset.name].real
    assert about is not None, "a real set has a record"
    kind = "attributes" if dataset.factor_kind == "attributes" else "factors"
    values = ", ".join(f"{name} {size}" for name, size in record["factors"].items())
    files = ", ".join(f"{name} (checksum {state})" for name, _, state in record["files"])
    shape = " × ".join(map(str, dataset.image_shape))
    return (
        f"{dataset.name}: {dataset.size:,} images of {shape}, from {files}\n"
        f"{kind}: {values}\nsha256 of the prepared array: {record['sha256']}\n"
        f"to cite: {about.paper}; license: {about.license}"
    )


if __name__ == "__main__":
    cli.run(main)
