"""Imbalanced classes: the ratio of their sizes, and weights for the losses of their samples or pixels."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dlrun.data.base import Data, SampleData
from dlrun.errors import DataError, UserError, nearest, some
from dlrun.spec import Mask
from dlrun.tasks.targets import Learnable

SKEWED = 10  # times as many samples in the largest class as in the smallest
Weights = Mapping[str, float]
Wanted = Literal["balanced"] | Weights | None  # task.class_weights


class Balance(NamedTuple):
    """The train split's number of samples (of masks: pixels) of each class, None if it is not known; the weights
    (classes,) of their losses, None for none; and lines for the header, if the classes are skewed or have no samples.
    """

    counts: list[int] | None
    weights: Tensor | None
    header_lines: dict[str, str]


def balance_of(data: SampleData, spec: Learnable | Mask, wanted: Wanted, device: torch.device) -> Balance:
    """Count the classes and weigh them. Raises UserError if there are fewer than two, or if the weights do not fit."""
    if not spec.classes:
        if wanted:
            raise UserError(
                f"task.class_weights={wanted}: this data has real targets, and no classes to weigh\n"
                "  expected task.class_weights=null; data.weights=COLUMN weighs the rows of a table"
            )
        return Balance(None, None, {})
    labels, counts = labels_of(data, spec), class_counts(data, spec.classes)
    if counts is not None and sum(count > 0 for count in counts) < 2:
        only = next((f"one class, {label}" for label, count in zip(labels, counts, strict=True) if count), "no class")
        raise DataError(
            f"the train split has {only}: there is nothing to learn\n"
            f"  expected {'pixels' if isinstance(spec, Mask) else 'samples'} of two classes or more in it"
        )
    weights = weights_of_classes(wanted, counts, labels)
    text = skew(counts or [], labels)
    sampler = "" if isinstance(spec, Mask) else getattr(data, "sampler", "")
    remedies = "task.class_weights=balanced" + (" or data.sampler=balanced" if sampler else "")
    advice = "" if wanted or sampler == "balanced" else f"; to weigh all classes alike: {remedies}"
    header_lines = {"skewed": f"{text}: look at balanced_acc{advice}"} if text else {}
    if lacking := [label for label, count in zip(labels, counts or [], strict=False) if not count]:
        header_lines["classes"] = f"warning: no train samples of {some(lacking)}, which cannot be learned"
    return Balance(counts, None if weights is None else weights.to(device), header_lines)


def check_sampler(data: Data) -> None:
    """Raise UserError if `data.sampler` balances classes and the data has none."""
    if getattr(data, "sampler", "none") == "balanced" and not getattr(data.spec, "classes", None):
        raise UserError(
            "data.sampler=balanced draws every class alike, and this data has no classes\n  expected data.sampler=none"
        )


def labels_of(data: SampleData, spec: Learnable | Mask) -> tuple[str, ...]:
    """The classes' names, or their numbers. Not of the task's spec: some data learns its labels in load()."""
    return getattr(data.spec, "labels", ()) or tuple(map(str, range(spec.classes or 0)))


def class_counts(data: SampleData, classes: int) -> list[int] | None:
    """Number of train samples, or of pixels in masks, of each class; None if the data has no `targets`."""
    targets = getattr(data, "targets", None)
    return None if targets is None else torch.bincount(targets("train").flatten(), minlength=classes)[:classes].tolist()


def skew(counts: Sequence[int], labels: Sequence[str]) -> str:
    """Describe classes of which the largest has more than SKEWED times the samples of the smallest; else ""."""
    known = [count for count in counts if count]
    if len(known) < 2 or max(known) <= SKEWED * min(known):
        return ""
    most, least = counts.index(max(known)), counts.index(min(known))
    return f"{max(known) / min(known):.0f} to 1 ({labels[most]}: {max(known):,}, {labels[least]}: {min(known):,})"


def weights_of_classes(wanted: Wanted, counts: Sequence[int] | None, labels: Sequence[str]) -> Tensor | None:
    """Return the weight of each class (classes,); None for none. Raises UserError for a class that is not there.

    balanced: inverse to the class's samples or pixels, so that the mean over those of the train split is 1. A class
    that a mapping does not name has weight 1.
    """
    if wanted is None:
        return None
    if wanted != "balanced":
        names = {_label(name, labels): float(weight) for name, weight in wanted.items()}
        for name in names:
            if name not in labels:
                raise UserError(
                    f"task.class_weights: there is no class {name!r}{nearest(name, labels)}\n"
                    f"  expected one of: {some(list(labels), 20)}"
                )
        weights = torch.tensor([names.get(label, 1.0) for label in labels])
        if not weights.any():
            raise UserError("task.class_weights: all classes have weight 0\n  expected a weight above 0 for some")
        return weights
    if counts is None:
        raise UserError(
            "task.class_weights=balanced: this data set has no `targets(split)`, so its classes cannot be counted\n"
            "  expected a mapping of classes to weights"
        )
    total, present = sum(counts), sum(count > 0 for count in counts)
    return torch.tensor([total / present / count if count else 0.0 for count in counts])


def _label(name: object, labels: Sequence[str]) -> str:
    """The label that a key of a mapping is: YAML reads true and false as truths, in any case."""
    word = str(name)
    return next((label for label in labels if isinstance(name, bool) and label.lower() == word.lower()), word)
