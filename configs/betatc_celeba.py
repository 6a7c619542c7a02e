"""beta-TC-VAE on CelebA.

python -m experiments.main --config=configs/betatc_celeba.py          # the published budget
python -m experiments.main --config=configs/betatc_celeba.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("betatc", "celeba", preset)
