"""Which files a folder of data holds: one walk for pictures, masks and texts, to train on and to predict from."""

import os
from pathlib import Path

from dlrun.errors import DataError, printable, some
from dlrun.paths import irregular

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TEXTS = (".txt",)
NOT_DATA = {"__macosx", "@eadir"}  # made by archivers and file servers; what begins with a dot is left out, too
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def walk(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Every file under `root` with one of the suffixes, in any case, by its name there; in alphabetical order.

    A linked folder is followed after all others, and no folder is read twice: a link may lead back. Broken links and
    what is no regular file are listed: whoever reads them has to report them. Raises DataError where a folder cannot
    be read.
    """
    found, seen, folders, links = [], set(), [""], []
    while folders or links:
        where = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(root / where)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(root / where):
            name = f"{where}/{entry.name}" if where else entry.name
            if entry.name.startswith(".") or entry.name.lower() in NOT_DATA:
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(name)
            elif entry.name.lower().endswith(suffixes):
                found.append(name)
    return sorted(found)


def folders(root: Path) -> list[str]:
    """The names of the folders in `root`, in alphabetical order."""
    found = (entry.name for entry in _entries(root) if _is_folder(entry))
    return [name for name in found if not name.startswith(".") and name.lower() not in NOT_DATA]


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"the folder {printable(folder)} cannot be read: {error.strerror}\n"
            "  expected a folder that this user may read"
        ) from None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises DataError where it cannot be read."""
    try:
        why = irregular(path)
        if why is None:
            return path.read_bytes()
    except OSError as error:
        why = error.strerror
    raise DataError(f"{printable(path)} cannot be read: {why}\n  expected a regular file that this user may read")


def refuse_splits(root: Path, names: list[str], way: str) -> None:
    """Raise DataError where the folders, which are taken as classes, are the parts of a data set: train, val, test."""
    if names and all(name.lower() in SPLITS for name in names):
        raise DataError(
            f"{root} has the folders {some(names)}: these are parts of a data set, not classes\n"
            f"  expected one folder per class: {way}"
        )
