"""Every config with continuous latents of the sets of color images, from data to figures, with the smoke budget."""

import pytest
import smoke


@pytest.mark.parametrize("stem", [f"{name}_{data}" for data in smoke.COLOR for name in smoke.CONTINUOUS])
def test_config_runs(stem, tmp_path):
    smoke.run(stem, tmp_path)
