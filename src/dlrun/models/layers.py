"""Building blocks of networks: activations, normalisation, initialisation, Keras's 'same' padding.

Source: the book, sections 6.4 (activations), 10.8 (normalisation), 10.14 ('same' padding with a stride) and 10.11
(separable convolutions).
Deviations: batch normalisation and leaky ReLU use torch's defaults (momentum 0.1, eps 1e-5; slope 0.01), not Keras's
(momentum 0.99 in its convention, eps 1e-3; slope 0.2).
"""

from collections import OrderedDict
from collections.abc import Collection
from math import inf, sqrt
from typing import TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import UserError, nearest

Net = TypeVar("Net", bound=nn.Module)
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # by the number of position axes
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
Convolution: TypeAlias = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)
NORMS = ("none", "batch", "layer", "instance", "group")
INITS = ("torch", "keras", "kaiming", "xavier", "orthogonal", "zeros")


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """torch's adaptive pooling, also under deterministic algorithms on CUDA, where torch's own gradient is an error.

    (B, C, H, W) -> (B, C, output_size, output_size).
    """

    output_size: int

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and torch.are_deterministic_algorithms_enabled():
            return window_means(window_means(x, self.output_size, -2), self.output_size, -1)
        return super().forward(x)


def window_means(x: Tensor, count: int, axis: int) -> Tensor:
    """The means of `count` windows that cover an axis of length n, with the bounds of adaptive pooling.

    The i-th window is from floor(i n / count) to ceil((i + 1) n / count).
    """
    size = x.shape[axis]
    windows = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    return torch.stack([x.narrow(axis, first, end - first).mean(axis) for first, end in windows], axis)


class LocalResponseNorm(nn.Module):
    """x / (1 + 1e-4 mean of x^2 over 5 channels)^0.75 (Krizhevsky et al. 2012, section 3.3): (B, C, H, W) -> the same.

    torch's own version pools in three dimensions, whose gradient is an error under deterministic algorithms on CUDA.
    """

    def forward(self, x: Tensor) -> Tensor:
        squares = F.pad(x.square().flatten(2)[:, None], (0, 0, 2, 2))  # (B, 1, 2 + C + 2, H W)
        means = F.avg_pool2d(squares, (5, 1), stride=1).view_as(x)
        return x / (1 + 1e-4 * means).pow(0.75)


def activation(name: str) -> nn.Module:
    """An activation by name, with torch's defaults."""
    _known("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def norm(name: str, channels: int, ndim: int) -> nn.Module:
    """A normalisation by name, with a learned scale and shift per channel.

    ndim: number of position axes after the channels: 0 after a dense layer (B, C), 2 after a convolution (B, C, H, W).
    'layer' normalises over channels and positions together; 'group' over groups of at least two channels, in 32 groups
    if there are enough channels (Wu and He 2018).
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
            "norm=instance normalises over the positions of an image, and a dense layer has none; "
            "expected a norm over samples or features: choose norm=batch, layer, group or none"
        )
    return INSTANCE_NORMS[ndim - 1](channels, affine=True) if name == "instance" else nn.Identity()


def check_positions(norm: str, height: int, width: int) -> None:
    """Raise UserError for instance normalisation of 1x1 maps: every value would become 0."""
    if norm == "instance" and height * width == 1:
        raise UserError(
            "norm=instance: the last feature maps are 1x1 here, and a single position has no variance; "
            "expected maps of two positions or more: choose norm=batch, layer or group, or data with larger images"
        )


def check_size(net: str, height: int, width: int, least: int, advice: str) -> None:
    """Raise UserError for images smaller than `least`, for which a net's last halving would have no input."""
    if min(height, width) < least:
        raise UserError(
            f"{net} cannot take images of {height}x{width}: nothing would be left of them before its last halving; "
            f"expected at least {least}x{least}: choose data with larger images, or {advice}"
        )


def initialise(net: Net, init: str) -> Net:
    """Initialise all dense and convolutional layers of `net` in place, and return it. Norms keep 1 and 0.

    torch: torch's defaults. keras: Glorot uniform. kaiming: normal for ReLU, by the fan-out of a convolution and the
    fan-in of a dense layer (He et al. 2015). xavier: Glorot normal. orthogonal: gain 1. Biases are 0, except for torch.
    Each group of a convolution counts as a layer of its own: the fan of a depthwise convolution is its window.
    """
    _known("init", init, INITS)
    if init == "torch":
        return net
    for layer in net.modules():
        if not isinstance(layer, nn.Linear | Convolution):
            continue
        _draw(layer, init)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net


def zero_scale(norm: nn.Module) -> None:
    """Set the scale of a norm to 0, so that a residual block that ends with it starts as its shortcut."""
    nn.init.zeros_(norm.get_parameter("weight"))


def initialise_scores(layer: nn.Conv2d, init: str) -> None:
    """Initialise a 1x1 output convolution like a dense layer: it is one for each pixel, so kaiming uses the fan-in."""
    if init == "kaiming":
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")


def _draw(layer: nn.Linear | Convolution, init: str) -> None:
    """Draw a weight as torch.nn.init does, except that the fan-out is divided by the number of groups."""
    weight, groups = layer.weight, 1 if isinstance(layer, nn.Linear) else layer.groups
    fan_in, fan_out = weight[0].numel(), weight[:, 0].numel() // groups
    if init == "keras":
        bound = sqrt(3.0) * sqrt(2.0 / (fan_in + fan_out))
        nn.init.uniform_(weight, -bound, bound)
    elif init == "kaiming":
        fan = fan_in if isinstance(layer, nn.Linear) else fan_out
        nn.init.normal_(weight, 0, sqrt(2.0) / sqrt(fan))
    elif init == "xavier":
        nn.init.normal_(weight, 0, sqrt(2.0 / (fan_in + fan_out)))
    elif init == "orthogonal":
        for group in weight.chunk(groups):
            nn.init.orthogonal_(group)
    else:
        nn.init.zeros_(weight)


def separable_conv(
    features: int, channels: int, kernel: int, *, stride: int = 1, norm: str = "none", act: str | None = None
) -> nn.Sequential:
    """A depthwise separable convolution: a depthwise convolution, then a 1x1 convolution over the channels.

    (B, features, H, W) -> (B, channels, ceil(H / stride), ceil(W / stride)) for an odd kernel. norm and act follow each
    of the two (Howard et al. 2017). Without them it is Keras's SeparableConv2D, which has a bias after the second only.
    """
    bias = norm == "none"
    depthwise = nn.Conv2d(
        features, features, kernel, stride, kernel // 2, groups=features, bias=bias and act is not None
    )
    parts: OrderedDict[str, nn.Module] = OrderedDict(depthwise=depthwise)
    if norm != "none":
        parts["norm1"] = _norm(norm, features)
    if act:
        parts["act1"] = activation(act)
    parts["pointwise"] = nn.Conv2d(features, channels, 1, bias=bias)
    if norm != "none":
        parts["norm2"] = _norm(norm, channels)
    if act:
        parts["act2"] = activation(act)
    return nn.Sequential(parts)


def _norm(name: str, channels: int) -> nn.Module:
    return norm(name, channels, ndim=2)  # for functions whose parameter `norm` hides the function


class SameConv2d(nn.Conv2d):
    """A convolution with Keras's padding 'same': (B, C, H, W) -> (B, out, ceil(H / stride), ceil(W / stride)).

    An odd pixel of padding goes to the right and the bottom. So with stride 2 and an even size, the sampled positions
    are shifted by one pixel against those of torch's symmetric `padding=1`.
    """

    def forward(self, x: Tensor) -> Tensor:
        axes = zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        (top, bottom), (left, right) = (same_padding(*axis) for axis in axes)
        if (top, left) != (bottom, right):
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Padding before and after an axis for an output of ceil(size / stride); an odd pixel goes after."""
    reach = dilation * (kernel - 1) + 1
    total = max(((size - 1) // stride) * stride + reach - size, 0)
    return total // 2, total - total // 2


def same_max_pool() -> nn.Module:
    """Keras's MaxPool2D(2, strides=1, padding='same'): (B, C, H, W) -> the same shape."""
    return nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -inf), nn.MaxPool2d(2, stride=1))


def _known(key: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise UserError(f"{key}={name!r} is not known; expected one of {', '.join(names)}{nearest(str(name), names)}")
