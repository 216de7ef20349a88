"""VGG 11, 13, 16 and 19: 3x3 convolutions in five blocks, each followed by max pooling.

`vgg` is for small images and has a short head; `vgg_imagenet` is the paper's net with torchvision's names.

Source: Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", table 1,
configurations A, B, D and E; the book, section 10.10 (VGG13 on CIFAR-10: head [256, 128], no normalisation).
Deviations of `vgg` from the paper: global average pooling instead of flattened 7x7 maps (for 32x32 pixels the maps are
1x1 already), a head of any widths instead of 4096-4096, dropout before the head's first layer too, and optional
normalisation. Its pooling rounds up, like Keras's 'same', so images of any size from 17x17 on fit.
Deviation of `vgg_imagenet`: last maps of other sizes are averaged to 7x7, as in torchvision.
"""

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from dlrun.models.heads import WithHead, global_pool
from dlrun.models.layers import AdaptiveAvgPool2d, check_size, initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image
from dlrun.types import Init, Norm, Pool, Probability, Size

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # in each block
MULTIPLES = (1, 2, 4, 8, 8)  # of the first block's channels
LEAST = 17  # smallest sides with pooling that rounds up: 17 -> 9 -> 5 -> 3 -> 2 -> 1
LEAST_IMAGENET = 32  # 32 -> 16 -> 8 -> 4 -> 2 -> 1


class Skip(nn.Sequential):
    """Layers beside an identity: (B, C, H, W) -> the same shape."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def vgg(
    spec: Image,
    *,
    depth: Literal[11, 13, 16, 19],
    width: Size,
    head: list[Size],
    norm: Norm,
    skip: bool,
    dropout: Probability,
    init: Init,
) -> nn.Module:
    """VGG for small images: (B, C, H, W) -> (B, outputs).

    depth: the number in the paper, which counts its three dense layers. width: channels of the first block; the last
    has 8 times as many. head: widths of the hidden dense layers; [] is one dense layer. skip: a shortcut around the
    convolutions of the last block (the book, section 10.12, figure 10.62). dropout: before every dense
    layer.
    """
    features, height, columns = spec.shape
    check_size(f"vgg{depth}", height, columns, LEAST, "another model (model=resnet18, model=mlp)")
    layers = blocks(features, depth, width, norm, ceil_mode=True)
    if skip:
        count = CONVOLUTIONS[depth][-1] * (2 if norm == "none" else 3)
        layers[-count - 1 : -1] = [Skip(layers[-count - 1 : -1])]
    features = width * MULTIPLES[-1]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]  # (B, features)
    for size in head:
        layers += [*_dropout(dropout), nn.Linear(features, size), nn.ReLU()]  # (B, size)
        features = size
    layers += [*_dropout(dropout), nn.Linear(features, spec.outputs)]  # (B, outputs)
    return initialise(nn.Sequential(*layers), init)


def vgg_imagenet(
    spec: Image,
    *,
    depth: Literal[11, 13, 16, 19],
    width: Size,
    pool: Literal["grid"] | Pool,
    head: list[Size],
    norm: Norm,
    dropout: Probability,
    init: Init,
) -> nn.Module:
    """The paper's VGG: (B, C, H, W) -> (B, outputs). The keys are those of `vgg`; dropout follows each hidden layer.

    pool: grid keeps the 7x7 last maps, as in the paper; mean and max leave one number of each, below a head that is
    always new.
    """
    channels, height, columns = spec.shape
    check_size(f"vgg{depth}_imagenet", height, columns, LEAST_IMAGENET, f"model=vgg{depth} for small images")
    features = (49 if pool == "grid" else 1) * width * MULTIPLES[-1]
    dense: list[nn.Module] = []
    for size in head:
        dense += [nn.Linear(features, size), nn.ReLU(), nn.Dropout(dropout)]  # (B, size)
        features = size
    dense.append(nn.Linear(features, spec.outputs))
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        features=nn.Sequential(*blocks(channels, depth, width, norm, ceil_mode=False)),  # (B, 512, 7, 7) for 224x224
        avgpool=AdaptiveAvgPool2d(7) if pool == "grid" else global_pool(pool),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(*dense),  # (B, outputs)
    )
    net = nn.Sequential(parts) if pool == "grid" else WithHead(parts, ("features.",))
    return initialise(net, init)


def blocks(features: int, depth: int, width: int, norm: str, ceil_mode: bool) -> list[nn.Module]:
    """Five blocks of convolutions, each with its pooling: (B, features, H, W) -> (B, 8 width, H / 32, W / 32)."""
    layers: list[nn.Module] = []
    for count, multiple in zip(CONVOLUTIONS[depth], MULTIPLES, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(features, width * multiple, 3, padding=1))  # (B, width * multiple, H, W)
            if norm != "none":
                layers.append(norm_layer(norm, width * multiple, ndim=2))
            layers.append(nn.ReLU())
            features = width * multiple
        layers.append(nn.MaxPool2d(2, ceil_mode=ceil_mode))  # (B, features, H / 2, W / 2)
    return layers


def _dropout(rate: float) -> list[nn.Module]:
    return [nn.Dropout(rate)] if rate > 0 else []
