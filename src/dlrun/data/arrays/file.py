"""Read arrays of samples from .npz and .npy files. Nothing is unpickled: a file cannot run code."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dlrun.errors import DataError, first_line, some
from dlrun.paths import open_plain

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
INPUTS = ("x", "data", "images", "image", "inputs", "features", "series")
TARGETS = ("y", "labels", "label", "targets", "target")
EXPECTED = (
    "expected an .npz with x and y, or with x_train, y_train and x_val, y_val or x_test, y_test or both,\n"
    "  or .npy files: data.x=x.npy data.y=y.npy"
)

Pair = tuple[np.ndarray, np.ndarray | None]  # inputs, and targets if there are any


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of samples in a file, named x, y, or x_train, y_train and so on. Raises DataError."""
    content = _load(path)
    if isinstance(content, np.ndarray):
        return {"x": content}
    names = {name: role for name in content if (role := _role(name))}
    roles = list(names.values())
    if twice := next((role for role in roles if roles.count(role) > 1), None):
        both = [name for name, role in names.items() if role == twice]
        raise DataError(f"{path}: {' and '.join(both)} both are {twice}\n  {EXPECTED}")
    if not any(role.startswith("x") for role in roles):
        raise DataError(f"{path} has the arrays {some(list(content), 10) or 'none'}: no inputs\n  {EXPECTED}")
    return {role: content[name] for name, role in names.items()}


def read_npy(path: Path) -> np.ndarray:
    """Return the array in a .npy file. Raises DataError."""
    content = _load(path)
    if isinstance(content, np.ndarray):
        return content
    raise DataError(f"{path} holds several arrays\n  expected one array, written by numpy.save; or data.file={path}")


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Return the array of a .npy file, or those of an .npz file that may be samples, by name; others are not read."""
    try:
        with open_plain(path) as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            arrays = {name: content[name] if _role(name) else np.zeros(0) for name in content.files}
    except Exception as error:  # of headers, zips and four kinds of compression: damage raises almost anything
        raise _unreadable(path, error) from None
    if other := next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None):
        raise DataError(f"{path}: {other} is not an array\n  {EXPECTED}")
    return arrays


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{path} cannot be read: {error.strerror}\n  {EXPECTED}")
    if "Object arrays" in str(error):
        return DataError(
            f"{path} holds Python objects; they are never loaded, since they can run code\n"
            f"  {EXPECTED}; arrays of numbers or texts"
        )
    if "pickle" in str(error):  # NumPy takes any other file for a pickle
        return DataError(f"{path} is not an array file\n  {EXPECTED}")
    return DataError(f"{path} is not an intact array file: {first_line(error)}\n  {EXPECTED}")


def _role(name: str) -> str:
    """Return x or y with the split, such as x_train, for names such as X_train, train_images, labels; "" for others."""
    words = [word for word in re.split(r"[_\W]+", name.lower()) if word]
    splits = [SPLITS[word] for word in words if word in SPLITS]
    rest = [word for word in words if word not in SPLITS]
    if len(rest) != 1 or len(splits) > 1:
        return ""
    kind = "x" if rest[0] in INPUTS else "y" if rest[0] in TARGETS else ""
    return "_".join([kind, *splits]) if kind else ""


def check_numbers(name: str, x: np.ndarray) -> None:
    """Raise DataError unless an array has finite numbers only, which float32 can hold."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"{name} holds values of type {x.dtype}\n  expected real numbers")
    if x.dtype.kind == "f":
        for first in range(0, len(x), 4096):  # in blocks, since the array may be half of the memory
            block = x[first : first + 4096]
            fits = np.abs(block) <= np.finfo(np.float32).max  # false for NaN, too
            if not fits.all():
                place = np.argwhere(~fits)[0]
                value = block[tuple(place)]
                where = ", ".join(map(str, [first + int(place[0]), *place[1:].tolist()]))
                limit = f" of at most {np.finfo(np.float32).max:.3g}, the largest of float32" * bool(np.isfinite(value))
                raise DataError(f"{name}[{where}] is {value}\n  expected finite numbers{limit}")


def grouped(arrays: Mapping[str, np.ndarray]) -> dict[str, Pair]:
    """Return (x, y) by split, or under "all". Raises DataError if they do not belong together."""
    parts = {}
    for name in ("x", "x_train", "x_val", "x_test"):
        if name in arrays:
            split = name.partition("_")[2] or "all"
            parts[split] = (np.asarray(arrays[name]), arrays.get(name.replace("x", "y", 1)))
    if "all" in parts and len(parts) > 1 or "all" not in parts and "train" not in parts or len(parts) == 0:
        raise DataError(f"the arrays are {some(sorted(arrays), 10)}\n  {EXPECTED}")
    if set(parts) == {"train"}:
        parts = {"all": parts["train"]}
    for split, (x, y) in parts.items():
        if not x.ndim or not x.size or y is not None and (not np.ndim(y) or len(y) != len(x)):
            both = f"{x.shape} (inputs) and {() if y is None else np.shape(y)} (targets)"
            names = "x and y" if split == "all" else f"x_{split} and y_{split}"
            raise DataError(
                f"{names} have the shapes {both}\n  expected the same number of both, at least one, with values"
            )
    if len({y is None for _, y in parts.values()}) > 1:
        raise DataError("some splits have targets and some have none\n  expected targets for all, or for none")
    shapes = {x.shape[1:] for x, _ in parts.values()}
    if len(shapes) > 1:
        raise DataError(f"the splits' inputs have the shapes {some(list(map(str, shapes)))}\n  expected one shape")
    return {split: (x, None if y is None else _flat(np.asarray(y))) for split, (x, y) in parts.items()}


def _flat(y: np.ndarray) -> np.ndarray:
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def joined(parts: Mapping[str, Pair]) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    """Return all inputs, all targets, and the rows of each split. Raises DataError unless they are finite numbers."""
    for split, (x, _) in parts.items():
        check_numbers("x" if split == "all" else f"x_{split}", x)
    rows, first = {}, 0
    for split, (x, _) in parts.items():
        rows[split] = np.arange(first, first + len(x))
        first += len(x)
    if len(parts) == 1:
        return *next(iter(parts.values())), rows
    targets = [y for _, y in parts.values() if y is not None]
    if len({y.dtype.kind in "US" for y in targets}) > 1:
        raise DataError("y holds texts in some splits and numbers in others\n  expected one kind of targets for all")
    return np.concatenate([x for x, _ in parts.values()]), np.concatenate(targets) if targets else None, rows
