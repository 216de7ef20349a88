"""Drawings of several images side by side, each below its name."""

from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

from dlrun.output.drawing import drawable, ink, new_grid, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELLS = 64  # images of at most this number of pixels show their numbers


def panels(images: dict[str, np.ndarray], columns: int | None = None, size: float = 2.1) -> "Figure":
    """Draw images (C, H, W), or (H, W, 3) colours from 0 to 1, each by its own range of values.

    columns: by default as many as rows, about. size: inches of a panel.
    """
    columns = columns or ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    figure, places = new_grid(size * columns, (size + 0.25) * rows, rows, columns)
    for axes, title, image in zip(places, drawable(images, most=40), images.values(), strict=False):
        draw_image(axes, image)
        axes.set_title(title, fontsize=9)
    for axes in places:
        axes.set_axis_off()
    return figure


def draw_image(axes: "Axes", image: np.ndarray) -> None:
    """Draw three channels in colour and any other number by their mean in grey; values around 0 with 0 in the middle."""
    is_signed = abs(image.mean()) < 0.1 * image.std()
    if len(image) == 3 and not is_signed:
        axes.imshow(np.moveaxis(image, 0, -1).clip(0, 1), interpolation="nearest")
        return
    grey = image.mean(0)
    most = np.quantile(np.abs(grey), 0.99) or 1.0 if grey.size > CELLS else np.abs(grey).max() or 1.0
    low, high = (-most, most) if is_signed else (grey.min(), max(grey.max(), grey.min() + 1e-9))
    drawn = axes.imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    if grey.size <= CELLS:
        for (row, column), value in np.ndenumerate(grey):
            text = short(float(f"{value:.4g}"))
            colour = ink(drawn.cmap(drawn.norm(value)))
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
