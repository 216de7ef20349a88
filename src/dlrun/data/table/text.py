"""A table as text: its encoding, the separator of its values, and the names of its columns."""

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from dlrun.data.csv_rows import check_text
from dlrun.errors import DataError, UserError, some
from dlrun.paths import open_plain

HEAD = 2**18  # bytes that decide the separator; more, if the line of names is longer
SEPARATORS = ",;\t|"
WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "space": " "}  # for the command line
EXPECTED = "expected a CSV or TSV file (also .gz), or a Parquet file"


class Format(NamedTuple):
    """The format of a text file. separator: None if it has to be found. missing: texts that mean "no value"."""

    separator: str | None = None
    encoding: str = "utf-8"
    header: bool = True
    missing: tuple[str, ...] = ()


def check_format(form: Format) -> Format:
    """Return a format whose separator and encoding are valid. Raises UserError."""
    separator = WORDS.get(form.separator or "", form.separator)
    if separator is not None and (len(separator.encode()) != 1 or separator in '"\r\n\0'):
        raise UserError(
            f"data.separator={separator!r}: expected comma, semicolon, tab, bar, space or one character in quotes, "
            "'data.separator=\":\"' (null: found by itself)"
        )
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=form.encoding)
    except (LookupError, ValueError):  # also of codecs that are not of texts, such as hex
        raise UserError(
            f"data.encoding={form.encoding}: there is no such encoding\n  expected utf-8, cp1252, ..."
        ) from None
    return form._replace(separator=separator)


class TableText(NamedTuple):
    """A text file that is known to be a table. source: what polars reads, UTF-8.

    has_empty_rows: whether the frame that was read has rows without any value, too; blank lines are none, unless there
    is a single column.
    """

    path: Path
    form: Format
    names: list[str]
    source: Path | bytes
    has_empty_rows: bool = False

    def open(self) -> TextIO:
        """Open the text in UTF-8, without a byte order mark."""
        if isinstance(self.source, bytes):
            return io.TextIOWrapper(io.BytesIO(self.source), encoding="utf-8-sig", errors="replace", newline="")
        return open(self.source, encoding="utf-8-sig", errors="replace", newline="")

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (last line, cells) of the records after the header; slow, for messages only."""
        with self.open() as file:
            reader = csv.reader(file, delimiter=self.form.separator or ",")
            for number, cells in enumerate(reader):
                if number or not self.form.header:
                    yield reader.line_num, cells

    def unclosed(self) -> int:
        """Return the line of the record whose quote is not closed before the file ends; 0 if there is none."""
        with self.open() as file:
            reader, line = csv.reader(file, delimiter=self.form.separator or ",", strict=True), 0
            try:
                for _ in reader:
                    line = reader.line_num
            except csv.Error as error:
                return line + 1 if "unexpected end" in str(error) else 0
        return 0

    def row_name(self, row: int) -> str:
        """Name the line of a row of the frame that was read."""
        rows = (line for line, cells in self.records() if self.is_row(cells))
        line = next((line for i, line in enumerate(rows) if i == row), None)
        return f"{self.path}, line {line}" if line else f"{self.path}, row {row + 1}"

    def is_row(self, cells: list[str]) -> bool:
        """Whether the cells of a record are a row of the frame that was read."""
        if self.has_empty_rows and len(self.names) in (1, len(cells)):
            return True
        empty = {"", *self.form.missing}
        return any(cell.strip() not in empty for cell in cells)


def head_of(source: Path | bytes) -> bytes:
    """Return the start of a file or its content, with the whole first line."""
    with io.BytesIO(source) if isinstance(source, bytes) else open_plain(source) as file:
        start = file.read(HEAD)
        return start if b"\n" in start else start + file.readline()


def text_of(path: Path, form: Format, source: Path | bytes, start: bytes, has_empty_rows: bool = False) -> TableText:
    """Check that a file is text, and find its separator and the names of its columns."""
    if start[:2] == b"\x1f\x8b":
        try:
            source = gzip.decompress(content_of(source))
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not an intact gzip file: {error}\n  {EXPECTED}") from None
        start = head_of(source)
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        form = form._replace(encoding="utf-16")
    else:
        check_text(path, start, EXPECTED)
    if not _is_utf8(form.encoding):
        source = _as_utf8(path, content_of(source), form.encoding)
        start = head_of(source)
    if b"\r" in start and b"\n" not in start:  # lines end as old programs for the Mac write them
        source = content_of(source).replace(b"\r", b"\n")
        start = head_of(source)
    try:
        head = codecs.getincrementaldecoder("utf-8-sig")().decode(start)  # its last letter may be cut
    except UnicodeDecodeError as error:
        raise undecodable(path, bytes(error.object), error, "utf-8") from None
    lines = list(io.StringIO(head, newline="\n"))
    lines = lines[:-1] if len(start) >= HEAD and len(lines) > 1 else lines  # the last one may be cut
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} is empty\n  {EXPECTED}")
    if not lines[0].strip():
        raise DataError(f"{path}, line 1: it is empty\n  expected the names of the columns there, or values")
    csv.field_size_limit(2**31 - 1)
    separator = form.separator or _separator(lines)
    header = next(csv.reader(lines, delimiter=separator))
    names = _names(path, header) if form.header else [f"x{i}" for i in range(1, len(header) + 1)]
    return TableText(path, form._replace(separator=separator), names, source, has_empty_rows)


def content_of(source: Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def _as_utf8(path: Path, content: bytes, encoding: str) -> bytes:
    try:
        return content.decode(encoding).encode()
    except UnicodeDecodeError as error:
        raise undecodable(path, content, error, encoding) from None
    except UnicodeError as error:  # some encodings give halves of letters
        raise DataError(
            f"{path} is not {encoding}: {error}\n  expected text in that encoding, or its own: data.encoding=..."
        ) from None


def undecodable(path: Path, content: bytes, error: UnicodeDecodeError, encoding: str) -> DataError:
    line = content.count(b"\n", 0, error.start) + 1
    byte = content[error.start : error.start + 1].hex()
    return DataError(
        f"{path}, line {line}: the byte 0x{byte} is not {encoding}\n"
        "  expected text in that encoding, or its own: data.encoding=cp1252, data.encoding=latin-1, ..."
    )


def _separator(lines: list[str]) -> str:
    """Find the separator that gives the first lines the most columns, the same number in most lines."""
    scores = {}
    for separator in SEPARATORS:
        counts = Counter(len(cells) for cells in csv.reader(lines[:50], delimiter=separator) if cells)
        columns, lines_alike = max(counts.items(), key=lambda pair: (pair[0] > 1, pair[1]))
        scores[separator] = (columns > 1, lines_alike / sum(counts.values()), columns)
    return max(scores, key=lambda separator: scores[separator])


def _names(path: Path, header: list[str]) -> list[str]:
    names = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
    if twice := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{path}, line 1: several columns are named {some(twice)}\n  expected a name of its own for each column"
        )
    return names
