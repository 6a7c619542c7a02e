"""VAE on MPI3D.

python -m experiments.main --config=configs/vae_mpi3d.py          # the published budget
python -m experiments.main --config=configs/vae_mpi3d.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("vae", "mpi3d", preset)
