"""Every config of 3dshapes with continuous latents, from data to figures, with the smoke budget."""

import pytest
import smoke


@pytest.mark.parametrize("architecture", smoke.CONTINUOUS)
def test_config_runs(architecture, tmp_path):
    smoke.run(f"{architecture}_3dshapes", tmp_path)
