"""Drawings of data before anything learns from it: columns of tables against each other, images with their labels."""

from typing import TYPE_CHECKING

import numpy as np

from dlrun.output.figures import COLOURS, TRAIN, drawable, new_grid, plain_ticks
from dlrun.output.panels import draw_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES = 10  # most that have colours of their own


def pairs(columns: dict[str, np.ndarray], y: np.ndarray | None = None, labels: tuple[str, ...] = ()) -> "Figure":
    """Columns of numbers (N,) against each other, each with its histogram on the diagonal (the book, figure 6.16).

    y: classes of the rows (N,), which colour them; labels: the classes' names.
    """
    names, count = drawable(columns, most=20), len(columns)
    figure, places = new_grid(1.9 * count + 0.6, 1.9 * count + 0.2, count, count)
    groups = [(TRAIN, np.ones(len(next(iter(columns.values()))), bool))]
    if y is not None and len(labels) <= CLASSES:
        groups = [(COLOURS[k], y == k) for k in range(len(labels))]
    for i, (across, values) in enumerate(columns.items()):
        for j, (up, others) in enumerate(columns.items()):
            axes = places[j * count + i]
            heights = axes.twinx() if across == up else None  # so that the histogram's axis is not that of the values
            for colour, rows in groups:
                if heights is not None:
                    heights.hist(values[rows], bins=20, range=(values.min(), values.max()), color=colour, alpha=0.7)
                    heights.set_axis_off()
                else:
                    axes.scatter(values[rows], others[rows], s=5, color=colour, alpha=0.6, linewidths=0)
            axes.set(xlim=_ends(values), ylim=_ends(others))
            for axis in (axes.xaxis, axes.yaxis):
                plain_ticks(axis, most=4)
            axes.set(xlabel=names[i] if j == count - 1 else "", ylabel=names[j] if i == 0 else "")
            axes.label_outer(remove_inner_ticks=True)
            axes.tick_params(labelsize=7)
    if len(groups) > 1:
        from matplotlib.patches import Patch

        key = [Patch(color=colour, label=name) for (colour, _), name in zip(groups, drawable(labels), strict=True)]
        figure.legend(handles=key, loc="outside upper center", ncols=5)
    return figure


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def samples(images: np.ndarray, titles: list[str], columns: int) -> "Figure":
    """Images (N, C, H, W) in [0, 1] in rows, each below its title."""
    rows = -(-len(images) // columns)
    figure, places = new_grid(1.3 * columns, 1.5 * rows, rows, columns)
    for axes, image, title in zip(places, images, drawable(titles, most=16), strict=False):
        draw_image(axes, image)
        axes.set_title(title, fontsize=8)
    for axes in places:
        axes.set_axis_off()
    return figure
