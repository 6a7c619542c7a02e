"""Every config of VQ-VAE of the sets of gray images, from data to figures, with the smoke budget."""

import pytest
import smoke


@pytest.mark.parametrize("data", smoke.GRAY)
def test_config_runs(data, tmp_path):
    smoke.run(f"vq_{data}", tmp_path)
