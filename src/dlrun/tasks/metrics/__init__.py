"""Metrics of a whole split: each public function is one, and its name is the word for it in task.metrics.

The evaluation passes by name what a function asks for, as NumPy arrays over all samples of the split:

    y          the targets: classes int64 (N,), or real numbers float32 (N, targets)
    p          probabilities float32 (N, classes)
    predicted  the predicted classes int64 (N,)
    counts     samples by true class (rows) and predicted class, int64 (classes, classes)
    out        real predictions float32 (N, targets), in the unit of the targets

A metric returns one number, or one for each class or target. Its annotation declares which values are better. With two
classes, `f1` is that of the second; with more it is the mean over the classes. Values agree with scikit-learn's.
"""

import numpy as np

from dlrun.tasks.metrics.curves import rates
from dlrun.types import Average, Count, Higher, Lower, OfTargets, Size

Array = np.ndarray


def acc(counts: Array) -> Higher:
    """The share of the samples that are right."""
    return float(counts.trace() / counts.sum())


def f1(counts: Array, *, average: Average = "auto") -> Higher:
    """2 hits / (predicted + true): the harmonic mean of precision and recall."""
    hits, predicted, true = _pooled(counts, average)
    return _averaged(_ratio(2 * hits, predicted + true), average, true)


def precision(counts: Array, *, average: Average = "auto") -> Higher:
    """The share of the samples predicted as a class that belong to it."""
    hits, predicted, true = _pooled(counts, average)
    return _averaged(np.where(predicted + true, _ratio(hits, predicted, 0.0), np.nan), average, true)


def recall(counts: Array, *, average: Average = "auto") -> Higher:
    """The share of the samples of a class that are found."""
    hits, predicted, true = _pooled(counts, average)
    return _averaged(np.where(predicted + true, _ratio(hits, true, 0.0), np.nan), average, true)


def iou(counts: Array, *, average: Average = "auto") -> Higher:
    """Intersection over union: hits / (predicted or true). For masks, the mean over the classes is called miou."""
    hits, predicted, true = _pooled(counts, average)
    return _averaged(_ratio(hits, predicted + true - hits), average, true)


def balanced_acc(counts: Array) -> Higher:
    """The mean recall of the classes that occur (Brodersen et al. 2010)."""
    return _averaged(_ratio(counts.diagonal(), counts.sum(1)), "macro")


def mcc(counts: Array) -> Higher:
    """Matthews' correlation coefficient of true and predicted classes (Gorodkin 2004); 0 if either is constant."""
    counts = counts.astype(np.float64)
    true, predicted, total = counts.sum(1), counts.sum(0), counts.sum()
    covariance = counts.trace() * total - true @ predicted
    scale = np.sqrt(total**2 - true @ true) * np.sqrt(total**2 - predicted @ predicted)
    return float(covariance / scale) if scale else 0.0


def auroc(y: Array, p: Array, *, average: Average = "auto") -> Higher:
    """Area under the ROC curve, each class against the rest: the chance that a sample of it has the higher probability.

    A class that is in no sample or in all has none.
    """
    areas = [_area(*pair) for pair in _against_rest(y, p, average)]
    return _averaged(np.array(areas), average, np.bincount(y, minlength=p.shape[1]))


def average_precision(y: Array, p: Array, *, average: Average = "auto") -> Higher:
    """Area under the precision-recall curve, as a sum of steps, each class against the rest."""
    areas = [_steps(*pair) for pair in _against_rest(y, p, average)]
    return _averaged(np.array(areas), average, np.bincount(y, minlength=p.shape[1]))


def top(y: Array, p: Array, *, k: Size) -> Higher:
    """The share of the samples whose class is among the k likeliest."""
    of_class = p[np.arange(len(y)), y]
    return float(((p > of_class[:, None]).sum(1) < k).mean())


def brier(y: Array, p: Array) -> Lower:
    """The squared error of the probabilities, summed over the classes; of two, that of the second (Brier 1950)."""
    if p.shape[1] == 2:
        return float(np.square(p[:, 1].astype(np.float64) - y).mean())
    wanted = np.zeros(p.shape)
    wanted[np.arange(len(y)), y] = 1
    return float(np.square(p - wanted).sum(1).mean())


def ece(y: Array, p: Array, *, bins: Count = 15) -> Lower:
    """Expected calibration error: the mean distance of the likeliest class's probability from the share that is right.

    The distances are of bins of equal width, weighted by their samples (Guo et al. 2017, equation 3).
    """
    confidence, right = p.max(1).astype(np.float64), p.argmax(1) == y
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, confidence - right, bins)
    return float(np.abs(gaps).sum() / len(y))


def mae(y: Array, out: Array, *, average: OfTargets = "mean") -> Lower:
    """The mean absolute error, in the targets' unit."""
    return _averaged(np.abs(_exact(out) - y).mean(0), average)


def mse(y: Array, out: Array, *, average: OfTargets = "mean") -> Lower:
    """The mean squared error, in the square of the targets' unit."""
    return _averaged(np.square(_exact(out) - y).mean(0), average)


def rmse(y: Array, out: Array, *, average: OfTargets = "mean") -> Lower:
    """The root of the mean squared error, in the targets' unit."""
    return _averaged(np.sqrt(np.square(_exact(out) - y).mean(0)), average)


def r2(y: Array, out: Array, *, average: OfTargets = "mean") -> Higher:
    """The share of the targets' variance that is explained; 0 is as good as their mean."""
    errors, spread = np.square(_exact(out) - y).sum(0), np.square(_exact(y) - _exact(y).mean(0)).sum(0)
    return _averaged(1 - _ratio(errors, spread), average)


def mape(y: Array, out: Array, *, average: OfTargets = "mean") -> Lower:
    """The mean absolute error as a share of the target: 0.1 is 10 percent. Targets near 0 make it huge."""
    sizes = np.maximum(np.abs(_exact(y)), np.finfo(np.float64).eps)
    return _averaged((np.abs(_exact(out) - y) / sizes).mean(0), average)


def median_ae(y: Array, out: Array, *, average: OfTargets = "mean") -> Lower:
    """The median absolute error, in the targets' unit."""
    return _averaged(np.median(np.abs(_exact(out) - y), 0), average)


def spearman(y: Array, out: Array, *, average: OfTargets = "mean") -> Higher:
    """The correlation of the ranks of targets and predictions; 0 if either is constant."""
    pairs = [(_ranks(true), _ranks(predicted)) for true, predicted in zip(y.T, out.T, strict=True)]
    return _averaged(np.array([_correlation(a - a.mean(), b - b.mean()) for a, b in pairs]), average)


def _pooled(counts: Array, average: str) -> tuple[Array, Array, Array]:
    """The numbers of hits, predictions and samples of each class; with average=micro, of all classes together."""
    parts = counts.diagonal(), counts.sum(0), counts.sum(1)
    return tuple(part.sum(keepdims=True) for part in parts) if average == "micro" else parts


def _against_rest(y: Array, p: Array, average: str) -> list[tuple[Array, Array]]:
    """(whether each sample is of the class, the class's probability), by class; all in one with average=micro."""
    if average == "auto" and p.shape[1] == 2:
        return [(y == 1, p[:, 1])]
    is_class = y[:, None] == np.arange(p.shape[1])
    if average == "micro":
        return [(is_class.ravel(), p.ravel())]
    return list(zip(is_class.T, p.T, strict=True))


def _averaged(values: Array, average: str, support: Array | None = None) -> "float | Array":
    """One value per class or target as `average` says. Classes that do not occur are NaN and do not count.

    support: samples of each class, by which average=weighted weighs it.
    """
    if average in ("per_class", "per_target"):
        return values
    if average == "auto" and len(values) == 2:
        return float(values[1])
    if average == "weighted" and support is not None:
        known = ~np.isnan(values) & (support > 0)
        return float(np.average(values[known], weights=support[known])) if known.any() else float("nan")
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _ratio(part: Array, whole: Array, otherwise: float = float("nan")) -> Array:
    return np.divide(part, whole, out=np.full(len(whole), otherwise), where=whole != 0)


def _exact(values: Array) -> Array:
    return values.astype(np.float64)


def _area(is_class: Array, p: Array) -> float:
    false, true, _ = rates(p, is_class)
    if not 0 < is_class.sum() < len(p):
        return float("nan")
    return float((np.diff(false) * (true[1:] + true[:-1])).sum() / 2)


def _steps(is_class: Array, p: Array) -> float:
    _, true, precisions = rates(p, is_class)
    return float((np.diff(true) * precisions[1:]).sum()) if is_class.any() else float("nan")


def _ranks(values: Array) -> Array:
    """Ranks from 1; equal values share the mean of theirs."""
    _, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[numbers]


def _correlation(a: Array, b: Array) -> float:
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else 0.0
