"""List the files in a folder of images, masks or texts, for training and for prediction."""

import os
from pathlib import Path

from dlrun.errors import DataError, printable, some
from dlrun.paths import irregular

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TEXT_SUFFIXES = (".txt",)
NOT_DATA = {"__macosx", "@eadir"}  # written by archivers and file servers; names that begin with a dot are skipped, too
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")


def walk(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """List every file under `root` with one of the suffixes (in any case), by its path under `root`, sorted.

    Linked folders are followed after all others, and no folder is read twice, since a link may lead back. Broken links
    and files that are not regular are listed: their reader must report them. Raises DataError if a folder cannot be
    read.
    """
    files: list[str] = []
    links: list[str] = []
    seen, folders = set(), [""]
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
                files.append(name)
    return sorted(files)


def folders(root: Path) -> list[str]:
    """List the names of the folders in `root`, sorted."""
    names = (entry.name for entry in _entries(root) if _is_folder(entry))
    return [name for name in names if not name.startswith(".") and name.lower() not in NOT_DATA]


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
    """Read a regular file. Raises DataError if it cannot be read."""
    try:
        why = irregular(path)
        if why is None:
            return path.read_bytes()
    except OSError as error:
        why = error.strerror
    raise DataError(f"{printable(path)} cannot be read: {why}\n  expected a regular file that this user may read")


def split_folders(root: Path, names: list[str], otherwise: str) -> dict[str, str]:
    """Return the folder of each split (train, val, test) if subfolders are named like splits, else {}.

    names: of the subfolders. otherwise: how to read them as classes, for messages. Raises DataError if there are other
    folders beside train and val or test, no train, or two folders for a split.
    """
    by_split: dict[str, str] = {}
    named = [name for name in names if name.lower() in SPLITS]
    for name in named:
        if (split := SPLITS[name.lower()]) in by_split:
            raise DataError(
                f"{root} has the folders {by_split[split]} and {name}: both would be the {split} split\n"
                f"  expected one folder per split; {otherwise}"
            )
        by_split[split] = name
    others = [name for name in names if name not in named]
    if others and "train" in by_split and len(by_split) > 1:
        raise DataError(
            f"{root} has {some(others)} beside {' and '.join(named)}: are these splits or classes?\n"
            f"  expected splits alone, with a folder per class in each; {otherwise}"
        )
    if others or not by_split:
        return {}
    if "train" not in by_split:
        raise DataError(f"{root} has the folders {some(named)}, but none for train\n  expected train; {otherwise}")
    return by_split


def described(folders: dict[str, str]) -> str:
    """Describe the splits that are folders, for the run's header; "" if there are none."""
    names = [f"{folders[split]}/" for split in ("train", "val", "test") if split in folders]
    absent = [split for split in ("val", "test") if split not in folders]
    cut = f"; {' and '.join(absent)}: cut from {folders['train']}/" if folders and absent else ""
    return f"the folders {', '.join(names)}{cut}" if folders else ""
