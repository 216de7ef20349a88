"""Read the IMDB reviews from Keras's files, imdb.npz and imdb_word_index.json, without running their pickles."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dlrun.data.readers.formats import SafeUnpickler
from dlrun.data.texts.corpus import Text
from dlrun.errors import DataError, counted

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def keras_reviews(arrays: Path, index: Path) -> Iterator[Text]:
    """Yield the reviews as words separated by blanks. The arrays hold ranks of words, 1 for the most frequent."""
    words = _words(index)
    columns = _arrays(arrays)
    for split in ("train", "test"):
        x, y = columns[f"x_{split}"], columns[f"y_{split}"]
        if y.ndim != 1 or y.dtype.kind not in "iu" or not np.isin(y, (0, 1)).all():
            raise damaged(arrays, f"y_{split} of {y.dtype} with other values", "one row of the whole numbers 0 and 1")
        if x.ndim != 1 or len(x) != len(y):
            raise damaged(arrays, f"{counted(len(y), 'label')} of {x.shape} reviews", "one label for each review")
        for ranks, label in zip(x, y, strict=True):
            try:
                text = " ".join([words[rank] for rank in ranks])
            except (KeyError, TypeError):
                raise damaged(
                    arrays, "a review with a word that is not in the index", f"words of {index.name}"
                ) from None
            yield Text(split == "test", int(label), text.encode())


def damaged(path: Path, problem: str, expected: str) -> DataError:
    """Return the error for a damaged file."""
    return DataError(f"{path} is damaged: {problem}\n  expected {expected}\n  fetch Keras's file again")


def _words(path: Path) -> dict[int, str]:
    try:
        ranks = json.loads(path.read_text(encoding="utf-8"))
        return {int(rank): str(word) for word, rank in ranks.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}", "words and their ranks, as JSON") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as pack:
            return {name: _array(pack, f"{name}.npy") for name in _ARRAYS}
    except DataError as error:
        raise DataError(
            f"{path} is refused: its pickle {error}, which could run code\n"
            "  expected lists of numbers; fetch the published file again"
        ) from None
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}", f"a zip file with {', '.join(_ARRAYS)}") from None
    except Exception as error:  # hostile or truncated bytes can raise anything
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
