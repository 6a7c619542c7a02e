"""What a smoke run of a config must leave behind; shared by the files that run them: a file holds the configs that
share the most compiled programs.

A config is a pair of an architecture and a data set. Every data set is run in the suite, and every
architecture but beta-VAE, which is VAE's with another weight; the other pairs of the 30 run with `-m long`.
"""

import importlib
import json
import math

import pytest

from configs.common import ARCHITECTURES, DATASETS
from experiments import pipeline

GRAY = ("dsprites", "smallnorb")
COLOR = tuple(name for name in DATASETS if name not in GRAY)
ALWAYS = ("vae_3dshapes", "factor_mpi3d", "betatc_celeba", "dip2_smallnorb", "vq_dsprites")


def stems(datasets):
    """The configs of some data sets; those that the suite leaves out carry the mark for it."""
    listed = [f"{name}_{data}" for data in datasets for name in ARCHITECTURES]
    return [pytest.param(stem, marks=[] if stem in ALWAYS else pytest.mark.long) for stem in listed]


def run(stem, workdir):
    """Run `configs/<stem>.py:smoke` whole, and check what it wrote."""
    config = importlib.import_module(f"configs.{stem}").get_config("smoke")
    pipeline.run(config, workdir)
    results = json.loads((workdir / "results.json").read_text())
    assert results["data"]["name"] == config.data.name and results["data"]["source"] == "procedural"
    (member,) = results["members"]
    values = {score["name"]: score["value"] for score in member["scores"]}
    for score in member["scores"]:
        assert score["estimator"] and (score["value"] is not None or score["note"]), score
    assert math.isfinite(values["reconstruction"]) and values["mean_squared_error"] > 0
    assert 0 <= values["dci_disentanglement"] <= 1 and 0 <= values["mig"] <= 1
    factors, latents = len(results["data"]["factors"]), len(member["latents"]["ces_l2"])
    assert len(member["factor_effects"]) == factors and len(member["factor_effects"][0]) == latents
    assert len(list((workdir / "figures").glob("*.png"))) == 6
