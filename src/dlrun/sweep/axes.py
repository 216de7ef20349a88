"""The axes of a sweep's space and all combinations of their values."""

import re
from dataclasses import dataclass
from itertools import product
from math import prod

from dlrun.errors import UserError

MOST = 10_000  # values of an axis, and jobs of a grid: after each job, the state and the tables of all are written


@dataclass
class Axis:
    """One parameter, or several zipped ones.

    rows: the overrides of each value; with one row, the axis is fixed. interval: (low, high, is_log, is_int) instead of
    rows. argument: the text that the user wrote.
    """

    keys: list[str]
    rows: list[list[str]]
    interval: tuple[float, float, bool, bool] | None
    argument: str

    @property
    def name(self) -> str:
        """The keys, without a leading +."""
        return ",".join(key.lstrip("+") for key in self.keys)

    @property
    def is_swept(self) -> bool:
        return self.interval is not None or len(self.rows) > 1

    def end(self, high: bool) -> list[str]:
        """Return the overrides of the first value, or of the last if `high`."""
        if self.interval:
            return [f"{self.keys[0]}={self.interval[1 if high else 0]!r}"]
        return self.rows[-1 if high else 0]


def grid(axes: list[Axis]) -> list[list[str]]:
    """List all combinations; the last axis changes fastest. Raises UserError for intervals and for too many jobs."""
    for axis in axes:
        if axis.interval:
            raise UserError(
                f"{axis.argument}: a grid cannot sweep over an interval, which has infinitely many values\n"
                "  expected values, such as 0.1,0.01, or a search: sweep=optuna"
            )
    if (jobs := prod(len(axis.rows) for axis in axes)) > MOST:
        sizes = " x ".join(f"{axis.name}: {len(axis.rows):,}" for axis in axes if axis.is_swept)
        raise UserError(
            f"the sweep has {jobs:,} jobs ({sizes})\n"
            f"  expected at most {MOST:,}: fewer values, several sweeps, or a search: sweep=optuna sweep.trials=100"
        )
    return [[override for row in point for override in row] for point in product(*(axis.rows for axis in axes))]


def outside(axes: list[Axis], points: list[list[str]]) -> int | None:
    """Return the number of the first point that is not in the space, or None if all are."""
    rows = [{tuple(row) for row in axis.rows} for axis in axes]
    widths = [len(axis.rows[0]) if axis.rows else 1 for axis in axes]
    for number, point in enumerate(points):
        rest = list(point)
        for axis, known, width in zip(axes, rows, widths, strict=True):
            row, rest = tuple(rest[:width]), rest[width:]
            is_drawn = axis.interval and row and re.fullmatch(re.escape(axis.keys[0]) + r"=[-+\d.e]+", row[0])
            if not is_drawn and row not in known:
                return number
        if rest:
            return number
    return None
