"""Models that are not ours: every adapter against the module's own forward pass, and patches against PyTorch hooks.

Weights in PyTorch's layout are also run in plain numpy, so that what they mean is tested without PyTorch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpy_torch
import pytest
import toy
from flax import nnx

import causalvae as cv
from causalvae import adapters


class Inner(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(5)(x)))


class Outer(nn.Module):
    @nn.compact
    def __call__(self, x):
        z = Inner(name="encoder")(x)
        shared = nn.Dense(3, name="twice")
        return nn.Dense(4, name="decoder")(shared(shared(z))), z


def split(returned):
    return adapters.ForeignOutputs(*returned)


def test_a_linen_module_is_tapped_at_its_submodules():
    module, x = Outer(), jax.random.normal(jax.random.key(0), (6, 4))
    variables = module.init(jax.random.key(1), x)
    model = adapters.from_linen(module, split)
    outputs, acts = cv.run(model, variables, x, capture=("*",))
    assert list(acts) == ["encoder/Dense_1", "encoder/Dense_0", "encoder", "twice", "twice:1", "decoder"]
    np.testing.assert_allclose(outputs.image, module.apply(variables, x)[0], rtol=1e-6)
    # An edit of z by hand: the rest of the network recomputed in numpy.
    edited, _ = cv.run(model, variables, x, edits={"encoder": cv.set_unit(1, 2.0)})
    z = np.array(outputs.z)
    z[:, 1] = 2.0
    weights = jax.tree.map(np.asarray, variables["params"])
    for name in ("twice", "twice", "decoder"):
        z = z @ weights[name]["kernel"] + weights[name]["bias"]
    np.testing.assert_allclose(edited.image, z, rtol=1e-5, atol=1e-6)
    assert adapters.from_linen(module, split) is model
    with pytest.raises(ValueError, match="no site 'encoder/Dense_7'.*Its sites, in order: encoder/Dense_1"):
        cv.run(model, variables, x, edits={"encoder/Dense_7": cv.set_unit(0, 0.0)})


class Network(nnx.Module):
    def __init__(self, rngs):
        self.encoder = nnx.Linear(4, 3, rngs=rngs)
        self.hidden = nnx.List([nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)])
        self.decoder = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        z = self.encoder(x)
        for layer in self.hidden:
            z = nnx.relu(layer(z))
        return self.decoder(z)


def test_an_nnx_module_is_tapped_and_left_as_it_was():
    module, x = Network(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (6, 4))
    call = nnx.Linear.__call__
    expected = module(x)
    model, params = adapters.from_nnx(module)
    outputs, acts = cv.run(model, params, x, capture=("*",))
    assert nnx.Linear.__call__ is call
    assert list(acts) == ["encoder", "hidden/0", "hidden/1", "decoder"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    edited, _ = cv.run(model, params, x, edits={"hidden/0": cv.set_unit(0, 5.0)})
    h = np.array(acts["hidden/0"])
    h[:, 0] = 5.0
    h = np.maximum(h, 0) @ np.asarray(module.hidden[1].kernel[...]) + np.asarray(module.hidden[1].bias[...])
    h = np.maximum(h, 0) @ np.asarray(module.decoder.kernel[...]) + np.asarray(module.decoder.bias[...])
    np.testing.assert_allclose(edited, h, rtol=1e-5, atol=1e-6)
    effects = cv.interventions.patch_effects(model, params, (x[:3], x[3:]), "hidden/1")
    assert effects.output_change.shape == (3,)


def encode(x):
    return x @ jnp.arange(8.0).reshape(4, 2)


def decode(z):
    return jnp.tanh(z @ jnp.ones((2, 5)))


def test_a_plain_pair_of_functions_is_enough():
    model, x = adapters.from_functions(encode, decode), jax.random.normal(jax.random.key(0), (6, 4))
    outputs, _ = cv.run(model, None, x, edits={"latent/z": cv.set_unit(0, 0.5)})
    np.testing.assert_allclose(outputs.image, decode(encode(x).at[:, 0].set(0.5)), rtol=1e-6)
    mediated = cv.interventions.mediate(model, None, (x[:3], x[3:]), "latent/z", groups="site")
    np.testing.assert_allclose(mediated.indirect[0], mediated.total, rtol=1e-5)


# --- PyTorch ---------------------------------------------------------------------------------------------


def torch_network(torch, latents, channels, dense, image):
    """The standard network written in PyTorch, with our names."""
    t = torch.nn

    class Encoder(t.Module):
        def __init__(self):
            super().__init__()
            sizes = (image[2], *channels)
            for i in range(4):
                setattr(self, f"conv{i}", t.Conv2d(sizes[i], sizes[i + 1], 4, 2, 1))
            self.dense = t.Linear(channels[-1] * (image[0] // 16) * (image[1] // 16), dense)
            self.mean, self.log_variance = t.Linear(dense, latents), t.Linear(dense, latents)

        def forward(self, x):
            for i in range(4):
                x = torch.relu(getattr(self, f"conv{i}")(x))
            h = torch.relu(self.dense(x.flatten(1)))
            return self.mean(h)

    class Decoder(t.Module):
        def __init__(self):
            super().__init__()
            self.base = (channels[-1], image[0] // 16, image[1] // 16)
            sizes = (channels[-1], channels[-1], channels[0], channels[0])
            self.dense0, self.dense1 = t.Linear(latents, dense), t.Linear(dense, int(np.prod(self.base)))
            for i in range(3):
                setattr(self, f"conv{i}", t.ConvTranspose2d(sizes[i], sizes[i + 1], 4, 2, 1))
            self.logits = t.ConvTranspose2d(sizes[3], image[2], 4, 2, 1)

        def forward(self, z):
            h = torch.relu(self.dense1(torch.relu(self.dense0(z)))).unflatten(1, self.base)
            for i in range(3):
                h = torch.relu(getattr(self, f"conv{i}")(h))
            return self.logits(h)

    class VAE(t.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = Encoder(), Decoder()

        def forward(self, x):
            return torch.sigmoid(self.decoder(self.encoder(x)))

    return VAE()


@pytest.fixture(scope="module")
def ours():
    """One of our models, and pairs of images."""
    model = cv.architectures.create("vae", image_shape=(32, 32, 3), latents=5, network="small")
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.float32(generator.normal(0, 0.15, leaf.shape)), shapes)
    x = generator.random((6, *model.image_shape), np.float32)
    return model, params, x[:3], x[3:]


@pytest.fixture(scope="module")
def state(ours):
    """The same weights in PyTorch's layout."""
    model, params, _, _ = ours
    return adapters.to_torch(model, params)


@pytest.fixture(scope="module")
def twin(ours, state):
    """The PyTorch twin of our model."""
    torch = pytest.importorskip("torch")
    twin = torch_network(torch, 5, (8, 8, 16, 16), 64, ours[0].image_shape)
    twin.load_state_dict({name: torch.tensor(weight) for name, weight in state.items()})
    return twin


def channels_first(*images):
    return (x.transpose(0, 3, 1, 2) for x in images)


def test_weights_in_torchs_layout_make_the_same_image_and_come_back(ours, state):
    model, params, x, _ = ours
    theirs = numpy_torch.run_vae(state, *channels_first(x)).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(cv.run(model, params, x)[0].image, theirs, atol=1e-5)
    back = adapters.from_torch(model, state)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, back))


def test_weights_go_to_torch_and_back(ours, twin):
    import torch

    model, params, x, _ = ours
    back = adapters.from_torch(model, twin.state_dict())
    assert jax.tree.all(jax.tree.map(np.array_equal, params, back))
    with torch.no_grad():
        theirs = twin(*map(torch.tensor, channels_first(x))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(cv.run(model, params, x)[0].image, theirs, atol=1e-5)


PLACES = {  # our site -> the torch layer that makes it
    **{f"encoder/conv{i}": f"encoder.conv{i}" for i in range(4)},
    "encoder/dense": "encoder.dense",
    "latent/z": "encoder.mean",
    "decoder/dense0": "decoder.dense0",
    "decoder/dense1": "decoder.dense1",
    **{f"decoder/conv{i}": f"decoder.conv{i}" for i in range(3)},
    "decoder/logits": "decoder.logits",
}


def chosen_units(state, site):
    """Three units of a site as PyTorch counts them, and as we do."""
    units = len(state[f"{PLACES[site]}.bias"])
    theirs = sorted({0, units // 2, units - 1})
    if site != "decoder/dense1":
        return theirs, theirs
    channel, row, column = np.unravel_index(theirs, (16, 2, 2))  # features are channels first there, last here
    return theirs, np.ravel_multi_index((row, column, channel), (2, 2, 16))


def change(patched, base):
    return np.linalg.norm((patched - base).reshape(len(base), -1), axis=1)


@pytest.mark.parametrize("site", ["encoder/conv1", "encoder/dense", "latent/z", "decoder/dense1", "decoder/logits"])
def test_patching_agrees_with_replaced_activations(ours, state, site):
    """Three units of a site, each alone and all together, replaced in a numpy run of the state dict."""
    model, params, x, source = ours
    theirs, shown = chosen_units(state, site)
    images, sources = channels_first(x, source)
    donor = {}
    numpy_torch.run_vae(state, sources, lambda layer, h: donor.setdefault(layer, h))

    def patched(units):
        def replace(layer, h):
            if layer == PLACES[site]:
                h = h.copy()
                h[:, units] = donor[layer][:, units]
            return h

        return numpy_torch.run_vae(state, images, replace)

    base = numpy_torch.run_vae(state, images)
    expected = np.stack([change(patched(units), base) for units in (*theirs, theirs)])
    masks = np.zeros((len(shown) + 1, len(state[f"{PLACES[site]}.bias"])), bool)
    masks[range(len(shown)), shown] = masks[-1, shown] = True
    found = cv.interventions.patch_effects(model, params, (x, source), site, groups={site: masks}, per_pair=True)
    assert expected.max() > 0.01
    np.testing.assert_allclose(found.output_change, expected, atol=1e-5)


@pytest.mark.parametrize("site", PLACES)
def test_patching_agrees_with_forward_hooks(ours, state, twin, site):
    """Three units of each site: the image after patching with hooks in PyTorch and with `patch_effects` here."""
    import torch

    model, params, x, source = ours
    theirs, shown = chosen_units(state, site)
    layer = twin.get_submodule(PLACES[site])
    images, sources = map(torch.tensor, channels_first(x, source))
    kept = {}
    with torch.no_grad():
        base = twin(images).numpy()
        hook = layer.register_forward_hook(lambda module, inputs, output: kept.update(source=output))
        twin(sources)
        hook.remove()
        changes = []
        for unit in theirs:
            # The sites are after ReLU, which acts unit by unit: replacing before it is the same.
            def replace(module, inputs, output, unit=unit):
                output = output.clone()
                output[:, unit] = kept["source"][:, unit]
                return output

            hook = layer.register_forward_hook(replace)
            changes.append(change(twin(images).numpy(), base))
            hook.remove()
    found = cv.interventions.patch_effects(model, params, (x, source), site, groups=shown, per_pair=True)
    np.testing.assert_allclose(found.output_change, np.stack(changes), atol=1e-5)


def test_a_state_dict_that_does_not_fit_is_refused(ours, state):
    model, params, _, _ = ours
    missing = {name: weight for name, weight in state.items() if name != "decoder.conv1.bias"}
    with pytest.raises(ValueError, match="1 weights do not fit vae: decoder.conv1.bias"):
        adapters.from_torch(model, missing)
    wrong = missing | {"encoder.dense.weight": np.zeros((3, 3))}
    with pytest.raises(ValueError, match=r"2 weights.*encoder.dense.weight \[64, 64\]: .encoder.dense.weight. is"):
        adapters.from_torch(model, wrong)
    with pytest.raises(ValueError, match="no layout 'pyro'; there are: disentangling-vae"):
        adapters.from_torch(model, state, "pyro")
    renamed = {f"net.{name}": weight for name, weight in state.items()}
    back = adapters.from_torch(model, renamed, {name: f"net.{name}" for name in state})
    assert np.array_equal(back["decoder"]["logits"]["kernel"], params["decoder"]["logits"]["kernel"])
    with pytest.raises(ValueError, match="only plain convolutional"):
        vq = toy.model("vq")
        adapters.to_torch(vq, jax.eval_shape(vq.init, jax.random.key(0)))
