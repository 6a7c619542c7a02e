"""The programs that the library compiles, by name, on abstract arguments: nothing is computed to list or lower them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from causalvae import architectures, data, interventions, metrics, sharding, training
from causalvae.architectures import Architecture
from causalvae.data.base import Dataset

PyTree = Any
MEMBERS, BATCH, PAIRS, ROWS, LATENTS = 6, 64, 64, 1000, 10
SIZES = (10, 10, 10, 8, 4, 15)  # values of the factors of 3DShapes


class Program(NamedTuple):
    """A function of arrays and what it is lowered for."""

    group: str
    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]  # pytrees of jax.ShapeDtypeStruct

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def abstract(tree: PyTree) -> PyTree:
    """Returns shapes and types of a pytree's arrays."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jax.dtypes.result_type(leaf)), tree)


# --- models and training ---------------------------------------------------------------------------------


def models() -> dict[str, Architecture]:
    return {name: architectures.create(name) for name in architectures.ARCHITECTURES}


KEY = jax.eval_shape(lambda: jax.random.key(0))


def initialization() -> Iterator[Program]:
    for name, model in models().items():
        yield Program("initialization", name, model.init, (KEY,))


def training_steps() -> Iterator[Program]:
    """One step: of one member and of an ensemble for every architecture, and of an ensemble over 8 devices."""
    for name, model in models().items():
        yield training_step(f"{name}, 1 member", model, 1)
        yield training_step(f"{name}, {MEMBERS} members", model, MEMBERS)
    yield training_step(f"betatc, {MEMBERS} members, bfloat16", models()["betatc"], MEMBERS, precision="bfloat16")
    mesh = AbstractMesh((2, 4), (sharding.MEMBER, sharding.DATA))
    for name in ("betatc", "factor", "vq"):
        yield training_step(f"{name}, {MEMBERS} members on 8 devices", models()[name], MEMBERS, mesh)


def training_step(
    name: str,
    model: Architecture,
    members: int,
    mesh: AbstractMesh | None = None,
    precision: str = "float32",
    dataset: Dataset | None = None,
) -> Program:
    """One step of `BATCH` images, by default of 3DShapes."""
    dataset = dataset or data.load("3dshapes", source="procedural")
    on: Any = mesh  # only its shape is looked at here
    config = training.step_config(model, training.make_optimizer(model), BATCH, on, precision)
    state = jax.eval_shape(lambda: training.init_state(model, config.optimizer, list(range(members))))
    hyper = abstract(training.member_hyper(training.complete_hyper(model.hyper, dataset), members))
    steps = jax.ShapeDtypeStruct((), jnp.int32)
    if mesh is not None:
        state, hyper = (jax.tree.map(functools.partial(_spread, mesh), tree) for tree in (state, hyper))
    function = functools.partial(training.train_steps, config)
    return Program("training", name, function, (abstract_dataset(dataset), state, hyper, steps))


def _spread(mesh: AbstractMesh, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    spec = PartitionSpec(sharding.MEMBER) if leaf.ndim else PartitionSpec()
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))


# --- data ------------------------------------------------------------------------------------------------


def abstract_dataset(dataset: Dataset) -> Dataset:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dataset)


def samplers() -> Iterator[Program]:
    for name in (name for name, entry in data.DATASETS.items() if entry.procedural):
        dataset = data.load(name, source="procedural")
        yield Program("data", name, lambda dataset, key: dataset.sample(key, BATCH), (abstract_dataset(dataset), KEY))


# --- the four levels -------------------------------------------------------------------------------------


def _of_model(model: Architecture) -> tuple[PyTree, jax.ShapeDtypeStruct]:
    images = jax.ShapeDtypeStruct((PAIRS, *model.image_shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0)), images


def levels() -> Iterator[Program]:
    """On a beta-TC-VAE of the standard network, 64 pairs or images, all units of a site at once."""
    model = architectures.create("betatc")
    params, images = _of_model(model)
    dataset = data.load("3dshapes", source="procedural")
    chunk = 4096  # as on an accelerator

    def factor_effects(params, dataset, key):
        return interventions.factor_effects(model, params, dataset, key, num=PAIRS)

    def perturb(params, z, key):
        return interventions.perturb_latents(model, params, z, interventions.Sweep(), key, chunk=chunk)

    z = jax.ShapeDtypeStruct((PAIRS, model.latents), jnp.float32)
    yield Program("interventions", "forward", lambda p, x: model.forward(p, x, None).image, (params, images))
    yield Program("interventions", "factors to latents", factor_effects, (params, abstract_dataset(dataset), KEY))
    yield Program("interventions", "perturb latents", perturb, (params, z, KEY))
    for verb, function in (("patch", interventions.patch_effects), ("mediate", interventions.mediate)):
        for site in ("encoder/conv1", "latent/z", "decoder/conv1"):

            def effects(params, x, x_source, function=function, site=site):
                return function(model, params, (x, x_source), site, chunk=chunk)

            yield Program("interventions", f"{verb} {site}", effects, (params, images, images))

    def paths(params, x, x_source):
        ends = "encoder/conv2", "latent/z"
        return interventions.path_effects(model, params, (x, x_source), *ends, chunk=chunk)

    yield Program("interventions", "paths encoder/conv2 to latent/z", paths, (params, images, images))


def codes() -> Iterator[Program]:
    """On a VQ-VAE with a map of codes."""
    model = architectures.create("vq")
    params, images = _of_model(model)
    taken = jax.eval_shape(lambda p, x: interventions.quantize(model, p, x), params, images)

    def swap(params, z, key):
        return interventions.perturb_latents(
            model, params, z, interventions.CodeSwap(), key, latents=[0, 1], chunk=4096
        )

    def knock_out(params, x):
        return interventions.knock_out(model, params, x, entries=range(8), chunk=4096)

    yield Program("codes", "quantize", lambda p, x: interventions.quantize(model, p, x), (params, images))
    yield Program("codes", "swap", swap, (params, taken, KEY))
    yield Program("codes", "knock out", knock_out, (params, images))


# --- metrics ---------------------------------------------------------------------------------------------


def kernels() -> Iterator[Program]:
    """Of 1,000 representations of 10 latents, and as many to score where a kernel fits something."""
    z = jax.ShapeDtypeStruct((ROWS, LATENTS), jnp.float32)
    factors = jax.ShapeDtypeStruct((ROWS, len(SIZES)), jnp.int32)
    of_sizes = {"sizes": SIZES}
    plain: dict[str, tuple[Callable, dict[str, Any]]] = {
        "mig": (metrics.mig_kernel, of_sizes),
        "modularity": (metrics.modularity_kernel, of_sizes),
        "irs": (metrics.irs_kernel, {}),
        "sap": (metrics.sap_kernel, {}),
        "infomec": (metrics.infomec_kernel, of_sizes),
    }
    for name, (function, static) in plain.items():
        yield Program("metrics", name, functools.partial(function, **static), (z, factors))
    for name, function in (("betavae", metrics.betavae_kernel), ("factorvae", metrics.factorvae_kernel)):
        yield Program("metrics", name, lambda z, f, key, k=function: k(z, f, SIZES, key), (z, factors, KEY))
    for name, function in (("explicitness", metrics.explicitness_kernel), ("dci, lasso", metrics.dci_lasso_kernel)):
        yield Program("metrics", name, functools.partial(function, sizes=SIZES), (z, factors, z, factors))
    boosted = metrics.dci_boosting_kernel
    yield Program(
        "metrics",
        "dci, boosted trees",
        lambda a, b, c, d, key: boosted(a, b, c, d, SIZES, key),
        (z, factors, z, factors, KEY),
    )
    members, active = (
        jax.ShapeDtypeStruct((3, ROWS, LATENTS), jnp.float32),
        jax.ShapeDtypeStruct((3, LATENTS), jnp.bool_),
    )
    yield Program("metrics", "udr", metrics.udr_kernel, (members, active))


GROUPS: dict[str, Callable[[], Iterator[Program]]] = {
    "initialization": initialization,
    "training": training_steps,
    "data": samplers,
    "interventions": levels,
    "codes": codes,
    "metrics": kernels,
}


def programs(groups: Iterable[str] = tuple(GROUPS)) -> Iterator[Program]:
    """Yields the programs of some groups."""
    for name in groups:
        yield from GROUPS[name]()
