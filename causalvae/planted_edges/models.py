"""The four planted networks: linear, gated, redundant and cancelling paths, with the decoys that all of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from causalvae.planted_edges.network import PlantedEdges, Unit, Wiring, build

ON = 2.0  # added to a value of -1.5 or 1.5, and no ReLU cuts it
WIDE = 3.0  # added to a latent, whose values may be larger


def plant_edges(name: str, seed: int = 0, noise: float = 0.0) -> PlantedEdges:
    """Returns a network with planted edges.

    Args:
      name: one of `PLANTED_EDGES`.
      seed: shuffles the units of every layer.
      noise: half the range of a nuisance in a block of its own, which the first factor scales, but moves in neither
        direction. The decoys that read it then act, with a mean effect of zero on any `BlockOutcome`.

    Raises:
      ValueError: for a name that does not exist.
    """
    if name not in PLANTED_EDGES:
        raise ValueError(f"no network with planted edges {name!r}; there are: {', '.join(PLANTED_EDGES)}")
    return build(name, with_decoys(PLANTED_EDGES[name]()), np.random.default_rng(seed), noise)


def straight(*values: str) -> Wiring:
    """Each of these factors alone: a hidden unit, a latent, a decoder unit, a block, all in their linear range."""
    return Wiring(
        {f"h {v}": Unit({v: 1.0}, ON) for v in values},
        {f"z {v}": Unit({f"h {v}": 1.0}, -ON) for v in values},
        {f"g {v}": Unit({f"z {v}": 1.0}, WIDE) for v in values},
        {v: Unit({f"g {v}": 1.0}, -WIDE) for v in values},
    )


def linear() -> Wiring:
    """Factors are carried by one to three hidden units and one or two decoder units, and the second one reaches the
    third one's latent, too: shares of an effect, and no interaction."""
    hidden = {f"h {k}{i}": Unit({k: 1.0}, ON) for k, n in (("first", 2), ("second", 1), ("third", 3)) for i in range(n)}
    latents = {
        "z first": Unit({"h first0": 0.5, "h first1": 0.5}, -ON),
        "z second": Unit({"h second0": 1.0}, -ON),
        "z third": Unit({"h third0": 0.5, "h third1": 0.25, "h third2": 0.25, "h second0": 0.3}, -1.3 * ON),
    }
    decoder = {
        f"g {k}{i}": Unit({f"z {k}": 1.0}, WIDE)
        for k, n in (("first", 1), ("second", 2), ("third", 1))
        for i in range(n)
    }
    blocks = {
        "first": Unit({"g first0": 1.0}, -WIDE),
        "second": Unit({"g second0": 0.6, "g second1": 0.4}, -WIDE),
        "third": Unit({"g third0": 1.0}, -WIDE),
    }
    return Wiring(hidden, latents, decoder, blocks)


def gated() -> Wiring:
    """The first factor reaches its block only while the second is high, but for a quarter: a unit that both of them
    must open."""
    plain = straight("first", "second", "third")
    decoder = {**plain.decoder, "gate": Unit({"z first": 1.0, "z second": 2.0}, -1.0)}
    blocks = {**plain.blocks, "first": Unit({"g first": 0.25, "gate": 1.0}, -ON)}
    return plain._replace(decoder=decoder, blocks=blocks)


def redundant() -> Wiring:
    """Two latents carry the first factor, and either is enough: a step of their sum, from -3 to 0, that both have
    passed at 3. From high to low one of them alone does nothing."""
    plain = straight("second", "third")
    return Wiring(
        {**plain.hidden, "h one": Unit({"first": 1.0}, ON), "h other": Unit({"first": 1.0}, ON)},
        {**plain.latents, "z one": Unit({"h one": 1.0}, -ON), "z other": Unit({"h other": 1.0}, -ON)},
        {**plain.decoder, **_step({"z one": 1.0, "z other": 1.0}, -2.5, -0.5)},
        {**plain.blocks, "first": Unit({"rise": 1.0, "stop": -1.0}, -1.0)},
    )


def cancelling() -> Wiring:
    """The first factor's two ways through the decoder cancel to first order at both of its values, and do not on the
    way between them. The second factor's two hidden units pull against each other, 2 to 1; the third has two besides
    the one that carries it, whose effects cancel altogether."""
    plain = straight("first", "second", "third")
    decoder = {name: unit for name, unit in plain.decoder.items() if name != "g first"}
    hidden = {
        **plain.hidden,
        "h against": Unit({"second": 1.0}, ON),
        "h up": Unit({"third": 1.0}, ON),
        "h down": Unit({"third": 1.0}, ON),
    }
    latents = {
        **plain.latents,
        "z second": Unit({"h second": 2.0, "h against": -1.0}, -ON),
        "z third": Unit({"h third": 1.0, "h up": 1.0, "h down": -1.0}, -ON),
    }
    decoder = {**decoder, **_step({"z first": 1.0}, -0.75, 0.75)}
    # Single patches push latents beyond the values that they have.
    decoder |= {f"g {k}": Unit({f"z {k}": 1.0}, 2 * WIDE) for k in ("second", "third")}
    blocks = {k: Unit({f"g {k}": 1.0}, -2 * WIDE) for k in ("second", "third")}
    return Wiring(hidden, latents, decoder, {**blocks, "first": Unit({"rise": 4 / 3, "stop": -4 / 3}, -1.0)})


def _step(reads: Mapping[str, float], start: float, stop: float) -> dict[str, Unit]:
    """Two units whose difference rises with what they read from `start` to `stop`, and is flat on either side."""
    return {"rise": Unit(reads, -start), "stop": Unit(reads, -stop)}


def with_decoys(wiring: Wiring) -> Wiring:
    """Adds edges that carry nothing: from units that are off, or do not change with a factor, with large weights; and
    with large weights and activations, into a latent and a decoder unit that lead nowhere."""
    hidden = {
        **wiring.hidden,
        "off 0": Unit({"first": 1.0}, -5.0, acts=False),
        "off 1": Unit({"second": -1.0}, -5.0, acts=False),
        "nuisance 0": Unit({"nuisance": 1.0}, ON),
        "nuisance 1": Unit({"nuisance": -1.0}, ON),
    }
    latents, (first, second, *_) = dict(wiring.latents), wiring.latents
    # The nuisance enters where the way on is linear: its mean effect stays zero.
    noisy = first if "g first0" in wiring.decoder else "z third"
    for decoy, latent, weight in (
        ("off 0", first, 3.0),
        ("off 1", second, 3.0),
        ("nuisance 0", noisy, 0.5),
        ("nuisance 1", "z third", 0.5),
    ):
        reads, bias, acts = latents[latent]
        mean = ON * weight if "nuisance" in decoy else 0.0
        latents[latent] = Unit({**reads, decoy: weight}, bias - mean, acts)
    latents["nowhere"] = Unit({name: 2.0 for name in list(wiring.hidden)[:3]})
    decoder = {**wiring.decoder, "nothing": Unit({first: 3.0, second: 3.0, "nowhere": 2.0}, 5.0)}
    return Wiring(hidden, latents, decoder, wiring.blocks)


PLANTED_EDGES: dict[str, Callable[[], Wiring]] = {f.__name__: f for f in (linear, gated, redundant, cancelling)}
"""name -> its wiring."""
