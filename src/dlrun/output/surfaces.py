"""Drawings of functions of one or two variables, with the paths of points on them.

paths: positions of the points after each step, the starts first: (steps + 1, points, variables).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlrun.output.figures import COLOURS, DARK, GREY, TRAIN, VAL, new_figure, new_grid, plain_ticks, scaled, short
from dlrun.spec import Function

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = 30  # most steps of a path that are marked by dots


def values_and_slopes(spec: Function, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (...) and gradients (..., variables) at points (..., variables)."""
    x = torch.from_numpy(points).double().requires_grad_()
    y = spec.at(x)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    return y.detach().numpy(), slopes.numpy()


def curve(spec: Function, paths: np.ndarray) -> "Figure":
    """A function of one variable above its derivative, with the points' paths."""
    figure, (upper, lower) = new_grid(6.4, 6.0, 2, 1)
    line = np.linspace(spec.low[0], spec.high[0], 1001)[:, None]
    for axes, kind, numbers in zip((upper, lower), ("", "'"), values_and_slopes(spec, line), strict=True):
        axes.plot(line[:, 0], numbers.reshape(-1), color=TRAIN if not kind else VAL, linewidth=1.8)
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set(xlabel=spec.names[0], title=f"f{kind}({spec.names[0]})", xlim=(spec.low[0], spec.high[0]))
        if np.ptp(numbers) < 1e-9:
            axes.set_ylim(numbers.min() - 1, numbers.max() + 1)
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        axes.grid()
    values, slopes = values_and_slopes(spec, paths)
    for k in range(paths.shape[1]):
        for axes, y in ((upper, values[:, k]), (lower, slopes[:, k, 0])):
            moves = len(paths) > 1
            style: dict[str, Any] = (
                {"marker": ".", "markevery": max(1, len(paths) // MARKS), "linewidth": 0.8} if moves else {}
            )
            axes.plot(paths[:, k, 0], y, color=DARK, **style)
            axes.plot(paths[-1, k, 0], y[-1], "o", color=DARK, markersize=4.5)
    return figure


def contours(spec: Function, paths: np.ndarray) -> "Figure":
    """Contours of a function of two variables, arrows down its gradient, the points' paths and the known minima."""
    figure, axes = new_figure(7.2, 5.6)
    low, high = _reach(spec, paths)
    x, y, z, slopes = _grid(spec, 201, low, high)
    filled = axes.contourf(x, y, z, levels=_levels(z), cmap="Blues_r", extend="both")
    axes.contour(x, y, z, levels=filled.levels, colors="white", linewidths=0.4, alpha=0.7)
    ticks = filled.levels[:: max(1, len(filled.levels) // 6)]
    bar = figure.colorbar(filled, ax=axes, label="f", ticks=ticks)
    bar.ax.set_yticklabels([short(float(f"{tick:.3g}")) for tick in ticks])
    every = slice(5, None, 10)
    down = -slopes[every, every] / np.maximum(np.linalg.norm(slopes[every, every], axis=-1, keepdims=True), 1e-9)
    arrows = {"color": GREY, "alpha": 0.55, "width": 0.0022, "scale": 38, "pivot": "mid"}
    axes.quiver(x[every, every], y[every, every], down[..., 0], down[..., 1], **arrows)
    for place in spec.minima:  # above the paths, which end there
        axes.plot(*place, "+", color="white", markersize=14, markeredgewidth=3.5, zorder=8)
        axes.plot(*place, "+", color=DARK, markersize=12, markeredgewidth=1.5, zorder=9, label=_once(axes, "minimum"))
    _draw_paths(axes, paths)
    if len(paths) == 1:
        _write_values(axes, spec, paths[0])
    axes.set(xlabel=spec.names[0], ylabel=spec.names[1], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    if labels := axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower center", ncols=min(3, len(labels)))
    return figure


def _reach(spec: Function, paths: np.ndarray) -> tuple[list[float], list[float]]:
    """The ends of the function's range, moved out to its points, at most by the range's own width."""
    low, high = [], []
    for k, (least, most) in enumerate(zip(spec.low, spec.high, strict=True)):
        width, places = most - least, paths[..., k][np.isfinite(paths[..., k])]
        margin = 0.05 * width
        first, last = (places.min(), places.max()) if len(places) else (least, most)
        low.append(least if first >= least else max(first - margin, least - width))
        high.append(most if last <= most else min(last + margin, most + width))
    return low, high


def _write_values(axes: "Axes", spec: Function, points: np.ndarray) -> None:
    """Write the function's value beside points (points, 2) that do not move."""
    values, _ = values_and_slopes(spec, points)
    for place, value in zip(points, values, strict=True):
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        is_right = place[0] > (spec.low[0] + spec.high[0]) / 2
        style: dict[str, Any] = {
            "xytext": (-9 if is_right else 9, 9),
            "textcoords": "offset points",
            "ha": "right" if is_right else "left",
        }
        axes.annotate(f"{value + 0.0:.4g}", place, fontsize=10, zorder=10, bbox=box, **style)


def _once(axes: "Axes", label: str) -> str:
    """Label only the first of several equal items; "_" hides the other labels."""
    return "_" if label in axes.get_legend_handles_labels()[1] else label


def _draw_paths(axes: "Axes", paths: np.ndarray) -> None:
    for k in range(paths.shape[1]):
        path, colour = paths[:, k], COLOURS[(k + 1) % len(COLOURS)]
        place = ", ".join(f"{number:.4g}" for number in path[0])
        label = f"from ({place})" if len(path) > 1 else f"({place})"
        every = max(1, len(path) // MARKS)
        axes.plot(*path.T, color=colour, linewidth=1.3, marker=".", markersize=5, markevery=every, label=label)
        axes.plot(*path[-1], "o", color=colour, markeredgecolor="white", markersize=8, zorder=7)


def _levels(z: np.ndarray) -> np.ndarray:
    """25 levels, as many in each part of the values: a few high values must not hide the valleys."""
    levels = np.unique(np.quantile(z, np.linspace(0.005, 0.97, 25)))
    return levels if len(levels) > 1 else np.array([levels[0], levels[0] + 1])


def surface(spec: Function, paths: np.ndarray) -> "Figure":
    """A function of two variables as a surface, seen from the book's angle, with the points' paths."""
    figure, axes = new_figure(6.4, 5.4, projection="3d")
    x, y, z, _ = _grid(spec, 101, spec.low, spec.high)
    axes.view_init(50, -60)
    axes.computed_zorder = False  # matplotlib would hide the paths behind the surface
    axes.plot_surface(x, y, z, cmap="coolwarm", rcount=60, ccount=60, linewidth=0, alpha=0.85, zorder=1)
    inside = np.all((paths >= spec.low) & (paths <= spec.high), axis=-1)
    for k in range(paths.shape[1]):
        path = paths[inside[:, k], k]
        if len(path):
            heights, _ = values_and_slopes(spec, path)
            axes.plot(*path.T, heights, color=DARK, linewidth=1.6, marker=".", markevery=max(1, len(path) // MARKS))
            axes.plot(*path[-1:].T, heights[-1:], "o", color=VAL, markeredgecolor="white", markersize=7)
    axes.set(xlabel=spec.names[0], ylabel=spec.names[1], zlabel="f")
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        plain_ticks(axis, most=6)
        axis.pane.set_facecolor("white")
    return figure


def _grid(spec: Function, side: int, low: Sequence[float], high: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Coordinates x and y, values and gradients from `low` to `high`: (side, side), the last (side, side, 2)."""
    ends = zip(low, high, strict=True)
    x, y = np.meshgrid(*(np.linspace(low, high, side) for low, high in ends))
    z, slopes = values_and_slopes(spec, np.stack((x, y), -1))
    return x, y, z, slopes


def descent(values: np.ndarray, starts: np.ndarray) -> "Figure":
    """The function's value at each point (steps + 1, points) over the steps."""
    figure, axes = new_figure()
    for k in range(values.shape[1]):
        place = ", ".join(f"{number:.4g}" for number in starts[k])
        axes.plot(values[:, k], color=COLOURS[(k + 1) % len(COLOURS)], linewidth=1.5, label=f"from ({place})")
    scaled(axes, values[values > 0] if (values >= 0).all() else values.ravel())
    axes.set(xlabel="step", ylabel="f")
    plain_ticks(axes.xaxis, whole=True)
    axes.grid()
    axes.legend()
    return figure


def weights(name: str, matrix: np.ndarray) -> "Figure":
    """The entries of a weight matrix as heights over its rows and columns (the book, section 9.8.4)."""
    figure, axes = new_figure(6.4, 5.4, projection="3d")
    rows, columns = (np.arange(size) for size in matrix.shape)
    x, y = np.meshgrid(columns, rows)
    most, usual = np.abs(matrix).max() or 1.0, np.quantile(np.abs(matrix), 0.97) or 1.0
    axes.plot_surface(x, y, matrix, cmap="coolwarm", vmin=-usual, vmax=usual, rcount=128, ccount=128, linewidth=0)
    axes.set(xlabel="input", ylabel="output", title=f"{name}: {matrix.min():.4g} to {matrix.max():.4g}")
    axes.set_zlim(-most, most)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        plain_ticks(axis, most=6)
        axis.pane.set_facecolor("white")
    return figure


def race(names: list[str], rows: list[list[float]]) -> "Figure":
    """Milliseconds over size, both in decades: a row for each size, with the size and a time for each name."""
    from matplotlib.ticker import NullFormatter

    figure, axes = new_figure()
    for k, name in enumerate(names):
        points = [(row[0], row[1 + k]) for row in rows]
        axes.plot(*zip(*points, strict=True), marker="s^"[k % 2], color=COLOURS[k], label=name.removesuffix("_ms"))
    axes.set(xscale="log", yscale="log", xlabel="n", ylabel="ms", title="[1, n] times [n, 1]")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(short)
        axis.set_minor_formatter(NullFormatter())
    axes.grid()
    axes.legend()
    return figure
