"""Read and check inputs to predict: images, rows and texts from files, the command line and standard input.

Each reader yields (name, value) one by one, so that any number of inputs can be predicted in batches.
"""

import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import torch
from torch import Tensor

from dlrun.data.corpus import decode
from dlrun.data.decode import FORMATS, MAX_PIXELS
from dlrun.data.decode import read as read_resized
from dlrun.data.levels import Levels, ValueRange
from dlrun.data.walk import IMAGE_SUFFIXES, TEXT_SUFFIXES, read_bytes, walk
from dlrun.errors import DataError, UnreadableImage, UserError, counted, printable
from dlrun.paths import irregular
from dlrun.spec import Table

if TYPE_CHECKING:
    from polars import DataFrame

    from dlrun.data.table.table_file import TableFile

STDIN = "-"
NO_TEXTS = (
    ".json",
    ".jsonl",
    ".html",
    ".htm",
    ".xml",
    ".pdf",
    ".doc",
    ".docx",
    ".rtf",
    ".parquet",
    ".zip",
    ".gz",
)
LARGEST = torch.finfo(torch.float32).max  # greater numbers would become inf
WHOLE = f"an intact image: {', '.join(IMAGE_SUFFIXES)}"


class Decoding(NamedTuple):
    """Arguments of `decode.read` with which the run's images were decoded."""

    max_pixels: int = MAX_PIXELS
    levels: Levels | None = None


def images(
    arguments: list[str], shape: tuple[int, int, int], fit: str | None, decoding: Decoding
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, uint8 image (C, H, W)). fit: how to resize images of another size (see `decode.read`); None: refuse.

    Unreadable files in a folder are skipped and named on standard error. Raises UnreadableImage for a file that the
    user named.
    """
    for name, source, is_in_folder in _image_files(arguments):
        try:
            yield name, decoded(name, source, shape, fit, decoding)
        except UnreadableImage as error:
            if not is_in_folder:
                raise
            leave_out(str(error))


def leave_out(reason: str) -> None:
    """Name a skipped file on standard error."""
    sys.stderr.write(f"dl-runs: skipped: {reason.splitlines()[0]}\n")


def _image_files(arguments: list[str]) -> Iterator[tuple[str, Path | io.BytesIO, bool]]:
    """Yield (name, file, whether it comes from a folder)."""
    for text in arguments:
        path = Path(text)
        if text == STDIN:
            content = sys.stdin.buffer.read()
            if _is_image(content):
                yield "standard input", io.BytesIO(content), False
            else:
                paths = content.decode("utf-8", errors="replace").splitlines()
                yield from _image_files([line for line in paths if line and line != STDIN])
        elif os.path.isdir(text):  # unlike Path's method, it accepts a text too long for a name
            found = walk(path, IMAGE_SUFFIXES)
            if not found:
                raise UserError(f"{path} has no images\n  expected files of {', '.join(IMAGE_SUFFIXES)}")
            yield from ((printable(path / name), path / name, True) for name in found)
        elif os.path.exists(text):
            yield text, path, False
        else:
            raise UserError(
                f"{text}: there is no such file\n  expected an image, a folder of images, or - for standard input"
            )


def _is_image(content: bytes) -> bool:
    return content.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*"))


def decoded(
    name: str, source: Path | io.BytesIO, shape: tuple[int, int, int], fit: str | None, decoding: Decoding
) -> Tensor:
    """Return an image file as uint8 (C, H, W). Raises UserError if it does not fit, UnreadableImage if damaged."""
    if not fit:
        _check_size(name, source, shape)
    pixels = read_resized(source, shape, fit or "cover", *decoding)
    if isinstance(pixels, ValueRange):  # of a mode that no training image had
        pixels = read_resized(source, shape, fit or "cover", decoding.max_pixels)
    if isinstance(pixels, str):
        raise UnreadableImage(f"{name} cannot be read as an image: {pixels.splitlines()[0]}\n  expected {WHOLE}")
    return torch.tensor(pixels)


def _check_size(name: str, source: Path | io.BytesIO, shape: tuple[int, int, int]) -> None:
    """Check the size before any pixel is decoded, because a small file can claim a terabyte."""
    from PIL import Image

    try:
        if not isinstance(source, io.BytesIO) and (kind := irregular(source)):
            raise OSError(f"it is {kind}")
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            channels = 3 if image.mode == "P" else len(image.getbands())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{name} cannot be read as an image: {error}\n  expected {WHOLE}") from None
    if isinstance(source, io.BytesIO):
        source.seek(0)
    if (channels, height, width) != shape:
        raise UserError(
            f"{name} is {width}x{height} with {_channels(channels)}, but the run takes {shape[2]}x{shape[1]} with "
            f"{_channels(shape[0])}\n  expected images of that size; --fit resizes them and converts their channels"
        )


def _channels(count: int) -> str:
    return f"{count} channel{'s' if count > 1 else ''}"


def texts(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, text): typed texts, whole .txt files, also of folders, rows of a .csv, lines of standard input."""
    for text in arguments:
        if text == STDIN:
            for number, line in enumerate(sys.stdin.buffer, 1):
                if line.strip():
                    yield f"line {number}", decode(line)[0].rstrip("\r\n")
        elif not text.strip():
            raise UserError("an empty text\n  expected a .txt file, a text, or - for standard input")
        elif os.path.isdir(text):  # no error for a text too long for a name
            found = walk(Path(text), TEXT_SUFFIXES)
            if not found:
                raise UserError(f"{text} has no texts\n  expected files named *.txt")
            for file in (Path(text) / name for name in found):
                try:
                    yield printable(file), decode(read_bytes(file))[0]
                except DataError as error:
                    leave_out(str(error))
        elif os.path.isfile(text) and text.lower().endswith((".csv", ".tsv")):
            yield from _csv_texts(text)
        elif os.path.isfile(text):
            yield text, decode(_text_file(Path(text)))[0]  # decoded as in training
        elif text.lower().endswith((".txt", ".csv", ".tsv", *NO_TEXTS)):
            raise UserError(f"{text}: there is no such file\n  expected a file, a text, or - for standard input")
        else:
            yield text, text


def _text_file(path: Path) -> bytes:
    """Read a file whose content is one text. Raises UserError if it holds markup, records or bytes."""
    content = read_bytes(path)
    if path.suffix.lower() in NO_TEXTS or b"\0" in content:
        raise UserError(
            f"{path} is no plain text\n  expected a .txt file with one text, a .csv or .tsv with a column named text, "
            "or - for standard input, a text per line"
        )
    return content


def _csv_texts(name: str) -> Iterator[tuple[str, str]]:
    """Yield the texts of a table: its only column, or the column named `text`, as in training data."""
    content = decode(read_bytes(Path(name)))[0]
    csv.field_size_limit(2**31 - 1)
    reader, column = csv.reader(io.StringIO(content, newline=""), delimiter="\t" if name[-3] in "tT" else ","), None
    try:
        for cells in reader:
            where, names = f"{name}:{reader.line_num}", [cell.strip().lower() for cell in cells]
            if column is None and "text" in names:
                column = names.index("text")
            elif len(cells) > 1 and column is None:
                raise UserError(
                    f"{where}: {counted(len(cells), 'column')}, and the first line names none of them text\n"
                    "  expected a first line with a column named text, or one column"
                )
            elif any(names):
                column = column or 0
                if len(cells) <= column:
                    raise UserError(f"{where}: {counted(len(cells), 'column')}\n  expected {column + 1} or more")
                yield where, cells[column]
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}\n  expected CSV") from None


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
