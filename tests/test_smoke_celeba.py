"""Every config of celeba, from data to figures, with the smoke budget."""

import pytest
import smoke

from configs.common import ARCHITECTURES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_runs(architecture, tmp_path):
    smoke.run(f"{architecture}_celeba", tmp_path)
