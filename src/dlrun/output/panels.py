"""Drawings of several images side by side, each below its name."""

from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

from dlrun.output.figures import COLOURS, DARK, GREY, drawable, ink, new_figure, new_grid, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = "rows.npz"  # in a run's folder: the rows of images of its report
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
    """Draw three channels in colour, another number by their mean in grey, and values around 0 with 0 in the middle."""
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
            colour = ink(drawn.cmap(np.asarray(drawn.norm(value)).item()))
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour an image (C, H, W) in [0, 1] by heat (H, W) in [0, 1]: (3, H, W)."""
    from matplotlib import colormaps

    colours = np.moveaxis(colormaps["inferno"](heat)[..., :3], -1, 0)
    return 0.45 * image.mean(0, keepdims=True) + 0.55 * colours


def rows_of_maps(layers: dict[str, np.ndarray]) -> "Figure":
    """Draw a row of maps (maps, H, W) for each layer, below its name, each map by its own range of values.

    Images (maps, 3, H, W) are drawn in colour, and (maps, 1, H, W) as maps.
    """
    columns = max(map(len, layers.values()))
    figure, places = new_grid(1.15 * columns, 1.35 * len(layers), len(layers), columns)
    for axes in places:
        axes.set_axis_off()
    for row, (name, maps) in enumerate(layers.items()):
        for axes, values in zip(places[row * columns :], maps, strict=False):
            if values.ndim == 3:
                values = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
            axes.imshow(values, cmap="viridis", interpolation="nearest")
        title = places[row * columns].annotate(
            name, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=9
        )
        title.set_in_layout(False)  # it reaches over several columns; a title of the axes would widen the first one
    return figure


def image_rows(rows: dict[str, np.ndarray]) -> "Figure":
    """Draw strips of images (H, W, C), bytes, below each other, each below its label."""
    width = 7.2
    heights = [width * row.shape[0] / row.shape[1] + 0.28 for row in rows.values()]
    figure, _ = new_figure(width, sum(heights))
    figure.clear()
    places = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, label, row in zip(places, drawable(rows, most=90), rows.values(), strict=True):
        axes.imshow(row.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(label, fontsize=9, loc="left", pad=3)
        axes.set_axis_off()
    return figure


def words_and_gates(words: list[str], curves: dict[str, np.ndarray], label: str, p: np.ndarray) -> "Figure":
    """Draw curves over the words of a text, above the probability of a label after each word."""
    labels = drawable(words, most=14)
    height = 4.1 + 0.055 * max(map(len, labels))  # inches; the words stand upright below the curves
    figure, _ = new_figure(max(6.4, 0.17 * len(words) + 1), height)
    figure.clear()
    rows = figure.subplots(2 if curves else 1, 1, sharex=True, squeeze=False)[:, 0]
    upper, lower = rows[0], rows[-1]
    for k, (name, values) in enumerate(curves.items()):
        upper.plot(values, color=COLOURS[k], marker=".", linewidth=1.2, label=name)
    if curves:
        upper.set(ylabel="mean over the units")
        upper.grid()
        upper.legend(loc="upper left", bbox_to_anchor=(0, 1.25), ncols=3)
    lower.plot(p, color=DARK, marker=".", linewidth=1.2)
    lower.axhline(0.5, color=GREY, linewidth=0.8)
    lower.set(ylabel=f"p of {drawable([label], ['the class'])[0]}", ylim=(-0.02, 1.02))
    lower.set_xticks(range(len(words)), labels, rotation=90, fontsize=7)
    lower.grid()
    return figure
