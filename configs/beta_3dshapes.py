"""beta-VAE on 3DShapes.

python -m experiments.main --config=configs/beta_3dshapes.py          # the published budget
python -m experiments.main --config=configs/beta_3dshapes.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("beta", "3dshapes", preset)
