"""Planted edges in open formats, so that methods of any framework can be scored on them."""

from __future__ import annotations

import collections
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from causalvae import _files
from causalvae._npz import Wanted, read_npz
from causalvae.interventions.factors import counterfactuals
from causalvae.planted import FACTORS
from causalvae.planted_edges.network import LINKS, PlantedEdges

README = """# {name}: a network with planted edges

- `weights.safetensors`: six linear maps, `<layer>.weight` [inputs, outputs] and `<layer>.bias`.
- `graph.json`: node-link data (`networkx.node_link_graph(graph, edges="edges")`). Nodes are units, `latent/z:3`, with
  `site` and `unit`. Edges are all weights that are not zero between the three sites, with `weight` and `factors`: the
  factors that the edge carries. Those with an empty list are decoys.
- `pairs.npz`: `x` and `x_source` [N, 4, 16, 1], images before and after a change of one factor; `factor` [N], its
  number: {factors}.

The whole network, of images x [N, 4, 16, 1]:

```python
import numpy as np
from safetensors.numpy import load_file


def forward(weights, x):
    def linear(layer, values):
        return values @ weights[f"{{layer}}.weight"] + weights[f"{{layer}}.bias"]

    hidden = np.maximum(linear("hidden", linear("pixels", x.reshape(len(x), -1))), 0)  # encoder/hidden
    z = linear("mean", hidden)  # latent/z
    decoder = np.maximum(linear("decoder", z), 0)  # decoder/hidden
    return linear("image", linear("blocks", decoder)).reshape(x.shape), {{
        "encoder/hidden": hidden,
        "latent/z": z,
        "decoder/hidden": decoder,
    }}


weights = load_file("weights.safetensors")
with np.load("pairs.npz") as stored:
    pairs = dict(stored)
image, activations = forward(weights, pairs["x"])
```

An edge's effect is that of its path patch: the sender takes its value of `x_source`, only the receiver sees it, and
all else is computed from `x`. In a model that is exported with noise, a decoy that reads the nuisance acts, too, with a
mean effect of zero on the brightness of a block.
"""


class Export(NamedTuple):
    """What a folder written by `export` holds."""

    weights: dict[str, np.ndarray]  # "hidden.weight" -> [inputs, outputs]
    graph: dict[str, Any]  # node-link
    pairs: dict[str, np.ndarray]  # x, x_source, factor
    edges: dict[str, dict[tuple[str, str], np.ndarray]]  # factor -> link -> bool [U, W], from the graph


def export(planted: PlantedEdges, folder: str | pathlib.Path, key: jax.Array, num: int = 64) -> pathlib.Path:
    """Writes a planted network as weights.safetensors, graph.json, pairs.npz and a README.md that has the forward pass.

    Args:
      planted: what `plant_edges` returns.
      folder: where to; made if it does not exist.
      key: draws the pairs.
      num: how many pairs of each factor.

    Returns:
      The folder.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"{layer}.{kind}": np.asarray(a) for layer, part in planted.params.items() for kind, a in part.items()}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "weights.safetensors")
    (folder / "graph.json").write_text(json.dumps(as_graph(planted), indent=1))
    drawn = [counterfactuals(planted.dataset, jax.random.fold_in(key, k), k, num) for k in range(len(FACTORS))]
    images = {name: np.concatenate([np.asarray(getattr(p, name)) for p in drawn]) for name in ("x", "x_source")}
    np.savez(folder / "pairs.npz", allow_pickle=False, **images, factor=np.repeat(np.arange(len(FACTORS)), num))
    factors = ", ".join(f"{k} {name}" for k, name in enumerate(FACTORS))
    (folder / "README.md").write_text(README.format(name=planted.name, factors=factors))
    return folder


def as_graph(planted: PlantedEdges) -> dict[str, Any]:
    """Returns all edges with a weight, and which factors each carries, as node-link data."""
    nodes, edges = {}, []
    for link in LINKS:
        weights = planted.weights(link)
        for site, size in zip(link, weights.shape, strict=True):
            layer = ["encoder/hidden", "latent/z", "decoder/hidden"].index(site)
            for unit in range(size):
                nodes[f"{site}:{unit}"] = {"id": f"{site}:{unit}", "site": site, "unit": unit, "layer": layer}
        for u, w in np.argwhere(weights).tolist():
            carried = [factor for factor in FACTORS if planted.edges[factor][link][u, w]]
            ends = {"source": f"{link[0]}:{u}", "target": f"{link[1]}:{w}"}
            edges.append({**ends, "weight": float(weights[u, w]), "factors": carried})
    about = {"name": planted.name, "factors": list(FACTORS)}
    return {"directed": True, "multigraph": False, "graph": about, "nodes": list(nodes.values()), "edges": edges}


def load_export(folder: str | pathlib.Path) -> Export:
    """Returns what a folder written by `export` holds, with the planted edges as masks.

    Args:
      folder: the folder.

    Raises:
      ValueError: where a file is damaged; names it.
    """
    folder = pathlib.Path(folder)
    path, what, mend = folder / "graph.json", "graph of planted edges", "export it again"
    graph = _files.read_json(path, what, GRAPH, mend)
    with _files.reading(path, what, mend):
        masks = _masks(graph)
    pairs = read_npz(folder / "pairs.npz", {...: Wanted("buif")}, "file of pairs", mend)
    with _files.reading(folder / "weights.safetensors", "safetensors file", mend):
        weights = load_file(folder / "weights.safetensors")
    return Export(weights, graph, pairs, masks)


GRAPH = {
    "graph": {"factors": [str]},
    "nodes": [{"site": str, "unit": int}],
    "edges": [{"source": str, "target": str, "factors": [str]}],
}


def _masks(graph: dict[str, Any]) -> dict[str, dict[tuple[str, str], np.ndarray]]:
    """factor -> link -> whether an edge between two units carries it."""
    sizes = collections.Counter(node["site"] for node in graph["nodes"])
    masks = {f: {link: np.zeros([sizes[s] for s in link], bool) for link in LINKS} for f in graph["graph"]["factors"]}
    for edge in graph["edges"]:
        (site, u), (following, w) = (edge[end].split(":") for end in ("source", "target"))
        for factor in edge["factors"]:
            masks[factor][site, following][int(u), int(w)] = True
    return masks
