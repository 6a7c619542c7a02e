"""Readers of real files, on small files in the exact real format, through the public entry point."""

import functools
import gzip
import json
import os
import zipfile

import h5py
import jax
import numpy as np
import pytest
import real_files as real
from PIL import Image

from causalvae import data
from causalvae.data.real import cache, conversion, locations, stored
from causalvae.data.records import DSPRITES, MPI3D, SHAPES3D, SMALLNORB

KEY = jax.random.key(0)
render = jax.jit(lambda dataset, factors, key: dataset.render(factors, key))


def to_bytes(images):
    """Images in [0, 1] as the uint8 that they were; the test fails where they were none."""
    pixels = np.round(np.asarray(images) * 255)
    np.testing.assert_allclose(np.asarray(images) * 255, pixels, atol=1e-4)
    return pixels.astype(np.uint8)


def every_image(dataset):
    """[*sizes, H, W, C] uint8: `render` at every combination of factors."""
    images = render(dataset, real.grid(dataset.factor_sizes), KEY)
    return to_bytes(images).reshape(*dataset.factor_sizes, *dataset.image_shape)


def in_chunks(monkeypatch):
    """Make chunks so small that small files take several."""
    monkeypatch.setattr("causalvae._npz.CHUNK_BYTES", 11 * 64 * 64)


# dSprites


@pytest.mark.parametrize("write", [real.write_dsprites_npz, real.write_dsprites_hdf5])
def test_dsprites(tmp_path, monkeypatch, write):
    in_chunks(monkeypatch)
    images = write(tmp_path)
    dataset = data.load("dsprites", source="real", data_dir=tmp_path)
    assert dataset.factor_names == ("shape", "scale", "orientation", "posX", "posY")
    assert dataset.factor_sizes == (3, 2, 4, 3, 2)
    assert dataset.source == "real" and dataset.deterministic and dataset.factor_kind == "generative"
    np.testing.assert_array_equal(every_image(dataset), images[..., None] * 255)
    record = json.loads(json.dumps(dataset.describe()))
    assert record["dropped_factors"] == ["color"]
    assert record["residency"] == "device"
    assert record["files"][0][0].startswith("dsprites_ndarray") and record["files"][0][2] == "differs"


def test_dsprites_stored_in_another_order(tmp_path, monkeypatch):
    in_chunks(monkeypatch)
    order = np.random.default_rng(0).permutation(144)
    images = real.write_dsprites_npz(tmp_path, order=order)
    dataset = data.load("dsprites", source="real", data_dir=tmp_path)
    np.testing.assert_array_equal(every_image(dataset), images[..., None] * 255)


def test_dsprites_with_a_factor_that_is_constant_in_the_file(tmp_path):
    images = real.write_dsprites_npz(tmp_path, sizes=(3, 1, 2, 2, 2))
    dataset = data.load("dsprites", source="real", data_dir=tmp_path)
    assert dataset.factor_names == ("shape", "orientation", "posX", "posY")
    assert dataset.describe()["dropped_factors"] == ("color", "scale")
    np.testing.assert_array_equal(every_image(dataset), images[:, 0, ..., None] * 255)


def test_dsprites_sub_grid_without_color_in_a_file_of_another_name(tmp_path):
    images, classes, _ = real.dsprites_arrays((3, 2, 2, 3, 2))
    indices = np.ravel_multi_index((classes[:, 1:] * [1, 1, 4, 2, 2]).T, (3, 6, 40, 32, 32))
    path = tmp_path / "dsprites_sub_grid.npz"
    np.savez_compressed(path, imgs=images, latents_classes=classes[:, 1:], original_dataset_indices=indices)
    dataset = data.load("dsprites", source="real", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert dataset.factor_names == ("shape", "scale", "orientation", "posX", "posY")
    assert dataset.factor_sizes == (3, 2, 2, 3, 2)
    assert not dataset.describe().get("dropped_factors")
    np.testing.assert_array_equal(render(dataset, classes[:, 1:], KEY)[..., 0], images)
    stored = np.load(tmp_path / "cache" / "dsprites_sub_grid" / "images.npy")
    np.testing.assert_array_equal(stored.reshape(images.shape), images * 255)


def test_dsprites_real_sub_grid(shared_data, tmp_path):
    dataset = data.load("dsprites", source="real", data_dir=shared_data / "dsprites", cache_dir=tmp_path)
    assert dataset.factor_sizes == (3, 6, 10, 16, 16)
    assert (tmp_path / "dsprites_genuine_subgrid_46080" / "images.npy").is_file()
    with np.load(shared_data / "dsprites" / "dsprites_genuine_subgrid_46080.npz") as file:
        images, classes = file["imgs"], file["latents_classes"]
    rows = np.random.default_rng(0).choice(len(images), 1000, replace=False)
    np.testing.assert_array_equal(render(dataset, classes[rows], KEY)[..., 0], images[rows])
    stored = np.load(tmp_path / "dsprites_genuine_subgrid_46080" / "images.npy", mmap_mode="r")
    assert (stored.reshape(images.shape) == images * 255).all()


def test_the_file_itself_can_be_named(tmp_path):
    images = real.write_dsprites_npz(tmp_path, name="mine.npz")
    for arguments in ({"data_dir": tmp_path / "mine.npz"}, {"data_dir": tmp_path, "file": "mine.npz"}):
        dataset = data.load("dsprites", source="real", **arguments)
        np.testing.assert_array_equal(every_image(dataset), images[..., None] * 255)


# 3DShapes


@pytest.mark.parametrize("shuffled", [False, True])
def test_shapes3d(tmp_path, monkeypatch, shuffled):
    in_chunks(monkeypatch)
    order = np.random.default_rng(0).permutation(288) if shuffled else None
    images = real.write_shapes3d(tmp_path, order=order)
    dataset = data.load("3dshapes", source="real", data_dir=tmp_path)
    assert dataset.factor_names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    np.testing.assert_array_equal(every_image(dataset), images)


# MPI3D


@pytest.mark.parametrize(
    "variant, name",
    [
        ("toy", "mpi3d_toy.npz"),
        ("realistic", "mpi3d_realistic.npz"),
        ("real", "real.npz"),
        ("complex", "real3d_complicated_shapes_ordered.npz"),
    ],
)
def test_mpi3d(tmp_path, variant, name):
    sizes = (2, 2, 2, 1, 3, 2, 2)
    images = real.write_mpi3d(tmp_path, name, sizes)
    dataset = data.load("mpi3d", source="real", data_dir=tmp_path, variant=variant, factor_sizes=sizes)
    assert dataset.describe()["variant"] == variant
    assert dataset.describe()["dropped_factors"] == ("camera_height",)
    np.testing.assert_array_equal(every_image(dataset), images[:, :, :, 0])


def test_mpi3d_sizes_follow_from_the_number_of_images(tmp_path):
    assert conversion.mpi3d_sizes(tmp_path, 1_036_800) == (6, 6, 2, 3, 3, 40, 40)
    assert conversion.mpi3d_sizes(tmp_path, 460_800) == (4, 4, 2, 3, 3, 40, 40)
    real.write_mpi3d(tmp_path)
    with pytest.raises(ValueError, match=r"mpi3d_toy.npz has 96 images; .*1,036,800 .6·6·2·3·3·40·40."):
        data.load("mpi3d", source="real", data_dir=tmp_path)
    with pytest.raises(ValueError, match="asks for 128"):
        data.load("mpi3d", source="real", data_dir=tmp_path, factor_sizes=(2, 2, 2, 2, 2, 2, 2))
    with pytest.raises(ValueError, match="no variant 'reel'; it has: toy, realistic, real, complex"):
        data.load("mpi3d", source="real", data_dir=tmp_path, variant="reel")
    assert not list(tmp_path.glob("causalvae_cache/*")), "a refused file must leave nothing behind"


# SmallNORB


def left_images(written, splits):
    """[category, elevation, azimuth, lighting, instance, 64, 64], instances by rising number."""
    numbers = [number for split in splits for number in {"train": (4, 6, 7), "test": (0, 1, 2)}[split]]
    images = np.concatenate([written[split][..., 0, :, :] for split in splits], axis=4)
    images = images[:, :, :, :, np.argsort(numbers)]
    resize = functools.partial(Image.Image.resize, size=(64, 64), resample=Image.Resampling.LANCZOS)
    resized = [np.asarray(resize(Image.fromarray(image))) for image in images.reshape(-1, 96, 96)]
    return np.stack(resized).reshape(*images.shape[:-2], 64, 64)


def instances_of(images, dataset, factors, expected):
    """Which instance each image is of: the one whose pixels it has."""
    candidates = expected[tuple(np.asarray(factors).T)]  # [N, instance, 64, 64]
    matches = (candidates == to_bytes(images)[:, None, :, :, 0]).all((2, 3))
    assert (matches.sum(1) == 1).all()
    return matches.argmax(1)


@pytest.mark.parametrize("split", ["both", "train", "test"])
def test_smallnorb(tmp_path, monkeypatch, split):
    in_chunks(monkeypatch)
    parts = ("train", "test") if split == "both" else (split,)
    written = real.write_smallnorb(tmp_path)
    dataset = data.load("smallnorb", source="real", data_dir=tmp_path, split=split)
    assert dataset.factor_names == ("category", "elevation", "azimuth", "lighting")
    assert dataset.factor_sizes == (3, 2, 3, 2) and dataset.image_shape == (64, 64, 1)
    assert not dataset.deterministic
    expected = left_images(written, parts)
    factors, images = jax.jit(lambda d, key: d.sample(key, 200))(dataset, KEY)
    drawn = instances_of(images, dataset, factors, expected)
    assert set(drawn) == set(range(expected.shape[4])), "every instance must be drawn"
    changed = dataset.intervene(factors, "azimuth", (factors[:, 2] + 1) % 3, KEY)
    before = instances_of(render(dataset, factors, KEY), dataset, factors, expected)
    after = instances_of(render(dataset, changed, KEY), dataset, changed, expected)
    np.testing.assert_array_equal(before, after, "a counterfactual keeps the instance")


def test_smallnorb_unpacked_and_in_another_size(tmp_path):
    written = real.write_smallnorb(tmp_path, sizes=(2, 1, 1, 2), suffix=".mat")
    dataset = data.load("smallnorb", source="real", data_dir=tmp_path, size=32, resample="bilinear", residency="stream")
    images = dataset.render(real.grid((2, 2)), KEY)
    assert dataset.factor_names == ("category", "lighting")
    left = np.concatenate([written["train"], written["test"]], axis=4)[0, 0, 0, 1, :, 0]
    candidates = [np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR)) for i in left]
    assert any((candidate == to_bytes(images[1, :, :, 0])).all() for candidate in candidates)
    assert dataset.describe()["resample"] == "bilinear"


# CelebA


def face(encoded, crop=None, size=64):
    image = Image.open(real.io.BytesIO(encoded))
    if crop:
        left, top = (178 - crop) // 2, (218 - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("layout", ["zip", "folder", "csv"])
def test_celeba(tmp_path, layout):
    files, attributes, landmarks, _ = real.write_celeba(tmp_path, as_zip=layout != "folder", csv=layout == "csv")
    dataset = data.load("celeba", source="real", data_dir=tmp_path)
    assert dataset.factor_names == real.ATTRIBUTES and dataset.factor_sizes == (2,) * 6
    assert dataset.factor_kind == "attributes" and not dataset.deterministic and dataset.size == 12
    drawn, images = jax.jit(lambda d, key: d.sample(key, 200))(dataset, KEY)
    expected = np.stack([face(encoded) for encoded in files.values()])
    matches = (to_bytes(images)[:, None] == expected).all((2, 3, 4))
    assert (matches.sum(1) == 1).all() and len(set(matches.argmax(1))) == 12
    np.testing.assert_array_equal(drawn, attributes[matches.argmax(1)] > 0)
    np.testing.assert_array_equal(dataset.sample_factors(KEY, 200), drawn)
    np.testing.assert_allclose(
        dataset.arrays["landmarks"], landmarks.reshape(-1, 5, 2) * np.array([64 / 178, 64 / 218]), rtol=1e-6
    )
    with pytest.raises(ValueError, match="no generative factors"):
        dataset.render(drawn, KEY)


def test_celeba_crop_split_and_record(tmp_path):
    files, attributes, landmarks, partition = real.write_celeba(tmp_path)
    dataset = data.load("celeba", source="real", data_dir=tmp_path, crop=148, size=32, split="valid")
    valid = np.flatnonzero(partition == 1)
    expected = np.stack([face(list(files.values())[i], 148, 32) for i in valid])
    drawn, images = dataset.sample(KEY, 32)
    matches = (to_bytes(images)[:, None] == expected).all((2, 3, 4))
    assert (matches.sum(1) == 1).all() and set(matches.argmax(1)) == set(range(len(valid)))
    np.testing.assert_array_equal(drawn, attributes[valid][matches.argmax(1)] > 0)
    np.testing.assert_allclose(
        dataset.arrays["landmarks"], (landmarks.reshape(-1, 5, 2) - [15, 35]) * (32 / 148), rtol=1e-5
    )
    record = dataset.describe()
    assert (record["crop"], record["size"], record["split"], record["num_images"]) == (148, 32, "valid", 3)


def test_celeba_without_optional_lists(tmp_path):
    real.write_celeba(tmp_path, num=4)
    (tmp_path / "list_landmarks_align_celeba.txt").unlink()
    (tmp_path / "list_eval_partition.txt").unlink()
    dataset = data.load("celeba", source="real", data_dir=tmp_path)
    assert "landmarks" not in dataset.arrays and dataset.size == 4
    with pytest.raises(ValueError, match="list_eval_partition"):
        data.load("celeba", source="real", data_dir=tmp_path, split="train")
    lines = [f"{i + 1:06d}.jpg 0" for i in range(4)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(cache.StaleCache, match="list_eval_partition.txt is not the file"):
        data.load("celeba", source="real", data_dir=tmp_path, split="train")
    assert data.load("celeba", source="real", data_dir=tmp_path, split="train", rebuild=True).size == 4
    with pytest.raises(ValueError, match="no image in split 'test'"):
        data.load("celeba", source="real", data_dir=tmp_path, split="test")


# Where files are looked for


def test_auto_looks_for_what_the_options_ask_for(tmp_path):
    sizes = (1, 1, 1, 1, 1, 2, 2)
    real.write_mpi3d(tmp_path, "real.npz", sizes)
    real.write_smallnorb(tmp_path, (2, 1, 1, 1))
    (tmp_path / f"{real.NORB_STEMS['train']}-dat.mat.gz").unlink()
    assert data.load("mpi3d", data_dir=tmp_path, variant="real", factor_sizes=sizes).source == "real"
    assert data.load("smallnorb", data_dir=tmp_path, split="test").source == "real"
    assert not locations.prepared(MPI3D, tmp_path) and not locations.prepared(SMALLNORB, tmp_path)
    with pytest.raises(ValueError, match="no variant 'reel'; it has: toy, realistic, real, complex"):
        data.load("mpi3d", data_dir=tmp_path, variant="reel")


def test_auto_takes_real_files_where_they_are(tmp_path, monkeypatch):
    monkeypatch.delenv("CAUSALVAE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert data.load("dsprites").source == "procedural"
    (tmp_path / "data" / "dsprites").mkdir(parents=True)
    real.write_dsprites_npz(tmp_path / "data" / "dsprites")
    assert data.load("dsprites").source == "real"
    assert data.load("dsprites", data_dir="data").source == "real", "a folder of folders by set"
    assert data.load("dsprites", data_dir=tmp_path).source == "procedural"
    monkeypatch.setenv("CAUSALVAE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir("/")
    assert data.load("dsprites").source == "real"


def test_the_original_may_be_deleted_once_prepared(tmp_path):
    images = real.write_dsprites_npz(tmp_path)
    data.load("dsprites", source="real", data_dir=tmp_path)
    (tmp_path / real.DSPRITES_NPZ).unlink()
    assert locations.prepared(DSPRITES, tmp_path) and not locations.prepared(SHAPES3D, tmp_path)
    dataset = data.load("dsprites", data_dir=tmp_path)
    np.testing.assert_array_equal(every_image(dataset), images[..., None] * 255)
    with pytest.raises(FileNotFoundError, match="cannot be rebuilt"):
        data.load("dsprites", source="real", data_dir=tmp_path, rebuild=True)


def test_two_files_of_one_set_are_ambiguous(tmp_path):
    real.write_dsprites_npz(tmp_path, name="dsprites_a.npz")
    images = real.write_dsprites_npz(tmp_path, name="dsprites_b.npz", sizes=(3, 1, 1, 1, 2))
    with pytest.raises(ValueError, match="dsprites_a.npz, dsprites_b.npz; say which one with file="):
        data.load("dsprites", source="real", data_dir=tmp_path)
    dataset = data.load("dsprites", source="real", data_dir=tmp_path, file="dsprites_b.npz")
    np.testing.assert_array_equal(every_image(dataset), images[:, 0, 0, 0, :, :, :, None] * 255)


@pytest.mark.parametrize(
    "name, options, file, url",
    [
        (
            "dsprites",
            {},
            "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5",
            "google-deepmind/dsprites-dataset",
        ),
        ("3dshapes", {}, "3dshapes.h5", "https://storage.googleapis.com/3d-shapes"),
        ("mpi3d", {"variant": "real"}, "real.npz", "mpi3d_disentanglement_dataset/data/real.npz"),
        ("smallnorb", {}, "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz", "norb-v1.0-small"),
        ("celeba", {}, "img_align_celeba.zip", "CelebA.html"),
    ],
)
def test_missing_files_are_named_with_their_source(tmp_path, name, options, file, url):
    with pytest.raises(FileNotFoundError) as error:
        data.load(name, source="real", data_dir=tmp_path / "nowhere", **options)
    message = str(error.value)
    assert all(part in message for part in (file, url, str(tmp_path / "nowhere"), "does not exist"))
    assert f"causalvae prepare --dataset={name}" in message
    with pytest.raises(FileNotFoundError, match="has no file of it"):
        data.load(name, source="real", data_dir=tmp_path, **options)


# Files that are not what they should be


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def refuse(error, name, folder, **options):
    """The message with which `load` refuses; nothing may be left of the attempt."""
    with pytest.raises(error) as caught:
        data.load(name, source="real", data_dir=folder, **options)
    cache = folder / "causalvae_cache"
    assert not cache.exists() or not os.listdir(cache)
    return str(caught.value)


def test_npz_cut_short(tmp_path):
    real.write_dsprites_npz(tmp_path)
    cut(tmp_path / real.DSPRITES_NPZ)
    message = refuse(ValueError, "dsprites", tmp_path)
    assert real.DSPRITES_NPZ in message and "not a readable npz" in message and "fetch it again" in message


def test_npz_with_a_damaged_member(tmp_path):
    path = tmp_path / "mpi3d_toy.npz"
    real.write_mpi3d(tmp_path, sizes=(1, 1, 1, 1, 1, 2, 2))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "Bad CRC" in refuse(ValueError, "mpi3d", tmp_path, factor_sizes=(1, 1, 1, 1, 1, 2, 2))


def test_npz_whose_array_is_shorter_than_its_header_says(tmp_path):
    path = tmp_path / "mpi3d_toy.npz"
    real.write_mpi3d(tmp_path, sizes=(1, 1, 1, 1, 1, 2, 2))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("images.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content[:-1])
    message = refuse(ValueError, "mpi3d", tmp_path, factor_sizes=(1, 1, 1, 1, 1, 2, 2))
    assert "images has 49,151 bytes, and its header [4, 64, 64, 3] uint8 says 49,152" in message


def test_npz_with_a_wrong_key(tmp_path):
    np.savez(tmp_path / real.DSPRITES_NPZ, images=np.zeros((2, 64, 64), np.uint8), latents_classes=np.eye(2))
    message = refuse(ValueError, "dsprites", tmp_path)
    assert "expected [N, 5 or 6]" in message
    np.savez(tmp_path / real.DSPRITES_NPZ, images=np.zeros((2, 64, 64), np.uint8))
    message = refuse(ValueError, "dsprites", tmp_path)
    assert "no array 'latents_classes'; it has: images" in message


def test_images_of_another_size_or_type(tmp_path):
    np.savez(tmp_path / "mpi3d_toy.npz", images=np.zeros((4, 32, 32, 3), np.uint8))
    assert "[4, 32, 32, 3]; expected [N, 64, 64, 3]" in refuse(ValueError, "mpi3d", tmp_path)
    np.savez(tmp_path / "mpi3d_toy.npz", images=np.zeros((4, 64, 64, 3), np.float32))
    sizes = (1, 1, 1, 1, 1, 2, 2)
    assert "float32; expected uint8" in refuse(ValueError, "mpi3d", tmp_path, factor_sizes=sizes)
    images, classes, _ = real.dsprites_arrays((3, 1, 1, 1, 1))
    np.savez(tmp_path / real.DSPRITES_NPZ, imgs=images * 255, latents_classes=classes)
    assert "pixels up to 255" in refuse(ValueError, "dsprites", tmp_path)


def test_an_incomplete_grid(tmp_path):
    images, classes, _ = real.dsprites_arrays((3, 2, 2, 1, 1))
    path = tmp_path / real.DSPRITES_NPZ
    np.savez(path, imgs=images[:-1], latents_classes=classes[:-1])
    assert "11 images, but its labels" in refuse(ValueError, "dsprites", tmp_path)
    np.savez(path, imgs=images, latents_classes=classes[[*range(11), 0]])
    message = refuse(ValueError, "dsprites", tmp_path)
    assert "1 of 12 combinations are missing" in message and "'shape': 2, 'scale': 1, 'orientation': 1" in message
    np.savez(path, imgs=images, latents_classes=classes[:-1])
    assert "12 images but 11 labels" in refuse(ValueError, "dsprites", tmp_path)


def test_h5_cut_short_or_without_labels(tmp_path):
    real.write_shapes3d(tmp_path, sizes=(2, 2, 1, 1, 1, 1))
    cut(tmp_path / "3dshapes.h5")
    message = refuse(ValueError, "3dshapes", tmp_path)
    assert "3dshapes.h5 is not a readable HDF5 file" in message and "truncated" in message
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file["images"] = np.zeros((2, 64, 64, 3), np.uint8)
    assert "no array 'labels'; it has: images" in refuse(ValueError, "3dshapes", tmp_path)
    (tmp_path / "3dshapes.h5").write_text("<html>quota exceeded</html>")
    assert "not a readable HDF5 file" in refuse(ValueError, "3dshapes", tmp_path)


def test_norb_files_that_are_cut_short_or_do_not_belong_together(tmp_path):
    real.write_smallnorb(tmp_path, sizes=(2, 1, 1, 1))
    stem = tmp_path / real.NORB_STEMS["test"]
    dat, cat = stem.with_name(f"{stem.name}-dat.mat.gz"), stem.with_name(f"{stem.name}-cat.mat.gz")
    intact = dat.read_bytes()
    for path in (tmp_path / f"{real.NORB_STEMS['train']}-dat.mat.gz", dat):  # the one at fault is named
        whole = path.read_bytes()
        cut(path)
        message = refuse(ValueError, "smallnorb", tmp_path)
        assert path.name in message and "not a readable gzip file" in message
        path.write_bytes(whole)
    dat.write_bytes(gzip.compress(gzip.decompress(intact)[:-5]))
    assert "ends before row 6 of 6" in refuse(ValueError, "smallnorb", tmp_path)
    dat.write_bytes(gzip.compress(b"MATLAB 5.0 MAT-file"))
    assert "no SmallNORB matrix" in refuse(ValueError, "smallnorb", tmp_path)
    dat.write_bytes(intact)
    cat.write_bytes(gzip.compress(real.norb_matrix(np.zeros(5, np.int32))))
    assert "do not belong together" in refuse(ValueError, "smallnorb", tmp_path)
    cat.unlink()
    message = refuse(FileNotFoundError, "smallnorb", tmp_path)
    assert cat.name in message and "put it beside" in message


def test_a_jpeg_that_does_not_decode(tmp_path):
    files, *_ = real.write_celeba(tmp_path, num=4, as_zip=False)
    broken = tmp_path / "img_align_celeba" / "000003.jpg"
    cut(broken)
    message = refuse(ValueError, "celeba", tmp_path)
    assert str(broken) in message and "does not decode" in message
    broken.write_bytes(real.jpeg(np.zeros((64, 64, 3), np.uint8)))
    assert "64 × 64 px; the aligned images are 178 × 218" in refuse(ValueError, "celeba", tmp_path)
    broken.unlink()
    assert "lacks 1 of 4 listed images, such as 000003.jpg" in refuse(ValueError, "celeba", tmp_path)


def test_celeba_lists_that_do_not_fit(tmp_path):
    real.write_celeba(tmp_path, num=4)
    lists = tmp_path / "list_attr_celeba.txt"
    lines = lists.read_text().splitlines()
    lists.write_text("\n".join(lines[:-1]) + "\n")
    assert "lists 3 images; its first line says 4" in refuse(ValueError, "celeba", tmp_path)
    lists.write_text("\n".join(["3", *lines[1:-1]]) + "\n")
    assert "do not list the same images" in refuse(ValueError, "celeba", tmp_path)
    lists.write_text("\n".join([*lines[:-1], lines[-1] + " 1"]) + "\n")
    assert "integers" in refuse(ValueError, "celeba", tmp_path)
    cut(tmp_path / "img_align_celeba.zip")
    lists.write_text("\n".join(lines) + "\n")
    assert "not a readable zip" in refuse(ValueError, "celeba", tmp_path)
    lists.unlink()
    assert "list_attr_celeba.txt" in refuse(FileNotFoundError, "celeba", tmp_path)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("celeba", {"crop": 200}, "crop=200 does not fit into images of 178 × 218"),
        ("celeba", {"resample": "cubic"}, "no resample 'cubic'; it has: nearest"),
        ("celeba", {"split": "validation"}, "no split 'validation'; it has: all, train, valid, test"),
        ("smallnorb", {"split": "all"}, "no split 'all'; it has: both, train, test"),
        ("smallnorb", {"size": 0}, "at least 1 px"),
        ("dsprites", {"residency": "gpu"}, "no residency 'gpu'; there are: auto, device, stream"),
        ("dsprites", {"cache": "x"}, "no option 'cache'"),
    ],
)
def test_options_that_do_not_exist(tmp_path, name, options, message):
    real.write_celeba(tmp_path, num=2)
    real.write_dsprites_npz(tmp_path, sizes=(3, 1, 1, 1, 1))
    with pytest.raises(ValueError, match=message):
        data.load(name, source="real", data_dir=tmp_path, **options)


@pytest.fixture
def as_ordinary_user():
    """Permissions mean nothing to root: run as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_folder_without_permission(tmp_path, request):
    real.write_dsprites_npz(tmp_path)
    tmp_path.chmod(0)
    request.getfixturevalue("as_ordinary_user")
    with pytest.raises(PermissionError, match="no permission to read .*test_a_folder"):
        data.load("dsprites", source="real", data_dir=tmp_path)


def test_streamed_sets_are_chosen_by_size(monkeypatch):
    monkeypatch.setattr(stored, "device_memory", lambda: 1000)
    assert stored.choose_residency("auto", 500) == "device"
    assert stored.choose_residency("auto", 501) == "stream"
    assert stored.choose_residency("device", 10**9) == "device"
    assert stored.choose_residency("stream", 1) == "stream"
