"""Split rows into train, val and test: at random, by classes, by groups or by time. Not by the run's seed."""

from collections.abc import Collection

import numpy as np

from dlrun.errors import UserError, counted

SPLITS = ("train", "val", "test")
Array = np.ndarray
Shares = tuple[float, float, float]


def check_shares(split: Shares) -> None:
    """Raise UserError unless the shares of train, val and test are positive and sum to 1."""
    if abs(sum(split) - 1) > 1e-6 or not all(split):
        raise UserError(f"data.split={list(split)}: expected three shares > 0 (train, val, test) whose sum is 1")


def check_folds(folds: int, fold: int) -> None:
    """Raise UserError unless there is such a fold, or no folds."""
    if folds == 1 or fold and fold >= folds:
        raise UserError(
            f"data.folds={folds} data.fold={fold}: expected folds >= 2 (or 0: none) and fold in 0 .. folds - 1"
        )


def shares_of(split: Shares, folds: int, fold: int, fixed: Collection[str]) -> Shares:
    """Return the shares of train and of the splits that are not given, whose sum is 1. Raises UserError."""
    check_shares(split)
    check_folds(folds, fold)
    train, val, test = (
        0.0 if name in fixed and name != "train" else share for name, share in zip(SPLITS, split, strict=True)
    )
    whole = train + val + test
    return train / whole, val / whole, test / whole


def split_units(units: Array, shares: Shares, folds: int, fold: int, what: str) -> dict[str, Array]:
    """Split rows by units that stay whole, in the order of their numbers: train, then val, then test.

    units: number of each row's unit, from 0 without gaps. what: a unit, for the message.
    """
    return _rows_of(_split_of_units(np.bincount(units), shares, folds, fold, what)[units])


def _split_of_units(sizes: Array, shares: Shares, folds: int, fold: int, what: str) -> Array:
    """Return the number of each unit's split. sizes: the units' rows.

    A unit belongs to the split in which its middle lies. folds: the fold-th of `folds` equal parts of the units that
    are not test is val.
    """
    middles, rows = np.cumsum(sizes) - sizes / 2, sizes.sum()
    count, least = len(sizes), sum(share > 0 for share in shares)
    if count < least or folds > count:
        raise UserError(
            f"data.split={_rounded(shares)} data.folds={folds}: {counted(count, what)} cannot fill the splits\n"
            f"  expected at least {counted(max(least, folds), what)}"
        )
    ends = np.cumsum(shares)[:2] * rows
    second = count if not shares[2] else int(np.clip(np.searchsorted(middles, ends[1]), least - 1, count - 1))
    first = second if not shares[1] else int(np.clip(np.searchsorted(middles, ends[0]), 1, second - 1))
    of_unit = np.repeat(np.array([0, 1, 2], np.int8), [first, second - first, count - second])
    if folds:
        of_unit[:second] = 0
        of_unit[np.array_split(np.arange(second), folds)[fold]] = 1
    return of_unit


def _rows_of(splits: Array) -> dict[str, Array]:
    """Return the rows of each split from the number of each row's split."""
    return {name: np.flatnonzero(splits == i) for i, name in enumerate(SPLITS)}


def split_random(
    rows: int, shares: Shares, folds: int, fold: int, labels: Array | None = None, what: str = "row"
) -> dict[str, Array]:
    """Split rows by a fixed shuffle. labels: classes, each of which is split separately; None for none.

    what: a row, for the message.
    """
    order = np.random.RandomState(0).permutation(rows)[::-1]  # backwards: val has the rows that split_rows holds out
    splits = np.zeros(rows, np.int8)
    if labels is None:
        splits[order] = _split_of_units(np.ones(rows, np.int64), shares, folds, fold, what)
        return _rows_of(splits)
    of_order = labels[order]
    parts = [order[of_order == label] for label in np.unique(labels)]
    least = max(sum(share > 0 for share in shares), folds)
    if all(len(part) < least for part in parts):
        divided = f" data.folds={folds}" if folds else ""
        raise UserError(
            f"data.split={_rounded(shares)}{divided}: no class has {counted(least, what)}, one for each split\n"
            f"  expected {counted(least, what)} or more of a class, or data.stratify=false"
        )
    for part in parts:
        if len(part) >= least:  # a smaller class only trains
            splits[part] = _split_of_units(np.ones(len(part), np.int64), shares, folds, fold, what)
    return _rows_of(splits)


def _rounded(shares: Shares) -> list[float]:
    return [round(share, 3) for share in shares]


def split_rows(samples: int, val_fraction: float, folds: int, fold: int, given: int = 0) -> dict[str, Array]:
    """Split rows into train and val by a fixed shuffle, which does not depend on the run's seed.

    given: number of the last rows that are val by the data itself; 0: val is cut from all rows. folds > 1 holds out the
    fold-th of `folds` equal parts as val; otherwise a `val_fraction` of all rows is held out. With 0 none are: val is
    then the train split. Raises UserError if a split would be empty.
    """
    check_folds(folds, fold)
    if given and not folds:
        return {"train": np.arange(samples - given), "val": np.arange(samples - given, samples)}
    if not val_fraction and not folds:
        return dict.fromkeys(("train", "val"), np.arange(samples))
    order = np.random.RandomState(0).permutation(samples)  # NumPy has frozen this stream: every version splits alike
    if folds > samples:
        raise UserError(
            f"data.folds={folds} of {counted(samples, 'sample')} leaves a split empty: "
            f"expected at most {counted(samples, 'fold')}"
        )
    val = np.array_split(order, folds)[fold] if folds else order[: round(samples * val_fraction)]
    if not 0 < len(val) < samples:
        raise UserError(
            f"data.val_fraction={val_fraction} of {counted(samples, 'sample')} leaves a split empty: "
            "choose another fraction"
        )
    train = np.setdiff1d(order, val)
    return {"train": train, "val": np.sort(val)}


def split_groups(groups: Array, shares: Shares, folds: int, fold: int) -> dict[str, Array]:
    """Split by groups in a fixed random order, so that no group is in two splits."""
    _, numbers = np.unique(groups, return_inverse=True)
    order = np.random.RandomState(0).permutation(int(numbers.max()) + 1)
    return split_units(order[numbers], shares, folds, fold, "group")


def split_times(times: Array, shares: Shares) -> dict[str, Array]:
    """Split by time, the oldest rows first; rows of the same time stay together."""
    _, numbers = np.unique(times, return_inverse=True)
    return split_units(numbers, shares, 0, 0, "different time")


def without_val(fixed: dict[str, Array]) -> dict[str, Array]:
    """Return the given splits with the rows of val in train: folds divide all rows that are not test."""
    if "val" not in fixed:
        return fixed
    without = {name: rows for name, rows in fixed.items() if name != "val"}
    return without | {"train": np.concatenate([fixed["train"], fixed["val"]])}


def cut(fixed: dict[str, Array], split: Shares, folds: int, fold: int, labels: Array | None) -> dict[str, Array]:
    """Return train, val and test: those that are given, and the others cut from "all" or from train, at random.

    fixed: rows by split. labels: of all rows, to split each class separately; None: any.
    """
    fixed = without_val(fixed) if folds else fixed
    shares = shares_of(split, folds, fold, fixed)
    if set(fixed) == set(SPLITS):
        return fixed
    pool = fixed["all"] if "all" in fixed else fixed["train"]
    rows = split_random(len(pool), shares, folds, fold, None if labels is None else labels[pool], "sample")
    return {name: fixed[name] if name in fixed and name != "train" else pool[rows[name]] for name in SPLITS}
