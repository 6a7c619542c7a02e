"""How much the scores of a preset move between seeds and processors, stored so that every run's table can show it.

    python -m experiments.main --config=configs/betatc_3dshapes.py:quick --config.seeds=10 --workdir=runs/spread
    XLA_FLAGS=--xla_cpu_max_isa=AVX2 python -m experiments.main --config=configs/betatc_3dshapes.py:quick \\
        --config.seeds=10 --workdir=runs/spread_avx2
    python -m experiments.spread --workdirs=runs/spread,runs/spread_avx2
    python -m experiments.spread --study=runs/study_overnight --store    # of every configuration with several seeds

Takes finished runs of one configuration, prints mean, standard deviation and range of each score over the seeds of
each processor, and with --store keeps the values in configs/spreads.json. A single run of a short budget is one draw
of these: XLA's arithmetic differs in the last bit between processors, and training makes other models of it.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from causalvae import _files, runs
from causalvae.progress import write_text
from experiments import cli
from experiments.study import records

STORED = pathlib.Path(__file__).resolve().parents[1] / "configs" / "spreads.json"
BUDGET = ("steps", "batch_size", "learning_rate", "schedule", "warmup")  # the settings of training that matter
LEAST_SEEDS = 3  # of a study's configuration, to be called a spread


class Spread(NamedTuple):
    """Of one score over the seeds of one configuration."""

    mean: float
    deviation: float  # standard deviation between seeds
    low: float
    high: float
    num: int  # runs in which it was defined


def main(argv: list[str]) -> None:
    workdirs = list(dict.fromkeys(pathlib.Path(name).resolve() for name in flags.FLAGS.workdirs.split(",") if name))
    if not workdirs and not flags.FLAGS.study:
        cli.fail(
            "--workdirs, directories of finished runs of one configuration separated by commas, or --study is needed"
        )
    entries = [collect([read_results(workdir) for workdir in workdirs])] if workdirs else []
    entries += of_study(pathlib.Path(flags.FLAGS.study)) if flags.FLAGS.study else []
    print("\n\n".join(map(table, entries)))
    if flags.FLAGS.store:
        known = {**stored(), **{entry["name"]: entry for entry in entries}}
        write_text(STORED, json.dumps(dict(sorted(known.items())), separators=(",", ":")) + "\n")
        print(f"stored in {STORED.name}: {', '.join(entry['name'] for entry in entries)}")


def of_study(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Entries of the configurations of a study that are done with several seeds. ValueError where there are none."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for record in records.read_records(workdir):
        if record["status"] == records.DONE:
            runs = alike.setdefault(json.dumps(settings(record), sort_keys=True), [])
            runs.append({**record, "members": [record]})
    several = [collect(runs) for runs in alike.values() if len(runs) >= LEAST_SEEDS]
    if not several:
        raise ValueError(f"{workdir}: no configuration is done with {LEAST_SEEDS} seeds: there is no spread yet")
    return several


def read_results(workdir: pathlib.Path) -> dict[str, Any]:
    """results.json of a finished run; FileNotFoundError where there is none."""
    path = workdir / "results.json"
    if not path.exists():
        raise FileNotFoundError(f"no finished run in {workdir}: no {path.name}. `python -m causalvae run` makes one.")
    return runs.read_results(workdir)


def settings(results: Mapping[str, Any]) -> dict[str, Any]:
    """What runs must share to be draws of one spread: model, data, and budget."""
    training = {name: results["training"][name] for name in BUDGET}
    rounded = results["training"].get("precision", "float32")
    training |= {} if rounded == "float32" else {"precision": rounded}
    data = {name: results["data"][name] for name in ("name", "source")}
    return {"architecture": results["architecture"], "data": data, "training": training}


def collect(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One entry of the stored spreads: the settings, and every score's values by processor and seed. ValueError where
    the runs are of different settings, or the same draw is given twice."""
    shared, draws = settings(runs[0]), []
    for results in runs:
        if settings(results) != shared:
            raise ValueError(f"the runs are of different settings: {settings(results)} and {shared}")
        device = results["training"].get("device", results["device"])  # that trained it, where that is another
        seeds = [member["seed"] for member in results["members"]]
        if any(draw["device"] == device and set(draw["seeds"]) & set(seeds) for draw in draws):
            raise ValueError(f"a seed of {seeds} on {device} is given twice")
        members = [scores_of(member) for member in results["members"]]
        scores = {name: [member.get(name) for member in members] for name in members[0]}
        draws.append({"device": device, "seeds": seeds, "scores": scores})
    about = shared["architecture"]["name"]
    if "variant" in runs[0] and runs[0]["variant"]:
        about += f" ({runs[0]['variant']})"
    rounded = f", {shared['training']['precision']}" if "precision" in shared["training"] else ""
    name = f"{about} on {shared['data']['name']} ({shared['data']['source']}), "
    return {"name": f"{name}{shared['training']['steps']} steps{rounded}", **shared, "draws": draws}


def scores_of(member: Mapping[str, Any]) -> dict[str, float | None]:
    """score -> value of one seed; and of its strongest latent how specific the factors' effects on it are."""
    latents, scores = member["latents"], {score["name"]: score["value"] for score in member["scores"]}
    strongest = int(np.argmax(latents["ces_l2"]))
    return {**scores, "strongest_specificity_to_factors": latents["specificity_to_factors"][strongest]}


def stored() -> dict[str, Any]:
    """name -> entry of configs/spreads.json."""
    return _files.read_json(STORED, "file of spreads") if STORED.exists() else {}


def find(results: Mapping[str, Any]) -> dict[str, Spread]:
    """score -> its stored spread over all seeds and processors, for runs of these settings; empty where none is
    stored."""
    wanted = json.loads(json.dumps(settings(results)))
    for entry in stored().values():
        if {name: entry[name] for name in wanted} == wanted:
            return spreads(entry["draws"])
    return {}


def spreads(draws: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """score -> Spread over the runs of all draws in which it is defined."""
    found = {}
    for name in draws[0]["scores"]:
        values = np.array([v for draw in draws for v in draw["scores"].get(name, []) if v is not None])
        if len(values) > 1:
            summary = values.mean(), values.std(ddof=1), values.min(), values.max()
            found[name] = Spread(*map(float, summary), num=len(values))
    return found


def table(entry: Mapping[str, Any]) -> str:
    """Mean ± standard deviation and range of each score, a column per processor and one of all."""
    parts = [(draw["device"], spreads([draw])) for draw in entry["draws"]]
    parts.append(("all", spreads(entry["draws"])))
    lines = [entry["name"], "", "| score | " + " | ".join(f"{name}" for name, _ in parts) + " |"]
    lines.append("| --- |" + " --- |" * len(parts))
    for name in parts[-1][1]:
        cells = [
            f"{s.mean:.3g} ± {s.deviation:.2g} ({s.low:.3g} to {s.high:.3g}, n = {s.num})" if s else "–"
            for s in (found.get(name) for _, found in parts)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    flags.DEFINE_string("workdirs", "", "Directories of finished runs of one configuration, separated by commas.")
    flags.DEFINE_string("study", "", "A study's directory.")
    flags.DEFINE_bool("store", False, "Keep the values in configs/spreads.json.")
    cli.run(main)
