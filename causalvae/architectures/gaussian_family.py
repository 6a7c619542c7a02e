"""The Gaussian family: regularizers, and the architectures that they make."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from causalvae import networks, objectives
from causalvae.architectures.base import Architecture
from causalvae.architectures.gaussian import (
    Penalty,
    Terms,
    gaussian,
    gaussian_functions,
    gaussian_loss,
    mean_kl,
    sample_posterior,
)


def beta_regularizer(terms: Terms, hyper) -> Penalty:
    """Returns beta * KL(q(z|x) || p(z)). Higgins et al. 2017, eq. 4; beta = 1 is the VAE of Kingma & Welling 2014."""
    return Penalty(hyper["beta"] * mean_kl(terms))


def beta_tc_regularizer(terms: Terms, hyper, estimator: str) -> Penalty:
    """Returns KL + (beta - 1) TC.

    Chen et al. 2018 with alpha = gamma = 1, in disentanglement_lib's arrangement: the whole KL once, and its
    total-correlation part beta - 1 times more.
    """
    total_correlation = jnp.mean(
        objectives.minibatch_total_correlation(terms.z, *terms.posterior, hyper["dataset_size"], estimator)
    )
    value = mean_kl(terms) + (hyper["beta"] - 1) * total_correlation
    return Penalty(value, {"minibatch_total_correlation": total_correlation})


def dip_regularizer(terms: Terms, hyper, aggregate: bool) -> Penalty:
    """Returns KL + the covariance penalty of Kumar et al. 2018: of Cov(z), eq. 7, or of Cov(mean), eq. 6."""
    if aggregate:
        matrix = objectives.aggregate_covariance(*terms.posterior)
    else:
        matrix = objectives.covariance(terms.posterior.mean)
    penalty = objectives.dip_penalty(matrix, hyper["lambda_offdiagonal"], hyper["lambda_diagonal"])
    return Penalty(mean_kl(terms) + penalty, {"covariance_penalty": penalty})


def annealed_regularizer(terms: Terms, hyper) -> Penalty:
    """Returns gamma |KL - C|, the capacity C rising with the step. Burgess et al. 2018, eq. 8."""
    capacity = objectives.capacity(terms.step, hyper["final_capacity"], hyper["capacity_steps"])
    return Penalty(hyper["gamma"] * jnp.abs(mean_kl(terms) - capacity), {"capacity": capacity})


def factor_regularizer(terms: Terms, hyper, encode: Callable, discriminate: Callable) -> Penalty:
    """Returns KL + gamma TC, the latter from a discriminator that learns beside it. Kim & Mnih 2018, eq. 2, alg. 2.

    Permuted latents come from the second batch, or from the first where there is no other. The autoencoder sees the
    discriminator's parameters as constants, and the discriminator the latents.
    """
    noise_key, permutation_key = jax.random.split(terms.key)
    z = jax.lax.stop_gradient(terms.z)
    others = z
    if terms.other_images.shape[0]:
        others = sample_posterior(encode(jax.lax.stop_gradient(terms.params), terms.other_images), noise_key)
    permuted = objectives.permute_latents(permutation_key, others)

    discriminator = terms.params["discriminator"]
    fixed_logits = discriminate({"params": jax.lax.stop_gradient(discriminator)}, terms.z)
    total_correlation = jnp.mean(objectives.density_ratio(fixed_logits))
    joint_logits = discriminate({"params": discriminator}, z)
    product_logits = discriminate({"params": discriminator}, permuted)
    adversary = jnp.mean(objectives.discriminator_loss(joint_logits, product_logits))
    metrics = {
        "discriminator_total_correlation": total_correlation,
        "discriminator_loss": adversary,
        "discriminator_accuracy": objectives.discriminator_accuracy(joint_logits, product_logits),
    }
    return Penalty(mean_kl(terms) + hyper["gamma"] * total_correlation, metrics, adversary)


def vae(image_shape, latents=10, network="standard") -> Architecture:
    """Returns the VAE of Kingma & Welling 2014."""
    return gaussian("vae", beta_regularizer, {"beta": 1.0}, image_shape, latents, network)


def beta_vae(image_shape, latents=10, network="standard", beta=4.0) -> Architecture:
    """Returns the beta-VAE of Higgins et al. 2017.

    Args:
      image_shape: [H, W, C].
      latents: how many.
      network: a name of `networks.NETWORKS`.
      beta: weighs the whole KL. Published sweep: 1 to 16.
    """
    return gaussian("beta", beta_regularizer, {"beta": beta}, image_shape, latents, network)


def factor_vae(
    image_shape,
    latents=10,
    network="standard",
    gamma=30.0,
    second_batch=True,
    discriminator_features=(1000,) * 6,
) -> Architecture:
    """Returns the FactorVAE of Kim & Mnih 2018.

    Args:
      image_shape: [H, W, C].
      latents: how many.
      network: a name of `networks.NETWORKS`.
      gamma: weighs the total correlation on top of the full KL. Published sweep: 10 to 100.
      second_batch: True permutes latents of images of their own, as in the paper; False those of the same batch, as
        disentanglement_lib does.
      discriminator_features: of its hidden layers.
    """
    functions = gaussian_functions(tuple(image_shape), latents, network)
    discriminator = networks.Discriminator(discriminator_features)

    def init(key):
        params = discriminator.init(jax.random.fold_in(key, 2), jnp.zeros((1, latents)))["params"]
        return {**functions.init(key), "discriminator": params}

    regularizer = functools.partial(factor_regularizer, encode=functions.encode, discriminate=discriminator.apply)
    batches = 2 if second_batch else 1
    model = gaussian("factor", regularizer, {"gamma": gamma}, image_shape, latents, network)
    return model._replace(
        init=init,
        loss=gaussian_loss(functions.forward, regularizer, batches),
        batches=batches,
        optimizers={"discriminator": "discriminator"},
        auxiliary=("discriminator",),
    )


def beta_tc_vae(
    image_shape, latents=10, network="standard", beta=6.0, estimator="mws", dataset_size=None
) -> Architecture:
    """Returns the beta-TC-VAE of Chen et al. 2018.

    Args:
      image_shape: [H, W, C].
      latents: how many.
      network: a name of `networks.NETWORKS`.
      beta: beta - 1 weighs the total correlation on top of the full KL. Published sweep: 1 to 10.
      estimator: of the aggregate posterior's density, see `objectives.log_importance_weights`.
      dataset_size: images of the data set, which the estimators need. None leaves it to `training.train`, which knows;
        it is NaN until then.
    """
    objectives.log_importance_weights(2, 1.0, estimator)  # an unknown estimator raises here
    regularizer = functools.partial(beta_tc_regularizer, estimator=estimator)
    hyper = {"beta": beta, "dataset_size": float("nan" if dataset_size is None else dataset_size)}
    return gaussian("betatc", regularizer, hyper, image_shape, latents, network)


def dip_vae_1(
    image_shape, latents=10, network="standard", lambda_offdiagonal=10.0, lambda_diagonal=100.0
) -> Architecture:
    """Returns DIP-VAE-I, Kumar et al. 2018, with lambda_d = 10 lambda_od as they and disentanglement_lib have it.

    Args:
      image_shape: [H, W, C].
      latents: how many.
      network: a name of `networks.NETWORKS`.
      lambda_offdiagonal: weighs covariances of posterior means.
      lambda_diagonal: weighs how far their variances are from 1.
    """
    hyper = {"lambda_offdiagonal": lambda_offdiagonal, "lambda_diagonal": lambda_diagonal}
    regularizer = functools.partial(dip_regularizer, aggregate=False)
    return gaussian("dip1", regularizer, hyper, image_shape, latents, network)


def dip_vae_2(
    image_shape, latents=10, network="standard", lambda_offdiagonal=10.0, lambda_diagonal=10.0
) -> Architecture:
    """Returns DIP-VAE-II, Kumar et al. 2018, with lambda_d = lambda_od. Published sweep: 1 to 50.

    Args:
      image_shape: [H, W, C].
      latents: how many.
      network: a name of `networks.NETWORKS`.
      lambda_offdiagonal: weighs covariances of the aggregate posterior.
      lambda_diagonal: weighs how far its variances are from 1.
    """
    hyper = {"lambda_offdiagonal": lambda_offdiagonal, "lambda_diagonal": lambda_diagonal}
    regularizer = functools.partial(dip_regularizer, aggregate=True)
    return gaussian("dip2", regularizer, hyper, image_shape, latents, network)


def annealed_vae(
    image_shape, latents=10, network="standard", gamma=1000.0, final_capacity=25.0, capacity_steps=100_000
) -> Architecture:
    """Returns the annealed VAE of Burgess et al. 2018.

    Args:
      image_shape: [H, W, C].
      latents: how many.
      network: a name of `networks.NETWORKS`.
      gamma: weighs the distance of the KL from the capacity.
      final_capacity: nats. Published sweep: 5 to 100, at gamma 1000.
      capacity_steps: steps until the capacity is reached.
    """
    hyper = {"gamma": gamma, "final_capacity": final_capacity, "capacity_steps": float(capacity_steps)}
    return gaussian("annealed", annealed_regularizer, hyper, image_shape, latents, network)
