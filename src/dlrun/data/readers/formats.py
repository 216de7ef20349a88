"""Read IDX and CIFAR files as NumPy arrays. Errors name the damaged file, its content, and the expected content."""

import gzip
import pickle
import re
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dlrun.errors import DataError, counted

CHUNK = 1 << 20  # bytes read at a time into the final array, so that a data set is never copied
PIXELS = 3 * 32 * 32  # numbers of a CIFAR image


def damaged(path: Path, problem: str, expected: str) -> DataError:
    """Return the error for a damaged file."""
    return DataError(f"{path} is damaged: {problem}\n  expected {expected}\n  delete it, so that it is fetched again")


def read_idx(path: Path, dims: int) -> np.ndarray:
    """Read an IDX file of bytes, .gz or not, with `dims` dimensions. Raises DataError if it is damaged."""
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            start = file.read(4 + 4 * dims)
            if len(start) < 4 + 4 * dims:
                raise damaged(path, f"{counted(len(start), 'byte')} in all", f"an IDX header of {4 + 4 * dims}")
            header = np.frombuffer(start, dtype=">u4")
            if header[0] != 0x800 + dims:  # 0x08: unsigned bytes
                raise damaged(path, f"magic number {header[0]}", f"{0x800 + dims} (IDX)")
            shape = tuple(int(n) for n in header[1:])
            # A .gz is at most 1,032 times smaller than its content: a header that claims more is wrong.
            size = path.stat().st_size * 1032 if packed else path.stat().st_size - header.nbytes
            if prod(shape) > size:
                raise damaged(path, counted(size, "byte"), f"{prod(shape):,} for {'x'.join(map(str, shape))}")
            array = np.empty(shape, np.uint8)
            _fill(path, file, array.data.cast("B") if array.size else memoryview(b""))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, str(error), "a complete .gz file") from None
    return array


def _fill(path: Path, file: BufferedIOBase, view: memoryview) -> None:
    """Fill `view` from the file. Raises DataError if the file is shorter or longer."""
    got = 0
    while got < len(view) and (count := file.readinto(view[got : got + CHUNK])):
        got += count
    if got < len(view) or file.read(1):
        more = "" if got < len(view) else " and more"
        raise damaged(path, f"{counted(got, 'byte')} after the header{more}", f"{len(view):,}")


def read_cifar(paths: list[Path], label: int | str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read CIFAR files into one array: images uint8 (N, 3, 32, 32) and labels int64 (N,).

    label: number of label bytes before an image (binary files), or the key of the labels (pickles).
    """
    most = sum(path.stat().st_size for path in paths) // PIXELS  # an upper bound: only written pages take memory
    x, y, n = np.empty((most, 3, 32, 32), np.uint8), np.empty(most, np.int64), 0
    for path in paths:
        for pixels, labels in _records(path, label) if isinstance(label, int) else _pickled(path, label):
            wrong = labels[(labels < 0) | (labels >= classes)]
            if len(wrong):
                raise damaged(path, f"label {wrong[0]}", f"0 to {classes - 1}")
            x[n : n + len(pixels)] = pixels.reshape(-1, 3, 32, 32)
            y[n : n + len(pixels)] = labels
            n += len(pixels)
            del pixels  # free the 31 MB of a pickle before the next one is loaded
    return x[:n], y[:n]


def _records(path: Path, label_bytes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    size = label_bytes + PIXELS
    if path.stat().st_size % size or not path.stat().st_size:
        raise damaged(path, counted(path.stat().st_size, "byte"), f"a multiple of {size:,}")
    with open(path, "rb") as file:
        while len(chunk := np.fromfile(file, np.uint8, 500 * size)):
            rows = chunk.reshape(-1, size)
            yield rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)


def _pickled(path: Path, key: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    batch = _load(path)
    try:
        pixels, labels = batch["data"], np.array(batch[key], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise damaged(path, "no usable content", f"a dict with 'data' and {key!r}") from None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (*labels.shape, PIXELS):
        content = f"{getattr(pixels, 'dtype', type(pixels).__name__)} of shape {getattr(pixels, 'shape', '?')}"
        raise damaged(path, content, f"uint8 of shape ({len(labels)}, {PIXELS})")
    yield pixels, labels


def _latin1(text: str, encoding: str) -> bytes:
    """A stand-in for _codecs.encode, by which Python 3 pickles bytes under protocol 2; latin1 only."""
    if encoding != "latin1":
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


KINDS = re.compile(r"[biu][1248]|O[48]")  # the accepted types: whole numbers and objects


class Kind:
    """A stand-in for numpy.dtype in a pickle, which accepts plain types only."""

    def __init__(self, name: str | bytes, *flags: object) -> None:
        self.name, self.order = name.decode() if isinstance(name, bytes) else name, "|"
        if not KINDS.fullmatch(self.name):
            raise DataError(f"asks for an array of {self.name}")

    def __setstate__(self, state: tuple) -> None:
        """Set the byte order. state: (version, byte order, and three fields that only structured arrays have)."""
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(state[2:5]):
            raise DataError("asks for an array with fields")
        self.order = order

    def dtype(self) -> np.dtype:
        """Return the NumPy type, with its byte order."""
        return np.dtype(self.order + self.name)


class Stored:
    """A stand-in for numpy.ndarray in a pickle. NumPy itself would allocate an array before its values are read."""

    array: np.ndarray | None = None

    def __init__(self, subtype: object, shape: tuple, kind: bytes) -> None:
        if subtype is not NDARRAY:
            raise DataError("asks for another kind of array")

    def __setstate__(self, state: tuple) -> None:
        """Set the array. state: (version, shape, Kind, is Fortran order, the values: bytes or a list of objects)."""
        _, shape, kind, is_fortran, values = state
        if not isinstance(kind, Kind):
            raise DataError("asks for an array of another kind")
        values = values.encode("latin1") if isinstance(values, str) else values
        if kind.name[0] == "O":
            flat = np.fromiter(values, object, len(values))
        else:
            flat = np.frombuffer(values, kind.dtype())
        self.array = flat.reshape(shape, order="F" if is_fortran else "C")


NDARRAY = "numpy.ndarray"  # only a name, which a pickle can pass to `Stored` but not call
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): Stored,
    ("numpy._core.multiarray", "_reconstruct"): Stored,
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): Kind,
    ("_codecs", "encode"): _latin1,
}


class SafeUnpickler(pickle.Unpickler):
    """An unpickler that can only make containers and arrays. A pickle is a program, which could run any code."""

    def find_class(self, module: str, name: str) -> object:
        """Return a stand-in for an allowed name. Raises DataError for any other."""
        if (module, name) not in _ALLOWED:
            raise DataError(f"asks for {module}.{name}")
        return _ALLOWED[module, name]

    def load(self) -> Any:
        """Load an array or containers; a caller must check which. Arrays in a dict are returned as arrays, too."""
        content = super().load()
        if isinstance(content, dict):
            return {key: value.array if isinstance(value, Stored) else value for key, value in content.items()}
        return content.array if isinstance(content, Stored) else content


def _load(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            batch = SafeUnpickler(file, encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    except DataError as error:
        raise DataError(
            f"{path} is refused: its pickle {error}, which could run code\n"
            "  expected NumPy arrays and plain containers only\n"
            "  delete the folder, so that the published files are fetched again"
        ) from None
    except Exception as error:  # hostile or truncated bytes can raise anything
        raise damaged(path, f"{type(error).__name__}: {error}", "a pickled dict") from None
