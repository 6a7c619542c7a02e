"""HTML of pages that show other people's words: a type of its own, into which text goes escaped, whoever wrote it.

It is made by `html` of a constant template and the values in it, never by an f-string. What `Markup` says is HTML is
not escaped again, so it stands around constants, and around what this package's own files hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup


def html(template: str, *values: Any, **named: Any) -> Markup:
    """Returns a constant template as `str.format` fills it, with the values escaped where they are no HTML."""
    return Markup(template).format(*values, **named)


def joined(parts: Iterable[Any]) -> Markup:
    """Returns parts one after the other, escaped where they are no HTML."""
    return Markup("").join(parts)
