"""The small parts that networks share: activations, normalisation, initialisation, Keras's 'same' padding.

Source: the book, sections 6.4 (activations), 10.4 (normalisation) and 10.8 ('same' padding with a stride).
Deviations: batch normalisation and leaky ReLU take torch's defaults (momentum 0.1, eps 1e-5; slope 0.01), not Keras's
(0.99, 1e-3; 0.2).
"""

from math import inf

import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import UserError, nearest

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # by the number of position axes
INSTANCE_NORMS = (None, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS = ("none", "batch", "layer", "instance", "group")
INITS = ("torch", "keras", "kaiming", "xavier", "orthogonal", "zeros")


def activation(name: str) -> nn.Module:
    """An elementwise non-linearity with torch's defaults."""
    _known("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def norm(name: str, channels: int, ndim: int) -> nn.Module:
    """A normalisation with a learned scale and shift per channel.

    ndim: axes of position after the channels: 0 behind a dense layer (B, C), 2 behind a convolution (B, C, H, W).
    'layer' takes its statistics over channels and positions together; 'group' over groups of at least two channels, 32
    groups where there are channels enough (Wu and He 2018).
    """
    _known("norm", name, NORMS)
    if name == "batch":
        return BATCH_NORMS[ndim](channels)
    if name == "layer":
        return nn.GroupNorm(1, channels) if ndim else nn.LayerNorm(channels)
    if name == "group":
        groups = max(g for g in range(1, 33) if channels % g == 0 and (g == 1 or channels // g >= 2))
        return nn.GroupNorm(groups, channels)
    if name == "instance" and ndim == 0:
        raise UserError(
            "norm=instance takes its statistics over a picture's positions, and a dense layer has none; "
            "expected a norm over samples or features: choose norm=batch, layer, group or none"
        )
    return INSTANCE_NORMS[ndim](channels, affine=True) if name == "instance" else nn.Identity()


def check_positions(norm: str, height: int, width: int) -> None:
    """Refuse instance normalisation of height x width maps that have but one position: every value would be 0."""
    if norm == "instance" and height * width == 1:
        raise UserError(
            "norm=instance: the last feature maps are 1x1 here, and one position has no spread; "
            "expected maps of two positions or more: choose norm=batch, layer or group, or data with larger images"
        )


def initialise(net: nn.Module, init: str) -> nn.Module:
    """Initialise all dense and convolutional layers of `net` in place, and return it. Norms keep 1 and 0.

    torch: as torch left them. keras: Glorot uniform. kaiming: normal for ReLU, over the fan out of a convolution and
    the fan in of a dense layer (He et al. 2015). xavier: Glorot normal. orthogonal: gain 1. Biases: 0, but for torch.
    """
    _known("init", init, INITS)
    if init == "torch":
        return net
    for layer in net.modules():
        if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            continue
        if init == "keras":
            nn.init.xavier_uniform_(layer.weight)
        elif init == "kaiming":
            mode = "fan_in" if isinstance(layer, nn.Linear) else "fan_out"
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
        elif init == "xavier":
            nn.init.xavier_normal_(layer.weight)
        elif init == "orthogonal":
            nn.init.orthogonal_(layer.weight)
        else:
            nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net


class SameConv2d(nn.Conv2d):
    """A convolution with Keras's padding 'same': (B, C, H, W) -> (B, out, ceil(H / stride), ceil(W / stride)).

    An odd pixel of padding goes to the right and the bottom, so that with stride 2 an even size is sampled one pixel
    away from where torch's symmetric `padding=1` samples it.
    """

    def forward(self, x: Tensor) -> Tensor:
        axes = zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        (top, bottom), (left, right) = (same_padding(*axis) for axis in axes)
        if (top, left) != (bottom, right):
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Pixels before and after an axis that make a convolution give ceil(size / stride), the odd one after."""
    reach = dilation * (kernel - 1) + 1
    total = max(((size - 1) // stride) * stride + reach - size, 0)
    return total // 2, total - total // 2


def same_max_pool() -> nn.Module:
    """Keras's MaxPool2D(2, strides=1, padding='same'): (B, C, H, W) -> the same shape."""
    return nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -inf), nn.MaxPool2d(2, stride=1))


def _known(what: str, name: str, names: object) -> None:
    if name not in names:
        raise UserError(f"{what}={name!r} is not known; expected one of {', '.join(names)}{nearest(str(name), names)}")
