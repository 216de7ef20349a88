"""Xception: separable convolutions with residual connections (the book, section 10.11.3, which names it).

Source: Chollet 2017, "Xception: deep learning with depthwise separable convolutions", figure 5. The width of 32 has
22,855,952 parameters for 1,000 classes, as Keras's net has. Deviation: the first two convolutions are padded, so that
images from 33x33 on fit; in form=cifar the first one has no stride.
"""

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from dlrun.models.layers import check_positions, check_size, initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image, form_for
from dlrun.types import Few, Init, Norm, Probability, Size

LEAST = {"imagenet": 33, "cifar": 9}


class Residual(nn.Module):
    """Separable convolutions beside a shortcut: (B, C, H, W) -> (B, widths[-1], ceil(H / stride), ceil(W / stride))."""

    def __init__(self, features: int, widths: list[int], stride: int, norm: str, starts_with_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in zip([features, *widths], widths, strict=False):
            layers += [nn.ReLU(), *separable(a, b, norm)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.layers = nn.Sequential(*(layers if starts_with_relu else layers[1:]))
        self.shortcut = nn.Sequential()
        if features != widths[-1] or stride > 1:
            self.shortcut.append(nn.Conv2d(features, widths[-1], 1, stride, bias=norm == "none"))
            self.shortcut.append(norm_layer(norm, widths[-1], ndim=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


def separable(features: int, channels: int, norm: str) -> list[nn.Module]:
    """A depthwise 3x3 convolution, a 1x1 convolution, and a norm after both only: (B, channels, H, W)."""
    depthwise = nn.Conv2d(features, features, 3, padding=1, groups=features, bias=False)
    return [depthwise, nn.Conv2d(features, channels, 1, bias=norm == "none"), norm_layer(norm, channels, ndim=2)]


def xception(
    spec: Image,
    *,
    form: Literal["auto", "imagenet", "cifar"],
    width: Size,
    middle: Few,
    norm: Norm,
    dropout: Probability,
    init: Init,
) -> nn.Module:
    """Xception: (B, C, H, W) -> (B, outputs).

    width: channels of the first convolution; all others in proportion. middle: number of blocks in the middle; the
    paper has 8. dropout: before the dense layer.
    """
    channels, height, columns = spec.shape
    form = form_for(spec.shape) if form == "auto" else form
    check_size(
        "xception", height, columns, LEAST[form], "model.form=cifar" if form == "imagenet" else "model=mobilenet"
    )
    first = 2 if form == "imagenet" else 1
    steps = 16 * first
    check_positions(norm, -(-height // steps), -(-columns // steps))
    stem: list[nn.Module] = []
    for a, b, stride in ((channels, width, first), (width, 2 * width, 1)):
        stem += [nn.Conv2d(a, b, 3, stride, padding=1, bias=norm == "none"), norm_layer(norm, b, ndim=2), nn.ReLU()]
    entry = [4 * width, 8 * width, 91 * width // 4]  # 128, 256, 728
    last = entry[-1]
    blocks: list[nn.Module] = []
    for k, (a, b) in enumerate(zip([2 * width, *entry], entry, strict=False)):
        blocks.append(Residual(a, [b, b], 2, norm, starts_with_relu=k > 0))
    blocks += [Residual(last, [last] * 3, 1, norm) for _ in range(middle)]
    blocks.append(Residual(last, [last, 32 * width], 2, norm))
    top = [*separable(32 * width, 48 * width, norm), nn.ReLU(), *separable(48 * width, 64 * width, norm), nn.ReLU()]
    net = OrderedDict(
        stem=nn.Sequential(*stem),  # (B, 64, 112, 112) for 224x224
        blocks=nn.Sequential(*blocks),  # (B, 1024, 7, 7)
        top=nn.Sequential(*top),  # (B, 2048, 7, 7)
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(dropout),
        classifier=nn.Linear(64 * width, spec.outputs),  # (B, outputs)
    )
    return initialise(nn.Sequential(net), init)
