"""Read a table into a polars frame: CSV and its relatives, also gzipped, and Parquet."""

import io
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl

from dlrun.data.table.text import EXPECTED, Format, TableText, content_of, head_of, text_of, undecodable
from dlrun.errors import DataError, counted, first_line

GUESSED_FROM = 10_000  # rows from which polars guesses the columns' types before it reads all of them


class ParquetTable(NamedTuple):
    """A Parquet file."""

    path: Path

    def place(self, row: int) -> str:
        return f"{self.path}, row {row + 1}"


Origin = TableText | ParquetTable


def read_table(
    path: Path, form: Format, as_text: Container[str] = (), content: bytes | None = None
) -> tuple[pl.DataFrame, Origin]:
    """Return the rows of a file, and where they come from, for messages. Rows without any value are left out.

    as_text: names of columns whose values are kept as they are written; all of them if it holds "*".
    content: of the file, if it is not stored at `path`. Raises DataError if the file is not a table.
    """
    try:
        start = head_of(path if content is None else content)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}\n  {EXPECTED}") from None
    origin: Origin = ParquetTable(path)
    if start[:4] == b"PAR1":
        frame = _read_parquet(path, content)
    else:
        origin = text_of(path, form, path if content is None else content, start)
        frame = _read_text(origin, as_text)
    if not frame.width or not frame.height:
        raise DataError(f"{path} has no rows: {EXPECTED} with a line of names and lines of values")
    return frame, origin


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Hide the Rust traceback that polars prints about a damaged file; its exception says the same."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _read_parquet(path: Path, content: bytes | None) -> pl.DataFrame:
    try:
        with _no_standard_error():
            frame = pl.read_parquet(path if content is None else io.BytesIO(content), glob=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path} is not an intact Parquet file: {first_line(error)}\n  {EXPECTED}") from None
    return _without_empty_rows(frame)


def _read_text(text: TableText, as_text: Container[str]) -> pl.DataFrame:
    """Read all rows. If later values do not fit the types of the first ones, the types are found from all rows."""
    separator = text.form.separator or ","
    is_all_text = "*" in as_text
    try:
        written = pl.read_csv(
            text.source, separator=separator, has_header=text.form.header, n_rows=0, glob=False
        ).columns
        chosen = {old: pl.String for old, new in zip(written, text.names, strict=True) if new in as_text}
        for rows in (GUESSED_FROM, None):
            try:
                frame = pl.read_csv(
                    text.source,
                    separator=separator,
                    has_header=text.form.header,
                    null_values=list(text.form.missing),
                    schema_overrides=chosen,
                    infer_schema=not is_all_text,
                    infer_schema_length=rows,
                    glob=False,
                )
                break
            except pl.exceptions.ComputeError as error:
                if rows is None or "as dtype" not in str(error):
                    raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        raise _refused(text, error) from None
    frame.columns = text.names
    if frame.height and frame[:, -1].null_count():
        _check_short_rows(text)
    return _without_empty_rows(_stripped(frame, text.form.missing))


def _stripped(frame: pl.DataFrame, missing: tuple[str, ...]) -> pl.DataFrame:
    """Remove blanks around texts, in place; a text that then is empty or means "no value" becomes null."""
    for i, column in enumerate(frame):
        if column.dtype == pl.String:
            texts = column.str.strip_chars()
            frame.replace_column(i, texts.set(texts.is_in(["", *missing]), None))
    return frame


def _without_empty_rows(frame: pl.DataFrame) -> pl.DataFrame:
    if not frame.width or not frame[:, 0].null_count():
        return frame
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))


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
    count = len(text.names)
    for line, cells in text.records():
        if len(cells) != count and any(cell.strip() for cell in cells):
            raise DataError(
                f"{text.path}, line {line}: {counted(len(cells), 'value')}, but the table has {count} columns\n"
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
