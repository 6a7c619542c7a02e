"""The registry: names, sources, options, and what each answers when asked for what it does not have."""

import sys

import jax
import numpy as np
import pytest

from causalvae import data
from causalvae.data import DATASETS, Dataset, load


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if not entry.included])
def test_every_set_that_is_not_included_has_a_procedural_form_that_samples(name):
    dataset = load(name, source="procedural")
    assert isinstance(dataset, Dataset)
    assert (dataset.name, dataset.source) == (name, "procedural")
    # Traced, not run: what the images show is tested with each set.
    drawn, images = jax.eval_shape(lambda data, key: data.sample(key, 2), dataset, jax.random.key(0))
    assert drawn.shape == (2, dataset.num_factors) and drawn.dtype == "int32"
    assert images.shape == (2, *dataset.image_shape) and images.dtype == "float32"
    record = DATASETS[name].real
    if record is not None and record.factors:
        assert (dataset.factor_names, dataset.factor_sizes) == (record.factor_names, record.factor_sizes)


def test_names_that_do_not_exist():
    with pytest.raises(ValueError, match=r"no data set '3dshape' \(did you mean '3dshapes'\?\); there are: "):
        load("3dshape")
    with pytest.raises(ValueError, match="no data set 'imagenet'; there are: dsprites, 3dshapes, mpi3d"):
        load("imagenet")


def test_sources_that_do_not_exist():
    with pytest.raises(ValueError, match=r"no source 'genuine'; there are: auto, real, procedural"):
        load("dsprites", source="genuine")
    with pytest.raises(ValueError, match=r"did you mean 'procedural'"):
        load("dsprites", source="procedual")


def test_options_that_do_not_exist():
    with pytest.raises(ValueError, match=r"'stride' \(did you mean 'strides'\?\); it takes: strides"):
        load("dsprites", source="procedural", stride=2)
    with pytest.raises(ValueError, match="3dshapes .* takes no option 'color'; it takes: none"):
        load("3dshapes", source="procedural", color="red")


def test_a_set_whose_module_is_missing_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "causalvae.data.procedural.smallnorb", None)
    with pytest.raises(ImportError, match="smallnorb is not available: cannot import .*smallnorb"):
        load("smallnorb", source="procedural")


@pytest.mark.parametrize("prepared", [True, False])
def test_auto_takes_real_files_exactly_where_they_are_prepared(monkeypatch, tmp_path, prepared):
    from causalvae.data.real import locations, reading

    asked = []
    real = load("dsprites", source="procedural").replace(source="real")
    monkeypatch.setattr(locations, "prepared", lambda *place, **options: asked.append(place) or prepared)
    monkeypatch.setattr(reading, "read", lambda record, data_dir: real)
    assert load("dsprites", data_dir=str(tmp_path)).source == ("real" if prepared else "procedural")
    assert asked == [(DATASETS["dsprites"].real, str(tmp_path))]


def test_auto_without_files_is_procedural_and_real_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAUSALVAE_DATA", raising=False)
    assert load("dsprites", strides=(1, 1, 4, 2, 2)).source == "procedural"
    with pytest.raises(FileNotFoundError, match="dsprites"):
        load("dsprites", source="real")


def test_sets_without_real_files_never_look_for_them(monkeypatch):
    monkeypatch.setattr(data, "_is_prepared", lambda *_: pytest.fail("looked for files"))
    assert load("confounded_shapes").source == "procedural"


def test_strides_keep_every_nth_value():
    whole, part = load("dsprites", "procedural"), load("dsprites", "procedural", strides=(2, 1, 4, 2, 3))
    assert part.factor_sizes == (2, 6, 10, 16, 11)
    chosen = np.array([[1, 5, 9, 15, 10], [0, 2, 3, 1, 4]])
    key = jax.random.key(0)
    np.testing.assert_array_equal(part.render(chosen, key), whole.render(chosen * [2, 1, 4, 2, 3], key))
