"""Objectives and codebooks against plain numpy, scipy, exact enumeration, finite differences and pythae."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import integrate, stats

from causalvae import objectives, vector_quantization

DATASET_SIZE = 1000.0


def posterior(seed=0, batch=6, latents=3):
    """(z, mean, log_variance), numpy float32, z drawn from the posterior."""
    generator = np.random.default_rng(seed)
    mean = generator.normal(size=(batch, latents))
    log_variance = generator.normal(size=(batch, latents)) - 1
    z = mean + np.exp(0.5 * log_variance) * generator.normal(size=(batch, latents))
    return tuple(np.float32(a) for a in (z, mean, log_variance))


def close(ours, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(ours), expected, rtol=rtol, atol=atol)


# --- reconstruction and KL -------------------------------------------------------------------------------


def test_bernoulli_and_squared_error_loop_over_pixels():
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(2, 3, 4, 2)).astype(np.float32) * 3
    images = generator.uniform(size=(2, 3, 4, 2)).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    nll, error = np.zeros(2), np.zeros(2)
    for b, *pixel in itertools.product(range(2), range(3), range(4), range(2)):
        x, p = images[b][tuple(pixel)], probabilities[b][tuple(pixel)]
        nll[b] -= x * np.log(p) + (1 - x) * np.log(1 - p)
        error[b] += (x - p) ** 2 / 24
    close(objectives.bernoulli_negative_log_likelihood(logits, images), nll)
    close(objectives.squared_error(jax.nn.sigmoid(logits), images), error)


def test_bernoulli_is_finite_for_saturated_logits():
    logits = jnp.array([1e4, -1e4]).reshape(2, 1, 1, 1)
    close(objectives.bernoulli_negative_log_likelihood(logits, jnp.zeros((2, 1, 1, 1))), [1e4, 0])


def test_kl_is_the_integral_of_its_definition():
    for mean, log_variance in ((0.7, -1.3), (-2.0, 0.4), (0.0, 0.0)):
        q, p = stats.norm(mean, np.exp(0.5 * log_variance)), stats.norm()
        expected, _ = integrate.quad(lambda z, q=q, p=p: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -12, 12)
        close(objectives.kl_divergence(jnp.float32(mean), jnp.float32(log_variance)), expected)


def test_gaussian_log_density_is_scipys():
    z, mean, log_variance = posterior()
    expected = stats.norm(mean, np.exp(0.5 * log_variance)).logpdf(z)
    close(objectives.gaussian_log_density(z, mean, log_variance), expected)


# --- minibatch total correlation -------------------------------------------------------------------------


def numpy_weight(i, j, batch, estimator):
    """Chen et al. 2018, appendix C, for sample i and data point j."""
    if estimator == "none":
        return 1 / batch
    if estimator == "mws":
        return 1 / (DATASET_SIZE * batch)
    others = batch - 1
    if i == j:
        return 1 / DATASET_SIZE
    return (DATASET_SIZE - others) / (DATASET_SIZE * others) if j == (i + 1) % batch else 1 / others


@pytest.mark.parametrize("estimator", ["mws", "mss", "none"])
def test_minibatch_total_correlation_is_the_triple_loop(estimator):
    z, mean, log_variance = posterior()
    batch, latents = z.shape
    expected = np.zeros(batch)
    for i in range(batch):
        joint, marginals = 0.0, np.zeros(latents)
        for j in range(batch):
            weight, density = numpy_weight(i, j, batch, estimator), 1.0
            for k in range(latents):
                one = stats.norm(mean[j, k], np.exp(0.5 * log_variance[j, k])).pdf(z[i, k])
                density *= one
                marginals[k] += weight * one
            joint += weight * density
        expected[i] = np.log(joint) - np.log(marginals).sum()
    close(objectives.minibatch_total_correlation(z, mean, log_variance, DATASET_SIZE, estimator), expected)


def expected_density(weights, density):
    """The mean estimate of q(z) in each row, z drawn from data point 0, over all minibatches that hold point
    0 in that row and others of `density` = q(z|x_n) elsewhere, in every order."""
    batch, means = len(weights), []
    for row in range(batch):
        estimates = []
        for others in itertools.permutations(range(1, len(density)), batch - 1):
            minibatch = list(others)
            minibatch.insert(row, 0)
            estimates.append(weights[row] @ density[minibatch])
        means.append(np.mean(estimates))
    return np.array(means)


def test_stratified_weights_are_unbiased_over_all_minibatches():
    weights = np.exp(np.asarray(objectives.log_importance_weights(3, jnp.float32(5), "mss")))
    close(weights.sum(axis=1), np.ones(3))
    density = np.random.default_rng(2).uniform(size=5)
    close(expected_density(weights, density), np.full(3, density.mean()))


# Weights of 4 samples and data points out of 5 in pythae, which are those of Chen et al.'s own code: 1/N stands at
# the minibatch's first point in nearly every row, where the paper gives it to the sample's own.
STRATIFIED_ELSEWHERE = np.array(
    [
        [1 / 5, 2 / 15, 1 / 3, 1 / 3],
        [1 / 5, 2 / 15, 1 / 3, 1 / 3],
        [2 / 15, 2 / 15, 1 / 3, 1 / 3],
        [1 / 5, 2 / 15, 1 / 3, 1 / 3],
    ]
)


def test_stratified_weights_in_other_places_are_biased():
    """The same weights as ours elsewhere, and only the first row is unbiased."""
    ours = np.exp(objectives.log_importance_weights(4, jnp.float32(5), "mss"))
    close(np.diag(ours), np.full(4, 1 / 5))
    close(ours[1, [1, 2, 0]], STRATIFIED_ELSEWHERE[1, [0, 1, 2]])
    density = np.random.default_rng(2).uniform(size=5)
    error = np.abs(expected_density(STRATIFIED_ELSEWHERE, density) / density.mean() - 1)
    assert error[0] < 1e-5 and np.all(error[1:] > 0.01)


def test_unknown_estimator_names_those_that_exist():
    with pytest.raises(ValueError, match="no density estimator 'mwss'; there are: mws, mss, none"):
        objectives.log_importance_weights(4, 10.0, "mwss")


def test_minibatch_total_correlation_reads_too_much():
    """True total correlation 0, batch 64, four latents: the readings that the docstring warns of."""
    generator = np.random.default_rng(3)
    mean = np.sqrt(1 - 0.3**2) * generator.normal(size=(64, 4)).astype(np.float32)
    z = mean + 0.3 * generator.normal(size=(64, 4)).astype(np.float32)
    log_variance = np.full((64, 4), 2 * np.log(0.3), np.float32)
    readings = {
        name: float(jnp.mean(objectives.minibatch_total_correlation(z, mean, log_variance, 737_280.0, name)))
        for name in ("mws", "none")
    }
    assert 39 < readings["mws"] < 44
    close(readings["mws"] - readings["none"], 3 * np.log(737_280), rtol=1e-4)


# --- FactorVAE, DIP-VAE, AnnealedVAE ---------------------------------------------------------------------


def test_permute_latents_permutes_each_latent_by_itself():
    z = jnp.arange(40.0).reshape(10, 4)
    permuted = np.asarray(objectives.permute_latents(jax.random.key(0), z))
    close(np.sort(permuted, axis=0), z)
    orders = {tuple((column - k) // 4) for k, column in enumerate(permuted.T)}
    assert len(orders) == 4 and tuple(range(10)) not in orders


def test_discriminator_terms():
    joint, product = np.random.default_rng(4).normal(size=(2, 7, 2)).astype(np.float32)
    probability = [np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) for logits in (joint, product)]
    ratio = np.log(probability[0][:, 0] / (1 - probability[0][:, 0]))
    close(objectives.density_ratio(joint), ratio)
    expected = -0.5 * (np.log(probability[0][:, 0]) + np.log(1 - probability[1][:, 0]))
    close(objectives.discriminator_loss(joint, product), expected)
    right = np.concatenate([probability[0][:, 0] > 0.5, probability[1][:, 0] < 0.5])
    close(objectives.discriminator_accuracy(joint, product), right.mean())


def test_covariances_and_dip_penalty():
    _, mean, log_variance = posterior(batch=9)
    of_mean = np.cov(mean, rowvar=False, bias=True)
    close(objectives.covariance(mean), of_mean)
    aggregate = of_mean + np.diag(np.exp(log_variance).mean(axis=0))
    close(objectives.aggregate_covariance(mean, log_variance), aggregate)
    expected = 0.0
    for i, j in itertools.product(range(3), range(3)):
        expected += 7.0 * (aggregate[i, i] - 1) ** 2 if i == j else 3.0 * aggregate[i, j] ** 2
    close(objectives.dip_penalty(jnp.asarray(aggregate, jnp.float32), 3.0, 7.0), expected)


def test_aggregate_covariance_is_that_of_samples():
    _, mean, log_variance = posterior()
    noise = np.random.default_rng(6).normal(size=(50_000, *mean.shape))
    samples = (mean + np.exp(0.5 * log_variance) * noise).reshape(-1, mean.shape[1])
    close(objectives.aggregate_covariance(mean, log_variance), np.cov(samples, rowvar=False), atol=0.02)


def test_capacity_rises_linearly_and_stays():
    close([objectives.capacity(jnp.float32(s), 25.0, 100.0) for s in (0, 50, 100, 300)], [0, 12.5, 25, 25])


# --- gradients -------------------------------------------------------------------------------------------


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        z, mean, log_variance = (jnp.asarray(a, jnp.float64) for a in posterior(batch=4))
        generator = np.random.default_rng(7)
        logits, images = generator.normal(size=(2, 2, 3, 3, 1))
        codebook = jnp.asarray(generator.normal(size=(3, 5, 1)))
        size = jnp.asarray(generator.uniform(size=(3, 5)))

        def dip(mean, log_variance):
            return objectives.dip_penalty(objectives.aggregate_covariance(mean, log_variance), 2.0, 5.0)

        def total_correlation(estimator):
            return lambda *a: jnp.sum(objectives.minibatch_total_correlation(*a, DATASET_SIZE, estimator))

        def likelihood(logits):
            return jnp.sum(objectives.bernoulli_negative_log_likelihood(logits, images))

        def pull(codebook):
            return vector_quantization.restart_penalty(codebook, size, z[:, :, None], 0.8)

        cases = [
            (total_correlation("mws"), (z, mean, log_variance)),
            (total_correlation("mss"), (z, mean, log_variance)),
            (dip, (mean, log_variance)),
            (lambda *a: jnp.sum(objectives.kl_divergence(*a)), (mean, log_variance)),
            (likelihood, (jnp.asarray(logits),)),
            (lambda *a: jnp.sum(objectives.discriminator_loss(*a)), (z[:, :2], mean[:, :2])),
            (lambda a: jnp.sum(objectives.density_ratio(a)), (z[:, :2],)),
            (pull, (codebook,)),
        ]
        for function, arguments in cases:
            check_grads(jax.jit(function), arguments, order=1, modes=["rev"], rtol=1e-5, atol=1e-5)


# --- total correlation, measured -------------------------------------------------------------------------


def gaussian_aggregate(correlation, deviation, points, latents=3, seed=0):
    """(posterior whose aggregate is Gaussian with unit variances, its total correlation)."""
    covariance = np.full((latents, latents), correlation) + (1 - correlation) * np.eye(latents)
    of_mean = covariance - deviation**2 * np.eye(latents)
    generator = np.random.default_rng(seed)
    mean = generator.normal(size=(points, latents)) @ np.linalg.cholesky(of_mean).T
    z = mean + deviation * generator.normal(size=(points, latents))
    log_variance = np.full((points, latents), 2 * np.log(deviation))
    truth = -0.5 * np.linalg.slogdet(covariance)[1]
    return tuple(np.float32(a) for a in (z, mean, log_variance)), truth


def test_total_correlation_is_the_mixtures_of_the_definition():
    z, mean, log_variance = posterior(batch=7)
    lower, upper = [], []
    for m in range(5):
        density = stats.norm(mean, np.exp(0.5 * log_variance)).pdf(z[m])
        for chosen, into in ((np.arange(7) != m, lower), (np.full(7, True), upper)):
            joint, marginals = density[chosen].prod(axis=1).mean(), density[chosen].mean(axis=0)
            into.append(np.log(joint) - np.log(marginals).sum())
    estimate = objectives.total_correlation(z[:5], mean, log_variance, chunk=2)
    close(estimate.lower, np.mean(lower), rtol=1e-4)
    close(estimate.upper, np.mean(upper), rtol=1e-4)


def test_total_correlation_brackets_a_known_gaussian():
    for correlation in (0.0, 0.6):
        arrays, truth = gaussian_aggregate(correlation, 0.3, 1000)
        estimate = objectives.total_correlation(*arrays)
        assert estimate.lower - 0.05 < truth < estimate.upper + 0.05
        assert estimate.upper - estimate.lower < 0.25
        assert abs(estimate.gaussian - truth) < 0.05


def test_total_correlation_sees_what_second_moments_do_not():
    """Two latents that are uncorrelated but dependent: z_2 = z_1^2."""
    generator = np.random.default_rng(8)
    first = generator.normal(size=(1000, 1))
    mean = np.float32(np.concatenate([first, (first**2 - 1) / np.sqrt(2)], axis=1))
    z = np.float32(mean + 0.3 * generator.normal(size=mean.shape))
    estimate = objectives.total_correlation(z, mean, np.full(mean.shape, 2 * np.log(0.3), np.float32))
    assert estimate.gaussian < 0.05 and estimate.lower > 0.5


# --- codebooks -------------------------------------------------------------------------------------------


def codes_and_vectors(seed=0, num=12, groups=2, num_codes=4, size=3):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(num, groups, size)).astype(np.float32)
    codebook = generator.normal(size=(groups, num_codes, size)).astype(np.float32)
    return vectors, codebook


def test_nearest_codes_and_embed_are_the_loop():
    vectors, codebook = codes_and_vectors()
    codes = np.asarray(vector_quantization.nearest_codes(vectors, codebook))
    second = np.asarray(vector_quantization.nearest_codes(vectors, codebook, but=codes))
    assert codes.dtype == np.int32
    for n, g in itertools.product(range(12), range(2)):
        distances = [np.sum((vectors[n, g] - e) ** 2) for e in codebook[g]]
        assert codes[n, g] == np.argmin(distances) and second[n, g] == np.argsort(distances)[1]
        close(vector_quantization.embed(codes, codebook)[n, g], codebook[g, codes[n, g]])
    close(vector_quantization.embed(np.array([[9, -3]]), codebook)[0], [codebook[0, 3], codebook[1, 0]])


def test_an_offset_of_vectors_and_codebook_leaves_the_nearest_codes():
    """Values on a grid of 1/1024, so that float32 holds them exactly beside 1,000."""
    vectors, codebook = (np.round(1024 * v) / 1024 for v in codes_and_vectors(num=500, num_codes=64, size=16))
    codes = np.argmin(np.sum((vectors[:, :, None] - codebook) ** 2, axis=-1), axis=-1)
    for offset in np.float32([0, 1e3]):
        assert np.array_equal(vector_quantization.nearest_codes(vectors + offset, codebook + offset), codes)
    dead = np.zeros((2, 64), np.float32)
    dead[:, :8] = 1
    pulls = [
        vector_quantization.restart_penalty(codebook + offset, dead, vectors + offset, 0.1)
        for offset in np.float32([0, 1e3])
    ]
    close(*pulls)


def test_codes_that_are_equally_near_but_for_rounding_give_the_lowest_index():
    generator = np.random.default_rng(3)
    codebook = generator.normal(size=(1, 6, 64)).astype(np.float32)
    first, second = generator.permuted(np.tile(np.arange(6), (400, 1)), axis=1)[:, :2].T
    middle = (codebook[0, first].astype(np.float64) + codebook[0, second]) / 2
    near = np.argsort(np.sum((middle[:, None] - codebook) ** 2, axis=-1), axis=-1)[:, :2]
    tied = np.array([set(a) == {b, c} for a, b, c in zip(near, first, second)])
    assert tied.sum() > 300
    for noise in (0, 1e-7, -1e-7):
        vectors = (middle * (1 + noise * generator.choice([-1, 1], middle.shape))).astype(np.float32)
        codes = vector_quantization.nearest_codes(vectors[:, None], codebook)[:, 0]
        assert np.array_equal(codes[tied], np.minimum(first, second)[tied])
    # A hundred times the tolerance towards the higher index, which is then the nearer one.
    low, high = np.minimum(first, second), np.maximum(first, second)
    vectors = (middle + 1e-4 * (codebook[0, high] - codebook[0, low])).astype(np.float32)
    assert np.array_equal(vector_quantization.nearest_codes(vectors[:, None], codebook)[tied, 0], high[tied])


def test_nearest_codes_take_products_of_full_precision():
    """Accelerators round the default product's operands to bfloat16, which changes 1 code in 20."""
    vectors, codebook = codes_and_vectors()
    for function, args in (
        (vector_quantization.nearest_codes, (vectors, codebook)),
        (vector_quantization.moving_average, (codebook, np.ones((2, 4)), vectors, np.zeros((12, 2), int), 0.9)),
    ):
        program = str(jax.make_jaxpr(function)(*args))
        assert program.count("dot_general") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 1


def test_straight_through_has_the_codes_value_and_the_identity_gradient():
    vectors, quantized = np.random.default_rng(9).normal(size=(2, 5)).astype(np.float32)
    ours = vector_quantization.straight_through(vectors, quantized)
    assert np.array_equal(ours, quantized)
    of_vectors, of_quantized = jax.jacobian(vector_quantization.straight_through, (0, 1))(vectors, quantized)
    assert np.array_equal(of_vectors, np.eye(5)) and not np.any(of_quantized)


def test_moving_average_is_the_papers_over_several_steps():
    """van den Oord et al. 2017, appendix A.1, with its own N and m."""
    _, codebook = codes_and_vectors()
    ours, size = jnp.asarray(codebook), jnp.zeros((2, 4))
    paper_size, paper_sum = np.zeros((2, 4)), np.zeros((2, 4, 3))
    expected = codebook.copy()
    for step in range(4):
        vectors, _ = codes_and_vectors(seed=10 + step, num=5)
        codes = np.random.default_rng(step).integers(0, 3, size=(5, 2))  # code 3 is never used
        ours, size = vector_quantization.moving_average(ours, size, vectors, codes, 0.9)
        for g, k in itertools.product(range(2), range(4)):
            own = vectors[codes[:, g] == k, g]
            paper_size[g, k] = 0.9 * paper_size[g, k] + 0.1 * len(own)
            paper_sum[g, k] = 0.9 * paper_sum[g, k] + 0.1 * own.sum(axis=0)
            if paper_size[g, k] > 0:
                expected[g, k] = paper_sum[g, k] / paper_size[g, k]
    close(ours, expected)
    close(size, paper_size)
    assert np.array_equal(ours[:, 3], codebook[:, 3])


def test_dead_codes_restart_on_vectors_and_only_they():
    vectors, codebook = codes_and_vectors()
    size = np.float32([[5, 0.0, 0.1, 3], [2, 2, 2, 2]])
    expected_dead = np.array([[False, True, True, False], [False] * 4])
    assert np.array_equal(vector_quantization.dead_codes(size, 0.1), expected_dead)
    restart = jax.jit(vector_quantization.restart)
    restarted, new_size = restart(codebook, size, vectors, 0.1, jax.random.key(1))
    for g, k in itertools.product(range(2), range(4)):
        if expected_dead[g, k]:
            assert any(np.array_equal(restarted[g, k], v) for v in vectors[:, g])
            close(new_size[g, k], size[g].mean())
        else:
            assert np.array_equal(restarted[g, k], codebook[g, k]) and new_size[g, k] == size[g, k]
    assert not np.array_equal(restarted[0, 1], restarted[0, 2])
    again, _ = restart(codebook, size, vectors, 0.1, jax.random.key(1))
    other, _ = restart(codebook, size, vectors, 0.1, jax.random.key(2))
    assert np.array_equal(again, restarted) and not np.array_equal(other, restarted)
    none, _ = restart(codebook, size, vectors, 0.0, jax.random.key(1))
    assert np.array_equal(none, codebook)


def test_usage_entropy():
    codes = np.array([[0, 1], [0, 1], [1, 1], [3, 1]])
    counts = vector_quantization.count_codes(codes, 4)
    close(counts, [[2, 1, 0, 1], [0, 4, 0, 0]])
    close(vector_quantization.usage_entropy(counts), [stats.entropy([2, 1, 1]), 0])


def test_restart_penalty_is_the_loop():
    vectors, codebook = codes_and_vectors()
    size = np.float32([[5, 0.0, 0.1, 3], [2, 2, 2, 2]])
    expected = sum(np.min(np.sum((vectors[:, 0] - codebook[0, k]) ** 2, axis=-1)) for k in (1, 2))
    close(vector_quantization.restart_penalty(codebook, size, vectors, 0.1), expected)


# --- pythae ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def pythae():
    pytest.importorskip("pythae", reason="pythae is not installed")
    import pythae.models

    return pythae.models


def test_beta_tc_agrees_with_pythae(torch, pythae):
    """Its minibatch-weighted total correlation."""
    arrays = posterior(batch=8)
    x = torch.zeros(8, 1, 2, 2)

    def loss(beta):
        config = pythae.BetaTCVAEConfig(input_dim=(1, 2, 2), latent_dim=3, beta=beta, use_mss=False)
        z, mean, log_variance = (torch.tensor(a) for a in arrays)
        return float(pythae.BetaTCVAE(config).loss_function(x, x, mean, log_variance, z, 1000)[0])

    ours = jnp.mean(objectives.minibatch_total_correlation(*arrays, DATASET_SIZE, "mws"))
    close(ours, loss(1.0) - loss(0.0), rtol=1e-4)


def test_pythae_puts_the_stratified_weights_where_they_are_said_to_be(torch, pythae):
    config = pythae.BetaTCVAEConfig(input_dim=(1, 2, 2), latent_dim=3)
    close(pythae.BetaTCVAE(config)._log_importance_weight_matrix(4, 5).exp().numpy(), STRATIFIED_ELSEWHERE)


def test_factor_terms_agree_with_pythae(torch, pythae):
    z, mean, log_variance = posterior(batch=8)
    joint, product = np.random.default_rng(11).normal(size=(2, 8, 2)).astype(np.float32)
    model = pythae.FactorVAE(pythae.FactorVAEConfig(input_dim=(1, 2, 2), latent_dim=3, gamma=6.0))

    class Recorded(torch.nn.Module):
        """Logits for z and for permuted z, in the order of pythae's calls."""

        def __init__(self):
            super().__init__()
            self.logits = [torch.tensor(joint), torch.tensor(product)]

        def forward(self, z):
            return self.logits.pop(0)

    model.discriminator = Recorded()
    x = torch.zeros(8, 1, 2, 2)
    arrays = (torch.tensor(a) for a in (mean, log_variance, z, z))
    _, autoencoder_loss, discriminator_loss = model.loss_function(x, x, *arrays)
    kl = jnp.mean(jnp.sum(objectives.kl_divergence(mean, log_variance), axis=1))
    close(kl + 6.0 * jnp.mean(objectives.density_ratio(joint)), float(autoencoder_loss), rtol=1e-4)
    close(jnp.mean(objectives.discriminator_loss(joint, product)), float(discriminator_loss))
