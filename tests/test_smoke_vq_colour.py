"""Every config of VQ-VAE of the sets of color images, from data to figures, with the smoke budget."""

import pytest
import smoke


@pytest.mark.parametrize("data", smoke.COLOR)
def test_config_runs(data, tmp_path):
    smoke.run(f"vq_{data}", tmp_path)
