"""The PyTorch side of the benchmark: the standard VAE, its training step, and patching with forward hooks.

Used from sections.py in a process of its own, whose state is the globals at the end: beside a
running XLA, PyTorch would have another allocator state and other threads than its users have.
It computes on the GPU where the other side does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch  # pyright: ignore[reportMissingImports] - an extra of its own
from torch import nn  # pyright: ignore[reportMissingImports]

from causalvae import layers

# Sites of the standard network in forward order.
ENCODER_SITES = ("encoder/conv0", "encoder/conv1", "encoder/conv2", "encoder/conv3", "encoder/dense")
LATENT_SITES = ("latent/mean", "latent/log_variance", "latent/z")
DECODER_SITES = (
    "decoder/dense0", "decoder/dense1", "decoder/conv0", "decoder/conv1", "decoder/conv2", "decoder/logits",
)  # fmt: skip


class Permute(nn.Module):
    """Axes in another order."""

    def __init__(self, *axes: int):
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(self.axes)


class StandardVAE(nn.Module):
    """The standard network, with the same units in the same order as ours. Images NCHW."""

    def __init__(self, colors: int = 3, latents: int = 10):
        super().__init__()
        down = [nn.Conv2d(i, o, 4, 2, 1) for i, o in ((colors, 32), (32, 32), (32, 64), (64, 64))]
        up = [nn.ConvTranspose2d(i, o, 4, 2, 1) for i, o in ((64, 64), (64, 32), (32, 32), (32, colors))]
        self.weighted: dict[str, Any] = dict(zip(ENCODER_SITES, [*down, nn.Linear(1024, 256)], strict=True))
        self.weighted |= {site: nn.Linear(256, latents) for site in LATENT_SITES[:2]}
        dense = [nn.Linear(latents, 256), nn.Linear(256, 1024)]
        self.weighted |= dict(zip(DECODER_SITES, [*dense, *up], strict=True))
        # What a site holds is the output of its module here: of the ReLU where there is one.
        rectified = (*ENCODER_SITES, *DECODER_SITES[:-1])
        self.sites = {**self.weighted, **{site: nn.ReLU() for site in rectified}, "latent/z": nn.Identity()}
        flatten = nn.Sequential(Permute(0, 2, 3, 1), nn.Flatten())  # rows, columns, channels: our order
        unflatten = nn.Sequential(nn.Unflatten(1, (4, 4, 64)), Permute(0, 3, 1, 2))
        self.encoder = self._chain(ENCODER_SITES, {"encoder/dense": flatten})
        self.mean, self.log_variance = self.weighted["latent/mean"], self.weighted["latent/log_variance"]
        self.z = self.sites["latent/z"]
        self.decoder = self._chain(DECODER_SITES, {"decoder/conv0": unflatten})

    def _chain(self, sites: Sequence[str], before: Mapping[str, nn.Module]) -> nn.Sequential:
        modules = []
        for site in sites:
            modules += [before[site]] if site in before else []
            modules += [self.weighted[site]]
            modules += [self.sites[site]] if self.sites[site] is not self.weighted[site] else []
        return nn.Sequential(*modules)

    def forward(self, x: torch.Tensor, noise: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(logits, mean, log-variance)."""
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) if noise else mean
        return self.decoder(self.z(z)), mean, log_variance

    @torch.no_grad()
    def load(self, params: Mapping[str, Any]) -> None:
        """Takes over parameters of ours (a plain dict of numpy arrays)."""
        for site, module in self.weighted.items():
            group, name = site.split("/")
            source = params["encoder" if group == "latent" else group][name]
            convert = {
                nn.Conv2d: layers.down_kernel_to_torch,
                nn.ConvTranspose2d: layers.up_kernel_to_torch,
                nn.Linear: np.transpose,
            }[type(module)]
            module.weight.copy_(torch.from_numpy(np.ascontiguousarray(convert(source["kernel"]))))
            module.bias.copy_(torch.from_numpy(np.array(source["bias"])))


def negative_elbo(network: StandardVAE, images: torch.Tensor, noise: bool = True) -> torch.Tensor:
    """Bernoulli reconstruction summed over pixels + KL, averaged over the batch, in nats."""
    logits, mean, log_variance = network(images, noise)
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1)
    return entropy / images.shape[0] + kl.sum(dim=1).mean()


# --- what the benchmark calls in the other process -------------------------------------------------------

LAYOUTS = {"eager": torch.contiguous_format, "channels last": torch.channels_last}
networks: dict[str, StandardVAE] = {}  # by layout
optimizers: dict[str, torch.optim.Optimizer] = {}
losses: dict[str, Any] = {}  # network and images -> loss, by layout, and "compiled" by torch.compile
stored: dict[str, torch.Tensor] = {}  # uint8 images
device = torch.device("cpu")


def prepare(threads: int, params: Mapping[str, Any], images: np.ndarray, on_gpu: bool = False) -> None:
    """The same parameters and the same stored images [N, H, W, C] uint8 as the other side has, on the same device."""
    global device
    if on_gpu and not torch.cuda.is_available():
        raise RuntimeError("JAX computes on a GPU, and this PyTorch sees none: install a build of it for CUDA")
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as XLA has it by default
    for name, layout in LAYOUTS.items():
        network = StandardVAE(images.shape[3], params["decoder"]["dense0"]["kernel"].shape[0])
        network.load(params)
        networks[name] = network.to(device, memory_format=layout)
        optimizers[name] = torch.optim.Adam(network.parameters(), lr=1e-4)
        stored[name] = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        losses[name] = negative_elbo


def train(how: str, batch_size: int, steps: int) -> float:
    """`steps` training steps; the last loss. how: a layout, or "compiled", which is of the first."""
    layout = how if how in LAYOUTS else "eager"
    network, optimizer, images = networks[layout], optimizers[layout], stored[layout]
    if how not in losses:
        losses[how] = torch.compile(negative_elbo)
    loss: Any = None
    for _ in range(steps):
        batch = images[torch.randint(images.shape[0], (batch_size,), device=device)].float() / 255
        optimizer.zero_grad()
        loss = losses[how](network, batch)
        loss.backward()
        optimizer.step()
    return loss.item()


Sweep = Mapping[str, Sequence[int]]
"""site -> units that are replaced, one at a time"""


class Pairs(NamedTuple):
    """What a sweep over units needs of the pairs."""

    x: torch.Tensor
    base: torch.Tensor  # the image of x's run
    source: torch.Tensor  # what the site holds in the run of x'


def patch_sweep(x: np.ndarray, x_source: np.ndarray, units: Sweep, batch: int) -> dict[str, Any]:
    """site -> mean change of the image [units] when one unit comes from the source run: a loop with hooks, which takes
    the pairs in batches."""

    def loop(network: StandardVAE, site: str, indices: Sequence[int], pairs: Pairs) -> np.ndarray:
        hooks = (_replacing(unit, pairs.source) for unit in indices)
        return np.array([_changed(network, site, hook, pairs).item() for hook in hooks])

    return _swept(loop, x, x_source, units, batch)


def vmapped_sweep(x: np.ndarray, x_source: np.ndarray, units: Sweep, batch: int) -> dict[str, Any]:
    """The same by `torch.vmap` over all units of a site, which batches what follows the patched module."""

    def at_once(network: StandardVAE, site: str, indices: Sequence[int], pairs: Pairs) -> np.ndarray:
        def change(chosen: torch.Tensor) -> torch.Tensor:
            where = chosen.reshape(1, -1, *[1] * (pairs.source.ndim - 2))
            return _changed(network, site, lambda _, __, output: torch.where(where, pairs.source, output), pairs)

        chosen = torch.eye(pairs.source.shape[1], dtype=torch.bool, device=device)[list(indices)]
        return torch.vmap(change)(chosen).cpu().numpy()

    return _swept(at_once, x, x_source, units, batch)


@torch.no_grad()
def _swept(changes: Callable, x: np.ndarray, x_source: np.ndarray, units: Sweep, batch: int) -> dict[str, Any]:
    """site -> changes(network, site, units, pairs), which are sums over pairs, divided by their number."""
    network = networks["eager"]
    totals: dict[str, Any] = dict.fromkeys(units, 0.0)
    for start in range(0, len(x), batch):
        images, sources = (_images(a[start : start + batch]) for a in (x, x_source))
        base = torch.sigmoid(network(images, noise=False)[0])
        for site, indices in units.items():
            totals[site] += changes(network, site, indices, Pairs(images, base, _captured(network, site, sources)))
    return {site: total / len(x) for site, total in totals.items()}


def _images(images: np.ndarray) -> torch.Tensor:
    """NHWC in numpy to NCHW on the device."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def edge_sweep(x: np.ndarray, x_source: np.ndarray, links: Sequence[tuple[str, Sequence[int], str]]) -> list[Any]:
    """The effects [senders, receivers, pairs] of the edges of every (site, senders, later site): a loop with hooks."""
    network = networks["eager"]
    x, x_source = _images(x), _images(x_source)
    base, source = (torch.sigmoid(network(images, noise=False)[0]) for images in (x, x_source))
    change = (source - base).flatten(1)
    whole = change.square().sum(dim=1)
    found = []
    for sender, units, receiver in links:
        sent, receivers = _captured(network, sender, x_source), _captured(network, receiver, x).shape[1]
        effects = np.zeros((len(units), receivers, len(x)), np.float32)
        for i, unit in enumerate(units):
            hook = network.sites[sender].register_forward_hook(_replacing(unit, sent))
            reached = _captured(network, receiver, x)
            hook.remove()
            for j in range(receivers):
                hook = network.sites[receiver].register_forward_hook(_replacing(j, reached))
                image = torch.sigmoid(network(x, noise=False)[0])
                hook.remove()
                effects[i, j] = (((image - base).flatten(1) * change).sum(dim=1) / whole).cpu().numpy()
        found.append(effects)
    return found


def _captured(network: StandardVAE, site: str, x: torch.Tensor) -> torch.Tensor:
    kept = []
    hook = network.sites[site].register_forward_hook(lambda module, inputs, output: kept.append(output))
    network(x, noise=False)
    hook.remove()
    return kept[0]


def _changed(network: StandardVAE, site: str, hook: Callable, pairs: Pairs) -> torch.Tensor:
    """How far the images move, summed over pairs, with a hook at a site."""
    handle = network.sites[site].register_forward_hook(hook)
    try:
        image = torch.sigmoid(network(pairs.x, noise=False)[0])
    finally:
        handle.remove()
    return torch.linalg.vector_norm((image - pairs.base).flatten(1), dim=1).sum()


def _replacing(unit: int, source: torch.Tensor):
    """A hook that takes one unit of a module's output from another run."""

    def replace(module, inputs, output):
        output = output.clone()
        output[:, unit] = source[:, unit]
        return output

    return replace
