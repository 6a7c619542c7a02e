"""Procedural portraits: contract, what each cause changes, identity under interventions, attributes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causalvae.data.procedural import _face, _portrait, celeba

KEY = jax.random.key(0)
BATCH = 64  # every call is padded to this size: one compilation for all tests
PLAIN = (3, 1, 1, 2, 2, 0, 0, 0, 1, 2)
NAMES = celeba.FACTOR_NAMES
# The 40 attributes of the real set.
GENUINE = set(
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair "
    "Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup "
    "High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose "
    "Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat "
    "Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young".split()
)


@pytest.fixture(scope="module")
def dataset():
    return celeba.procedural()


@pytest.fixture(scope="module")
def render(dataset):
    jitted = jax.jit(dataset.render)

    def call(factors, key=KEY):
        factors = np.asarray(factors, np.int32)
        assert len(factors) <= BATCH
        return np.asarray(jitted(jnp.asarray(np.resize(factors, (BATCH, 10))), key))[: len(factors)]

    return call


@pytest.fixture(scope="module")
def portray(dataset):
    """Images of one and the same person."""
    jitted = jax.jit(jax.vmap(dataset.render_one, (None, 0, None)))

    def call(factors, key=KEY):
        padded = np.resize(np.asarray(factors, np.int32), (BATCH, 10))
        return np.asarray(jitted(dataset.arrays, jnp.asarray(padded), key))[: len(factors)]

    return call


def varied(base=PLAIN, **columns):
    """Rows like `base` in which the named factors run through the given values."""
    count = max(len(values) for values in columns.values())
    rows = np.tile(np.array(base, np.int32), (count, 1))
    for name, values in columns.items():
        rows[:, NAMES.index(name)] = values
    return rows


def test_contract(dataset, render):
    assert dataset.name == "celeba" and dataset.source == "procedural" and not dataset.deterministic
    assert dataset.factor_kind == "generative" and dataset.num_factors == 10
    assert dataset.size == np.prod(celeba.FACTOR_SIZES) == 6_048_000
    assert celeba.procedural() is dataset
    factors = dataset.sample_factors(jax.random.key(1), BATCH)
    images = render(factors)
    assert images.shape == (BATCH, 64, 64, 3) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    np.testing.assert_array_equal(images, render(factors))
    assert np.abs(images - render(factors, jax.random.key(2))).mean((1, 2, 3)).min() > 1 / 255


@pytest.mark.parametrize("base", [PLAIN, (5, 4, 3, 0, 4, 2, 3, 1, 6, 0), (1, 0, 4, 3, 0, 1, 2, 2, 0, 4)])
def test_every_value_of_every_cause_shows(dataset, portray, base):
    """Two values make images that differ by far more than the sensor's noise, even where beard and hat hide much."""
    for name, size in zip(NAMES, dataset.factor_sizes, strict=True):
        images = portray(varied(base, **{name: range(size)}))
        gray = images.mean(-1).reshape(size, -1)  # the noise is the same in all three channels
        apart = [np.linalg.norm(gray[i] - gray[j]) / _portrait.NOISE for i in range(size) for j in range(i)]
        assert min(apart) > 15, name  # standard deviations


def changed(images):
    """Where images of a group differ, as (mask, rows, columns)."""
    mask = np.ptp(images, axis=0).max(-1) > 2 / 255
    return mask, *np.nonzero(mask)


def test_causes_act_where_they_should(portray):
    mask, rows, columns = changed(portray(varied(smile=range(5))))
    assert 20 < rows.min() and rows.max() < 55 and 14 < columns.min() and columns.max() < 50
    mask, rows, columns = changed(portray(varied(glasses=range(3))))
    assert 24 < rows.min() and rows.max() < 42
    mask, rows, columns = changed(portray(varied(hat=range(3))))
    assert rows.max() < 32
    mask, rows, columns = changed(portray(varied(beard=range(4))))
    assert 30 < rows.min() and rows.max() < 58
    mask, rows, columns = changed(portray(varied(background=range(8))))
    assert not mask[28:44, 26:38].any() and mask[:8].all()  # behind the face, all around it
    skin = portray(varied(skin=range(6), hair_length=[1] * 6))
    assert np.ptp(skin, axis=0).max(-1)[:8].max() < 1e-6
    brightness = skin[:, 36:40, 24:40].mean((1, 2, 3))
    assert (np.diff(brightness) < -0.02).all()  # from pale to dark


def test_light_comes_from_where_it_should(portray):
    images = portray(varied(lighting=range(5), hair_length=[0] * 5))
    left, right = images[:, 34:48, 20:27].mean((1, 2, 3)), images[:, 34:48, 37:44].mean((1, 2, 3))
    assert (np.diff(right - left) > 0.02).all() and abs((right - left)[2]) < 0.06


def test_hair_grows_downwards(portray):
    bare, *grown = portray(varied(hair_length=range(4)))
    lowest = [np.nonzero((np.abs(image - bare).max(-1) > 0.05).any(1))[0].max() for image in grown]
    assert lowest[0] < lowest[1] < lowest[2] and lowest[2] >= 60


@pytest.mark.parametrize("seed", range(3))
def test_eyes_stay_where_the_alignment_puts_them(portray, seed):
    """Lenses sit on the eyes: 6.8 px aside of the image's middle, foreshortened by the pose."""
    poses = list(range(7))
    rows = np.concatenate([varied(pose=poses, hair_length=[0] * 7, glasses=[kind] * 7) for kind in (1, 2)])
    images = portray(rows, jax.random.key(seed)).reshape(2, 7, 64, 64, 3)
    darker = np.abs(images[0] - images[1]).sum(-1)  # the lenses alone: both kinds have the same frame
    grid = np.arange(64) + 0.5
    for pose, weight in zip(np.radians(celeba.POSES), darker, strict=True):
        profile = weight.sum(0)
        bridge = int(np.argmin(profile[28:36])) + 28
        eyes = [profile[part] @ grid[part] / profile[part].sum() for part in (np.s_[:bridge], np.s_[bridge:])]
        np.testing.assert_allclose(np.mean(eyes), 32, atol=1.0)
        np.testing.assert_allclose(eyes[1] - eyes[0], 13.6 * np.cos(pose), rtol=0.1)
        assert weight.sum(1) @ grid / weight.sum() == pytest.approx(_face.EYE_ROW, abs=1.0)


def test_counterfactuals_keep_the_identity(dataset, render):
    """Same key, another background: the same person, to the pixel; another key: another person."""
    factors = np.tile(np.array(PLAIN, np.int32), (BATCH, 1))
    other = dataset.intervene(jnp.asarray(factors), "background", jnp.full(BATCH, 4), KEY)
    before, after = render(factors), render(other)
    face = np.s_[:, 30:42, 28:36]
    np.testing.assert_allclose(before[face], after[face], atol=1e-5)
    assert np.abs(before[:, :8] - after[:, :8]).max((1, 2, 3)).min() > 0.05
    assert np.abs(before[1:][face] - before[:-1][face]).mean((1, 2, 3)).min() > 0.5 / 255


def test_draw_follows_the_frequencies(dataset):
    for frequencies, size in zip(celeba.FREQUENCIES, celeba.FACTOR_SIZES, strict=True):
        assert len(frequencies) == size and sum(frequencies) == pytest.approx(1.0)
    num = 20_000
    factors = np.asarray(dataset.sample_factors(jax.random.key(4), num))
    for k, frequencies in enumerate(celeba.FREQUENCIES):
        counts = np.bincount(factors[:, k], minlength=len(frequencies))
        expected = num * np.array(frequencies)
        assert ((counts - expected) ** 2 / expected).sum() < 35, NAMES[k]  # chi-squared, at most 7 degrees
    correlation = np.corrcoef(factors.T) - np.eye(10)
    assert np.abs(correlation).max() < 0.03


def test_attributes():
    assert set(celeba.ATTRIBUTE_NAMES) <= GENUINE
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, size, 500) for size in celeba.FACTOR_SIZES], -1)
    labels = np.asarray(celeba.attributes(jnp.asarray(factors)))
    assert labels.shape == (500, 14) and set(np.unique(labels)) == {0, 1}
    found = dict(zip(celeba.ATTRIBUTE_NAMES, labels.T, strict=True))
    for row, factor in enumerate(factors):
        cause = dict(zip(NAMES, factor, strict=True))
        beard, hair = celeba.BEARDS[cause["beard"]], celeba.HAIR_COLOR_NAMES[cause["hair_color"]]
        has_hair = celeba.HAIR_LENGTHS[cause["hair_length"]] != "bald"
        expected = {
            "Bald": not has_hair,
            "Black_Hair": has_hair and hair == "black",
            "Blond_Hair": has_hair and hair == "blond",
            "Brown_Hair": has_hair and hair == "brown",
            "Gray_Hair": has_hair and hair == "gray",
            "5_o_Clock_Shadow": beard == "stubble",
            "Goatee": beard == "goatee",
            "Sideburns": beard == "full",
            "No_Beard": beard in ("none", "stubble"),
            "Eyeglasses": celeba.GLASSES[cause["glasses"]] != "none",
            "Wearing_Hat": celeba.HATS[cause["hat"]] != "none",
            "Pale_Skin": cause["skin"] == 0,
            "Smiling": cause["smile"] >= 2,
            "Mouth_Slightly_Open": cause["smile"] >= 3,
        }
        assert {name: bool(values[row]) for name, values in found.items()} == expected


def test_open_mouths_show_teeth(portray):
    """The attribute is about the picture: teeth appear exactly where it is 1."""
    rows = np.concatenate([varied(smile=range(5), skin=[skin] * 5) for skin in range(6)])
    mouth = portray(rows)[:, 40:50, 26:38]
    white = (mouth.min(-1) > 0.82 * mouth.max(-1)) & (mouth.max(-1) > 0.4)  # neither skin nor lips
    labels = np.asarray(celeba.attributes(jnp.asarray(rows)))
    is_open = labels[:, celeba.ATTRIBUTE_NAMES.index("Mouth_Slightly_Open")]
    teeth = white.sum((1, 2))
    assert teeth[is_open == 1].min() >= 4 and teeth[is_open == 0].max() <= 1, teeth.reshape(6, 5)


def test_attributes_of_the_wrong_width_are_named():
    with pytest.raises(ValueError, match="hair_length"):
        celeba.attributes(jnp.zeros((3, 40), jnp.int32))
