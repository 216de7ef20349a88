"""Fully convolutional networks for semantic segmentation: FCN-32s, FCN-16s and FCN-8s on a VGG backbone.

Source: Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation", sections 3 and 4.
The backbone has the names of torchvision's VGG (`features`), so that init= accepts torchvision's weights, a run of
model=vgg16_imagenet, or another FCN.
Deviations: convolutions keep the size, while the paper pads the image by 100 pixels and crops; all strides learn
together, while the paper trains 32s, then 16s, then 8s; scores start small, while the paper starts them at zero on a
trained backbone (on an untrained one all classes would stay equal: docs/LOG.md); optional normalisation.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.layers import check_positions, check_size, initialise, initialise_scores
from dlrun.models.vgg import LEAST, MULTIPLES, blocks
from dlrun.spec import Mask
from dlrun.types import Init, Norm, Probability, Size

SKIPS = {32: 0, 16: 1, 8: 2}  # number of finer maps that are scored too, by stride


class Fcn(nn.Module):
    """(B, C, H, W) -> (B, classes, H, W), for any H and W from 17 on. BACKBONE: prefixes of the layers of the VGG."""

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
        skipped = [width * MULTIPLES[i] for i in (3, 2)][: SKIPS[stride]]  # channels of pool4, pool3
        self.skips = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in skipped)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(classes, classes, 4, 2, 1, bias=False) for _ in skipped)

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
    """FCN: (B, C, H, W) -> (B, classes, H, W).

    stride: pixels per score before the last, bilinear upsampling. depth, width, norm: of the VGG. head: channels of the
    two layers after it. The learned upsampling layers start as bilinear interpolation.
    """
    channels, height, columns = spec.shape
    check_size(f"fcn{stride}s", height, columns, LEAST, "model=unet")
    check_positions(norm, -(-height // 16), -(-columns // 16))
    backbone = nn.Sequential(*blocks(channels, depth, width, norm, ceil_mode=True))
    net = initialise(Fcn(backbone, width, head, spec.outputs, stride, dropout), init)
    for layer in (net.score, *net.skips):
        initialise_scores(layer, init)
    for layer in net.ups:
        bilinear_(layer.get_parameter("weight"))
    return net


def bilinear_(weight: Tensor) -> Tensor:
    """Set the weight (classes, classes, 4, 4) of a transposed convolution of stride 2 to bilinear interpolation."""
    line = weight.new_tensor([0.25, 0.75, 0.75, 0.25])
    nn.init.zeros_(weight)
    weight.data[range(len(weight)), range(len(weight))] = line[:, None] * line
    return weight
