"""VQ-VAE on SmallNORB.

python -m experiments.main --config=configs/vq_smallnorb.py          # the published budget
python -m experiments.main --config=configs/vq_smallnorb.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("vq", "smallnorb", preset)
