"""The axes of a sweep's space, and all combinations of their values."""

import re
from dataclasses import dataclass
from itertools import product
from math import prod

from dlrun.errors import UserError

MOST = 10_000  # values of an axis, and jobs of a grid: after each job the state and the tables of all are written


@dataclass
class Axis:
    """One parameter, or several that are zipped. rows: the overrides of each of its values; one row: it is fixed.

    interval: (low, high, is_log, is_int) instead of rows. argument: as it was written.
    """

    keys: list[str]
    rows: list[list[str]]
    interval: tuple[float, float, bool, bool] | None
    argument: str

    @property
    def name(self) -> str:
        return ",".join(key.lstrip("+") for key in self.keys)

    @property
    def is_swept(self) -> bool:
        return self.interval is not None or len(self.rows) > 1

    def end(self, high: bool) -> list[str]:
        """The overrides of its first value, or its last."""
        if self.interval:
            return [f"{self.keys[0]}={self.interval[1 if high else 0]!r}"]
        return self.rows[-1 if high else 0]


def grid(axes: list[Axis]) -> list[list[str]]:
    """All combinations, the last axis changing fastest. Raises UserError where an axis has no end."""
    for axis in axes:
        if axis.interval:
            raise UserError(
                f"{axis.argument}: a grid does not support sweep type INTERVAL: it has no end\n"
                "  expected values, as in 0.1,0.01, or a search: sweep=optuna"
            )
    if (jobs := prod(len(axis.rows) for axis in axes)) > MOST:
        sizes = " x ".join(f"{axis.name}: {len(axis.rows):,}" for axis in axes if axis.is_swept)
        raise UserError(
            f"the sweep has {jobs:,} jobs ({sizes})\n"
            f"  expected at most {MOST:,}: fewer values, several sweeps, or a search: sweep=optuna sweep.trials=100"
        )
    return [[override for row in point for override in row] for point in product(*(axis.rows for axis in axes))]


def outside(axes: list[Axis], points: list[list[str]]) -> int | None:
    """Which of these overrides are the first that are no point of the space; None where all are."""
    rows = [{tuple(row) for row in axis.rows} for axis in axes]
    widths = [len(axis.rows[0]) if axis.rows else 1 for axis in axes]
    for number, point in enumerate(points):
        rest = list(point)
        for axis, known, width in zip(axes, rows, widths, strict=True):
            part, rest = tuple(rest[:width]), rest[width:]
            is_drawn = axis.interval and part and re.fullmatch(re.escape(axis.keys[0]) + r"=[-+\d.e]+", part[0])
            if not is_drawn and part not in known:
                return number
        if rest:
            return number
    return None
