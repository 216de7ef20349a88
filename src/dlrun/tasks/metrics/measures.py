"""The metrics that task.metrics names, of a whole split; and those that training can compute at no extra cost."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.errors import UserError, raised
from dlrun.spec import Mask
from dlrun.tasks import metrics
from dlrun.tasks.metrics.outcomes import OUTCOMES
from dlrun.tasks.targets import Learnable
from dlrun.types import Better

OF_CLASSES, OF_TARGETS, OF_MASKS = ("y", "p", "predicted", "counts"), ("y", "out"), ("counts",)  # what metrics get
Function = partial  # a metric with its keys
MOST_CLASSES = 1000  # that an example has two samples of


class Measures:
    """Metrics by the names of their scores.

    functions: of this package or the user's own. spec: of the data; a metric per class or target has a score for each.
    known: what the task measures anyway. Raises UserError if a metric does not fit the data.
    """

    def __init__(self, functions: Sequence[Function], spec: Learnable | Mask, known: Sequence[str]) -> None:
        self.classes = spec.classes or 0
        passed = OF_MASKS if isinstance(spec, Mask) else OF_CLASSES if self.classes else OF_TARGETS
        self.each = parts(spec)
        names = [name_of(call) for call in functions]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"task.metrics: two metrics are named {twice[0]}\n  expected different names")
        self.functions: dict[str, Function] = {}
        self.of_counts: dict[str, Function] = {}  # those that need no more than the counts of outcomes
        for name, call in zip(names, functions, strict=True):
            if name not in known:
                self.add(name, call)
            elif is_own(call):
                raise UserError(
                    f"task.metrics={path_of(call)}: the task measures {name!r} of its own\n"
                    "  expected a function of another name: rename it"
                )
        for name, call in self.functions.items():
            if not set(parameters(call)) <= set(passed):
                raise UserError(f"task.metrics={path_of(call)} {_misfit(call, passed)}\n  expected {_fitting(passed)}")
            if self.classes and call.keywords.get("k", 0) >= self.classes:
                raise UserError(
                    f"task.metrics={path_of(call)} is always 1 with {self.classes} classes\n  expected a smaller number"
                )
            if is_own(call):  # so that it fails now rather than in val
                self._scores({name: call}, examples(spec))

    def add(self, name: str, call: Function) -> None:
        self.functions[name] = call
        if parameters(call) == ["counts"]:
            self.of_counts[name] = call

    def scores(self) -> dict[str, str]:
        """The direction of each score, "max" or "min"."""
        return {score: better(call) for name, call in self.functions.items() for score in self._names(name, call)}

    def _names(self, name: str, call: Function) -> list[str]:
        average = str(call.keywords.get("average", ""))
        if not average.startswith("per_"):
            return [name]
        return [f"{name.removesuffix(f'_{average}')}_{each}" for each in self.each]

    def __call__(self, arrays: Mapping[str, Any]) -> dict[str, float]:
        """The scores over a split. arrays: what metrics may ask for, by name."""
        return self._scores(self.functions, arrays)

    def _scores(self, functions: dict[str, Function], arrays: Mapping[str, Any]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, call in functions.items():
            names = self._names(name, call)
            scores |= dict(zip(names, self._called(call, arrays, len(names)), strict=True))
        return scores

    def _called(self, call: Function, arrays: Mapping[str, Any], count: int) -> list[float]:
        """The numbers of one metric. Raises UserError if the user's own code fails or returns something else.

        That code gets copies: what it writes into them must not reach other metrics.
        """
        name, inputs = path_of(call), {key: arrays[key] for key in parameters(call)}
        expected = f"  expected {'a number' if count == 1 else f'{count} numbers'} from {shapes(call, arrays)}"
        try:
            result = call(**{key: value.copy() if is_own(call) else value for key, value in inputs.items()})
        except Exception as error:
            if not is_own(call):
                raise
            raise UserError(f"task.metrics={name} raised {raised(error)}\n{expected}") from error
        try:
            values = np.asarray(result, np.float64).ravel().tolist()
        except (TypeError, ValueError):
            raise UserError(f"task.metrics={name} returned a {type(result).__name__}\n{expected}") from None
        if len(values) != count:
            raise UserError(f"task.metrics={name} returned {len(values)} numbers\n{expected}")
        return values

    def per_sample(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Metrics that are means over samples, of a batch in training: outputs (B, outputs) -> vectors (B,).

        Those over several targets are means over them, too. The root of the mean squared error comes from that mean.
        """
        metrics = {}
        for name, call in self.functions.items():
            word = call.func.__name__ if call.func.__module__ == "dlrun.tasks.metrics" else ""
            if word in PER_SAMPLE and call.keywords.get("average", "mean") == "mean":
                metrics[name] = PER_SAMPLE[word](out, y, **{k: v for k, v in call.keywords.items() if k != "average"})
            elif word == "rmse" and y.shape[1] == 1:
                metrics["mse"] = (out - y).square().mean(1)
        return metrics

    def logged(self, means: dict[str, float]) -> dict[str, float]:
        """The metrics of training from the means over its samples and the counts of its outcomes."""
        scores = {name: value for name, value in means.items() if not name.startswith(f"{OUTCOMES}/")}
        table = np.zeros(self.classes**2, np.int64)
        for name in means.keys() - scores.keys():
            table[int(name.rpartition("/")[2])] = means[name]
        if table.any():
            scores |= self._scores(self.of_counts, {"counts": table.reshape(self.classes, self.classes)})
        if "mse" in scores and "rmse" in self.functions:
            scores["rmse"] = scores["mse"] ** 0.5
        return scores


def examples(spec: Learnable | Mask) -> dict[str, np.ndarray]:
    """Inputs of metrics as a small split gives them, with every class (of the first thousand) among the targets."""
    if isinstance(spec, Mask):
        return {"counts": np.eye(spec.classes, dtype=np.int64) + 1}
    if not spec.classes:
        targets = np.linspace(-1, 1, 16 * spec.outputs, dtype=np.float32).reshape(16, spec.outputs)
        return {"y": targets, "out": targets + np.float32(0.1) * np.sin(9 * targets)}
    classes = np.arange(spec.classes)
    y = np.arange(max(16, 2 * min(spec.classes, MOST_CLASSES))) % spec.classes
    logits = np.sin(y[:, None] + classes) + 2 * (y[:, None] == classes)
    p = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    return {"y": y, "p": p, "predicted": p.argmax(1), "counts": counts(y, p.argmax(1), spec.classes)}


def shapes(call: Function, arrays: Mapping[str, Any]) -> str:
    """Describe the inputs that a metric was given, for a message."""
    return ", ".join(f"{name} {arrays[name].dtype} {arrays[name].shape}" for name in parameters(call))


def _misfit(call: Function, passed: Collection[str]) -> str:
    """Why a metric cannot be measured of this data."""
    if passed == OF_TARGETS:
        return "is for classes, and this data has real targets"
    if "out" in parameters(call):
        return "is for real targets, and this data has classes"
    return "needs the probabilities of all pixels of a split together, which are not kept"


def _fitting(passed: Collection[str]) -> str:
    """The metrics that fit, for a message."""
    built_in = inspect.getmembers(
        metrics, lambda each: inspect.isfunction(each) and each.__module__ == metrics.__name__
    )
    fit = [name for name, each in built_in if name[0] != "_" and set(parameters(partial(each))) <= set(passed)]
    return ", ".join("topK" if name == "top" else name for name in fit)


def _top(out: Tensor, y: Tensor, k: int) -> Tensor:
    if out.shape[1] == 1:  # of two classes
        return ((out.squeeze(1) > 0) == y) | (k > 1)
    return (out > out.gather(1, y[:, None])).sum(1) < k


def _brier(out: Tensor, y: Tensor) -> Tensor:
    if out.shape[1] == 1:
        return (torch.sigmoid(out.squeeze(1)) - y).square()
    return (out.softmax(1) - F.one_hot(y, out.shape[1])).square().sum(1)


def _mape(out: Tensor, y: Tensor) -> Tensor:
    return ((out - y).abs() / y.abs().clamp(min=torch.finfo(torch.float64).eps)).mean(1)


PER_SAMPLE: dict[str, Callable[..., Tensor]] = {"top": _top, "brier": _brier, "mape": _mape}


def counts(y: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Samples by true class (rows) and predicted class: int64 (classes, classes)."""
    return np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def name_of(call: Function) -> str:
    """The word for a metric with its keys: f1_micro, top3."""
    average, k = call.keywords.get("average", ""), call.keywords.get("k", "")
    return call.func.__name__ + (str(k)) + (f"_{average}" if average not in ("", "auto", "mean") else "")


def is_own(call: Function) -> bool:
    """Whether a metric is the user's own code."""
    return not call.func.__module__.startswith("dlrun.")


def path_of(call: Function) -> str:
    """A metric as messages name it: its word, or the dotted path of the user's own."""
    return f"{call.func.__module__}.{call.func.__name__}" if is_own(call) else name_of(call)


def parameters(call: Function) -> list[str]:
    """The names of a metric's inputs."""
    parameters = inspect.signature(call.func).parameters.values()
    return [each.name for each in parameters if each.name in (*OF_CLASSES, *OF_TARGETS)]


def better(call: Function) -> Literal["max", "min"]:
    """The better direction of a metric, by the annotation of its result: Higher or Lower."""
    annotation = inspect.signature(call.func).return_annotation
    if isinstance(annotation, str):  # with `from __future__ import annotations`
        return "min" if annotation.rpartition(".")[2] == "Lower" else "max"
    return next(each.mode for each in get_args(annotation) if isinstance(each, Better))


def parts(spec: Learnable | Mask) -> list[str]:
    """The classes or targets as parts of a score's name: words without blanks, or numbers."""
    names = list(spec.labels if spec.classes else getattr(spec, "target_names", ()))
    count = spec.classes or spec.outputs
    words = [re.sub(r"\W+", "_", name).strip("_") for name in names]
    return words if len(set(words) - {""}) == count else [str(i) for i in range(count)]
