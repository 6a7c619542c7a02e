"""DIP-VAE-II on dSprites.

python -m experiments.main --config=configs/dip2_dsprites.py          # the published budget
python -m experiments.main --config=configs/dip2_dsprites.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("dip2", "dsprites", preset)
