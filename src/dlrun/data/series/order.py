"""The order of a series' rows in time, and its gaps."""

from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl

from dlrun.data.table.columns import RowName, as_dates, as_numbers, as_texts, kind_of
from dlrun.data.table.dates import ambiguity
from dlrun.data.table.prepare import NamedFrame, check_columns
from dlrun.errors import DataError, counted

Array = np.ndarray
GAP = 1.5  # a step of time that is longer than this many usual steps is a gap


class Rows(NamedTuple):
    """Rows in the order of time. ids: number of each row's series. breaks: whether it does not follow the one before.

    names: of the series. header_lines: lines for the header.
    """

    frame: pl.DataFrame
    row_name: RowName
    ids: Array
    breaks: Array
    names: list[str]
    header_lines: dict[str, str]


def ordered(part: NamedFrame, series: str | None, time: str | None, skip_gaps: bool) -> Rows:
    """Put the rows of each series in the order of time. Raises DataError for a missing or repeated time."""
    frame, row_name = part
    needed = [name for name in (series, time) if name]
    check_columns(frame.columns, needed, row_name)
    if not needed:
        ids = np.zeros(frame.height, np.int32)
        return Rows(frame, row_name, ids, np.arange(frame.height) == 0, [""], {})
    names = as_texts(frame[series]).fill_null("").to_list() if series else [""]
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    ids = np.array([order[name] for name in names], np.int32) if series else np.zeros(frame.height, np.int32)
    header_lines: dict[str, str] = {}
    if time:
        times, note = _times(frame.drop_in_place(time), row_name)
        header_lines |= {"dates": note} if note else {}
    else:
        times = np.arange(frame.height)
    if not _is_ordered(ids, times):
        rows = np.lexsort((times, ids))
        frame, ids, times = frame[rows], ids[rows], times[rows]
        row_name = partial(_moved, rows, row_name)
        header_lines["order"] = f"rows are sorted by {' and '.join(needed)}"
    steps = np.diff(times)
    breaks = np.concatenate([[True], ids[1:] != ids[:-1]])
    inside = ~breaks[1:]
    if time and (twice := inside & (steps == 0)).any():
        row = int(twice.argmax()) + 1
        raise DataError(
            f"{row_name(row)}: the time {time} is that of another row\n"
            f"  expected one row for each time; data.series=COLUMN names the series of a row if there are several"
        )
    if time and inside.any() and not skip_gaps:
        usual = np.median(steps[inside], overwrite_input=True)  # of a copy
        gaps = inside & (steps > GAP * usual)
        breaks[1:] |= gaps
        if gaps.any():
            header_lines["gaps"] = (
                f"{counted(int(gaps.sum()), 'gap')} in {time}: no window crosses one (data.gaps=skip: they do)"
            )
    return Rows(frame, row_name, ids, breaks, list(order), header_lines)


def _is_ordered(ids: Array, times: Array) -> bool:
    """Whether rows are in the order of their series, and of time in each."""
    return bool(((ids[1:] > ids[:-1]) | (ids[1:] == ids[:-1]) & (times[1:] >= times[:-1])).all())


def _moved(rows: Array, row_name: RowName, row: int) -> str:
    return row_name(int(rows[row]))


def _times(column: pl.Series, row_name: RowName) -> tuple[Array, str]:
    """Return times as numbers, and a note if day and month could be swapped."""
    column, kind, _ = kind_of(column, None, row_name)
    if kind in ("boolean", "category", "text"):
        raise DataError(
            f"data.time={column.name}: its values are neither dates nor numbers, such as {column[0]!r}\n"
            "  expected for example 2024-12-31 23:00"
        )
    times = as_numbers(column, row_name) if kind == "number" else as_dates(column, kind, row_name)
    if times.null_count():
        row = int(times.is_null().arg_max() or 0)
        raise DataError(f"{row_name(row)}: no value of data.time={column.name}\n  expected one in every row")
    return times.to_physical().to_numpy(), ambiguity(times, kind) if "%" in kind else ""
