"""Read lists of samples from CSV, TSV and JSON: columns by their names, in any order; further columns are ignored.

Large tables of numbers are read elsewhere (data/table); here each row names an image or holds a text.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlrun.data.json_rows import SUFFIXES, is_json, json_rows
from dlrun.data.walk import read_bytes
from dlrun.errors import DataError, UserError, counted, nearest

PATHS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_file",
    "img",
    "image_id",
    "id",
)
LABELS = ("label", "class", "category", "sentiment", "target")
TEXTS = ("text", "sentence", "review", "comment", "content", "message")
SEPARATORS = ",\t;"
LISTS = (".csv", ".tsv", *SUFFIXES)  # endings of the names of lists
SIGNATURES = {
    b"PK": "a zip or a spreadsheet", b"%PDF": "a PDF", b"\x89PNG": "an image", b"SQLite": "a database",
    b"\x1f\x8b": "gzipped", b"PAR1": "a Parquet file",
}  # fmt: skip


class Column(NamedTuple):
    """A column that is wanted. key: the config key that names it. name: the user's choice; None: one of `known`."""

    key: str
    name: str | None
    known: tuple[str, ...]


Rows = list[tuple[int, list[str]]]  # the first line of each row, counted from 1, and its cells


def read_rows(path: Path, errors: str = "strict") -> Rows:
    """Return all rows that are not blank. The separator is a tab in a .tsv, else a comma, tab or semicolon.

    A .json or .jsonl gives a row of names and then its objects (json_rows.py).
    errors: of the decoding, as for `bytes.decode`. Raises DataError if it is no such text.
    """
    csv.field_size_limit(2**31 - 1)  # a text may be longer than 128 KB
    line, rows = 1, []
    try:
        content = read_bytes(path)
        check_text(path, content[:65536], "expected a CSV, TSV or JSON file in UTF-8")
        text = content.decode("utf-8-sig", errors)
        if is_json(path):
            return json_rows(path, text)
        head = text[:65536].partition("\n")[0]
        separator = "\t" if path.suffix.lower() in (".tsv", ".tab") else max(SEPARATORS, key=head.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}, line {line}: {error}\n  expected rows of CSV, TSV or JSON, UTF-8 text") from None
    return rows


def place(path: Path, number: int) -> str:
    """Where a row is, for messages: its line, or its number among the entries of a .json."""
    return f"entry {number}" if path.name.lower().endswith(".json") else f"line {number}"


def check_text(path: Path, start: bytes, expected: str) -> None:
    """Raise DataError if the file's first bytes show that it is not text."""
    if kind := next((kind for mark, kind in SIGNATURES.items() if start.startswith(mark)), None):
        raise DataError(f"{path} is {kind}, not a table of text\n  {expected}: save it as CSV")
    if b"\0" in start:
        raise DataError(f"{path} is not text: it holds zero bytes\n  {expected}")


def columns_of(path: Path, rows: Rows, wanted: Sequence[Column], has_header: bool) -> Rows:
    """Return the wanted cells of each row, without the header. Raises DataError or UserError.

    Without a header the columns are the wanted ones, in that order.
    """
    names = [cell.strip() for cell in rows[0][1]] if has_header else [column.known[0] for column in wanted]
    chosen = _named(path, names, wanted) if has_header else list(range(len(wanted)))
    picked = []
    for line, cells in rows[has_header:]:
        if len(cells) != len(names):
            wanted_names = f"{len(names)}: {', '.join(names)[:300]}"
            raise DataError(f"{path}, {place(path, line)}: {counted(len(cells), 'column')}\n  expected {wanted_names}")
        picked.append((line, [cells[i] for i in chosen]))
    return picked


def _named(path: Path, names: list[str], wanted: Sequence[Column]) -> list[int]:
    """Return the index of each wanted column: the chosen one, one of a known name, or the only one that is left."""
    plain, indices = [name.lower() for name in names], {}
    wanted_names = {name.lower() for column in wanted for name in ([column.name] if column.name else column.known)}
    if twice := next((name for name in names if name.lower() in wanted_names and plain.count(name.lower()) > 1), None):
        raise DataError(f"{path}: several columns are named {twice!r}\n  expected a name of its own for each")
    for column in wanted:
        if column.name is not None and column.name not in names:
            raise UserError(
                f"{column.key}={column.name}: {path} has no such column{nearest(column.name, names)}\n"
                f"  expected one of: {', '.join(names)[:300]}"
            )
        known = [column.name] if column.name is not None else [name for name in column.known if name in plain]
        if known:
            indices[column.key] = (names if column.name is not None else plain).index(known[0])
    left = [i for i in range(len(names)) if i not in indices.values()]
    for column in wanted:
        if column.key not in indices:
            if len(left) != 1 or len(indices) < len(wanted) - 1:
                raise DataError(
                    f"{path}: its columns are {', '.join(names)[:200]!r}: which is the {column.known[0]}?\n"
                    f"  expected a column named {', '.join(column.known[:5])}; or {column.key}=NAME"
                )
            indices[column.key] = left[0]
    return [indices[column.key] for column in wanted]
