"""Rows of a table from Python objects: frames, dictionaries, arrays; and the targets beside them."""

from collections.abc import Container, Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from dlrun.api.samples import array_of, as_array, is_frame, refuse_masked, short, uneven
from dlrun.errors import UserError, counted, first_line, own_code, some

if TYPE_CHECKING:
    import numpy
    import polars

TARGET = "target"  # the column of targets that are given beside a frame without a name
CELLS = "rows with one text or number per column, or a date"


def as_polars(frame: Any) -> "polars.DataFrame":
    """Return a frame of polars or pandas as one of polars, a lazy one collected; NaN of pandas is a missing value."""
    import polars as pl

    if isinstance(frame, pl.DataFrame):
        return frame
    if not is_frame(frame):
        raise UserError(f"{short(frame)}: expected a frame of polars or pandas")
    if isinstance(frame, pl.LazyFrame):
        with own_code("the LazyFrame", "one that can be collected"):
            return frame.collect()
    names = [str(name) for name in frame.columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"the frame has two columns {twice!r}\n  expected names that differ")
    return _of_columns({str(name): frame[name].tolist() for name in frame.columns})


def _of_columns(columns: Mapping[str, Iterable[Any]]) -> "polars.DataFrame":
    import polars as pl

    try:
        known = {name: [None if _is_gap(each) else _plain(each) for each in values] for name, values in columns.items()}
        return pl.DataFrame(known, strict=False)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"x: {first_line(error)}\n  expected {CELLS}") from None


def _plain(value: Any) -> Any:
    """A value that polars takes: a date of NumPy as one of Python."""
    return value.astype("datetime64[us]").item() if type(value).__name__ == "datetime64" else value


def _is_gap(value: Any) -> bool:
    """Whether it is a missing value: None, NaN, or one of pandas. pd.NA, of its nullable types, has no truth value."""
    if value is None or type(value).__name__ == "NAType":
        return True
    differs = value != value
    return type(differs).__name__ in ("bool", "bool_") and bool(differs)


def as_rows(x: Any, columns: Mapping[str, str]) -> "polars.DataFrame":
    """Return rows for a run that learned from a table. columns: that it learned from, each with its kind.

    x: a frame, a dictionary or a list of them, or numbers (N, columns) if all columns are of numbers.
    """
    if is_frame(x):
        return as_polars(x)
    if isinstance(x, dict):
        return _of_rows([x])
    if isinstance(x, list | tuple) and any(isinstance(each, dict) for each in x):
        return _of_rows(x)
    names = x.index.tolist() if _is_of_pandas(x) and hasattr(x, "index") else []
    if set(columns) <= set(map(str, names)):  # a row of a frame
        return _of_rows([dict(zip(names, x.tolist(), strict=True))])
    return _of_array(x, columns)


def _is_of_pandas(x: object) -> bool:
    return type(x).__module__.split(".")[0] == "pandas"


def _of_rows(rows: Iterable[Any]) -> "polars.DataFrame":
    rows = list(rows)
    if wrong := [row for row in rows if not isinstance(row, dict)]:
        raise UserError(f"x: one of the rows is {short(wrong[0])}\n  expected {CELLS}")
    names = dict.fromkeys(name for row in rows for name in row)
    return _of_columns({str(name): [row.get(name) for row in rows] for name in names})


def _of_array(x: Any, columns: Mapping[str, str]) -> "polars.DataFrame":
    """Return numbers as rows: in the order of the columns."""
    import polars as pl

    named = f"the columns of the run: {', '.join(columns)}"
    if others := [name for name, kind in columns.items() if kind not in ("number", "boolean")]:
        raise UserError(
            f"x is a {type(x).__name__}, but {some(others)} {'is' if len(others) == 1 else 'are'} not of numbers\n"
            f"  expected a frame or dictionaries with {named}"
        )
    expected = f"numbers (N, {len(columns)}), or one row of them, in the order of {named}"
    array = as_array("x", x, expected)
    if array.dtype.kind not in "biuf":
        raise UserError(f"x holds values of type {array.dtype}\n  expected {expected}")
    rows = array.reshape(-1, 1) if array.ndim == 1 and len(columns) == 1 else array[None] if array.ndim == 1 else array
    if rows.ndim != 2 or rows.shape[1] != len(columns):
        raise UserError(f"x has the shape {array.shape}\n  expected {expected}")
    return pl.DataFrame({name: rows[:, i] for i, name in enumerate(columns)})


def named_targets(y: Any, x: "polars.DataFrame", count: int = 1) -> list[tuple[str | None, Any]]:
    """Return the targets as pairs (name or None, values); the values are None if the target is a column of x.

    y: a name or several, a frame, or targets (N,) or (N, targets). count: how many targets there are, if it is known.
    """
    if isinstance(y, str) or isinstance(y, Integral) and not isinstance(y, bool):
        return [(str(y), None)]
    if isinstance(y, list | tuple) and _are_names(y, x, count):
        return [(name, None) for name in y]
    if is_frame(y):
        frame = as_polars(y)
        targets: list[tuple[str | None, Any]] = [(name, frame[name]) for name in frame.columns]
    elif _has_columns(y):
        targets = [(None, column) for column in _columns_of(y)]
    else:
        name = getattr(y, "name", None)
        targets = [(name if isinstance(name, str) and name else None, y)]
    if not targets:
        raise UserError("y has no columns\n  expected a target or several per row")
    return targets


def _are_names(y: Sequence[Any], x: "polars.DataFrame", count: int) -> bool:
    """Whether texts are names of columns, not classes of rows, which may be called as columns are."""
    are_columns = all(isinstance(name, str) and name in x.columns for name in y)
    return are_columns and 0 < len(y) == len(set(y)) and (len(y) != len(x) or len(y) == count > 1)


def _has_columns(y: Any) -> bool:
    """Whether targets are (N, targets): an array, a tensor, or a list of rows."""
    is_list = isinstance(y, list | tuple) and len(y) > 0
    first = y[0] if is_list else None
    return len(getattr(y, "shape", ())) == 2 or isinstance(first, list | tuple) or len(getattr(first, "shape", ())) == 1


def _columns_of(y: Any) -> "Iterable[numpy.ndarray]":
    """Return the columns of targets (N, targets); of rows of zeros with a single one the number of the class."""
    from dlrun.data.arrays.targets import is_one_hot

    array = array_of("y", y)
    if array.ndim != 2:
        raise UserError(f"y has the shape {array.shape}\n  expected a target or several per row")
    return [array.argmax(1)] if array.shape[1] > 1 and is_one_hot(array) else array.T


def names_of(targets: Iterable[tuple[str | None, Any]], columns: Iterable[str]) -> list[str]:
    """Return the names of targets. One without a name gets one that is no column."""
    names, taken = list[str](), set(columns)
    for name, _ in targets:
        names.append(name or _free_name({*taken, *names}))
    return names


def _free_name(taken: Container[str]) -> str:
    name, number = TARGET, 2
    while name in taken:
        name, number = f"{TARGET}_{number}", number + 1
    return name


def with_targets(frame: "polars.DataFrame", y: Any, targets: Sequence[str], split: str) -> "polars.DataFrame":
    """Return a frame with its targets as the columns `targets`. y: names of other columns, or the targets."""
    given = named_targets(y, frame, len(targets))
    if len(given) != len(targets):
        raise UserError(
            f"{split}: y has {counted(len(given), 'target')} per row\n  expected {len(targets)}: {', '.join(targets)}"
        )
    if {name for name, _ in given} == set(targets):
        targets = [str(name) for name, _ in given]  # in another order
    columns = [_target(frame, *pair, target, split) for pair, target in zip(given, targets, strict=True)]
    return frame.with_columns(columns)


def _target(frame: "polars.DataFrame", name: str | None, values: Any, target: str, split: str) -> "polars.Series":
    if values is None and name is not None:
        if name not in frame.columns:
            raise UserError(f"y={name!r}: {split} has no such column\n  expected one of: {', '.join(frame.columns)}")
        return frame[name].alias(target)
    column = _targets(values)
    if len(column) != len(frame):
        raise uneven(split, len(frame), len(column))
    return column.alias(target)


def _targets(y: Any) -> "polars.Series":
    """Return targets, null where they are missing: those rows are left out."""
    import polars as pl

    if isinstance(y, pl.Series):
        return y
    refuse_masked("y", y)
    is_listed = _is_of_pandas(y) or getattr(getattr(y, "dtype", None), "kind", "") == "O"
    values = y.tolist() if is_listed else y
    if not isinstance(values, list | tuple) or not any(map(_is_gap, values)):
        array = array_of("y", values)
        if array.ndim != 1:
            raise UserError(f"y has the shape {array.shape}\n  expected one target per row")
        return pl.Series(array.tolist())
    known = [each for each in values if not _is_gap(each)]
    found = iter(array_of("y", known).tolist() if known else ())
    return pl.Series([None if _is_gap(each) else next(found) for each in values])


class Frames:
    """A reader of frames in memory."""

    def __init__(self, frames: "Mapping[str, polars.DataFrame]") -> None:
        self.frames = frames

    def __call__(self) -> "Mapping[str, polars.DataFrame]":
        return {name: frame.clone() for name, frame in self.frames.items()}  # reading takes columns out of a frame
