"""Kinds of samples in arrays (images, rows, series), and their statistics."""

from typing import Literal

import numpy as np

from dlrun.data.images.levels import Levels, ValueRange, levels_of, to_bytes
from dlrun.errors import DataError

Kind = Literal["images", "rows", "series"]
BLOCK = 4096  # samples that are converted at once: the whole may be half of the memory


def kind_of(x: np.ndarray) -> Kind:
    """Decide by shape: rows (N,), (N, features); series (N, length, features); images 4D, or (N, H, W) of bytes."""
    if x.ndim in (1, 2):
        return "rows"
    return "images" if x.ndim == 4 or x.ndim == 3 and x.dtype == np.uint8 else "series"


def shaped(x: np.ndarray, kind: Kind) -> np.ndarray:
    """Return rows (N, features), series (N, length, features) or images (N, C, H, W). Raises DataError."""
    if kind == "rows":
        return x.reshape(len(x), -1)
    if kind == "series" and x.ndim in (2, 3):
        return x[:, :, None] if x.ndim == 2 else x
    if kind == "images" and x.ndim == 3:
        return x[:, None]
    if kind == "images" and x.ndim == 4 and x.shape[3] in (1, 3):
        return np.moveaxis(x, 3, 1)
    if kind == "images" and x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    expected = {
        "images": "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels",
        "series": "(N, length) or (N, length, features)",
    }[kind]
    raise DataError(f"x has the shape {x.shape}\n  expected {kind}: {expected}; data.kind=rows takes any shape")


def levels_in(x: np.ndarray) -> Levels:
    """Return the numbers that become black and white in images; none for bytes."""
    if x.dtype == np.uint8:
        return {}
    kind = "real" if x.dtype.kind == "f" else "whole"
    return levels_of([ValueRange(kind, x.min().item(), x.max().item())])


def as_bytes(x: np.ndarray, levels: Levels) -> np.ndarray:
    """Scale images to bytes by the levels of their kind of numbers."""
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    out, ends = np.empty(x.shape, np.uint8), levels.get("real" if x.dtype.kind == "f" else "whole")
    if ends is None:
        raise DataError(
            f"the images hold numbers of type {x.dtype}\n  expected {' or '.join(levels) or 'uint8'} numbers"
        )
    for first in range(0, len(x), BLOCK):
        out[first : first + BLOCK] = to_bytes(x[first : first + BLOCK], ends)
    return out


def statistics(x: np.ndarray, rows: np.ndarray, axes: tuple[int, ...]) -> tuple[list[float], list[float]]:
    """Return the means and standard deviations (divisor n) of some samples over axes; 1 for a constant."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    first = x[rows[:1]].astype(np.float64).mean(axes, keepdims=True)  # sums of differences lose no digits
    for start in range(0, len(rows), BLOCK):
        block = x[rows[start : start + BLOCK]].astype(np.float64) - first
        count += block.size
        total, squares = total + block.sum(axes), squares + (block**2).sum(axes)
    count //= total.size
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    constant = std <= 1e-12 * np.abs(mean + first.reshape(mean.shape))
    return (mean + first.reshape(mean.shape)).tolist(), np.where(constant, 1.0, std).tolist()


def standardised(x: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    """Standardise the last axis: float32, of the shape of x."""
    out = np.empty(x.shape, np.float32)
    for first in range(0, len(x), BLOCK):
        out[first : first + BLOCK] = (x[first : first + BLOCK].astype(np.float64) - mean) / std
    return out
