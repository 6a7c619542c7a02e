"""Configs of the sets of gray images, from data to figures, with the smoke budget."""

import pytest
import smoke


@pytest.mark.parametrize("stem", smoke.stems(smoke.GRAY))
def test_config_runs(stem, tmp_path):
    smoke.run(stem, tmp_path)
