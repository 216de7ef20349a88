"""Plots of a supervised network's predictions on tables. Each function returns a matplotlib figure."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.output.figures import COLOURS, DARK, GREY, TRAIN, VAL, drawable, new_figure, plain_ticks
from dlrun.spec import Columns, Series, Table

if TYPE_CHECKING:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

Samples = tuple[np.ndarray, np.ndarray]  # inputs (N, features) and targets
Predict = Callable[[np.ndarray], np.ndarray]
WINDOWS = 300  # of a series that are drawn
FLAT = 0.005  # probabilities that differ by less show no boundary
POINTS = 50_000  # most points of a plot: matplotlib takes 60 bytes for each, and a file of all would be huge


def decision_boundary(
    train: Samples, predict: Predict, spec: Table, labels: Sequence[str], has_probabilities: bool = True
) -> "Figure":
    """Predicted classes over the plane of two features, with the train samples (the book, section 9.8).

    Two classes: the probability of the second, and the line where it is 0.5. More, or scores that are no probabilities:
    the most likely class. predict: points (N, 2) -> probabilities (N, C).
    """
    figure, axes = new_figure(7.2, 5.0)
    x, y = train
    classes = drawable(labels)
    low, high = x.min(0) - 0.5, x.max(0) + 0.5
    across, up = np.meshgrid(*(np.linspace(a, b, 300, dtype=np.float32) for a, b in zip(low, high, strict=True)))
    p = predict(np.stack((across, up), -1).reshape(-1, 2))
    extent = (low[0], high[0], low[1], high[1])
    style: dict[str, Any] = {"origin": "lower", "extent": extent, "aspect": "auto", "alpha": 0.4}
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(classes))]
    if len(classes) == 2:
        colours = ["#3b4cc0", "#b40426"]  # the ends of the colour map
    if len(classes) == 2 and has_probabilities:
        surface = p[:, 1].reshape(across.shape)
        shade = axes.imshow(surface, cmap="coolwarm", vmin=0, vmax=1, interpolation="bilinear", **style)
        if surface.min() < 0.5 < surface.max():
            axes.contour(across, up, surface, [0.5], colors=DARK, linewidths=1)
        if np.ptp(surface) < FLAT:
            text = f"{surface.mean():.3f} everywhere: the network tells no point from another"
            axes.set_title(text, fontsize=10)
        figure.colorbar(shade, ax=axes, label=f"probability of {classes[1]}")
    else:
        axes.imshow(p.argmax(1).reshape(across.shape), cmap=_listed(colours), vmin=0, vmax=len(classes) - 1, **style)
    for k, label in enumerate(classes):
        mine = x[y == k]
        axes.scatter(
            *mine.T, color=colours[k], marker="os^Dv"[k % 5], s=16, edgecolors="white", linewidths=0.4, label=label
        )
    names = drawable(spec.names, ("x1", "x2")) if len(spec.names) == 2 else ["x1", "x2"]
    axes.set(xlabel=names[0], ylabel=names[1], xlim=extent[:2], ylim=extent[2:])
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.legend(loc="upper right", title="train")
    return figure


def fitted_line(train: Samples, test: Samples, predict: Predict, spec: Table | Columns | Series) -> "Figure":
    """Predictions over the single feature, with the train and test samples. predict: (N, 1) -> (N, targets).

    The height is that of the samples, since a fit of many degrees may go far beyond them.
    """
    figure, axes = new_figure()
    (x, y), (x_test, y_test) = train, test
    line = np.linspace(x.min(), x.max(), 1000, dtype=np.float32)[:, None]
    out = predict(line)
    for k in range(y.shape[1]):
        number = f" {k + 1}" if y.shape[1] > 1 else ""
        dots, fit = (TRAIN, VAL) if k == 0 else (COLOURS[2 * k % 10], COLOURS[(2 * k + 1) % 10])
        axes.scatter(x[:, 0], y[:, k], s=14, alpha=0.5, color=dots, linewidths=0, label=f"train{number}")
        axes.scatter(
            x_test[:, 0], y_test[:, k], s=12, alpha=0.5, edgecolors=GREY, facecolors="none", label=f"test{number}"
        )
        axes.plot(line[:, 0], out[:, k], color=fit, linewidth=1.8, label=f"fit{number}")
    column, unit = (spec.names[:1], _unit(spec)) if isinstance(spec, Table) else ((), "")
    axes.set(xlabel=drawable(column or ["x"], ["x"])[0], ylabel=f"y{unit}")
    low, high = min(y.min(), y_test.min()), max(y.max(), y_test.max())
    margin = 0.1 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.grid()
    axes.legend()
    return figure


def forecast(y: np.ndarray, out: np.ndarray, spec: Series) -> "Figure":
    """The last windows of the test split in order: the first target, and its forecasts one step and most steps ahead.

    y, out: (N, steps * targets).
    """
    figure, axes = new_figure(9.6, 4.0)
    count = sum(name.endswith(" +1") for name in spec.target_names) or y.shape[1]  # targets of a step
    steps, y, out = y.shape[1] // count, y[-WINDOWS:], out[-WINDOWS:]
    place = np.arange(len(y))
    axes.plot(place, y[:, 0], color=DARK, linewidth=1.4, label="true")
    axes.plot(place, out[:, 0], color=TRAIN, linewidth=1.2, label="1 step ahead")
    if steps > 1:
        axes.plot(
            place + steps - 1, out[:, (steps - 1) * count], color=VAL, linewidth=1.2, label=f"{steps} steps ahead"
        )
    name = drawable([spec.target_names[0].removesuffix(" +1") if spec.target_names else "y"], ["y"])[0]
    axes.set(xlabel="step of the test split", ylabel=f"{name}{_unit(spec)}")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.grid()
    axes.legend()
    return figure


def residuals(
    y: np.ndarray, out: np.ndarray, spec: Table | Columns | Series, mae: float | None = None, every: int = 1
) -> "Figure":
    """On the test split: predicted over true values, and a histogram of the errors.

    y, out: (N, targets), of one in `every` samples. mae: the mean absolute error of all samples.
    """
    figure, (left, right) = new_figure(9.6, 4.4, 2)
    unit = _unit(spec)
    ends = [min(y.min(), out.min()), max(y.max(), out.max())]
    left.plot(ends, ends, color=GREY, linewidth=1, label="predicted = true")
    left.scatter(y, out, s=16, alpha=0.6, color=TRAIN, linewidths=0)
    left.set(xlabel=f"true{unit}", ylabel=f"predicted{unit}", title="predicted against true, test")
    left.legend(loc="upper left")
    right.hist((out - y).ravel(), bins=min(30, max(5, len(y) // 4)), color=TRAIN, edgecolor="white", linewidth=0.5)
    right.axvline(0, color=DARK, linewidth=1)
    right.set(xlabel=f"predicted - true{unit}", ylabel="samples" if every == 1 else f"samples, one in {every:,}")
    mae = float(np.abs(out - y).mean()) if mae is None else mae
    right.set_title(f"mean absolute error {mae:.4g}{unit}")
    for axes in (left, right):
        plain_ticks(axes.xaxis, most=5)
        plain_ticks(axes.yaxis, most=6)
        axes.grid()
    return figure


def _unit(spec: Table | Columns | Series) -> str:
    unit = "".join(drawable([spec.unit], [""]))
    return f" [{unit}]" if unit else ""


def _listed(colours: list[str]) -> "ListedColormap":
    from matplotlib.colors import ListedColormap

    return ListedColormap(colours)


def one_in(samples: int, outputs: int = 1) -> int:
    """Return the number of samples of which one is drawn, so that there are at most POINTS points."""
    return max(1, -(-samples * outputs // POINTS))
