"""DenseNet with bottlenecks and compression: each layer's input is the maps of all earlier layers of its block.

Source: Huang, Liu, van der Maaten and Weinberger 2017, "Densely connected convolutional networks", table 1
(DenseNet-BC); the book, sections 10.13 and 15.3 (DenseNet121). form=imagenet: torchvision's net, with the names of its
modules (its weights file has norm.1 where the modules have norm1). form=cifar: as in kuangliu/pytorch-cifar, a 3x3 stem
without pooling.
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.models.heads import Head, WithHead, dense_head, global_pool
from dlrun.models.layers import check_positions, check_size, initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image, form_for
from dlrun.types import Init, Norm, Pool, Probability, Size

LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}  # in each of the four blocks
BOTTLENECK = 4  # channels of a layer's 1x1 convolution, in multiples of the growth
LEAST = {"imagenet": 29, "cifar": 8}  # smallest sides in pixels: 29 -> 15 -> 8 -> 4 -> 2 -> 1


class DenseLayer(nn.Module):
    """Norm, ReLU and convolution, twice: (B, C, H, W) -> (B, C + growth, H, W), the input and the new maps."""

    def __init__(self, features: int, growth: int, norm: str, dropout: float):
        super().__init__()
        bias = norm == "none"
        self.norm1 = norm_layer(norm, features, ndim=2)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(features, BOTTLENECK * growth, 1, bias=bias)
        self.norm2 = norm_layer(norm, BOTTLENECK * growth, ndim=2)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(self.relu1(self.norm1(x)))  # (B, 4 growth, H, W)
        new = self.dropout(self.conv2(self.relu2(self.norm2(new))))  # (B, growth, H, W)
        return torch.cat((x, new), 1)


def densenet(
    spec: Image,
    *,
    depth: Literal[121, 169, 201],
    form: Literal["auto", "imagenet", "cifar"],
    growth: Size,
    norm: Norm,
    dropout: Probability,
    pool: Pool,
    head: list[Size],
    head_dropout: Probability,
    init: Init,
) -> nn.Module:
    """DenseNet: (B, C, H, W) -> (B, outputs).

    growth: maps that each layer adds; the stem has twice as many. pool, head, head_dropout: see heads.py.
    """
    channels, height, columns = spec.shape
    form = form_for(spec.shape) if form == "auto" else form
    advice = "model.form=cifar" if form == "imagenet" else "model=resnet18"
    check_size(f"densenet{depth}", height, columns, LEAST[form], advice)
    halvings = 32 if form == "imagenet" else 8
    check_positions(norm, height // halvings, columns // halvings)
    features, bias = 2 * growth, norm == "none"
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if form == "imagenet":
        parts["conv0"] = nn.Conv2d(channels, features, 7, stride=2, padding=3, bias=bias)
        parts["norm0"], parts["relu0"] = norm_layer(norm, features, ndim=2), nn.ReLU()
        parts["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)  # (B, 2 growth, H / 4, W / 4), rounded up
    else:
        parts["conv0"] = nn.Conv2d(channels, features, 3, padding=1, bias=bias)
    for number, count in enumerate(LAYERS[depth], 1):
        block: OrderedDict[str, nn.Module] = OrderedDict(
            (f"denselayer{i + 1}", DenseLayer(features + i * growth, growth, norm, dropout)) for i in range(count)
        )
        parts[f"denseblock{number}"] = nn.Sequential(block)
        features += count * growth
        if number < len(LAYERS[depth]):
            parts[f"transition{number}"] = _transition(features, norm)  # halves the maps and their sides
            features //= 2
    parts["norm5"] = norm_layer(norm, features, ndim=2)
    net: OrderedDict[str, nn.Module] = OrderedDict(
        features=nn.Sequential(parts),  # (B, 1024, 7, 7) for 224x224 and growth 32
        relu=nn.ReLU(),
        avgpool=global_pool(pool),
        flatten=nn.Flatten(),
        classifier=dense_head(features, spec.outputs, norm, Head(pool, head, head_dropout)),  # (B, outputs)
    )
    return initialise(WithHead(net, ("features.",)), init)


def _transition(features: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=norm_layer(norm, features, ndim=2),
            relu=nn.ReLU(),
            conv=nn.Conv2d(features, features // 2, 1, bias=norm == "none"),
            pool=nn.AvgPool2d(2),
        )
    )
