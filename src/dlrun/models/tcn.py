"""A temporal convolution network for series: dilated causal convolutions, so that a step sees no later one.

Source: Bai, Kolter and Koltun 2018 (residual blocks of two convolutions, weight normalisation, dropout; the dilation
doubles from block to block; the last step's output).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.columns import step_entry
from dlrun.spec import Series
from dlrun.types import Few, Probability, Size


def tcn(spec: Series, *, channels: Size, blocks: Few, kernel_size: Few, dropout: Probability) -> nn.Module:
    """Series (B, length, columns) -> (B, outputs).

    The last step sees 1 + 2 (kernel_size - 1) (2^blocks - 1) steps.
    """
    first, width = step_entry(spec)
    layers = []
    for i in range(blocks):
        layers.append(Block(width, channels, kernel_size, 2**i, dropout))
        width = channels
    return Convolutional(first, nn.Sequential(*layers), nn.Linear(width, spec.outputs))


class Convolutional(nn.Module):
    """A first layer, blocks, and a dense layer on the last step: (B, T, columns) -> (B, outputs)."""

    def __init__(self, first: nn.Module, blocks: nn.Module, output: nn.Linear) -> None:
        super().__init__()
        self.first, self.blocks, self.output = first, blocks, output

    def forward(self, x: Tensor) -> Tensor:
        steps = self.blocks(self.first(x).transpose(1, 2))  # (B, channels, T)
        return self.output(steps[:, :, -1])


class Block(nn.Module):
    """Two convolutions beside a shortcut: (B, width, T) -> (B, channels, T)."""

    def __init__(self, width: int, channels: int, kernel_size: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = CausalConv(width, channels, kernel_size, dilation)
        self.second = CausalConv(channels, channels, kernel_size, dilation)
        self.shortcut = nn.Conv1d(width, channels, 1) if width != channels else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(F.relu(self.first(x)))
        out = self.dropout(F.relu(self.second(out)))
        return F.relu(out + self.shortcut(x))


class CausalConv(nn.Conv1d):
    """A convolution that sees the present and earlier steps, with weight normalisation (Salimans and Kingma 2016).

    (B, width, T) -> (B, channels, T). gain: length of each output channel's filter.
    """

    def __init__(self, width: int, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__(width, channels, kernel_size, dilation=dilation)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.gain = nn.Parameter(torch.linalg.vector_norm(self.weight.detach(), dim=(1, 2)))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(self.weight, dim=(1, 2), keepdim=True)
        weight = self.weight * (self.gain[:, None, None] / length)
        before = (self.kernel_size[0] - 1) * self.dilation[0]
        return F.conv1d(F.pad(x, (before, 0)), weight, self.bias, dilation=self.dilation)
