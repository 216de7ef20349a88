"""LeNet-5 as it was published: 32x32 pixels, learned subsampling, scaled tanh, and outputs that are distances.

Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition", section II.B
and table I; the book, section 10.4, figure 10.30. 60,000 parameters up to F6, as in the paper. Deviations: the centres
of the outputs are learned from random signs, where the paper has fixed bitmaps of characters; the outputs are
the negative distances, so that the loss is cross-entropy; images of other sizes and colours are taken too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.spec import Image

SIDE = 32
TABLE = (  # the maps of S2 that each map of C3 sees: table I
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5), (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5),
    (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5), (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip


class ScaledTanh(nn.Module):
    """1.7159 tanh(2 x / 3), which is 1 at 1 (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsample(nn.Module):
    """The sum of each 2x2 window times a coefficient plus a bias, one of each per map: (B, C, H, W) -> half of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.full((channels,), 0.25)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * F.avg_pool2d(x, 2) * self.weight[:, None, None] + self.bias[:, None, None]


class TableConv(nn.Module):
    """A convolution whose maps see some of the inputs only, by TABLE: (B, 6, H, W) -> (B, 16, H - 4, W - 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(seen), 1, 5) for seen in TABLE)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x[:, list(seen)]) for conv, seen in zip(self.maps, TABLE, strict=True)], 1)


class Distances(nn.Module):
    """Minus the squared distance to each class's centre; the difference of two classes: (B, F) -> (B, outputs)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randint(2, (classes, features)) * 2.0 - 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = -(x[:, None] - self.centres).square().sum(2)
        return scores[:, 1:] - scores[:, :1] if len(self.centres) == 2 else scores


def lenet_original(spec: Image) -> nn.Module:
    """The LeNet-5 of 1998: (B, C, H, W) -> (B, outputs). Smaller images get a border, larger ones are resized."""
    channels, height, width = spec.shape
    if max(height, width) > SIDE:
        first: nn.Module = nn.Upsample((SIDE, SIDE), mode="bilinear", align_corners=False)
    else:
        top, left = (SIDE - height) // 2, (SIDE - width) // 2
        first = nn.ZeroPad2d((left, SIDE - width - left, top, SIDE - height - top))
    return nn.Sequential(
        first,  # (B, C, 32, 32)
        nn.Conv2d(channels, 6, 5),  # C1 (B, 6, 28, 28)
        Subsample(6),  # S2 (B, 6, 14, 14)
        ScaledTanh(),
        TableConv(),  # C3 (B, 16, 10, 10)
        Subsample(16),  # S4 (B, 16, 5, 5)
        ScaledTanh(),
        nn.Conv2d(16, 120, 5),  # C5 (B, 120, 1, 1)
        nn.Flatten(),
        ScaledTanh(),
        nn.Linear(120, 84),  # F6
        ScaledTanh(),
        Distances(84, spec.classes or 0),
    )
