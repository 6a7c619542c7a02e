"""Every config of the one-channel data sets, from data to figures, with the smoke budget."""

import pytest
import smoke

from configs.common import ARCHITECTURES

DATASETS = ("dsprites", "smallnorb")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dataset", DATASETS)
def test_config_runs(dataset, architecture, tmp_path):
    smoke.run(f"{architecture}_{dataset}", tmp_path)
