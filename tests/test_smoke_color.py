"""Configs of the sets of color images, from data to figures, with the smoke budget."""

import pytest
import smoke


@pytest.mark.parametrize("stem", smoke.stems(smoke.COLOR))
def test_config_runs(stem, tmp_path):
    smoke.run(stem, tmp_path)
