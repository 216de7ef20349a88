"""Plots of results. Each function returns a matplotlib figure; figures.py renders it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.output.figures import COLOURS, DARK, GOOD, GREY, TRAIN, VAL, drawable, ink, new_figure, plain_ticks, scaled
from dlrun.output.rows import is_of_tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARES = (
    "acc",
    "top5",
    "miou",
    "f1",
    "precision",
    "recall",
    "balanced_acc",
    "auroc",
    "average_precision",
    "ece",
)  # metrics that cannot exceed 1
CELLS = 500  # most cells of a drawn matrix on a side: more cells than pixels cost memory and show nothing


def worth_drawing(rows: list[dict], windows: Sequence[dict], first: Sequence[str]) -> list[str]:
    """Names of metrics with at least two values that are not all the same, those in `first` before the others.

    rows: of epochs. windows: rows of the steps between them. Norms of tensors have a figure of their own. A
    deviation (name_std) is drawn as a band of its metric.
    """
    values: dict[str, list[list[float]]] = {}
    for source in (rows, windows):
        for key in dict.fromkeys(key for row in source for key in row):
            prefix, _, name = key.partition("/")
            if name and prefix in ("train", "val", "step") and not is_of_tensor(name):
                line = [row[key] for row in source if key in row and math.isfinite(row[key])]
                values.setdefault(name, []).append(line)
    names = sorted(name for name in values if not (name.endswith("_std") and name.removesuffix("_std") in values))
    names.sort(key=lambda name: first.index(name) if name in first else len(first))
    several = [name for name in names if max(map(len, values[name])) > 1]
    return [name for name in several if len({value for line in values[name] for value in line}) > 1]


def curves(
    rows: list[dict],
    name: str,
    best: int | None,
    windows: Sequence[dict] = (),
    over: str = "epoch",
    goal: float | None = None,
    stopped: bool = False,
) -> "Figure":
    """Curves of a metric on train and val, over epochs or over frames (over="samples").

    A thin curve shows the windows of steps within epochs, a star the best epoch, a dashed line the value that counts as
    solved (goal), a dotted one the epoch of early stopping (stopped), and a band one standard deviation (name_std) if
    there is one.
    """
    figure, axes = new_figure()
    drawn = []
    for prefix, source, colour in (("step", windows, TRAIN), ("train", rows, TRAIN), ("val", rows, VAL)):
        key = f"{prefix}/{name}"
        points = [(row[over], row[key]) for row in source if key in row and math.isfinite(row[key])]
        if points and (prefix != "step" or len(points) > len(rows)):
            label = "train, within epochs" if prefix == "step" else prefix
            axes.plot(*zip(*points, strict=True), label=label, color=colour, **_style(len(points), prefix == "step"))
            drawn += [value for _, value in points]
        band = [(row[over], row[key], row[f"{key}_std"]) for row in rows if f"{key}_std" in row]
        if len(band) > 1:
            x, middle, spread = np.array(band).T
            label = f"{prefix} \u00b1 1 standard deviation"
            axes.fill_between(x, middle - spread, middle + spread, color=colour, alpha=0.15, linewidth=0, label=label)
    _mark_best(axes, rows, name, best, over)
    if stopped:
        last = rows[-1]
        axes.axvline(last[over], color=GREY, linestyle=":", linewidth=1.5, label=f"stopped (epoch {last['epoch']})")
    if goal is not None:
        axes.axhline(goal, color=GOOD, linestyle="--", linewidth=1.2, label=f"solved ({goal:g})")
    scaled(axes, drawn)
    if name in SHARES:
        axes.set_ylim(top=min(1.005, axes.get_ylim()[1]))
    axes.set(xlabel="frames" if over == "samples" else over, title=name)
    plain_ticks(axes.xaxis, whole=True)
    axes.grid()
    if axes.has_data():
        axes.legend()
    return figure


def _style(points: int, is_thin: bool = False) -> dict:
    """Plot style by the number of points: dots without a line up to two, dots with a line below 30, then a line."""
    line = {"linewidth": 0.8, "alpha": 0.45} if is_thin else {"linewidth": 1.5}
    dots = {"marker": "o", "markersize": 3 if is_thin else 4.5} if points < 30 else {}
    return line | dots | ({"linestyle": "none"} if points < 3 else {})


def _mark_best(axes: "Axes", rows: list[dict], name: str, best: int | None, over: str) -> None:
    """Mark the best epoch by a star on val's curve, or by a vertical line if val has no point there."""
    row = next((row for row in rows if row["epoch"] == best), None)
    if row is None:
        return
    value, label = row.get(f"val/{name}", math.nan), f"best epoch ({best})"
    if math.isfinite(value):
        star: dict[str, Any] = {"marker": "*", "markersize": 13, "markeredgecolor": "white", "zorder": 5}
        axes.plot([row[over]], [value], color=DARK, linestyle="none", markeredgewidth=0.8, label=label, **star)
    else:
        axes.axvline(row[over], color=DARK, linestyle=(0, (1, 3)), linewidth=1.2, label=label)


def gradient_norms(rows: Sequence[dict]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """The curves of trainer.gradient_norms: for before and after clipping, (step, norm) by parameter."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {"grad": {}, "clipped": {}}
    for row in rows:
        for key, value in row.items():
            _, kind, name = (*key.split("/", 2), "", "")[:3]
            if name and kind in curves and value > 0 and math.isfinite(value):
                curves[kind].setdefault(name, []).append((row["step"], value))
    return {kind: by_name for kind, by_name in curves.items() if by_name}


def norm_curves(curves: dict[str, dict[str, list[tuple[float, float]]]]) -> "Figure":
    """A panel for each kind of norm, a line for each of the parameters with the largest norms."""
    figure, panels = new_figure(5.4 * len(curves), 4.4, len(curves))
    names = sorted(curves["grad"], key=lambda name: -max(value for _, value in curves["grad"][name]))[: len(COLOURS)]
    titles = {"grad": "before clipping" if len(curves) > 1 else "by parameter", "clipped": "after clipping"}
    for axes, (kind, by_name) in zip(np.atleast_1d(panels), curves.items(), strict=True):
        lines = {name: by_name[name] for name in names if name in by_name}
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), label=name, **_style(len(points)))
        scaled(axes, [value for points in lines.values() for _, value in points])
        axes.set(xlabel="step", title=f"gradient norm {titles[kind]}")
        plain_ticks(axes.xaxis, whole=True)
        axes.grid()
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def lines(series: dict[str, list[float]]) -> "Figure":
    """A line for each label: its numbers over their positions, counted from 1."""
    figure, axes = new_figure()
    for label, values in series.items():
        points = [(position, value) for position, value in enumerate(values, 1) if math.isfinite(value)]
        axes.plot(*zip(*points, strict=True), label=label, **_style(len(points))) if points else None
    scaled(axes, [value for values in series.values() for value in values if math.isfinite(value)])
    plain_ticks(axes.xaxis, whole=True)
    axes.grid()
    if axes.has_data():
        axes.legend()
    return figure


def confusion_matrix(matrix: np.ndarray, labels: tuple[str, ...]) -> "Figure":
    """A confusion matrix (C, C) of counts: rows are true classes, columns predicted ones; colours are shares of a row.

    Up to 20 classes are labelled and show their counts. With more than CELLS classes, neighbours share a cell.
    """
    names, size = drawable(labels), len(labels)
    side = 9 if size > 20 else max(4.8, 0.55 * size + 1.5)
    figure, axes = new_figure(side, side)
    cells = _joined(matrix, -(-size // CELLS))
    shares = (cells / cells.sum(1, keepdims=True).clip(min=1)).astype(np.float32)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, extent=(-0.5, size - 0.5, size - 0.5, -0.5))
    axes.spines[:].set_visible(True)
    axes.set(xlabel="predicted", ylabel="true")
    if size <= 20:
        long = max(map(len, names)) * size > 40
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks(range(size), names, **slanted)
        axes.set_yticks(range(size), names)
        for row, column in np.argwhere(matrix):
            colour = ink(image.cmap(shares[row, column]))
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=9)
    axes.set_title(f"test: {matrix.trace() / max(1, matrix.sum()):.2%} right")
    return figure


def _joined(matrix: np.ndarray, count: int) -> np.ndarray:
    """Sums over blocks of `count` rows and columns; the last ones may be smaller."""
    starts = np.arange(0, len(matrix), count)
    return np.add.reduceat(np.add.reduceat(matrix, starts, 0), starts, 1) if count > 1 else matrix
