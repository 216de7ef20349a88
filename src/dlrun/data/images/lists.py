"""List images with their labels from class folders, and split them into train, val and test.

Source: the book, section 15.1, which shuffles the images once, writes them to `images.csv` and splits by its order.
Deviations: the shuffle has a fixed seed, so that the split is the same with and without that file; splits can be
stratified.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dlrun.data.classes import is_number, number_classes, numbers_like, rank
from dlrun.data.splits import SPLITS, check_folds, check_shares
from dlrun.data.walk import IMAGE_SUFFIXES, described, folders, split_folders, walk
from dlrun.data.walk import SPLITS as NAMED
from dlrun.errors import DataError, UserError, counted, some
from dlrun.paths import find


class Listing(NamedTuple):
    """Images and their labels.

    names: paths under the root, in the order of the split. labels: int64 (N,), all 0 without classes. classes: the
    classes' names, in the order of the labels. fixed: rows by split if the root has a folder for each; {} if not.
    split_note: describes these folders.
    """

    names: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    fixed: Mapping[str, np.ndarray]
    split_note: str = ""


class Classes(NamedTuple):
    """The classes that the images must have. names: in order, () for any; number: None for any.

    is_subset: some may have no images; each one else has at least three.
    """

    names: tuple[str, ...] = ()
    number: int | None = None
    is_subset: bool = False


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


def by_folders(
    root: Path, classes: Classes, layout: str, labels_in: Callable[[list[str]], list[str]] | None = None
) -> Listing:
    """List images with the folder of their class, which is the first or, below a split's folder, the second one.

    Without class folders, or if the layout is flat, images have no labels. Splits are found if the layout is auto.
    labels_in: what gives the labels instead, from the names under the root.
    """
    names = scan(root)
    names = [names[i] for i in np.random.RandomState(0).permutation(len(names))]  # names are often in order of creation
    if layout == "flat":
        return Listing(names, np.zeros(len(names), np.int64), (), {})
    top = sorted({name.partition("/")[0] for name in names if "/" in name})
    folder_of = split_folders(root, top, "data.layout=folders takes them as classes") if layout == "auto" else {}
    if empty := next((each for each in folders(root) if folder_of and each not in top and each.lower() in NAMED), None):
        raise DataError(f"{root / empty} has no images\n  expected images in it; or remove the folder")
    of_split = {folder: split for split, folder in folder_of.items()}
    inside = [name.partition("/")[2] if folder_of and "/" in name else name for name in names]
    loose = sorted(name for name, path in zip(names, inside, strict=True) if "/" not in path)
    stray = sorted(name for name in names if "/" not in name) if folder_of else []
    if stray or loose and not labels_in and (len(loose) < len(names) or layout != "auto"):
        raise DataError(
            f"{root} has {counted(len(stray or loose), 'image')} beside its folders, such as {(stray or loose)[0]}\n"
            "  expected each in a folder of its class; data.layout=flat takes them all without labels"
        )
    splits = np.array([of_split[name.partition("/")[0]] for name in names]) if folder_of else np.array([])
    fixed = {split: np.flatnonzero(splits == split) for split in SPLITS if split in folder_of}
    if loose and not labels_in:
        return Listing(names, np.zeros(len(names), np.int64), (), fixed, described(folder_of))
    labels = labels_in(names) if labels_in else [path.partition("/")[0] for path in inside]
    listing = labelled(root, names, labels, classes, bool(fixed))
    return listing._replace(fixed=fixed, split_note=described(folder_of))


def labelled(root: Path, names: list[str], labels: list[str], classes: Classes, is_split: bool) -> Listing:
    if all(map(is_number, labels)):  # the book's CSV has numbers of the sorted folders
        labels = _named(names, labels, classes.names)
    if classes.is_subset:
        return Listing(names, numbers_like(root, labels, classes.names), classes.names, {})
    counts = Counter(labels)
    if len(counts) == 1:
        raise _one_class(root, labels[0], names)
    numbers, known = number_classes(root, labels, classes.names, classes.number)
    few = [f"{name} ({counts[name]})" for name in known if counts[name] < len(SPLITS)]
    if few and not is_split:
        raise DataError(
            f"{root} has classes of fewer than {len(SPLITS)} images: {some(few)}\n"
            "  expected at least one image each for train, val and test: add images, or leave the class out"
        )
    return Listing(names, numbers, known, {})


def _one_class(root: Path, name: str, names: list[str]) -> DataError:
    """Return the error for images of a single class: often the root is one level above the class folders."""
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


def split(
    labels: np.ndarray, fractions: tuple[float, float, float], stratify: bool, folds: int, fold: int
) -> dict[str, np.ndarray]:
    """Split rows in order: train, then val, then test. stratify: split each class separately.

    folds > 1: the fold-th of `folds` equal parts of all rows that are not test is val. Raises UserError if a split
    would be empty.
    """
    check_shares(fractions)
    check_folds(folds, fold)
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
    most = max(len(train) + len(val) for train, val in zip(chosen["train"], chosen["val"], strict=True))
    if folds > most:
        of = " of every class" if stratify else ""
        raise UserError(
            f"data.folds={folds}: at most {counted(most, 'image')}{of} are not test, so some folds would be empty\n"
            f"  expected at most {counted(most, 'fold')}"
        )
    splits = {name: np.sort(np.concatenate(arrays)) for name, arrays in chosen.items()}
    for name, rows in splits.items():
        if not len(rows):
            raise UserError(
                f"data.split={list(fractions)} of {counted(len(labels), 'image')} leaves the {name} split empty\n"
                "  expected at least three images, or other shares"
            )
    return splits


def check_splits(splits: dict[str, np.ndarray], listing: Listing) -> None:
    """Raise DataError if a split is empty, or if a class has too few readable images or none to train on."""
    for name, rows in splits.items():
        if not len(rows):
            raise DataError(f"no image of the {name} split can be read: expected images that Pillow can open")
    readable = np.bincount(listing.labels[np.concatenate(list(splits.values()))], minlength=len(listing.classes))
    counts = [(name, readable[label]) for label, name in enumerate(listing.classes)]
    few = [f"{name} ({count})" for name, count in counts if count < len(splits)]
    if few and not listing.fixed:
        raise DataError(
            f"some classes have fewer than {len(splits)} images that can be read: {some(few)}\n"
            "  expected at least one image each for train, val and test: repair the files, or leave the class out"
        )
    known = set(listing.labels[splits["train"]].tolist())
    missing = [name for label, name in enumerate(listing.classes) if label not in known]
    if missing:
        advice = (
            "add images to its folder" if listing.fixed else "data.stratify=true gives each split its share of each"
        )
        raise DataError(f"the train split has no image of {some(missing)}\n  expected all classes: {advice}")
