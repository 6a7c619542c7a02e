"""Everything that is measured of one trained member: reconstruction, codes, four levels of intervention, metrics.

`evaluate` returns an `Evaluation`: scores with their circumstances, results per latent and per factor, and the
arrays that figures are drawn from. All randomness comes from the settings' seed, so that the same parameters
always give the same results.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causalvae import circuits, interventions, metrics, objectives, vector_quantization
from causalvae.architectures import Architecture, inference_params
from causalvae.data.base import Dataset
from causalvae.metrics import Score
from causalvae.metrics.causal import exceeds
from causalvae.sites import check_site, no_tap, site_shapes, tapped

PyTree = Any
BATCH = 250  # images encoded at once; divides the published sample sizes
TC_POINTS = 512  # samples at which the densities of the total correlation's bounds are compared
SHOWN = 16  # images in the figure of reconstructions
CIRCUIT_THRESHOLD = 0.9  # of the total effect
SWEEP = interventions.Sweep(-3.0, 3.0, 7)
RESAMPLE = interventions.Resample(7)
# What else strength is measured under, by the name that a column of a study's table has after `ces`: finding (i) is
# read under each of them, since it depends on the choice.
FAMILIES = {
    "_resample": RESAMPLE,
    "_sweep2": interventions.Sweep(-2.0, 2.0, 7),
    "_prior": interventions.Prior(7),
    "_shift1": interventions.Shift(1.0),
}


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
    mean: jax.Array  # [N, ..., d] at site latent/z
    log_variance: jax.Array  # [N, ..., d]; -inf for a point mass
    activity: jax.Array  # [N, d] of the image's batch: KL in nats, or what stands in (Architecture.activity)
    negative_log_likelihood: jax.Array  # [N] nats, decoded from the posterior mean
    squared_error: jax.Array  # [N] mean over pixels
    image_mean: jax.Array  # [batches, H, W, C] of each batch
    image_square: jax.Array  # [batches, H, W, C] mean of the squared pixels of each batch


class Latents(NamedTuple):
    """What was measured of each latent; [d] each."""

    activity: jax.Array  # mean KL in nats; of discrete codes what stands in for it, see Architecture.activity
    active: jax.Array  # bool, activity above the threshold
    scale: jax.Array  # s_i, the aggregate posterior's standard deviation
    ces_l2: jax.Array  # Sweep
    ces_l2_error: jax.Array  # standard error over images
    ces_rms: jax.Array
    ces_resample_l2: jax.Array  # Resample
    ces_resample_l2_error: jax.Array  # standard error over images, as what is changed and as where values come from
    ces_resample_rms: jax.Array
    specificity_outputs: jax.Array  # of the latent's effects on output values; normalized, [0, 1]
    specificity_to_factors: jax.Array  # of the factors' effects on the latent
    specificity_latents: jax.Array  # of the latent's effects on all latents
    specificity_outputs_reported: jax.Array  # the paper's form, 1 / (H + eps)
    specificity_to_factors_reported: jax.Array
    specificity_latents_reported: jax.Array


class CodeEffects(NamedTuple):
    """What swapping the code of each position for another in use does, CodeSwap(7); [L] each."""

    ces_l2: jax.Array
    ces_l2_error: jax.Array  # standard error over images, as what is changed and as where codes come from
    ces_rms: jax.Array
    ces_rms_error: jax.Array
    ces_l2_mean_error: jax.Array  # [], of the mean over positions
    ces_rms_mean_error: jax.Array
    specificity_outputs: jax.Array  # normalized, [0, 1]


class Patching(NamedTuple):
    """Interchange of every unit of every site between counterfactual pairs of each factor."""

    sites: tuple[str, ...]
    largest: np.ndarray  # [sites, K] the largest recovery that any one unit reaches
    concentration: np.ndarray  # [sites, K] 1 - normalized entropy of positive recoveries over units
    left_out: np.ndarray  # [K] pairs that are decoded alike, of which nothing can be recovered


class Mediated(NamedTuple):
    """Mediation by each latent, per factor: ratios of sums over pairs, with 95 % bootstrap intervals."""

    effects: tuple[str, ...]  # indirect, direct, interaction
    estimate: np.ndarray  # [K, d, effects] in units of the total effect
    low: np.ndarray
    high: np.ndarray
    left_out: np.ndarray  # [K] pairs that are decoded alike


class Evaluation(NamedTuple):
    """Everything measured of one member."""

    scores: list[Score]
    latents: Latents
    code_effects: CodeEffects | None  # of discrete codes
    strengths: dict[str, float | None]  # `ces[_<family>]_<distance>[_all]`: means over active, or over all latents
    factor_effects: np.ndarray | None  # R [K, d]; None where the set has no generative factors
    patching: Patching | None
    mediation: Mediated | None
    circuits: dict[str, circuits.Circuit | None] | None  # factor -> its smallest set of latents; None: no effect
    images: np.ndarray  # [up to SHOWN, H, W, C]
    reconstructed: np.ndarray  # of these images
    traversals: np.ndarray  # [d, V, H, W, C] of one image


def evaluate(
    model: Architecture, params: PyTree, untrained: PyTree, dataset: Dataset, settings: Settings
) -> Evaluation:
    """Measure one member. untrained: its parameters before training, which modularity is compared with."""
    key = functools.partial(jax.random.fold_in, jax.random.key(settings.seed))
    params, untrained = inference_params(model, params), inference_params(model, untrained)
    train = collect_codes(model, params, dataset, key(0), settings.codes)
    test = collect_codes(model, params, dataset, key(1), settings.test_codes)
    _, images = dataset.sample(key(2), settings.images)
    outputs = reconstruct(model.forward, params, images)
    z, z_untrained = outputs.z, reconstruct(model.forward, untrained, images).z
    perturbed = perturb(model, (params, z), (untrained, z_untrained), train, settings, key(3))
    generative = dataset.factor_kind == "generative"
    effects = (
        factor_effects(model, params, untrained, dataset, settings, perturbed.scale, key(4)) if generative else None
    )
    pairs = factor_pairs(dataset, key(5), settings.pairs) if generative else None
    latents = summarize_latents(perturbed, effects)
    swapped = None if model.codebook is None else swap_codes(model, params, images, key(9))
    wiring = latent_circuits(model, params, pairs, dataset) if generative else None
    return Evaluation(
        scores=[
            *reconstruction_scores(train),
            rate_score(model, params, latents, train),
            *latent_scores(model, latents, train, settings),
            *code_scores(model, params, train, swapped, settings),
            *total_correlation_score(model, train, key(10)),
            *modularity_scores(perturbed, effects, latents.active, key(7)),
            *circuit_scores(wiring, settings),
            *disentanglement_scores(dataset, train, test, settings),
        ],
        latents=latents,
        code_effects=swapped,
        strengths=strengths(perturbed),
        factor_effects=None if effects is None else np.asarray(effects.latents),
        patching=patch_all(model, params, pairs, dataset, settings) if generative else None,
        mediation=mediate_latents(model, params, pairs, key(8)) if generative else None,
        circuits=wiring,
        images=np.asarray(images[:SHOWN]),
        reconstructed=np.asarray(outputs.image[:SHOWN]),
        traversals=traverse(model, params, outputs.z[:1]),
    )


# --- codes and reconstruction ----------------------------------------------------------------------------


def collect_codes(model: Architecture, params: PyTree, dataset: Dataset, key: jax.Array, num: int) -> Codes:
    """`num` images drawn, encoded and decoded from their posterior means, a batch at a time."""
    batch = min(BATCH, num)
    batches = -(-num // batch)
    functions = model.forward, model.represent, model.activity
    return _collect(functions, batch, batches, num, params, dataset, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _collect(functions, batch, batches, num, params, dataset, key):
    forward, represent, activity = functions

    def one(i):
        factors, images = dataset.sample(jax.random.fold_in(key, i), batch)
        outputs = forward(params, images, None, no_tap)
        return Codes(
            factors,
            represent(params, images),
            *outputs.posterior,
            jnp.broadcast_to(activity(params, images), (batch, outputs.z.shape[-1])),
            objectives.bernoulli_negative_log_likelihood(outputs.logits, images),
            objectives.squared_error(outputs.image, images),
            jnp.mean(images, axis=0),
            jnp.mean(images**2, axis=0),
        )

    codes = jax.lax.map(one, jnp.arange(batches))
    rows = {name: getattr(codes, name) for name in Codes._fields if not name.startswith("image")}
    return codes._replace(**jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num], rows))


@functools.partial(jax.jit, static_argnums=0)
def reconstruct(forward, params, images):
    """The forward pass from posterior means."""
    return forward(params, images, None, no_tap)


def reconstruction_scores(codes: Codes) -> list[Score]:
    """Reconstruction in nats and mean squared error, with the mean image's error as its null."""
    samples = {"images": len(codes.codes)}
    baseline = float(mean_image_error(codes))
    likelihood, error = np.asarray(codes.negative_log_likelihood), np.asarray(codes.squared_error)
    return [
        metrics.score("reconstruction", np.mean(likelihood), standard_error=_error(likelihood),
                      estimator="Bernoulli nats per image, from posterior means", samples=samples),
        metrics.score("mean_squared_error", np.mean(error), standard_error=_error(error), null=baseline, ceiling=0.0,
                      estimator="per pixel, from posterior means; null: the mean image", samples=samples),
    ]  # fmt: skip


@jax.jit
def mean_image_error(codes: Codes) -> jax.Array:
    """Mean squared error per pixel of always answering the mean image: the variance of pixels over images."""
    mean = jnp.mean(codes.image_mean, axis=0)
    return jnp.mean(jnp.mean(codes.image_square, axis=0) - mean**2)


def _error(values: np.ndarray) -> float | None:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


# --- latent perturbation ---------------------------------------------------------------------------------


class Perturbed(NamedTuple):
    """Latent perturbations of one batch, of the trained and of the untrained network."""

    activity: jax.Array  # [d]
    active: jax.Array  # [d]
    scale: jax.Array  # [d]
    sweep: dict[str, Any]  # response -> result, see interventions.perturb_latents
    families: dict[str, dict[str, jax.Array]]  # of FAMILIES: distance -> [d, V, N]
    sources: jax.Array  # [V, N] the image that each value of RESAMPLE is taken from
    untrained: dict[str, Any]


DISTANCES = ("l2", "rms", "bernoulli_kl")
RESPONSES = (*DISTANCES, "outputs", "latents", "sites")


class Families(NamedTuple):
    """The perturbations of FAMILIES, their values one after the other: one sweep measures them all."""

    def values(self, key: jax.Array, z: jax.Array, scale: jax.Array) -> jax.Array:
        return jnp.concatenate([family.values(key, z, scale) for family in FAMILIES.values()])

    @staticmethod
    def split(distances: jax.Array) -> dict[str, jax.Array]:
        """family -> its part of [d, V, N]."""
        counts = [getattr(family, "num", 1) for family in FAMILIES.values()]
        return dict(zip(FAMILIES, jnp.split(distances, np.cumsum(counts)[:-1], axis=1), strict=True))


def perturb(model, trained, untrained, codes: Codes, settings: Settings, key) -> Perturbed:
    """Every latent set by the sweep: distances, responses of outputs, latents and decoder sites. Set by the other
    families: distances.

    trained, untrained: (parameters, latents of the base images)."""
    scale = aggregate_scale(codes.mean, codes.log_variance)

    def responses(params, z, perturbation, response=RESPONSES):
        return interventions.perturb_latents((model, params), z, perturbation, key, response=response, scale=scale)

    others = {name: Families.split(found) for name, found in responses(*trained, Families(), DISTANCES).items()}

    return Perturbed(
        jnp.mean(codes.activity, axis=0),
        is_active(codes, settings),
        scale,
        responses(*trained, SWEEP),
        {family: {name: others[name][family] for name in DISTANCES} for family in FAMILIES},
        RESAMPLE.sources(key, trained[1]),
        responses(*untrained, SWEEP),
    )


def is_active(codes: Codes, settings: Settings) -> jax.Array:
    """Which latents [d] bool are active; one whose activity is the threshold's but for a last bit is not."""
    return exceeds(jnp.mean(codes.activity, axis=0), settings.active_threshold)


@jax.jit
def aggregate_scale(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """s_i [d] of [N, ..., d]: s_i^2 = Var mean_i + E variance_i, the aggregate posterior's standard deviation."""
    rows = tuple(range(mean.ndim - 1))
    return jnp.sqrt(jnp.var(mean, axis=rows) + jnp.mean(jnp.exp(log_variance), axis=rows))


def summarize_latents(perturbed: Perturbed, effects: FactorEffects | None) -> Latents:
    """Per latent: strength under both families, and specificity of its effects on outputs and latents, and of the
    factors' effects on it."""
    sweep, resample = perturbed.sweep, perturbed.families["_resample"]
    strength = metrics.effect_strength(sweep["l2"])
    resampled = metrics.effect_strength(resample["l2"], perturbed.sources)
    undefined = jnp.full(perturbed.activity.shape, jnp.nan)

    categories = {
        "outputs": sweep["outputs"].reshape(len(strength.mean), -1),
        "to_factors": None if effects is None else effects.latents.T,
        "latents": sweep["latents"] if len(strength.mean) > 1 else None,
    }
    specificity = {}
    for name, effect in categories.items():
        found = (undefined, undefined) if effect is None else metrics.intervention_specificity(effect)
        specificity[f"specificity_{name}_reported"], specificity[f"specificity_{name}"] = found
    return Latents(
        activity=perturbed.activity,
        active=perturbed.active,
        scale=perturbed.scale,
        ces_l2=strength.mean,
        ces_l2_error=strength.standard_error,
        ces_rms=metrics.effect_strength(sweep["rms"]).mean,
        ces_resample_l2=resampled.mean,
        ces_resample_l2_error=resampled.standard_error,
        ces_resample_rms=metrics.effect_strength(resample["rms"]).mean,
        **specificity,
    )


def strengths(perturbed: Perturbed) -> dict[str, float | None]:
    """Causal effect strength under every family and distance, averaged over active and over all latents; None where
    no latent is active."""
    found = {}
    for family, distances in {"": perturbed.sweep, **perturbed.families}.items():
        for name in DISTANCES:
            each = metrics.effect_strength(distances[name]).mean
            found[f"ces{family}_{name}"] = _number(metrics.mean_over(each, perturbed.active).mean)
            found[f"ces{family}_{name}_all"] = _number(jnp.mean(each))
    return found


# Score name -> how it is averaged; the ones from 0 to 1 have 1 as their ceiling.
LATENT_SCORES = {
    "ces_l2": "Sweep(-3, 3, 7), l2 of a whole image (the paper's distance); mean over active latents",
    "ces_rms": "Sweep(-3, 3, 7), per pixel value; mean over active latents",
    "ces_resample_l2": "Resample(7), l2 of a whole image; mean over active latents",
    "ces_resample_rms": "Resample(7), per pixel value; mean over active latents",
    "specificity_outputs": "1 - H/log K of effects on output values; mean over active latents",
    "specificity_to_factors": "1 - H/log K of the factors' effects on a latent; mean over active latents",
    "specificity_latents": "1 - H/log K of effects on latents, decoded and encoded again; mean over active latents",
    "specificity_outputs_reported": "1/(H + 1e-6), the paper's form, unbounded; mean over active latents",
    "specificity_to_factors_reported": "1/(H + 1e-6), the paper's form, unbounded; mean over active latents",
    "specificity_latents_reported": "1/(H + 1e-6), the paper's form, unbounded; mean over active latents",
}


def rate_score(model: Architecture, params: PyTree, latents: Latents, codes: Codes) -> Score:
    """The rate E_x KL(q(z|x) || p(z)): of discrete codes, which an image determines, with their usage as the prior."""
    samples = {"images": len(codes.codes)}
    if model.codebook is None:
        return metrics.score(
            "kl", jnp.sum(latents.activity), estimator="nats per image, summed over latents", samples=samples
        )
    usage = code_usage(model, params, codes)
    positions = codes.mean[0, ..., 0].size if codes.mean.ndim > 2 else 1  # of a map of codes that share a codebook
    return Score(
        "kl",
        float(positions * jnp.sum(vector_quantization.usage_entropy(usage))),
        estimator="nats per image, entropy of the codes' usage, summed over positions",
        samples=samples,
        settings={"uniform_prior": positions * len(usage) * float(np.log(model.codebook.num_codes))},
    )


def code_usage(model: Architecture, params: PyTree, codes: Codes) -> jax.Array:
    """The share of each discrete code [groups, num_codes] over all images encoded."""
    num = len(codes.mean) // BATCH * BATCH or len(codes.mean)
    batches = codes.mean[:num].reshape(-1, min(BATCH, num), *codes.mean.shape[1:])
    return _mean_usage(model.codebook.usage, params, batches)


@functools.partial(jax.jit, static_argnums=0)
def _mean_usage(usage, params, batches):
    return jnp.mean(jax.lax.map(functools.partial(usage, params), batches), axis=0)


def latent_scores(model: Architecture, latents: Latents, codes: Codes, settings: Settings) -> list[Score]:
    """Active latents, and the means over them of what was measured per latent."""
    encoded = {"images": len(codes.codes)}
    measured = {"images": settings.images, "values": SWEEP.num}
    active, threshold = int(np.sum(latents.active)), settings.active_threshold
    what = "KL" if model.codebook is None else "activity (see Architecture.activity)"
    scores = [
        Score("active_latents", float(active), None, f"{what} > {threshold}", encoded, ceiling=float(model.latents)),
    ]
    for name, estimator in LATENT_SCORES.items():
        mean = metrics.mean_over(getattr(latents, name), latents.active)
        scores.append(
            metrics.score(
                name,
                mean.mean,
                estimator=estimator,
                samples=measured,
                settings={"active_threshold": threshold, "averaged": int(mean.count), "latents": model.latents},
                ceiling=1.0 if estimator.startswith("1 - H") else None,
                note="" if int(mean.count) else "undefined: no active latent has a value",
            )
        )
    return scores


def swap_codes(model: Architecture, params: PyTree, images: jax.Array, key: jax.Array) -> CodeEffects:
    """Causal effect strength and specificity in code space, where a position's code is swapped for another in use
    (strength is not zero where the continuous form is)."""
    codes = interventions.quantize(model, params, images)
    responses = ("l2", "rms", "outputs")
    swap = interventions.CodeSwap(7)
    swapped = interventions.perturb_latents((model, params), codes, swap, key, responses)
    return _code_effects(swapped, swap.sources(key, codes))


@jax.jit
def _code_effects(swapped: dict[str, jax.Array], sources: jax.Array) -> CodeEffects:
    outputs = swapped["outputs"].reshape(len(swapped["outputs"]), -1)
    return CodeEffects(
        *metrics.effect_strength(swapped["l2"], sources),
        *metrics.effect_strength(swapped["rms"], sources),
        metrics.overall_strength(swapped["l2"], sources).standard_error,
        metrics.overall_strength(swapped["rms"], sources).standard_error,
        metrics.intervention_specificity(outputs).normalized,
    )


def code_scores(
    model: Architecture, params: PyTree, encoded: Codes, effects: CodeEffects | None, settings: Settings
) -> list[Score]:
    """Of discrete codes: how much of the codebook is used, and the mean strength of their swaps."""
    if effects is None:
        return []
    usage = code_usage(model, params, encoded)
    perplexity = float(jnp.mean(jnp.exp(vector_quantization.usage_entropy(usage))))
    samples, ceiling = {"images": len(encoded.codes)}, float(model.codebook.num_codes)
    scores = [
        Score("code_perplexity", perplexity, None, "exp entropy of usage", samples, ceiling=ceiling),
        Score("codes_used", float(jnp.mean(usage > 0)), None, "share of the codebook in use", samples, ceiling=1.0),
    ]
    samples = {"images": settings.images}
    for name in ("l2", "rms"):
        mean, error = (np.asarray(getattr(effects, f"ces_{name}{part}")) for part in ("", "_mean_error"))
        how = "CodeSwap(7) of one position's code; mean over positions"
        scores.append(Score(f"ces_code_swap_{name}", float(np.mean(mean)), float(error), how, samples))
    return scores


def total_correlation_score(model: Architecture, codes: Codes, key: jax.Array) -> list[Score]:
    """Total correlation of the aggregate posterior: the Gaussian estimate, with density bounds beside it."""
    name, estimator = "total_correlation", "Gaussian, nats, from Cov(mean) + E[variance]"
    if model.codebook is not None:
        return [Score(name, None, estimator=estimator, note="undefined: discrete codes have no density")]
    found = _total_correlation(codes.mean, codes.log_variance, key)
    bounds = {"density_lower": float(found.lower), "density_upper": float(found.upper)}
    samples = {"images": len(codes.codes), "points": min(TC_POINTS, len(codes.codes))}
    return [metrics.score(name, found.gaussian, estimator=estimator, samples=samples, settings=bounds)]


@jax.jit
def _total_correlation(mean, log_variance, key):
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    return objectives.total_correlation(z[:TC_POINTS], mean, log_variance)


def traverse(model: Architecture, params: PyTree, z: jax.Array) -> np.ndarray:
    """Images [d, V, H, W, C] of one point z [1, ..., d] with each latent set to each of the sweep's values."""
    return np.asarray(_traverse(model.decode, params, z))


@functools.partial(jax.jit, static_argnums=0)
def _traverse(decode, params, z):
    values = SWEEP.values(None, z, None)  # [V, 1, ..., d]
    d = z.shape[-1]
    is_set = jnp.eye(d, dtype=bool).reshape(d, 1, *(1,) * (z.ndim - 2), d)
    points = jnp.where(is_set, values[None, :, 0], jnp.broadcast_to(z[None], (d, len(values), *z.shape[1:])))
    images = jax.nn.sigmoid(decode(params, points.reshape(-1, *z.shape[1:])))
    return images.reshape(d, len(values), *images.shape[1:])


# --- input manipulation and modularity -------------------------------------------------------------------


class FactorEffects(NamedTuple):
    """What setting each factor does to latents [K, d], and to units of encoder sites, trained and untrained."""

    latents: jax.Array
    sites: dict[str, jax.Array]  # site -> [K, units]
    untrained: dict[str, jax.Array]


def factor_effects(model, params, untrained, dataset, settings: Settings, scale, key) -> FactorEffects:
    """do(factor := v) for every factor and value: R and the encoder's responses."""

    def changes(params):
        measured = jax.tree_util.Partial(_codes_and_encoder(model.forward, model.represent), params)
        return interventions.factor_changes(measured, dataset, key, settings.effects)

    (of_codes, of_sites), (_, deviations) = changes(params)
    (_, of_untrained), (_, untrained_deviations) = changes(untrained)
    return FactorEffects(
        interventions.in_units_of(scale, of_codes),
        interventions.in_units_of(deviations, of_sites),
        interventions.in_units_of(untrained_deviations, of_untrained),
    )


@functools.lru_cache(maxsize=64)
def _codes_and_encoder(forward, represent):
    """(params, x) -> the codes, and the activations of the encoder's sites."""

    def measured(params, x):
        return represent(params, x), tapped(forward, ("encoder/*",), params, x, None, {})[1]

    return measured


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
    permuted, untrained = (_nan_mean(np.stack(list(m.values())), axis=0) for m in (found.permuted, found.untrained))
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


def factor_pairs(dataset: Dataset, key: jax.Array, num: int) -> list[interventions.Pairs]:
    """`num` counterfactual pairs of each factor. What is done with them is done factor by factor, so that its programs
    serve data sets with any number of factors."""
    return [
        interventions.counterfactuals(dataset, jax.random.fold_in(key, k), k, num) for k in range(dataset.num_factors)
    ]


def chosen_sites(settings: Settings, model: Architecture, dataset: Dataset) -> tuple[str, ...]:
    """The sites that the settings' patterns name, in forward order; ValueError for a pattern without a site."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    shapes = site_shapes(model, params, jax.ShapeDtypeStruct((1, *dataset.image_shape), jnp.float32))
    patterns = [pattern.strip() for pattern in settings.sites.split(",")]
    for pattern in patterns:
        if not fnmatch.filter(shapes, pattern):
            check_site(pattern, shapes)
    return tuple(site for site in shapes if any(fnmatch.fnmatchcase(site, pattern) for pattern in patterns))


def patch_all(model, params, pairs: list[interventions.Pairs], dataset: Dataset, settings: Settings) -> Patching:
    """Every unit of every chosen site, interchanged between the pairs of every factor."""
    found = chosen_sites(settings, model, dataset)
    largest, concentration = np.empty((2, len(found), len(pairs)))
    left_out = np.zeros(len(pairs), int)
    for i, k in np.ndindex(largest.shape):
        x, x_source = pairs[k].x, pairs[k].x_source
        effects = interventions.patch_effects(model, params, x, x_source, found[i])
        left_out[k] = effects.left_out[0]
        recovery = np.nan_to_num(np.asarray(effects.recovery))  # [units]
        largest[i, k], concentration[i, k] = recovery.max(), _concentration(np.maximum(recovery, 0))
    return Patching(found, largest, concentration, left_out)


def _concentration(weights: np.ndarray) -> float:
    """1 - normalized entropy over units of weights [units]: 1 where one unit carries all."""
    return 1.0 if len(weights) == 1 else float(metrics.intervention_specificity(weights[None]).normalized[0])


def mediate_latents(model, params, pairs: list[interventions.Pairs], key) -> Mediated:
    """Each latent as the mediator of each factor's effect on the image, in units of the total effect."""
    names = ("indirect", "direct", "interaction")
    rows, left_out = [], []
    for k, part in enumerate(pairs):
        found = interventions.mediate(model, params, part, "latent/z", interventions.unscaled_projection)
        summary = interventions.summarize(found, jax.random.fold_in(key, k), relative=True)
        rows.append([getattr(summary, name) for name in names])
        left_out.append(int(summary.left_out))

    def collect(field):
        return np.stack([np.stack([np.asarray(getattr(e, field)) for e in row], axis=-1) for row in rows])

    return Mediated(names, collect("mean"), collect("low"), collect("high"), np.array(left_out))


def latent_circuits(
    model, params, pairs: list[interventions.Pairs], dataset: Dataset
) -> dict[str, circuits.Circuit | None]:
    """factor -> the smallest set of latents that recovers 0.9 of its effect on half of the pairs, measured on the
    other half; None where it has no effect at all on a half."""
    found = {}
    for name, part in zip(dataset.factor_names, pairs, strict=True):
        try:
            found[name] = circuits.find_circuit(
                model, params, part, "latent/z", CIRCUIT_THRESHOLD, interventions.unscaled_projection
            )
        except ValueError:  # the decoded images of half of these pairs are the same: nothing to explain
            found[name] = None
    return found


def circuit_scores(found: dict[str, circuits.Circuit | None] | None, settings: Settings) -> list[Score]:
    """Mean size, faithfulness (null: random sets of the same size) and overlap of the factors' circuits.

    Sizes and overlap are those of the sets that one half of the pairs chose; the other half measures faithfulness
    and its null."""
    if found is None:
        return []
    served = {factor: circuit for factor, circuit in found.items() if circuit is not None}
    estimator = (
        f"greedy sets of latents that recover {CIRCUIT_THRESHOLD} of a factor's effect on half of the pairs, "
        "faithfulness on the other half; mean over factors"
    )
    common = {
        "estimator": estimator,
        "samples": {"pairs per factor": settings.pairs},
        "settings": {"factors": len(served)},
    }
    names = ("circuit_size", "circuit_faithfulness", "circuit_overlap")
    if len(served) < 2:
        note = "undefined: fewer than two factors have an effect on the decoded image"
        return [Score(name, None, note=note, **common) for name in names]
    jaccard = circuits.overlap(served)[np.triu_indices(len(served), 1)]
    faithfulness = np.mean([circuit.faithfulness for circuit in served.values()])
    random = np.mean([circuit.random.mean() for circuit in served.values()])
    return [
        Score(names[0], float(np.mean([len(circuit.units) for circuit in served.values()])), ceiling=1.0, **common),
        Score(names[1], float(faithfulness), null=float(random), ceiling=1.0, **common),
        Score(names[2], float(jaccard.mean()), ceiling=0.0, **common),
    ]


def _nan_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """nanmean; NaN, without a warning, where nothing is defined."""
    defined = np.isfinite(values)
    count = defined.sum(axis=axis)
    return np.where(defined, values, 0.0).sum(axis=axis) / np.where(count > 0, count, np.nan)


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
    least = {"codes": 20, "test_codes": 10, "votes": 1, "images": 2, "pairs": 2, "effects": 2}
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


def table(results: dict[str, Any], spread: Mapping[str, Any] | None = None) -> str:
    """The scores of every member as text: one column per member, null and ceiling beside them.

    spread: score -> (mean, deviation, …) between seeds, where runs of this configuration have been compared: a column.
    """
    members = results["members"]
    header = ["score", *(f"seed {m['seed']}" for m in members), "null", "ceiling", "how"]
    if spread:
        header.insert(-3, "other seeds")
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
        if spread:
            known = spread.get(first["name"])
            rows[-1].insert(-3, f"{_short(known.mean)} ± {_short(known.deviation)}" if known else "–")
    widths = [max(len(str(row[c])) for row in rows) for c in range(len(header) - 1)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths)), row[-1]]).rstrip() for row in rows]
    data, steps = results["data"], results["training"]["steps"]
    title = f"{results['architecture']['name']} on {data['name']} ({data['source']}), {steps:,} steps"
    if spread:
        runs = max(known.num for known in spread.values())
        title += f". Other seeds: mean ± standard deviation of {runs} runs of this budget; one run is one draw of them"
    return "\n".join([title, "", lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(score: dict[str, Any]) -> str:
    error = "" if score["standard_error"] is None else f" ± {_short(score['standard_error'])}"
    return _short(score["value"]) + error


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 or float(value).is_integer() and abs(value) > 1 else f"{value:.3g}"
