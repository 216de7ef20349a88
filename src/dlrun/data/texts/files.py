"""Text files: find them, and detect changes."""

import os
from pathlib import Path

from dlrun.data.walk import TEXT_SUFFIXES, walk
from dlrun.errors import DataError, printable


def below(path: Path, folder: Path) -> str:
    """Return the path of a file in `folder`, relative to it."""
    return str(path)[len(str(folder)) + 1 :]


def text_files(folder: Path) -> list[Path]:
    """List the .txt files below a folder. Raises DataError if there is none."""
    names = walk(folder, TEXT_SUFFIXES)
    if not names:
        raise DataError(f"{folder} has no texts: expected files named *.txt")
    return [folder / name for name in names]


def stamps(files: list[Path]) -> list[list]:
    """Return name, size and time of each file, to detect changes."""
    try:
        stats = [(path.name, os.stat(path)) for path in files]
    except OSError as error:
        raise DataError(f"{printable(error.filename)} cannot be read: {error.strerror}\n  expected a text") from None
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
