"""How every metric reads six instructive codes: the figure of docs/metrics.md, and its numbers as a table.

    python -m experiments.metrics_figure --out=docs/figures/metrics_codes.png
    python -m experiments.metrics_figure --pages=docs/metrics      # the table at the end of each metric's page

About a minute on two CPU cores.
"""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from causalvae import metrics
from experiments import cli

OUT = flags.DEFINE_string("out", "docs/figures/metrics_codes.png", "Where the figure goes.")
PAGES = flags.DEFINE_string("pages", None, "Write tables into the pages of this folder, and draw nothing.")

MARKER = "<!-- written by experiments.metrics_figure below this line -->"
SIZES = (6, 8, 10)
NUM_ROWS = 6000
LABELS = {
    "mig": "MIG",
    "dci_disentanglement": "DCI disentanglement",
    "dci_completeness": "DCI completeness",
    "dci_informativeness": "DCI informativeness",
    "sap_discrete": "SAP, discrete",
    "sap_continuous": "SAP, continuous",
    "modularity": "modularity",
    "explicitness": "explicitness",
    "irs": "IRS",
    "infom": "InfoM (modularity)",
    "infoc": "InfoC (compactness)",
    "infoe": "InfoE (explicitness)",
    "betavae": "BetaVAE score",
    "factorvae": "FactorVAE score",
}


def instructive_codes() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Factors [N, 3] and six codes of them; every latent but the dead ones carries a little noise."""
    generator = np.random.default_rng(0)
    factors = np.stack([generator.integers(0, size, NUM_ROWS) for size in SIZES], axis=1)
    a, b, c = ((factors - factors.mean(axis=0)) / factors.std(axis=0)).T
    turned = (a + b) / np.sqrt(2), (a - b) / np.sqrt(2), c
    merged = (factors[:, 0] * SIZES[1] + factors[:, 1]) / 14.0
    live = {
        "perfect": (a, b, c),
        "rotated 45°": turned,
        "split": (np.maximum(a, 0), np.minimum(a, 0), b, c),
        "merged": (merged, c),
        "dead": (a, b, c),
        "noise": 10 * generator.normal(size=(3, NUM_ROWS)),
    }
    codes = {name: np.stack(columns, axis=1) for name, columns in live.items()}
    codes = {name: z + 0.02 * generator.normal(size=z.shape) for name, z in codes.items()}
    codes["dead"] = np.concatenate([codes["dead"], np.full((NUM_ROWS, 2), 0.3)], axis=1)
    return factors, codes


def main(argv: list[str]) -> None:
    del argv
    if PAGES.value:
        for name in metrics.METRICS:
            write_table(pathlib.Path(PAGES.value) / f"{name}.md", table_of(name))
        return
    factors, codes = instructive_codes()
    options = metrics.Options(votes=2000)
    found = {
        name: metrics.evaluate_representations(z, factors, options=options, nulls=False) for name, z in codes.items()
    }
    values = np.array([[s.value for s in found[name] if s.name in LABELS] for name in codes]).T
    names = [s.name for s in found["perfect"] if s.name in LABELS]
    for name, row in zip(names, values, strict=True):
        print(f"| {LABELS[name]} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    out = pathlib.Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(factors, codes, [LABELS[name] for name in names], values).savefig(out, dpi=110)
    print(f"wrote {out}")


def table_of(name: str) -> str:
    """The scores of one metric on the six codes, a row for each, and the null of the perfect code."""
    factors, codes = instructive_codes()
    options = metrics.Options(votes=2000)
    found = {
        code: metrics.evaluate_representations(z, factors, name, options, nulls=code == "perfect")
        for code, z in codes.items()
    }
    lines = ["| | " + " | ".join((*codes, "null")) + " |", "| --- |" + " ---: |" * (len(codes) + 1)]
    for row, perfect in enumerate(found["perfect"]):
        values = [scores[row].value for scores in found.values()]
        lines.append(
            f"| `{perfect.name}` | " + " | ".join(_two_digits(value) for value in (*values, perfect.null)) + " |"
        )
    return "\n".join(lines)


def _two_digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def write_table(path: pathlib.Path, table: str) -> None:
    """Writes a table below the marker at the end of a page."""
    written, marker, _ = path.read_text().partition(MARKER)
    if not marker:
        raise ValueError(f"{path} has no line {MARKER!r}, below which the table goes")
    path.write_text(f"{written}{MARKER}\n\n{table}\n")


def draw(factors: np.ndarray, codes: dict, labels: list[str], values: np.ndarray) -> Figure:
    """Above, how much each latent tells of each factor; below, every score of every code."""
    figure = plt.figure(figsize=(9.6, 8.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.0, 2.6))
    above, below = parts
    above.suptitle("Information of each latent (column) about each factor (row), share of its entropy", size=11)
    for axis, (name, z) in zip(above.subplots(1, len(codes)), codes.items(), strict=True):
        information = metrics.mig(z, factors)
        axis.imshow((information.mutual_information / information.entropy).T, vmin=0, vmax=1, cmap="Grays")
        axis.set(title=name, xticks=range(z.shape[1]), yticks=range(3), xlabel="latent")
        axis.tick_params(length=0, labelsize=8)
    below.suptitle("Score", size=11)
    axis = below.subplots()
    axis.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axis.set_xticks(range(len(codes)), list(codes))
    axis.set_yticks(range(len(labels)), labels)
    axis.tick_params(length=0)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    return figure


if __name__ == "__main__":
    cli.run(main)
