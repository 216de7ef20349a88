"""Pictures of results. Each function gives a matplotlib figure; drawing.py makes pixels of them."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dlrun.output.drawing import COLOURS, DARK, GOOD, GREY, TRAIN, VAL, drawable, ink, new_figure, plain_ticks, scaled
from dlrun.spec import Table

SHARES = ("acc", "top5", "miou")  # metrics that cannot be above 1
CELLS = 500  # of a drawn matrix, on a side: more than it has pixels costs memory and shows nothing


def worth_drawing(rows: list[dict], windows: Sequence[dict], first: Sequence[str]) -> list[str]:
    """Metrics whose curve tells something, those in `first` before the others: two values at least, not all the same.

    A band's deviation (name_std) is drawn with its metric.
    """
    values: dict[str, list[list[float]]] = {}
    for source in (rows, windows):
        for key in dict.fromkeys(key for row in source for key in row):
            part, _, name = key.partition("/")
            if name and part in ("train", "val", "step"):
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
) -> object:
    """A metric of the train and val parts over the epochs, or frames (over="samples"), and thinly over the windows of
    steps within them. A star marks the best epoch, a line what counts as solved (goal), a band reaches one deviation
    (name_std) up and down where there is one. Logarithmic from two decades on.
    """
    figure, axes = new_figure()
    drawn = []
    for part, source, colour in (("step", windows, TRAIN), ("train", rows, TRAIN), ("val", rows, VAL)):
        key = f"{part}/{name}"
        points = [(row[over], row[key]) for row in source if key in row and math.isfinite(row[key])]
        if points and (part != "step" or len(points) > len(rows)):
            label = "train, within epochs" if part == "step" else part
            axes.plot(*zip(*points, strict=True), label=label, color=colour, **_style(len(points), part == "step"))
            drawn += [value for _, value in points]
        band = [(row[over], row[key], row[f"{key}_std"]) for row in rows if f"{key}_std" in row]
        if len(band) > 1:
            x, middle, spread = np.array(band).T
            label = f"{part} \u00b1 a standard deviation"
            axes.fill_between(x, middle - spread, middle + spread, color=colour, alpha=0.15, linewidth=0, label=label)
    _mark_best(axes, rows, name, best, over)
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
    """Few points are dots, and two have no line between them; many are a line."""
    line = {"linewidth": 0.8, "alpha": 0.45} if is_thin else {"linewidth": 1.5}
    dots = {"marker": "o", "markersize": 3 if is_thin else 4.5} if points < 30 else {}
    return line | dots | ({"linestyle": "none"} if points < 3 else {})


def _mark_best(axes: object, rows: list[dict], name: str, best: int | None, over: str) -> None:
    """A star on val's curve; where that has no point in the best epoch, a line across."""
    row = next((row for row in rows if row["epoch"] == best), None)
    if row is None:
        return
    value, label = row.get(f"val/{name}", math.nan), f"best epoch ({best})"
    if math.isfinite(value):
        star = {"marker": "*", "markersize": 13, "markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 5}
        axes.plot([row[over]], [value], color=DARK, linestyle="none", label=label, **star)
    else:
        axes.axvline(row[over], color=DARK, linestyle=(0, (1, 3)), linewidth=1.2, label=label)


def lines(series: dict[str, list[float]]) -> object:
    """Numbers over their places, from 1 on, a line for each label. Logarithmic from two decades on."""
    figure, axes = new_figure()
    for label, values in series.items():
        points = [(place, value) for place, value in enumerate(values, 1) if math.isfinite(value)]
        axes.plot(*zip(*points, strict=True), label=label, **_style(len(points))) if points else None
    scaled(axes, [value for values in series.values() for value in values if math.isfinite(value)])
    plain_ticks(axes.xaxis, whole=True)
    axes.grid()
    if axes.has_data():
        axes.legend()
    return figure


def confusion_matrix(matrix: np.ndarray, labels: tuple[str, ...]) -> object:
    """Rows: the true class; columns: the predicted one; shares of the row, counts as text where there is room.

    Of more than CELLS classes, neighbours share a cell.
    """
    labels, size = drawable(labels), len(labels)
    side = 9 if size > 20 else max(4.8, 0.55 * size + 1.5)
    figure, axes = new_figure(side, side)
    cells = _joined(matrix, -(-size // CELLS))
    shares = (cells / cells.sum(1, keepdims=True).clip(min=1)).astype(np.float32)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, extent=(-0.5, size - 0.5, size - 0.5, -0.5))
    axes.spines[:].set_visible(True)
    axes.set(xlabel="predicted", ylabel="true")
    if size <= 20:
        long = max(map(len, labels)) * size > 40
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks(range(size), labels, **slanted)
        axes.set_yticks(range(size), labels)
        for row, column in np.argwhere(matrix):
            colour = ink(picture.cmap(shares[row, column]))
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=9)
    axes.set_title(f"test: {matrix.trace() / max(1, matrix.sum()):.2%} right")
    return figure


def _joined(matrix: np.ndarray, count: int) -> np.ndarray:
    """Sums over squares of `count` rows and columns, the last ones smaller."""
    starts = np.arange(0, len(matrix), count)
    return np.add.reduceat(np.add.reduceat(matrix, starts, 0), starts, 1) if count > 1 else matrix


def decision_boundary(data: object, predict: Callable, labels: tuple[str, ...]) -> object:
    """The classes over the plane of two features, and the train samples: a colour and a marker each (book section 9.8).

    Two classes: the probability of the second, and the line where it is 0.5. More: the most likely class.
    """
    figure, axes = new_figure(7.2, 5.0)
    x, y = _all(data, "train")
    labels = drawable(labels)
    low, high = x.min(0) - 0.5, x.max(0) + 0.5
    across, up = np.meshgrid(*(np.linspace(a, b, 300, dtype=np.float32) for a, b in zip(low, high, strict=True)))
    p = _predict_at(data, predict, np.stack((across, up), -1).reshape(-1, 2))
    extent = (low[0], high[0], low[1], high[1])
    style = {"origin": "lower", "extent": extent, "aspect": "auto", "alpha": 0.4}
    if len(labels) == 2:
        surface = p[:, 1].reshape(across.shape)
        shade = axes.imshow(surface, cmap="coolwarm", vmin=0, vmax=1, interpolation="bilinear", **style)
        if surface.min() < 0.5 < surface.max():
            axes.contour(across, up, surface, [0.5], colors=DARK, linewidths=1)
        figure.colorbar(shade, ax=axes, label=f"probability of {labels[1]}")
        colours = ("#3b4cc0", "#b40426")  # the ends of its colours
    else:
        colours = [COLOURS[k % len(COLOURS)] for k in range(len(labels))]
        axes.imshow(p.argmax(1).reshape(across.shape), cmap=_listed(colours), vmin=0, vmax=len(labels) - 1, **style)
    for k, label in enumerate(labels):
        mine = x[y == k]
        axes.scatter(
            *mine.T, color=colours[k], marker="os^Dv"[k % 5], s=16, edgecolors="white", linewidths=0.4, label=label
        )
    names = drawable(data.spec.names, ("x1", "x2")) if len(data.spec.names) == 2 else ("x1", "x2")
    axes.set(xlabel=names[0], ylabel=names[1], xlim=extent[:2], ylim=extent[2:])
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.legend(loc="upper right", title="train")
    return figure


def fitted_line(data: object, predict: Callable) -> object:
    """Predictions over the one feature, with the train samples."""
    figure, axes = new_figure()
    x, y = _all(data, "train")
    line = np.linspace(x.min(), x.max(), 200, dtype=np.float32)[:, None]
    out = _predict_at(data, predict, line)
    for k in range(y.shape[1]):
        number = f" {k + 1}" if y.shape[1] > 1 else ""
        dots, fit = (TRAIN, VAL) if k == 0 else (COLOURS[2 * k % 10], COLOURS[(2 * k + 1) % 10])
        axes.scatter(x[:, 0], y[:, k], s=14, alpha=0.5, color=dots, linewidths=0, label=f"train{number}")
        axes.plot(line[:, 0], out[:, k], color=fit, linewidth=1.8, label=f"fit{number}")
    axes.set(xlabel=drawable(data.spec.names[:1] or ["x"], ["x"])[0], ylabel=f"y{_unit(data.spec)}")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.grid()
    axes.legend()
    return figure


def residuals(y: np.ndarray, out: np.ndarray, spec: Table) -> object:
    """Predicted against true values, and how the errors are spread, on the test part."""
    figure, (left, right) = new_figure(9.6, 4.4, 2)
    unit = _unit(spec)
    ends = [min(y.min(), out.min()), max(y.max(), out.max())]
    left.plot(ends, ends, color=GREY, linewidth=1, label="predicted = true")
    left.scatter(y, out, s=16, alpha=0.6, color=TRAIN, linewidths=0)
    left.set(xlabel=f"true{unit}", ylabel=f"predicted{unit}", title="predicted against true, test")
    left.legend(loc="upper left")
    right.hist((out - y).ravel(), bins=min(30, max(5, len(y) // 4)), color=TRAIN, edgecolor="white", linewidth=0.5)
    right.axvline(0, color=DARK, linewidth=1)
    right.set(xlabel=f"predicted - true{unit}", ylabel="samples")
    right.set_title(f"mean absolute error {np.abs(out - y).mean():.4g}{unit}")
    for axes in (left, right):
        plain_ticks(axes.xaxis, most=5)
        plain_ticks(axes.yaxis, most=6)
        axes.grid()
    return figure


def _unit(spec: Table) -> str:
    unit = "".join(drawable([spec.unit], [""]))
    return f" [{unit}]" if unit else ""


def _predict_at(data: object, predict: Callable, points: np.ndarray) -> np.ndarray:
    device = next(iter(data.batches("val")))[0].device
    return predict(torch.from_numpy(points).to(device)).cpu().numpy()


def _listed(colours: list[str]) -> object:
    from matplotlib.colors import ListedColormap

    return ListedColormap(colours)


def _all(data: object, split: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [(x.cpu().numpy(), y.cpu().numpy()) for x, y in data.batches(split)]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
