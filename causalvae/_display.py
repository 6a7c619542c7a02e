"""Results in a notebook: a cell that ends with one shows its table."""

from __future__ import annotations

from typing import Any

ROWS = 20  # shown at most, half of them from either end


def as_html(result: Any) -> str | None:
    """Returns the table of `causalvae.frame(result)` as HTML, for a result's `_repr_html_`.

    None, for which a notebook shows the text instead, where there is no table, as within a transformation of JAX.
    """
    from causalvae.frames import frame  # pandas takes a second

    try:
        table = frame(result)
    except Exception:  # what is displayed never fails
        return None
    kind = type(result).__name__
    shown = table.to_html(max_rows=ROWS, index=False, border=0, na_rep="–", float_format="{:.3g}".format)
    return f"<p><code>{kind}</code>, {len(table):,} rows; <code>causalvae.frame</code> gives them all.</p>{shown}"
