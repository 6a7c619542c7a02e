"""Patching against pyvene and nnsight, on the same weights; each skipped where it is not installed."""

import types

import jax
import numpy as np
import pytest
from test_adapters import PLACES, torch_network

from causalvae import adapters, architectures
from causalvae.interventions import patch_effects
from causalvae.sites import site_shapes

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own
SITES = ("encoder/conv1", "encoder/dense", "latent/z", "decoder/dense0", "decoder/conv1")
UNITS = slice(0, 3)  # exchanged together


@pytest.fixture(scope="module")
def twins():
    torch = pytest.importorskip("torch")
    model = architectures.create("vae", image_shape=(16, 16, 1), latents=4, network="small")
    params = model.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    twin = torch_network(torch, 4, (8, 8, 16, 16), 64, model.image_shape)
    weights = adapters.to_torch(model, params)
    twin.load_state_dict({name: torch.tensor(np.array(weight)) for name, weight in weights.items()})
    x, source = np.random.default_rng(0).random((2, 3, *model.image_shape), np.float32)
    return torch, model, params, twin, x, source


def check(twins, site, patched):
    """`patched` [B, C, H, W] is the peer's image with units of x's run taken from the source's."""
    torch, model, params, twin, x, source = twins
    with torch.no_grad():
        base = twin(torch.tensor(x.transpose(0, 3, 1, 2)))
    theirs = (patched.detach() - base).flatten(1).norm(dim=1).numpy()
    masks = np.zeros((1, site_shapes(model, params, x)[site].shape[-1]), bool)
    masks[0, UNITS] = True
    ours = patch_effects(model, params, (x, source), site, groups={site: masks}, per_pair=True).output_change[0]
    assert theirs.max() > 1e-4
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_patching_agrees_with_nnsight(twins, site):
    nnsight = pytest.importorskip("nnsight")
    torch, _, _, twin, x, source = twins
    images, sources = (torch.tensor(a.transpose(0, 3, 1, 2)) for a in (x, source))
    peer = nnsight.NNsight(twin)
    layer = peer
    for name in PLACES[site].split("."):
        layer = getattr(layer, name)
    with peer.trace(sources):
        donor = layer.output.save()
    with peer.trace(images):
        layer.output[:, UNITS] = donor[:, UNITS]
        patched = peer.output.save()
    check(twins, site, patched)


@pytest.mark.parametrize("site", SITES)
def test_patching_agrees_with_pyvene(twins, site):
    pyvene = pytest.importorskip("pyvene")
    torch, _, _, twin, x, source = twins
    images, sources = (torch.tensor(a.transpose(0, 3, 1, 2)) for a in (x, source))

    def exchange(base, source):
        base = base.clone()
        base[:, UNITS] = source[:, UNITS]
        return base

    twin.config = types.SimpleNamespace()  # pyvene reads it and needs nothing of it
    peer = pyvene.IntervenableModel({"component": f"{PLACES[site]}.output", "intervention": exchange}, model=twin)
    _, patched = peer(base={"x": images}, sources=[{"x": sources}])
    check(twins, site, patched)
