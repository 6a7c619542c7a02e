"""Models that other people trained in PyTorch, measured as ours are: a record of each, and the table of them all.

    python -m experiments.published --dir=published_models
    python -m experiments.published --docs=docs/published_models.md

The first line evaluates, some two minutes for each model of dSprites, into docs/records/published; the second writes
the tables of the records that are there into a page. The study's page has a row of each.

The folder holds `<loss>_<data set>.npz`, the arrays of a PyTorch state dict under their names there, and
training_logs.json with the means of the last training epoch (disentangling-vae, Dubois et al. 2019; MIT). The
models of dSprites are evaluated on the procedural set; of models of real photographs only the weights are
read, because there is no procedural set of what they were trained on.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import _files, adapters, data, evaluation, objectives
from causalvae._npz import Wanted, read_npz
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.progress import write_json, write_text
from experiments.report import statistics

PyTree = Any
LOGS = "training_logs.json"
# Of an evaluation: a third of the time of the published sizes, and errors that the table's digits do not show.
SETTINGS = evaluation.Settings(
    codes=5000, test_codes=2500, votes=5000, images=128, pairs=32, effects=256, sites="latent/z"
)
RECORDS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "records" / "published"
KEPT = ("scores", "latents")  # of what an evaluation finds
SAMPLED = 2500  # images whose reconstruction from sampled latents is compared with the log


def load(state: Mapping[str, np.ndarray]) -> tuple[Architecture, PyTree]:
    """Returns (model, params) of a state dict of disentangling-vae. ValueError for weights that do not fit."""
    channels = int(np.shape(state["encoder.conv1.weight"])[1])
    model, params = adapters.from_published(state, "disentangling-vae", (64, 64, channels))
    return cast(Architecture, model), params


def measure(model: Architecture, params: PyTree, dataset: Dataset, settings: evaluation.Settings) -> dict[str, Any]:
    """Scores, results per latent, and the reconstruction that training logs hold, from sampled latents."""
    found = evaluation.record(evaluation.evaluate(model, params, dataset, settings))
    sampled = sampled_reconstruction(model, params, dataset, jax.random.key(settings.seed + 1))
    return {"sampled_reconstruction": sampled, **{name: found[name] for name in KEPT}}


def sampled_reconstruction(model: Architecture, params: PyTree, dataset: Dataset, key: jax.Array) -> float:
    """E_x E_q(z|x) -log p(x|z) in nats: the logs' reconstruction (an evaluation's is from posterior means)."""

    @jax.jit
    def one(key):
        sample_key, noise_key = jax.random.split(key)
        _, images = dataset.sample(sample_key, evaluation.BATCH)
        logits = model.forward(params, images, noise_key).logits
        return jnp.mean(objectives.bernoulli_negative_log_likelihood(logits, images))

    return float(np.mean([one(k) for k in jax.random.split(key, SAMPLED // evaluation.BATCH)]))


def evaluate_folder(folder: pathlib.Path, out: pathlib.Path, settings: evaluation.Settings = SETTINGS) -> None:
    """Read every model of the folder, evaluate those of dSprites, and write <out>/<model>.json of each.

    FileNotFoundError where the folder has none."""
    paths = sorted(folder.glob("*_*.npz"))
    if not paths:
        raise FileNotFoundError(f"no published model in {folder}: files such as VAE_dsprites.npz")
    logs = _files.read_json(folder / LOGS, "file of training logs") if (folder / LOGS).exists() else {}
    dataset = data.load("dsprites", source="procedural")
    for path in paths:
        model, params = load(read_npz(path, {...: Wanted("fiu")}))
        log = logs.get(path.stem, {})
        means = log.get("last_epoch_training_means", {})
        record = {"model": path.stem, "settings": log.get("settings", {}), "log": means}
        if "_dsprites" in path.stem:
            record |= {"data": dataset.describe(), **measure(model, params, dataset, settings)}
        write_json(out / f"{path.stem}.json", record)
        print(f"{path.stem}: {'evaluated' if 'scores' in record else 'read'}", flush=True)


def read(folder: pathlib.Path = RECORDS) -> list[dict[str, Any]]:
    """The records of a folder, by name."""
    return [_files.read_json(path, "record of a model") for path in sorted(folder.glob("*.json"))]


# --- the table -------------------------------------------------------------------------------------------

COLUMNS = {  # title -> score
    "active": "active_latents",
    "CES l2": "ces_l2",
    "CES resample": "ces_resample_l2",
    "DCI-D": "dci_disentanglement",
    "DCI-C": "dci_completeness",
    "MIG": "mig",
    "FactorVAE": "factorvae",
    "SAP": "sap_continuous",
    "modularity": "circuit_modularity_decoder",
}


def value(record: Mapping[str, Any], name: str) -> float:
    """A score of a record, NaN where undefined."""
    found = next((score["value"] for score in record["scores"] if score["name"] == name), None)
    return float("nan") if found is None else found


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Three Markdown tables: against the training logs, what was measured, and how strength and DCI-D correlate
    over the models, with strength averaged over active latents and over all."""
    evaluated = [record for record in records if "scores" in record]
    agreement = [
        "| model | KL, nats | logged | largest difference of a latent | sampled reconstruction, nats | logged |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for record in evaluated:
        log, kl = record["log"], np.array(record["latents"]["activity"])
        logged = np.array([log[f"kl_loss_{i}"] for i in range(len(kl))]) if log else np.full(len(kl), np.nan)
        agreement.append(
            f"| {record['model']} | {kl.sum():.2f} | {logged.sum():.2f} | {np.abs(kl - logged).max():.2f} "
            f"| {record['sampled_reconstruction']:.1f} | {log.get('recon_loss', float('nan')):.1f} |"
        )
    measured = [
        "| model | " + " | ".join((*COLUMNS, "CES l2, all latents")) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) + 1),
    ]
    for record in evaluated:
        cells = [f"{value(record, name):.3g}" for name in COLUMNS.values()]
        cells.append(f"{np.mean(record['latents']['ces_l2']):.3g}")
        measured.append(f"| {record['model']} | " + " | ".join(cells) + " |")
    dci = [value(record, "dci_disentanglement") for record in evaluated]
    correlations = [
        f"| Pearson correlation with DCI-D over {len(evaluated)} models | active latents | all latents |",
        "| --- | ---: | ---: |",
    ]
    for title, name in (("CES, sweep", "ces_l2"), ("CES, resample", "ces_resample_l2")):
        means = [value(record, name) for record in evaluated], [np.mean(r["latents"][name]) for r in evaluated]
        cells = (f"{float(statistics.correlation(np.array(x), np.array(dci))):+.2f}" for x in means)
        correlations.append(f"| {title} | " + " | ".join(cells).replace("-", "−") + " |")
    return "\n".join([*agreement, "", *measured, "", *correlations]) + "\n"


MARK = "<!-- written by experiments.published below this line -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, help="the folder of the models; without it, records are read")
    parser.add_argument("--out", type=pathlib.Path, default=RECORDS, help="where records go")
    parser.add_argument("--docs", type=pathlib.Path, help=f"replace what stands in this page below {MARK!r}")
    options = parser.parse_args()
    if options.dir:
        options.out.mkdir(parents=True, exist_ok=True)
        evaluate_folder(options.dir, options.out)
    text = table(read(options.out))
    print(text)
    if options.docs:
        head = options.docs.read_text().split(MARK)[0]
        write_text(options.docs, f"{head}{MARK}\n\n{text}")


if __name__ == "__main__":
    main()
