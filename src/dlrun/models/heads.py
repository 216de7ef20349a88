"""A network of a backbone and a head, as for transfer: global pooling, hidden dense layers, and the output layer.

Source: the book, section 15.3: max pooling, a dense layer of 1024, batch normalisation, dropout 0.5, the outputs.
"""

from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from dlrun.models.layers import norm as norm_layer
from dlrun.types import Pool


class Head(NamedTuple):
    """What follows the backbone. pool: of each map. hidden: widths of the hidden dense layers; dropout: after each."""

    pool: Pool
    hidden: list[int]
    dropout: float


class WithHead(nn.Sequential):
    """The modules in order: (B, C, H, W) -> (B, outputs). BACKBONE: name prefixes of the layers before the head."""

    BACKBONE: tuple[str, ...]

    def __init__(self, parts: OrderedDict[str, nn.Module], backbone: tuple[str, ...]) -> None:
        super().__init__(parts)
        self.BACKBONE = backbone


class GlobalMaxPool(nn.Module):
    """The largest value of each map: (B, C, H, W) -> (B, C, 1, 1).

    torch's adaptive pooling has no deterministic gradient on CUDA.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3), keepdim=True)


def global_pool(pool: Pool) -> nn.Module:
    """The mean or the largest value of each map: (B, C, H, W) -> (B, C, 1, 1)."""
    return GlobalMaxPool() if pool == "max" else nn.AdaptiveAvgPool2d(1)


def dense_head(features: int, outputs: int, norm: str, head: Head) -> nn.Module:
    """Dense layers: (B, features) -> (B, outputs). Each hidden one has a ReLU, the norm and dropout, in this order."""
    layers: list[nn.Module] = []
    for size in head.hidden:
        layers += [nn.Linear(features, size), nn.ReLU(), norm_layer(norm, size, ndim=0), nn.Dropout(head.dropout)]
        features = size
    output = nn.Linear(features, outputs)
    return nn.Sequential(*layers, output) if layers else output
