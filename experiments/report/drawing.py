"""Figures of the report: written as files, and embedded into the page."""

from __future__ import annotations

import base64
import io
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from PIL import Image

from causalvae import plots
from experiments.markup import html, joined


class Drawer:
    """Writes figures as PNG and PDF, and as the HTML that holds them."""

    def __init__(self, folder: pathlib.Path, source: str):
        self.folder, self.source = folder, source

    def all(self, drawn: Sequence[tuple[str, Any]], kind: str = "figures") -> Markup:
        """The figures that are not None: kind "figures" two to a row where there is room, "broad" one."""
        shown = [self.one(name, figure) for name, figure in drawn if figure is not None]
        return html('<div class="{}">{}</div>', kind, joined(shown)) if shown else Markup("")

    def one(self, name: str, figure) -> Markup:
        stem = re.sub(r"[^\w.+-]+", "_", f"{name}_{self.source}")  # the name of a data set may be a path
        plots.save(figure, self.folder / f"{stem}.pdf")
        path = plots.save(figure, self.folder / f"{stem}.png", dpi=140)
        alternative = f"{figure.get_suptitle().strip()} ({self.source} data)"
        packed = compress(path.read_bytes())
        width, height = Image.open(
            io.BytesIO(packed)
        ).size  # room is kept before it loads: a link's target stays in place
        start = '<figure><img tabindex="0" loading="lazy" width="{}" height="{}" alt="{}" '
        image = start + 'src="data:image/png;base64,{}"></figure>'
        return html(image, width, height, alternative, base64.b64encode(packed).decode())


def compress(png: bytes) -> bytes:
    """The PNG with a palette of 256 colors: a third of the size, and figures do not show it."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
