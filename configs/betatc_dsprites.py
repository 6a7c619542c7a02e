"""beta-TC-VAE on dSprites.

python -m experiments.main --config=configs/betatc_dsprites.py          # the published budget
python -m experiments.main --config=configs/betatc_dsprites.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("betatc", "dsprites", preset)
