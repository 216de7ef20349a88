"""The targets and weights of a table's rows: which are classes, which are real numbers."""

from math import floor, log10
from typing import Any

import numpy as np
import polars as pl

from dlrun.data.classes import number_classes
from dlrun.data.table.columns import FEW, MOSTLY, RowName, as_numbers, as_texts, is_constant, share_of_numbers
from dlrun.data.table.encode import codes
from dlrun.data.table.settings import TableSettings
from dlrun.errors import DataError, UserError, nearest, some

COARSE = 0.001  # a step of float32 as a share of a target's standard deviation, from which it is too coarse
FEW_CLASSES = 10  # a target of so few different whole numbers is a class, unless data.learn says otherwise


def learned(
    frame: pl.DataFrame, settings: TableSettings, row_name: RowName, where: str
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the targets of all rows and their entries in the encoding: classes or real numbers."""
    columns = [frame[name] for name in settings.target]
    for column in columns:
        if is_constant(column):
            raise DataError(
                f"{where}: the target {column.name} is always {as_texts(column)[0]}: there is nothing to learn\n"
                "  expected two values or more"
            )
    if settings.learn == "classification" and len(columns) > 1:
        raise UserError(f"data.target={list(settings.target)} data.learn=classification: expected one target")
    if len(columns) == 1 and (settings.learn == "classification" or settings.learn == "auto" and _is_class(columns[0])):
        return _classes(columns[0], settings.positive, row_name, where)
    if settings.positive is not None:
        raise UserError(f"data.positive={settings.positive}: the target is not a class\n  expected data.positive=null")
    advice = ", or data.learn=classification" if len(columns) == 1 else ""
    numbers = [as_numbers(column, row_name, f" as a target of regression{advice}").to_numpy() for column in columns]
    for column, values in zip(columns, numbers, strict=True):
        _check_precision(values, f"{where}: the target {column.name}")
    return np.stack(numbers, 1).astype(np.float32), [{"column": name} for name in settings.target]


def _check_precision(values: np.ndarray, what: str) -> None:
    """Raise DataError if the values vary by so little, far from 0, that float32 rounds the differences away."""
    step, deviation = float(np.spacing(np.float32(np.abs(values).max()))), float(values.std())
    if step > COARSE * deviation:
        raise DataError(
            f"{what} varies by {deviation:.3g} around {values.mean():.6g}, where float32, in which it is stored, has "
            f"steps of {step:.3g}\n  expected smaller numbers: subtract a constant, such as {values.min():.6g}, from it"
        )


def _is_class(column: pl.Series) -> bool:
    """Whether a target is a class: no number, or one of few whole numbers."""
    if not column.dtype.is_numeric():
        return True
    is_whole = bool((column == column.cast(pl.Float64).round()).all())
    return is_whole and column.n_unique() <= FEW_CLASSES


def _classes(
    column: pl.Series, positive: str | None, row_name: RowName, where: str
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    texts = column if isinstance(column.dtype, pl.Enum) else as_texts(column)
    different = texts.unique().to_list()
    if len(different) > max(FEW, len(texts) / 2):
        if share_of_numbers(texts.cast(pl.String)) >= MOSTLY:
            as_numbers(
                column, row_name, ", as most are: correct it, or write 'data.missing=[...]' if it means no value"
            )
        raise DataError(
            f"{where}: the target {column.name} has {len(different):,} different values in {len(texts):,} rows\n"
            "  expected classes, several rows of each, or numbers with data.learn=regression"
        )
    wanted: tuple[str, ...] = ()
    if positive is not None:
        if positive not in different or len(different) != 2:
            raise UserError(
                f"data.positive={positive}: the classes of {column.name} are {some(sorted(different), 20)}"
                f"{nearest(positive, different)}\n  expected one of two classes, or null for the second in their order"
            )
        wanted = (next(name for name in different if name != positive), positive)
    _, labels = number_classes(f"{where}: the target {column.name}", different, wanted)
    return codes(texts, list(labels)) - 1, [{"column": column.name, "labels": list(labels)}]


def moments(values: np.ndarray, name: str) -> dict[str, float]:
    """Return the mean and standard deviation of a target over the train split. Raises DataError if it is constant."""
    values = values.astype(np.float64)
    if len(values) > 1 and not np.ptp(values):
        raise DataError(
            f"the target {name} is always {values[0]:g} in the train split: there is nothing to learn\n"
            "  expected two values or more there"
        )
    return {"mean": float(values.mean()), "std": float(values.std(ddof=1)) if len(values) > 1 else 1.0}


def weights_of(frame: pl.DataFrame, settings: TableSettings, row_name: RowName, train: np.ndarray) -> np.ndarray:
    """Return the weights of the rows; their mean over the train split is 1."""
    name = str(settings.weights)
    weights = as_numbers(frame[name], row_name).to_numpy()
    wrong = ~(weights >= 0)
    if wrong.any():
        first = weights[wrong][0]
        found = "has no value" if np.isnan(first) else f"is {first}"
        raise DataError(f"{row_name(int(wrong.argmax()))}: the weight {name} {found}\n  expected a number >= 0")
    if not weights[train].any():
        raise DataError(f"data.weights={name}: all weights of the train split are 0\n  expected some above 0")
    return (weights / weights[train].mean()).astype(np.float32)


def described(mean: float, deviation: float) -> str:
    """Write a mean and a deviation in one notation, which gives the deviation three digits."""
    if not 1e-4 <= deviation < 1e7:
        return f"{mean:.3e} +/- {deviation:.2e}"
    decimals = max(0, 2 - floor(log10(deviation)))
    return f"{mean:.{decimals}f} +/- {deviation:.{decimals}f}"
