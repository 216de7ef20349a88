"""MobileNet, version 1: a convolution and thirteen depthwise separable convolutions.

Source: Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile vision applications", table
1; the book, section 10.11, for separable convolutions. form=cifar: as in kuangliu/pytorch-cifar, the first convolution
keeps the size. torchvision does not have this net; the names of the modules are this project's own.
"""

from collections import OrderedDict
from typing import Literal

from torch import nn

from dlrun.models.layers import check_positions, check_size, initialise, separable_conv
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image, form_for
from dlrun.types import Init, Norm, Probability, Size

BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1))  # channels / width, stride
LEAST = {"imagenet": 17, "cifar": 9}  # smallest sides in pixels: 17 -> 9 -> 5 -> 3 -> 2 -> 1


def mobilenet(
    spec: Image,
    *,
    form: Literal["auto", "imagenet", "cifar"],
    width: Size,
    norm: Norm,
    dropout: Probability,
    init: Init,
) -> nn.Module:
    """MobileNet: (B, C, H, W) -> (B, outputs).

    width: channels of the first convolution; 32 is the paper's multiplier 1.0. dropout: before the dense layer.
    """
    channels, height, columns = spec.shape
    form = form_for(spec.shape) if form == "auto" else form
    advice = "model.form=cifar" if form == "imagenet" else "model=resnet18"
    check_size("mobilenet", height, columns, LEAST[form], advice)
    stride = 2 if form == "imagenet" else 1
    check_positions(norm, -(-height // (16 * stride)), -(-columns // (16 * stride)))
    features = width
    stem = nn.Conv2d(channels, features, 3, stride, padding=1, bias=norm == "none")
    layers: list[nn.Module] = [nn.Sequential(stem, norm_layer(norm, features, ndim=2), nn.ReLU())]
    for multiple, step in BLOCKS:
        layers.append(separable_conv(features, width * multiple, 3, stride=step, norm=norm, act="relu"))
        features = width * multiple
    net = OrderedDict(
        features=nn.Sequential(*layers),  # (B, 1024, 7, 7) for 224x224
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(dropout),
        classifier=nn.Linear(features, spec.outputs),  # (B, outputs)
    )
    return initialise(nn.Sequential(net), init)
