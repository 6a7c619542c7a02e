"""Train a VAE, intervene on it at four levels, measure, and draw.

    python -m experiments.main --config=configs/betatc_3dshapes.py:pretrained
    python -m experiments.main --config=configs/betatc_3dshapes.py:quick
    python -m experiments.main --config=configs/vae_dsprites.py --workdir=runs/vae --config.seeds=3
    python -m experiments.main --config=configs/betatc_dsprites.py:quick --config.data.source=real \\
        --config.data.dir=DIR
    python -m experiments.main --list

A config is a file, a preset after a colon (none: the published budget, for an accelerator; gpu: minutes on one;
overnight and quick: for two CPU cores; pretrained: a shipped model; smoke: for tests) and overrides
(--config.training.steps=5000). The same command goes on where an interrupted run stopped; --time_limit=SECONDS stops it
there (exit status 75), --stage=train or --stage=evaluate does half of it.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from causalvae import architectures, data, metrics, networks, pretrained, schema, sites
from configs import common
from experiments import cli, pipeline, slices

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/betatc_3dshapes.py:quick.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where results go. Default: runs/<config file>[_<preset>].")
SCORES = flags.DEFINE_enum("scores", "main", ["main", "all"], "Which scores are printed; results.json has all.")
LIST = flags.DEFINE_bool("list", False, "List architectures, data sets, networks, sites and metrics, and leave.")


def main(argv: list[str]) -> None:
    if LIST.value:
        print(catalog())
        return
    if CONFIG.value is None:
        cli.fail("--config is needed, e.g. --config=configs/betatc_3dshapes.py:quick (`--list` shows what exists)")
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    workdir = WORKDIR.value or pipeline.default_workdir(name)
    pipeline.run(CONFIG.value, workdir, slices.STAGE.value, slices.Clock(slices.TIME_LIMIT.value), SCORES.value)


def catalog() -> str:
    """What exists: architectures, data sets, networks, metrics, and the sites of the standard network."""
    model = architectures.create("vae", (64, 64, 3))
    params = jax.eval_shape(model.init, jax.random.key(0))
    image: Any = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = sites.site_shapes(model, params, image)
    lines = [
        "architectures: " + ", ".join(architectures.ARCHITECTURES),
        "  options:     "
        + "; ".join(_options(name) for name in architectures.ARCHITECTURES if schema.options_of(name)),
        "data sets:     " + ", ".join(data.DATASETS),
        "networks:      " + ", ".join(networks.NETWORKS),
        "metrics:       " + ", ".join(metrics.METRICS),
        "sites (standard network, 64×64×3; shape without the batch):",
        *(f"  {site:<22} {list(shape.shape[1:])}" for site, shape in shapes.items()),
        "pretrained:    " + ", ".join(pretrained.names()),
        "configs:       configs/<architecture>_<data set>.py[:gpu|:overnight|:quick|:smoke|:pretrained] of "
        + ", ".join(common.ARCHITECTURES),
        "               with any: --config.architecture.name=, --config.data.name= (a name, a file or a folder)",
        "settings:      " + ", ".join(schema.RUN) + " (--help says more)",
    ]
    return re.sub(r"[ ]+$", "", "\n".join(lines), flags=re.MULTILINE)


def _options(architecture: str) -> str:
    return f"{architecture}: {', '.join(schema.options_of(architecture))}"


if __name__ == "__main__":
    cli.run(main, schema.RUN)
