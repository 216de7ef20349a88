"""Points that move over a function: the only parameters are their coordinates.

Source: the book, section 7.8 (Himmelblau's function from four starts).
"""

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.spec import Function


class Point(nn.Module):
    """The function's values at the points, each moved by an offset: (B, variables) -> (B, points)."""

    def __init__(self, spec: Function, starts: list[list[float]]) -> None:
        super().__init__()
        self.spec, self.position = spec, nn.Parameter(torch.tensor(starts))  # (points, variables)

    def forward(self, offset: Tensor) -> Tensor:
        return self.spec.at(self.position + offset[:, None])  # (B, points)


def point(spec: Function, *, starts: list[list[float]]) -> Point:
    """Points at these coordinates, each of which moves independently."""
    wrong = [start for start in starts if len(start) != spec.features]
    if wrong or not starts:
        raise UserError(
            f"model.starts has {f'the point {list(wrong[0])}' if wrong else 'no point'}, and the function is one of "
            f"{', '.join(spec.names)}\n  expected points of {spec.features} numbers, such as "
            f"model.starts=[[{','.join(['0'] * spec.features)}]]"
        )
    return Point(spec, [[float(number) for number in start] for start in starts])
