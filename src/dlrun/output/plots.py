"""Pictures of results. Each function gives a matplotlib figure; matplotlib is imported when the first one is drawn."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dlrun.spec import Table

SHARES = ("acc", "top5")  # metrics that cannot be above 1
CELLS = 500  # of a drawn matrix, on a side: more than it has pixels costs memory and shows nothing


def new_figure(width: float = 6.4, height: float = 4.8, columns: int = 1) -> tuple:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no windows, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def curves(
    rows: list[dict],
    name: str,
    best: int | None,
    windows: Sequence[dict] = (),
    over: str = "epoch",
    goal: float | None = None,
) -> object:
    """A metric of the train and val parts over the epochs, or frames (over="samples"), and thinly over the windows of
    steps within them. Lines mark the best epoch and what counts as solved (goal), a band reaches one deviation
    (name_std) up and down where there is one. Logarithmic from two decades on.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure()
    drawn = []
    parts = (("step", windows, "tab:blue"), ("train", rows, "tab:blue"), ("val", rows, "tab:orange"))
    for part, source, colour in parts:
        key = f"{part}/{name}"
        points = [(row[over], row[key]) for row in source if key in row and math.isfinite(row[key])]
        if points:
            style = {"marker": "."} if len(points) < 30 else {"linewidth": 1}
            style = {"linewidth": 0.8, "alpha": 0.4} if part == "step" else style
            axes.plot(*zip(*points, strict=True), label=part, color=colour, **style)
            drawn += [value for _, value in points]
        band = [(row[over], row[key], row[f"{key}_std"]) for row in rows if f"{key}_std" in row]
        if band:
            x, middle, spread = np.array(band).T
            label = f"{part}, a standard deviation"
            axes.fill_between(x, middle - spread, middle + spread, color=colour, alpha=0.2, linewidth=0, label=label)
    if best is not None:
        at = next((row[over] for row in rows if row["epoch"] == best), best)
        axes.axvline(at, color="grey", linestyle=":", linewidth=1, label=f"best (epoch {best})")
    if goal is not None:
        axes.axhline(goal, color="tab:green", linestyle="--", linewidth=1, label=f"solved ({goal:g})")
    if drawn and min(drawn) > 0 and max(drawn) >= 100 * min(drawn):
        axes.set_yscale("log")
    if name in SHARES:
        axes.set_ylim(top=min(1.005, axes.get_ylim()[1]))
    axes.set(xlabel="frames" if over == "samples" else over, ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)
    if axes.has_data():
        axes.legend()
    return figure


def lines(series: dict[str, list[float]]) -> object:
    """Numbers over their places, from 1 on, a line for each label. Logarithmic from two decades on."""
    figure, axes = new_figure()
    for label, values in series.items():
        points = [(place, value) for place, value in enumerate(values, 1) if math.isfinite(value)]
        axes.plot(*zip(*points, strict=True), marker=".", label=label) if points else None
    drawn = [value for values in series.values() for value in values if math.isfinite(value)]
    if drawn and min(drawn) > 0 and max(drawn) >= 100 * min(drawn):
        axes.set_yscale("log")
    axes.grid(alpha=0.25)
    if axes.has_data():
        axes.legend()
    return figure


def confusion_matrix(matrix: np.ndarray, labels: tuple[str, ...]) -> object:
    """Rows: the true class; columns: the predicted one; shares of the row, counts as text where there is room.

    Of more than CELLS classes, neighbours share a cell.
    """
    size = len(labels)
    side = 9 if size > 20 else max(4.8, 0.55 * size + 1.5)
    figure, axes = new_figure(side, side)
    cells = _joined(matrix, -(-size // CELLS))
    shares = (cells / cells.sum(1, keepdims=True).clip(min=1)).astype(np.float32)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, extent=(-0.5, size - 0.5, size - 0.5, -0.5))
    axes.set(xlabel="predicted", ylabel="true")
    if size <= 20:
        long = max(map(len, labels)) * size > 40
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks(range(size), labels, **slanted)
        axes.set_yticks(range(size), labels)
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
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
    figure, axes = new_figure(7.2)
    x, y = _all(data, "train")
    low, high = x.min(0) - 0.5, x.max(0) + 0.5
    across, up = np.meshgrid(*(np.linspace(a, b, 300, dtype=np.float32) for a, b in zip(low, high, strict=True)))
    p = _predict_at(data, predict, np.stack((across, up), -1).reshape(-1, 2))
    extent = (low[0], high[0], low[1], high[1])
    style = {"origin": "lower", "extent": extent, "aspect": "auto", "alpha": 0.4}
    if len(labels) == 2:
        surface = p[:, 1].reshape(across.shape)
        shade = axes.imshow(surface, cmap="coolwarm", vmin=0, vmax=1, interpolation="bilinear", **style)
        if surface.min() < 0.5 < surface.max():
            axes.contour(across, up, surface, [0.5], colors="black", linewidths=1)
        figure.colorbar(shade, ax=axes, label=f"probability of {labels[1]}")
        colours = ("tab:blue", "tab:red")
    else:
        colours = [f"C{k % 10}" for k in range(len(labels))]
        axes.imshow(p.argmax(1).reshape(across.shape), cmap=_listed(colours), vmin=0, vmax=len(labels) - 1, **style)
    for k, label in enumerate(labels):
        mine = x[y == k]
        axes.scatter(
            *mine.T, color=colours[k], marker="os^Dv"[k % 5], s=16, edgecolors="white", linewidths=0.4, label=label
        )
    names = data.spec.names if len(data.spec.names) == 2 else ("x1", "x2")
    axes.set(xlabel=names[0], ylabel=names[1], xlim=extent[:2], ylim=extent[2:])
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
        axes.scatter(x[:, 0], y[:, k], s=14, alpha=0.6, color=f"C{2 * k}", label=f"train{number}")
        axes.plot(
            line[:, 0], out[:, k], color="tab:red" if k == 0 else f"C{2 * k + 1}", linewidth=1, label=f"fit{number}"
        )
    unit = f" [{data.spec.unit}]" if data.spec.unit else ""
    axes.set(xlabel=data.spec.names[0] if data.spec.names else "x", ylabel=f"y{unit}")
    axes.grid(alpha=0.25)
    axes.legend()
    return figure


def residuals(y: np.ndarray, out: np.ndarray, spec: Table) -> object:
    """Predicted against true values, and how the errors are spread, on the test part."""
    figure, (left, right) = new_figure(9.6, 4.4, 2)
    unit = f" [{spec.unit}]" if spec.unit else ""
    ends = [min(y.min(), out.min()), max(y.max(), out.max())]
    left.plot(ends, ends, color="grey", linewidth=1, label="predicted = true")
    left.scatter(y, out, s=14, alpha=0.6)
    left.set(
        xlabel=f"true{unit}",
        ylabel=f"predicted{unit}",
        title=f"test: mean absolute error {np.abs(out - y).mean():.4g}{unit}",
    )
    left.grid(alpha=0.25)
    left.legend()
    right.hist((out - y).ravel(), bins=min(30, max(5, len(y) // 4)), edgecolor="white", linewidth=0.5)
    right.axvline(0, color="grey", linewidth=1)
    right.set(xlabel=f"predicted - true{unit}", ylabel="samples")
    return figure


def _predict_at(data: object, predict: Callable, points: np.ndarray) -> np.ndarray:
    device = next(iter(data.batches("val")))[0].device
    return predict(torch.from_numpy(points).to(device)).cpu().numpy()


def _listed(colours: list[str]) -> object:
    from matplotlib.colors import ListedColormap

    return ListedColormap(colours)


def _all(data: object, split: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [(x.cpu().numpy(), y.cpu().numpy()) for x, y in data.batches(split)]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
