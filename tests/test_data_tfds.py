"""Sets prepared by TensorFlow Datasets, and the command that prepares.

Reading needs no TensorFlow and is tested by default. Downloading and preparing does: those tests are marked
`tensorflow` (pip install -e .[tensorflow,test]; pytest -m tensorflow).
"""

import builtins
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import real_files as real
from PIL import Image

from causalvae import data
from experiments import prepare

ROOT = pathlib.Path(__file__).resolve().parents[1]


def stored(dataset):
    """The prepared array itself."""
    return np.asarray(dataset.arrays["images"])


def dsprites_records(sizes):
    images, classes, _ = real.dsprites_arrays(sizes)
    names = ("shape", "scale", "orientation", "x_position", "y_position")
    return images, [
        {"image": real.png(image), **{f"label_{n}": int(c) for n, c in zip(names, row[1:], strict=True)}}
        for image, row in zip(images, classes, strict=True)
    ]


@pytest.fixture
def no_tensorflow(monkeypatch):
    """Fail on any import of TensorFlow, whether it is installed or not."""
    real_import = builtins.__import__

    def guarded(name, *arguments, **keywords):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow' (blocked by the test)", name="tensorflow")
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", guarded)


def test_dsprites(tmp_path, monkeypatch, no_tensorflow):
    monkeypatch.setattr("causalvae.data.real.tfds_source.LOT", 10, raising=False)
    images, records = dsprites_records((3, 2, 2, 2, 2))
    real.write_tfds(tmp_path, "dsprites", "2.0.0", {"train": records})
    dataset = data.load("dsprites", source="real", data_dir=tmp_path)
    assert dataset.factor_names == ("shape", "scale", "orientation", "posX", "posY")
    np.testing.assert_array_equal(stored(dataset)[..., 0], images.reshape(3, 2, 2, 2, 2, 64, 64) * 255)
    assert data.load("dsprites", data_dir=tmp_path).source == "real"
    assert os.listdir(tmp_path / "causalvae_cache") == ["dsprites-tfds"]


def test_shapes3d(tmp_path, no_tensorflow):
    sizes = (2, 1, 2, 2, 2, 2)
    names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    images = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), np.uint8)
    records = [
        {"image": real.png(image), **{f"label_{n}": int(c) for n, c in zip(names, row, strict=True)}}
        for image, row in zip(images, real.grid(sizes), strict=True)
    ]
    real.write_tfds(tmp_path, "shapes3d", "2.0.0", {"train": records})
    dataset = data.load("3dshapes", source="real", data_dir=tmp_path)
    assert dataset.describe()["dropped_factors"] == ("wall_hue",)
    np.testing.assert_array_equal(stored(dataset), images.reshape(2, 2, 2, 2, 2, 64, 64, 3))


def test_smallnorb(tmp_path, no_tensorflow):
    rng = np.random.default_rng(0)
    names = ("label_category", "label_elevation", "label_azimuth", "label_lighting")
    images, records = {}, {}
    for split, instances in (("train", (4, 6)), ("test", (0, 1))):
        images[split] = rng.integers(0, 256, (2, 2, 1, 2, 2, 96, 96), np.uint8)
        records[split] = [
            {
                "image": real.png(images[split][tuple(row)]),
                "image2": real.png(np.zeros((96, 96), np.uint8)),
                "instance": instances[row[4]],
                **{name: int(c) for name, c in zip(names, row[:4], strict=True)},
            }
            for row in real.grid((2, 2, 1, 2, 2))
        ]
    real.write_tfds(tmp_path, "smallnorb", "2.0.0", records)
    dataset = data.load("smallnorb", source="real", data_dir=tmp_path)
    assert dataset.factor_names == ("category", "elevation", "lighting") and not dataset.deterministic
    every = np.concatenate([images["test"], images["train"]], axis=4)[:, :, 0].reshape(-1, 96, 96)
    expected = [np.asarray(Image.fromarray(i).resize((64, 64), Image.Resampling.LANCZOS)) for i in every]
    np.testing.assert_array_equal(stored(dataset).reshape(-1, 64, 64), expected)


def test_celeba(tmp_path, no_tensorflow):
    rng = np.random.default_rng(0)
    import tensorflow_datasets as tfds

    features = tfds.builder("celeb_a", data_dir=tmp_path).info.features
    names = list(features["attributes"])
    records = {}
    for split, num in (("train", 4), ("validation", 2), ("test", 2)):
        coarse = rng.integers(0, 256, (num, 12, 10, 3), np.uint8)
        records[split] = [
            {
                "image": real.jpeg(np.asarray(Image.fromarray(pixels).resize((178, 218)))),
                **{f"attributes/{name}": int(value) for name, value in zip(names, row, strict=True)},
                **{f"landmarks/{name}": int(value) for name, value in zip(features["landmarks"], points, strict=True)},
            }
            for pixels, row, points in zip(
                coarse, rng.integers(0, 2, (num, 40)), rng.integers(20, 160, (num, 10)), strict=True
            )
        ]
    real.write_tfds(tmp_path, "celeb_a", "2.1.0", records)
    dataset = data.load("celeba", source="real", data_dir=tmp_path, split="valid")
    assert dataset.size == 2 and dataset.num_factors == 40
    images = stored(dataset)
    decode = lambda record: np.asarray(  # noqa: E731
        Image.open(real.io.BytesIO(record["image"])).resize((64, 64), Image.Resampling.BICUBIC)
    )
    for record in records["validation"]:
        (row,) = (r for r in np.asarray(dataset.arrays["rows"]) if (images[r] == decode(record)).all())
        attributes = np.asarray(dataset.arrays["attributes"])[row]
        assert dict(zip(dataset.factor_names, attributes, strict=True)) == {n: record[f"attributes/{n}"] for n in names}
        nose = [record["landmarks/nose_x"] * 64 / 178, record["landmarks/nose_y"] * 64 / 218]
        np.testing.assert_allclose(dataset.arrays["landmarks"][row, 2], nose, rtol=1e-6)


def test_prepared_folders_that_cannot_be_read(tmp_path):
    _, records = dsprites_records((3, 1, 1, 1, 2))
    path = real.write_tfds(tmp_path, "dsprites", "2.0.0", {"train": records[:-1]})
    with pytest.raises(ValueError, match="5 images, but its labels .* make 6 combinations"):
        data.load("dsprites", source="real", data_dir=tmp_path)
    (path / "dsprites-train.array_record-00001-of-00002").unlink()
    with pytest.raises(ValueError, match="split 'train' cannot be read .*; prepare it again"):
        data.load("dsprites", source="real", data_dir=tmp_path)
    record = json.loads((path / "dataset_info.json").read_text())
    (path / "dataset_info.json").write_text(json.dumps({**record, "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="prepared as tfrecord, which needs TensorFlow.*causalvae prepare"):
        data.load("dsprites", source="real", data_dir=tmp_path)


# The command


def test_prepare_converts_files_on_disk(tmp_path, no_tensorflow):
    real.write_celeba(tmp_path, num=4)
    dataset = prepare.prepare("celeba", str(tmp_path), {"crop": 148, "size": 16})
    assert dataset.image_shape == (16, 16, 3)
    text = prepare.describe(dataset)
    assert "celeba: 4 images of 16 × 16 × 3, from img_align_celeba" in text or "list_attr_celeba" in text
    assert "attributes: 5_o_Clock_Shadow 2" in text and dataset.describe()["sha256"] in text
    assert (tmp_path / "causalvae_cache" / "celeba-148-16-bicubic" / "images.npy").is_file()
    with pytest.raises(ValueError, match="no real data set 'celebs'.*Did you mean 'celeba'"):
        prepare.prepare("celebs", None, {})


@pytest.mark.parametrize(
    "name, variant, file, url",
    [
        ("3dshapes", "toy", "3dshapes.h5", "storage.googleapis.com/3d-shapes"),
        ("mpi3d", "real", "real.npz", "mpi3d_disentanglement_dataset"),
        ("smallnorb", "toy", "six files smallnorb-", "cs.nyu.edu"),
        ("celeba", "toy", "list_landmarks_align_celeba.txt", "CelebA.html"),
    ],
)
def test_without_tensorflow_a_download_says_what_to_do(tmp_path, monkeypatch, name, variant, file, url):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(OSError) as error:
        prepare.prepare(name, str(tmp_path), {"variant": variant} if name == "mpi3d" else {})
    for part in (file, url, str(tmp_path), "causalvae[tensorflow]", "by hand"):
        assert part in str(error.value)


def test_the_command_itself(tmp_path):
    real.write_dsprites_npz(tmp_path, sizes=(3, 1, 1, 1, 2))

    command = [sys.executable, "-m", "experiments.prepare", "--dataset=dsprites", f"--data_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dsprites: 6 images of 64 × 64 × 1, from dsprites_ndarray")
    assert "factors: shape 3, posY 2" in done.stdout


# With TensorFlow


@pytest.mark.tensorflow
def test_mpi3d_builder(tmp_path):
    import tensorflow_datasets as tfds

    from causalvae.data.real import mpi3d_tfds
    from causalvae.data.records import MPI3D

    sizes = (2, 1, 2, 1, 3, 2, 2)
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    images = real.write_mpi3d(manual, "mpi3d_mine.npz", sizes)
    config = mpi3d_tfds.Mpi3dConfig(name="mine", description="A part of the grid.", factor_sizes=sizes)
    builder = mpi3d_tfds.Mpi3d(data_dir=tmp_path, config=config, file_format="array_record")
    builder.download_and_prepare()
    for example in builder.as_data_source("train"):
        classes = tuple(example[f"label_{name}"] for name in MPI3D.factor_names)
        np.testing.assert_array_equal(example["image"], images[classes])
    assert tfds.builder("mpi3d/toy", data_dir=tmp_path).info.features["label_object_color"].num_classes == 6
    assert tfds.builder("mpi3d/complex", data_dir=tmp_path).info.features["label_object_color"].num_classes == 4
    # What the builder prepared is what the reader reads: as the toy set, under which name it is looked for.
    (tmp_path / "mpi3d" / "mine").rename(tmp_path / "mpi3d" / "toy")
    dataset = data.load("mpi3d", source="real", data_dir=tmp_path)
    np.testing.assert_array_equal(stored(dataset), images[:, 0, :, 0])


@pytest.mark.tensorflow
def test_mpi3d_builder_refuses_the_wrong_number_of_images_and_a_failed_download(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    import causalvae.data.real.mpi3d_tfds  # noqa: F401

    def no_network(self, url):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", no_network)
    with pytest.raises(OSError, match="mpi3d_toy.npz could not be downloaded .*no route.*manual"):
        tfds.load("mpi3d/toy", data_dir=tmp_path)
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    real.write_mpi3d(manual, "mpi3d_toy.npz")
    with pytest.raises(ValueError, match="has 96 images"):
        tfds.load("mpi3d/toy", data_dir=tmp_path)


@pytest.mark.tensorflow
def test_prepare_downloads_and_converts(tmp_path, monkeypatch):
    """TFDS' own dSprites builder, given a small file instead of the download, then our conversion."""
    import tensorflow_datasets as tfds

    published = tmp_path / "published"
    published.mkdir()
    images = real.write_dsprites_hdf5(published, sizes=(3, 2, 2, 2, 2))
    monkeypatch.setattr(
        tfds.download.DownloadManager, "download", lambda self, url: str(published / real.DSPRITES_HDF5)
    )
    dataset = prepare.prepare("dsprites", str(tmp_path / "mine"), {})
    assert dataset.describe()["residency"] == "stream"
    pixels = dataset.render_one.read(np.arange(48))
    np.testing.assert_array_equal(pixels[..., 0], images.reshape(-1, 64, 64) * 255)
    assert (tmp_path / "mine" / "dsprites" / "2.0.0" / "features.json").is_file()


@pytest.mark.tensorflow
def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def no_network(self, url):
        raise ConnectionError("HTTP 403")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", no_network)
    with pytest.raises(OSError) as error:
        prepare.prepare("smallnorb", str(tmp_path), {})
    for part in ("HTTP 403", "smallnorb-*-{dat,cat,info}.mat.gz", "norb-v1.0-small", str(tmp_path)):
        assert part in str(error.value)
