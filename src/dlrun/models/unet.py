"""U-Net: poolings on the way down, transposed convolutions on the way up, and maps of equal size are concatenated.

Source: Ronneberger, Fischer and Brox 2015, "U-Net: convolutional networks for biomedical image segmentation", figure 1.
Deviations: convolutions keep the size, while the paper's crop the image by 184 pixels; optional normalisation; all
pixels have equal weight, while the paper gives borders between cells more.
"""

from typing import Annotated

import torch
from torch import Tensor, nn

from dlrun.models.layers import check_positions, check_size, initialise, initialise_scores
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Mask
from dlrun.types import Init, Norm, Probability, Range, Size


class UNet(nn.Module):
    """(B, C, H, W) -> (B, classes, H, W). widths: channels from the finest maps to the coarsest."""

    def __init__(self, channels: int, widths: list[int], classes: int, norm: str, dropout: float):
        super().__init__()
        pairs = list(zip([channels, *widths], widths, strict=False))
        self.down = nn.ModuleList(_double(a, b, norm) for a, b in pairs)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.dropout = nn.Dropout(dropout)
        steps = [(b, a) for a, b in pairs[:0:-1]]  # from the coarsest on
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in steps)
        self.join = nn.ModuleList(_double(2 * b, b, norm) for _, b in steps)
        self.score = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        passed = []
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i else x)
            passed.append(x)
        x = self.dropout(x)
        for up, join, finer in zip(self.up, self.join, passed[-2::-1], strict=True):
            x = up(x)[:, :, : finer.shape[2], : finer.shape[3]]  # an odd size was rounded up by the pooling
            x = join(torch.cat((finer, x), 1))
        return self.score(x)


def unet(
    spec: Mask, *, width: Size, depth: Annotated[int, Range(1, 16)], norm: Norm, dropout: Probability, init: Init
) -> nn.Module:
    """U-Net: (B, C, H, W) -> (B, classes, H, W).

    width: channels of the finest maps, doubled by each of the `depth` poolings. dropout: after the coarsest maps.
    """
    channels, height, columns = spec.shape
    least = 2 ** (depth - 1) + 1
    check_size("unet", height, columns, least, f"a smaller model.depth than {depth}")
    check_positions(norm, -(-height // 2**depth), -(-columns // 2**depth))
    widths = [width * 2**i for i in range(depth + 1)]
    net = initialise(UNet(channels, widths, spec.outputs, norm, dropout), init)
    initialise_scores(net.score, init)
    return net


def _double(features: int, channels: int, norm: str) -> nn.Sequential:
    """Two 3x3 convolutions with ReLU: (B, features, H, W) -> (B, channels, H, W)."""
    layers: list[nn.Module] = []
    for size in (features, channels):
        layers.append(nn.Conv2d(size, channels, 3, padding=1, bias=norm == "none"))
        if norm != "none":
            layers.append(norm_layer(norm, channels, ndim=2))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)
