"""The order of a series' rows in time, and its gaps."""

from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl

from dlrun.data.table.columns import Place, as_dates, as_numbers, as_texts, kind_of
from dlrun.data.table.prepare import Part, check_columns
from dlrun.errors import DataError, counted

Array = np.ndarray
GAP = 1.5  # a step of time that is longer than this many usual steps is a gap


class Rows(NamedTuple):
    """Rows in the order of time. ids: number of each row's series. breaks: whether it does not follow the one before.

    names: of the series. about: lines for the header.
    """

    frame: pl.DataFrame
    place: Place
    ids: Array
    breaks: Array
    names: list[str]
    about: dict[str, str]


def ordered(part: Part, series: str | None, time: str | None, skip_gaps: bool) -> Rows:
    """Put the rows of each series in the order of time. Raises DataError for a time that is missing or comes twice."""
    frame, place = part
    needed = [name for name in (series, time) if name]
    check_columns(frame.columns, needed, place)
    if not needed:
        ids = np.zeros(frame.height, np.int32)
        return Rows(frame, place, ids, np.arange(frame.height) == 0, [""], {})
    names = as_texts(frame[series]).fill_null("").to_list() if series else [""]
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    ids = np.array([order[name] for name in names], np.int32) if series else np.zeros(frame.height, np.int32)
    times = _times(frame.drop_in_place(time), place) if time else np.arange(frame.height)
    about = {}
    if not _is_ordered(ids, times):
        rows = np.lexsort((times, ids))
        frame, ids, times = frame[rows], ids[rows], times[rows]
        place = partial(_moved, rows, place)
        about["order"] = f"rows are sorted by {' and '.join(needed)}"
    steps = np.diff(times)
    breaks = np.concatenate([[True], ids[1:] != ids[:-1]])
    inside = ~breaks[1:]
    if time and (twice := inside & (steps == 0)).any():
        row = int(twice.argmax()) + 1
        raise DataError(
            f"{place(row)}: the time {time} is that of another row\n"
            f"  expected one row for each time; data.series=COLUMN names the series of a row if there are several"
        )
    if time and inside.any() and not skip_gaps:
        usual = np.median(steps[inside], overwrite_input=True)  # of a copy
        gaps = inside & (steps > GAP * usual)
        breaks[1:] |= gaps
        if gaps.any():
            about["gaps"] = (
                f"{counted(int(gaps.sum()), 'gap')} in {time}: no window crosses one (data.gaps=skip: they do)"
            )
    return Rows(frame, place, ids, breaks, list(order), about)


def _is_ordered(ids: Array, times: Array) -> bool:
    """Whether rows are in the order of their series, and of time in each."""
    return bool(((ids[1:] > ids[:-1]) | (ids[1:] == ids[:-1]) & (times[1:] >= times[:-1])).all())


def _moved(rows: Array, place: Place, row: int) -> str:
    return place(int(rows[row]))


def _times(column: pl.Series, place: Place) -> Array:
    column, kind, _ = kind_of(column, None, place)
    if kind in ("boolean", "category", "text"):
        raise DataError(
            f"data.time={column.name}: its values are no dates and no numbers, such as {column[0]!r}\n"
            "  expected for example 2024-12-31 23:00"
        )
    times = as_numbers(column, place) if kind == "number" else as_dates(column, kind, place)
    if times.null_count():
        row = int(times.is_null().arg_max() or 0)
        raise DataError(f"{place(row)}: no value of data.time={column.name}\n  expected one in every row")
    return times.to_physical().to_numpy()
