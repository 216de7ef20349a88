"""Pictures of results. Each function gives a matplotlib figure; matplotlib is imported when the first one is drawn."""

from collections.abc import Callable

import numpy as np
import torch

from dlrun.spec import Table


def new_figure(width: float = 6.4, height: float = 4.8, columns: int = 1) -> tuple:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no windows, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def curves(rows: list[dict], name: str, best: int | None) -> object:
    """A metric of the train and val parts over the epochs; a line marks the best one."""
    figure, axes = new_figure()
    for part, colour in (("train", "tab:blue"), ("val", "tab:orange")):
        points = [(row["epoch"], row[f"{part}/{name}"]) for row in rows if f"{part}/{name}" in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=part, color=colour, marker="." if len(points) < 30 else None)
    if best is not None:
        axes.axvline(best, color="grey", linestyle=":", linewidth=1, label=f"best (epoch {best})")
    axes.set(xlabel="epoch", ylabel=name)
    axes.grid(alpha=0.25)
    axes.legend()
    return figure


def confusion_matrix(matrix: np.ndarray, labels: tuple[str, ...]) -> object:
    """Rows: the true class; columns: the predicted one; shares of the row, counts as text where there is room."""
    size = len(labels)
    figure, axes = new_figure(*(max(4.8, 0.55 * size + 1.5),) * 2) if size <= 20 else new_figure(9, 9)
    shares = matrix / matrix.sum(1, keepdims=True).clip(min=1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if size <= 20:
        axes.set_xticks(range(size), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), labels)
        for row, column in np.argwhere(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=8)
    axes.set_title(f"test: {matrix.trace() / max(1, matrix.sum()):.2%} right")
    return figure


def decision_boundary(data: object, predict: Callable, classes: int) -> object:
    """The most likely class over the plane of two features, with the train (dots) and test (crosses) samples."""
    figure, axes = new_figure()
    x, y = _all(data, "train")
    low, high = x.min(0) - 0.5, x.max(0) + 0.5
    grid = np.stack(np.meshgrid(*(np.linspace(a, b, 200) for a, b in zip(low, high, strict=True))), -1)
    device = next(iter(data.batches("val")))[0].device
    points = torch.from_numpy(grid.reshape(-1, 2).astype(np.float32)).to(device)
    p = predict(points).cpu().numpy()
    extent = (low[0], high[0], low[1], high[1])
    if classes == 2:
        surface = p[:, 1].reshape(200, 200)
        axes.contourf(grid[..., 0], grid[..., 1], surface, 25, cmap="Spectral", alpha=0.5)
        axes.contour(grid[..., 0], grid[..., 1], surface, [0.5], colors="black", linewidths=1)
    else:
        axes.imshow(p.argmax(1).reshape(200, 200), origin="lower", extent=extent, cmap="Spectral", alpha=0.4, aspect="auto")
    axes.scatter(*x.T, c=y, cmap="Spectral", s=12, edgecolors="none", label="train")
    x, y = _all(data, "test")
    axes.scatter(*x.T, c=y, cmap="Spectral", s=16, marker="x", linewidths=0.8, label="test")
    axes.set(xlabel="x1", ylabel="x2", xlim=extent[:2], ylim=extent[2:])
    axes.legend(loc="upper right")
    return figure


def fitted_line(data: object, predict: Callable) -> object:
    """Predictions over the one feature, with the train samples."""
    figure, axes = new_figure()
    x, y = _all(data, "train")
    device = next(iter(data.batches("val")))[0].device
    line = np.linspace(x.min(), x.max(), 200, dtype=np.float32)[:, None]
    out = predict(torch.from_numpy(line).to(device)).cpu().numpy()
    axes.scatter(x, y[:, 0], s=10, alpha=0.6, label="train")
    axes.plot(line, out, color="tab:red", label="fit")
    axes.set(xlabel="x", ylabel="y")
    axes.legend()
    return figure


def residuals(y: np.ndarray, out: np.ndarray, spec: Table) -> object:
    """Predicted against true values, and how the errors are spread, on the test part."""
    figure, (left, right) = new_figure(9.6, 4.4, 2)
    unit = f" [{spec.unit}]" if spec.unit else ""
    ends = [min(y.min(), out.min()), max(y.max(), out.max())]
    left.plot(ends, ends, color="grey", linewidth=1)
    left.scatter(y, out, s=12, alpha=0.7)
    left.set(xlabel=f"true{unit}", ylabel=f"predicted{unit}")
    right.hist((out - y).ravel(), bins=min(30, max(5, len(y) // 4)))
    right.set(xlabel=f"predicted - true{unit}", ylabel="samples")
    return figure


def _all(data: object, split: str) -> tuple[np.ndarray, np.ndarray]:
    parts = [(x.cpu().numpy(), y.cpu().numpy()) for x, y in data.batches(split)]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
