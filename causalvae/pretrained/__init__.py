"""Trained models that ship with the library: half-precision weights in safetensors files, each with a card beside it.

    model, params = causalvae.load_pretrained("betatc_3dshapes")

A card (`card(name)`, a JSON file) says how the model was trained, on which data, what it scores, and the SHA-256 of its
weights. The scores are those of the weights as they are stored. `experiments.ship` makes both from a finished run.
"""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from causalvae import _files, architectures
from causalvae._inputs import named_leaves
from causalvae._words import nearest
from causalvae.architectures import Architecture, inference_params

__all__ = [
    "card",
    "load_pretrained",
    "names",
]

PyTree = Any
FOLDER = pathlib.Path(__file__).parent
AGAIN = "install causalvae again"
CARD = {
    "architecture": {"name": str},
    "image_shape": [int],
    "data": {"name": str},
    "training": {"steps": int},
    "sha256": str,
}
LARGEST_HALF = float(np.finfo(np.float16).max)


def names() -> tuple[str, ...]:
    """Returns the names of the models that ship, such as "betatc_3dshapes"."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def card(name: str) -> dict[str, Any]:
    """Returns what is known of a shipped model.

    Raises:
      ValueError: for an unknown name; names those that exist.
    """
    if name not in names():
        raise ValueError(
            f"no pretrained model {name!r}; there are: {', '.join(names()) or 'none'}.{nearest(name, names())}"
        )
    return _files.read_json(FOLDER / f"{name}.json", "card of a model", CARD, AGAIN)


def load_pretrained(name: str) -> tuple[Architecture, PyTree]:
    """Returns a shipped model and its parameters, float32.

    They are those of encoder and decoder; what only the loss reads is not kept.

    Raises:
      ValueError: where the name is unknown or the file is not the one that the card describes.
      FileNotFoundError: where the file is missing.
    """
    about = card(name)
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing beside its card: install causalvae again, or clone it whole")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != about["sha256"]:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is {digest}, and the card says {about['sha256']}. Install causalvae again."
        )
    with _files.reading(FOLDER / f"{name}.json", "card of a model", AGAIN):
        model = create(about)
    with _files.reading(path, "safetensors file", AGAIN):
        arrays = safetensors.numpy.load(data)
    return model, unpack(model, arrays)


def create(about: dict[str, Any]) -> Architecture:
    """Returns the architecture that a card describes."""
    options = dict(about["architecture"])
    return architectures.create(options.pop("name"), image_shape=tuple(about["image_shape"]), **options)


def pack(model: Architecture, params: PyTree) -> dict[str, np.ndarray]:
    """Returns the arrays that are stored: 'encoder/conv0/kernel' -> float16.

    Raises:
      ValueError: where a weight is too large for it.
    """
    arrays = {}
    for name, leaf in named_leaves(inference_params(model, params)).items():
        leaf = np.asarray(leaf)
        if not np.abs(leaf).max(initial=0.0) <= LARGEST_HALF:
            raise ValueError(f"{name} holds values that half precision cannot: the largest is {np.abs(leaf).max()}")
        arrays[name] = leaf.astype(np.float16)
    return arrays


def unpack(model: Architecture, arrays: dict[str, np.ndarray]) -> PyTree:
    """Returns the parameters of stored arrays, float32.

    Raises:
      ValueError: where they are not those of the model.
    """
    template = inference_params(model, jax.eval_shape(model.init, jax.random.key(0)))
    wanted = {name: leaf.shape for name, leaf in named_leaves(template).items()}
    found = {name: array.shape for name, array in arrays.items()}
    if found != wanted:
        different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        first = different[0]
        raise ValueError(
            f"the weights are of another model: {len(different)} arrays differ, such as {first}, which is "
            f"{found.get(first, 'missing')} there and {wanted.get(first, 'missing')} in a {model.name}"
        )
    return jax.tree.unflatten(jax.tree.structure(template), [np.float32(arrays[name]) for name in wanted])
