"""Everything that is measured of one trained member: reconstruction, codes, four levels of intervention, metrics.

`evaluate` returns an `Evaluation`: scores with their circumstances, results per latent and per factor, and the
arrays that figures are drawn from. All randomness comes from the settings' seed, so that the same parameters
always give the same results.
"""

from __future__ import annotations

import fnmatch
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import interventions, metrics, objectives
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset
from causalvae.metrics import Score
from causalvae.sites import check_site, no_tap, site_shapes

PyTree = Any
BATCH = 250  # images encoded at once; divides the published sample sizes
SHOWN = 16  # images in the figure of reconstructions
SWEEP = interventions.Sweep(-3.0, 3.0, 7)
RESAMPLE = interventions.Resample(7)


class Settings(NamedTuple):
    """Sample sizes and choices of an evaluation; `configs/common.py` says what each is for."""

    codes: int = 10_000
    test_codes: int = 5_000
    votes: int = 10_000
    images: int = 256
    pairs: int = 256
    effects: int = 1024
    active_threshold: float = 0.01
    sites: str = "*"
    metrics: str = "all"
    dci_estimator: str = "xla"
    seed: int = 0


class Codes(NamedTuple):
    """What the encoder says of a sample of images, one row per image."""

    factors: jax.Array  # [N, K]
    codes: jax.Array  # [N, d] the vector that disentanglement metrics score
    mean: jax.Array  # [N, d]
    log_variance: jax.Array  # [N, d]
    negative_log_likelihood: jax.Array  # [N] nats, decoded from the posterior mean
    squared_error: jax.Array  # [N] mean over pixels


class Latents(NamedTuple):
    """What was measured of each latent; [d] each."""

    kl: jax.Array  # nats
    active: jax.Array  # bool
    scale: jax.Array  # s_i, the aggregate posterior's standard deviation
    ces_l2: jax.Array  # Sweep
    ces_l2_error: jax.Array  # standard error over images
    ces_rms: jax.Array
    ces_resample_l2: jax.Array  # Resample
    ces_resample_rms: jax.Array
    specificity_outputs: jax.Array  # normalised, [0, 1]
    specificity_factors: jax.Array
    specificity_latents: jax.Array


class Patching(NamedTuple):
    """Interchange of every unit of every site between counterfactual pairs of each factor."""

    sites: tuple[str, ...]
    largest: np.ndarray  # [sites, K] the largest recovery that any one unit reaches
    concentration: np.ndarray  # [sites, K] 1 - normalised entropy of positive recoveries over units


class Mediated(NamedTuple):
    """Mediation by each latent, per factor: mean and 95 % bootstrap interval over pairs."""

    effects: tuple[str, ...]  # indirect, direct, interaction
    estimate: np.ndarray  # [K, d, effects] in units of the total effect
    low: np.ndarray
    high: np.ndarray


class Evaluation(NamedTuple):
    """Everything measured of one member."""

    scores: list[Score]
    latents: Latents
    factor_effects: np.ndarray | None  # R [K, d]; None where the set has no generative factors
    patching: Patching | None
    mediation: Mediated | None
    images: np.ndarray  # [SHOWN, H, W, C]
    reconstructed: np.ndarray  # [SHOWN, H, W, C]
    traversals: np.ndarray  # [d, V, H, W, C] of one image


def evaluate(
    model: Architecture, params: PyTree, dataset: Dataset, settings: Settings, seed: int = 0
) -> Evaluation:
    """Measure one member. seed: of its training, for the untrained network that modularity is compared with."""
    key = functools.partial(jax.random.fold_in, jax.random.key(settings.seed))
    train = collect_codes(model, params, dataset, key(0), settings.codes)
    test = collect_codes(model, params, dataset, key(1), settings.test_codes)
    images = dataset.sample(key(2), max(settings.images, SHOWN))[1]
    untrained = jax.jit(model.init)(jax.random.key(seed))
    perturbed = perturb(model, params, untrained, images[: settings.images], train, settings, key(3))
    generative = dataset.factor_kind == "generative"
    effects = (
        factor_effects(model, params, untrained, dataset, settings, perturbed.scale, key(4)) if generative else None
    )
    pairs = all_pairs(dataset, key(5), settings.pairs) if generative else None
    latents = summarise_latents(perturbed, effects)
    outputs = reconstruct(model.forward, params, images[:SHOWN])
    return Evaluation(
        scores=[
            *reconstruction_scores(dataset, train, key(6)),
            *latent_scores(latents, train, settings),
            *modularity_scores(perturbed, effects, latents.active, key(7)),
            *disentanglement_scores(dataset, train, test, settings),
        ],
        latents=latents,
        factor_effects=None if effects is None else np.asarray(effects.latents),
        patching=patch_all(model, params, pairs, dataset, settings) if generative else None,
        mediation=mediate_latents(model, params, pairs, dataset, key(8)) if generative else None,
        images=np.asarray(images[:SHOWN]),
        reconstructed=np.asarray(outputs.image),
        traversals=traverse(model, params, outputs.z[:1]),
    )


# --- codes and reconstruction ----------------------------------------------------------------------------


def collect_codes(model: Architecture, params: PyTree, dataset: Dataset, key: jax.Array, num: int) -> Codes:
    """`num` images drawn, encoded and decoded from their posterior means, a batch at a time."""
    batch = min(BATCH, num)
    batches = -(-num // batch)
    codes = _collect(model.forward, model.represent, batch, batches, params, dataset, key)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num], codes)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _collect(forward, represent, batch, batches, params, dataset, key):
    def one(i):
        factors, images = dataset.sample(jax.random.fold_in(key, i), batch)
        outputs = forward(params, images, None, no_tap)
        return Codes(
            factors,
            represent(params, images),
            *outputs.posterior,
            objectives.bernoulli_negative_log_likelihood(outputs.logits, images),
            objectives.squared_error(outputs.image, images),
        )

    return jax.lax.map(one, jnp.arange(batches))


@functools.partial(jax.jit, static_argnums=0)
def reconstruct(forward, params, images):
    """The forward pass from posterior means."""
    return forward(params, images, None, no_tap)


def reconstruction_scores(dataset: Dataset, codes: Codes, key: jax.Array) -> list[Score]:
    """Reconstruction in nats and mean squared error, with the mean image's error as its null."""
    samples = {"images": len(codes.codes)}
    baseline = float(mean_image_error(dataset, key))
    likelihood, error = codes.negative_log_likelihood, codes.squared_error
    return [
        metrics.score("reconstruction", jnp.mean(likelihood), standard_error=_error(likelihood),
                      estimator="Bernoulli nats per image, from posterior means", samples=samples),
        metrics.score("mean_squared_error", jnp.mean(error), standard_error=_error(error), null=baseline, ceiling=0.0,
                      estimator="per pixel, from posterior means; null: the mean image", samples=samples),
    ]  # fmt: skip


@jax.jit
def mean_image_error(dataset: Dataset, key: jax.Array) -> jax.Array:
    """Mean squared error per pixel of always answering the mean image: the variance of pixels over images."""
    return jnp.mean(jnp.var(dataset.sample(key, 1000)[1], axis=0))


def _error(values: jax.Array) -> float:
    return float(jnp.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


# --- latent perturbation ---------------------------------------------------------------------------------


class Perturbed(NamedTuple):
    """Latent perturbations of one batch, of the trained and of the untrained network."""

    kl: jax.Array  # [d]
    active: jax.Array  # [d]
    scale: jax.Array  # [d]
    sweep: dict[str, Any]  # response -> result, see interventions.perturb_latents
    resample: dict[str, Any]
    untrained: dict[str, Any]


RESPONSES = ("l2", "rms", "outputs", "latents", "sites")


def perturb(model, params, untrained, images, codes: Codes, settings: Settings, key) -> Perturbed:
    """Every latent set by Sweep and by Resample: distances, responses of outputs, latents and decoder sites."""
    kl = metrics.kl_per_latent(codes.mean, codes.log_variance)
    active = kl > settings.active_threshold
    scale = aggregate_scale(codes.mean, codes.log_variance)
    z = reconstruct(model.forward, params, images).z
    z_untrained = reconstruct(model.forward, untrained, images).z

    def responses(params, z, perturbation):
        return interventions.perturb_latents((model, params), z, perturbation, key, response=RESPONSES, scale=scale)

    return Perturbed(
        kl,
        active,
        scale,
        responses(params, z, SWEEP),
        responses(params, z, RESAMPLE),
        responses(untrained, z_untrained, SWEEP),
    )


def aggregate_scale(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """s_i [d]: s_i^2 = Var_x mean_i + E_x variance_i, the aggregate posterior's standard deviation."""
    return jnp.sqrt(jnp.var(mean, axis=0) + jnp.mean(jnp.exp(log_variance), axis=0))


def summarise_latents(perturbed: Perturbed, effects: FactorEffects | None) -> Latents:
    """Per latent: strength under both families, and specificity over outputs, factors and latents."""
    sweep, resample = perturbed.sweep, perturbed.resample
    strength = metrics.effect_strength(sweep["l2"])
    undefined = jnp.full(perturbed.kl.shape, jnp.nan)

    def specificity(effects):
        return metrics.intervention_specificity(effects).normalised

    return Latents(
        kl=perturbed.kl,
        active=perturbed.active,
        scale=perturbed.scale,
        ces_l2=strength.mean,
        ces_l2_error=strength.standard_error,
        ces_rms=metrics.effect_strength(sweep["rms"]).mean,
        ces_resample_l2=metrics.effect_strength(resample["l2"]).mean,
        ces_resample_rms=metrics.effect_strength(resample["rms"]).mean,
        specificity_outputs=specificity(sweep["outputs"].reshape(len(strength.mean), -1)),
        specificity_factors=undefined if effects is None else specificity(effects.latents.T),
        specificity_latents=specificity(sweep["latents"]) if len(strength.mean) > 1 else undefined,
    )


def latent_scores(latents: Latents, codes: Codes, settings: Settings) -> list[Score]:
    """Means over active latents of what was measured per latent."""
    samples = {"images": settings.images, "values": SWEEP.num}
    active, count = latents.active, int(jnp.sum(latents.active))
    size = len(latents.kl)
    masked = {"active": count, "latents": size, "threshold": settings.active_threshold}
    scores = [
        Score("kl", float(jnp.sum(latents.kl)), estimator="nats per image, summed over latents", samples={"images": len(codes.codes)}),
        Score("active_latents", float(count), ceiling=float(size), estimator=f"KL > {settings.active_threshold} nats",
              samples={"images": len(codes.codes)}),
    ]  # fmt: skip
    named = {
        "ces_l2": "mean over active latents, Sweep(-3, 3, 7); paper's distance",
        "ces_rms": "mean over active latents, Sweep(-3, 3, 7); per pixel value",
        "ces_resample_l2": "mean over active latents, Resample(7)",
        "ces_resample_rms": "mean over active latents, Resample(7); per pixel value",
        "specificity_outputs": "1 - H/log K over output values, mean over active latents",
        "specificity_factors": "1 - H/log K over factors, mean over active latents",
        "specificity_latents": "1 - H/log K over latents encoded again, mean over active latents",
    }
    for name, estimator in named.items():
        mean = metrics.mean_over(getattr(latents, name), active)
        ceiling = 1.0 if name.startswith("specificity") else None
        note = "no active latent with a defined value" if int(mean.count) == 0 else ""
        settings_of = {**masked, "averaged": int(mean.count)}
        scores.append(
            metrics.score(
                name,
                mean.mean,
                estimator=estimator,
                samples=samples,
                settings=settings_of,
                ceiling=ceiling,
                note=note,
            )
        )
    return scores


def traverse(model: Architecture, params: PyTree, z: jax.Array) -> np.ndarray:
    """Images [d, V, H, W, C] of one point z [1, ..., d] with each latent set to each of the sweep's values."""
    values = SWEEP.values(None, z, None)  # [V, 1, ..., d]
    d = z.shape[-1]
    is_set = jnp.eye(d, dtype=bool).reshape(d, 1, *(1,) * (z.ndim - 2), d)
    points = jnp.where(is_set, values[None, :, 0], jnp.broadcast_to(z[None], (d, len(values), *z.shape[1:])))
    images = jax.nn.sigmoid(jax.jit(model.decode)(params, points.reshape(-1, *z.shape[1:])))
    return np.asarray(images).reshape(d, len(values), *images.shape[1:])


# --- input manipulation and modularity -------------------------------------------------------------------


class FactorEffects(NamedTuple):
    """What setting each factor does to latents [K, d], and to units of encoder sites, trained and untrained."""

    latents: jax.Array
    sites: dict[str, jax.Array]  # site -> [K, units]
    untrained: dict[str, jax.Array]


def factor_effects(model, params, untrained, dataset, settings: Settings, scale, key) -> FactorEffects:
    """do(factor := v) for every factor and value: R and the encoder's responses."""
    units = functools.partial(interventions.factor_unit_effects, model, dataset=dataset, key=key, capture="encoder/*")
    num = settings.effects
    return FactorEffects(
        interventions.factor_latent_effects((model, params), dataset, key, num, scale),
        units(params, num=num),
        units(untrained, num=num),
    )


def modularity_scores(perturbed: Perturbed, effects: FactorEffects | None, active, key) -> list[Score]:
    """Circuit modularity of decoder sites (latents as causes) and encoder sites (factors as causes), with both
    nulls: units permuted, and the untrained network."""
    decoder = metrics.modularity_over_sites(key, perturbed.sweep["sites"], active, perturbed.untrained["sites"])
    scores = [_modularity("circuit_modularity_decoder", decoder, "active latents", "fewer than two active latents")]
    if effects is not None:
        encoder = metrics.modularity_over_sites(key, effects.sites, None, effects.untrained)
        scores.append(
            _modularity("circuit_modularity_encoder", encoder, "factors", "fewer than two factors have effects")
        )
    return scores


def _modularity(name: str, found: metrics.SiteModularity, causes: str, reason: str) -> Score:
    permuted = metrics.mean_over(jnp.stack(list(found.permuted.values()))).mean
    untrained = metrics.mean_over(jnp.stack(list(found.untrained.values()))).mean
    sites = {site: _number(value) for site, value in found.sites.items()}
    return metrics.score(
        name,
        found.mean,
        estimator=f"1 - mean |Pearson| between {causes}, mean over sites; null: units permuted",
        settings={"sites": sites, "null_permuted": _number(permuted), "null_untrained": _number(untrained)},
        null=_number(permuted),
        ceiling=1.0,
        note=reason if np.isnan(float(found.mean)) else "",
    )


def _number(value) -> float | None:
    return float(value) if np.isfinite(float(value)) else None


# --- patching and mediation ------------------------------------------------------------------------------


def all_pairs(dataset: Dataset, key: jax.Array, num: int) -> interventions.Pairs:
    """Counterfactual pairs of every factor, `num` each, end to end in factor order."""
    each = [
        interventions.counterfactuals(dataset, jax.random.fold_in(key, k), k, num) for k in range(dataset.num_factors)
    ]
    joined = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *[pairs.replace(factor=0) for pairs in each])
    return joined


def chosen_sites(settings: Settings, model: Architecture, dataset: Dataset) -> tuple[str, ...]:
    """The sites that the settings' patterns name, in forward order; ValueError for a pattern without a site."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    shapes = site_shapes(model, params, jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32))
    patterns = [pattern.strip() for pattern in settings.sites.split(",")]
    for pattern in patterns:
        if not fnmatch.filter(shapes, pattern):
            check_site(pattern, shapes)
    return tuple(site for site in shapes if any(fnmatch.fnmatchcase(site, pattern) for pattern in patterns))


def patch_all(model, params, pairs, dataset: Dataset, settings: Settings) -> Patching:
    """Every unit of every chosen site, interchanged between the pairs of every factor."""
    found = chosen_sites(settings, model, dataset)
    rows = []
    for site in found:
        effects = interventions.patch_effects(model, params, pairs.x, pairs.x_source, site, per_pair=True)
        recovery = np.asarray(effects.recovery).reshape(-1, dataset.num_factors, settings.pairs)
        rows.append(_nan_mean(recovery, axis=2))  # [units, K]
    return Patching(
        found,
        np.stack([r.max(axis=0) for r in rows]),
        np.stack([_concentration(np.maximum(r, 0)) for r in rows]),
    )


def _concentration(weights: np.ndarray) -> np.ndarray:
    """1 - normalised entropy over units of weights [units, K]: 1 where one unit carries all, [K]."""
    if len(weights) == 1:
        return np.ones(weights.shape[1])
    return np.asarray(metrics.intervention_specificity(weights.T).normalised)


def mediate_latents(model, params, pairs, dataset: Dataset, key) -> Mediated:
    """Each latent as the mediator of each factor's effect on the image, in units of the total effect."""
    found = interventions.mediate(model, params, pairs, "latent/z")
    names = ("indirect", "direct", "interaction")
    rows = []
    for k in range(dataset.num_factors):
        num = len(found.total) // dataset.num_factors
        part = jax.tree.map(lambda a, k=k, n=num: a[..., k * n : (k + 1) * n], found)
        summary = interventions.summarise(part, jax.random.fold_in(key, k))
        rows.append([getattr(summary, name) for name in names])

    def collect(field):
        return np.stack([np.stack([np.asarray(getattr(e, field)) for e in row], axis=-1) for row in rows])

    return Mediated(names, collect("mean"), collect("low"), collect("high"))


def _nan_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """nanmean that answers 0 where nothing is defined: a pair that decodes alike has nothing to recover."""
    defined = np.isfinite(values)
    return np.where(defined, values, 0.0).sum(axis=axis) / np.maximum(defined.sum(axis=axis), 1)


# --- disentanglement -------------------------------------------------------------------------------------


def disentanglement_scores(dataset: Dataset, train: Codes, test: Codes, settings: Settings) -> list[Score]:
    """The field's metrics on the codes, or one undefined record that says why there are none."""
    if dataset.factor_kind != "generative":
        reason = f"undefined: {dataset.name} ({dataset.source}) has attributes, not generative factors"
        return [Score("disentanglement", None, note=reason)]
    codes = np.concatenate([np.asarray(train.codes), np.asarray(test.codes)])
    factors = np.concatenate([np.asarray(train.factors), np.asarray(test.factors)])
    return metrics.evaluate_codes(
        codes,
        factors,
        metrics=settings.metrics,
        num_train=len(train.codes),
        num_test=len(test.codes),
        votes=settings.votes,
        dci_estimator=settings.dci_estimator,
        seed=settings.seed,
        shuffle=False,
    )


def metric_names() -> tuple[str, ...]:
    """The names of the disentanglement metrics."""
    return tuple(metrics.METRICS)


# --- checks, records, table ------------------------------------------------------------------------------


def check_settings(settings: Settings, model: Architecture, dataset: Dataset) -> None:
    """ValueError for sizes below what an evaluation needs, sites or metrics that do not exist."""
    least = {"codes": 20, "test_codes": 10, "votes": 1, "images": 2, "pairs": 1, "effects": 2}
    for name, minimum in least.items():
        if getattr(settings, name) < minimum:
            raise ValueError(f"evaluation.{name} must be at least {minimum}, not {getattr(settings, name)}")
    chosen_sites(settings, model, dataset)
    metrics.check_names(settings.metrics)


def record(found: Evaluation) -> dict[str, Any]:
    """What results.json holds of a member: everything but the images."""
    left_out = ("images", "reconstructed", "traversals", "scores")
    rest = {name: value for name, value in found._asdict().items() if name not in left_out}
    return {"scores": [score._asdict() for score in found.scores], **rest}


def table(results: dict[str, Any]) -> str:
    """The scores of every member as text: one column per member, null and ceiling beside them."""
    members = results["members"]
    header = ["score", *(f"seed {m['seed']}" for m in members), "null", "ceiling", "how"]
    rows = [header]
    for i, first in enumerate(members[0]["scores"]):
        values = [_cell(m["scores"][i]) for m in members]
        rows.append(
            [
                first["name"],
                *values,
                _short(first["null"]),
                _short(first["ceiling"]),
                first["estimator"] or first["note"],
            ]
        )
    widths = [max(len(str(row[c])) for row in rows) for c in range(len(header) - 1)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths)), row[-1]]).rstrip() for row in rows]
    data = results["data"]
    title = f"{results['architecture']['name']} on {data['name']} ({data['source']}), {results['training']['steps']:,} steps"
    return "\n".join([title, "", lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(score: dict[str, Any]) -> str:
    error = "" if score["standard_error"] is None else f" ± {_short(score['standard_error'])}"
    return _short(score["value"]) + error


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 or float(value).is_integer() and abs(value) > 1 else f"{value:.3g}"
