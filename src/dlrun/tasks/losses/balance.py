"""Classes of unequal size: the ratio of their sizes, and weights for the losses of their samples."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from dlrun.data.base import SampleData
from dlrun.errors import UserError, nearest, some

SKEWED = 10  # times as many samples in the largest class as in the smallest
Weights = Mapping[str, float]


def class_counts(data: SampleData, classes: int) -> list[int] | None:
    """Number of train samples of each class; None if the data has no `targets`."""
    targets = getattr(data, "targets", None)
    return None if targets is None else torch.bincount(targets("train"), minlength=classes).tolist()


def skew(counts: Sequence[int], labels: Sequence[str]) -> str:
    """Describe classes of which the largest has more than SKEWED times the samples of the smallest; else ""."""
    known = [count for count in counts if count]
    if len(known) < 2 or max(known) <= SKEWED * min(known):
        return ""
    most, least = counts.index(max(known)), counts.index(min(known))
    return (
        f"{max(known) / min(known):.0f} to 1 ({labels[most]}: {max(known):,}, {labels[least]}: {min(known):,}): "
        "look at balanced_acc; task.class_weights=balanced or data.sampler=balanced weigh all classes alike"
    )


def weights_of_classes(
    wanted: Literal["balanced"] | Weights | None, counts: Sequence[int] | None, labels: Sequence[str]
) -> Tensor | None:
    """Return the weight of each class (classes,); None for none. Raises UserError for a class that is not there.

    balanced: inverse to the class's samples, so that their mean over the train samples is 1. A class that a mapping
    does not name has weight 1.
    """
    if wanted is None:
        return None
    if wanted != "balanced":
        names = {str(name): float(weight) for name, weight in wanted.items()}
        for name in names:
            if name not in labels:
                raise UserError(
                    f"task.class_weights: there is no class {name!r}{nearest(name, labels)}\n"
                    f"  expected one of: {some(list(labels), 20)}"
                )
        return torch.tensor([names.get(label, 1.0) for label in labels])
    if counts is None:
        raise UserError(
            "task.class_weights=balanced: this data set has no `targets(split)`, so its classes cannot be counted\n"
            "  expected a mapping of classes to weights"
        )
    total, present = sum(counts), sum(count > 0 for count in counts)
    return torch.tensor([total / present / count if count else 0.0 for count in counts])
