"""DIP-VAE-II on CelebA.

python -m experiments.main --config=configs/dip2_celeba.py          # the published budget
python -m experiments.main --config=configs/dip2_celeba.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("dip2", "celeba", preset)
