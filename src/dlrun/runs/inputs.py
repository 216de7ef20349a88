"""Read and check inputs to predict: images and texts from files, the command line and standard input.

Each reader yields (name, value) one by one, so that any number of inputs can be predicted in batches.
"""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlrun.data.csv_rows import LABELS, LISTS, TEXTS, Column, columns_of, read_rows
from dlrun.data.images.decode import MAX_PIXELS, odd_files, open_image
from dlrun.data.images.decode import read as read_resized
from dlrun.data.images.label_file import ListFormat, listed_paths, resolve
from dlrun.data.images.levels import Levels, ValueRange
from dlrun.data.json_rows import is_json
from dlrun.data.texts.corpus import decode
from dlrun.data.walk import IMAGE_SUFFIXES, TEXT_SUFFIXES, read_bytes, walk
from dlrun.errors import DataError, UnreadableImage, UserError, counted, printable
from dlrun.paths import irregular
from dlrun.runs.input_rows import STDIN

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
WHOLE = f"an intact image: {', '.join(IMAGE_SUFFIXES)}"


class Decoding(NamedTuple):
    """Arguments of `decode.read` with which the run's images were decoded."""

    max_pixels: int = MAX_PIXELS
    levels: Levels | None = None


def images(
    arguments: list[str], shape: tuple[int, int, int], fit: str | None, decoding: Decoding, form: ListFormat
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, uint8 image (C, H, W)). fit: how to resize images of another size (see `decode.read`); None: refuse.

    Unreadable files in a folder are skipped and named on standard error. Raises UnreadableImage for a file that the
    user named. form: how the run's own CSV is written; others are read in the same way.
    """
    for name, source, is_in_folder in _image_files(arguments, form):
        try:
            yield name, decoded(name, source, shape, fit, decoding)
        except UnreadableImage as error:
            if not is_in_folder:
                raise
            leave_out(str(error))


def leave_out(reason: str) -> None:
    """Name a skipped file on standard error."""
    sys.stderr.write(f"dl-runs: skipped: {reason.splitlines()[0]}\n")


def _image_files(arguments: list[str], form: ListFormat) -> Iterator[tuple[str, Path | io.BytesIO, bool]]:
    """Yield (name, file, whether it comes from a folder)."""
    for text in arguments:
        path = Path(text)
        if text == STDIN:
            content = sys.stdin.buffer.read()
            if _is_image(content):
                yield "standard input", io.BytesIO(content), False
            else:
                paths = content.decode("utf-8", errors="replace").splitlines()
                yield from _image_files([line for line in paths if line and line != STDIN], form)
        elif os.path.isdir(text):  # unlike Path's method, it accepts a text too long for a name
            files = walk(path, IMAGE_SUFFIXES)
            if not files:
                raise UserError(f"{path} has no images\n  expected files of {', '.join(IMAGE_SUFFIXES)}")
            yield from ((printable(path / name), path / name, True) for name in files)
        elif os.path.isfile(text) and text.lower().endswith(LISTS):
            yield from ((name, file, True) for name, file in _listed_images(path, form))
        elif os.path.exists(text):
            yield text, path, False
        else:
            raise UserError(
                f"{text}: there is no such file\n  expected an image, a folder of images, or - for standard input"
            )


def _listed_images(path: Path, form: ListFormat) -> Iterator[tuple[str, Path]]:
    """Yield the paths in a CSV as they are written, and the files: relative to the CSV's folder, or absolute."""
    for line, name in listed_paths(path, form):
        file = resolve(path.parent, name, form)
        if file is None:
            raise UserError(f"{path}:{line}: there is no image {name}\n  expected paths relative to {path.parent}")
        yield name, path.parent / file


def _is_image(content: bytes) -> bool:
    return content.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*"))


def decoded(
    name: str, source: Path | io.BytesIO, shape: tuple[int, int, int], fit: str | None, decoding: Decoding
) -> Tensor:
    """Return an image file as uint8 (C, H, W). Raises UserError if it does not fit, UnreadableImage if damaged."""
    if not fit:
        _check_size(name, source, shape, decoding.max_pixels)
    with odd_files():
        pixels = read_resized(source, shape, fit or "cover", *decoding)
        if isinstance(pixels, ValueRange):  # of a mode that no training image had
            pixels = read_resized(source, shape, fit or "cover", decoding.max_pixels)
    if isinstance(pixels, str):
        raise UnreadableImage(f"{name} cannot be read as an image: {pixels.splitlines()[0]}\n  expected {WHOLE}")
    return torch.tensor(pixels)


def _check_size(name: str, source: Path | io.BytesIO, shape: tuple[int, int, int], max_pixels: int) -> None:
    """Check the size before any pixel is decoded, because a small file can claim a terabyte."""
    from PIL import Image

    try:
        if not isinstance(source, io.BytesIO) and (kind := irregular(source)):
            raise OSError(f"it is {kind}")
        with odd_files(), open_image(source, max_pixels) as image:
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


def texts_as_trained(arguments: list[str], data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, text), of tables as the run's own was read. data: its section of the run's config."""
    return texts(arguments, data.get("text_column"), data.get("label_column"), data.get("header", True))


def texts(
    arguments: list[str], column: str | None = None, label: str | None = None, has_header: bool = True
) -> Iterator[tuple[str, str]]:
    """Yield (name, text): typed texts, whole .txt files, also of folders, rows of a .csv, lines of standard input.

    column, label: of the texts and labels in the run's own .csv, if they were chosen. has_header: whether its first
    line names the columns. Others are read in the same way.
    """
    for text in arguments:
        if text == STDIN:
            for number, line in enumerate(sys.stdin.buffer, 1):
                if line.strip():
                    yield f"line {number}", decode(line)[0].rstrip("\r\n")
        elif not text.strip():
            raise UserError("an empty text\n  expected a .txt file, a text, or - for standard input")
        elif os.path.isdir(text):  # no error for a text too long for a name
            files = walk(Path(text), TEXT_SUFFIXES)
            if not files:
                raise UserError(f"{text} has no texts\n  expected files named *.txt")
            for file in (Path(text) / name for name in files):
                try:
                    yield printable(file), decode(read_bytes(file))[0]
                except DataError as error:
                    leave_out(str(error))
        elif os.path.isfile(text) and text.lower().endswith(LISTS):
            yield from _csv_texts(text, column, label, has_header)
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
            f"{path} is not plain text\n  expected a .txt file with one text, a .csv or .tsv with a column named text, "
            "or - for standard input, a text per line"
        )
    return content


def _csv_texts(name: str, chosen: str | None, label: str | None, has_header: bool) -> Iterator[tuple[str, str]]:
    """Yield the texts of a table: its only column, or that which training would read."""
    rows, has_header = read_rows(Path(name), "replace"), has_header or is_json(Path(name))
    if not rows:
        return
    text, width = Column("data.text_column", chosen, TEXTS), len(rows[0][1])
    wanted, labels = [text], {label} if label else set(LABELS)
    names = {cell.strip() if label else cell.strip().lower() for cell in rows[0][1]}
    if width > 1 and (not has_header or width == 2 and names & labels):  # the text is the one that is no label
        wanted.append(Column("data.label_column", label, LABELS))
    elif chosen is None and not {cell.strip().lower() for cell in rows[0][1]} & set(TEXTS):
        if wide := next(((line, cells) for line, cells in rows if len(cells) > 1), None):
            raise UserError(
                f"{name}:{wide[0]}: {counted(len(wide[1]), 'column')}, and the first line names none of them text\n"
                "  expected a first line with a column named text, or one column"
            )
        yield from ((f"{name}:{line}", cells[0]) for line, cells in rows)
        return
    for line, cells in columns_of(Path(name), rows, wanted, has_header):
        yield f"{name}:{line}", cells[0]
