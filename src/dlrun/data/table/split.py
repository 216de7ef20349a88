"""Split a table into train, val and test: by rows, by classes, by groups or by time. Not by the run's seed."""

import numpy as np
import polars as pl

from dlrun.data.splits import SPLITS, shares_of, split_groups, split_random, split_times, without_val
from dlrun.data.table.columns import RowName, as_dates, as_numbers, as_texts, kind_of
from dlrun.data.table.settings import TableSettings
from dlrun.errors import DataError, UserError, counted, printable


def split_table(
    frame: pl.DataFrame, settings: TableSettings, y: np.ndarray, row_name: RowName, fixed: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Split the rows; the splits that are given stay as they are."""
    if settings.group and settings.time:
        raise UserError(
            f"data.group={settings.group} data.time={settings.time}: rows are split by groups or by time\n"
            "  expected one of the two"
        )
    fixed = without_val(fixed) if settings.folds else fixed
    shares = shares_of(settings.split, settings.folds, settings.fold, fixed)
    if settings.group and len(fixed) > 1:
        _check_groups(as_texts(frame[settings.group]).fill_null("").to_numpy(), settings.group, fixed)
    if set(fixed) == set(SPLITS):
        return fixed
    pool = next(iter(fixed.values()))  # all rows, or those of data.train
    folds = settings.folds, settings.fold
    if settings.group:
        rows = split_groups(as_texts(frame[settings.group][pool]).fill_null("").to_numpy(), shares, *folds)
    elif settings.time:
        rows = split_times(_times(frame[settings.time], settings, row_name)[pool], shares)
    else:
        is_stratified = settings.stratify and y.ndim == 1
        rows = split_random(len(pool), shares, *folds, y[pool] if is_stratified else None)
    return {name: fixed[name] if name in fixed and name != "train" else pool[rows[name]] for name in SPLITS}


def _check_groups(groups: np.ndarray, name: str, fixed: dict[str, np.ndarray]) -> None:
    """Raise DataError if a group is in two of the files that are given as splits."""
    of_split = [np.unique(groups[rows]) for rows in fixed.values()]
    seen, counts = np.unique(np.concatenate(of_split), return_counts=True)
    if len(both := seen[counts > 1]):
        raise DataError(
            f"data.group={name}: {counted(len(both), 'group')} of {', '.join(f'data.{each}' for each in fixed)} "
            f"{'is' if len(both) == 1 else 'are'} in two files, such as {printable(str(both[0]))}\n"
            "  expected each group in one file; data.file=ALL, one file with all rows, is split by groups"
        )


def _times(column: pl.Series, settings: TableSettings, row_name: RowName) -> np.ndarray:
    """Return the values of the time column as numbers that can be ordered."""
    if settings.folds:
        raise UserError(
            f"data.time={column.name} data.folds={settings.folds}: expected data.folds=0, since a split by time trains "
            "on the oldest rows"
        )
    column, kind, _ = kind_of(column, settings.types.get(column.name), row_name)
    if kind in ("boolean", "category", "text"):
        raise DataError(f"data.time={column.name}: its values are neither dates nor numbers, such as {column[0]!r}")
    times = as_numbers(column, row_name) if kind == "number" else as_dates(column, kind, row_name)
    if times.null_count():
        row = int(times.is_null().arg_max() or 0)
        raise DataError(f"{row_name(row)}: no value of data.time={column.name}\n  expected one in every row")
    return times.to_physical().to_numpy()
