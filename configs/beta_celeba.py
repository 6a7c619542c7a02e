"""beta-VAE on CelebA.

python -m experiments.main --config=configs/beta_celeba.py          # the published budget
python -m experiments.main --config=configs/beta_celeba.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("beta", "celeba", preset)
