"""Every file format that is read: how a small valid example is written, and the public call that reads it."""

import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import damage
import jax
import numpy as np
import real_files as real
import study_tables
from PIL import Image

from causalvae import checkpoints, data, planted_edges, pretrained, progress, runs, training
from experiments import metrics as metrics_command
from experiments.explorer import page as explorer_page
from experiments.explorer import runs as explorer_runs
from experiments.report import publish
from experiments.report.tables import rows_of
from experiments.study import planning, records, worker


class Format(NamedTuple):
    """A kind of file, as the library meets it."""

    write: Callable[[pathlib.Path], None]  # into an empty folder
    read: Callable[[pathlib.Path, pathlib.Path], object]  # (folder, scratch)
    target: str  # a pattern of the files to damage
    damages: tuple[Callable, ...]
    named: str = ""  # what an error may name in place of the file
    slow: bool = False


CONFIG = {
    "architecture": {"name": "betatc", "network": "small", "latents": 3, "beta": 2.0},
    "data": {"name": "dsprites", "source": "procedural"},
    "training": {"steps": 1, "batch_size": 4, "log_every": 1, "checkpoint_every": 1},
    "seeds": 2,
}


def write_config(folder):
    (folder / "config.json").write_text(json.dumps(runs.complete(CONFIG), indent=1))


def read_config(folder, scratch):
    config = runs.read_config(folder)
    return config, runs.member_seeds(config)


def write_results(folder):
    latents = {name: [0.1, 0.2] for name in ("ces_l2", "ces_l2_error", "specificity_outputs", "activity", "scale")}
    scores = [{"name": "mig", "value": 0.1}, {"name": "sap", "value": None, "note": "undefined"}]
    member = {"seed": 0, "scores": scores, "latents": latents}
    results = {"architecture": {"name": "vae"}, "data": {"name": "toy", "source": "procedural"}, "device": "cpu"}
    results |= {"training": {"steps": 5}, "members": [member]}
    (folder / "results.json").write_text(json.dumps(results))


def write_curves(folder):
    lines = [{"step": 10 * i, "loss": [1.5, None], "reconstruction": [1.0, 2.0]} for i in range(1, 7)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_curves(folder, scratch):
    path = folder / "metrics.jsonl"
    publish.endings(progress.read_json_lines(path), ["a", "b"])
    return worker.first_not_finite(path, 2)


def write_study(folder):
    table = study_tables.table(seeds=1)
    table = rows_of(table, (table["dataset"] == "dsprites") & (table["architecture"] == "vae"))
    study_tables.write_study(folder, {**table, "steps": np.full(1, 2000)})


def read_records(folder, scratch):
    return records.tabulate([records.read_record(folder, "vae_dsprites_s0")])


def read_table(folder, scratch):
    return explorer_page.best_runs(records.read_table(folder))


def read_times(folder, scratch):
    records.write_times(scratch.parent / "data", ["vae_dsprites_s0"])


def write_groups(folder):
    (folder / "groups.json").write_text(json.dumps({"groups": {"g": ["a", "b"], "h": ["c"]}}))


def write_page(folder):
    about = {"dataset": "toy", "architecture": "vae", "seed": 0, "text": "a model", "steps": 5, "source": "procedural"}
    (folder / "explorer.json").write_text(json.dumps({"about": about, "tiles": {"shape": [1, 1, 1]}, "pairs": []}))


def read_page(folder, scratch):
    return explorer_page.place(explorer_page.stored_pages([folder]))


def write_card(folder):
    for name in ("betatc_3dshapes.json", "betatc_3dshapes.safetensors"):
        (folder / name).write_bytes((pretrained.FOLDER / name).read_bytes())


def read_card(folder, scratch):
    kept, pretrained.FOLDER = pretrained.FOLDER, folder
    try:
        return pretrained.load_pretrained("betatc_3dshapes")
    finally:
        pretrained.FOLDER = kept


# --- checkpoints -----------------------------------------------------------------------------------------


def write_checkpoint(folder):
    write_config(folder)
    model, seeds = _model(), [0, 1]
    state = training.init_state(model, training.make_optimizer(model, steps=1), seeds)
    kept = checkpoints.manager(folder / "checkpoints")
    checkpoints.save(kept, 1, state, 1.0)
    kept.close()


def read_checkpoint(folder, scratch):
    return runs.restore(_model(), folder, [0, 1], "constant")


def _model():
    return runs.create_model(CONFIG, data.load("dsprites", source="procedural"))


# --- data ------------------------------------------------------------------------------------------------


def load(name, **options):
    def read(folder, scratch):
        return data.load(name, source="real", data_dir=str(folder), cache_dir=str(scratch), **options)

    return read


def write_prepared(folder):
    real.write_dsprites_npz(folder, sizes=(3, 1, 2, 1, 2))
    data.load("dsprites", source="real", data_dir=str(folder))


def read_prepared(folder, scratch):
    return data.load("dsprites", source="real", data_dir=str(folder))


def write_archive(folder):
    grid = np.array([(a, b) for a in range(2) for b in range(3)])
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    np.savez_compressed(folder / "mine.npz", images=images, factors=grid, names=np.array(["shape", "x"]))


def read_archive(folder, scratch):
    return data.load(str(folder / "mine.npz"))


def write_folder(folder):
    mine = folder / "mine"
    mine.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(mine / f"{i}.png")
    lines = ["file,shape,x", *(f"{i}.png,{i // 3},{i % 3}" for i in range(6))]
    (mine / "labels.csv").write_text("\n".join(lines) + "\n")


def read_folder(folder, scratch):
    return data.load(str(folder / "mine"))


def write_codes(folder):
    rng = np.random.default_rng(0)
    codes, factors = rng.normal(size=(20, 3)), rng.integers(0, 2, (20, 2))
    np.savez(folder / "codes.npz", codes=codes, factors=factors, factor_names=np.array(["a", "b"]))


def written(write, *args, **options):
    """A writer of real files as a function of the folder alone."""

    def into(folder):
        write(folder, *args, **options)

    return into


def write_export(folder):
    planted_edges.export(planted_edges.plant_edges("linear"), folder, jax.random.key(0), num=2)


def read_export(folder, scratch):
    return planted_edges.load_export(folder)


BYTES = damage.in_bytes
FORMATS = {
    "config.json": Format(write_config, read_config, "config.json", (BYTES, damage.in_json)),
    "results.json": Format(
        write_results, lambda f, s: explorer_runs.evaluated(f, 5), "results.json", (BYTES, damage.in_json)
    ),
    "metrics.jsonl": Format(write_curves, read_curves, "metrics.jsonl", (BYTES, damage.in_json)),
    "record.json": Format(write_study, read_records, "runs/*/record.json", (BYTES, damage.in_json)),
    "table.npz": Format(write_study, read_table, "table.npz", (BYTES, damage.in_npz)),
    "images.npz": Format(
        write_study, lambda f, s: records.read_images(f, "vae_dsprites_s0"), "runs/*/images.npz", (BYTES, damage.in_npz)
    ),
    "timing.json": Format(write_study, read_times, "runs/*/timing.json", (BYTES, damage.in_json)),
    "groups.json": Format(
        write_groups,
        lambda f, s: planning.remembered_groups([], f / "groups.json"),
        "groups.json",
        (BYTES, damage.in_json),
    ),
    "explorer.json": Format(write_page, read_page, "explorer.json", (BYTES, damage.in_json)),
    "card": Format(write_card, read_card, "*.json", (BYTES, damage.in_json), slow=True),
    "safetensors": Format(write_card, read_card, "*.safetensors", (BYTES,), slow=True),
    "checkpoint": Format(
        write_checkpoint, read_checkpoint, "checkpoints/**/*", (BYTES,), named="checkpoints", slow=True
    ),
    "provenance.json": Format(
        write_prepared, read_prepared, "causalvae_cache/*/provenance.json", (BYTES, damage.in_json)
    ),
    "images.npy": Format(write_prepared, read_prepared, "causalvae_cache/*/images.npy", (BYTES,)),
    "dsprites.npz": Format(
        written(real.write_dsprites_npz, (3, 1, 2, 1, 2)),
        load("dsprites"),
        "*.npz",
        (BYTES, damage.in_npz),
    ),
    "dsprites.hdf5": Format(
        written(real.write_dsprites_hdf5, (3, 1, 2, 1, 2)),
        load("dsprites"),
        "dsprites*.hdf5",
        (BYTES, damage.in_hdf5),
    ),
    "3dshapes.h5": Format(
        written(real.write_shapes3d, (2, 1, 2, 1, 2, 1)),
        load("3dshapes"),
        "3dshapes.h5",
        (BYTES, damage.in_hdf5),
    ),
    "mpi3d.npz": Format(
        written(real.write_mpi3d, sizes=(1, 2, 1, 1, 1, 2, 2)),
        load("mpi3d", factor_sizes=(1, 2, 1, 1, 1, 2, 2)),
        "*.npz",
        (BYTES, damage.in_npz),
    ),
    "smallnorb.mat.gz": Format(
        written(real.write_smallnorb, (2, 1, 2, 1)), load("smallnorb"), "*.mat.gz", (BYTES, damage.in_norb)
    ),
    "celeba.zip": Format(written(real.write_celeba, 6), load("celeba"), "img_align_celeba.zip", (BYTES, damage.in_zip)),
    "celeba lists": Format(written(real.write_celeba, 6), load("celeba"), "list_*.txt", (BYTES, damage.in_list)),
    "celeba folder": Format(
        written(real.write_celeba, 6, as_zip=False, csv=True),
        load("celeba"),
        "img_align_celeba/*.jpg",
        (BYTES, damage.in_image),
    ),
    "mine.npz": Format(write_archive, read_archive, "mine.npz", (BYTES, damage.in_npz)),
    "labels.csv": Format(write_folder, read_folder, "mine/labels.csv", (BYTES, damage.in_list)),
    "mine/*.png": Format(write_folder, read_folder, "mine/*.png", (BYTES, damage.in_image)),
    "graph.json": Format(write_export, read_export, "graph.json", (BYTES, damage.in_json)),
    "pairs.npz": Format(write_export, read_export, "pairs.npz", (BYTES, damage.in_npz)),
    "weights.safetensors": Format(write_export, read_export, "weights.safetensors", (BYTES,)),
    "codes.npz": Format(
        write_codes, lambda f, s: metrics_command.load(f / "codes.npz"), "codes.npz", (BYTES, damage.in_npz)
    ),
}
