"""AlexNet: five convolutions and three dense layers.

Source: Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks"; the
book, section 10.9. form=imagenet: the net of Krizhevsky 2014, "One weird trick for parallelizing convolutional neural
networks", which torchvision has, with its names: no groups, no local response normalisation, 64 and 192 channels first.
form=cifar: as in bearpaw/pytorch-classification: smaller poolings, one dense layer.
Deviation: last maps of other sizes are averaged to 6x6, as in torchvision.
"""

from collections import OrderedDict
from typing import Literal

from torch import nn

from dlrun.models.layers import AdaptiveAvgPool2d, check_size, initialise
from dlrun.spec import Image, form_for
from dlrun.types import Init, Probability, Size

MULTIPLES = (1, 3, 6, 4, 4)  # of the first convolution's channels
LEAST = {"imagenet": 63, "cifar": 29}  # smallest sides in pixels: 63 -> 15 -> 7 -> 3 -> 1; 29 -> 8 -> 4 -> 2 -> 1


def alexnet(
    spec: Image,
    *,
    form: Literal["auto", "imagenet", "cifar"],
    width: Size,
    head: list[Size],
    dropout: Probability,
    init: Init,
) -> nn.Module:
    """AlexNet: (B, C, H, W) -> (B, outputs).

    width: channels of the first convolution. head: widths of the hidden dense layers; dropout: before each of them.
    """
    features, height, columns = spec.shape
    form = form_for(spec.shape) if form == "auto" else form
    check_size("alexnet", height, columns, LEAST[form], "model.form=cifar" if form == "imagenet" else "model=lenet")
    window = 3 if form == "imagenet" else 2
    sizes = [width * multiple for multiple in MULTIPLES]
    layers: list[nn.Module] = []
    for i, size in enumerate(sizes):
        if i == 0:
            layers.append(nn.Conv2d(features, size, 11, stride=4, padding=2 if form == "imagenet" else 5))
        else:
            layers.append(nn.Conv2d(sizes[i - 1], size, 5 if i == 1 else 3, padding=2 if i == 1 else 1))
        layers.append(nn.ReLU())
        if i in (0, 1, 4):
            layers.append(nn.MaxPool2d(window, stride=2))
    grid = 6 if form == "imagenet" else 1
    features = sizes[-1] * grid * grid
    dense: list[nn.Module] = []
    for size in head:
        dense += [nn.Dropout(dropout), nn.Linear(features, size), nn.ReLU()]
        features = size
    dense.append(nn.Linear(features, spec.outputs))
    parts = OrderedDict(
        features=nn.Sequential(*layers),  # (B, 256, 6, 6) for 224x224
        avgpool=AdaptiveAvgPool2d(grid),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(*dense),  # (B, outputs)
    )
    return initialise(nn.Sequential(parts), init)
