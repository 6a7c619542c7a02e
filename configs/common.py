"""The tables behind every config: architectures, data sets and presets.

What a setting is, its type and its range stand in causalvae/schema.py, and in docs/settings.md. A config file is one
call of `config_for(architecture, dataset, preset)`. Presets, given after a colon (`--config=betatc_3dshapes:quick`):
none is the published budget, for an accelerator; `gpu` is a budget with which one card trains the study's 90 runs in
ten minutes, and `overnight` half of it, with which two CPU cores train and evaluate them in a night; `quick` is minutes
a run; `smoke` is for tests, and its numbers mean nothing; `pretrained` evaluates a shipped model, where there is one
(of two, that with more steps), and trains nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from ml_collections import ConfigDict

from causalvae import schema
from causalvae._words import nearest

# Hyper-parameters within the published sweeps (Locatello et al. 2019; van den Oord et al. 2017). What is not
# said here has its default in causalvae/architectures/.
ARCHITECTURES = {
    "vae": {},
    "beta": {"beta": 4.0},
    "factor": {"gamma": 30.0},
    "betatc": {"beta": 6.0},
    "dip2": {"lambda_offdiagonal": 10.0, "lambda_diagonal": 10.0},
    "vq": {"latents": 64},  # the size of an embedding
}

DATASETS = ("dsprites", "3dshapes", "mpi3d", "celeba", "smallnorb")

# What minutes allow on two CPU cores. decoder/dense1 is left out: it has 1024 units.
QUICK_EVALUATION = {
    "codes": 3000,
    "test_codes": 1500,
    "votes": 3000,
    "images": 64,
    "pairs": 16,
    "effects": 128,
    "sites": "encoder/*,latent/z,decoder/dense0,decoder/conv*",
    "dci_estimator": "xla",
}

OVERNIGHT_TRAINING = {
    "steps": 4500,
    "learning_rate": 1e-3,
    "schedule": "trapezoid",
    "warmup": 200,
    "log_every": 100,
    "checkpoint_every": 500,
}

OVERNIGHT_EVALUATION = QUICK_EVALUATION | {
    "codes": 6000,
    "test_codes": 3000,
    "votes": 5000,
    "images": 128,
    "pairs": 32,
    "effects": 256,
}

TRAINED_LONG = ("betatc_3dshapes", "vae_dsprites")  # of these a second model ships, of ten times the steps

PRESETS = {
    "": {},
    "gpu": {
        # Saved once, at the end: to save takes longer than to train some hundred steps.
        "training": OVERNIGHT_TRAINING | {"steps": 9000, "log_every": 225, "checkpoint_every": 9000},
        "evaluation": OVERNIGHT_EVALUATION,
    },
    "quick": {
        "training": {"steps": 1500, "learning_rate": 1e-3, "log_every": 50, "checkpoint_every": 500},
        "evaluation": QUICK_EVALUATION,
    },
    "overnight": {"training": OVERNIGHT_TRAINING, "evaluation": OVERNIGHT_EVALUATION},
    "pretrained": {"training": OVERNIGHT_TRAINING, "evaluation": QUICK_EVALUATION | {"pairs": 32}},
    "smoke": {
        "architecture": {"network": "small", "latents": 5},
        "training": {
            "steps": 4,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "log_every": 2,
            "checkpoint_every": 4,
        },
        "evaluation": {
            "codes": 128,
            "test_codes": 128,
            "votes": 200,
            "images": 4,
            "pairs": 4,
            "effects": 4,  # as many as images and pairs: one renderer serves them all
            "dci_estimator": "lasso",  # nothing to compile
            "metrics": "mig,dci",
            "sites": "latent/z,decoder/conv1",
        },
    },
}


# What a preset changes of one architecture only.
OF_ARCHITECTURE = {
    ("smoke", "factor"): {"discriminator_features": (64, 64)},
    # On dSprites all models begin by drawing the mean image. With weights of 10, 1,500 steps end there, no latent
    # used; with 2, also of the published sweep, it is left after some 200 steps.
    ("quick", "dip2"): {"lambda_offdiagonal": 2.0, "lambda_diagonal": 2.0},
}


def check_preset(preset: str, presets: Collection[str]) -> None:
    """ValueError that names those that exist, unless a preset is one of `presets`."""
    if preset not in presets:
        named = [name for name in presets if name]
        raise ValueError(
            f"no preset {preset!r}: choose none, with no colon, or one of {', '.join(named)}.{nearest(preset, named)}"
        )


def config_for(architecture: str, dataset: str, preset: str = "") -> ConfigDict:
    """The configuration of one architecture on one data set under a preset; locked, so that typing errors in
    `--config.x.y` are refused. ValueError names the presets that exist."""
    check_preset(preset, PRESETS)
    config = ConfigDict(schema.defaults())
    with config.unlocked():
        if preset == "pretrained":
            name = f"{architecture}_{dataset}"
            config.pretrained = f"{name}_long" if name in TRAINED_LONG else name
        config.architecture.name, config.data.name = architecture, dataset
        config.architecture.update(ARCHITECTURES[architecture] | OF_ARCHITECTURE.get((preset, architecture), {}))
        for section, values in PRESETS[preset].items():
            config[section].update(values)
    return config.lock()
