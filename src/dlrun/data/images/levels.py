"""Levels: the numbers that become black (0) and white (255) in images with more than 8 bits a value.

The levels are those of the whole set, because a scale per image would make all images equally bright. No torch.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

WIDTHS = (8, 10, 12, 14, 16)  # bits per value of cameras and scanners, in files of 16 or 32 bits
Levels = dict[str, tuple[float, float]]  # by kind of numbers: the number that becomes 0, and the one that becomes 255


class ValueRange(NamedTuple):
    """An image's range. kind: "whole" or "real" numbers. low, high: the least and greatest, or as the file declares."""

    kind: str
    low: float
    high: float


def value_range(values: np.ndarray, declared: object = None) -> ValueRange:
    """Return the range of an image. declared: the greatest number by the file's tags, if any.

    Raises ValueError for NaN and infinity.
    """
    low, high = values.min().item(), values.max().item()
    if values.dtype.kind == "f" and not np.isfinite([low, high]).all():
        raise ValueError("it holds numbers that are not finite")
    if isinstance(declared, int | float) and high < declared < 2**32:
        high = type(high)(declared)
    return ValueRange("real" if values.dtype.kind == "f" else "whole", low, high)


def levels_of(images: Iterable[ValueRange]) -> Levels:
    """Return the levels of a set of images.

    Whole numbers >= 0: the range of the fewest bits in WIDTHS that contains them. Real numbers: the first of [0, 1],
    [-1, 1] and [0, 255] that contains them. Otherwise: from the least to the greatest number.
    """
    images = list(images)
    levels: Levels = {}
    for kind in sorted({image.kind for image in images}):
        low = min(image.low for image in images if image.kind == kind)
        high = max(image.high for image in images if image.kind == kind)
        if kind == "real":
            ranges = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
            levels[kind] = next((r for r in ranges if r[0] <= low and high <= r[1]), (low, high))
        elif low < 0:
            levels[kind] = low, high
        else:
            levels[kind] = 0, 2 ** next((bits for bits in WIDTHS if high < 2**bits), int(high).bit_length()) - 1
    return levels


def to_bytes(values: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Scale numbers to uint8. Whole numbers of n bits keep their upper 8 bits. Values outside are clipped."""
    low, high = levels
    if values.dtype.kind == "f":
        scaled = np.rint((values.astype(np.float64) - low) * (255 / ((high - low) or 1)))
    else:
        scaled = (values.astype(np.int64) - int(low)) * 256 // (int(high) - int(low) + 1)
    return scaled.clip(0, 255).astype(np.uint8)


def describe_levels(levels: Levels) -> str:
    """Describe the scaling for the run's header; "" if all images hold bytes."""
    names = {"whole": "whole numbers", "real": "real numbers"}
    ranges = [f"{names[kind]} from {low:g} to {high:g}" for kind, (low, high) in sorted(levels.items())]
    return f"; in images of more than 8 bits, {' and '.join(ranges)} were scaled to 0 .. 255" if ranges else ""
