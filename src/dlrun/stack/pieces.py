"""The parameters of a stack's optimizer: rows of the stacked ones, for jobs whose settings agree."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor


class Piece:
    """A parameter of the optimizer: that of the jobs from `start` to before `stop`, or of one job in its own shape."""

    def __init__(self, leaf: Tensor, start: int, stop: int, is_elementwise: bool) -> None:
        self.leaf, self.start, self.stop, self.is_elementwise = leaf, start, stop, is_elementwise
        self.is_whole = is_elementwise and stop - start == len(leaf)
        self.param = self._of(leaf.detach())

    def _of(self, stack: Tensor) -> Tensor:
        return stack[self.start : self.stop] if self.is_elementwise else stack[self.start]

    def set_grad(self) -> None:
        grad = self.leaf.grad
        self.param.grad = grad if grad is None or self.is_whole else self._of(grad)

    def of_job(self, k: int, name: str, value: Any) -> Any:
        """A job's part of a value of the optimizer's state; a value of another shape is shared by all jobs."""
        is_stacked = self._is_stacked(name, value, self.param.shape)
        return value[k - self.start] if is_stacked else value

    def of_all(self, name: str, values: list[Any], shape: torch.Size) -> Any:
        """The value for all jobs of this piece from the values of each, which belong to a parameter of this shape."""
        if self._is_stacked(name, values[0], shape):
            return torch.stack(values)
        return values[0].clone() if isinstance(values[0], Tensor) else values[0]

    def _is_stacked(self, name: str, value: Any, shape: torch.Size) -> bool:
        return self.is_elementwise and name != "step" and isinstance(value, Tensor) and value.shape == shape


def ranges(settings: Sequence[str]) -> list[tuple[int, int]]:
    """The bounds of the runs of equal texts."""
    spans, start = [], 0
    for _, same in groupby(settings):
        stop = start + len(list(same))
        spans.append((start, stop))
        start = stop
    return spans
