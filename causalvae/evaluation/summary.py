"""What an evaluation found, in sentences that are made from its numbers by rules.

A sentence about a factor or a score is there only with what it is held against: the family-wise error of the claims, an
interval, the null. What is not above its null is said to be no better than it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causalvae.metrics.scores import Score, no_better_than_chance, short
from causalvae.progress import finite

CARRIES = 0.5  # of a factor's effect, error considered, and twice the next latent's: one latent carries it
MENTIONED = 0.05  # of a factor's effect: what is less is not spoken of
SCORES = {  # score -> how a sentence calls it
    "dci_disentanglement": "disentanglement (DCI-D)",
    "mig": "MIG",
    "factorvae": "the FactorVAE score",
    "circuit_modularity_decoder": "circuit modularity of the decoder",
    "circuit_modularity_encoder": "circuit modularity of the encoder",
    "circuit_faithfulness": "the faithfulness of the factors' circuits among the latents",
}


def summarize(results: Mapping[str, Any], spread: Mapping[str, Any] | None = None) -> list[str]:
    """Returns sentences about the first member of a run: images, factors, latents, scores.

    Args:
      results: what results.json holds.
      spread: score -> (mean, deviation, …) between seeds, where runs of this configuration have been compared.
    """
    member = finite(results["members"][0])
    scores = {record["name"]: Score(**record) for record in member["scores"]}
    names = list(results["data"]["factors"])
    found = [_images(scores)]
    found += _factors(member.get("mediation"), names)
    found += _latents(member)
    found += [_score(scores[name], title, spread) for name, title in SCORES.items() if name in scores]
    return [sentence for sentence in found if sentence]


# --- images ----------------------------------------------------------------------------------------------


def _images(scores: Mapping[str, Score]) -> str:
    error = scores.get("mean_squared_error")
    if error is None or error.value is None or error.null is None:
        return ""
    explained, found = 1 - error.value / error.null, f"MSE {short(error.value)}"
    if explained <= 0:
        beside = f"that of the mean {short(error.null)}"
        return f"The model redraws its images no better than by their mean ({found}, {beside})."
    return f"The model redraws its images with {100 * explained:.1f} % of their variance explained ({found})."


# --- factors ---------------------------------------------------------------------------------------------


def _factors(mediation: Mapping[str, Any] | None, names: Sequence[str]) -> list[str]:
    """A sentence for each factor, from its effect on the image through each latent."""
    if not mediation or mediation.get("carries") is None:
        return []
    at = list(mediation["effects"]).index("indirect")
    share, low, high = (np.array(mediation[field], float)[:, :, at] for field in ("estimate", "low", "high"))
    defined = np.array(mediation["well_defined"], bool)
    return [
        _factor(names[k], share[k], low[k], high[k], np.array(mediation["carries"][k], bool), defined[k])
        for k in range(len(share))
    ]


def _factor(name: str, share, low, high, carries, defined) -> str:
    name = name.replace("_", " ")
    if not np.isfinite(share).any():
        return f"{name}: has no effect on the image in the pairs that were measured."
    order = [int(i) for i in np.argsort(-np.nan_to_num(share), kind="stable") if share[i] >= MENTIONED]
    sure, maybe = [i for i in order if carries[i]], [i for i in order if not carries[i]]
    small = [f"z{i}" for i in np.flatnonzero(carries) if share[i] < MENTIONED]
    if not sure:
        largest = f"; the largest share is {_shares(maybe[:1], share)}" if maybe else ""
        return f"{name}: no latent carries it beyond chance (5 % for any false claim among all){largest}."
    first, rest = sure[0], [i for i in order if i != sure[0]]
    if share[first] >= CARRIES and (not rest or share[first] >= 2 * share[rest[0]]):
        beside = f"next best {_shares(rest[:1], share)}" if rest else f"no other has {_percent(MENTIONED)}"
        beside += ", which may be chance" if rest and rest[0] in maybe else ""
        head = "carries it" if low[first] >= CARRIES else "has the largest share"
        text = f"{name}: z{first} {head} ({_percent(share[first])} of its effect on the image, 95 % interval "
        text += f"{_percent(low[first])} to {_percent(high[first])}; {beside})"
    else:
        more = f" and {len(sure) - 4} more" if len(sure) > 4 else ""
        text = f"{name}: {'passes through' if len(sure) == 1 else 'is split over'} {_shares(sure[:4], share)}{more}"
        text += f" ({_shares(maybe[:3], share)} may be chance)" if maybe else ""
    text += f"; less than {_percent(MENTIONED)} through {_listed(small)}" if small else ""
    unclear = [i for i in sure[:4] if not defined[i]]
    if unclear:
        text += f"; what passes through {_listed([f'z{i}' for i in unclear])} depends on the other latents"
    return f"{text}."


def _shares(latents: Sequence[int], share) -> str:
    return _listed([f"z{i} {_percent(share[i])}" for i in latents])


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", "−")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# --- latents ---------------------------------------------------------------------------------------------


def _latents(member: Mapping[str, Any]) -> list[str]:
    """Which latents move the image most, which are idle, and which are active and carry no factor."""
    latents = member["latents"]
    active, strength = np.array(latents["active"], bool), np.array(latents["ces_l2"], float)
    if active.ndim != 1 or not np.isfinite(strength[active]).any():
        return []
    order = [int(i) for i in np.argsort(-np.where(active, np.nan_to_num(strength), -1.0), kind="stable") if active[i]]
    errors = latents.get("ces_l2_error") or [None] * len(strength)
    parts = [f"z{i} ({short(strength[i])}{f' ± {short(errors[i])}' if errors[i] else ''})" for i in order[:3]]
    found = [f"Swept from −3 to 3, {_listed(parts)} move the image most (mean l2 distance)."]
    idle = [f"z{i}" for i in np.flatnonzero(~active)]
    if idle:
        few = len(idle) < 5
        text = (
            f"{_listed(idle)} {'is' if len(idle) == 1 else 'are'}"
            if few
            else f"{len(idle)} of {len(active)} latents are"
        )
        whose = "its" if len(idle) == 1 else "their"
        found.append(f"{text} idle ({whose} KL is below the threshold of activity).")
    mediation = member.get("mediation")
    if mediation and mediation.get("carries") is not None:
        serves: np.ndarray = np.any(np.array(mediation["carries"], bool), axis=0)
        none = [i for i in order if not serves[i]]
        if none:
            found.append(f"{_no_factor(none, member)}.")
    return found


def _no_factor(none: Sequence[int], member: Mapping[str, Any]) -> str:
    """Of active latents that no factor is shown to pass through: how much they hold, and what may pass all the same."""
    kl = None if member.get("code_effects") else member["latents"].get("activity")
    held = [f"z{i} ({short(kl[i])} nats)" if kl else f"z{i}" for i in none]
    text = f"Nothing is shown to pass through {_listed(held)}"
    mediation = member["mediation"]
    share = np.nan_to_num(np.array(mediation["estimate"], float)[:, :, list(mediation["effects"]).index("indirect")])
    largest = max(none, key=lambda i: share[:, i].max())
    if share[:, largest].max() >= MENTIONED:
        text += f"; the largest share, {_percent(share[:, largest].max())} through z{largest}, may be chance"
    return text


# --- scores ----------------------------------------------------------------------------------------------


def _score(score: Score, title: str, spread: Mapping[str, Any] | None) -> str:
    """A score beside its null, its ceiling and other seeds; nothing where it has no value or no null."""
    if score.value is None or score.null is None:
        return ""
    error = f" ± {short(score.standard_error)}" if score.standard_error else ""
    text = f"{title[0].upper()}{title[1:]} is {short(score.value)}{error}"
    if no_better_than_chance(score):
        text += f": no better than the {short(score.null)} of its null"
    else:
        best = f", {short(score.ceiling)} at best" if score.ceiling is not None else ""
        text += f" (null {short(score.null)}{best})"
    other = (spread or {}).get(score.name)
    return text + (f"; other seeds {short(other.mean)} ± {short(other.deviation)}." if other else ".")
