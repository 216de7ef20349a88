"""Windows of resident series: where they start, and how a batch of them is gathered from the stored series."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import Arrays, AugmentContext
from dlrun.data.resident import Resident

Array = np.ndarray


class Windowing(NamedTuple):
    """length: steps of a window. horizon: steps from its last one to the last target; 0: the target of its last step.

    is_path: whether all targets up to the horizon are learned, or only the last. stride: steps between windows.
    """

    length: int
    horizon: int
    is_path: bool
    stride: int

    @property
    def span(self) -> int:
        """Steps from the first input to the last target."""
        return self.length + self.horizon

    @property
    def targets(self) -> Array:
        """The steps of the targets, counted from the window's start."""
        last = self.length + self.horizon - 1
        return np.arange(self.length if self.is_path else last, last + 1)


def starts_of(splits: Array, breaks: Array, is_missing: Array, form: Windowing) -> tuple[dict[int, Array], int]:
    """Return the first rows of the windows in each split, by its number, and how many lack a target.

    splits: number of each row's split. breaks: whether a row does not follow the one before. No window crosses a break
    or the border of a split. is_missing: whether a row has no target.
    """
    missing = np.concatenate([[0], np.cumsum(is_missing, dtype=np.int32)])
    by_split: dict[int, list[Array]] = {}
    left_out = 0
    for first, end in stretches(splits, breaks):
        starts = np.arange(first, end - form.span + 1, form.stride, dtype=np.int32)
        if missing[end] > missing[first]:
            lacks = missing[starts + form.span] > missing[starts + form.targets[0]]
            left_out += int(lacks.sum())
            starts = starts[~lacks]
        by_split.setdefault(int(splits[first]), []).append(starts)
    return {split: np.concatenate(each) for split, each in by_split.items()}, left_out


def stretches(splits: Array, breaks: Array) -> list[tuple[int, int]]:
    """Return the first row and the end of all stretches of rows of one split that follow each other."""
    borders = np.flatnonzero(breaks[1:] | (splits[1:] != splits[:-1])) + 1
    return list(zip([0, *borders.tolist()], [*borders.tolist(), len(splits)], strict=True))


def longest(splits: Array, breaks: Array, split: int) -> int:
    """Return the largest number of rows of a split that follow each other."""
    return max((end - first for first, end in stretches(splits, breaks) if splits[first] == split), default=0)


class ResidentWindows(Resident):
    """The windows of series that are stored on one device.

    values: float32 (rows, columns). targets: float32 (rows, targets) or int64 labels (rows,). starts: the windows'
    first rows, by split. Batches: x float (B, length, columns); y float (B, steps * targets) or int64 (B,).
    """

    def __init__(
        self, values: Array, targets: Array, starts: dict[str, Array], form: Windowing, device: torch.device
    ) -> None:
        super().__init__(Arrays(values, targets, values[:0], targets[:0]), starts, device, lambda x, context: x)
        self.sample_values = form.length * values.shape[1]
        self.form, self.steps = form, torch.arange(form.length, device=device)
        self.target_steps = torch.from_numpy(form.targets).to(device)

    def targets_at(self, pool: str, rows: Tensor) -> Tensor:
        """Return the targets of the windows that start at these rows."""
        y = self.y[pool].index_select(0, (rows[:, None] + self.target_steps).flatten())
        return y if y.dim() == 1 else y.view(len(rows), -1)

    def _gather(self, pool: str, rows: Tensor, context: AugmentContext | None) -> tuple[Tensor, Tensor]:
        values = self.x[pool]
        inputs = (rows[:, None] + self.steps).flatten()
        x = values.index_select(0, inputs).view(len(rows), len(self.steps), values.shape[1])
        return x, self.targets_at(pool, rows)
