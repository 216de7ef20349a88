"""Figures of reinforcement learning: the return of each episode, and what a network sees of an environment."""

from typing import TYPE_CHECKING

import numpy as np

from dlrun.output.figures import DARK, TRAIN, new_figure, plain_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOW = 100  # episodes of a mean
POINTS = 4000  # most points of the thin curve: more lie on each other


def episodes_figure(returns: np.ndarray) -> "Figure":
    """The return of each training episode (E,) over their number, and the mean over the last WINDOW."""
    figure, axes = new_figure()
    number = np.arange(1, len(returns) + 1)
    every = -(-len(returns) // POINTS)
    label = "an episode" if every == 1 else f"an episode, one in {every}"
    axes.plot(number[::every], returns[::every], color=TRAIN, alpha=0.35, linewidth=0.8, label=label)
    sums = np.cumsum(np.concatenate(([0.0], returns)))
    first = np.maximum(number - WINDOW, 0)
    means = (sums[number] - sums[first]) / (number - first)
    axes.plot(number[::every], means[::every], color=DARK, linewidth=1.6, label=f"mean of the last {WINDOW}")
    axes.set(xlabel="episode", title="return of the training episodes")
    plain_ticks(axes.xaxis, whole=True)
    axes.grid()
    axes.legend()
    return figure


def observations_figure(observations: np.ndarray) -> "Figure":
    """Images (steps, C, H, W) that a network sees at some steps: a row each, its channels from left to right."""
    steps, channels = observations.shape[:2]
    padded = np.pad(observations / 255, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.5)  # grey lines between
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in padded])[:-1, :-1]
    scale = min(9 / sheet.shape[1], 7.5 / sheet.shape[0])
    figure, axes = new_figure(max(4.0, sheet.shape[1] * scale), max(2.0, sheet.shape[0] * scale) + 0.6)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[], title=f"what the network sees at {steps} steps: a row each, the newest channel last")
    return figure
