"""Vectors of words as text, in GloVe's format (a word and its numbers per line), and which words are near each other.

Source: Pennington et al. 2014 (nlp.stanford.edu/projects/glove); book section 11.1 (cosine similarity), notes E37.
"""

import csv
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.errors import DataError
from dlrun.paths import open_plain

NEAREST = 10  # words beside each word of a table


def read_vectors(path: Path, words: Iterable[str], size: int) -> tuple[Tensor, int]:
    """The vectors of these words (zero where the file has none), and how many it has. The file is streamed.

    Raises DataError for a line that is not a word and `size` columns; what they hold is read where the word is wanted.
    """
    places = {word: i for i, word in enumerate(words)}
    vectors, seen = torch.zeros(len(places), size), set()
    try:
        with open_plain(path) as file:
            for number, line in enumerate(file, 1):
                columns = line.rstrip(b"\r\n").rstrip(b" ").split(b" ")
                if number == 1 and line.startswith(b"\x1f\x8b"):
                    raise DataError(f"model.embedding.file={path}: it is packed\n  expected a text file: gunzip it")
                if number == 1 and len(columns) == 2 and all(column.isdigit() for column in columns):
                    continue  # word2vec's heading: how many words, how many numbers
                if len(columns) != size + 1 and not _has_blanks(columns, size):
                    raise _bad_line(path, number, f"{len(columns) - 1} numbers", size)
                word = b" ".join(columns[:-size]).decode("utf-8", errors="replace")
                if word in places and word not in seen:
                    seen.add(word)
                    vectors[places[word]] = _numbers(path, number, columns[-size:])
    except OSError as error:
        raise DataError(
            f"model.embedding.file={path}: {error.strerror}\n"
            "  expected a text file with a word and its numbers per line"
        ) from None
    if places and not seen:
        raise DataError(
            f"model.embedding.file={path} has none of the {len(places):,} words: expected the same language"
        )
    return vectors, len(seen)


def _has_blanks(columns: list[bytes], size: int) -> bool:
    """Whether the line is longer because its word has blanks in it, as some of GloVe's 840B have: no more numbers."""
    if not size + 1 < len(columns) <= size + 8:
        return False
    try:
        float(columns[-size - 1])
    except ValueError:
        return True
    return False


def _numbers(path: Path, number: int, columns: list[bytes]) -> Tensor:
    try:
        values = [float(column) for column in columns]
    except ValueError:
        values = [float("nan")]
    found = torch.tensor(values)
    if not found.isfinite().all():
        raise _bad_line(path, number, "something that is no finite number", len(columns))
    return found


def _bad_line(path: Path, number: int, found: str, size: int) -> DataError:
    return DataError(
        f"model.embedding.file={path}, line {number}: {found} behind the word\n"
        f"  expected {size}, as model.embedding.size says"
    )


def write_vectors(words: Iterable[str], vectors: Tensor) -> str:
    """The text of a file that `read_vectors` reads to the same bits. vectors: float32 (words, size)."""
    rows = zip(words, vectors.tolist(), strict=True)
    return "".join(f"{word} {' '.join([f'{value:.9g}' for value in row])}\n" for word, row in rows)


def write_neighbours(wanted: list[str], words: tuple[str, ...], vectors: Tensor) -> str:
    """A CSV: the words whose vectors point most nearly where that of each wanted word does, by the angle's cosine."""
    places = {word: i for i, word in enumerate(words)}
    directions = F.normalize(vectors, dim=1)  # a vector of zeros stays one
    out = StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("word", "neighbour", "cosine"))
    for word in wanted:
        if word not in places:
            table.writerow((word, "(not in the vocabulary)", ""))
            continue
        cosines = directions @ directions[places[word]]
        cosines[places[word]] = -2  # not itself
        best = cosines.topk(min(NEAREST, len(words) - 1))
        table.writerows((word, words[i], f"{c:.4f}") for c, i in zip(*map(Tensor.tolist, best), strict=True))
    return out.getvalue()
