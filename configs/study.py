"""The study: six architectures × five data sets × three seeds, 90 runs.

python -m experiments.study --config=configs/study.py          # the published budget, for accelerators
python -m experiments.study --config=configs/study.py:gpu          # what docs/study.md shows: ten minutes on one card
python -m experiments.study --config=configs/study.py:overnight    # a night on two CPU cores
python -m experiments.study --config=configs/study.py:quick        # hours on two CPU cores
python -m experiments.study --config=configs/study.py:smoke        # for tests; its numbers mean nothing

More seeds: --config.seeds=10. Hyper-parameters: --config.grid="beta.beta: 1 4 16; factor.gamma: 10 30". Finished
runs are kept when seeds, data sets or grid values are added.
"""

from ml_collections import ConfigDict

from causalvae import schema
from configs.common import ARCHITECTURES, DATASETS, PRESETS, check_preset, config_for


def get_config(preset: str = "") -> ConfigDict:
    own = [name for name in PRESETS if name != "pretrained"]
    if preset == "pretrained":
        named = ", ".join(filter(None, own))
        raise ValueError(f"a study trains its models: choose none, with no colon, or one of {named}.")
    check_preset(preset, own)
    base = config_for("vae", "dsprites", preset)
    config = ConfigDict(schema.defaults(schema.STUDY))
    config.update(
        {
            "preset": preset,
            "architectures": ",".join(ARCHITECTURES),
            "datasets": ",".join(DATASETS),
            "network": base.architecture.network,
            # On two CPU cores members run one after the other, and alone each is stored the sooner.
            "members": 1 if preset == "overnight" else 0,
            "training": dict(base.training),
            "evaluation": dict(base.evaluation),
        }
    )
    return config.lock()
