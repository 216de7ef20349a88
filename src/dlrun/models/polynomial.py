"""Polynomials of any degree, which least squares fits (the book, sections 9.1 and 9.2).

The powers enter as Chebyshev polynomials of x / scale. These span the same functions, and their least squares are well
conditioned where those of the plain powers lose all digits from about degree 15 on.
"""

import torch
from torch import Tensor, nn

from dlrun.spec import Table
from dlrun.types import Few, Positive


class Polynomial(nn.Module):
    """The sum of a polynomial of each feature: (B, features) -> (B, targets)."""

    def __init__(self, spec: Table, degree: int, scale: float, bias: bool) -> None:
        super().__init__()
        self.degree, self.scale = degree, scale
        self.output = nn.Linear(spec.features * degree, spec.outputs, bias=bias)

    def terms(self, x: Tensor) -> Tensor:
        """T_k(x / scale) - T_k(0), k = 1 .. degree, which are 0 at 0: (B, features) -> (B, features * degree)."""
        x = x / self.scale
        terms = [torch.ones_like(x), x]
        for _ in range(self.degree - 1):
            terms.append(2 * x * terms[-1] - terms[-2])
        at_zero = [(1, 0, -1, 0)[k % 4] for k in range(self.degree + 1)]
        return torch.cat([term - value for term, value in zip(terms[1:], at_zero[1:], strict=True)], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.terms(x))


def polynomial(spec: Table, *, degree: Few, scale: Positive, bias: bool) -> Polynomial:
    """A polynomial. scale: the greatest |x|, about. bias: a constant term; without it, the value at 0 is 0."""
    return Polynomial(spec, degree, scale, bias)
