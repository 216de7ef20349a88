"""Fully convolutional networks for a class of every pixel: FCN-32s, FCN-16s and FCN-8s on a VGG backbone.

Source: Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation", sections 3 and 4;
notes E48. The backbone's names are those of torchvision's VGG (`features`): init= takes its weights, a
run's of model=vgg16_imagenet, or another FCN's.
Deviations: convolutions keep the size, where the paper pads the picture by 100 pixels and crops; all strides learn
together, where the paper trains 32s, then 16s, then 8s; scores start small, where the paper starts them from zero on a
trained backbone (on an untrained one all classes then stay alike: docs/LOG.md); normalisation if wanted.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.layers import check_positions, check_size, initialise, initialise_scores
from dlrun.models.vgg import LEAST, MULTIPLES, blocks
from dlrun.spec import Mask
from dlrun.types import Init, Norm, Probability, Size

SKIPS = {32: 0, 16: 1, 8: 2}  # how many finer maps are scored too


class Fcn(nn.Module):
    """(B, C, H, W) -> (B, classes, H, W), for any H and W from 17 on. BACKBONE: what weights must fit to start from."""

    BACKBONE = ("features.",)

    def __init__(self, features: nn.Sequential, width: int, head: int, classes: int, stride: int, dropout: float):
        super().__init__()
        self.features, self.stride = features, stride
        last = width * MULTIPLES[-1]
        self.head = nn.Sequential(  # the dense layers of VGG as convolutions
            *(nn.Conv2d(last, head, 7, padding=3), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Conv2d(head, head, 1), nn.ReLU(), nn.Dropout(dropout)),
        )
        self.score = nn.Conv2d(head, classes, 1)
        behind = [width * MULTIPLES[i] for i in (3, 2)][: SKIPS[stride]]  # pool4, pool3
        self.skips = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in behind)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(classes, classes, 4, 2, 1, bias=False) for _ in behind)

    def forward(self, x: Tensor) -> Tensor:
        size, pooled = x.shape[2:], []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pooled.append(x)  # sizes / 2, 4, 8, 16, 32, rounded up
        out = self.score(self.head(x))  # (B, classes, H / 32, W / 32)
        for skip, up, finer in zip(self.skips, self.ups, pooled[-2::-1], strict=False):
            out = up(out)[:, :, : finer.shape[2], : finer.shape[3]] + skip(finer)  # twice as large
        out = F.interpolate(out, scale_factor=self.stride, mode="bilinear", align_corners=False)
        return out[:, :, : size[0], : size[1]]


def fcn(
    spec: Mask,
    *,
    stride: Literal[32, 16, 8],
    depth: Literal[11, 13, 16, 19],
    width: Size,
    head: Size,
    norm: Norm,
    dropout: Probability,
    init: Init,
) -> nn.Module:
    """stride: pixels to a score before the last, bilinear step up. depth, width, norm: of the VGG. head: channels of
    the two layers behind it. The learned steps up, by two, start as bilinear interpolation.
    """
    channels, height, columns = spec.shape
    check_size(f"fcn{stride}s", height, columns, LEAST, "model=unet")
    check_positions(norm, -(-height // 16), -(-columns // 16))
    backbone = nn.Sequential(*blocks(channels, depth, width, norm, ceil_mode=True))
    net = initialise(Fcn(backbone, width, head, spec.outputs, stride, dropout), init)
    for layer in (net.score, *net.skips):
        initialise_scores(layer, init)
    for layer in net.ups:
        bilinear_(layer.weight)
    return net


def bilinear_(weight: Tensor) -> Tensor:
    """Fill the weight (classes, classes, 4, 4) of a transposed convolution of stride 2 with bilinear interpolation."""
    line = weight.new_tensor([0.25, 0.75, 0.75, 0.25])
    nn.init.zeros_(weight)
    weight.data[range(len(weight)), range(len(weight))] = line[:, None] * line
    return weight
