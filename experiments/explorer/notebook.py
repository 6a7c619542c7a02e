"""The explorer in a notebook: the page's own script, carried by anywidget.

What it shows was computed when it was made, as on the page: it stays alive in a notebook that is opened without a
kernel, and there is one explorer to know. Any other edit of the model is a line of code, `cv.run(..., edits=...)`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax

from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from experiments.explorer import packing
from experiments.explorer.content import Detail
from experiments.explorer.explore import WHOLE, explore
from experiments.explorer.page import script, style

PyTree = Any


def widget(
    model: Architecture,
    params: PyTree,
    dataset: Dataset,
    key: jax.Array | None = None,
    sites: str = "*",
    pairs: int = 16,
) -> Any:
    """Returns the explorer of one trained model, to be displayed.

    Args:
        model: the architecture, and `params` its parameters.
        dataset: where images and counterfactual pairs come from.
        key: of what is drawn; None is key 0.
        sites: patterns separated by commas, the sites to patch.
        pairs: counterfactual pairs drawn of each factor, the most different of which is shown.

    Returns:
        An `anywidget.AnyWidget`, whose `page` is what `packing.as_json` gives.

    Raises:
        ImportError: where anywidget is not installed; it says how to install it.
    """
    kind = _kind()
    return kind(page=_page(model, params, dataset, key, sites, pairs))


def beside(
    models: Mapping[str, tuple[Architecture, PyTree]],
    dataset: Dataset,
    key: jax.Array | None = None,
    sites: str = "*",
    pairs: int = 16,
) -> Any:
    """Returns one explorer of several trained models side by side, of the same images and pairs, to be displayed.

    Args:
        models: title -> (model, params), such as {"VAE": (model, params), "β-TC-VAE": …}.
        dataset: of images that all of them take; where images and pairs come from.
        key: of what is drawn; None is key 0.
        sites: patterns separated by commas, the sites to patch, which every model must have.
        pairs: as in `widget`.

    Raises:
        ImportError: as `widget` does.
        ValueError: for fewer than two models, and for images of another shape than the data set's.
    """
    kind = _kind()
    if len(models) < 2:
        raise ValueError(f"{len(models)} models cannot stand side by side: give two or more, or call widget")
    for title, (model, _) in models.items():
        if tuple(model.image_shape) != tuple(dataset.image_shape):
            raise ValueError(
                f"{title} takes images {list(model.image_shape)}, and those of {dataset.name} are "
                f"{list(dataset.image_shape)}: models side by side are shown the same images"
            )
    detail = Detail.beside(len(models))
    pages = [[t, _page(*model, dataset, key, sites, pairs, detail)] for t, model in models.items()]
    return kind(pages=pages)


def _page(model, params, dataset, key, sites, pairs, detail=WHOLE) -> dict[str, Any]:
    key = jax.random.key(0) if key is None else key
    explored = explore(model, params, dataset, key, sites, pairs, detail=detail)
    return packing.as_json(explored, {"text": f"{model.name} on {dataset.name} ({dataset.source} data)"})


@functools.cache
def _kind() -> Any:
    """The widget's class, made where anywidget is there."""
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError(
            "the explorer in a notebook needs anywidget: `pip install anywidget`, or this package's extra 'colab'. "
            "`python -m causalvae explore --workdir=RUN` writes the same as a page, without it."
        ) from error

    class Explorer(anywidget.AnyWidget):
        """An explorer; `page` is the JSON that its script shows."""

        _esm = script()
        _css = style()
        page = traitlets.Dict().tag(sync=True)
        pages = traitlets.List().tag(sync=True)  # of several side by side: [title, page] of each

    return Explorer
