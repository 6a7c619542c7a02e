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

from causalvae import figures, plots
from experiments.markup import html, joined

# Figure -> how to read it, in a sentence; of a figure of one data set, what its name begins with.
HOW_TO_READ = {name: figures.HOW_TO_READ[name] for name in ("patching", "mediation")} | {
    "scatter": "Each point is one run: to the right, its latents move the image more, and above, its representation is "
    "more disentangled; only an interval that leaves out 0 says that the two go together.",
    "modularity": "Further right, the latents' changes overlap less at a site of the decoder; a line tells of training "
    "only where it is right of the dashed line of its color, the same network untrained.",
    "traversals": "Two strips for each architecture: one image, redrawn while its most, and its least, specific active "
    "latent is set from −3 to 3 and all others stay; a specific latent changes one thing.",
    "correlations": "Each dot is a correlation of strength and disentanglement, with its interval: only one that "
    "leaves out 0, best with a filled dot, says that they go together.",
    "capacity": "Below the dashed line the β-VAE has less than the VAE with as many latents; loss of capacity would be "
    "lines that fall to the right.",
    "vq_strength": "How strong the VQ-VAE's latents and codes are beside the other architectures' (1: as strong); "
    "“near zero” would be intervals left of the dotted line.",
    "specification_curve": "Above, the correlation under each combination of choices, sorted; below, the choices that "
    "make it, darker where they are dense: a choice that is dark at one end decides the sign.",
    "heat": "One row per architecture, one column per data set, means over seeds; darker is more.",
}


def how_to_read(name: str) -> str:
    """The sentence under a figure of a report, "" for none."""
    return HOW_TO_READ.get(name) or HOW_TO_READ.get(name.partition("_")[0], "")


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
        alternative = f"{' '.join(figure.get_suptitle().split())} ({self.source} data)"
        packed = compress(path.read_bytes())
        width, height = Image.open(
            io.BytesIO(packed)
        ).size  # room is kept before it loads: a link's target stays in place
        sentence = html("<figcaption>{}</figcaption>", how_to_read(name)) if how_to_read(name) else Markup("")
        start = '<figure style="max-width:{}px"><img tabindex="0" loading="lazy" width="{}" height="{}" alt="{}" '
        image = start + 'src="data:image/png;base64,{}">{}</figure>'
        return html(image, width, width, height, alternative, base64.b64encode(packed).decode(), sentence)


def compress(png: bytes) -> bytes:
    """The PNG with a palette of 256 colors: a third of the size, and figures do not show it."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
