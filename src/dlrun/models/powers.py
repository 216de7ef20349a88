"""Why gradients explode or vanish: a recurrence without input and squashing multiplies by the same matrix at all times.

Source: the book, section 11.3: with W = ones(2, 2), whose largest eigenvalue is 2, the norms of W^1 .. W^11 grow from 2
to 2,048; with 0.4 of it they shrink from 0.8 to 0.086. The gradient at the first state is that at the last times W^11.
"""

import torch
from torch import Tensor, nn

from dlrun.spec import Image, Table
from dlrun.types import Few, Positive


class Recurrence(nn.Module):
    """h <- h W so many times, then one dense layer: (B, *) -> (B, outputs)."""

    def __init__(self, features: int, outputs: int, eigenvalue: float, times: int) -> None:
        super().__init__()
        self.weight, self.times = nn.Parameter(torch.full((features, features), eigenvalue / features)), times
        self.output = nn.Linear(features, outputs)
        self.before = [eigenvalue**k for k in range(1, times + 1)]  # norms of W^k: its other eigenvalues are 0
        self.about = f"; the norm of W^1 is {self.before[0]:.3g}, that of W^{times} {self.before[-1]:.3g}"

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)  # (B, features)
        for _ in range(self.times):
            h = h @ self.weight  # (B, features)
        return self.output(h)

    def report(self) -> dict:
        after = norms_of_powers(self.weight.detach().cpu(), self.times)
        drawn = {"norm of W^k before training": self.before, "norm of W^k after it": after}
        return {"lines": {"norms": drawn}, "norms": drawn}


def norms_of_powers(matrix: Tensor, times: int) -> list[float]:
    """Frobenius norms of its first, second, ... power."""
    powers = [matrix]
    for _ in range(times - 1):
        powers.append(powers[-1] @ matrix)
    return [power.norm().item() for power in powers]


def matrix_powers(spec: Image | Table, *, eigenvalue: Positive, times: Few) -> nn.Module:
    """The recurrence that starts from a W whose entries are all alike, with this largest eigenvalue."""
    return Recurrence(spec.features, spec.outputs, eigenvalue, times)
