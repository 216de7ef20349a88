"""The probabilities that a classifier predicts for the test split, and figures of them."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from dlrun.data.base import SampleData
from dlrun.output.probability_plots import calibration, roc_and_precision


def judged(
    predict: Callable[[Tensor], Tensor], decide: Callable[[Tensor], Tensor], data: SampleData
) -> tuple[Tensor, Tensor, Tensor]:
    """Of all test samples: the class, the predicted class, and its probability (of two classes: the second's).

    The results are on the CPU. predict: inputs -> probabilities (B, classes). decide: probabilities -> classes (B,).
    """
    found = []
    for x, y in data.batches("test"):
        p = predict(x)
        found.append((y.cpu(), decide(p).cpu(), (p[:, 1] if p.shape[1] == 2 else p.max(1).values).cpu()))
    y, best, p = (torch.cat(members) for members in zip(*found, strict=True))
    return y, best, p


def probability_figures(y: Tensor, best: Tensor, p: Tensor, labels: Sequence[str]) -> dict[str, Callable]:
    """The figures, by name. p: of the second of two classes, or of the predicted class `best`."""
    if len(labels) > 2:
        return {"calibration": partial(calibration, p.numpy(), (best == y).numpy(), "the predicted class")}
    figures: dict[str, Callable] = {"calibration": partial(calibration, p.numpy(), y.numpy(), labels[1])}
    if 0 < int(y.sum()) < len(y):
        figures["roc_and_precision"] = partial(roc_and_precision, p.numpy(), y.numpy(), labels[1])
    return figures
