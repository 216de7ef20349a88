"""What a user wants predicted, read and checked: pictures, rows, texts; from files, the command line, standard input.

Each reader yields (name, value) one by one, so that any number of them can be worked in batches.
"""

import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.data.corpus import decode
from dlrun.data.decode import FORMATS, MAX_PIXELS
from dlrun.data.decode import read as read_resized
from dlrun.data.levels import Held, Levels
from dlrun.data.walk import PICTURES, TEXTS, read_bytes, walk
from dlrun.errors import DataError, Unreadable, UserError, printable
from dlrun.paths import irregular
from dlrun.spec import Table

STDIN = "-"
LARGEST = torch.finfo(torch.float32).max  # of a number in a row: what is greater becomes inf
WHOLE = f"a whole picture: {', '.join(PICTURES)}"


class Decoding(NamedTuple):
    """Keys of `decode.read`, as the run's own pictures were decoded."""

    max_pixels: int = MAX_PIXELS
    levels: Levels | None = None


def pictures(
    given: list[str], shape: tuple[int, int, int], fit: str | None, how: Decoding
) -> Iterator[tuple[str, Tensor]]:
    """uint8 (C, H, W). fit: how those of another size are resized (as `decode.read` has it); None: they are refused.

    What cannot be read in a folder is left out and named on standard error; else it raises Unreadable.
    """
    for name, source, is_found in _picture_files(given):
        try:
            yield name, _picture(name, source, shape, fit, how)
        except Unreadable as error:
            if not is_found:
                raise
            leave_out(str(error))


def leave_out(why: str) -> None:
    sys.stderr.write(f"dl-runs: left out: {why.splitlines()[0]}\n")


def _picture_files(given: list[str]) -> Iterator[tuple[str, Path | io.BytesIO, bool]]:
    """(name, file, whether it was found in a folder)."""
    for text in given:
        path = Path(text)
        if text == STDIN:
            content = sys.stdin.buffer.read()
            if _is_picture(content):
                yield "standard input", io.BytesIO(content), False
            else:
                paths = content.decode("utf-8", errors="replace").splitlines()
                yield from _picture_files([line for line in paths if line and line != STDIN])
        elif os.path.isdir(text):  # unlike Path, it takes what is too long for a name
            found = walk(path, PICTURES)
            if not found:
                raise UserError(f"{path} has no pictures\n  expected files of {', '.join(PICTURES)}")
            yield from ((printable(path / name), path / name, True) for name in found)
        elif os.path.exists(text):
            yield text, path, False
        else:
            raise UserError(
                f"{text}: there is no such file\n  expected a picture, a folder of them, or - for standard input"
            )


def _is_picture(content: bytes) -> bool:
    return content.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*"))


def _picture(
    name: str, source: Path | io.BytesIO, shape: tuple[int, int, int], fit: str | None, how: Decoding
) -> Tensor:
    if not fit:
        _check_size(name, source, shape)
    pixels = read_resized(source, shape, fit or "cover", *how)
    if isinstance(pixels, Held):  # of a kind that the training pictures did not have
        pixels = read_resized(source, shape, fit or "cover", how.max_pixels)
    if isinstance(pixels, str):
        raise Unreadable(f"{name} cannot be read as a picture: {pixels.splitlines()[0]}\n  expected {WHOLE}")
    return torch.tensor(pixels)


def _check_size(name: str, source: Path | io.BytesIO, shape: tuple[int, int, int]) -> None:
    """Before any pixel is decoded: a small file can claim a terabyte."""
    from PIL import Image

    try:
        if not isinstance(source, io.BytesIO) and (why := irregular(source)):
            raise OSError(f"it is {why}")
        with Image.open(source, formats=FORMATS) as picture:
            width, height = picture.size
            channels = 3 if picture.mode == "P" else len(picture.getbands())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable(f"{name} cannot be read as a picture: {error}\n  expected {WHOLE}") from None
    if isinstance(source, io.BytesIO):
        source.seek(0)
    if (channels, height, width) != shape:
        raise UserError(
            f"{name} is {width}x{height} with {_channels(channels)}: the run takes {shape[2]}x{shape[1]} with "
            f"{_channels(shape[0])}\n  expected pictures of that size; --fit resizes them and converts their channels"
        )


def _channels(count: int) -> str:
    return f"{count} channel{'s' if count > 1 else ''}"


def texts(given: list[str]) -> Iterator[tuple[str, str]]:
    """Texts as they stand; files and folders of .txt, whole; rows of a .csv; the lines of standard input."""
    for text in given:
        if text == STDIN:
            for number, line in enumerate(sys.stdin.buffer, 1):
                if line.strip():
                    yield f"line {number}", decode(line)[0].rstrip("\r\n")
        elif not text.strip():
            raise UserError("an empty text\n  expected a .txt file, a text, or - for standard input")
        elif os.path.isdir(text):  # no error where a text is too long for a name
            found = walk(Path(text), TEXTS)
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
            yield text, decode(read_bytes(Path(text)))[0]  # as it is read for training
        elif text.lower().endswith((".txt", ".csv", ".tsv")):
            raise UserError(f"{text}: there is no such file\n  expected a file, a text, or - for standard input")
        else:
            yield text, text


def _csv_texts(name: str) -> Iterator[tuple[str, str]]:
    """The texts of a table: its only column, or the one that its first line calls text (as training data has it)."""
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
                    f"{where}: {len(cells)} columns, and the first line does not say which is the text\n"
                    "  expected a first line with a column named text, or one column"
                )
            elif any(names):
                column = column or 0
                if len(cells) <= column:
                    raise UserError(f"{where}: {len(cells)} columns\n  expected {column + 1} or more")
                yield where, cells[column]
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}\n  expected CSV") from None


def rows(given: list[str], spec: Table) -> Iterator[tuple[str, list[float]]]:
    """Rows of spec.features numbers: 1,2,3 on the command line, .csv files, or CSV on standard input."""
    for text in given:
        if text == STDIN:
            yield from _csv_rows("line", sys.stdin, spec, ":")
        elif os.path.isfile(text):  # no error where a row is too long for a name
            try:
                with open(text, encoding="utf-8-sig", newline="") as file:
                    yield from _csv_rows(text, file, spec, ":")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{text} cannot be read: {error}\n  expected a CSV file") from None
        else:
            cells = text.split(",")
            if not all(map(_is_number, cells)):
                raise UserError(
                    f"{text}: there is no such file, and it is no row\n  expected a .csv file or {_row_of(spec)}"
                )
            yield text, _row(text, cells, spec, list(range(len(cells))))


def _csv_rows(name: str, file: object, spec: Table, mark: str) -> Iterator[tuple[str, list[float]]]:
    """A first line that is no numbers names the columns, which may then be in any order, with others among them."""
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
            raise UserError(f"{where}: {len(cells)} columns\n  expected {_row_of(spec)}")
        return list(range(len(cells)))
    missing = [name for name in spec.names if name not in cells]
    if missing:
        raise UserError(f"{where}: there is no column {', '.join(missing)}\n  expected {', '.join(spec.names)}")
    return [cells.index(name) for name in spec.names]


def _row(where: str, cells: list[str], spec: Table, columns: list[int]) -> list[float]:
    if len(columns) != spec.features or max(columns) >= len(cells):
        raise UserError(f"{where}: {len(cells)} numbers\n  expected {_row_of(spec)}")
    chosen = [cells[i] for i in columns]
    wrong = next((cell for cell in chosen if not _is_number(cell)), None)
    if wrong is not None:
        raise UserError(f"{where}: {wrong!r} is no finite number\n  expected {_row_of(spec)}")
    return [float(cell) for cell in chosen]


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) <= LARGEST
    except ValueError:
        return False


def _row_of(spec: Table) -> str:
    named = f": {', '.join(spec.names)}" if spec.names else ""
    return f"{spec.features} numbers{named}"
