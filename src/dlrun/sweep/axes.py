"""The axes of a sweep's space, and all combinations of their values."""

from dataclasses import dataclass
from itertools import product

from dlrun.errors import UserError


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
    return [[override for row in point for override in row] for point in product(*(axis.rows for axis in axes))]
