"""Read a table into a polars frame: CSV and its relatives, also gzipped, and Parquet."""

import io
import math
import os
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import polars as pl

from dlrun.data.table.blanks import empty_rows, stripped
from dlrun.data.table.blocks import read_blocks, read_head
from dlrun.data.table.dates import ambiguity, date_format, parsed
from dlrun.data.table.text import EXPECTED, Format, TableText, content_of, head_of, text_of, undecodable
from dlrun.errors import DataError, counted, first_line

MISFIT = "as dtype"  # in polars' message about a value that is not of its column's type
SAMPLED = 4000  # rows that decide whether a column has few different texts
GUESSED_FROM = 10_000  # rows from which polars guesses the columns' types before it reads all of them


class ParquetTable(NamedTuple):
    """A Parquet file. empty: its rows without a value, from 0 in order, which are left out of the frame."""

    path: Path
    empty: tuple[int, ...] = ()

    def row_name(self, row: int) -> str:
        for each in self.empty:
            row += each <= row
        return f"{self.path}, row {row + 1}"


Origin = TableText | ParquetTable


def read_table(
    path: Path, form: Format, as_text: Container[str] = (), content: bytes | None = None, time: str | None = None,
    has_empty_rows: bool = False,
) -> tuple[pl.DataFrame, Origin]:  # fmt: skip
    """Return the rows of a file, and where they come from, for messages.

    has_empty_rows: whether rows without any value are kept; a blank line is one only if there is a single column.
    as_text: names of columns whose values are kept as they are written; all of them if it holds "*".
    content: of the file, if it is not stored at `path`. time: a column whose texts may be returned as dates, which take
    less memory. Raises DataError if the file is not a table.
    """
    try:
        start = head_of(path if content is None else content)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}\n  {EXPECTED}") from None
    origin: Origin = ParquetTable(path)
    if start[:4] == b"PAR1":
        frame = _read_parquet(path, content)
        if not has_empty_rows and (is_empty := empty_rows(frame)) is not None:
            frame, origin = frame.filter(~is_empty), ParquetTable(path, tuple(is_empty.arg_true()))
    else:
        origin = text_of(path, form, path if content is None else content, start, has_empty_rows)
        frame = _read_text(origin, as_text, time)
    if not frame.width or not frame.height:
        raise DataError(f"{path} has no rows\n  expected a line of names, and lines of values below it")
    return frame, origin


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Hide the Rust traceback that polars prints about a damaged file; its exception says the same."""
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _read_parquet(path: Path, content: bytes | None) -> pl.DataFrame:
    try:
        with _no_standard_error():
            frame = pl.read_parquet(path if content is None else io.BytesIO(content), glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path} is not an intact Parquet file: {first_line(error)}\n  {EXPECTED}") from None
    return frame.cast({pl.Enum: pl.Categorical})


def _read_text(text: TableText, as_text: Container[str], time: str | None) -> pl.DataFrame:
    """Read all rows. If later values do not fit the types of the first ones, the types are found from all rows."""
    separator = text.form.separator or ","
    scan = partial(pl.scan_csv, text.source, separator=separator, has_header=text.form.header, glob=False)
    try:
        written = scan(infer_schema=False).collect_schema().names()
        chosen = {old: pl.String for old, new in zip(written, text.names, strict=True) if new in as_text}
        scan = partial(scan, schema_overrides=chosen, infer_schema="*" not in as_text)
        time = dict(zip(text.names, written, strict=True)).get(time or "")
        if (frame := _read_fast(text, scan, time)) is None:
            scan = partial(scan, null_values=list(text.form.missing))
            try:
                frame = scan(infer_schema_length=GUESSED_FROM).collect()
            except pl.exceptions.ComputeError as error:
                if MISFIT not in str(error):
                    raise
                schema = scan(infer_schema_length=None).collect_schema()
                too_long = {name: pl.String for name, kind in schema.items() if kind == pl.Int128}
                frame = scan(infer_schema_length=None, schema_overrides={**chosen, **too_long}).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        raise _refused(text, error) from None
    frame.columns = text.names
    if frame.height and frame[:, -1].null_count():
        _check_short_rows(text)
    frame = stripped(frame, text.form.missing)
    return _without_empty_rows(frame, text)


def _read_fast(text: TableText, scan: Callable[..., pl.LazyFrame], time: str | None) -> pl.DataFrame | None:
    """Read all rows in blocks, without comparing each value with `missing`, which takes polars half as long again.

    None if that could give other values: texts are compared later, but numbers and booleans only if they do not fit.
    """
    missing = text.form.missing
    if any(map(_is_value, missing)):
        return None
    kinds, with_missing = (
        scan(infer_schema_length=GUESSED_FROM, null_values=words).collect_schema() for words in (None, list(missing))
    )
    if kinds != with_missing:
        return None
    try:
        head = read_head(text, kinds)
        if head is None:
            return None
        convert, dates = _date_parser(head, time) if time else (None, ())
        frame = read_blocks(text, {**kinds, **_repeated(head, dates)}, convert)
    except pl.exceptions.PolarsError:  # a value of another type, or a line of too many or too few
        return None
    if frame is None:
        return None
    has_nan = any(column.is_nan().any() for column in frame if column.dtype.is_float())
    return None if has_nan else frame


def _date_parser(head: pl.DataFrame, name: str) -> tuple[Callable[[pl.DataFrame], pl.DataFrame] | None, list[str]]:
    """Return a function that parses a column of dates, and its name; None and [] if it is none.

    Nor if day and month may be mistaken for each other in the first rows: only all of them can show that.
    """
    texts = head[name].drop_nulls()
    form = date_format(texts) if texts.dtype == pl.String else ""
    if not form or ambiguity(parsed(texts, form), form):
        return None, []
    return partial(_with_dates, name, form), [name]


def _with_dates(name: str, form: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Parse a column. Raises ComputeError for a text that is no date."""
    dates = parsed(frame[name], form)
    if dates.null_count() > frame[name].null_count():
        raise pl.exceptions.ComputeError(f"no date {form}")
    return frame.with_columns(dates)


def _repeated(head: pl.DataFrame, others: Container[str]) -> dict[str, pl.DataType]:
    """Find the columns of few different texts, which take a quarter of the memory as the numbers of their texts."""
    texts = [column for column in head[:SAMPLED] if column.dtype == pl.String and column.name not in others]
    return {column.name: pl.Categorical() for column in texts if column.n_unique() <= len(column) / 4}


def _is_value(text: str) -> bool:
    """Whether a text may be a number or a boolean, other than NaN."""
    try:
        return not math.isnan(float(text))
    except ValueError:
        return text.lower() in ("true", "false")


def _without_empty_rows(frame: pl.DataFrame, text: TableText) -> pl.DataFrame:
    """Leave out rows without any value, or blank lines alone."""
    if (is_empty := empty_rows(frame)) is None:
        return frame
    if text.has_empty_rows:
        are_rows = [text.is_row(cells) for _, cells in text.records()]
        if len(are_rows) == frame.height:
            is_empty &= ~pl.Series(are_rows)
    return frame.filter(~is_empty)


def _check_short_rows(text: TableText) -> None:
    """Raise DataError for a line with fewer values than columns, whose last ones polars takes for missing."""
    separator, count = text.form.separator or ",", len(text.names)
    line = pl.col("line")
    is_odd = (line.str.count_matches(separator, literal=True) != count - 1) & line.str.contains(r"\S")
    lines = pl.scan_csv(
        text.source,
        separator="\x01",
        quote_char=None,
        has_header=False,
        new_columns=["line"],
        infer_schema=False,
        glob=False,
    )
    if count > 1 and lines.filter(is_odd).head(1).collect(engine="streaming").height:
        _check_records(text)  # a quoted value may hold separators and ends of lines: read it as CSV


def _check_records(text: TableText) -> None:
    if line := text.unclosed():
        raise DataError(
            f'{text.path}, line {line}: a quote (") is not closed before the file ends\n'
            "  expected values in two quotes; a quote in a value is written twice"
        )
    count, before = len(text.names), int(text.form.header)
    for line, cells in text.records():
        first, before = before + 1, line
        if len(cells) != count and any(cell.strip() for cell in cells):
            where = f"line {line}" if first == line else f"lines {first} to {line}, which a quote joins"
            raise DataError(
                f"{text.path}, {where}: {counted(len(cells), 'value')}, but the table has {count} columns\n"
                f"  expected {count} values, separated by {text.form.separator!r} (data.separator)"
            )


def _refused(text: TableText, error: Exception) -> DataError:
    """Describe why polars cannot read a text, with the line where that can be found."""
    _check_records(text)
    content = content_of(text.source)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return undecodable(text.path, content, wrong, "utf-8")
    return DataError(f"{text.path} is not a table: {first_line(error)}\n  {EXPECTED}")
