"""Images of one's own: as arrays, as a folder, as an .npz file, and by a command's path."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import causalvae as cv
from causalvae import data
from causalvae.data import _images

SIZES = (2, 3, 4)
FACTORS = np.stack([axis.ravel() for axis in np.meshgrid(*map(np.arange, SIZES), indexing="ij")], axis=1)
NAMES = ("shape", "x", "y")


def pictures(factors=FACTORS, height=16, width=16, channels=1):
    """uint8 images whose first pixels are the factors, so that each tells which it is."""
    images = np.random.default_rng(0).integers(0, 256, (len(factors), height, width, channels), dtype=np.uint8)
    images[:, 0, : factors.shape[1], 0] = 10 * factors
    images[:, 0, 5, 0] = 255
    return images


def shown(images):
    """The factors that images of `pictures` show."""
    return np.rint(np.asarray(images)[:, 0, :3, 0] * 25.5).astype(int)


@pytest.fixture
def shuffled():
    order = np.random.default_rng(1).permutation(len(FACTORS))
    return pictures()[order], FACTORS[order]


# --- arrays ----------------------------------------------------------------------------------------------


def test_a_complete_grid_in_any_order_is_causal(shuffled):
    dataset = data.from_arrays(*shuffled, NAMES, name="mine")
    assert (dataset.name, dataset.source, dataset.factor_kind) == ("mine", "arrays", "generative")
    assert dict(zip(dataset.factor_names, dataset.factor_sizes)) == dict(zip(NAMES, SIZES)) and dataset.size == 24
    np.testing.assert_array_equal(shown(dataset.render(FACTORS, jax.random.key(0))), FACTORS)
    pairs = cv.interventions.counterfactuals(dataset, jax.random.key(0), "x", 20)
    assert not pairs.observational
    np.testing.assert_array_equal(shown(pairs.x_source), pairs.factors_source)
    assert (pairs.factors != pairs.factors_source).sum(axis=0).tolist() == [0, 20, 0]
    same = data.from_arrays(pictures(), FACTORS, NAMES)
    np.testing.assert_array_equal(same.arrays["images"], dataset.arrays["images"])
    json.dumps(dataset.describe())


def test_holes_and_duplicates_make_it_observational_and_are_said():
    cases = {
        "2 of 24 combinations of the factors are missing, such as shape=0, x=1, y=2": np.delete(FACTORS, [6, 20], 0),
        "1 images repeat a combination: shape=0, x=1, y=2 occurs 2 times": np.concatenate([FACTORS, FACTORS[6:7]]),
    }
    for why, factors in cases.items():
        dataset = data.from_arrays(pictures(factors), factors, NAMES)
        assert (dataset.source, dataset.factor_kind) == ("arrays, observational", "attributes")
        assert dataset.describe()["observational"] == why and dataset.size == len(factors)
        drawn, images = dataset.sample(jax.random.key(0), 16)
        np.testing.assert_array_equal(shown(images), drawn)
        pairs = cv.interventions.counterfactuals(dataset, jax.random.key(0), "x", 8)
        assert pairs.observational and pairs.dataset == "arrays (arrays, observational)"
        with pytest.raises(ValueError, match="attributes, not generative factors .*combination"):
            cv.interventions.counterfactuals_all_values(dataset, jax.random.key(0), "x", 8)
        with pytest.raises(ValueError, match="no image can be made from its attributes .*combination"):
            dataset.render(drawn, jax.random.key(0))


def test_a_grid_may_be_given_as_attributes():
    dataset = data.from_arrays(pictures(), FACTORS, NAMES, attributes=True)
    assert (
        dataset.factor_kind == "attributes" and dataset.describe()["observational"] == "given as attributes, not causes"
    )


def test_images_alone_have_no_factors():
    dataset = data.from_arrays(pictures()[..., 0])
    factors, images = dataset.sample(jax.random.key(0), 5)
    assert factors.shape == (5, 0) and images.shape == (5, 16, 16, 1)
    assert dataset.describe()["observational"] == "there are no factors"


def test_classes_are_sorted_and_recorded_and_constant_factors_dropped():
    angles = np.array(["left", "up", "right"])[FACTORS[:, 1]]
    factors = np.stack([FACTORS[:, 0] * 5, np.full(24, 7), FACTORS[:, 2]], axis=1)
    dataset = data.from_arrays(pictures(), factors, ("a", "b", "c"))  # each combination of a and c three times
    assert dataset.factor_names == ("a", "c")
    assert dataset.describe()["dropped_factors"] == ("b",) and dataset.describe()["classes"] == (("a", (0, 5)),)
    words = data.from_arrays(pictures()[:3], angles[[0, 4, 8]], ["angle"])
    assert words.describe()["classes"] == (("angle", ("left", "right", "up")),) and words.source == "arrays"
    np.testing.assert_array_equal(shown(words.render(np.array([[1]]), jax.random.key(0)))[0], FACTORS[2])


def test_continuous_factors_need_bins_whose_edges_are_recorded():
    x = np.linspace(0, 1, 24)
    factors = np.stack([x, FACTORS[:, 0]], axis=1)
    with pytest.raises(ValueError, match=r"factor 'x' is continuous \(24 values from 0 to 1\).*bins=.*mcc and r2"):
        data.from_arrays(pictures(), factors, ("x", "shape"))
    dataset = data.from_arrays(pictures(), factors, ("x", "shape"), bins={"x": 4})
    assert dataset.factor_sizes == (4, 2) and dataset.factor_kind == "attributes"
    assert dataset.describe()["bins"] == (("x", (0.0, 0.25, 0.5, 0.75, 1.0)),)
    np.testing.assert_array_equal(dataset.arrays["attributes"][:, 0], np.minimum(np.floor(4 * x), 3))
    with pytest.raises(ValueError, match="bins are given of z; the factors are x, shape"):
        data.from_arrays(pictures(), factors, ("x", "shape"), bins={"z": 4})
    for bins, message in (({"x": 1}, "at least 2 bins, not 1"), ({"shape": 4}, "factor 'x' is continuous")):
        with pytest.raises(ValueError, match=message):
            data.from_arrays(pictures(), factors, ("x", "shape"), bins=bins)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((4, 8, 8, 1), np.float32) + 200, r"\[200, 200\]: divide them by 255, or give uint8"),
        (np.linspace(-1, 1, 256).reshape(4, 8, 8), r"\[-1, 1\]: \(images \+ 1\) / 2"),
        (np.random.default_rng(0).normal(size=(4, 8, 8)), "undo their standardization"),
        (np.full((4, 8, 8), 1.2), "clip or rescale"),
        (np.full((4, 8, 8), 0.5) / 255, "divided by 255 twice"),
        (
            np.where(np.arange(4)[:, None, None] == 2, np.nan, np.zeros((4, 8, 8))),
            "1 of 4 images .* NaN or infinite: 2",
        ),
        (np.zeros((4, 3, 8, 8), np.uint8), r"channels first: images.transpose\(0, 2, 3, 1\)"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"opacity: images\[..., :3\]"),
        (np.zeros((8, 8, 3), np.uint8), "one image"),
        (np.zeros((0, 8, 8, 3), np.uint8), "at least one"),
        (np.ones((4, 8, 8), np.uint8), r"reach 1 only: .*astype\(bool\)"),
        (np.ones((4, 8, 8), np.int64), "images are int64: give uint8"),
    ],
)
def test_images_of_another_range_or_layout_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(images)


@pytest.mark.parametrize(
    "factors, names, message",
    [
        (FACTORS[:5], NAMES, "24 images but 5 rows of factors"),
        (FACTORS, NAMES[:2], "2 names are given .*3 factors"),
        (FACTORS, ("x", "x", "y"), "must differ"),
        (FACTORS[None], None, r"\[N, K\]"),
        (np.full((24, 1), np.nan), None, "'factor0' is NaN"),
        (np.full((24, 1), None), None, "is object"),
        (np.stack([np.arange(24), FACTORS[:, 0]], 1), None, "different in every image, as a name is"),
    ],
)
def test_malformed_factors_are_refused(factors, names, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(pictures(), factors, names)


def test_floats_and_black_and_white_are_kept_as_they_are():
    images = np.random.default_rng(0).uniform(size=(24, 8, 8, 3)).astype(np.float32)
    dataset = data.from_arrays(images, FACTORS)
    np.testing.assert_array_equal(dataset.render(FACTORS, jax.random.key(0)), images)
    black = data.from_arrays(images > 0.5, FACTORS)
    np.testing.assert_array_equal(black.render(FACTORS, jax.random.key(0)), images > 0.5)


# --- sizes -----------------------------------------------------------------------------------------------


def test_resizing_averages_areas_or_interpolates_and_is_recorded():
    images = np.random.default_rng(0).uniform(size=(24, 8, 8, 3)).astype(np.float32)
    half = data.from_arrays(images, FACTORS, resize=4)
    means = images.reshape(24, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(half.render(FACTORS, jax.random.key(0)), means, atol=1e-6)
    assert half.describe()["resize"] == "8x8 to 4x4, box"
    wide = data.from_arrays(images, FACTORS, resize="8x16")
    assert wide.image_shape == (8, 16, 3) and wide.describe()["resize"] == "8x8 to 8x16, bilinear"
    assert "resize" not in data.from_arrays(images, FACTORS, resize=(8, 8)).describe()
    for wrong in ("8by8", 0, (1, 2, 3), "x", 4.5j):
        with pytest.raises(ValueError, match="resize is a size in px"):
            _images.parsed_size(wrong)


@pytest.mark.parametrize("network", ["standard", "burgess", "residual", "small"])
@pytest.mark.parametrize("size", [(32, 32), (96, 96), (128, 128), (48, 32)])
def test_networks_take_these_sizes(network, size):
    model = cv.architectures.create("vae", (*size, 3), latents=2, network=network)
    image = jax.ShapeDtypeStruct((2, *size, 3), "float32")
    outputs = jax.eval_shape(lambda x: model.forward(model.init(jax.random.key(0)), x, None, cv.no_tap), image)
    assert outputs.image.shape == (2, *size, 3)


@pytest.mark.parametrize(
    "network, size, nearest",
    [
        ("standard", (28, 28), "32x32"),
        ("small", (100, 72), "96x80"),
        ("residual", (140, 200), "128x192"),
        ("residual", (120, 144), "128x160"),
        ("burgess", (5, 64), "16x64"),
    ],
)
def test_other_sizes_are_told_the_nearest(network, size, nearest):
    with pytest.raises(ValueError, match=f"nearest that it takes are {nearest}: .*--config.data.resize={nearest}"):
        cv.architectures.create("vae", (*size, 1), network=network)
    cv.architectures.create("vae", (*_images.parsed_size(nearest), 1), network=network)


# --- a folder --------------------------------------------------------------------------------------------


def write_folder(folder, images=None, lines=None, header="file,shape,x,y"):
    folder.mkdir(exist_ok=True)
    images = pictures() if images is None else images
    for n, image in enumerate(images):
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{n}.png")
    lines = [f"{n}.png,{s},{x},{y}" for n, (s, x, y) in enumerate(FACTORS)] if lines is None else lines
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return folder


def test_a_folder_is_what_its_arrays_are(tmp_path):
    dataset, same = data.from_folder(write_folder(tmp_path / "mine")), data.from_arrays(pictures(), FACTORS, NAMES)
    assert (dataset.name, dataset.source, dataset.factor_names) == ("mine", "arrays", NAMES)
    assert dataset.describe()["sha256"] == same.describe()["sha256"]
    np.testing.assert_array_equal(dataset.arrays["images"], same.arrays["images"])
    assert data.load(str(tmp_path / "mine")).describe() == dataset.describe()


def test_texts_are_classes_and_colors_are_kept(tmp_path):
    lines = [f"{n}.png;{('square', 'disc')[s]};{x};{y}" for n, (s, x, y) in enumerate(FACTORS)]
    images = pictures(channels=3)
    folder = write_folder(tmp_path, images, lines, "file;shape;x;y")
    Image.fromarray(images[3]).convert("RGBA").save(folder / "3.png")  # opaque everywhere
    dataset = data.from_folder(folder)
    assert dataset.describe()["classes"] == (("shape", ("disc", "square")),)
    order = FACTORS * [-1, 1, 1] + [1, 0, 0]
    np.testing.assert_allclose(dataset.render(order, jax.random.key(0)), images / 255, atol=1e-6)


def test_every_bad_line_is_said(tmp_path):
    def lines(**changes):
        good = [f"{n}.png,{s},{x},{y}" for n, (s, x, y) in enumerate(FACTORS)]
        return [changes.get(f"row{n}", line) for n, line in enumerate(good)]

    cases = {
        "line 4 has 3 cells, and the header 4; line 7 has no y": lines(row2="2.png,0,0", row5="5.png,0,1,"),
        "line 3 lists 0.png again, after line 2": lines(row1="0.png,0,0,1"),
        r"line 3 has x 'nan'.*; line 5 has x 'two', which is no number": lines(
            row1="1.png,0,nan,1", row3="3.png,0,two,3"
        ),
        r"line 3 \(a.png\) is not there; line 4 \(labels.csv\) cannot be read: .*does not decode": lines(
            row1="a.png,0,0,1", row2="labels.csv,0,0,2"
        ),
    }  # fmt: skip
    for message, changed in cases.items():
        with pytest.raises(ValueError, match=message):
            data.from_folder(write_folder(tmp_path, lines=changed))
    folder = write_folder(tmp_path, lines=[f"a{n}.png,{n},0,0" for n in range(9)])
    with pytest.raises(ValueError, match=r"line 6 \(a4.png\) is not there \(and 4 more\)"):
        data.from_folder(folder)


def test_images_of_other_kinds_and_sizes_are_said(tmp_path):
    folder = write_folder(tmp_path)
    Image.fromarray(np.zeros((16, 20), np.uint8)).save(folder / "2.png")
    with pytest.raises(ValueError, match=r"line 4 \(2.png\) is 16 × 20 px .*first image 16 × 16: resize="):
        data.from_folder(folder)
    assert data.from_folder(folder, resize=(16, 32)).image_shape == (16, 32, 1)
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(folder / "2.png")
    Image.fromarray(np.zeros((16, 16, 4), np.uint8)).save(folder / "3.png")
    with pytest.raises(ValueError, match=r"line 4 \(2.png\) has pixels of more than 8 bits.*line 5 .* transparent in"):
        data.from_folder(folder)


def test_a_folder_without_its_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        data.from_folder(tmp_path / "none")
    (tmp_path / "factors.csv").write_text("file,x\n")
    with pytest.raises(FileNotFoundError, match=r"has no labels.csv; say labels=… of: factors.csv"):
        data.from_folder(tmp_path)
    with pytest.raises(ValueError, match="needs a header"):
        data.from_folder(tmp_path, "factors.csv")


# --- a path in place of a name ---------------------------------------------------------------------------


def test_a_path_is_a_data_set(tmp_path, monkeypatch):
    np.savez(tmp_path / "mine.npz", images=pictures(), factors=FACTORS, names=NAMES)
    path = str(tmp_path / "mine.npz")
    dataset = data.load(path)
    assert (dataset.name, dataset.source, dataset.factor_names) == ("mine", "arrays", NAMES)
    assert data.load(path, source="arrays, observational", resize="32").image_shape == (32, 32, 1)
    assert data.load("mine.npz", data_dir=str(tmp_path)).describe() == dataset.describe()
    np.savez(tmp_path / "holes.npz", images=pictures()[1:], factors=FACTORS[1:])
    np.savez(tmp_path / "other.npz", x=pictures())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "mine.npz").read_bytes()[:200])
    (tmp_path / "mine.h5").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for name, options, error, message in (
        ("holes.npz", {"source": "arrays"}, ValueError, "holes.npz is no complete grid .*1 of 24 combinations"),
        ("mine.npz", {"source": "real"}, ValueError, "no source 'real'; it has: 'auto', 'arrays'"),
        ("mine.npz", {"resise": 3}, ValueError, "no option 'resise' .did you mean 'resize'"),
        ("other.npz", {}, ValueError, "other.npz has no array images; it holds x"),
        ("cut.npz", {}, ValueError, "cut.npz is not a readable npz file of plain arrays"),
        ("none.npz", {}, FileNotFoundError, "there is no file or folder none.npz"),
        ("./none", {}, FileNotFoundError, "there is no file or folder none"),
        ("./mine.h5", {}, ValueError, "neither a folder with labels.csv nor an .npz file"),
        ("mine", {}, ValueError, "no data set 'mine'.*Or give the path of an .npz file or of a folder"),
    ):
        with pytest.raises(error, match=message):
            data.load(name, **options)


def test_digits_are_real_and_their_digit_is_an_attribute():
    dataset = data.load("digits")
    assert (dataset.source, dataset.factor_kind, dataset.image_shape) == ("real", "attributes", (32, 32, 1))
    assert dict(zip(dataset.factor_names, dataset.factor_sizes)) == {"digit": 10} and dataset.size == 1797
    drawn, images = dataset.sample(jax.random.key(0), 8)
    row = int(np.flatnonzero(np.asarray(dataset.arrays["attributes"])[:, 0] == int(drawn[0, 0]))[0])
    assert np.asarray(dataset.arrays["images"])[row].max() == 1 and images.shape == (8, 32, 32, 1)
    assert data.load("digits", source="real", resize="64x48").image_shape == (64, 48, 1)
    with pytest.raises(ValueError, match="digits has real images only"):
        data.load("digits", source="procedural")


@pytest.mark.parametrize("attributes", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_run_of_ones_own_images(tmp_path, attributes):
    from configs import common
    from experiments import pipeline

    np.savez(tmp_path / "mine.npz", images=pictures(height=28, width=28), factors=FACTORS, names=NAMES)
    config = common.config_for("vae", "dsprites", "smoke")
    config.update_from_flattened_dict({"data.name": str(tmp_path / "mine.npz"), "architecture.latents": 2})
    with pytest.raises(ValueError, match=r"multiples of 16, not \[28, 28, 1\].*--config.data.resize=32x32"):
        pipeline.prepare(config)
    config.data.resize = "16x32"
    config.data.source = "arrays, observational" if attributes else "auto"
    results = pipeline.run(config, tmp_path / "run")
    assert results["data"]["resize"] == "28x28 to 16x32, bilinear" and results["data"]["name"] == "mine"
    assert results["data"]["source"] == ("arrays, observational" if attributes else "arrays")
    assert (results["members"][0]["factor_effects"] is None) == attributes
    assert (tmp_path / "run" / "explorer.html").exists()
    again = cv.load(tmp_path / "run")
    assert again.dataset.image_shape == (16, 32, 1)
    assert json.loads(json.dumps(again.dataset.describe())) == again.results["data"]


def test_a_run_of_images_alone(tmp_path):
    np.savez(tmp_path / "mine.npz", images=pictures())
    config = {
        "architecture": {"name": "vae", "network": "small", "latents": 2},
        "data": {"name": "mine.npz", "dir": str(tmp_path)},
        "training": {"steps": 1, "batch_size": 4, "log_every": 1, "checkpoint_every": 1},
    }
    run = cv.train(config, tmp_path / "run")
    settings = cv.evaluation.Settings(codes=8, test_codes=8, images=4, pairs=2, effects=2, sites="latent/z")
    found = cv.evaluate(run.model, run.params, run.dataset, settings)
    assert found.factor_effects is None and np.isfinite(found.scores[0].value)
    assert cv.load(tmp_path / "run").dataset.size == 24
    np.savez(tmp_path / "mine.npz", images=pictures()[::-1])
    with pytest.raises(ValueError, match="mine has other images or labels than those that the run began with"):
        cv.load(tmp_path / "run")
    with pytest.raises(ValueError, match="data.sha256 is '.*' there and '.*' here"):
        cv.train(config, tmp_path / "run")


def test_bins_are_said_on_the_command_line(tmp_path):
    factors = FACTORS + [0.0, 0.5, 0.0]
    np.savez(tmp_path / "mine.npz", images=pictures(), factors=factors, names=NAMES)
    section = {"name": "mine.npz", "source": "auto", "dir": str(tmp_path), "residency": "auto", "resize": ""}
    with pytest.raises(ValueError, match="factor 'x' is continuous .* in a shell --config.data.bins=x:8, makes 8"):
        cv.runs.load_dataset({"data": section})
    dataset = cv.runs.load_dataset({"data": {**section, "bins": "shape:2, x:3,y:3"}})
    assert dataset.factor_sizes == (2, 3, 3)
    np.testing.assert_allclose(dict(dataset.describe()["bins"])["x"], np.linspace(0.5, 2.5, 4))
    for wrong in ("x", "x:", "x:three", ":3", "x:3,"):
        with pytest.raises(ValueError, match="data.bins is factor:number, …, such as x:8,y:4, not "):
            cv.runs.parse_bins(wrong)
