"""The explorer in a notebook: everything is computed when it is asked for, by the library's own functions."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from causalvae import interventions, plots
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.interventions.latents import image_distance
from causalvae.sites import patch, run, site_shapes
from experiments.explorer import content as explorer

try:
    import ipywidgets as widgets
except ImportError as error:
    raise ImportError(
        "the explorer in a notebook needs ipywidgets: `pip install ipywidgets`, or this package's extra 'colab'. "
        "`python -m experiments.explorer --workdir=RUN` writes the same as a page, without it."
    ) from error

PyTree = Any
ENLARGED = 3  # times
GAIN = 4  # of the difference image
PAIRS = 16  # drawn of each factor, the most different one shown


def build(model: Architecture, params: PyTree, dataset: Dataset, key: jax.Array) -> widgets.Tab:
    """Three tabs: latents moved, one swapped, a channel patched. (`experiments.explorer.content.widget` calls this.)"""
    strength_key, start_key, pair_key = jax.random.split(key, 3)
    runner = explorer.Runner(model, params, explorer.patched_sites(model, dataset, "*"))
    strengths = explorer.measure_strengths(model, params, dataset, strength_key)
    pairs, x, x_source = explorer.draw_pairs(runner, dataset, pair_key, PAIRS)
    tabs = (
        Mover(runner, dataset, start_key, strengths),
        Patcher(runner, dataset, pairs, x, x_source, (runner.code_site,)),
        Patcher(runner, dataset, pairs, x, x_source, tuple(s for s in runner.shapes if s != runner.code_site)),
    )
    thing = "code" if runner.codes else "latent"
    titles = [f"Move a {thing}", f"Swap a {thing}", "Patch a channel"]
    return widgets.Tab([tab.box for tab in tabs], titles=titles)


class Seen:
    """A strip of images, the last one their difference, and what is said of them."""

    def __init__(self):
        self.strip, self.said = widgets.Image(format="png"), widgets.HTML()
        self.box = widgets.VBox([self.strip, self.said])

    def show(self, images: Sequence[np.ndarray], base: np.ndarray, lines: Sequence[str], bars: str = "") -> None:
        """images [H, W, C] side by side, and after them the last one's difference from `base`."""
        difference = 1 - np.clip(GAIN * np.abs(images[-1] - base).max(axis=-1, keepdims=True), 0, 1)
        parts = [plots.as_rgb(image) for image in (*images, difference)]
        picture = Image.fromarray(np.round(255 * plots.tile(np.stack(parts)[None])).astype(np.uint8))
        buffer = io.BytesIO()
        size = (ENLARGED * picture.width, ENLARGED * picture.height)
        picture.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
        self.strip.value = buffer.getvalue()
        self.said.value = "".join(f"<div>{line}</div>" for line in lines) + bars


def changed_image(runner: explorer.Runner, x: np.ndarray, site: str, mask: np.ndarray, values: Any) -> np.ndarray:
    """The image of x [H, W, C] when the masked units of a site have the values of an activation [1, ...]."""
    outputs, _ = run(runner.model, runner.params, x[None], edits={site: patch(values, mask)})
    return np.asarray(outputs.image[0])


def bars_of(names: Sequence[str], values: np.ndarray, title: str) -> str:
    """A bar for each value, as HTML."""
    largest = max(1.0, float(np.nanmax(values, initial=0.0)))
    rows = "".join(
        f'<tr><td>{html.escape(name)}</td><td style="width:180px"><div style="height:8px;background:{plots.ACCENTS[0]};'
        f'width:{100 * (value if np.isfinite(value) else 0) / largest:.0f}%"></div></td><td>{value:.2f}</td></tr>'
        for name, value in zip(names, values, strict=True)
    )
    return f'<div style="color:{plots.MUTED}">{title}</div><table>{rows}</table>'


# --- latents moved ---------------------------------------------------------------------------------------


class Mover:
    """Sliders for the strongest latents of an image; those that are moved are set together."""

    def __init__(self, runner: explorer.Runner, dataset: Dataset, key: jax.Array, strengths: explorer.Strengths):
        self.runner, self.strengths, self.names = runner, strengths, explorer.latent_names(runner)
        self.factors, self.images = (np.asarray(a) for a in dataset.sample(key, explorer.ROWS))
        self.factor_names = dataset.factor_names
        decoded, self.z = runner(self.images)
        self.own = runner.latents(self.z)
        self.decoded = decoded[: explorer.STARTS]
        self.before = runner.latents(runner(self.decoded)[1])
        order = np.argsort(-np.nan_to_num(strengths.ces), kind="stable")
        self.latents = order[: explorer.LATENTS_SHOWN]
        starts = [(f"image {i + 1}", i) for i in range(explorer.STARTS)]
        self.choice = widgets.Dropdown(options=starts, description="start")
        self.reset = widgets.Button(description="Back to its own")
        self.seen, self.sliders = Seen(), [self.slider(i) for i in self.latents]
        self.box = widgets.HBox([self.seen.box, widgets.VBox([widgets.HBox([self.choice, self.reset]), *self.sliders])])
        self.choice.observe(self.restart, "value")
        self.reset.on_click(self.restart)
        for slider in self.sliders:
            slider.observe(self.draw, "value")
        self.restart()

    def slider(self, latent: int) -> widgets.Widget:
        label = f"{self.names[latent]}  ({self.strengths.ces[latent]:.1f})"
        if self.runner.codes:
            used = explorer.most_used(self.runner.model, self.runner.params, self.own)[latent]
            return widgets.SelectionSlider(options=[("own", -1), *((str(c), int(c)) for c in used)], description=label)
        low, high = explorer.SWEEP.low, explorer.SWEEP.high
        return widgets.FloatSlider(min=low, max=high, step=0.1, description=label, readout_format="+.1f")

    def restart(self, change: Any = None) -> None:
        """All latents at the image's own values."""
        self.quiet = True
        own = self.own[self.choice.value, self.latents]
        for slider, value in zip(self.sliders, own, strict=True):
            slider.value = -1 if self.runner.codes else float(np.clip(value, slider.min, slider.max))
        self.rest, self.quiet = [slider.value for slider in self.sliders], False
        self.draw()

    def draw(self, change: Any = None) -> None:
        """The image under do(moved latents := their sliders), and its effect."""
        if self.quiet:
            return
        start = self.choice.value
        base = self.decoded[start]
        moved = {
            int(latent): slider.value
            for latent, slider, rest in zip(self.latents, self.sliders, self.rest, strict=True)
            if slider.value != rest
        }
        image = changed_image(self.runner, self.images[start], self.runner.code_site, *self.edit(moved))
        after = self.runner.latents(np.asarray(run(self.runner.model, self.runner.params, image[None])[0].z))[0]
        before = self.before[start]
        if self.runner.codes:
            response, title = (after != before).astype(float), "codes changed after decoding and encoding again"
        else:
            response = np.abs(after - before) / self.strengths.scale
            title = "latents moved after decoding and encoding again (standard deviations)"
        self.effect = float(image_distance(image[None], base[None], "l2")[0])
        self.image, self.response = image, response
        bars = bars_of(self.names, response, title)
        self.seen.show([self.images[start], base, image], base, self.words(moved, start), bars)

    def edit(self, moved: dict[int, Any]) -> tuple[np.ndarray, np.ndarray]:
        """(mask, values) of the moved latents, over the site that holds them."""
        activation = self.runner.shapes[self.runner.code_site]
        shape = activation.shape[1:]
        size = int(np.prod(shape)) if self.runner.codes else shape[-1]
        mask, values = np.zeros(size, bool), np.zeros(size, activation.dtype)
        for latent, value in moved.items():
            mask[latent], values[latent] = True, value
        if self.runner.codes:
            mask, values = mask.reshape(shape), values.reshape(shape)
        return mask, np.broadcast_to(values, (1, *shape))

    def words(self, moved: dict[int, Any], start: int) -> list[str]:
        factors = ", ".join(f"{n} {v}" for n, v in zip(self.factor_names[:12], self.factors[start], strict=False))
        lines = [
            captions("input", "decoded", "changed"),
            html.escape(factors),
            f"changes the image by <b>{self.effect:.3f}</b> (l2)",
        ]
        for latent, value in moved.items():
            shown = value if self.runner.codes else f"{value:+.1f}"
            lines.append(
                f"do({self.names[latent]} := {shown}): CES {self.strengths.ces[latent]:.2f} ± "
                f"{self.strengths.ces_error[latent]:.2f}, specificity {self.strengths.specificity[latent]:.2f}"
            )
        return lines


def captions(*names: str) -> str:
    """What the images of a strip are, as HTML; the last one is their difference."""
    return f"<small>{' · '.join(names)} · difference ×{GAIN}</small>"


# --- units taken from a source ---------------------------------------------------------------------------


class Patcher:
    """A unit of a site taken from the source run of a counterfactual pair, strongest first."""

    def __init__(self, runner, dataset: Dataset, pairs: explorer.PairsShown, x, x_source, sites: tuple[str, ...]):
        self.runner, self.pairs, self.x, self.x_source = runner, pairs, x, x_source
        self.names = explorer.latent_names(runner)
        self.capture = tuple(site_shapes(runner.model, runner.params, x[:1]))
        labels = [(dataset.factor_names[factor], p) for p, factor in enumerate(pairs.factor)]
        self.pair = widgets.Dropdown(options=labels, description="factor")
        site = "encoder/conv2" if "encoder/conv2" in sites else sites[0]
        self.site = widgets.Dropdown(options=sites, value=site, description="layer")
        self.unit = widgets.Select(rows=12, description="unit", layout={"width": "420px"})
        self.seen = Seen()
        choices = [self.pair, self.unit] if len(sites) == 1 else [self.pair, self.site, self.unit]
        self.box = widgets.HBox([self.seen.box, widgets.VBox(choices)])
        self.measured = False  # a layer's program takes seconds to compile: when the tab is first touched
        self.pair.observe(self.measure, "value")
        self.site.observe(self.measure, "value")
        self.unit.observe(self.draw, "value")
        if len(sites) == 1:
            self.measure()
        else:
            self.unit.options = [("choose a layer or a factor: its effects are then measured", -1)]

    def measure(self, change: Any = None) -> None:
        """Effects of every unit of the site in the pair."""
        p, site, runner = self.pair.value, self.site.value, self.runner
        ends = self.x[p : p + 1], self.x_source[p : p + 1]
        self.effects = interventions.patch_effects(runner.model, runner.params, ends, site)
        _, source = run(runner.model, runner.params, ends[1], capture=self.capture)
        self.source = {name: np.asarray(value) for name, value in source.items()}
        effect, recovery = np.asarray(self.effects.output_change), np.asarray(self.effects.recovery)
        name = self.unit_name(site)
        self.unit.options = [
            (f"{name(u)}: effect {effect[u]:.2f}, recovery {recovery[u]:.2f}", int(u))
            for u in np.argsort(-effect, kind="stable")
        ]
        self.unit.index = 0
        self.draw()

    def unit_name(self, site: str) -> Callable[[int], str]:
        if site == self.runner.code_site:
            return lambda u: self.names[u]
        return lambda u: f"{'channel' if len(self.runner.shapes[site].shape) > 2 else 'unit'} {u}"

    def draw(self, change: Any = None) -> None:
        """The patched image of the chosen unit."""
        if self.unit.value is None or self.unit.value < 0:
            return
        p, site, unit = self.pair.value, self.site.value, self.unit.value
        shape = self.source[site].shape[1:]
        codes = site == "latent/codes"
        mask = (np.arange(int(np.prod(shape))) == unit).reshape(shape) if codes else np.arange(shape[-1]) == unit
        self.image = changed_image(self.runner, self.x[p], site, mask, self.source[site])
        base, source = self.pairs.decoded[p]
        effect, total = float(self.effects.output_change[unit]), float(self.pairs.total[p])
        kind = "two matched images: not causal" if self.pairs.observational else "do of one factor"
        values = " → ".join(str(int(v)) for v in self.pairs.factors[p][:, self.pairs.factor[p]])
        lines = [
            captions("base", "source", "patched"),
            f"{html.escape(self.pair.label)} {values} ({kind})",
            f"<b>{self.unit_name(site)(unit)}</b> of {site}",
            f"changes the image by <b>{effect:.3f}</b> (l2) of {total:.3f} between base and source",
            f"recovers <b>{float(self.effects.recovery[unit]):.3f}</b> of the source's image",
        ]
        self.seen.show([base, source, self.image], base, lines)
