"""What a task, a network or a data set reports at the end of a run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Report:
    """The parts of a report, each by name.

    figures: functions that return a matplotlib figure. lines: by plot, lists of numbers by label. videos: functions
    that return frames and frames per second, None if no video is wanted, or the reason why there is none. files: texts
    by file name, for the run's folder. numbers: entries of the summary; large matrices (NumPy) become files. table:
    what the terminal shows of these at the end, of a sweep for each of its jobs: rows of cells, the first one its head.
    rows: of images, by label, each a strip (H, W, C) of bytes; a sweep draws those of its jobs on one sheet.
    """

    figures: dict[str, Callable[[], Any]] = field(default_factory=dict)
    lines: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    videos: dict[str, Callable[[], Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    table: list[list[str]] = field(default_factory=list)
    rows: "dict[str, np.ndarray]" = field(default_factory=dict)
