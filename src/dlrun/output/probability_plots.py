"""Plots of predicted probabilities on the test split: calibration, ROC and precision-recall curves."""

from typing import TYPE_CHECKING

import numpy as np

from dlrun.output.figures import GREY, TRAIN, VAL, drawable, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 10


def calibration(p: np.ndarray, is_right: np.ndarray, what: str) -> "Figure":
    """Draw the share of right predictions in BINS bins of equal width of probability, above the number in each bin.

    p: probabilities (N,); is_right: whether each came true (N,); what: names the probability.
    """
    figure, axes = new_figure()
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    full = counts > 0
    mean, share = (np.bincount(bins, values, BINS)[full] / counts[full] for values in (p, is_right))
    error = float((np.abs(mean - share) * counts[full]).sum() / len(p))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="calibrated")
    axes.plot(mean, share, color=TRAIN, marker="o", markersize=5, label=f"test; mean distance {error:.3f}")
    axes.bar((np.arange(BINS) + 0.5) / BINS, 0.2 * counts / counts.max(), 0.08, color=VAL, alpha=0.4, label="rows")
    axes.set(xlabel=f"predicted probability of {what}", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title("calibration, test")
    axes.grid()
    axes.legend(loc="upper left")
    return figure


def roc_and_precision(false: np.ndarray, true: np.ndarray, precision: np.ndarray, share: float, label: str) -> "Figure":
    """The ROC curve and the precision-recall curve of the second of two classes.

    false, true, precision: at each threshold (tasks/metrics/curves.py). share: of the samples that are of it. label:
    its name.
    """
    figure, (left, right) = new_figure(9.6, 4.4, 2)
    (name,) = drawable([label], ["1"])
    area = float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    left.plot(false, true, color=TRAIN, linewidth=1.6)
    left.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC of {name}, test: area {area:.4f}")
    average = float((np.diff(true) * precision[1:]).sum())
    right.plot([0, 1], [share, share], color=GREY, linewidth=1)
    right.plot(true[1:], precision[1:], color=TRAIN, linewidth=1.6)
    right.set(xlabel="recall", ylabel="precision", title=f"precision and recall of {name}, test: average {average:.4f}")
    for axes in (left, right):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axes.grid()
    return figure
