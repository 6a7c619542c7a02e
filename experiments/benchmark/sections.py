"""What is measured: sections of runs taken in turn, and their tables."""

from __future__ import annotations

import functools
import math
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from causalvae import architectures, data, interventions, metrics, pretrained, sites, training
from causalvae.data.base import Dataset
from causalvae.interventions._checks import default_chunk
from causalvae.precision import PRECISIONS
from causalvae.training._members import ENSEMBLES
from experiments.benchmark.timing import Table, paired, rows_of
from experiments.benchmark.torch_process import NO_TORCH, has_torch, on_gpu, torch_process


class Settings(NamedTuple):
    """How much to measure."""

    rounds: int = 7  # how often the runs of a section take turns
    steps: int = 20  # training steps in one timed call
    batch_size: int = 64
    pairs: int = 64  # of the patch and the edges section
    units: int = 4  # of each site in the patch section, of each sender's in the edges section; 0: all
    rows: int = 1000  # of the dci section
    members: int = 3  # of the ensemble in the convolutions section, and of one more in the ensemble section


# --- training steps --------------------------------------------------------------------------------------


def stored_image(images: jax.Array, factors: jax.Array, key: jax.Array | None) -> jax.Array:
    return images[factors[0]].astype(jnp.float32) / 255


@functools.cache
def stored_dataset(num: int = 2048) -> Dataset:
    """3DShapes frames kept as uint8 and gathered by number: data that cost a step next to nothing."""
    images = data.load("3dshapes", source="procedural").sample(jax.random.key(0), num)[1]
    images = (255 * images).round().astype(jnp.uint8)
    return Dataset("stored", "procedural", ("image",), (num,), (64, 64, 3), stored_image, images)


def trainer(
    model: Any, dataset: Dataset, members: int, batch_size: int, steps: int, calls: int = 1, **how: Any
) -> Callable[[], Any]:
    """A function that trains `calls` times `steps` steps further, by the library's own `train_steps`. how: precision
    and ensemble, as `training.step_config` takes them."""
    config = training.step_config(model, training.make_optimizer(model), batch_size, **how)
    state = training.init_state(model, config.optimizer, list(range(members)))
    hyper = training.member_hyper(training.complete_hyper(model.hyper, dataset), members)

    def run():
        nonlocal state
        report: Any = None
        for _ in range(calls):
            state, report = training.train_steps(config, dataset, state, hyper, jnp.int32(steps))
        return report.metrics["loss"]

    return run


def step(settings: Settings) -> Table:
    """A training step of the plain VAE (standard network, Bernoulli + KL, Adam) against PyTorch's."""
    model, dataset, s = architectures.create("vae"), stored_dataset(), settings
    runs = {"causalvae": trainer(model, dataset, 1, s.batch_size, s.steps)}
    if not has_torch():
        rows = rows_of(paired(runs, s.rounds), "causalvae", s.steps)
        return Table("training step", "causalvae", rows, [NO_TORCH])
    params = jax.tree.map(np.asarray, model.init(jax.random.key(0)))
    with torch_process(params, np.asarray(dataset.arrays)) as torch_side:
        runs["PyTorch"] = lambda: torch_side("train", "eager", s.batch_size, s.steps)
        for how in ["channels last", *["compiled"] * on_gpu()]:  # compiling takes minutes on a CPU
            runs[f"PyTorch, {how}"] = functools.partial(torch_side, "train", how, s.batch_size, s.steps)
        seconds = paired(runs, s.rounds)
    return Table("training step", "PyTorch", rows_of(seconds, "PyTorch", s.steps))


def ensemble(settings: Settings) -> Table:
    """Three members, and --members, trained in one program against one member; for three, at most 3.2 is the aim."""
    model, dataset, s = architectures.create("vae"), stored_dataset(), settings
    runs = {f"members: {m}": trainer(model, dataset, m, s.batch_size, s.steps) for m in sorted({1, 3, s.members})}
    return Table("training step", "members: 1", rows_of(paired(runs, s.rounds), "members: 1", s.steps))


def convolutions(settings: Settings) -> Table:
    """The ways to compute an ensemble's members and their convolutions, in float32 and bfloat16."""
    model, dataset, s = architectures.create("vae"), stored_dataset(), settings
    ways = [("auto", "float32")] + [(name, kind) for kind in PRECISIONS for name in ENSEMBLES if name != "auto"]
    runs = {
        f"{name}, {kind}": trainer(model, dataset, s.members, s.batch_size, s.steps, ensemble=name, precision=kind)
        for name, kind in ways
    }
    rows = rows_of(paired(runs, s.rounds), "auto, float32", s.steps)
    name, kind = min(rows, key=lambda row: row.ratio).name.split(", ")
    best = min((row for row in rows if row.name.endswith("float32")), key=lambda row: row.ratio).name.split(", ")[0]
    remarks = [
        f"fastest here in float32: --config.training.ensemble={best}",
        f"fastest of all: --config.training.ensemble={name} --config.training.precision={kind}",
    ]
    return Table(f"training step of {s.members} members", "auto, float32", rows, remarks)


def scan(settings: Settings) -> Table:
    """Steps looped inside one call against as many calls of one step."""
    model, dataset, s = architectures.create("vae"), stored_dataset(), settings
    runs = {
        "one call a step": trainer(model, dataset, 1, s.batch_size, 1, calls=s.steps),
        f"{s.steps} steps a call": trainer(model, dataset, 1, s.batch_size, s.steps),
    }
    rows = rows_of(paired(runs, s.rounds), "one call a step", s.steps)
    return Table("training step", "one call a step", rows)


def relative(settings: Settings) -> Table:
    """A training step of each architecture against the plain VAE's."""
    dataset, s = stored_dataset(), settings
    runs = {
        name: trainer(architectures.create(name), dataset, 1, s.batch_size, s.steps)
        for name in architectures.ARCHITECTURES
    }
    return Table("training step", "vae", rows_of(paired(runs, s.rounds), "vae", s.steps))


def render(settings: Settings) -> Table:
    """Drawing a batch from each data set, as a share of a plain VAE's training step on that set."""
    s, rows = settings, []
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset in observed_datasets(folder):
            model = architectures.create("vae", image_shape=dataset.image_shape)
            runs = {
                "step": trainer(model, dataset, 1, s.batch_size, s.steps),
                name: functools.partial(draw, dataset, s.batch_size, jnp.int32(s.steps)),
            }
            row = rows_of(paired(runs, s.rounds), "step", s.steps)[1]
            rows.append(row._replace(note=f"{1e3 * s.batch_size / row.milliseconds:,.0f} images/s"))
    return Table(f"batch of {s.batch_size}", "a training step on the same set", rows)


def observed_datasets(folder: str) -> Iterator[tuple[str, Dataset]]:
    """Every procedural set; then frames in a file of 3DShapes' format, on the device and streamed from disk."""
    for name, entry in data.DATASETS.items():
        if entry.procedural:
            yield f"{name} (procedural)", data.load(name, source="procedural")
    sizes = (10, 10, 2, 2, 2, 2)  # the reader's cost does not depend on what is in the frames
    frames = np.random.default_rng(0).integers(0, 256, (math.prod(sizes), 64, 64, 3), np.uint8)
    with h5py.File(pathlib.Path(folder) / "3dshapes.h5", "w") as file:
        file["images"], file["labels"] = frames, np.stack(np.unravel_index(np.arange(len(frames)), sizes), 1)
    for residency, where in (("device", "on the device"), ("stream", "streamed")):
        options = {"source": "real", "data_dir": folder, "residency": residency}
        yield f"3dshapes (stored, {where})", data.load("3dshapes", **options)


@functools.partial(jax.jit, static_argnames="batch_size")
def draw(dataset: Dataset, batch_size: int, batches: jax.Array) -> jax.Array:
    """The last of `batches` batches of images [batch_size, H, W, C], every one of them drawn."""

    def body(i, images):
        return dataset.sample(jax.random.fold_in(jax.random.key(0), i), batch_size)[1]

    return jax.lax.fori_loop(0, batches, body, jnp.zeros((batch_size, *dataset.image_shape)))


# --- interventions and metrics ---------------------------------------------------------------------------


def _units(shapes: Mapping[str, Any], num: int) -> dict[str, range]:
    """The first `num` units of each site, or all where it is 0 or the site has fewer."""
    return {site: range(min(num or shape.shape[-1], shape.shape[-1])) for site, shape in shapes.items()}


def patch(settings: Settings) -> Table:
    """Patching units one at a time, in every pair, site by site, against a PyTorch loop with forward hooks."""
    model, s = architectures.create("vae"), settings
    params = model.init(jax.random.key(0))
    images = stored_image(stored_dataset().arrays, jnp.arange(2 * s.pairs)[None], None)
    x, x_source = images[: s.pairs], images[s.pairs :]
    shapes = sites.site_shapes(model, params, x)
    units = _units(shapes, s.units)
    effects = functools.partial(interventions.patch_effects, model, params, (x, x_source))

    def ours(site: str):
        return effects(site, groups=list(units[site])).output_change

    start = time.perf_counter()
    found = {site: jax.block_until_ready(ours(site)) for site in units}
    first = time.perf_counter() - start
    if not has_torch():
        seconds = {site: paired({"causalvae": functools.partial(ours, site)}, s.rounds, warm=()) for site in units}
        rows = [
            rows_of(seconds[site], "causalvae", s.pairs * len(units[site]))[0]._replace(name=site) for site in units
        ]
        return Table("patched run", "causalvae", rows, [NO_TORCH])
    with torch_process(jax.tree.map(np.asarray, params), np.asarray(stored_dataset().arrays)) as torch_side:

        def theirs(function: str, site: str):
            return torch_side(function, np.asarray(x), np.asarray(x_source), {site: units[site]}, default_chunk())

        hooks = functools.partial(theirs, "patch_sweep")
        expected = {site: hooks(site)[site] for site in units}
        sides = {"causalvae": ours, "PyTorch hooks": hooks}
        if on_gpu():
            sides["PyTorch vmap"] = functools.partial(theirs, "vmapped_sweep")
        seconds = {
            site: paired({name: functools.partial(side, site) for name, side in sides.items()}, s.rounds, warm=())
            for site in units
        }
    rows = []
    for site, share in arithmetic_left(model, params, x[:1]).items():
        row, *_ = rows_of(seconds[site], "PyTorch hooks", s.pairs * len(units[site]))
        at_par = (2 + len(units[site]) * share) / (2 + len(units[site]))
        rows.append(row._replace(name=site, note=f"{at_par:.2f} at equal speed"))
    total = {name: np.sum([seconds[site][name] for site in units], axis=0) for name in sides}
    work = s.pairs * sum(map(len, units.values()))
    rows += [row._replace(name=f"all sites, {row.name}") for row in rows_of(total, "PyTorch hooks", work)]
    # A site may have no effect but rounding: the log-variance where z is the posterior mean.
    largest = max(effects.max() for effects in expected.values())
    scales = {site: max(effects.max(), 1e-3 * largest) for site, effects in expected.items()}
    error = max(np.abs(found[site] - expected[site]).max() / scales[site] for site in units)
    remarks = [
        f"{work:,} patched runs: {work // s.pairs} units of {len(units)} sites, {s.pairs} pairs",
        f"largest difference between the two sides' effects: {error:.1e} of a site's largest effect",
        f"compilation: {first - np.median(total['causalvae']):.1f} s",
        "at equal speed: base run, source run and, per unit, what of the network follows the site, against base run,",
        "source run and a whole run per unit; in arithmetic",
    ]
    return Table("patched run", "PyTorch hooks", rows, remarks)


def arithmetic_left(model: Any, params: Any, x: jax.Array) -> dict[str, float]:
    """Site -> the share of a forward pass's floating-point operations that follow it: what a patched run cannot do
    without, and a loop of whole runs does all of."""
    shapes = sites.site_shapes(model, params, x)

    def operations(kept: list[str]) -> float:
        def image(params, x, values):
            edits = {site: sites.patch(value) for site, value in values.items()}
            return sites.run(model, params, x, edits=edits)[0].image

        values = {site: jnp.zeros(shapes[site].shape) for site in kept}
        counted: Any = jax.jit(image).lower(params, x, values).compile().cost_analysis()
        return float(counted["flops"])

    order, whole = list(shapes), operations([])
    return {site: operations(order[: i + 1]) / whole for i, site in enumerate(order)}


EDGES = ("encoder/conv2", "latent/z"), ("latent/z", "decoder/conv1")


def edges(settings: Settings) -> Table:
    """Every edge between two sites, in every pair: exact and by gradients, against a PyTorch loop with hooks."""
    s, (model, params) = settings, pretrained.load_pretrained("betatc_3dshapes")  # the standard network, trained
    images = stored_image(stored_dataset().arrays, jnp.arange(2 * s.pairs)[None], None)
    x, x_source = images[: s.pairs], images[s.pairs :]
    units = _units(sites.site_shapes(model, params, x), s.units)
    links = [((sender, list(units[sender])), receiver) for sender, receiver in EDGES]

    def ours(method: str, **options: Any):
        found = interventions.link_effects(model, params, (x, x_source), links, method=method, **options)
        return [link.effects for link in found]

    runs: dict[str, Callable[[], Any]] = {"exact": functools.partial(ours, "exact")}
    for sample in (2, 64):
        name = f"attribution, {sample} edges of each link measured"
        runs[name] = functools.partial(ours, "attribution", sample=sample)
    found = {name: run() for name, run in runs.items()}
    work = sum(effects.size for effects in found["exact"])
    remarks = [f"{work:,} edges and pairs: {work // s.pairs} edges of {len(links)} links, {s.pairs} pairs"]
    if not has_torch():
        rows = rows_of(paired(runs, s.rounds, warm=()), "exact", work)
        return Table("edge and pair", "exact", rows, [*remarks, NO_TORCH])
    with torch_process(jax.tree.map(np.asarray, params), np.asarray(stored_dataset().arrays)) as torch_side:
        arguments = [(*link[0], link[1]) for link in links]
        runs["PyTorch hooks"] = lambda: torch_side("edge_sweep", np.asarray(x), np.asarray(x_source), arguments)
        expected = runs["PyTorch hooks"]()
        seconds = paired(runs, s.rounds, warm=())
    errors = [np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(b)) for a, b in zip(found["exact"], expected, strict=True)]
    remarks.append(f"largest difference between the two sides' exact effects: {max(errors):.1e} of a link's largest")
    for name in list(runs)[1:3]:
        ratio = np.median(seconds["exact"] / seconds[name])
        remarks.append(f"{name}: {ratio:.0f} times as fast as exact")
    return Table("edge and pair", "PyTorch hooks", rows_of(seconds, "PyTorch hooks", work), remarks)


def dci(settings: Settings) -> Table:
    """DCI by boosted trees compiled by XLA against scikit-learn's, on 10 latents and dSprites' factors."""
    rng, num = np.random.default_rng(0), settings.rows
    factors = np.stack([rng.integers(0, n, 2 * num) for n in (3, 6, 40, 32, 32)], axis=1)
    codes = (factors / factors.max(axis=0)) @ rng.normal(size=(5, 10)) + 0.1 * rng.normal(size=(2 * num, 10))
    scores: dict[str, Any] = {}

    def score(estimator):
        scores[estimator] = metrics.dci(codes, factors, estimator, num_train=num, num_test=num // 2)

    runs = {name: functools.partial(score, name) for name in ("sklearn", "xla")}
    seconds = paired(runs, rounds=1, warm=("xla",))  # the reference takes minutes: once is enough
    notes = ["D {:.4f}  C {:.4f}  I {:.4f}".format(*scores[name][:3]) for name in runs]
    rows = [row._replace(note=note) for row, note in zip(rows_of(seconds, "sklearn", 1), notes, strict=True)]
    return Table(f"score on {num} rows", "sklearn", rows)


SECTIONS: dict[str, Callable[[Settings], Table]] = {
    "step": step,
    "ensemble": ensemble,
    "convolutions": convolutions,
    "scan": scan,
    "architectures": relative,
    "render": render,
    "patch": patch,
    "edges": edges,
    "dci": dci,
}
