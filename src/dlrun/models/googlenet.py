"""GoogLeNet: nine Inception blocks, each four branches side by side.

Source: Szegedy et al. 2015, "Going deeper with convolutions", table 1; notes E31. imagenet: the form that torchvision
has, with its names: batch normalisation in place of local response normalisation, and 3x3 in place of the 5x5
convolutions (pytorch/vision issue 906); its published weights want pixels in [-1, 1] (data.mean=[0.5] data.std=[0.5]).
cifar: as in kuangliu/pytorch-cifar: one 3x3 convolution as the stem.
Deviation: the two auxiliary heads, which the paper trains with and leaves out afterwards, are left out.
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.models.layers import check_positions, check_size, initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image
from dlrun.types import Count, Init, Norm, Rate

LEAST = {"imagenet": 31, "cifar": 3}  # pixels: 31 -> 16 -> 8 -> 4 -> 2 -> 1
EPS = 1e-3  # of batch normalisation, as torchvision's weights were trained with
BLOCKS = {  # channels of 1x1; 1x1 and 3x3; 1x1 and "5x5"; 1x1 behind the pooling; a pooling stands before 4a and 5a
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


class Inception(nn.Module):
    """Four branches, joined by their channels: (B, C, H, W) -> (B, channels of all, H, W)."""

    def __init__(self, features: int, channels: list[int], norm: str):
        super().__init__()
        one, before3, three, before5, five, pooled = channels
        self.branch1 = _conv(features, one, 1, norm)
        self.branch2 = nn.Sequential(_conv(features, before3, 1, norm), _conv(before3, three, 3, norm))
        self.branch3 = nn.Sequential(_conv(features, before5, 1, norm), _conv(before5, five, 3, norm))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv(features, pooled, 1, norm))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1)


def googlenet(
    spec: Image, *, form: Literal["imagenet", "cifar"], width: Count, norm: Norm, dropout: Rate, init: Init
) -> nn.Module:
    """(B, C, H, W) -> (B, outputs). width: channels of the stem; 64 gives table 1, all others follow in proportion."""
    features, height, columns = spec.shape
    advice = "model.form=cifar" if form == "imagenet" else "model=lenet"
    check_size("googlenet", height, columns, LEAST[form], advice)
    halvings = 32 if form == "imagenet" else 4
    check_positions(norm, -(-height // halvings), -(-columns // halvings))
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if form == "imagenet":  # sizes for 224x224
        parts["conv1"] = _conv(features, width, 7, norm, stride=2)  # (B, 64, 112, 112)
        parts["maxpool1"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # (B, 64, 56, 56)
        parts["conv2"] = _conv(width, width, 1, norm)
        parts["conv3"] = _conv(width, 3 * width, 3, norm)  # (B, 192, 56, 56)
        parts["maxpool2"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # (B, 192, 28, 28)
    else:
        parts["conv1"] = _conv(features, 3 * width, 3, norm)  # (B, 192, H, W)
    features = 3 * width
    for name, table in BLOCKS.items():
        if name in ("4a", "5a"):
            number = int(name[0]) - 1
            small = form == "cifar"
            window = 3 if small or number == 3 else 2
            parts[f"maxpool{number}"] = nn.MaxPool2d(window, stride=2, padding=int(small), ceil_mode=not small)
        channels = [-(-count * width // 64) for count in table]
        parts[f"inception{name}"] = Inception(features, channels, norm)
        features = channels[0] + channels[2] + channels[4] + channels[5]
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()  # (B, 1024)
    parts["dropout"], parts["fc"] = nn.Dropout(dropout), nn.Linear(features, spec.outputs)  # (B, outputs)
    return initialise(nn.Sequential(parts), init)


def _conv(features: int, channels: int, kernel: int, norm: str, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size (divides it by the stride), its norm and ReLU."""
    conv = nn.Conv2d(features, channels, kernel, stride, kernel // 2, bias=norm == "none")
    bn = norm_layer(norm, channels, ndim=2)
    if norm == "batch":
        bn.eps = EPS
    return nn.Sequential(OrderedDict(conv=conv, bn=bn, relu=nn.ReLU()))
