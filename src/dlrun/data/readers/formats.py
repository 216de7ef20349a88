"""What the files of IDX and CIFAR say, as NumPy arrays. Damage is named, with what was found and what was expected."""

import gzip
import pickle
import re
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from dlrun.errors import DataError

CHUNK = 1 << 20  # bytes read at a time into the array that is kept: no second copy of a data set is ever made
PIXELS = 3 * 32 * 32  # of a CIFAR picture


def damaged(path: Path, found: str, expected: str) -> DataError:
    return DataError(f"{path} is damaged: {found}\n  expected {expected}\n  delete it, so that it is fetched again")


def read_idx(path: Path, dims: int) -> np.ndarray:
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            start = file.read(4 + 4 * dims)
            if len(start) < 4 + 4 * dims:
                raise damaged(path, f"{len(start)} bytes in all", f"an IDX header of {4 + 4 * dims}")
            header = np.frombuffer(start, dtype=">u4")
            if header[0] != 0x800 + dims:  # 0x08: unsigned bytes
                raise damaged(path, f"magic number {header[0]}", f"{0x800 + dims} (IDX)")
            shape = tuple(int(n) for n in header[1:])
            # A .gz is at most 1,032 times smaller than what is in it: beyond that the header lies.
            there = path.stat().st_size * 1032 if packed else path.stat().st_size - header.nbytes
            if prod(shape) > there:
                raise damaged(path, f"{there:,} bytes", f"{prod(shape):,} for {'x'.join(map(str, shape))}")
            array = np.empty(shape, np.uint8)
            _fill(path, file, memoryview(array).cast("B") if array.size else memoryview(b""))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, str(error), "a whole .gz file") from None
    return array


def _fill(path: Path, file: IO[bytes], view: memoryview) -> None:
    got = 0
    while got < len(view) and (count := file.readinto(view[got : got + CHUNK])):
        got += count
    if got < len(view) or file.read(1):
        more = "" if got < len(view) else " and more"
        raise damaged(path, f"{got:,} bytes after the header{more}", f"{len(view):,}")


def read_cifar(paths: list[Path], label: int | str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """All of `paths` in one array, with room for the most there can be: only what is written takes memory."""
    room = sum(path.stat().st_size for path in paths) // PIXELS
    x, y, n = np.empty((room, 3, 32, 32), np.uint8), np.empty(room, np.int64), 0
    for path in paths:
        for pixels, labels in _records(path, label) if isinstance(label, int) else _pickled(path, label):
            wrong = labels[(labels < 0) | (labels >= classes)]
            if len(wrong):
                raise damaged(path, f"label {wrong[0]}", f"0 to {classes - 1}")
            x[n : n + len(pixels)] = pixels.reshape(-1, 3, 32, 32)
            y[n : n + len(pixels)] = labels
            n += len(pixels)
            del pixels  # 31 MB of a pickle, before the next one is loaded
    return x[:n], y[:n]


def _records(path: Path, label_bytes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    size = label_bytes + PIXELS
    if path.stat().st_size % size or not path.stat().st_size:
        raise damaged(path, f"{path.stat().st_size:,} bytes", f"a multiple of {size:,}")
    with open(path, "rb") as file:
        while len(some := np.fromfile(file, np.uint8, 500 * size)):
            rows = some.reshape(-1, size)
            yield rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)


def _pickled(path: Path, key: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    batch = _load(path)
    try:
        pixels, labels = batch["data"], np.array(batch[key], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise damaged(path, "no usable content", f"a dict with 'data' and {key!r}") from None
    fits = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (*labels.shape, PIXELS)
    if not fits:
        found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} of shape {getattr(pixels, 'shape', '?')}"
        raise damaged(path, found, f"uint8 of shape ({len(labels)}, {PIXELS})")
    yield pixels, labels


def _latin1(text: str, encoding: str) -> bytes:
    """The one use of _codecs.encode in these pickles: Python 3 writes bytes so under protocol 2."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


KINDS = re.compile(r"[biu][1248]|O[48]")  # of numbers, and of objects


class Kind:
    """In the place of numpy.dtype: what a pickle may say of one."""

    def __init__(self, name: str | bytes, *flags: object) -> None:
        self.name, self.order = name.decode() if isinstance(name, bytes) else name, "|"
        if not KINDS.fullmatch(self.name):
            raise DataError(f"asks for an array of {self.name}")

    def __setstate__(self, state: tuple) -> None:
        """(version, byte order, and what only structured arrays have)."""
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(state[2:5]):
            raise DataError("asks for an array with fields")
        self.order = order

    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.name)


class Stored:
    """In the place of an array: NumPy would take its memory as it is before the values come, if they do."""

    array: np.ndarray | None = None

    def __init__(self, subtype: object, shape: tuple, kind: bytes) -> None:
        if subtype is not NDARRAY:
            raise DataError("asks for another kind of array")

    def __setstate__(self, state: tuple) -> None:
        """(version, shape, Kind, whether columns come first, the values: bytes, or a list of objects)."""
        _, shape, kind, is_fortran, values = state
        if not isinstance(kind, Kind):
            raise DataError("asks for an array of another kind")
        values = values.encode("latin1") if isinstance(values, str) else values
        if kind.name[0] == "O":
            found = np.fromiter(values, object, len(values))
        else:
            found = np.frombuffer(values, kind.dtype())
        self.array = found.reshape(shape, order="F" if is_fortran else "C")


NDARRAY = "numpy.ndarray"  # only a name: a pickle can hand it to `Stored`, and not call it
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): Stored,
    ("numpy._core.multiarray", "_reconstruct"): Stored,
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): Kind,
    ("_codecs", "encode"): _latin1,
}


class SafeUnpickler(pickle.Unpickler):
    """A pickle is a program: this one can make containers and arrays of whole values, and call nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise DataError(f"asks for {module}.{name}")
        return _ALLOWED[module, name]

    def load(self) -> object:
        """An array, or containers; those in a dict are arrays, too."""
        found = super().load()
        if isinstance(found, dict):
            return {key: value.array if isinstance(value, Stored) else value for key, value in found.items()}
        return found.array if isinstance(found, Stored) else found


def _load(path: Path) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            batch = SafeUnpickler(file, encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    except DataError as error:
        raise DataError(
            f"{path} is refused: its pickle {error}, and loading that could run code\n"
            "  expected NumPy arrays and plain containers only\n"
            "  delete the folder, so that the published files are fetched again"
        ) from None
    except Exception as error:  # hostile or cut bytes can fail in any way at all
        raise damaged(path, f"{type(error).__name__}: {error}", "a pickled dict") from None
