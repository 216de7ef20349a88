"""The report of a supervised task at the end of a run: figures, numbers by class, predictions of the held-out fold."""

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from math import isnan
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import SampleData
from dlrun.output.plots import confusion_matrix
from dlrun.output.predictions import WINDOWS, decision_boundary, fitted_line, forecast, one_in, residuals
from dlrun.output.probability_plots import calibration, roc_and_precision
from dlrun.output.report import Report
from dlrun.spec import Columns, Image, Series, Table
from dlrun.tasks.images import before_and_after, image_figure
from dlrun.tasks.losses.balance import labels_of
from dlrun.tasks.metrics import f1, precision, recall
from dlrun.tasks.metrics.curves import rates
from dlrun.tasks.targets import Learnable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Function = Callable[[Tensor], Tensor]
AT_ONCE = 4096  # points of a plane: the activations of all its 90,000 would leave the caches, and take 5 times as long


def report(
    predict: Function, decide: Function, data: SampleData, spec: Learnable, has_probabilities: bool = True
) -> Report:
    """Figures and numbers of the test split, and the predictions for val if the data is in folds.

    predict: inputs -> probabilities (B, classes) or real outputs. decide: probabilities -> classes (B,).
    has_probabilities: whether what `predict` gives for classes are probabilities, and not only scores.
    """
    whole = Report()
    if spec.classes:
        whole = report_classes(predict, decide, data, spec, has_probabilities)
    elif isinstance(spec, Table | Columns | Series):
        whole = report_targets(predict, data, spec)
    if getattr(data, "folds", 0):
        whole.files["out_of_fold.csv"] = out_of_fold(predict, decide, data, spec)
    return whole


def report_targets(predict: Function, data: SampleData, spec: Table | Columns | Series) -> Report:
    """Figures of real predictions on the test split."""
    size, every = data.size("test"), one_in(data.size("test"), spec.outputs)
    first, error = 0, 0.0
    drawn, last = [], []  # some of all samples, and the last ones: all would take more memory than the data
    for x, y in data.batches("test"):
        pair = y.cpu(), predict(x).cpu()
        error += (pair[1] - pair[0]).abs().double().sum().item()
        drawn.append([each[-first % every :: every].clone() for each in pair])  # a view keeps all of the batch
        if first + len(y) > size - WINDOWS:
            last.append(pair)
        first += len(y)
    mae = error / (size * spec.outputs)
    figures: dict[str, Callable] = {"residuals": partial(residuals, *_joined(drawn), spec, mae, every)}
    if isinstance(spec, Series):
        figures["forecast"] = partial(forecast, *_joined(last), spec)
    if spec.shape == (1,):
        figures["fitted_line"] = partial(_draw_line, data, predict, spec)
    return Report(figures)


def _draw_line(data: SampleData, predict: Function, spec: Table | Columns | Series) -> "Figure":
    return fitted_line(_all(data, "train"), _all(data, "test"), partial(_predict_at, data, predict), spec)


def _draw_boundary(
    data: SampleData, predict: Function, spec: Table, labels: Sequence[str], has_probabilities: bool
) -> "Figure":
    return decision_boundary(_all(data, "train"), partial(_predict_at, data, predict), spec, labels, has_probabilities)


def _predict_at(data: SampleData, predict: Function, points: np.ndarray) -> np.ndarray:
    device = next(iter(data.batches("val")))[0].device
    parts = torch.from_numpy(points).to(device).split(AT_ONCE)
    return torch.cat([predict(part).cpu() for part in parts]).numpy()


def _all(data: SampleData, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All inputs and targets of a split; of a large one, evenly spaced ones."""
    batches = [(x.cpu().numpy(), y.cpu().numpy()) for x, y in data.batches(split)]
    every = one_in(data.size(split))
    return np.concatenate([x for x, _ in batches])[::every], np.concatenate([y for _, y in batches])[::every]


def _joined(pairs: Sequence[Sequence[Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    y, out = (torch.cat(column).numpy() for column in zip(*pairs, strict=True))
    return y, out


def report_classes(
    predict: Function, decide: Function, data: SampleData, spec: Learnable, has_probabilities: bool
) -> Report:
    """Figures and numbers by class. predict: inputs -> probabilities (B, classes); decide: -> classes (B,)."""
    k, labels = spec.classes or 0, labels_of(data, spec)
    y, best, p = _judged(predict, decide, data)
    matrix = torch.bincount(y * k + best, minlength=k * k).view(k, k)
    figures: dict[str, Callable] = {"confusion_matrix": partial(confusion_matrix, matrix.numpy(), labels)}
    if isinstance(spec, Image) and (sheet := before_and_after(data)) is not None:
        figures["augmented"] = partial(image_figure, sheet, "originals above, three random augmentations of each below")
    if isinstance(spec, Table) and spec.features == 2:
        figures["decision_boundary"] = partial(_draw_boundary, data, predict, spec, labels, has_probabilities)
    more = _probability_figures(y, best, p, labels)
    figures |= {name: figure for name, figure in more.items() if has_probabilities or name != "calibration"}
    counts = zip(labels, matrix.diag().tolist(), matrix.sum(1).tolist(), strict=True)
    numbers = {
        "acc_per_class": {label: correct / total if total else None for label, correct, total in counts},
        "per_class": by_class(matrix.numpy(), labels),
        "confusion_matrix": matrix.numpy(),
    }
    return Report(figures, numbers=numbers)


def _judged(
    predict: Callable[[Tensor], Tensor], decide: Callable[[Tensor], Tensor], data: SampleData
) -> tuple[Tensor, Tensor, Tensor]:
    """Return for all test samples the class, the predicted class, and its probability (of two classes: the second's).

    The results are on the CPU. predict: inputs -> probabilities (B, classes). decide: probabilities -> classes (B,).
    """
    batches = []
    for x, y in data.batches("test"):
        p = predict(x)
        batches.append((y.cpu(), decide(p).cpu(), (p[:, 1] if p.shape[1] == 2 else p.max(1).values).cpu()))
    y, best, p = (torch.cat(column) for column in zip(*batches, strict=True))
    return y, best, p


def _probability_figures(y: Tensor, best: Tensor, p: Tensor, labels: Sequence[str]) -> dict[str, Callable]:
    """The figures, by name. p: of the second of two classes, or of the predicted class `best`."""
    if len(labels) > 2:
        return {"calibration": partial(calibration, p.numpy(), (best == y).numpy(), "the predicted class")}
    figures: dict[str, Callable] = {"calibration": partial(calibration, p.numpy(), y.numpy(), labels[1])}
    if 0 < int(y.sum()) < len(y):
        curve = rates(p.numpy(), y.numpy())
        figures["roc_and_precision"] = partial(roc_and_precision, *curve, y.numpy().mean(), labels[1])
    return figures


def out_of_fold(predict: Function, decide: Function, data: SampleData, spec: Learnable) -> str:
    """Return the predictions for val as CSV, a row per sample: where it is in the data, target, prediction."""
    origins = getattr(data, "origins", lambda split: range(data.size(split)))("val")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    labels, names = labels_of(data, spec), list(getattr(spec, "target_names", ()))
    names = names if len(names) == spec.outputs else [f"y{i + 1}" for i in range(spec.outputs)]
    real = [f"{what} {name}" for what in ("target", "output") for name in names]
    writer.writerow(["sample", *(["target", "predicted", *(f"p {k}" for k in labels)] if spec.classes else real)])
    first = 0
    for x, y in data.batches("val"):
        p = predict(x)
        if spec.classes:
            texts = [[labels[k] for k in pair] for pair in zip(y.tolist(), decide(p).tolist(), strict=True)]
        else:
            texts = y.cpu().numpy().astype(str).tolist()  # of float32, the shortest digits
        rows = zip(origins[first : first + len(y)], texts, p.cpu().numpy(), strict=True)
        writer.writerows([origin, *text, *map(str, values)] for origin, text, values in rows)
        first += len(y)
    return text.getvalue()


def by_class(
    counts: np.ndarray, labels: Sequence[str], metrics: Sequence[Callable] = (precision, recall, f1)
) -> dict[str, dict[str, float | int | None]]:
    """Metrics and the number of samples of each class, from a confusion matrix (classes, classes)."""
    rows: dict[str, dict[str, float | int | None]] = {label: {} for label in labels}
    for metric in metrics:
        for label, value in zip(labels, metric(counts, average="per_class").tolist(), strict=True):
            rows[label][metric.__name__] = None if isnan(value) else value
    for label, support in zip(labels, counts.sum(1).tolist(), strict=True):
        rows[label]["support"] = support
    return rows
