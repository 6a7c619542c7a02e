"""Every config of VQ-VAE, from data to figures, with the smoke budget."""

import pytest
import smoke

from configs.common import DATASETS


@pytest.mark.parametrize("dataset", DATASETS)
def test_config_runs(dataset, tmp_path):
    smoke.run(f"vq_{dataset}", tmp_path)
