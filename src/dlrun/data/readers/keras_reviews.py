"""The IMDB reviews as Keras publishes them, imdb.npz and imdb_word_index.json, read without running their pickles."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dlrun.data.corpus import Text
from dlrun.data.readers.formats import SafeUnpickler
from dlrun.errors import DataError

_PARTS = ("x_train", "y_train", "x_test", "y_test")


def keras_reviews(arrays: Path, index: Path) -> Iterator[Text]:
    """The reviews as words between blanks: the arrays hold ranks, 1 for the most frequent word."""
    words = _words(index)
    columns = _arrays(arrays)
    for part in ("train", "test"):
        x, y = columns[f"x_{part}"], columns[f"y_{part}"]
        if y.ndim != 1 or y.dtype.kind not in "iu" or not np.isin(y, (0, 1)).all():
            raise damaged(arrays, f"y_{part} of {y.dtype} with other values", "0 and 1, whole numbers, in one row")
        if x.ndim != 1 or len(x) != len(y):
            raise damaged(arrays, f"{len(y):,} labels of {x.shape} reviews", "as many")
        for ranks, label in zip(x, y, strict=True):
            try:
                text = " ".join([words[rank] for rank in ranks])
            except (KeyError, TypeError):
                raise damaged(
                    arrays, "a review with a word that is not in the index", f"those of {index.name}"
                ) from None
            yield Text(part == "test", int(label), text.encode())


def damaged(path: Path, found: str, expected: str) -> DataError:
    return DataError(f"{path} is damaged: {found}\n  expected {expected}\n  fetch Keras's file again")


def _words(path: Path) -> dict[int, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {int(rank): str(word) for word, rank in found.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}", "words and their ranks, as JSON") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as pack:
            return {name: _array(pack, f"{name}.npy") for name in _PARTS}
    except DataError as error:
        raise DataError(
            f"{path} is refused: its pickle {error}, and loading that could run code\n"
            "  expected lists of numbers; fetch the published file again"
        ) from None
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}", f"a zip file with {', '.join(_PARTS)}") from None
    except Exception as error:  # hostile or cut bytes can fail in any way at all
        raise damaged(path, f"{type(error).__name__}: {error}", "NumPy arrays of lists of numbers") from None


def _array(pack: zipfile.ZipFile, name: str) -> np.ndarray:
    with pack.open(name) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        _, _, dtype = read_header(file)
        if dtype.hasobject:
            return SafeUnpickler(file, encoding="latin1").load()
    with pack.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
