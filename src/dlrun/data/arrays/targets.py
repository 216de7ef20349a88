"""The targets of samples in arrays: which are classes, which are real numbers."""

from typing import Any, Literal, NamedTuple

import numpy as np

from dlrun.data.arrays.file import check_numbers
from dlrun.data.classes import is_number, number_classes
from dlrun.errors import DataError, UserError, counted, some

Learn = Literal["auto", "classification", "regression"]
FEW = 20  # at most this number of different whole numbers are classes, even in few samples


class Targets(NamedTuple):
    """y: int64 (N,) labels, or float32 (N, targets). labels: the classes' names in order; () for real targets."""

    y: np.ndarray
    labels: tuple[str, ...]


def targets_of(y: np.ndarray | None, samples: int, learn: Learn, labels: tuple[str, ...]) -> Targets:
    """Find the classes or real targets of an array (N,) or (N, targets); None: the samples have none.

    Texts, booleans and whole numbers are classes, and so are rows of zeros with a single one; the others are real.
    labels: the names of the classes 0, 1, ... by the config, () for the values themselves.
    """
    if y is None:
        return Targets(np.zeros(samples, np.int64), ())
    if y.ndim > 2 or y.dtype.kind not in "biufUS":
        raise DataError(
            f"y has the shape {y.shape} and the type {y.dtype}\n  expected (N,) or (N, targets), of numbers"
        )
    if y.dtype.kind in "biuf":
        check_numbers("y", y)
    if learn != "regression" and is_one_hot(y):
        y = y.argmax(1)
    if learn == "classification" or learn == "auto" and _are_classes(y):
        return _classes(y, labels)
    if y.dtype.kind in "US":
        raise DataError(f"data.learn=regression: y holds texts, such as {y.flat[0]!r}\n  expected numbers")
    real = _real(y)
    check_varied(real)
    return Targets(real, ())


def is_one_hot(y: np.ndarray) -> bool:
    """Whether y has rows of zeros with a single one."""
    return y.ndim == 2 and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _real(y: np.ndarray) -> np.ndarray:
    """Return targets (N, targets) as float32."""
    return y.astype(np.float32)[:, None] if y.ndim == 1 else y.astype(np.float32)


def check_varied(y: np.ndarray, where: str = "") -> None:
    """Raise DataError if one of the real targets (N, targets) is constant. where: the samples, for the message."""
    for column in np.flatnonzero(np.ptp(y, 0) == 0)[:1]:
        name = "y" if y.shape[1] == 1 else f"y[:, {column}]"
        raise DataError(
            f"{name} is always {y[0, column]:g}{where}: there is nothing to learn\n  expected two values or more"
        )


def _are_classes(y: np.ndarray) -> bool:
    if y.ndim == 2:
        return False
    return y.dtype.kind in "bUS" or y.dtype.kind in "iu" and len(np.unique(y)) <= max(FEW, len(y) / 2)


def _classes(y: np.ndarray, labels: tuple[str, ...]) -> Targets:
    if y.ndim == 2:
        raise UserError(f"data.learn=classification: y has the shape {y.shape}\n  expected one class per sample, (N,)")
    y = _whole(y)
    values, numbers = np.unique(y, return_inverse=True)
    if labels and values.dtype.kind in "iu" and 0 <= values[0] and values[-1] < len(labels):
        return Targets(y.astype(np.int64), labels)
    texts = _texts(values)
    if len(texts) > max(FEW, len(y) / 2):
        raise DataError(
            f"y has {len(texts):,} different values for {len(y):,} samples, such as {some(texts, 3)}\n"
            "  expected classes, several samples of each; or numbers with data.learn=regression"
        )
    order, names = number_classes("y", texts, labels)
    return Targets(order[numbers.reshape(-1)], names)


def _texts(values: np.ndarray) -> list[str]:
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]


def _whole(y: np.ndarray) -> np.ndarray:
    """Return classes that are written as whole decimals, 1.0, as integers."""
    return y.astype(np.int64) if y.dtype.kind == "f" and (y == np.rint(y)).all() else y


def like(y: np.ndarray | None, fitted: dict[str, Any], samples: int, has_names: bool = False) -> np.ndarray:
    """Return the targets of samples, numbered as in a run. fitted: its `labels`, or the `target_means` of real ones.

    has_names: whether the config names the classes, so that y may hold their numbers. Raises DataError for another
    shape, and for a class that the run does not know.
    """
    labels, count = list(fitted["labels"]), len(fitted["target_means"])
    if not labels and not count:  # the run learned without targets
        return np.zeros(samples, np.int64)
    if y is None:
        raise DataError("there are no targets (y) to compare with\n  expected them beside the inputs")
    if y.ndim > 2 or y.dtype.kind not in ("biufUS" if labels else "biuf"):
        raise DataError(f"y has the shape {y.shape} and the type {y.dtype}\n  expected targets as those of the run")
    if y.dtype.kind in "biuf":
        check_numbers("y", y)
    if not labels:
        targets = _real(y)
        if targets.shape[1] != count:
            raise DataError(
                f"y has {counted(targets.shape[1], 'target')} for each sample\n  expected {count}, as the run"
            )
        return targets
    if y.ndim == 2 and not is_one_hot(y):
        raise DataError(
            f"y has the shape {y.shape}\n  expected one class for each sample, {(len(y),)}, or rows of zeros with a "
            "single one: the run learned classes"
        )
    y = y.argmax(1) if y.ndim == 2 else _whole(y)
    if y.dtype.kind in "biu" and ((y == 0) | (y == 1)).all():  # truths are written either way
        y = y.astype(bool if {"False", "True"} == set(labels) else np.int64)
    values, numbers = np.unique(y, return_inverse=True)
    texts = _texts(values)
    is_named = has_names and not any(map(is_number, labels))
    if is_named and values.dtype.kind in "iu" and 0 <= values[0] and values[-1] < len(labels):
        return y.astype(np.int64)
    if strange := [name for name in texts if name not in labels]:
        raise DataError(f"y has classes that the run does not know: {some(strange)}\n  expected {some(labels, 20)}")
    return np.array([labels.index(name) for name in texts], np.int64)[numbers.reshape(-1)]
