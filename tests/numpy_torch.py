"""PyTorch's documented layers and our standard network of them in plain numpy: what tests compare without PyTorch."""

import numpy as np


def conv2d(x, weight, stride, padding):
    """torch.nn.functional.conv2d without bias: x [B, I, H, W], weight [O, I, k, k] -> [B, O, H', W']."""
    size = weight.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    height, width = ((side - size) // stride + 1 for side in x.shape[2:])
    out = np.zeros((len(x), len(weight), height, width), x.dtype)
    for row in range(height):
        for column in range(width):
            top, left = stride * row, stride * column
            window = x[:, :, top : top + size, left : left + size]
            out[:, :, row, column] = np.tensordot(window, weight, ((1, 2, 3), (1, 2, 3)))
    return out


def conv_transpose2d(x, weight, stride, padding, output_padding=0):
    """torch.nn.functional.conv_transpose2d without bias: x [B, I, H, W], weight [I, O, k, k] -> [B, O, H', W'].

    Every pixel adds its multiple of the kernel at `stride` times its place; then the border is cut off, but for
    `output_padding` rows and columns at the end.
    """
    size = weight.shape[2]
    height, width = (stride * (side - 1) + size + output_padding for side in x.shape[2:])
    out = np.zeros((len(x), weight.shape[1], height, width), x.dtype)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            top, left = stride * row, stride * column
            added = np.tensordot(x[:, :, row, column], weight, (1, 0))
            out[:, :, top : top + size, left : left + size] += added
    return out[:, :, padding : height - padding, padding : width - padding]


def batch_norm(x, state, layer):
    """torch.nn.BatchNorm2d with running averages: x [B, C, H, W]."""
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, scale, shift = (state[f"{layer}.{name}"].reshape(-1, 1, 1) for name in names)
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


def biased(h, state, layer):
    """h [B, C, ...] with the layer's bias."""
    return h + state[f"{layer}.bias"].reshape(-1, *[1] * (h.ndim - 2))


def linear(x, state, layer):
    """torch.nn.Linear: x [B, I] -> [B, O]."""
    return biased(x @ state[f"{layer}.weight"].T, state, layer)


def unchanged(layer, activation):
    return activation


def run_vae(state, x, edit=unchanged):
    """The image [B, C, H, W] that the standard network with this state dict makes of x [B, C, H, W].

    edit: (name of a layer, its activation after any ReLU, units on axis 1) -> the activation to go on with.
    """

    def apply(function, layer, x, activation=lambda x: np.maximum(x, 0)):
        x = function(x, state[f"{layer}.weight"])
        bias = state[f"{layer}.bias"]
        return edit(layer, activation(x + bias.reshape(-1, *[1] * (x.ndim - 2))))

    def down(x, weight):
        return conv2d(x, weight, stride=2, padding=1)

    def up(x, weight):
        return conv_transpose2d(x, weight, stride=2, padding=1)

    def linear(x, weight):
        return x @ weight.T

    for i in range(4):
        x = apply(down, f"encoder.conv{i}", x)
    channels_first = x.shape[1:]
    x = apply(linear, "encoder.dense", x.reshape(len(x), -1))
    x = apply(linear, "encoder.mean", x, activation=lambda x: x)
    for i in range(2):
        x = apply(linear, f"decoder.dense{i}", x)
    x = x.reshape(len(x), *channels_first)
    for i in range(3):
        x = apply(up, f"decoder.conv{i}", x)
    return 1 / (1 + np.exp(-apply(up, "decoder.logits", x, activation=lambda x: x)))
