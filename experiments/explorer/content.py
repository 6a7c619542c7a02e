"""What an explorer of one trained model shows: latents moved, codes swapped, channels patched, with their effects.

    explored = explore(model, params, dataset, jax.random.key(0))     # arrays
    page = as_json(explored)                                          # for experiments/explorer/template.html
    widget(model, params, dataset)                                    # in a notebook, computed as it is moved

Numbers are those of `perturb_latents` and `patch_effects`; what is added here is the image behind every number,
all of them by one compiled program: a forward pass in whose row n one unit of one site is replaced. The explorer
of a model with discrete codes moves and swaps its codes, that of any other its latents.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import evaluation, interventions, metrics
from causalvae.architectures import Architecture, inference_params
from causalvae.data.base import Dataset
from causalvae.interventions._checks import default_chunk
from causalvae.interventions._groups import Groups, make_groups
from causalvae.interventions._runs import base_run
from causalvae.interventions.latents import image_distance
from causalvae.model import image_of, latents_of, sites_of
from causalvae.progress import finite
from causalvae.sites import patch, tapped
from experiments.explorer.tiles import Tiles

PyTree = Any

ROWS = 64  # runs at once
STARTS = 3  # images whose latents are moved
LATENTS_SHOWN = 16  # the strongest
CODES_SHOWN = 12  # of a codebook: the ones most in use
SWEEP = interventions.Sweep(-3.0, 3.0, 13)  # the family of evaluation.SWEEP, in half steps
PAIRS_SHOWN = 8  # one for each factor, up to this
PICTURES_OF_MAP, PICTURES_OF_VECTOR = 72, 48  # of one site, over all pairs; numbers are given of every unit
STRENGTH_IMAGES = 16


class Strengths(NamedTuple):
    """What is said of each latent (or code) as a whole, [L] each; NaN where undefined."""

    ces: np.ndarray  # causal effect strength, l2: Sweep(-3, 3, 7), or CodeSwap(7) of codes
    ces_error: np.ndarray  # its standard error over images
    specificity: np.ndarray  # over output values, normalized
    activity: np.ndarray  # KL in nats
    scale: np.ndarray  # s_i, the aggregate posterior's standard deviation; 1 of codes


class Moves(NamedTuple):
    """A few images, and each latent of each set to a range of values: do(z_i := v)."""

    factors: np.ndarray  # [S, K]
    images: np.ndarray  # [S, H, W, C] the data set's
    decoded: np.ndarray  # [S, H, W, C] D(z)
    latents: np.ndarray  # [M] int, strongest first
    own: np.ndarray  # [S, M] what they are in each image
    values: np.ndarray  # [M, V] what they are set to
    pictures: np.ndarray  # [S, M, V, H, W, C]
    effect: np.ndarray  # [S, M, V] Euclidean norm of the image's change
    # [S, M, V, L] change of every latent, in standard deviations, after decoding and encoding again; of codes,
    # whether the code is another
    response: np.ndarray


class PairsShown(NamedTuple):
    """One counterfactual pair of each factor, P in all."""

    factor: tuple[int, ...]  # that differs
    observational: bool  # matched on attributes, not counterfactual
    factors: np.ndarray  # [P, 2, K] of the base and of the source
    images: np.ndarray  # [P, 2, H, W, C]
    decoded: np.ndarray  # [P, 2, H, W, C]
    total: np.ndarray  # [P] Euclidean distance of the two decoded images


class Site(NamedTuple):
    """Every unit of a site taken from the source run, one at a time, in each pair."""

    name: str
    shape: tuple[int, ...]
    effect: np.ndarray  # [U, P] PatchEffects.output_change
    recovery: np.ndarray  # [U, P] NaN where the pair decodes alike
    response: np.ndarray | None  # [U, P, L] change of every latent in standard deviations; None of codes
    pictured: np.ndarray  # [P, n] the units with the largest effects
    pictures: np.ndarray  # [P, n, H, W, C]


class Explored(NamedTuple):
    """Everything that the explorer of one model shows."""

    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    latent_names: tuple[str, ...]  # [L]
    codes: bool  # whether latents are discrete codes
    code_site: str  # the site that latents are set and swapped at
    strengths: Strengths
    moves: Moves
    pairs: PairsShown
    sites: tuple[Site, ...]  # in forward order


def explore(
    model: Architecture,
    params: PyTree,
    dataset: Dataset,
    key: jax.Array,
    sites: str = "*",
    pairs: int = 16,
    strengths: Strengths | None = None,
) -> Explored:
    """Everything that the explorer of one trained model shows.

    sites: patterns separated by commas, the sites to patch (the one that holds the codes is always there).
    pairs: counterfactual pairs drawn of each factor, of which the one whose two images differ most is shown. With
        the sites and the number of pairs of an evaluation, its compiled programs serve again.
    strengths: of the latents, where they are known (`evaluated_strengths`); None measures them.

    Raises ValueError for sites that do not exist, and where the data set admits no pair.
    """
    keys, params = jax.random.split(key, 3), inference_params(model, params)
    if strengths is None:
        strengths = measure_strengths(model, params, dataset, keys[0])
    runner = Runner(model, params, patched_sites(model, dataset, sites))
    factors, images = draw_images(dataset, keys[1], ROWS if runner.codes else STARTS, at_once=pairs)
    moves = move_latents(runner, factors, images, strengths)
    shown, x, x_source = draw_pairs(runner, dataset, keys[2], pairs)
    rows = min(pairs, default_chunk())
    return Explored(
        dataset.factor_names,
        dataset.factor_sizes,
        latent_names(runner),
        runner.codes,
        runner.code_site,
        strengths,
        moves,
        shown,
        tuple(patch_sites(runner, x, x_source, rows, strengths)),
    )


def patched_sites(model: Architecture, dataset: Dataset, sites: str) -> tuple[str, ...]:
    """The sites that the patterns name and the one that holds the codes, in forward order."""
    settings = evaluation.Settings(sites=f"{sites},{code_site(model)}")
    return evaluation.chosen_sites(settings, model, dataset)


def code_site(model: Architecture) -> str:
    """The site whose units are the latents that an explorer moves: integer codes where there are any."""
    return "latent/codes" if model.codebook else "latent/z"


# --- runs with one unit replaced -------------------------------------------------------------------------


class Runner:
    """Runs of one model in which one unit of one site is replaced, all by one compiled program."""

    def __init__(self, model: Architecture, params: PyTree, sites: tuple[str, ...]):
        self.model, self.params = model, params
        self.codes, self.code_site = model.codebook is not None, code_site(model)
        image = jax.ShapeDtypeStruct((ROWS, *model.image_shape), jnp.float32)
        self.shapes = {site: s for site, s in sites_of(model, params, image).items() if site in sites}
        self.kinds = tuple((site, make_groups(self.shapes, site).granularity) for site in self.shapes)
        self.idle = {site: jnp.zeros(shape.shape, shape.dtype) for site, shape in self.shapes.items()}

    def __call__(
        self, x: np.ndarray, site: str | None = None, unit: Any = -1, replacement: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(images [M, H, W, C], latents [M, ..., d]) of runs of x [M, H, W, C]: in row n, unit[n] of the site has
        the value that it has in replacement[n] (an activation). site None replaces nothing."""
        results = [self._block(*block) for block in self._blocks(x, site, unit, replacement)]
        images, latents = (np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*results))
        return images[: len(x)], latents[: len(x)]

    def _block(self, x, numbers, replacement):
        return _replaced_runs(self.model.forward, self.kinds, self.params, x, replacement, numbers)

    def _blocks(self, x, site, unit, replacement) -> Iterator[tuple]:
        """Blocks of ROWS rows, the last one filled up with repetitions."""
        index = np.arange(-(-len(x) // ROWS) * ROWS).reshape(-1, ROWS) % len(x)
        none = np.full(ROWS, -1, np.int32)
        for rows in index:
            numbers, values = dict.fromkeys(self.shapes, none), self.idle
            if site is not None:
                numbers = {**numbers, site: np.broadcast_to(np.asarray(unit, np.int32), (len(x),))[rows]}
                values = {**values, site: replacement[rows].astype(self.shapes[site].dtype)}
            yield np.asarray(x)[rows], numbers, values

    def latents(self, z: np.ndarray) -> np.ndarray:
        """What the explorer calls latents, [N, L]: z, the mean over positions where it has any, or its codes."""
        if self.codes:
            return np.asarray(_quantize(self.model.codebook.quantize, self.params, z)).reshape(len(z), -1)
        return z.reshape(len(z), -1, z.shape[-1]).mean(axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _replaced_runs(forward, kinds, params, x, replacement, numbers):
    """Runs of x [R, ...] in whose row n the unit numbers[site][n] of each site is replaced; -1 is none."""
    edits = {}
    for site, granularity in kinds:
        groups = Groups({site: numbers[site]}, granularity)
        mask = groups.select(site, jnp.arange(x.shape[0]), replacement[site])
        edits[site] = (patch(replacement[site], mask),)
    outputs, _ = tapped(forward, (), params, x, None, edits)
    return image_of(outputs), latents_of(outputs)


@functools.partial(jax.jit, static_argnums=0)
def _quantize(quantize, params, z):
    return quantize(params, z)


def latent_names(runner: Runner) -> tuple[str, ...]:
    """'z3', or for a code of a map its row and column, 'code 1,2'."""
    shape = runner.shapes[runner.code_site].shape[1:]
    if not runner.codes:
        return tuple(f"z{i}" for i in range(shape[-1]))
    return tuple(f"code {','.join(map(str, place))}" for place in np.ndindex(*shape))


# --- latents moved ---------------------------------------------------------------------------------------


def evaluated_strengths(found: evaluation.Evaluation | Mapping[str, Any], codes: bool) -> Strengths | None:
    """The strengths of latents, or of codes, that an evaluation found. found: it, or what results.json holds of it;
    None where that does not say."""
    measured = _as_mapping(found).get("code_effects" if codes else "latents")
    if measured is None:
        return None
    names = ("ces_l2", "ces_l2_error", "specificity_outputs", "activity", "scale")
    whole = {"activity": np.nan, "scale": 1.0} | dict(_as_mapping(measured))  # which of these codes have none
    return Strengths(*np.broadcast_arrays(*(np.array(whole[name], np.float64) for name in names)))


def _as_mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else found._asdict()


def measure_strengths(
    model: Architecture, params: PyTree, dataset: Dataset, key: jax.Array, num: int = STRENGTH_IMAGES
) -> Strengths:
    """Causal effect strength and specificity of every latent, or of every code, over `num` images."""
    _, images = dataset.sample(key, num)
    if model.codebook:
        return evaluated_strengths({"code_effects": evaluation.swap_codes(model, params, images, key)}, codes=True)
    outputs = evaluation.reconstruct(model.forward, params, images)
    scale, activity = evaluation.aggregate_scale(*outputs.posterior), model.activity(params, images)
    responses = ("l2", "outputs")
    found = interventions.perturb_latents(model, params, outputs.z, evaluation.SWEEP, key, response=responses)
    strength = metrics.effect_strength(found["l2"])
    outputs = found["outputs"].reshape(len(strength.mean), -1)
    specificity = metrics.intervention_specificity(outputs).normalized
    return Strengths(*(np.asarray(a, np.float64) for a in (*strength, specificity, activity, scale)))


def draw_images(dataset: Dataset, key: jax.Array, num: int, at_once: int) -> tuple[np.ndarray, np.ndarray]:
    """(factors [num, K], images [num, H, W, C]), drawn `at_once`: the number for which a renderer is compiled."""
    drawn = [dataset.sample(jax.random.fold_in(key, i), at_once) for i in range(-(-num // at_once))]
    factors, images = (np.concatenate([np.asarray(part) for part in parts])[:num] for parts in zip(*drawn))
    return factors, images


def move_latents(runner: Runner, factors: np.ndarray, images: np.ndarray, strengths: Strengths) -> Moves:
    """The strongest latents of the first STARTS images, each set to every value in turn. Codes are set to those in
    use in any of the images."""
    decoded, z = runner(images)
    chosen = np.argsort(-np.nan_to_num(strengths.ces), kind="stable")[:LATENTS_SHOWN]
    values, replacement = offered_values(runner, z, chosen)  # [M, V], [S, M, V, ...]
    own = runner.latents(z)[:STARTS][:, chosen]
    shape = (STARTS, *values.shape)
    row = np.repeat(np.arange(STARTS), values.size)
    unit = np.broadcast_to(chosen[None, :, None], shape).reshape(-1)
    pictures, _ = runner(images[row], runner.code_site, unit, replacement.reshape(-1, *replacement.shape[3:]))
    effect = np.asarray(image_distance(decoded[row], pictures, "l2")).reshape(shape)
    before, after = (runner.latents(runner(x)[1]) for x in (decoded[:STARTS], pictures))
    if runner.codes:
        response = (after != before[row]).astype(np.float64)
    else:
        response = np.abs(after - before[row]) / np.where(strengths.scale > 0, strengths.scale, np.nan)
    return Moves(
        factors[:STARTS],
        images[:STARTS],
        decoded[:STARTS],
        chosen,
        own,
        values,
        pictures.reshape(*shape, *pictures.shape[1:]),
        effect,
        response.reshape(*shape, -1),
    )


def offered_values(runner: Runner, z: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What latents are set to: values [M, V], and the activations [S, M, V, ...] that hold them.

    Latents take the values of SWEEP; codes the ones that are most in use in the images of z.
    """
    starts, count = STARTS, len(chosen)
    if not runner.codes:
        values = np.asarray(SWEEP.values(None, jnp.asarray(z[:starts])))  # [V, S, ..., d]
        replacement = np.broadcast_to(values.swapaxes(0, 1)[:, None], (starts, count, *values.shape[:1], *z.shape[1:]))
        return np.tile(np.linspace(SWEEP.low, SWEEP.high, SWEEP.num), (count, 1)), replacement
    values = most_used(runner.model, runner.params, runner.latents(z))[chosen]
    codes = runner.shapes[runner.code_site].shape[1:]
    filled = np.broadcast_to(values[None, :, :, *(None,) * len(codes)], (starts, *values.shape, *codes))
    return values, filled


def most_used(model: Architecture, params: PyTree, codes: np.ndarray) -> np.ndarray:
    """The codes [L, V] that are most in use in codes [N, L]: one list where all share a codebook, by usage; else
    one for each, in the order of the numbers that they stand for."""
    groups, size, _ = params["codebook"].shape
    num = min(CODES_SHOWN, size)
    if groups == 1:
        usage = np.bincount(codes.reshape(-1), minlength=size)
        return np.tile(np.argsort(-usage, kind="stable")[:num], (codes.shape[1], 1))
    lists = []
    for i in range(codes.shape[1]):
        usage = np.bincount(codes[:, i], minlength=size)
        used = np.argsort(-usage, kind="stable")[:num]
        lists.append(used[np.argsort(np.asarray(params["codebook"][i, used, 0]))])
    return np.stack(lists)


# --- codes swapped and channels patched ------------------------------------------------------------------


def draw_pairs(runner: Runner, dataset: Dataset, key: jax.Array, num: int) -> tuple[PairsShown, np.ndarray, np.ndarray]:
    """One pair of each factor, out of `num` the one whose images differ most; and its two ends [P, H, W, C].

    ValueError where no factor admits a pair.
    """
    found, reasons = [], []
    for k in range(dataset.num_factors):
        if len(found) == PAIRS_SHOWN:
            break
        try:
            pairs = interventions.counterfactuals(dataset, jax.random.fold_in(key, k), k, num)
        except ValueError as error:  # a factor with one value only, or an attribute that nearly all images share
            reasons.append(str(error))
            continue
        ends = np.stack([pairs.x, pairs.x_source], axis=1)
        best = int(np.argmax(np.square(ends[:, 0] - ends[:, 1]).reshape(num, -1).sum(axis=1)))
        found.append((k, np.stack([pairs.factors[best], pairs.factors_source[best]]), ends[best]))
    if not found:
        reason = reasons[0] if reasons else "there are no factors"
        raise ValueError(f"{dataset.name} ({dataset.source}): no factor admits a pair of images: {reason}")
    factor, factors, images = zip(*found)
    images = np.stack(images)
    decoded, _ = runner(images.reshape(-1, *images.shape[2:]))
    decoded = decoded.reshape(images.shape)
    total = np.asarray(image_distance(decoded[:, 0], decoded[:, 1], "l2"))
    attributes = dataset.factor_kind == "attributes"
    return PairsShown(factor, attributes, np.stack(factors), images, decoded, total), images[:, 0], images[:, 1]


def patch_sites(runner: Runner, x: np.ndarray, x_source: np.ndarray, rows: int, strengths: Strengths) -> Iterator[Site]:
    """Every site of the runner, with the effect of each of its units in every pair.

    rows: so many pairs are run at once, and filled up with pairs of one image with itself, in which nothing changes,
    so nothing is run: the compiled programs are those of an evaluation with as many pairs of a factor.
    """
    model, params, num = runner.model, runner.params, len(x)
    ends = (np.concatenate([end, np.repeat(x[:1], -num % rows, axis=0)]) for end in (x, x_source))
    blocks = list(zip(*(end.reshape(-1, rows, *end.shape[1:]) for end in ends)))
    sources = [base_run(model.forward, params, end, None)[0].activations for _, end in blocks]
    for site in runner.shapes:
        source = np.concatenate([run[site] for run in sources])
        effects = [interventions.patch_effects(model, params, ends, site, per_pair=True) for ends in blocks]
        effect, change, recovery, _ = (np.concatenate(parts, axis=1)[:, :num] for parts in zip(*effects))
        response = None if runner.codes else change / np.where(strengths.scale > 0, strengths.scale, np.nan)
        pictured = strongest_units(runner, site, effect)
        pair = np.repeat(np.arange(num), pictured.shape[1])
        pictures, _ = runner(x[pair], site, pictured.reshape(-1), source[pair])
        pictures = pictures.reshape(*pictured.shape, *pictures.shape[1:])
        yield Site(site, runner.shapes[site].shape[1:], effect, recovery, response, pictured, pictures)


def strongest_units(runner: Runner, site: str, effect: np.ndarray) -> np.ndarray:
    """The units [P, n] with the largest effects [U, P] in each pair: those whose pictures are kept."""
    most = PICTURES_OF_MAP if len(runner.shapes[site].shape) > 2 else PICTURES_OF_VECTOR
    most = len(effect) if site == runner.code_site else max(1, most // effect.shape[1])
    return np.argsort(-effect, axis=0, kind="stable")[:most].T


# --- as a page wants it ----------------------------------------------------------------------------------


def as_json(explored: Explored, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The explored as JSON-able data, images packed as `tiles`; about: what the page says of the model."""
    tiles = Tiles(explored.moves.images.shape[1:])
    page = {
        "about": dict(about or {}),
        "codes": explored.codes,
        "code_site": explored.code_site,
        "factors": [{"name": n, "size": s} for n, s in zip(explored.factor_names, explored.factor_sizes)],
        "latents": list(explored.latent_names),
        "strengths": {name: _numbers(value) for name, value in explored.strengths._asdict().items()},
        "moves": _moves_as_json(explored.moves, tiles),
    }
    pairs = _pairs_as_json(explored, tiles)
    page |= {"pairs": pairs, "sites": [_site_as_json(site, pairs, tiles) for site in explored.sites]}
    return page | {"tiles": tiles.pack()}


def _moves_as_json(moves: Moves, tiles: Tiles) -> dict[str, Any]:
    starts = []
    for s in range(len(moves.images)):
        base = tiles.add(moves.decoded[s])
        starts.append(
            {
                "image": tiles.add(moves.images[s]),
                "decoded": base,
                "factors": moves.factors[s].tolist(),
                "own": _numbers(moves.own[s]),
                "pictures": [_chain(tiles, pictures, base) for pictures in moves.pictures[s]],
                "effect": _numbers(moves.effect[s]),
                "response": _numbers(moves.response[s], 3),
            }
        )
    return {"latents": moves.latents.tolist(), "values": _numbers(moves.values), "starts": starts}


def _chain(tiles: Tiles, pictures: np.ndarray, base: int) -> list[int]:
    """Pictures as differences each from the one before, the first from `base`."""
    numbers = []
    for picture in pictures:
        numbers.append(tiles.add(picture, numbers[-1] if numbers else base))
    return numbers


def _pairs_as_json(explored: Explored, tiles: Tiles) -> list[dict[str, Any]]:
    shown = explored.pairs
    return [
        {
            "factor": explored.factor_names[factor],
            "observational": shown.observational,
            "values": [int(v) for v in shown.factors[p, :, factor]],
            "images": [tiles.add(image) for image in shown.images[p]],
            "decoded": [tiles.add(image) for image in shown.decoded[p]],
            "total": _numbers(shown.total[p]),
        }
        for p, factor in enumerate(shown.factor)
    ]


def _site_as_json(site: Site, pairs: list[dict[str, Any]], tiles: Tiles) -> dict[str, Any]:
    """Effects of all units [P][U]; units with a picture, and of those, in the encoder, the latents' responses."""
    pictures = [[tiles.add(x, pair["decoded"][0]) for x in site.pictures[p]] for p, pair in enumerate(pairs)]
    response = None
    if site.response is not None and np.nansum(site.response):
        response = [_numbers(site.response[units, p], 3) for p, units in enumerate(site.pictured)]
    return {
        "name": site.name,
        "shape": list(site.shape),
        "effect": _numbers(site.effect.T),
        "recovery": _numbers(site.recovery.T),
        "pictured": site.pictured.tolist(),
        "pictures": pictures,
        "response": response,
    }


def _numbers(values: Any, digits: int = 4) -> Any:
    """Numbers with so many significant digits, nested as the array is; None where undefined."""
    values = np.asarray(values, np.float64)
    rounded = [float(f"{value:.{digits}g}") for value in values.ravel()]
    return finite(np.reshape(rounded, values.shape).tolist())


# --- in a notebook ---------------------------------------------------------------------------------------


def widget(model: Architecture, params: PyTree, dataset: Dataset, key: jax.Array | None = None):
    """The explorer as ipywidgets, everything computed as it is moved: an `ipywidgets.Tab`.

    Raises ImportError, saying how to install it, where ipywidgets is absent.
    """
    from experiments.explorer import widget

    return widget.build(model, params, dataset, jax.random.key(0) if key is None else key)
