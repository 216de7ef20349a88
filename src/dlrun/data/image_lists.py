"""Which pictures there are, what they show, and which part each is in: by class folders, or by a CSV.

Source: book section 15.1 (`images.csv`: rows of path and label, no header; parts by the order of its rows).
Deviations: its shuffle is a fixed one, so that the split is the same with and without a CSV; parts can be stratified.
"""

import csv
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dlrun.data.classes import is_number, number_classes, rank
from dlrun.data.walk import PICTURES, refuse_splits, walk
from dlrun.errors import DataError, UserError, counted, some
from dlrun.paths import find

PARTS = ("train", "val", "test")


class Listing(NamedTuple):
    """names: of the pictures, under the root, in the order of the split. labels: int64 (N,), all 0 where there are no
    classes. classes: their names, in the labels' order.
    """

    names: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]


def find_root(root: str, data_dir: Path) -> Path:
    """The folder of that name. Raises DataError where there is none."""
    kinds = ", ".join(PICTURES)
    return find(
        root,
        data_dir,
        "data.root",
        f"a folder of pictures ({kinds}), flat or in one folder per class\n"
        "  put them there, or name another with data.root=...",
    )


def scan(root: Path) -> list[str]:
    """Every picture under `root` by its name there, in alphabetical order."""
    found = walk(root, PICTURES)
    if not found:
        raise DataError(
            f"{root} has no pictures\n  expected a folder of {', '.join(PICTURES)}, flat or with one folder per class\n"
            "  put them there, or name another with data.root=..."
        )
    return found


def by_folders(root: Path, classes: tuple[str, ...], count: int | None, layout: str) -> Listing:
    """Labels by the first folder of each name, or none where the layout is flat.

    classes: their order, () for any. count: how many there are, None for any.
    """
    names = scan(root)
    names = [names[i] for i in np.random.RandomState(0).permutation(len(names))]  # not that of their making
    if layout == "flat":
        return Listing(names, np.zeros(len(names), np.int64), ())
    loose = sorted(name for name in names if "/" not in name)
    if len(loose) == len(names) and layout == "auto":
        return Listing(names, np.zeros(len(names), np.int64), ())
    if loose:
        raise DataError(
            f"{root} has {counted(len(loose), 'picture')} beside its folders, such as {loose[0]}\n"
            "  expected each in a folder of its class; data.layout=flat takes them all without labels"
        )
    labels = [name.partition("/")[0] for name in names]
    if layout == "auto":
        top = sorted(set(labels))
        part = next((name for name in top if name.lower().startswith("train")), top[0])
        way = f"data.root={root / part}, which is split by data.split; or data.layout=folders, where they are classes"
        refuse_splits(root, top, way)
    return _labelled(root, names, labels, classes, count)


def by_csv(root: Path, file: Path, classes: tuple[str, ...], count: int | None) -> Listing:
    """Rows of path and label. Paths are relative to `root`, or begin with its name (the book's), or are absolute.

    classes, count: as of by_folders.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as text:
            rows = [(number, row) for number, row in enumerate(csv.reader(text), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot read data.csv={file}: {error}\n  expected UTF-8 text, rows of path and label"
        ) from None
    if rows and not rows[0][1][0].lower().endswith(PICTURES) and _place(root, rows[0][1][0]) is None:
        rows = rows[1:]  # names of columns
    for number, row in rows:
        if len(row) != 2 or not all(word.strip() for word in row):
            raise DataError(
                f"{file}, line {number}: {','.join(row)[:80]!r}\n"
                "  expected two columns with a comma between: path, label"
            )
    if not rows:
        raise DataError(f"{file} names no pictures\n  expected rows of path and label, as in cats/1.jpg,cats")
    names = [_place(root, row[0]) or _place(root, row[0].strip()) for _, row in rows]
    missing = [row[0] for (_, row), name in zip(rows, names, strict=True) if name is None]
    if missing:
        raise DataError(
            f"{file} names {counted(len(missing), 'picture')} that cannot be found: {some(missing)}\n"
            f"  expected paths relative to {root}, or absolute ones"
        )
    first: dict[str, int] = {}
    for (number, row), name in zip(rows, names, strict=True):
        if name in first:
            raise DataError(
                f"{file} names {row[0]} twice, in lines {first[name]} and {number}\n"
                "  expected each picture once: it could train and test, or be of two classes"
            )
        first[name] = number
    return _labelled(root, names, [row[1].strip() for _, row in rows], classes, count)


def _place(root: Path, name: str) -> str | None:
    """A CSV's path as a name under `root`, or absolute; None where there is no such file."""
    for path in (name, name.replace("\\", "/")):
        parts = PurePosixPath(path).parts
        for place in (path, str(PurePosixPath(*parts[1:])) if parts[:1] == (root.name,) else path):
            if os.path.isfile(root / place):  # a name may be too long for Path.is_file
                return os.path.normpath(place).replace(os.sep, "/")
    return None


def _labelled(root: Path, names: list[str], labels: list[str], classes: tuple[str, ...], count: int | None) -> Listing:
    if all(map(is_number, labels)):  # the book's: numbers of the sorted folders
        labels = _named(names, labels, classes)
    counts = Counter(labels)
    if len(counts) == 1:
        raise _one_class(root, labels[0], names)
    numbers, known = number_classes(root, labels, classes, count)
    few = [f"{name} ({counts[name]})" for name in known if counts[name] < len(PARTS)]
    if few:
        raise DataError(
            f"{root} has classes of fewer than {len(PARTS)} pictures: {some(few)}\n"
            "  expected one to train, one to validate and one to test at least: add pictures, or leave the class out"
        )
    return Listing(names, numbers, known)


def _one_class(root: Path, name: str, pictures: list[str]) -> DataError:
    """All the pictures are of this class: often the folder is one above that of the classes."""
    deeper = {PurePosixPath(each).parts[1] for each in pictures if each.startswith(f"{name}/") and each.count("/") > 1}
    hint = f"\n  its folders may be the classes ({some(sorted(deeper))}): data.root={root / name}" if deeper else ""
    return DataError(
        f"{root} has one class, {name}: expected two or more{hint}\n  data.layout=flat takes them all without labels"
    )


def _named(names: list[str], numbers: list[str], classes: tuple[str, ...]) -> list[str]:
    """Names for classes that are numbers: those of data.spec.labels, or of the folders where each has its own."""
    if classes and not set(numbers) & set(classes):
        if max(map(int, numbers)) < len(classes):
            return [classes[int(number)] for number in numbers]
        return numbers
    folders: dict[str, set[str]] = {}
    for name, number in zip(names, numbers, strict=True):
        above = PurePosixPath(name)
        folders.setdefault(number, set()).add(above.parent.name if above.is_absolute() else above.parts[0])
    single = {number: next(iter(found)) for number, found in folders.items() if len(found) == 1}
    in_order = [single.get(number, "") for number in sorted(folders, key=int)]
    if "" in in_order or in_order not in (sorted(set(in_order)), sorted(set(in_order), key=rank)):  # the book's, ours
        return numbers
    return [single[number] for number in numbers]


def write_csv(file: Path, listing: Listing) -> None:
    """The book's images.csv: path and number of the class, in the order of the split."""
    rows = "".join(
        f"{_quoted(name)},{label}\n" for name, label in zip(listing.names, listing.labels.tolist(), strict=True)
    )
    part = file.with_name(f"{file.name}.{os.getpid()}.part")  # several processes may write it at once, all the same
    try:
        part.write_text(rows, encoding="utf-8")
        os.replace(part, file)
    except (OSError, UnicodeEncodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "a picture's name is no UTF-8"
        raise DataError(
            f"cannot write data.csv={file}: {why}\n  choose another place, or set data.write_csv=false"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n\r') else name


def split(
    labels: np.ndarray, fractions: tuple[float, float, float], stratify: bool, folds: int, fold: int
) -> dict[str, np.ndarray]:
    """Rows of the parts, in order: the first of the samples train. stratify: each class is cut by itself.

    folds > 1: of what is not test, the fold-th of so many parts is val. Raises UserError where a part would be empty.
    """
    if abs(sum(fractions) - 1) > 1e-6 or not all(fractions):
        raise UserError(f"data.split={list(fractions)}: expected three shares > 0 (train, val, test) whose sum is 1")
    if folds == 1 or fold and fold >= folds:
        raise UserError(
            f"data.folds={folds} data.fold={fold}: expected folds >= 2 (or 0: none) and fold in 0 .. folds - 1"
        )
    groups = [np.flatnonzero(labels == k) for k in np.unique(labels)] if stratify else [np.arange(len(labels))]
    found: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    for rows in groups:
        first, second = (int(len(rows) * share + 1e-9) for share in (fractions[0], fractions[0] + fractions[1]))
        second = min(max(second, 2), len(rows) - 1)  # of a small group, one for each part at least
        first = min(max(first, 1), second - 1)
        rest, test = rows[:second], rows[second:]
        held = np.array_split(rest, folds)[fold] if folds else rows[first:second]
        for part, mine in zip(PARTS, (np.setdiff1d(rest, held), held, test), strict=True):
            found[part].append(mine)
    parts = {part: np.sort(np.concatenate(rows)) for part, rows in found.items()}
    for part, rows in parts.items():
        if not len(rows):
            raise UserError(
                f"data.split={list(fractions)} of {counted(len(labels), 'picture')} leaves the {part} part empty\n"
                "  expected three pictures at least, or other shares"
            )
    return parts
