"""VGG 11, 13, 16 and 19 for small pictures: 3x3 convolutions in five blocks, each halved by max pooling, a short head.

Source: Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", table 1,
configurations A, B, D and E; the book, section 10.6 (VGG13 on CIFAR-10: head [256, 128], no normalisation).
Deviations from the paper: global average pooling in place of the flattened 7x7 maps (32x32 pixels end at 1x1, where it
does nothing), a free head in place of 4096-4096, dropout before the head's first layer too, normalisation if wanted.
Pooling rounds up, as Keras's 'same' does, so pictures of any size will do.
"""

from typing import Literal

from torch import nn

from dlrun.models.layers import check_positions, initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image
from dlrun.types import Count, Init, Norm, Rate

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # in each block
MULTIPLES = (1, 2, 4, 8, 8)  # of the first block's channels


def vgg(
    spec: Image,
    *,
    depth: Literal[11, 13, 16, 19],
    width: Count,
    head: list[Count],
    norm: Norm,
    dropout: Rate,
    init: Init,
) -> nn.Module:
    """(B, C, H, W) -> (B, outputs).

    depth: the paper's name, its three dense layers counted. width: channels of the first block; the last has 8 times as
    many. head: widths of the hidden dense layers; [] is one dense layer. dropout: before every dense layer.
    """
    features, height, columns = spec.shape
    check_positions(norm, -(-height // 16), -(-columns // 16))  # the last block sees a sixteenth of each side
    layers: list[nn.Module] = []
    for count, multiple in zip(CONVOLUTIONS[depth], MULTIPLES, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(features, width * multiple, 3, padding=1))  # (B, width * multiple, H, W)
            if norm != "none":
                layers.append(norm_layer(norm, width * multiple, ndim=2))
            layers.append(nn.ReLU())
            features = width * multiple
        layers.append(nn.MaxPool2d(2, ceil_mode=True))  # (B, features, ceil(H / 2), ceil(W / 2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]  # (B, features)
    for size in head:
        layers += [*_dropout(dropout), nn.Linear(features, size), nn.ReLU()]  # (B, size)
        features = size
    layers += [*_dropout(dropout), nn.Linear(features, spec.outputs)]  # (B, outputs)
    return initialise(nn.Sequential(*layers), init)


def _dropout(rate: float) -> list[nn.Module]:
    return [nn.Dropout(rate)] if rate > 0 else []
