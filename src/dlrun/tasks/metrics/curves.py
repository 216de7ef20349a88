"""The points of ROC and precision-recall curves."""

import numpy as np


def rates(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positive rates, true positive rates and precisions at each threshold, the strictest first: 0, 0, 1."""
    order = np.argsort(-p, kind="stable")
    hits, predicted = np.cumsum(y[order]), np.arange(1, len(y) + 1)
    last = np.append(np.diff(p[order]) != 0, True)  # rows of equal probability pass together
    hits, predicted = hits[last], predicted[last]
    positives, negatives = max(1, int(y.sum())), max(1, len(y) - int(y.sum()))
    false, true = (predicted - hits) / negatives, hits / positives
    return np.append(0, false), np.append(0, true), np.append(1, hits / predicted)
