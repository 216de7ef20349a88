"""Number classes by their names, with the same order and checks for all readers."""

from collections import Counter
from pathlib import Path

import numpy as np

from dlrun.errors import DataError, UserError, counted, printable, some


def number_classes(
    where: str | Path, labels: list[str], wanted: tuple[str, ...], count: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class of each sample, int64 (N,), and the classes' names in order.

    where: the data, for messages. wanted: the config's names in order, () for any. count: the config's number of
    classes, None for any. Raises DataError if the labels cannot be classes or differ from the config's.
    """
    known = sorted(set(labels), key=rank)
    if odd := [name for name in known if not _is_text(name)]:
        raise DataError(
            f"{where} has classes whose names are not UTF-8: {some(list(map(printable, odd)))}\n"
            "  expected names in UTF-8: rename them"
        )
    if len(known) < 2:
        raise DataError(f"{where} has {'one class, ' if known else 'no class'}{''.join(known)}: expected two or more")
    alike = Counter(_plain(name) for name in known)
    if twins := [name for name in known if alike[_plain(name)] > 1]:
        raise DataError(
            f"{where} has classes whose names differ by case or blanks only: {', '.join(map(repr, twins))}\n"
            "  expected one name per class: rename one, or merge them"
        )
    if wanted and set(wanted) != set(known):
        raise DataError(
            f"{where} has the classes {some(known, 20)}\n  expected data.spec.labels: {some(list(wanted), 20)}"
        )
    if count is not None and count != len(known):
        raise DataError(
            f"{where} has {counted(len(known), 'class')} ({some(known)}), data.spec.classes={count}\n"
            "  expected the same number; data.spec.classes=null takes all that there are"
        )
    names = wanted or tuple(known)
    order = {name: label for label, name in enumerate(names)}
    return np.array([order[label] for label in labels], np.int64), names


def numbers_like(where: str | Path, labels: list[str], classes: tuple[str, ...]) -> np.ndarray:
    """Return the class of each sample, int64 (N,), as a run numbers its classes. Raises DataError for another class."""
    order = {name: label for label, name in enumerate(classes)}
    if strange := sorted(set(labels) - order.keys()):
        raise DataError(
            f"{where} has classes that the run does not know: {some(list(map(printable, strange)))}\n"
            f"  expected {some(list(classes), 20)}"
        )
    return np.array([order[label] for label in labels], np.int64)


def check_labels(labels: tuple[str, ...], classes: int | None) -> None:
    """Raise UserError unless data.spec.labels has one name for each class, or none at all."""
    if twice := [name for name, count in Counter(labels).items() if count > 1]:
        raise UserError(f"data.spec.labels has {some(list(map(repr, twice)))} more than once: expected each class once")
    if labels and classes is not None and len(labels) != classes:
        raise UserError(
            f"data.spec.labels has {counted(len(labels), 'name')}, data.spec.classes={classes}: "
            "expected one each, or []"
        )


def rank(name: str) -> tuple[int, str, str]:
    """Sort key of class names: numbers by value (2 before 10), after all other names."""
    if not is_number(name):
        return 0, name, name
    digits = name.lstrip("0")
    return 1 + len(digits), digits, name


def is_number(name: str) -> bool:
    """Whether int() accepts a name. str.isdigit() is also true of a superscript two and of 5,000 digits."""
    return name.isascii() and name.isdigit() and len(name) <= 18


def _plain(name: str) -> str:
    return name.strip().casefold()


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
