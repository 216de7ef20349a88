"""Join the files of a table, one for each split: what a column holds is decided by the first of them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from dlrun.data.table.columns import RowName, as_booleans, as_numbers, as_texts, is_read, type_name
from dlrun.data.table.settings import TableSettings
from dlrun.errors import DataError, nearest

TEXTS = (pl.String, pl.Categorical, pl.Enum)


class NamedFrame(NamedTuple):
    """The rows of one file or source. row_name: names a row, for messages."""

    frame: pl.DataFrame
    row_name: RowName


def joined(
    parts: Mapping[str, NamedFrame], settings: TableSettings
) -> tuple[pl.DataFrame, RowName, dict[str, np.ndarray]]:
    """Return all rows in one frame, a function that names a row, and the rows of each part."""
    (name, first), *others = parts.items()
    if not others:
        return first.frame, first.row_name, {name: np.arange(first.frame.height)}
    columns = first.frame.columns
    for name, part in others:
        if lacking := [column for column in columns if column not in part.frame.columns]:
            raise DataError(
                f"data.{name}: there is no column {lacking[0]!r}{nearest(lacking[0], part.frame.columns)}\n"
                f"  expected the columns of data.train: {', '.join(columns)}"
            )
    frames = [part.frame.select(columns) for part in parts.values()]
    for name in columns:
        if len({str(frame.schema[name]) for frame in frames}) > 1:
            mixed = {
                key: (frame[name], part.row_name) for (key, part), frame in zip(parts.items(), frames, strict=True)
            }
            found = _of_one_type(mixed, name in settings.drop, name in settings.types)
            frames = [frame.with_columns(column) for frame, column in zip(frames, found, strict=True)]
    ends = np.cumsum([frame.height for frame in frames])
    starts = ends - [frame.height for frame in frames]

    def row_name(row: int) -> str:
        number = int(np.searchsorted(ends, row, side="right"))
        return list(parts.values())[number].row_name(row - int(starts[number]))

    fixed = {name: np.arange(*span) for name, span in zip(parts, zip(starts, ends, strict=True), strict=True)}
    return pl.concat(frames), row_name, fixed


def _of_one_type(parts: Mapping[str, tuple[pl.Series, RowName]], is_dropped: bool, has_kind: bool) -> list[pl.Series]:
    """Return a column of several files that is of different types in them, as values of the first one's kind.

    A file without any value has no type. has_kind: whether the config has the column's kind; then the values are texts.
    Raises DataError for a value that is not of that kind.
    """
    columns = [column for column, _ in parts.values()]
    name = columns[0].name
    typed = {name: column for name, (column, _) in parts.items() if column.null_count() < len(column)}
    first = next(iter(typed), "")
    kind = typed[first].dtype if typed else pl.String()
    if all(column.dtype == kind for column in typed.values()) and not isinstance(kind, pl.Enum):
        return [column if column.dtype == kind else pl.Series(name, [], kind).clear(len(column)) for column in columns]
    if all(column.dtype.is_numeric() for column in typed.values()):
        common = pl.concat([column.head(0).to_frame() for column in typed.values()], how="vertical_relaxed").dtypes[0]
        return [column.cast(common, strict=False) for column in columns]
    if is_dropped:
        return [pl.Series(name, [], pl.String).clear(len(column)) for column in columns]
    if odd := next((key for key, column in typed.items() if not is_read(column.dtype)), None):
        others = ", ".join(sorted({type_name(column.dtype) for key, column in typed.items() if key != odd}))
        raise DataError(
            f"data.{odd}: the column {name} is of type {type_name(typed[odd].dtype)}, and elsewhere of type {others}\n"
            f"  expected one type in all files: leave it out with 'data.drop=[{name}]'"
        )
    if has_kind or not kind.is_numeric() and kind != pl.Boolean:
        return [as_texts(column) for column in columns]
    advice = (
        f", as in data.{first}: correct it, write 'data.missing=[...]' if it means no value, leave the column out with "
        f"'data.drop=[{name}]', or set data.types.{name}=category"
    )
    read = as_booleans if kind == pl.Boolean else as_numbers
    return [read(column, row_name, advice) for column, row_name in parts.values()]


def texts_of(frame: pl.DataFrame) -> list[str]:
    """Return the names of the columns of texts."""
    return [column.name for column in frame if column.dtype in TEXTS and column.null_count() < len(column)]
