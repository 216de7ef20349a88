"""Which numbers of a set's pictures become black and white, where their files hold more than bytes.

One answer for the whole set: a scale for each picture would make all equally bright. No torch.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

WIDTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners give, in files of 16 or 32
Levels = dict[str, tuple[float, float]]  # by the kind of numbers: what becomes 0, and what becomes 255


class Held(NamedTuple):
    """kind: "whole" or "real" numbers. low, high: the least and the greatest of a picture, or as its file declares."""

    kind: str
    low: float
    high: float


def held(values: np.ndarray, declared: object = None) -> Held:
    """What a picture holds. declared: the greatest number by its file, if it says. Raises ValueError for NaN, inf."""
    low, high = values.min().item(), values.max().item()
    if values.dtype.kind == "f" and not np.isfinite([low, high]).all():
        raise ValueError("it holds numbers that are not finite")
    if isinstance(declared, int | float) and high < declared < 2**32:
        high = type(high)(declared)
    return Held("real" if values.dtype.kind == "f" else "whole", low, high)


def levels_of(pictures: Iterable[Held]) -> Levels:
    """The levels of a set. Whole numbers >= 0 are of the fewest bits in WIDTHS that hold them; real ones of [0, 1],
    [-1, 1] or [0, 255], the first that holds them. Others go from the least to the greatest.
    """
    pictures, found = list(pictures), {}
    for kind in sorted({picture.kind for picture in pictures}):
        low = min(picture.low for picture in pictures if picture.kind == kind)
        high = max(picture.high for picture in pictures if picture.kind == kind)
        if kind == "real":
            ranges = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
            found[kind] = next((r for r in ranges if r[0] <= low and high <= r[1]), (low, high))
        elif low < 0:
            found[kind] = low, high
        else:
            found[kind] = 0, 2 ** next((bits for bits in WIDTHS if high < 2**bits), high.bit_length()) - 1
    return found


def to_bytes(values: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """uint8. Whole numbers of n bits keep their upper 8; what is beyond the levels is cut off."""
    low, high = levels
    if values.dtype.kind == "f":
        scaled = np.rint((values.astype(np.float64) - low) * (255 / ((high - low) or 1)))
    else:
        scaled = (values.astype(np.int64) - int(low)) * 256 // (int(high) - int(low) + 1)
    return scaled.clip(0, 255).astype(np.uint8)


def told(levels: Levels) -> str:
    """What was done, for the run's header; "" where all were bytes."""
    names = {"whole": "whole numbers", "real": "real numbers"}
    each = [f"{names[kind]} from {low:g} to {high:g}" for kind, (low, high) in sorted(levels.items())]
    return f"; of pictures that hold more than bytes, {' and '.join(each)} were scaled to 0 .. 255" if each else ""
