"""Split a table into train, val and test: by rows, by classes, by groups or by time. Not by the run's seed."""

import numpy as np
import polars as pl

from dlrun.data.table.columns import Place, as_dates, as_numbers, as_texts, kind_of
from dlrun.data.table.wanted import Shares, Wanted
from dlrun.errors import DataError, UserError, counted

SPLITS = ("train", "val", "test")
Array = np.ndarray


def split_table(
    frame: pl.DataFrame, wanted: Wanted, y: np.ndarray, place: Place, given: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Split the rows; the splits that are given stay as they are."""
    _, val, test = shares = wanted.split
    if abs(sum(shares) - 1) > 1e-6 or not all(shares):
        raise UserError(f"data.split={list(shares)}: expected three shares > 0 (train, val, test) whose sum is 1")
    if wanted.folds == 1 or wanted.fold and wanted.fold >= wanted.folds:
        raise UserError(
            f"data.folds={wanted.folds} data.fold={wanted.fold}: expected folds >= 2 (or 0: none) and fold in "
            "0 .. folds - 1"
        )
    val, test = (0.0 if name in given else share for name, share in (("val", val), ("test", test)))
    shares = (shares[0], val, test)
    shares = (shares[0] / sum(shares), val / sum(shares), test / sum(shares))
    if set(given) == set(SPLITS):
        return given
    pool = next(iter(given.values()))  # all rows, or those of data.train
    folds = (0, 0) if "val" in given else (wanted.folds, wanted.fold)
    if wanted.group:
        found = split_groups(as_texts(frame[wanted.group][pool]).fill_null("").to_numpy(), shares, *folds)
    elif wanted.time:
        found = split_times(_times(frame[wanted.time], wanted, place)[pool], shares)
    else:
        is_stratified = wanted.stratify and y.ndim == 1
        found = split_random(len(pool), shares, *folds, y[pool] if is_stratified else None)
    return {name: given[name] if name in given and name != "train" else pool[found[name]] for name in SPLITS}


def _times(column: pl.Series, wanted: Wanted, place: Place) -> np.ndarray:
    """Return the values of the time column as numbers that can be ordered."""
    if wanted.folds:
        raise UserError(
            f"data.time={column.name} data.folds={wanted.folds}: expected data.folds=0, since a split by time trains "
            "on the oldest rows"
        )
    column, kind, _ = kind_of(column, wanted.types.get(column.name), place)
    if kind in ("boolean", "category", "text"):
        raise DataError(f"data.time={column.name}: its values are no dates and no numbers, such as {column[0]!r}")
    times = as_numbers(column, place) if kind == "number" else as_dates(column, kind, place)
    if times.null_count():
        raise DataError(f"{place(int(times.is_null().arg_max() or 0))}: no value of data.time={column.name}")
    return times.to_physical().to_numpy()


def split_units(units: Array, shares: Shares, folds: int, fold: int, what: str) -> dict[str, Array]:
    """Split rows by their units, which stay whole and come in the order of their numbers: train, then val, then test.

    units: number of each row's unit, from 0 without gaps. A unit belongs to the split in which its middle lies. folds:
    the fold-th of `folds` equal parts of the units that are not test is val. what: a unit, for the message.
    """
    sizes = np.bincount(units)
    middles = np.cumsum(sizes) - sizes / 2
    count, least = len(sizes), sum(share > 0 for share in shares)
    if count < least or folds > count:
        raise UserError(
            f"data.split={list(shares)} data.folds={folds}: {counted(count, what)} cannot fill the splits\n"
            f"  expected at least {counted(max(least, folds), what)}"
        )
    ends = np.cumsum(shares)[:2] * len(units)
    second = count if not shares[2] else int(np.clip(np.searchsorted(middles, ends[1]), least - 1, count - 1))
    first = second if not shares[1] else int(np.clip(np.searchsorted(middles, ends[0]), 1, second - 1))
    of_unit = np.repeat([0, 1, 2], [first, second - first, count - second])
    if folds:
        of_unit[:second] = 0
        of_unit[np.array_split(np.arange(second), folds)[fold]] = 1
    return {name: np.flatnonzero(of_unit[units] == i) for i, name in enumerate(SPLITS)}


def split_random(rows: int, shares: Shares, folds: int, fold: int, labels: Array | None = None) -> dict[str, Array]:
    """Split rows by a fixed shuffle. labels: classes, each of which is split separately; None for none."""
    order = np.random.RandomState(0).permutation(rows)[::-1]  # backwards: val has the rows that split_rows holds out
    if labels is None:
        splits = split_units(np.arange(rows), shares, folds, fold, "row")
        return {name: np.sort(order[chosen]) for name, chosen in splits.items()}
    parts = [order[labels[order] == label] for label in np.unique(labels)]
    least = max(sum(share > 0 for share in shares), folds)
    small = np.concatenate([part for part in parts if len(part) < least] or [order[:0]])  # these only train
    found = [
        {name: part[chosen] for name, chosen in split_units(np.arange(len(part)), shares, folds, fold, "row").items()}
        for part in parts
        if len(part) >= least
    ]
    if not found:
        raise UserError(
            f"data.split={list(shares)}: every class has fewer than {least} rows, so none can be in each split\n"
            "  expected more rows per class, or data.stratify=false"
        )
    whole = {name: [split[name] for split in found] for name in SPLITS}
    whole["train"].append(small)
    return {name: np.sort(np.concatenate(chosen)) for name, chosen in whole.items()}


def split_groups(groups: Array, shares: Shares, folds: int, fold: int) -> dict[str, Array]:
    """Split by groups in a fixed random order, so that no group is in two splits."""
    _, numbers = np.unique(groups, return_inverse=True)
    order = np.random.RandomState(0).permutation(int(numbers.max()) + 1)
    return split_units(order[numbers], shares, folds, fold, "group")


def split_times(times: Array, shares: Shares) -> dict[str, Array]:
    """Split by time, the oldest rows first; rows of the same time stay together."""
    _, numbers = np.unique(times, return_inverse=True)
    return split_units(numbers, shares, 0, 0, "different time")
