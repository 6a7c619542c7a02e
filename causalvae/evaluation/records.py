"""What results.json holds of an evaluation, and its scores as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from causalvae import metrics
from causalvae.evaluation._evaluate import Evaluation
from causalvae.metrics import Score
from causalvae.metrics.scores import no_better_than_chance, short

GROUPS = {  # of scores, in the order of a table
    "Images": ("reconstruction", "mean_squared_error", "kl", "active_latents"),
    "Interventions": (
        "ces_l2",
        "ces_resample_l2",
        "ces_code_swap_l2",
        "specificity_outputs",
        "specificity_to_factors",
        "specificity_latents",
    ),
    "Circuits": (
        "circuit_modularity_decoder",
        "circuit_modularity_encoder",
        "circuit_size",
        "circuit_faithfulness",
    ),
    "Disentanglement": (
        "mig",
        "dci_disentanglement",
        "dci_completeness",
        "dci_informativeness",
        "sap_continuous",
        "factorvae",
        "irs",
        "infom",
    ),
}

HOW = 60  # characters of how a score was computed, where only the main ones are shown


def record(found: Evaluation) -> dict[str, Any]:
    """Returns what results.json holds of a member: everything but the images."""
    left_out = ("images", "reconstructed", "traversals", "scores")
    rest = {name: value for name, value in found._asdict().items() if name not in left_out}
    return {"scores": [score._asdict() for score in found.scores], **rest}


def table(results: Mapping[str, Any], spread: Mapping[str, Any] | None = None, scores: str = "main") -> str:
    """Returns the scores of every member as text: one column per member, null and ceiling beside them.

    Args:
      results: what results.json holds.
      spread: score -> (mean, deviation, …) between seeds, where runs of this configuration have been compared.
      scores: "main" is those of `GROUPS`, "all" the others as well.

    Raises:
      ValueError: for another choice of scores.
    """
    if scores not in ("main", "all"):
        raise ValueError(f"no choice of scores {scores!r}; there are: main, all")
    members = {f"seed {m['seed']}": [Score(**score) for score in m["scores"]] for m in results["members"]}
    data, steps = results["data"], results["training"]["steps"]
    title = f"{results['architecture']['name']} on {data['name']} ({data['source']}), {steps:,} steps"
    beside = {}
    if spread:
        beside["other seeds"] = {name: f"{short(of.mean)} ± {short(of.deviation)}" for name, of in spread.items()}
        runs = max(known.num for known in spread.values())
        title += f". Other seeds: mean ± standard deviation of {runs} runs of this budget; one run is one draw of them"
    first = {score.name: score for score in next(iter(members.values()))}
    beside["chance"] = {name: "no better" for name, score in first.items() if no_better_than_chance(score)}
    names = [name for group in GROUPS.values() for name in group if name in first]
    left_out = [name for name in first if name not in names]
    shown = names + left_out if scores == "all" else names
    ordered = {member: _sorted_as(found, shown) for member, found in members.items()}
    lines = metrics.table(ordered, ("null", "ceiling", "how"), beside).splitlines()
    if scores == "main":
        at = lines[0].index("how")
        lines = [line if len(line) <= at + HOW else f"{line[: at + HOW - 1].rstrip()}…" for line in lines]
    text = "\n".join([*lines[:2], *_with_headings(lines[2:], shown)])
    if scores == "main" and left_out:
        text += f"\n\n{len(left_out)} more in results.json: {', '.join(left_out)}"
    return f"{title}\n\n{text}"


def _sorted_as(scores: Sequence[Score], names: Sequence[str]) -> list[Score]:
    """Returns the scores of these names, in their order."""
    by_name = {score.name: score for score in scores}
    return [by_name[name] for name in names]


def _with_headings(lines: Sequence[str], names: Sequence[str]) -> list[str]:
    """The lines of a table with the title of a group above its first."""
    group_of = {name: title for title, group in GROUPS.items() for name in group}
    text, current = [], None
    for name, line in zip(names, lines, strict=True):
        title = group_of.get(name, "Others")
        text += [f"{title}:"] * (title != current) + [f"  {line}"]
        current = title
    return text
