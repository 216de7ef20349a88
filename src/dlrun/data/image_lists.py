"""List images with their labels, from class folders or a CSV, and split them into train, val and test.

Source: the book, section 15.1 (`images.csv`: rows of path and label, no header; split by the order of its rows).
Deviations: the shuffle is fixed, so that the split is the same with and without a CSV. Splits can be stratified.
"""

import csv
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dlrun.data.classes import is_number, number_classes, rank
from dlrun.data.walk import IMAGE_SUFFIXES, refuse_splits, walk
from dlrun.errors import DataError, UserError, counted, some
from dlrun.paths import find

SPLITS = ("train", "val", "test")


class Listing(NamedTuple):
    """Images and their labels.

    names: paths under the root, in the order of the split. labels: int64 (N,), all 0 without classes. classes: the
    classes' names, in the order of the labels.
    """

    names: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]


def find_root(root: str, data_dir: Path) -> Path:
    """Find the root folder. Raises DataError if there is none."""
    kinds = ", ".join(IMAGE_SUFFIXES)
    return find(
        root,
        data_dir,
        "data.root",
        f"a folder of images ({kinds}), flat or in one folder per class\n"
        "  put them there, or name another folder with data.root=...",
    )


def scan(root: Path) -> list[str]:
    """List every image under `root` by its path there, sorted. Raises DataError if there is none."""
    names = walk(root, IMAGE_SUFFIXES)
    if not names:
        raise DataError(
            f"{root} has no images\n"
            f"  expected a folder of {', '.join(IMAGE_SUFFIXES)}, flat or with one folder per class\n"
            "  put them there, or name another folder with data.root=..."
        )
    return names


def by_folders(root: Path, classes: tuple[str, ...], count: int | None, layout: str) -> Listing:
    """List images with the first folder of each name as its label, or without labels if the layout is flat.

    classes: the config's classes in order, () for any. count: the config's number of classes, None for any.
    """
    names = scan(root)
    names = [names[i] for i in np.random.RandomState(0).permutation(len(names))]  # names are often in order of creation
    if layout == "flat":
        return Listing(names, np.zeros(len(names), np.int64), ())
    loose = sorted(name for name in names if "/" not in name)
    if len(loose) == len(names) and layout == "auto":
        return Listing(names, np.zeros(len(names), np.int64), ())
    if loose:
        raise DataError(
            f"{root} has {counted(len(loose), 'image')} beside its folders, such as {loose[0]}\n"
            "  expected each in a folder of its class; data.layout=flat takes them all without labels"
        )
    labels = [name.partition("/")[0] for name in names]
    if layout == "auto":
        top = sorted(set(labels))
        train = next((name for name in top if name.lower().startswith("train")), top[0])
        way = f"data.root={root / train}, which is split by data.split; or data.layout=folders, if they are classes"
        refuse_splits(root, top, way)
    return _labelled(root, names, labels, classes, count)


def by_csv(root: Path, file: Path, classes: tuple[str, ...], count: int | None) -> Listing:
    """List images from a CSV with rows of path and label.

    Paths are relative to `root`, or begin with its name (as in the book), or are absolute. classes: the config's
    classes in order, () for any. count: the config's number of classes, None for any.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as text:
            rows = [(number, row) for number, row in enumerate(csv.reader(text), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot read data.csv={file}: {error}\n  expected UTF-8 text with rows of path and label"
        ) from None
    if rows and not rows[0][1][0].lower().endswith(IMAGE_SUFFIXES) and _resolve(root, rows[0][1][0]) is None:
        rows = rows[1:]  # a header with the names of the columns
    for number, row in rows:
        if len(row) != 2 or not all(word.strip() for word in row):
            raise DataError(
                f"{file}, line {number}: {','.join(row)[:80]!r}\n"
                "  expected two columns, separated by a comma: path, label"
            )
    if not rows:
        raise DataError(f"{file} names no images\n  expected rows of path and label, such as cats/1.jpg,cats")
    resolved = [_resolve(root, row[0]) or _resolve(root, row[0].strip()) for _, row in rows]
    missing = [row[0] for (_, row), name in zip(rows, resolved, strict=True) if name is None]
    if missing:
        raise DataError(
            f"{file} names {counted(len(missing), 'image')} that cannot be found: {some(missing)}\n"
            f"  expected paths relative to {root}, or absolute paths"
        )
    names = [name for name in resolved if name is not None]
    first: dict[str, int] = {}
    for (number, row), name in zip(rows, names, strict=True):
        if name in first:
            raise DataError(
                f"{file} names {row[0]} twice, in lines {first[name]} and {number}\n"
                "  expected each image once: it could be in two splits, or of two classes"
            )
        first[name] = number
    return _labelled(root, names, [row[1].strip() for _, row in rows], classes, count)


def _resolve(root: Path, name: str) -> str | None:
    """Return a CSV's path as a path under `root`, or an absolute one; None if there is no such file."""
    for path in (name, name.replace("\\", "/")):
        parts = PurePosixPath(path).parts
        for candidate in (path, str(PurePosixPath(*parts[1:])) if parts[:1] == (root.name,) else path):
            if os.path.isfile(root / candidate):  # a name may be too long for Path.is_file
                return os.path.normpath(candidate).replace(os.sep, "/")
    return None


def _labelled(root: Path, names: list[str], labels: list[str], classes: tuple[str, ...], count: int | None) -> Listing:
    if all(map(is_number, labels)):  # the book's CSV has numbers of the sorted folders
        labels = _named(names, labels, classes)
    counts = Counter(labels)
    if len(counts) == 1:
        raise _one_class(root, labels[0], names)
    numbers, known = number_classes(root, labels, classes, count)
    few = [f"{name} ({counts[name]})" for name in known if counts[name] < len(SPLITS)]
    if few:
        raise DataError(
            f"{root} has classes of fewer than {len(SPLITS)} images: {some(few)}\n"
            "  expected at least one image each for train, val and test: add images, or leave the class out"
        )
    return Listing(names, numbers, known)


def _one_class(root: Path, name: str, names: list[str]) -> DataError:
    """Return the error if all images are of one class: often the root is one level above the classes."""
    deeper = {PurePosixPath(each).parts[1] for each in names if each.startswith(f"{name}/") and each.count("/") > 1}
    hint = f"\n  its folders may be the classes ({some(sorted(deeper))}): data.root={root / name}" if deeper else ""
    return DataError(
        f"{root} has one class, {name}: expected two or more{hint}\n  data.layout=flat takes them all without labels"
    )


def _named(names: list[str], numbers: list[str], classes: tuple[str, ...]) -> list[str]:
    """Replace numbers of classes by names: those of data.spec.labels, or of the folders if each class has its own."""
    if classes and not set(numbers) & set(classes):
        if max(map(int, numbers)) < len(classes):
            return [classes[int(number)] for number in numbers]
        return numbers
    folders: dict[str, set[str]] = {}
    for name, number in zip(names, numbers, strict=True):
        path = PurePosixPath(name)
        folders.setdefault(number, set()).add(path.parent.name if path.is_absolute() else path.parts[0])
    single = {number: next(iter(names)) for number, names in folders.items() if len(names) == 1}
    in_order = [single.get(number, "") for number in sorted(folders, key=int)]
    # the book's order, or that of number_classes
    if "" in in_order or in_order not in (sorted(set(in_order)), sorted(set(in_order), key=rank)):
        return numbers
    return [single[number] for number in numbers]


def write_csv(file: Path, listing: Listing) -> None:
    """Write the book's images.csv: rows of path and class number, in the order of the split."""
    rows = "".join(
        f"{_quoted(name)},{label}\n" for name, label in zip(listing.names, listing.labels.tolist(), strict=True)
    )
    part = file.with_name(f"{file.name}.{os.getpid()}.part")  # several processes may write the same file at once
    try:
        part.write_text(rows, encoding="utf-8")
        os.replace(part, file)
    except (OSError, UnicodeEncodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "an image's name is not UTF-8"
        raise DataError(
            f"cannot write data.csv={file}: {why}\n  choose another path, or set data.write_csv=false"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n\r') else name


def split(
    labels: np.ndarray, fractions: tuple[float, float, float], stratify: bool, folds: int, fold: int
) -> dict[str, np.ndarray]:
    """Split rows in order: train, then val, then test. stratify: split each class separately.

    folds > 1: the fold-th of `folds` equal parts of all rows that are not test is val. Raises UserError if a split
    would be empty.
    """
    if abs(sum(fractions) - 1) > 1e-6 or not all(fractions):
        raise UserError(f"data.split={list(fractions)}: expected three shares > 0 (train, val, test) whose sum is 1")
    if folds == 1 or fold and fold >= folds:
        raise UserError(
            f"data.folds={folds} data.fold={fold}: expected folds >= 2 (or 0: none) and fold in 0 .. folds - 1"
        )
    groups = [np.flatnonzero(labels == k) for k in np.unique(labels)] if stratify else [np.arange(len(labels))]
    chosen: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for rows in groups:
        first, second = (int(len(rows) * share + 1e-9) for share in (fractions[0], fractions[0] + fractions[1]))
        second = min(max(second, 2), len(rows) - 1)  # at least one row of a small group for each split
        first = min(max(first, 1), second - 1)
        rest, test = rows[:second], rows[second:]
        val = np.array_split(rest, folds)[fold] if folds else rows[first:second]
        for name, indices in zip(SPLITS, (np.setdiff1d(rest, val), val, test), strict=True):
            chosen[name].append(indices)
    splits = {name: np.sort(np.concatenate(arrays)) for name, arrays in chosen.items()}
    for name, rows in splits.items():
        if not len(rows):
            raise UserError(
                f"data.split={list(fractions)} of {counted(len(labels), 'image')} leaves the {name} split empty\n"
                "  expected at least three images, or other shares"
            )
    return splits
