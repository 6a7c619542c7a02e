"""What results.json holds of an evaluation, and its scores as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from causalvae import metrics
from causalvae.evaluation._evaluate import Evaluation
from causalvae.metrics import Score
from causalvae.metrics.scores import short


def record(found: Evaluation) -> dict[str, Any]:
    """Returns what results.json holds of a member: everything but the images."""
    left_out = ("images", "reconstructed", "traversals", "scores")
    rest = {name: value for name, value in found._asdict().items() if name not in left_out}
    return {"scores": [score._asdict() for score in found.scores], **rest}


def table(results: Mapping[str, Any], spread: Mapping[str, Any] | None = None) -> str:
    """Returns the scores of every member as text: one column per member, null and ceiling beside them.

    Args:
      results: what results.json holds.
      spread: score -> (mean, deviation, …) between seeds, where runs of this configuration have been compared.
    """
    members = {f"seed {m['seed']}": [Score(**score) for score in m["scores"]] for m in results["members"]}
    data, steps = results["data"], results["training"]["steps"]
    title = f"{results['architecture']['name']} on {data['name']} ({data['source']}), {steps:,} steps"
    beside = {}
    if spread:
        beside["other seeds"] = {name: f"{short(of.mean)} ± {short(of.deviation)}" for name, of in spread.items()}
        runs = max(known.num for known in spread.values())
        title += f". Other seeds: mean ± standard deviation of {runs} runs of this budget; one run is one draw of them"
    return f"{title}\n\n" + metrics.table(members, ("null", "ceiling", "how"), beside)
