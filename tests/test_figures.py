"""Figures that explain themselves: what is beyond chance stands out, in gray and on a phone too, with a sentence."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from causalvae import adapters, evaluation, figures, plots
from causalvae import interventions as iv
from causalvae.evaluation.patching import patch_sites
from causalvae.interventions.patching import patch_with_gains

ROOT = pathlib.Path(__file__).resolve().parents[1]
FACTORS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
PHONE = 360 / 72  # inches of a figure whose width is 360 px, where a point is a pixel


def mediated(**changes):
    """Latent 1 carries the first factor, latent 2 does so with interaction, latent 0 may be chance."""
    share = np.zeros((6, 3))
    share[0] = 0.061, 0.7, 0.25
    estimate = np.stack([share, 1 - share, 0 * share], axis=-1)
    found = evaluation.Mediated(
        ("indirect", "direct", "interaction"), estimate, estimate - 0.05, estimate + 0.05, np.zeros(6),
        interaction_share=0.3 * (share == 0.25), well_defined=share != 0.25, limit=0.1, carries=share > 0.1,
    )  # fmt: skip
    return found._replace(**changes)


def cells(figure):
    """Place -> texts of a heat map's cells, and place -> whether the cell has a color."""
    (axes,) = figure.axes
    found = {}
    for text in axes.texts:
        x, y = text.get_position()
        found.setdefault((round(y), round(x)), []).append(text.get_text())
    return found, np.ma.getmaskarray(axes.images[0].get_array())


def words(figure):
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_what_may_be_chance_has_no_color_and_the_rest_its_interval():
    found, bare = cells(figures.mediation(mediated(), FACTORS, "made up"))
    assert found[0, 0] == ["6", ""] and found[1, 0] == ["70", "65–75"] and found[2, 0] == ["25*", "20–30"]
    assert bare[:, 0].tolist() == [True, False, False] and bare[:, 1:].all()
    figure = figures.mediation(mediated(carries=None, well_defined=None), FACTORS, "made up")  # of an earlier version
    found, bare = cells(figure)
    assert found[0, 0] == ["6", "1–11"] and found[2, 0] == ["25", "20–30"] and not bare[:, 0].any()
    assert "the interval is above zero" in words(figure) and "*" not in words(figure)
    against = mediated(estimate=-mediated().estimate, carries=np.ones((6, 3), bool))
    found, bare = cells(figures.mediation(against, FACTORS, "made up"))
    assert bare.all() and found[1, 0] == ["−70", ""], "an effect against the factor's is not beyond its null"
    undefined = mediated(estimate=np.full((6, 3, 3), np.nan))
    assert cells(figures.mediation(undefined, FACTORS, "made up"))[0][0, 0] == ["n/a", ""]


def test_the_strongest_unit_of_a_site_is_named_and_colored_where_it_is_beyond_chance():
    largest = np.array([[0.3, 0.2], [0.1, 0.4]])
    found = evaluation.Patching(("latent/z", "encoder/conv0"), largest, largest, np.array([0, 2]))
    earlier = figures.patching(found, ("size", "hue"), "made up")
    assert cells(earlier)[0][0, 0] == ["0.30", ""] and not cells(earlier)[1].any()
    assert "2 pairs that decode alike left out" in words(earlier)
    restores = np.array([[True, False], [False, True]])
    tested = found._replace(unit=np.array([[4, 1], [16, 2]]), restores=restores, p_value=0.5 * ~restores)
    texts, bare = cells(figures.patching(tested, ("size", "hue"), "made up"))
    assert texts == {(0, 0): ["30", "z4"], (0, 1): ["20", "z1"], (1, 0): ["10", "unit 16"], (1, 1): ["40", "unit 2"]}
    assert (bare == ~restores).all()


def test_a_unit_restores_only_what_is_beyond_chance_over_the_whole_search():
    """Of a linear model whose latents are the image's rows. One factor is latent 2; another moves each row at random,
    so that one latent is the strongest by chance; a third moves nothing."""
    x = jnp.zeros((64, 6, 1, 1))
    noise = jax.random.normal(jax.random.key(0), (64, 6, 1, 1)) ** 3
    model = adapters.from_functions(lambda images: images[:, :, 0, 0], lambda z: z[:, :, None, None])
    few = iv.Pairs(x[:4], noise[:4])
    pairs, same = iv.Pairs(x, x.at[:, 2].set(1)), iv.Pairs(x, x)
    found = patch_sites(model, None, [pairs, few, same], ("latent/z",), jax.random.key(0))
    assert found.unit[0, 0] == 2 and found.largest[0, 0] == pytest.approx(1) and found.restores[0].tolist() == [
        True, False, False
    ]  # fmt: skip
    assert found.largest[0, 1] > 0.1 and found.p_value[0, 0] < 0.01 < 0.1 < found.p_value[0, 1]
    assert found.left_out.tolist() == [0, 0, 64] and np.isnan(found.p_value[0, 2])
    pairs = iv.Pairs(x, noise)
    effects, gained, whole = patch_with_gains(model, None, pairs, "latent/z")
    np.testing.assert_array_equal(effects.recovery, iv.patch_effects(model, None, pairs, "latent/z").recovery)
    np.testing.assert_allclose(np.sum(gained, axis=1) / np.sum(whole), effects.recovery, atol=1e-6)


@pytest.mark.parametrize("name", ["mediation", "mediation_effects", "patching", "factor_effects"])
def test_figures_are_read_on_a_phone(name):
    patched = evaluation.Patching(("decoder/dense0",), np.full((1, 6), 0.3), np.ones((1, 6)), np.zeros(6))
    result = {"patching": patched, "factor_effects": np.ones((6, 10))}.get(name, mediated())
    figure = getattr(figures, name)(result, FACTORS, "betatc on 3dshapes (procedural data)")
    scale = PHONE / figure.get_figwidth()
    texts = [text for text in figure.findobj(match=lambda artist: hasattr(artist, "get_fontsize")) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) * scale > 7, "pixels"
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
    assert all(a.x1 < b.x0 + 2 for a, b in zip(boxes, boxes[1:])), "names beside each other"
    ends = [text.get_window_extent().x1 for text in figure.texts]
    assert max(ends) <= figure.bbox.x1 + 1, "lines end within the figure"
    below = max(figure.axes[0].title.get_window_extent().y1, *(box.y1 for box in boxes))
    assert figure.texts[1].get_window_extent().y0 > below, "and above what they are of"


def test_more_is_darker_also_in_gray():
    from matplotlib import colormaps

    gray = colormaps[plots.SEQUENTIAL](np.linspace(0, 1, 20))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(gray) < -0.01).all() and gray[0] > 0.9 and gray[-1] < 0.25


def test_every_figure_has_its_sentence_and_readme_has_the_same():
    readme = " ".join((ROOT / "README.md").read_text().split())
    for name in ("traversals", "factor_effects", "patching", "mediation"):
        assert figures.how_to_read(name) in readme
        assert f"docs/figures/quickstart_{name}.png" in readme
    first_result = (ROOT / "docs" / "first_result.md").read_text()
    assert all(figures.how_to_read(name) in first_result for name in ("factor_effects", "mediation"))
    assert figures.how_to_read("mediation_seed1") == figures.how_to_read("mediation")
    with pytest.raises(ValueError, match="no figure 'meditation'; there are: .*Did you mean 'mediation'"):
        figures.how_to_read("meditation")
