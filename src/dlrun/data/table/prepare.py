"""From the frames of a table to encoded rows, targets and splits."""

import re
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dlrun.data.table.columns import COMMA, MOSTLY, RowName, as_numbers, kind_of
from dlrun.data.table.dates import ambiguity
from dlrun.data.table.encode import Encoding, Learned, codes, encode, learn_column, stacked, unseen, unseen_line
from dlrun.data.table.joined import NamedFrame, joined
from dlrun.data.table.settings import TableSettings, aside, check_settings
from dlrun.data.table.split import split_table
from dlrun.data.table.targets import learned, moments, weights_of
from dlrun.errors import DataError, counted, nearest, some

WORKERS = 2  # threads that encode columns: each holds one as float64


class Prepared(NamedTuple):
    """An encoded table: x float32 (rows, columns); y int64 (rows,) or float32 (rows, targets); weights float32 (rows,).

    header_lines: lines for the run's header, by title. rows: of the table that these are, from 0 (rows,).
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    splits: dict[str, np.ndarray]
    encoding: Encoding
    header_lines: dict[str, str]
    rows: np.ndarray


def prepare(parts: Mapping[str, NamedFrame], settings: TableSettings, where: str) -> Prepared:
    """Find the columns' kinds, split the rows, learn the encoding from the train split and encode all rows.

    parts: the table under "all", or the splits that are given (train, and val or test or both); the others are cut
    from train. where: names the table, for messages.
    """
    frame, row_name, fixed = joined(parts, settings)
    check_settings(frame.schema, settings, where)
    frame, row_name, fixed, header_lines, rows = _with_target(frame, settings, row_name, fixed, where)
    y, target = learned(frame, settings, row_name, where)
    splits = split_table(frame, settings, y, row_name, fixed)
    weights = weights_of(frame, settings, row_name, splits["train"]) if settings.weights else None
    roles = aside(settings)
    names = [name for name in frame.columns if name not in roles]
    learn = partial(_learn, settings=settings, splits=splits, row_name=row_name)
    with ThreadPoolExecutor(WORKERS) as threads:  # a column leaves the frame and is freed once it is encoded
        columns = dict(zip(names, threads.map(learn, map(frame.drop_in_place, names)), strict=True))
    left_out = {name: column.reason for name, column in columns.items() if column.reason}
    used = {name: column for name, column in columns.items() if not column.reason}
    not_learned = describe_left_out(left_out | {name: role for name, role in roles.items() if role})
    if not used:
        raise DataError(
            f"{where} has no column to learn from: {not_learned or 'it has only the target'}\n"
            "  expected numbers or categories"
        )
    encoding = {
        "columns": {name: column.kind for name, column in used.items()},
        "numbers": [number for column in used.values() for number in column.learned.numbers],
        "categories": [category for column in used.values() for category in column.learned.categories],
        "targets": _fitted(target, y, splits["train"]),
    }
    header_lines |= {
        "columns": describe_columns(encoding),
        "left out": not_learned,
    }
    header_lines["commas"] = with_commas(encoding, settings.types)
    header_lines["dates"] = "; ".join(column.note for column in used.values() if column.note)
    header_lines["unseen"] = "; ".join(f"{name}: {column.unseen}" for name, column in used.items() if column.unseen)
    x = stacked([column.learned for column in used.values()])
    return Prepared(
        x, y, weights, splits, encoding, {title: text for title, text in header_lines.items() if text}, rows
    )


class _Column(NamedTuple):
    """A prepared column. reason: why it is left out, or "". unseen: describes levels that train lacks.

    note: says that day and month may be the other way round, or "".
    """

    kind: str
    reason: str
    learned: Learned
    unseen: str
    note: str = ""


def _learn(column: pl.Series, settings: TableSettings, splits: Mapping[str, np.ndarray], row_name: RowName) -> _Column:
    chosen = settings.types.get(column.name, "")
    column, kind, reason = kind_of(column, chosen, row_name)
    if reason:
        return _Column(kind, reason, Learned([], [], []), "")
    learned = learn_column(column, kind, splits["train"], settings.by_quantiles)
    held = np.concatenate([splits["val"], splits["test"]])
    has_new = learned.categories and not learned.values[0][held].all()
    new = unseen(column[held], learned.values[0][held]) if has_new else ""
    note = ambiguity(column, kind) if "%" in kind and "%" not in chosen else ""
    return _Column(kind, "", learned, new, note)


def _fitted(targets: list[dict[str, Any]], y: np.ndarray, train: np.ndarray) -> list[dict[str, Any]]:
    """Add the means and deviations of real targets over the train split."""
    if y.ndim == 1:
        return targets
    return [target | moments(values[train], target["column"]) for target, values in zip(targets, y.T, strict=True)]


def prepare_like(
    parts: Mapping[str, NamedFrame], settings: TableSettings, encoding: Encoding, keep_splits: bool
) -> Prepared:
    """Encode a table with an encoding that was learned before. Rows without a target are left out.

    keep_splits: whether the rows are split by the settings; otherwise all of them are the test split.
    """
    targets = [target["column"] for target in encoding["targets"]]
    settings = replace(settings, target=tuple(targets))
    roles = [name for name in (settings.group, settings.time) if name and keep_splits]
    for part in parts.values():
        check_columns(part.frame.columns, [*encoding["columns"], *targets, *roles], part.row_name)
    frame, row_name, fixed = joined(parts, settings)
    if not has_values(frame, targets).any():
        raise DataError(f"{row_name(0)}: no row has a value for the target {targets[0]}\n  expected at least one")
    frame, row_name, fixed, _, rows = _with_target(frame, settings, row_name, fixed, "the table")
    if labels := encoding["targets"][0].get("labels"):
        y = codes(frame[targets[0]], labels) - 1
        if (y < 0).any():
            row = int((y < 0).argmax())
            raise DataError(
                f"{row_name(row)}: {targets[0]} is {frame[targets[0]][row]!r}, a class that the run does not know\n"
                f"  expected one of: {some(list(labels), 20)}"
            )
    else:
        y = np.stack([as_numbers(frame[name], row_name).to_numpy() for name in targets], 1).astype(np.float32)
    none = np.arange(0)
    splits = {"train": none, "val": none, "test": np.arange(frame.height)}
    if keep_splits:
        splits = split_table(frame, settings, y, row_name, fixed)
    x = encode(frame, encoding, row_name)
    return Prepared(x, y, None, splits, encoding, unseen_line(frame, x, encoding), rows)


def has_values(frame: pl.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Whether a row has a value, other than NaN, in each of these columns, bool (rows,)."""
    # column by column: a query of the frame would copy all of a large one whose columns have different chunks
    return np.logical_and.reduce([_has_value(frame[name]).to_numpy() for name in columns])


def _has_value(column: pl.Series) -> pl.Series:
    return column.is_not_nan().fill_null(False) if column.dtype.is_float() else column.is_not_null()


def check_columns(columns: Sequence[str], needed: Sequence[str], row_name: RowName) -> None:
    """Raise DataError unless a table has the columns that a run needs."""
    if lacking := [name for name in needed if name not in columns]:
        raise DataError(
            f"{row_name(0).partition(',')[0]}: there is no column {lacking[0]!r}{nearest(lacking[0], columns)}\n"
            f"  expected the columns of the run: {', '.join(needed)}"
        )


def _with_target(
    frame: pl.DataFrame, settings: TableSettings, row_name: RowName, fixed: dict[str, np.ndarray], where: str
) -> tuple[pl.DataFrame, RowName, dict[str, np.ndarray], dict[str, str], np.ndarray]:
    """Leave out the rows that have no target; return the others, and which they are."""
    has = has_values(frame, settings.target)
    if has.all():
        return frame, row_name, fixed, {}, np.arange(frame.height)
    if not has.any():
        raise DataError(f"{where}: the target {settings.target[0]} has no values\n  expected a value in most rows")
    rows, numbers = np.flatnonzero(has), np.cumsum(has) - 1
    fixed = {name: numbers[indices[has[indices]]] for name, indices in fixed.items()}
    if empty := next((name for name, indices in fixed.items() if not len(indices)), None):
        raise DataError(f"data.{empty}: the target {settings.target[0]} has no values\n  expected a value in most rows")
    note = f"{counted(int((~has).sum()), 'row')} without a value of {' or '.join(settings.target)}"
    mask = pl.Series(has)
    frame = pl.DataFrame([frame.drop_in_place(name).filter(mask) for name in frame.columns])  # not all of it twice
    return frame, lambda row: row_name(int(rows[row])), fixed, {"rows left out": note}, rows


def describe_columns(encoding: Encoding) -> str:
    """List the columns by their kinds, for the run's header."""
    kinds: dict[str, list[str]] = {}
    sizes = {category["column"]: len(category["levels"]) for category in encoding["categories"]}
    for name, kind in encoding["columns"].items():
        more = sizes.get(name, kind if "%" in kind else "")  # how many levels, or the format of a date
        kinds.setdefault("date" if "%" in kind else kind, []).append(name + (f" ({more})" if more else ""))
    return "; ".join(f"{counted(len(names), kind)}: {some(names, 12)}" for kind, names in kinds.items())


def with_commas(encoding: Encoding, chosen: Container[str]) -> str:
    """Report categories that are numbers with a comma, for the run's header; "" if there are none.

    chosen: columns whose kind the user chose, which are not reported.
    """
    levels = {each["column"]: [level for level in each["levels"] if level] for each in encoding["categories"]}
    found = {name: [level for level in texts if re.match(COMMA, level)] for name, texts in levels.items()}
    names = [name for name in levels if found[name] and len(found[name]) >= MOSTLY * len(levels[name])]
    if names := [name for name in names if name not in chosen]:
        return f"{some(names, 12)}: numbers with a comma are categories; with a point they are numbers"
    return ""


def describe_left_out(left_out: Mapping[str, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
