"""From the frame of a table to series: splits, encoded columns, targets and windows."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dlrun.data.series.naive import season_of
from dlrun.data.series.order import Rows, ordered
from dlrun.data.series.windows import Windowing, longest, starts_of
from dlrun.data.splits import SPLITS, shares_of, split_random
from dlrun.data.table.columns import RowName, as_numbers, kind_of
from dlrun.data.table.encode import Encoding, Learned, codes, encode, learn_column, stacked, unseen_line
from dlrun.data.table.prepare import (
    NamedFrame,
    check_columns,
    describe_columns,
    describe_left_out,
    has_values,
    with_commas,
)
from dlrun.data.table.settings import TableSettings, aside, check_settings
from dlrun.data.table.targets import learned, moments
from dlrun.errors import DataError, UserError, counted

Array = np.ndarray


class WindowSettings(NamedTuple):
    """The keys of the config about windows. window: None for whole series. horizon: None for the default of the target.

    season: in steps; None: found by itself, 0: none. relative: whether changes since the last step are learned.
    """

    window: int | None
    horizon: int | None
    stride: int
    season: int | None
    relative: bool
    skip_gaps: bool


class Prepared(NamedTuple):
    """Encoded series: values float32 (rows, columns); targets float32 (rows, targets) or int64 (rows,), -1: missing.

    ids, names: as those of Rows.
    """

    values: Array
    targets: Array
    starts: dict[str, Array]
    encoding: Encoding
    header_lines: dict[str, str]
    ids: Array
    names: list[str]


def prepare(part: NamedFrame, settings: TableSettings, windows: WindowSettings, where: str) -> Prepared:
    """Order the rows, split them by time or by series, fit the encoding on the train split, and find the windows."""
    check_settings(part.frame.schema, settings, where)
    rows = ordered(part, settings.group, settings.time, windows.skip_gaps)
    has = has_values(rows.frame, settings.target)
    if not has.any():
        raise DataError(f"{where}: the target {settings.target[0]} has no values\n  expected a value in most rows")
    labelled = rows.frame.select(settings.target).filter(pl.Series(has))
    targets = learned(labelled, settings, lambda row: rows.row_name(int(np.flatnonzero(has)[row])), where)[1]
    y = targets_of(rows.frame, targets, rows.row_name)
    form = _form(rows, windows, "labels" in targets[0], where)
    splits = _splits(rows, settings, y, form)
    train = np.flatnonzero(splits == 0)
    starts, notes = _windows(rows, splits, y, form, settings)
    roles = aside(settings) | ({settings.time: "data.time"} if settings.time else {})
    if form.horizon:  # the past of the targets is known
        roles = {name: role for name, role in roles.items() if name not in settings.target}
    encoding, values, left_out = _encoded(rows, settings, roles, train)
    if not encoding["columns"]:
        reasons = describe_left_out(left_out) or "it has only the target"
        raise DataError(f"{where} has no column to learn from: {reasons}\n  expected numbers or categories")
    last: list[int] = []
    if y.ndim == 2:
        known = [column[train][~np.isnan(column[train])] for column in y.T]
        names = [target["column"] for target in targets]
        targets = [each | moments(*pair) for each, *pair in zip(targets, known, names, strict=True)]
        if windows.relative and form.horizon and not settings.by_quantiles:
            last, targets = _last(encoding, targets)
    season = windows.season
    if season is None:
        season = _season(y, rows, train, form)
    encoding |= {"targets": targets, "length": form.length, "horizon": form.horizon, "season": season, "last": last}
    steps = f"{counted(form.length, 'step')}" + (f", {form.horizon} ahead" if form.horizon else "")
    header_lines = rows.header_lines | {"windows": "; ".join([steps, *notes])} | {"columns": describe_columns(encoding)}
    header_lines["commas"] = with_commas(encoding, settings.types)
    header_lines["left out"] = describe_left_out(left_out | {name: role for name, role in roles.items() if role})
    header_lines = {title: text for title, text in header_lines.items() if text}
    return Prepared(values, y, starts, encoding, header_lines, rows.ids, rows.names)


def prepare_like(
    part: NamedFrame,
    encoding: Encoding,
    settings: TableSettings,
    windows: WindowSettings,
    where: str,
    keep_splits: bool,
) -> Prepared:
    """Encode series with an encoding that was learned before.

    keep_splits: whether the rows are split by the settings; otherwise all windows are the test split.
    """
    targets = encoding["targets"]
    needed = [*encoding["columns"], *(target["column"] for target in targets)]
    check_columns(part.frame.columns, needed, part.row_name)
    rows = ordered(part, settings.group, settings.time, windows.skip_gaps)
    y = targets_of(rows.frame, targets, rows.row_name)
    form = form_like(encoding, windows.stride)
    if keep_splits:
        settings = replace(settings, target=tuple(target["column"] for target in targets))
        starts, _ = _windows(rows, _splits(rows, settings, y, form), y, form, settings)
    else:
        found = starts_of(np.zeros(len(rows.ids), int), rows.breaks, _missing(y), form)[0][0]
        if not len(found):
            raise DataError(f"{where} has no window of {form.span} steps with targets\n  expected longer series")
        starts = {"train": found[:0], "val": found[:0], "test": found}
    x = encode(rows.frame, encoding, rows.row_name)
    return Prepared(x, y, starts, encoding, unseen_line(rows.frame, x, encoding), rows.ids, rows.names)


def form_like(encoding: Encoding, stride: int) -> Windowing:
    is_path = "labels" not in encoding["targets"][0] and encoding["horizon"] > 0
    return Windowing(encoding["length"], encoding["horizon"], is_path, stride)


def targets_of(frame: pl.DataFrame, targets: list[dict[str, Any]], row_name: RowName) -> Array:
    """Return the targets of all rows: float32 (rows, targets), NaN where there is none; or labels (rows,), -1: none."""
    if labels := targets[0].get("labels"):
        column = frame[targets[0]["column"]]
        y = codes(column, labels) - 1
        if (unknown := (y < 0) & column.is_not_null().to_numpy()).any():
            row = int(unknown.argmax())
            raise DataError(
                f"{row_name(row)}: {column.name} is {column[row]!r}\n  expected one of: {', '.join(labels[:20])}"
            )
        return y
    numbers = [as_numbers(frame[target["column"]], row_name).to_numpy() for target in targets]
    return np.stack(numbers, 1).astype(np.float32)


def _missing(y: Array) -> Array:
    return y < 0 if y.ndim == 1 else np.isnan(y).any(1)


def _form(rows: Rows, windows: WindowSettings, is_class: bool, where: str) -> Windowing:
    if windows.window is not None:
        horizon = windows.horizon if windows.horizon is not None else 0 if is_class else 1
        return Windowing(windows.window, horizon, not is_class and horizon > 0, windows.stride)
    if windows.horizon:
        raise UserError(
            f"data.window=null data.horizon={windows.horizon}: nothing follows a whole series\n  expected horizon=0"
        )
    lengths = np.bincount(rows.ids)
    if len(lengths) < 2:
        raise UserError(
            "data.window=null takes whole series, and there is one\n  expected data.series=COLUMN, or a window"
        )
    if lengths.min() != lengths.max():
        short, long = rows.names[int(lengths.argmin())], rows.names[int(lengths.argmax())]
        raise DataError(
            f"{where}: the series have {lengths.min():,} ({short}) to {lengths.max():,} steps ({long})\n"
            f"  expected one length for whole series; data.window={lengths.min()} takes windows of them"
        )
    return Windowing(int(lengths[0]), 0, False, 1)


def _splits(rows: Rows, settings: TableSettings, y: Array, form: Windowing) -> Array:
    """Return the number of each row's split: 0 train, 1 val, 2 test."""
    folds = settings.folds, settings.fold
    shares = shares_of(settings.split, *folds, ())
    lengths = np.bincount(rows.ids)
    is_whole = y.ndim == 1 and form.horizon == 0 or form.length == lengths.min() == lengths.max()
    if is_whole and len(lengths) > 1:
        firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        labels = y[firsts] if settings.stratify and y.ndim == 1 else None
        rows_of = split_random(len(lengths), shares, *folds, labels, "series")
        of_series = np.zeros(len(lengths), np.int8)
        for number, name in enumerate(SPLITS):
            of_series[rows_of[name]] = number
        return of_series[rows.ids]
    if settings.folds:
        raise UserError(
            f"data.folds={settings.folds}: these series are split by time, and networks would learn from what follows "
            "the held-out fold\n  expected data.folds=0, or classes of several series, which are split as a whole "
            "(data.series=COLUMN data.horizon=0)"
        )
    splits, first = np.empty(len(rows.ids), np.int8), 0
    for length in lengths.tolist():
        ends = [int(length * share + 1e-9) for share in (shares[0], shares[0] + shares[1], 1.0)]
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            splits[first + start : first + end] = number
        first += length
    return splits


def _windows(
    rows: Rows, splits: Array, y: Array, form: Windowing, settings: TableSettings
) -> tuple[dict[str, Array], list[str]]:
    by_number, left_out = starts_of(splits, rows.breaks, _missing(y), form)
    starts = {name: by_number.get(number, np.zeros(0, np.int32)) for number, name in enumerate(SPLITS)}
    for number, name in enumerate(SPLITS):
        if not len(starts[name]):
            most = longest(splits, rows.breaks, number)
            ahead = f" data.horizon={form.horizon}" if form.horizon else ""
            raise UserError(
                f"data.window={form.length}{ahead} data.split={list(settings.split)}: at most {most:,} rows of {name} "
                f"follow each other\n  expected {form.span:,} or more: choose a smaller window or horizon, or "
                "another split" + ("; data.gaps=skip takes windows across gaps" if "gaps" in rows.header_lines else "")
            )
    notes = [f"{counted(left_out, 'window')} without a value of {settings.target[0]} left out"] if left_out else []
    return starts, notes


def _encoded(
    rows: Rows, settings: TableSettings, roles: dict[str, str], train: Array
) -> tuple[Encoding, Array, dict[str, str]]:
    """Return the encoding of all columns without a role, the encoded rows, and the columns that are left out."""
    learned: dict[str, tuple[str, Learned]] = {}
    left_out: dict[str, str] = {}
    for name in [name for name in rows.frame.columns if name not in roles]:
        series = rows.frame.drop_in_place(name)  # freed once it is encoded
        column, kind, reason = kind_of(series, settings.types.get(name), rows.row_name)
        if reason:
            left_out[name] = reason
        else:
            learned[name] = kind, learn_column(column, kind, train, settings.by_quantiles)
    encoding: Encoding = {
        "columns": {name: kind for name, (kind, _) in learned.items()},
        "numbers": [number for _, column in learned.values() for number in column.numbers],
        "categories": [category for _, column in learned.values() for category in column.categories],
    }
    values = (
        stacked([column for _, column in learned.values()]) if learned else np.zeros((len(rows.ids), 0), np.float32)
    )
    return encoding, values, left_out


def _last(encoding: Encoding, targets: list[dict[str, Any]]) -> tuple[list[int], list[dict[str, Any]]]:
    """Return the encoded columns that hold the targets, and the targets, standardised as these are."""
    columns = [(number["column"], number["part"]) for number in encoding["numbers"]]
    if any((target["column"], "") not in columns for target in targets):
        return [], targets
    last = [columns.index((target["column"], "")) for target in targets]
    alike = [{name: encoding["numbers"][i][name] for name in ("mean", "std")} for i in last]
    return last, [target | values for target, values in zip(targets, alike, strict=True)]


def _season(y: Array, rows: Rows, train: Array, form: Windowing) -> int:
    """Find the season of the first target in the first series' train split, at most a window long; 0: none.

    Of the longest stretch without a gap; missing values are interpolated, so that all lags are those of time.
    """
    if y.ndim == 1 or not form.horizon:
        return 0
    first = train[rows.ids[train] == rows.ids[train[0]]]
    stretches = np.split(first, np.flatnonzero(rows.breaks[first][1:]) + 1)
    values = y[max(stretches, key=len), 0].astype(np.float64)
    known = np.flatnonzero(~np.isnan(values))
    return season_of(np.interp(np.arange(len(values)), known, values[known]), form.length) if len(known) else 0
