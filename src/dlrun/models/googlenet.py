"""GoogLeNet: nine Inception blocks of four parallel branches, and two auxiliary heads that are used in training only.

Source: Szegedy et al. 2015, "Going deeper with convolutions", table 1 and sections 5 and 6; the book, section 10.9.
form=paper: 5x5 convolutions and, with norm=none, local response normalisation. form=imagenet: torchvision's net with
its names: batch normalisation, 3x3 instead of 5x5 (pytorch/vision issue 906), 2x2 as the last pooling; its published
weights need pixels in [-1, 1] (data.mean=[0.5] data.std=[0.5]). form=cifar: as in kuangliu/pytorch-cifar: a 3x3
convolution as the stem, no auxiliary heads. Deviation: the auxiliary heads pool maps of any size to 4x4, which for
14x14 means windows of 4 instead of the paper's 5.
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.models.layers import AdaptiveAvgPool2d, LocalResponseNorm, check_positions, check_size, initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image, form_for
from dlrun.types import Init, NonNegative, Norm, Probability, Size

LEAST = {"imagenet": 31, "paper": 31, "cifar": 3}  # smallest sides in pixels: 31 -> 16 -> 8 -> 4 -> 2 -> 1
AUXILIARY = {"imagenet": 0.3, "paper": 0.3, "cifar": 0.0}  # weight of the auxiliary heads' loss
EPS = 1e-3  # of batch normalisation, with which torchvision's weights were trained
BLOCKS = {  # channels of 1x1; 1x1 and 3x3; 1x1 and 5x5; 1x1 after the pooling. A pooling precedes 4a and 5a
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
HEAD_AFTER = {"inception4a": "aux1", "inception4d": "aux2"}  # the auxiliary heads, by the block that each follows
HEAD = (128, 1024, 0.7)  # channels, units and dropout of an auxiliary head


class GoogLeNet(nn.Module):
    """The modules in order; in training, the auxiliary heads too.

    auxiliary: the weight of the auxiliary heads' losses; 0 if there are none.
    """

    def __init__(self, parts: OrderedDict[str, nn.Module], auxiliary: float):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.auxiliary = auxiliary

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(B, C, H, W) -> outputs (B, K); in training, a tuple of the outputs and those of each auxiliary head."""
        auxiliary = []
        for name, module in self.named_children():
            if name in HEAD_AFTER.values():
                continue
            x = module(x)
            if self.training and self.auxiliary and name in HEAD_AFTER:
                auxiliary.append(self.get_submodule(HEAD_AFTER[name])(x))
        return (x, *auxiliary) if auxiliary else x


class Inception(nn.Module):
    """Four branches, concatenated by channels: (B, C, H, W) -> (B, sum of their channels, H, W)."""

    def __init__(self, features: int, channels: list[int], norm: str, window: int):
        super().__init__()
        one, before3, three, before5, five, pooled = channels
        self.branch1 = _conv(features, one, 1, norm)
        self.branch2 = nn.Sequential(_conv(features, before3, 1, norm), _conv(before3, three, 3, norm))
        self.branch3 = nn.Sequential(_conv(features, before5, 1, norm), _conv(before5, five, window, norm))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv(features, pooled, 1, norm))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1)


def googlenet(
    spec: Image,
    *,
    form: Literal["auto", "imagenet", "paper", "cifar"],
    width: Size,
    norm: Norm,
    dropout: Probability,
    auxiliary: NonNegative | None,
    init: Init,
) -> nn.Module:
    """GoogLeNet: (B, C, H, W) -> (B, outputs); in training, a tuple with the outputs of the auxiliary heads.

    width: channels of the stem; 64 gives table 1, and all other channels are in proportion. auxiliary: weight of the
    auxiliary heads' loss; 0: no such heads; None: the default of the form.
    """
    features, height, columns = spec.shape
    form = form_for(spec.shape) if form == "auto" else form
    small = form == "cifar"
    check_size("googlenet", height, columns, LEAST[form], "model=lenet" if small else "model.form=cifar")
    halvings = 4 if small else 32
    check_positions(norm, -(-height // halvings), -(-columns // halvings))
    local = form == "paper" and norm == "none"
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if small:
        parts["conv1"] = _conv(features, 3 * width, 3, norm)  # (B, 192, H, W)
    else:  # sizes for 224x224
        parts["conv1"] = _conv(features, width, 7, norm, stride=2)  # (B, 64, 112, 112)
        parts["maxpool1"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # (B, 64, 56, 56)
        if local:
            parts["norm1"] = LocalResponseNorm()
        parts["conv2"] = _conv(width, width, 1, norm)
        parts["conv3"] = _conv(width, 3 * width, 3, norm)  # (B, 192, 56, 56)
        if local:
            parts["norm2"] = LocalResponseNorm()
        parts["maxpool2"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # (B, 192, 28, 28)
    features = 3 * width
    widths = {}  # channels after each block
    for name, table in BLOCKS.items():
        if name in ("4a", "5a"):
            number = int(name[0]) - 1
            window = 2 if form == "imagenet" and number == 4 else 3
            parts[f"maxpool{number}"] = nn.MaxPool2d(window, stride=2, padding=int(small), ceil_mode=not small)
        channels = [_scaled(count, width) for count in table]
        block = f"inception{name}"
        parts[block] = Inception(features, channels, norm, window=5 if form == "paper" else 3)
        features = widths[block] = channels[0] + channels[2] + channels[4] + channels[5]
    weight = AUXILIARY[form] if auxiliary is None else auxiliary
    if weight:
        for block, head in HEAD_AFTER.items():
            parts[head] = _head(widths[block], width, norm, spec.outputs)
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()  # (B, 1024)
    parts["dropout"], parts["fc"] = nn.Dropout(dropout), nn.Linear(features, spec.outputs)  # (B, outputs)
    return initialise(GoogLeNet(parts, weight), init)


def _head(features: int, width: int, norm: str, outputs: int) -> nn.Sequential:
    channels, units = (_scaled(count, width) for count in HEAD[:2])
    return nn.Sequential(
        OrderedDict(
            avgpool=AdaptiveAvgPool2d(4),  # (B, 512 or 528, 4, 4)
            conv=_conv(features, channels, 1, norm),
            flatten=nn.Flatten(),  # (B, 2048)
            fc1=nn.Linear(16 * channels, units),
            relu=nn.ReLU(),
            dropout=nn.Dropout(HEAD[2]),
            fc2=nn.Linear(units, outputs),
        )
    )


def _scaled(count: int, width: int) -> int:
    return -(-count * width // 64)


def _conv(features: int, channels: int, kernel: int, norm: str, stride: int = 1) -> nn.Sequential:
    """A padded convolution with its norm and ReLU: sides are divided by the stride only."""
    conv = nn.Conv2d(features, channels, kernel, stride, kernel // 2, bias=norm == "none")
    bn = norm_layer(norm, channels, ndim=2)
    if isinstance(bn, nn.BatchNorm2d):
        bn.eps = EPS
    return nn.Sequential(OrderedDict(conv=conv, bn=bn, relu=nn.ReLU()))
