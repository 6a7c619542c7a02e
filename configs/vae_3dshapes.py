"""VAE on 3DShapes.

python -m experiments.main --config=configs/vae_3dshapes.py          # the published budget
python -m experiments.main --config=configs/vae_3dshapes.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("vae", "3dshapes", preset)
