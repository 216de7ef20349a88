"""The encoding of a table: what is learned from its train split, and how rows become numbers with it.

An encoding is plain JSON values, so that it can be read without this package:

    columns     the columns to learn from, each with its kind: number, boolean, category, date, or the format of a date
    numbers     a list: column, part, fill, mean, std, and quantiles (empty: none). part is "" for the column's value,
                "missing" for 1 where it has none, or the part of a date. The number is (value - mean) / std, where fill
                stands for a missing value; with quantiles, its place among them as a standard normal number.
    categories  a list: column, levels. The code of a value is its position in levels, counted from 1; 0 if it has none.
    targets     a list: column and labels, or column, mean and std

An encoded row has all numbers, then the codes of all categories.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl

from dlrun.data.classes import rank
from dlrun.data.table.columns import RowName, as_booleans, as_dates, as_numbers, as_texts
from dlrun.errors import printable, some

Encoding = dict[str, Any]
Array = np.ndarray
DATE_PARTS: dict[str, Callable[[pl.Series], pl.Series]] = {
    "year": lambda dates: dates.dt.year(),
    "month": lambda dates: dates.dt.month(),
    "day": lambda dates: dates.dt.day(),
    "weekday": lambda dates: dates.dt.weekday(),
    "hour": lambda dates: dates.dt.hour(),
    "minute": lambda dates: dates.dt.minute(),
}
MOST_QUANTILES = 1000
INDICATOR = {"fill": 0.0, "mean": 0.0, "std": 1.0, "quantiles": []}
BLOCK, LONG = 4000, 2**16  # rows and numbers that are worked on together
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?", re.ASCII)  # as polars writes it
LARGEST = 5.2  # of a number by quantiles, as a standard normal number: the ends of NormalDist at 1e-7


class Learned(NamedTuple):
    """One column's part of an encoding, and its values of all rows: float32 (rows,) for each number and category."""

    numbers: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    values: list[Array]


def learn_column(column: pl.Series, kind: str, train: Array, by_quantiles: bool) -> Learned:
    """Learn the encoding of a column from the rows `train`, and encode all rows. Its values have their kind already."""
    if kind == "category":
        levels, values = _learn_levels(column, train)
        return Learned([], [{"column": column.name, "levels": levels}], [values])
    typed = column.cast(pl.Float64) if kind == "number" else _typed(column, kind, _unnamed)
    learned = Learned([], [], [])
    for part in ("",) if kind in ("number", "boolean") else DATE_PARTS:
        values = _part(typed, part)
        fitted = _fit_number(values[train], by_quantiles and kind == "number")
        if part in ("", "year") or fitted["std"]:  # not a part of a date that is always the same
            fitted["std"] = fitted["std"] or 1.0
            learned.numbers.append({"column": column.name, "part": part, **fitted})
            learned.values.append(_scaled(values, fitted))
    if typed.null_count() and (gaps := _part(typed, "missing"))[train].any():
        learned.numbers.append({"column": column.name, "part": "missing", **INDICATOR})
        learned.values.append(gaps.astype(np.float32))
    return learned


def _unnamed(row: int) -> str:
    return f"row {row + 1}"


def _fit_number(values: Array, by_quantiles: bool) -> dict[str, Any]:
    gaps = np.isnan(values)
    known = values[~gaps] if gaps.any() else values
    if not len(known):
        return {"fill": 0.0, "mean": 0.0, "std": 0.0, "quantiles": []}
    fill = float(np.median(known))
    filled = np.where(gaps, fill, values) if len(known) < len(values) else values
    std = float(filled.std(ddof=1)) if filled.min() < filled.max() else 0.0
    quantiles: list[float] = []
    if by_quantiles and std:
        quantiles = np.quantile(known, np.linspace(0, 1, min(MOST_QUANTILES, len(known)))).tolist()
    return {"fill": fill, "mean": float(filled.mean()), "std": std, "quantiles": quantiles}


def _learn_levels(column: pl.Series, train: Array) -> tuple[list[str | None], Array]:
    """Return the levels in train, numbers by value, the last None if values are missing there; and all rows' codes."""
    different, numbers = _numbered(column)
    *counts, gaps = np.bincount(numbers[train], minlength=len(different) + 1).tolist()
    known = sorted((text for text, count in zip(different, counts, strict=True) if count), key=rank)
    levels: list[str | None] = [*known, None] if gaps else [*known]
    return levels, _codes_of(different, levels).astype(np.float32)[numbers]


def _numbered(column: pl.Series) -> tuple[list[str], Array]:
    """Return the different texts of a column, and each value's place among them; one more for a missing value."""
    if not isinstance(column.dtype, pl.Enum):
        texts = as_texts(column)
        column = texts.cast(pl.Enum(texts.drop_nulls().unique()))
    different = cast(pl.Enum, column.dtype).categories.to_list()
    return different, column.to_physical().cast(pl.UInt32).fill_null(len(different)).to_numpy()


def _typed(column: pl.Series, kind: str, row_name: RowName) -> pl.Series:
    """Return a column's values as float64 or datetimes, null where there are none. Dates may be in ISO form, too."""
    if kind == "number":
        return as_numbers(column, row_name)
    if kind == "boolean":
        return as_booleans(column, row_name).cast(pl.Float64)
    return as_dates(column, kind, row_name, or_iso=True)


def _part(typed: pl.Series, part: str) -> Array:
    """Return the numbers of a column, float64 with NaN for missing values, or whether they are missing."""
    if part == "missing":
        return typed.is_null().to_numpy()
    return (DATE_PARTS[part](typed).cast(pl.Float64) if part else typed).to_numpy()


def encode(frame: pl.DataFrame, encoding: Encoding, row_name: RowName = _unnamed) -> Array:
    """Encode rows, float32 (rows, numbers + categories). Raises DataError for a value of another kind."""
    numbers, categories, kinds = encoding["numbers"], encoding["categories"], encoding["columns"]
    x = np.empty((frame.height, len(numbers) + len(categories)), np.float32)
    name, typed = None, pl.Series()
    for i, number in enumerate(numbers):
        if number["column"] != name:
            name = number["column"]
            typed = _typed(frame[name], kinds[name], row_name)
        values = _part(typed, number["part"])
        x[:, i] = values if number["part"] == "missing" else _scaled(values, number)
    for i, category in enumerate(categories, len(numbers)):
        x[:, i] = codes(frame[category["column"]], category["levels"])
    return x


def stacked(columns: list[Learned]) -> Array:
    """Put the values of all columns side by side, float32 (rows, numbers + categories)."""
    values = [each for column in columns if column.numbers for each in column.values]
    values += [each for column in columns if column.categories for each in column.values]
    x = np.empty((len(values[0]), len(values)), np.float32)
    for first in range(0, len(x), BLOCK):  # rows that fit a core's cache
        block = x[first : first + BLOCK]
        for i, each in enumerate(values):
            block[:, i] = each[first : first + BLOCK]
    return x


def _scaled(values: Array, number: dict[str, Any]) -> Array:
    """Fill gaps and scale, float32: in blocks, since the table is large."""
    x, quantiles = np.empty(len(values), np.float32), np.array(number["quantiles"])
    for first in range(0, len(x), LONG):
        block = values[first : first + LONG]
        gaps = np.isnan(block)
        block = np.where(gaps, number["fill"], block) if gaps.any() else block
        scaled = _normal(block, quantiles) if len(quantiles) else (block - number["mean"]) / number["std"]
        x[first : first + LONG] = scaled
    return x


def _normal(values: Array, quantiles: Array) -> Array:
    """The place of values among quantiles, the middle one of equal places, as a standard normal number."""
    shares = np.linspace(0, 1, len(quantiles))
    below = np.interp(values, quantiles, shares)
    above = 1 - np.interp(-values, -quantiles[::-1], shares)
    return np.interp((below + above) / 2, *_inverse_normal()).clip(-LARGEST, LARGEST)


@cache
def _inverse_normal() -> tuple[Array, Array]:
    """Points of the inverse of the normal distribution."""
    grid = np.linspace(0, 1, 10_001)
    return grid, np.array([NormalDist().inv_cdf(min(max(share, 1e-7), 1 - 1e-7)) for share in grid])


def codes(column: pl.Series, levels: list[str | None]) -> Array:
    """Return the codes of values: the position among the levels, counted from 1; 0 for any other value."""
    different, numbers = _numbered(column)
    return _codes_of(different, levels)[numbers]


def _codes_of(different: list[str], levels: list[str | None]) -> Array:
    """Return the codes of different texts and of no value. If all levels are numbers, 1.0 and 01 are the level 1, too.

    If all are true or false, True and FALSE are. Levels that are written in other ways are texts.
    """
    known = [level for level in levels if level is not None]
    plain = str.lower if {*known} <= {"true", "false"} else _number if all(map(NUMBER.fullmatch, known)) else str
    code_of: dict[str | float | None, int] = {plain(level): code for code, level in enumerate(known, 1)}
    code_of |= {level: code for code, level in enumerate(levels, 1)}
    found = [code_of.get(text) or code_of.get(plain(text), 0) for text in different]
    return np.array([*found, code_of.get(None, 0)], np.int64)


def _number(text: str) -> str | float:
    """The number that a text is, as far as float64 is exact; else the text."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if abs(number) < 2.0**53 and "_" not in text else text


def unseen(column: pl.Series, codes: Array) -> str:
    """Describe the values of a column that are no level of its category; "" if all are. codes: of its values."""
    is_new = codes == 0
    if not is_new.any():
        return ""
    values = as_texts(column).filter(pl.Series(is_new)).fill_null("no value").unique(maintain_order=True)
    names = some([repr(printable(value)[:40]) for value in values])
    return f"{int(is_new.sum()):,} of {len(is_new):,} rows have levels not in train: {names}"


def unseen_levels(frame: pl.DataFrame, x: Array, encoding: Encoding) -> dict[str, str]:
    """Describe the values of encoded rows that are no level of their category, by column. x: the rows, encoded."""
    first, columns = len(encoding["numbers"]), [category["column"] for category in encoding["categories"]]
    notes = {name: unseen(frame[name], x[:, i]) for i, name in enumerate(columns, first)}
    return {name: note for name, note in notes.items() if note}


def unseen_line(frame: pl.DataFrame, x: Array, encoding: Encoding) -> dict[str, str]:
    """Return the header's line about `unseen_levels`, by its title; none if there are none."""
    new = unseen_levels(frame, x, encoding)
    return {"unseen": "; ".join(f"{name}: {note}" for name, note in new.items())} if new else {}


def decode(x: Array, encoding: Encoding) -> list[dict[str, float | str]]:
    """Turn encoded rows back into values by column, as far as the encoding allows; missing ones are left out."""
    numbers, categories, rows = encoding["numbers"], encoding["categories"], []
    absent = {i: number["column"] for i, number in enumerate(numbers) if number["part"] == "missing"}
    for row in x.tolist():
        lacks = {column for i, column in absent.items() if row[i]}
        values: dict[str, float | str] = {}
        for number, value in zip(numbers, row, strict=False):
            if number["part"] != "missing" and number["column"] not in lacks:
                values[f"{number['column']} {number['part']}".rstrip()] = _unscaled(value, number)
        for category, code in zip(categories, row[len(numbers) :], strict=True):
            level = category["levels"][int(code) - 1] if code else "not in train"
            values |= {} if level is None else {category["column"]: level}
        rows.append(values)
    return rows


def _unscaled(value: float, number: dict[str, Any]) -> float:
    if not (quantiles := number["quantiles"]):
        original = value * number["std"] + number["mean"]
        return original if abs(original) > 1e-6 * (abs(number["mean"]) + number["std"]) else 0.0
    return float(np.interp(NormalDist().cdf(value), np.linspace(0, 1, len(quantiles)), quantiles))


def names(encoding: Encoding) -> Iterable[str]:
    """Yield the names of the encoded columns."""
    yield from (f"{number['column']} {number['part']}".rstrip() for number in encoding["numbers"])
    yield from (category["column"] for category in encoding["categories"])
