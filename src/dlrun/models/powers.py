"""Why gradients explode or vanish: a linear recurrence without inputs multiplies by the same matrix at every step.

Source: the book, section 11.6: with W = ones(2, 2), whose largest eigenvalue is 2, the norms of W^1 .. W^11 grow from 2
to 2,048; with 0.4 W they shrink from 0.8 to 0.086. The gradient of the first state is that of the last times W^11.
"""

import torch
from torch import Tensor, nn

from dlrun.output.report import Report
from dlrun.spec import Image, Table
from dlrun.types import Few, Positive


class Recurrence(nn.Module):
    """Repeats h <- h W, then applies a dense layer: (B, *) -> (B, outputs)."""

    def __init__(self, features: int, outputs: int, eigenvalue: float, times: int) -> None:
        super().__init__()
        self.weight, self.times = nn.Parameter(torch.full((features, features), eigenvalue / features)), times
        self.output = nn.Linear(features, outputs)
        self.before = [eigenvalue**k for k in range(1, times + 1)]  # norms of W^k, since its other eigenvalues are 0
        self.description = f"; the norm of W^1 is {self.before[0]:.3g}, that of W^{times} {self.before[-1]:.3g}"

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)  # (B, features)
        for _ in range(self.times):
            h = h @ self.weight  # (B, features)
        return self.output(h)

    def report(self) -> Report:
        """The norms of the matrix's powers before and after training."""
        after = norms_of_powers(self.weight.detach().cpu(), self.times)
        norms = {"norm of W^k before training": self.before, "norm of W^k after it": after}
        return Report(lines={"norms": norms}, numbers={"norms": norms})


def norms_of_powers(matrix: Tensor, times: int) -> list[float]:
    """Frobenius norms of the powers 1 to `times` of a matrix."""
    powers = [matrix]
    for _ in range(times - 1):
        powers.append(powers[-1] @ matrix)
    return [power.norm().item() for power in powers]


def matrix_powers(spec: Image | Table, *, eigenvalue: Positive, times: Few) -> nn.Module:
    """A recurrence whose W starts with equal entries and this largest eigenvalue. times: number of multiplications."""
    return Recurrence(spec.features, spec.outputs, eigenvalue, times)
