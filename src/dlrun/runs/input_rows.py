"""Read and check rows and arrays to predict: files, the command line and standard input.

Each reader yields (name, value) one by one, so that any number of inputs can be predicted in batches.
"""

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import torch
from torch import Tensor

from dlrun.errors import UserError, counted
from dlrun.spec import Table

if TYPE_CHECKING:
    from polars import DataFrame

    from dlrun.data.arrays.arrays import ArraySet
    from dlrun.data.series.series_file import SeriesFile
    from dlrun.data.table.table_file import TableFile

STDIN = "-"
LARGEST = torch.finfo(torch.float32).max  # greater numbers would become inf
ARRAYS = (".npz", ".npy")


def arrays(arguments: list[str], data: "ArraySet") -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, sample) of each array of samples in .npz and .npy files, as `data.encode` takes them."""
    for text in arguments:
        if not os.path.isfile(text):
            raise UserError(
                f"{text}: there is no such file\n  expected an .npz or .npy file with samples of the run's kind"
            )
        yield from ((f"{text}[{i}]", sample) for i, sample in enumerate(data.read(Path(text))))


def series(arguments: list[str], data: "SeriesFile") -> Iterator[tuple[str, Tensor]]:
    """Yield (name, last window) of each series in tables with the columns of the run, encoded."""
    for text in arguments:
        if text != STDIN and not os.path.isfile(text):
            raise UserError(f"{text}: there is no such file\n  expected a table with the columns of the run")
        name = "standard input" if text == STDIN else text
        for part, window in data.read(Path(name), sys.stdin.buffer.read() if text == STDIN else None):
            yield f"{name}, {part}", window


def tables(arguments: list[str], data: "TableFile") -> Iterator[tuple[str, "DataFrame", Tensor]]:
    """Yield (name, rows as they are written, encoded rows) of each file; levels not in train are noted."""
    for text in arguments:
        if text != STDIN and not os.path.isfile(text):
            raise UserError(f"{text}: there is no such file\n  expected a table with the columns of the run")
        name = "standard input" if text == STDIN else text
        frame, x, notes = data.read(Path(name), sys.stdin.buffer.read() if text == STDIN else None)
        for column, note in notes.items():
            sys.stderr.write(f"dl-runs: {name}: {column}: {note}\n")
        yield name, frame, x


def rows(arguments: list[str], spec: Table) -> Iterator[tuple[str, list[float]]]:
    """Yield (name, row of spec.features numbers): typed as 1,2,3, from .csv files, or as CSV on standard input."""
    for text in arguments:
        if text == STDIN:
            yield from _csv_rows("line", sys.stdin, spec, ":")
        elif os.path.isfile(text):  # no error for a row too long for a name
            try:
                with open(text, encoding="utf-8-sig", newline="") as file:
                    yield from _csv_rows(text, file, spec, ":")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{text} cannot be read: {error}\n  expected a CSV file") from None
        else:
            cells = text.split(",")
            if not all(map(_is_number, cells)):
                raise UserError(
                    f"{text}: neither a file nor a row of numbers\n  expected a .csv file or {_row_of(spec)}"
                )
            yield text, _row(text, cells, spec, list(range(len(cells))))


def _csv_rows(name: str, file: TextIO, spec: Table, mark: str) -> Iterator[tuple[str, list[float]]]:
    """Yield the rows of a CSV file. A first line without numbers names the columns: any order, extra ones allowed."""
    columns = None
    reader = csv.reader(file)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            where = f"{name}{mark}{reader.line_num}"
            if not any(cells):
                continue
            if columns is None and not any(map(_is_number, cells)):
                columns = _named(where, cells, spec)
            else:
                columns = columns or list(range(len(cells)))
                yield where, _row(where, cells, spec, columns)
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}\n  expected CSV") from None


def _named(where: str, cells: list[str], spec: Table) -> list[int]:
    if not spec.names:
        if len(cells) != spec.features:
            raise UserError(f"{where}: {counted(len(cells), 'column')}\n  expected {_row_of(spec)}")
        return list(range(len(cells)))
    missing = [name for name in spec.names if name not in cells]
    if missing:
        raise UserError(f"{where}: there is no column {', '.join(missing)}\n  expected {', '.join(spec.names)}")
    return [cells.index(name) for name in spec.names]


def _row(where: str, cells: list[str], spec: Table, columns: list[int]) -> list[float]:
    if len(columns) != spec.features or max(columns) >= len(cells):
        raise UserError(f"{where}: {counted(len(cells), 'number')}\n  expected {_row_of(spec)}")
    chosen = [cells[i] for i in columns]
    wrong = next((cell for cell in chosen if not _is_number(cell)), None)
    if wrong is not None:
        raise UserError(f"{where}: {wrong!r} is not a finite number\n  expected {_row_of(spec)}")
    return [float(cell) for cell in chosen]


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) <= LARGEST
    except ValueError:
        return False


def _row_of(spec: Table) -> str:
    named = f": {', '.join(spec.names)}" if spec.names else ""
    return f"{counted(spec.features, 'number')}{named}"
