"""FactorVAE on MPI3D.

python -m experiments.main --config=configs/factor_mpi3d.py          # the published budget
python -m experiments.main --config=configs/factor_mpi3d.py:quick    # minutes on two CPU cores
"""

from configs.common import config_for


def get_config(preset: str = ""):
    return config_for("factor", "mpi3d", preset)
