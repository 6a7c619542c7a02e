"""The explorer in a notebook: the page's own script, carried by anywidget.

What it shows was computed when it was made, as on the page: it stays alive in a notebook that is opened without a
kernel, and there is one explorer to know. Any other edit of the model is a line of code, `cv.run(..., edits=...)`.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import jax

from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from experiments.explorer import packing
from experiments.explorer.explore import explore

PyTree = Any
FOLDER = pathlib.Path(__file__).parent


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
    explored = explore(model, params, dataset, jax.random.key(0) if key is None else key, sites, pairs)
    return kind(page=packing.as_json(explored, {"text": f"{model.name} on {dataset.name} ({dataset.source} data)"}))


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

        _esm = (FOLDER / "explorer.js").read_text()
        _css = (FOLDER / "explorer.css").read_text()
        page = traitlets.Dict().tag(sync=True)

    return Explorer
